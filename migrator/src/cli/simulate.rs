//! `migrator simulate`.

use clap::ValueEnum;
use comfy_table::Table;
use daemon::output::print_line;

use crate::balance::{Policy, peak, reference};
use crate::simulate::{
    ACCOUNTS_MAX, BACKENDS_MAX, DAYS_MAX, Report, Scenario, Settings, Size, run,
};

/// What to simulate.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Accounts; above a million they are simulated in cohorts.
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1..=ACCOUNTS_MAX))]
    accounts: u64,
    /// Back-ends at the beginning; one more joins at half time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=BACKENDS_MAX as u64))]
    backends: u64,
    /// Days to report. The week before them is only measured.
    #[arg(long, value_name = "N", default_value_t = 70, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// The rules to balance by.
    #[arg(long, value_enum, default_value_t)]
    policy: PolicyName,
    /// What happens beside noise, drift and churn.
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// A policy by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PolicyName {
    /// The published rules.
    Reference,
    /// The worst hour of the week, for few octets.
    #[default]
    Peak,
    /// Nothing is moved.
    None,
}

pub(super) fn perform(arguments: &Arguments) -> Result<(), String> {
    let settings = Settings {
        days: arguments.days,
        scenario: arguments.scenario,
        policy: match arguments.policy {
            PolicyName::Reference => Some(Policy::Reference(reference::Settings::default())),
            PolicyName::Peak => Some(Policy::Peak(peak::Settings::default())),
            PolicyName::None => None,
        },
        seed: arguments.seed,
        half_life_days: 14.0,
    };
    if arguments.accounts < arguments.backends {
        return Err(format!(
            "{} accounts cannot be spread over {} back-ends; give at least as many accounts",
            arguments.accounts, arguments.backends
        ));
    }
    let size = Size {
        accounts: arguments.accounts,
        backends: arguments.backends as usize,
    };
    let report = run(size, &settings).map_err(|error| error.to_string())?;
    show(&report, arguments.json)
}

fn show(report: &Report, json: bool) -> Result<(), String> {
    if json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        print_line(text);
        return Ok(());
    }
    let percent = |share: f64| format!("{:.4} %", share * 100.0);
    let ratio = |ratio: f64| format!("{ratio:.3}");
    let mut table = Table::new();
    table.set_header(["figure", report.policy]);
    table.add_row([
        "peak to mean, mean of days",
        &ratio(report.peak_to_mean_mean),
    ]);
    table.add_row([
        "peak to mean, 95 of 100 days",
        &ratio(report.peak_to_mean_p95),
    ]);
    table.add_row(["peak to mean, worst day", &ratio(report.peak_to_mean_max)]);
    let any_hour = ratio(report.any_hour_peak_to_mean_p95);
    table.add_row(["the same in any hour, 95 of 100 days", &any_hour]);
    let per_day = percent(report.moved_share_per_day);
    table.add_row(["octets moved in a day, of those stored", &per_day]);
    table.add_row(["octets moved in all", &percent(report.moved_share_total)]);
    table.add_row(["accounts moved", &report.moves.to_string()]);
    table.add_row([
        "of them again within 14 days",
        &percent(report.removed_14d_share),
    ]);
    table.add_row([
        "of them back within 28 days",
        &percent(report.returned_28d_share),
    ]);
    let fill = report.fill_days;
    let fill = fill.map_or_else(|| "never".to_owned(), |days| days.to_string());
    table.add_row(["days to fill the new back-end", &fill]);
    print_line(table);
    Ok(())
}
