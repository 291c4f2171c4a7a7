//! One page with everything in it: no scripts, and nothing is fetched from elsewhere.

use std::fmt::{Display, Write as _};

use indicatif::HumanBytes;

use super::charts::{AFTER, BEFORE, Line, lines};
use super::{percent, remarks, summary};
use crate::plan_file::{BackendPlan, PlanFile, hour_told};
use crate::simulate::Report;
use crate::simulate::report::Day;

/// The page of a plan.
pub(crate) fn of_plan(plan: &PlanFile) -> String {
    let average = plan.average();
    let mut body = table(
        &[],
        summary(plan)
            .into_iter()
            .map(|(a, b)| vec![a.to_owned(), b]),
    );
    for line in remarks(plan) {
        let _ = write!(body, "<p class=remark>{}</p>", escaped(&line));
    }
    heading(
        &mut body,
        "Back-ends in their worst hour, against the average",
    );
    let worst = |one: &BackendPlan, hours: &[f64]| match one.worst(hours, average) {
        (_, 0.0) => "0.0 %".to_owned(),
        (hour, share) => format!("{} on {}", percent(share), hour_told(hour)),
    };
    let rows = plan.backends.iter().map(|one| {
        vec![
            one.name.to_string(),
            format!("{:?}", one.state).to_lowercase(),
            one.weight.to_string(),
            worst(one, &one.before),
            worst(one, &one.after),
        ]
    });
    let head = ["back-end", "state", "weight", "before", "after"];
    body.push_str(&table(&head, rows));
    heading(&mut body, "Load by hour of the week, before and after");
    legend(&mut body);
    // Those that change most first: of hundreds nobody looks at all.
    let mut order: Vec<&BackendPlan> = plan.backends.iter().collect();
    let change = |one: &BackendPlan| -> f64 {
        let hours = one.before.iter().zip(&one.after);
        hours.map(|(before, after)| (after - before).abs()).sum()
    };
    order.sort_by(|one, other| change(other).total_cmp(&change(one)));
    for one in order.iter().take(CHARTS_MAX) {
        let share = |hours: &[f64]| -> Vec<f64> {
            let whole = average * f64::from(one.weight.max(1));
            let of = |hour: &f64| if whole > 0.0 { hour / whole } else { 0.0 };
            hours.iter().map(of).collect()
        };
        let (before, after) = (share(&one.before), share(&one.after));
        let both = [
            Line {
                values: &before,
                color: BEFORE,
            },
            Line {
                values: &after,
                color: AFTER,
            },
        ];
        let day = |hour: f64| hour_told(hour.max(0.0) as usize)[..3].to_owned();
        if let Some(svg) = lines(&both, (640, 180), day) {
            let name = escaped(&one.name.to_string());
            let _ = write!(
                body,
                "<figure><figcaption>{name}</figcaption>{svg}</figure>"
            );
        }
    }
    more(&mut body, order.len(), CHARTS_MAX, "back-ends");
    heading(&mut body, "Moves, in their order");
    let rows = plan.moves.iter().take(ROWS_MAX).map(|one| {
        vec![
            one.account.to_string(),
            one.from.to_string(),
            one.to.to_string(),
            HumanBytes(one.octets).to_string(),
            one.why.told(),
        ]
    });
    body.push_str(&table(&["account", "from", "to", "octets", "why"], rows));
    more(&mut body, plan.moves.len(), ROWS_MAX, "moves");
    page("Plan of moves", &body)
}

/// The page of a simulation.
pub(crate) fn of_simulation(report: &Report) -> String {
    let days = &report.daily;
    let mut body = table(&[], super::figures(report).into_iter());
    let day = |day: f64| format!("day {}", day as u64 + 1);
    let chart = |body: &mut String, title: &str, values: Vec<f64>| {
        heading(body, title);
        let line = Line {
            values: &values,
            color: AFTER,
        };
        if let Some(svg) = lines(&[line], (900, 240), day) {
            let _ = write!(body, "<figure>{svg}</figure>");
        }
    };
    let peaks = days.iter().map(Day::peak_to_mean).collect();
    chart(
        &mut body,
        "The most loaded back-end against the mean, in the worst hour of each day",
        peaks,
    );
    let any = days.iter().map(|day| day.any_hour).collect();
    chart(&mut body, "The same in whichever hour was worst", any);
    if days.iter().any(|day| day.new_backend.is_some()) {
        let new = days.iter().map(|day| day.new_backend.unwrap_or(0.0));
        let title = "The back-end that joins, against the mean";
        chart(&mut body, title, new.collect());
    }
    let mut sum = 0.0;
    let moved = days.iter().map(|day| {
        sum += day.moved / day.stored.max(1.0) * 100.0;
        sum
    });
    let title = "Octets moved so far, of a hundredth of those stored";
    chart(&mut body, title, moved.collect());
    page("Simulation of a policy", &body)
}

fn heading(body: &mut String, text: &str) {
    let _ = write!(body, "<h2>{}</h2>", escaped(text));
}

fn legend(body: &mut String) {
    for (color, text) in [(BEFORE, "before"), (AFTER, "after")] {
        let (red, green, blue) = (color.0, color.1, color.2);
        let _ = write!(
            body,
            "<span class=key style=\"color:#{red:02x}{green:02x}{blue:02x}\">&#9632; {text}</span>"
        );
    }
}

fn more(body: &mut String, count: usize, shown: usize, what: &str) {
    let left = count.saturating_sub(shown);
    if left > 0 {
        let _ = write!(
            body,
            "<p>… and {left} more {what}: the plan's file has all of them.</p>"
        );
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = String::from("<table>");
    if !head.is_empty() {
        text.push_str("<tr>");
        for cell in head {
            let _ = write!(text, "<th>{}</th>", escaped(cell));
        }
        text.push_str("</tr>");
    }
    for row in rows {
        text.push_str("<tr>");
        for cell in row {
            let _ = write!(text, "<td>{}</td>", escaped(&cell));
        }
        text.push_str("</tr>");
    }
    text.push_str("</table>");
    text
}

fn page(title: &str, body: &impl Display) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>{title}</title>\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>{body}</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            one => out.push(one),
        }
    }
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}\
    table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}\
    figure{display:inline-block;margin:.5em 0}svg{max-width:100%;height:auto}.key{margin-right:1.5em}.remark{font-weight:600}";
/// Of more nobody looks at each.
const CHARTS_MAX: usize = 60;
const ROWS_MAX: usize = 5_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::balance::{Policy, peak};
    use crate::inventory::tests::inventory;

    #[test]
    fn a_page_has_everything_in_it_and_asks_for_nothing_from_elsewhere() {
        let policy = Policy::Peak(peak::Settings::default());
        let inventory = inventory(400);
        let plan = PlanFile::make(&inventory, &policy, 1, &HashSet::new(), (5, 1_000)).unwrap();
        let page = of_plan(&plan);
        assert_eq!(page.matches("<svg").count(), 2);
        for absent in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(absent), "{absent}");
        }
        // The name space of SVG is a name, and nothing is fetched by it.
        let addresses = page.matches("http").count();
        let names = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(addresses, names + page.matches("http-equiv").count());
        for one in &plan.moves {
            assert!(page.contains(&format!("<td>{}</td>", one.account)));
        }
    }

    #[test]
    fn what_stands_in_a_page_is_text() {
        assert_eq!(escaped("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
