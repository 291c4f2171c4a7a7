//! `migrator simulate`.

use std::path::PathBuf;

use clap::ValueEnum;
use comfy_table::Table;
use daemon::output::print_line;

use crate::balance::{Policy, peak, reference};
use crate::present;
use crate::simulate::{
    ACCOUNTS_MAX, BACKENDS_MAX, DAYS_MAX, Report, Scenario, Settings, Size, run, run_recorded,
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
    /// Simulate with accounts, back-ends and loads as `migrator plan --record` has kept them, in place of made-up ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["accounts", "backends"])]
    from: Option<PathBuf>,
    /// Write a page with charts, day by day
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
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
    let report = match &arguments.from {
        Some(file) => run_recorded(&super::plan::recorded(file)?, &settings),
        None => {
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
            run(size, &settings)
        }
    };
    let report = report.map_err(|error| error.to_string())?;
    if let Some(path) = &arguments.html {
        let page = present::page::of_simulation(&report);
        super::plan::write(path, page.as_bytes())?;
    }
    show(&report, arguments.json)
}

fn show(report: &Report, json: bool) -> Result<(), String> {
    if json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        print_line(text);
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["figure", report.policy]);
    for row in present::figures(report) {
        table.add_row(row);
    }
    print_line(table);
    Ok(())
}
