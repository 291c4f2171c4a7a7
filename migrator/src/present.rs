//! Shows plans and what came of them: tables for a terminal, one page with charts for a browser.

mod charts;
pub(crate) mod page;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;

use comfy_table::Table;
use indicatif::{HumanBytes, HumanDuration};

use crate::plan_file::{PlanFile, hour_told};
use crate::simulate::Report;

/// Rows of moves that a terminal is shown; the page has more, and the file all.
const MOVES_SHOWN: usize = 20;

/// What the plan comes to, line by line.
pub(crate) fn summary(plan: &PlanFile) -> Vec<(&'static str, String)> {
    let taken = daemon::clock::rfc5322_date(plan.taken_ms);
    let share = plan.moved_octets as f64 / (plan.stored_octets.max(1)) as f64 * 100.0;
    let mut rows = vec![
        ("load taken", taken),
        ("policy", plan.policy.clone()),
        (
            "accounts",
            format!("{} of {}", plan.moves.len(), plan.accounts),
        ),
        (
            "octets",
            format!(
                "{} of {} ({share:.3} %)",
                HumanBytes(plan.moved_octets),
                HumanBytes(plan.stored_octets)
            ),
        ),
        ("time, at most", duration(plan.duration_s)),
    ];
    if let Some(idle) = plan.idle {
        rows.push(("nothing is moved", idle.to_string()));
    }
    rows
}

/// Prints a plan.
pub(crate) fn plan(plan: &PlanFile) -> String {
    let mut text = String::new();
    let mut figures = Table::new();
    for (name, value) in summary(plan) {
        figures.add_row([name, &value]);
    }
    push(&mut text, &figures);
    let average = plan.average();
    let mut backends = Table::new();
    backends.set_header([
        "back-end",
        "state",
        "worst hour",
        "of average",
        "then",
        "of average",
    ]);
    for one in &plan.backends {
        let cells = |hours: &[f64]| match one.worst(hours, average) {
            (_, 0.0) => ("-".to_owned(), "0.0 %".to_owned()),
            (hour, share) => (hour_told(hour), percent(share)),
        };
        let (before, after) = (cells(&one.before), cells(&one.after));
        backends.add_row([
            one.name.to_string(),
            format!("{:?}", one.state).to_lowercase(),
            before.0,
            before.1,
            after.0,
            after.1,
        ]);
    }
    push(&mut text, &backends);
    if !plan.moves.is_empty() {
        let mut moves = Table::new();
        moves.set_header(["account", "from", "to", "octets", "why"]);
        for one in plan.moves.iter().take(MOVES_SHOWN) {
            moves.add_row([
                one.account.to_string(),
                one.from.to_string(),
                one.to.to_string(),
                HumanBytes(one.octets).to_string(),
                one.why.told(),
            ]);
        }
        push(&mut text, &moves);
    }
    let more = plan.moves.len().saturating_sub(MOVES_SHOWN);
    if more > 0 {
        text.push_str(&format!("… and {more} more\n"));
    }
    for line in remarks(plan) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// What somebody should look at.
pub(crate) fn remarks(plan: &PlanFile) -> Vec<String> {
    let left = plan.left.iter().map(|left| match left.accounts {
        0 => format!(
            "{} stays {:.1} % above the average: {}",
            left.backend,
            left.above * 100.0,
            left.obstacle
        ),
        accounts => format!(
            "{accounts} accounts stay on {}: {}",
            left.backend, left.obstacle
        ),
    });
    let giants = plan.giants.iter().map(|giant| {
        let moved = match giant.moved {
            true => "moved because its back-end is emptied",
            false => "not moved",
        };
        format!(
            "account {} on {} is {:.0} % of an average back-end in its worst hour: {moved}, somebody should look",
            giant.account,
            giant.home,
            giant.share * 100.0
        )
    });
    left.chain(giants).collect()
}

/// What a simulation has reached.
pub(crate) fn figures(report: &Report) -> Vec<Vec<String>> {
    let share = |share: f64| format!("{:.4} %", share * 100.0);
    let ratio = |ratio: f64| format!("{ratio:.3}");
    let fill = report.fill_days;
    let rows = [
        (
            "peak to mean, mean of days",
            ratio(report.peak_to_mean_mean),
        ),
        (
            "peak to mean, 95 of 100 days",
            ratio(report.peak_to_mean_p95),
        ),
        ("peak to mean, worst day", ratio(report.peak_to_mean_max)),
        (
            "the same in any hour, 95 of 100 days",
            ratio(report.any_hour_peak_to_mean_p95),
        ),
        (
            "octets moved in a day, of those stored",
            share(report.moved_share_per_day),
        ),
        ("octets moved in all", share(report.moved_share_total)),
        ("accounts moved", report.moves.to_string()),
        (
            "of them again within 14 days",
            share(report.removed_14d_share),
        ),
        (
            "of them back within 28 days",
            share(report.returned_28d_share),
        ),
        (
            "days to fill the new back-end",
            fill.map_or_else(|| "never".to_owned(), |days| days.to_string()),
        ),
    ];
    rows.map(|(name, value)| vec![name.to_owned(), value])
        .into()
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(crate) fn duration(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9).ceil());
    HumanDuration(whole).to_string()
}

fn push(text: &mut String, table: &impl Display) {
    text.push_str(&table.to_string());
    text.push('\n');
}

/// Writes a file whole or not at all.
pub(crate) fn save(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&new, path)
}
