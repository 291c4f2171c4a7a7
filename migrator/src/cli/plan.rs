//! `migrator plan`, `run` and `drain`: says what should be moved; moves it; empties a back-end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comfy_table::Table;
use daemon::clock::now_ms;
use daemon::log::causes;
use daemon::output::print_line;
use daemon::shutdown::Shutdown;
use directory_api::client::DirectoryClient;
use directory_api::{AccountId, BackendName, BackendState};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use store_api::Backends;
use store_api::transfer::PullProgress;

use super::cost::{CostArguments, runner};
use super::simulate::PolicyName;
use super::{Failure, UNFINISHED};
use crate::Config;
use crate::balance::peak::Budget;
use crate::balance::{HOURS, Policy, peak, reference};
use crate::execute::{Done, Outcome, Progress};
use crate::inventory::{Inventory, gather};
use crate::plan_file::{PlanFile, PlannedMove};
use crate::present;

/// What to plan with.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArguments {
    /// Plan with load that was recorded, and ask nobody
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    pub(super) from: Option<PathBuf>,
    /// Keep the load that the plan is made of, for `--from` and `migrator simulate --from`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Where the plan is kept, for `migrator run`
    #[arg(long, value_name = "FILE", default_value = "plan.json")]
    out: PathBuf,
    /// Write a page with charts beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the plan itself instead of a table
    #[arg(long)]
    json: bool,
    /// The rules to balance by
    #[arg(long, value_enum, default_value_t)]
    policy: PolicyName,
    /// Seed of what `reference` draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// This account stays where it is; may be given again
    #[arg(long = "pin", value_name = "ACCOUNT")]
    pinned: Vec<AccountId>,
    /// Move so many octets at most
    #[arg(long, value_name = "N")]
    octets_max: Option<u64>,
    /// Move so many accounts at most
    #[arg(long, value_name = "N")]
    moves_max: Option<u32>,
    /// Reckon the time with so many octets a second
    #[arg(long, value_name = "N", default_value_t = OCTETS_PER_S, value_parser = clap::value_parser!(u64).range(1..))]
    octets_per_s: u64,
}

/// What to run.
#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// The plan, as `migrator plan` has kept it
    plan: PathBuf,
    /// Run it though the load that it was made of is older than so many days
    #[arg(long, value_name = "DAYS", default_value_t = AGE_MAX_DAYS)]
    age_max: u32,
    /// One JSON object with every move instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) cost: CostArguments,
}

/// What to empty.
#[derive(Debug, clap::Args)]
pub(super) struct DrainArguments {
    /// The back-end, which an operator has set to draining
    backend: BackendName,
    #[command(flatten)]
    pub(super) cost: CostArguments,
}

/// Makes a plan of what was recorded; without any, of what `connect` leads to.
pub(super) async fn plan(
    arguments: &PlanArguments,
    connect: impl FnOnce() -> Result<(DirectoryClient, Backends), String>,
) -> Result<(), String> {
    let policy = policy(arguments)?;
    let inventory = match &arguments.from {
        Some(file) => recorded(file)?,
        None => {
            let (directory, backends) = connect()?;
            let gathered = gather(&directory, &backends).await;
            gathered.map_err(|error| causes(&error).to_string())?
        }
    };
    if let Some(path) = &arguments.record {
        let written =
            std::fs::File::create(path).and_then(|file| inventory.write(&mut BufWriter::new(file)));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let pinned: HashSet<AccountId> = arguments.pinned.iter().copied().collect();
    let terms = (now_ms(), arguments.octets_per_s);
    let plan = PlanFile::make(&inventory, &policy, arguments.seed, &pinned, terms);
    let plan = plan.map_err(|error| format!("no plan can be made: {error}"))?;
    let saved = plan.save(&arguments.out);
    saved.map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    if let Some(path) = &arguments.html {
        write(path, present::page::of_plan(&plan).as_bytes())?;
    }
    if arguments.json {
        print_line(serde_json::to_string(&plan).map_err(|error| error.to_string())?);
        return Ok(());
    }
    print_line(present::plan(&plan).trim_end());
    if !plan.moves.is_empty() {
        let path = arguments.out.display();
        print_line(format_args!(
            "nothing was moved; `migrator run {path}` does it"
        ));
    }
    Ok(())
}

fn policy(arguments: &PlanArguments) -> Result<Policy, String> {
    let is_bounded = arguments.octets_max.is_some() || arguments.moves_max.is_some();
    match arguments.policy {
        PolicyName::Peak => Ok(Policy::Peak(peak::Settings {
            budget: Budget {
                octets: arguments.octets_max.unwrap_or(u64::MAX),
                moves: arguments.moves_max.unwrap_or(u32::MAX),
                ..Budget::NONE
            },
            ..peak::Settings::default()
        })),
        PolicyName::Reference if is_bounded => {
            Err("the reference policy has no bounds; leave them out, or take peak".to_owned())
        }
        PolicyName::Reference => Ok(Policy::Reference(reference::Settings::default())),
        PolicyName::None => Err("with the policy none there is nothing to plan".to_owned()),
    }
}

/// Load that was recorded.
pub(super) fn recorded(path: &Path) -> Result<Inventory, String> {
    let told = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    Inventory::read(&mut BufReader::new(file)).map_err(|error| told(&error))
}

/// Writes a file, whole or not at all.
pub(super) fn write(path: &Path, octets: &[u8]) -> Result<(), String> {
    present::save(path, octets).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a plan and tells what was predicted and what came of it.
pub(super) async fn run(
    arguments: &RunArguments,
    config: &Config,
    directory: &DirectoryClient,
    backends: &Backends,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let path = arguments.plan.display();
    let plan = PlanFile::read(&arguments.plan).map_err(|error| format!("{path}: {error}"))?;
    let age_ms = now_ms().saturating_sub(plan.taken_ms).max(0);
    if age_ms > i64::from(arguments.age_max) * DAY_MS {
        let days = age_ms / DAY_MS;
        let line = format!(
            "{path}: the load that it was made of is {days} days old, and who is heavy today may be others; make a new plan, or give --age-max"
        );
        return Err(line.into());
    }
    let began = Instant::now();
    let done = carried_out(&plan, config, (directory, backends), shutdown).await;
    // What was moved is told even where nobody can say what it came to.
    let now = gather(directory, backends).await;
    let now = now.inspect_err(|error| {
        eprintln!(
            "migrator: the load after it is not known: {}",
            causes(error)
        );
    });
    let report = Report::new(&plan, done, began.elapsed(), now.ok().as_ref());
    match arguments.json {
        true => print_line(serde_json::to_string(&report).map_err(|error| error.to_string())?),
        false => print_line(report.table(&plan).trim_end()),
    }
    match report.failed + report.not_tried {
        0 => Ok(()),
        count => Err(Failure {
            line: format!(
                "{count} moves of {} were not done; mend the cause and run the plan again",
                plan.moves.len()
            ),
            code: UNFINISHED,
        }),
    }
}

async fn carried_out(
    plan: &PlanFile,
    config: &Config,
    (directory, backends): (&DirectoryClient, &Backends),
    shutdown: &Shutdown,
) -> Vec<Done> {
    let names = plan.moves.iter().flat_map(|one| [&one.from, &one.to]);
    let names: BTreeSet<BackendName> = names.cloned().collect();
    let mut runner = runner(config, directory, backends, names);
    let mut bar = Bar::new(plan);
    let done = runner.run(plan, &mut bar, shutdown).await;
    bar.bar.finish_and_clear();
    done
}

/// Moves everybody away from a back-end, again as long as that gets on: accounts may come while others go.
pub(super) async fn drain(
    arguments: &DrainArguments,
    config: &Config,
    directory: &DirectoryClient,
    backends: &Backends,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let name = &arguments.backend;
    let told = |error: &(dyn std::error::Error + 'static)| Failure::from(causes(error).to_string());
    // Only an operator may say that.
    let now = directory
        .backend(name)
        .await
        .map_err(|error| told(&error))?;
    if now.state != BackendState::Draining {
        let line = format!(
            "back-end {name} takes new accounts still; `posthouse backend set {name} --state draining` first"
        );
        return Err(line.into());
    }
    let (mut moved, mut gets_on, mut failed) = (0, true, Vec::new());
    loop {
        let inventory = gather(directory, backends).await;
        let inventory = inventory.map_err(|error| told(&error))?;
        let others = inventory.accounts.iter().filter(|one| one.home != *name);
        let others: HashSet<AccountId> = others.map(|one| one.account).collect();
        let left = inventory.accounts.len() - others.len();
        if left == 0 {
            print_line(format_args!(
                "back-end {name} is empty, {moved} accounts were moved"
            ));
            return Ok(());
        }
        let terms = (now_ms(), OCTETS_PER_S);
        let policy = Policy::Peak(peak::Settings::default());
        let plan = PlanFile::make(&inventory, &policy, 0, &others, terms);
        let plan = plan.map_err(|error| format!("no plan can be made: {error}"))?;
        if !gets_on || plan.moves.is_empty() || shutdown.is_requested() {
            let obstacle = plan.left.iter().find(|one| one.backend == *name);
            let obstacle = obstacle.map(|one| format!("; {}", one.obstacle));
            let mut line = format!(
                "{left} accounts are left on back-end {name}, {moved} were moved{}",
                obstacle.unwrap_or_default()
            );
            failed.dedup();
            for cause in failed {
                line.push_str(&format!("; {cause}"));
            }
            let code = UNFINISHED;
            return Err(Failure { line, code });
        }
        let done = carried_out(&plan, config, (directory, backends), shutdown).await;
        let gone = done.iter().filter(|one| one.outcome == Outcome::Moved);
        gets_on = gone.clone().count() > 0;
        moved += gone.count();
        failed = done
            .iter()
            .filter_map(|one| match &one.outcome {
                Outcome::Failed { cause } => {
                    Some(format!("account {}: {cause}", one.planned.account))
                }
                _ => None,
            })
            .collect();
    }
}

/// Predicted against actual.
#[derive(Serialize)]
struct Report {
    moved: usize,
    already_there: usize,
    gone: usize,
    moved_since: usize,
    busy: usize,
    failed: usize,
    not_tried: usize,
    predicted_octets: u64,
    octets: u64,
    copied_octets: u64,
    predicted_s: f64,
    seconds: f64,
    backends: Vec<Predicted>,
    moves: Vec<Done>,
}

/// The worst hour of a back-end against the average.
#[derive(Serialize)]
struct Predicted {
    backend: String,
    before: f64,
    predicted: f64,
    /// By what is measured now, with every account where it lives now; none where that is not known.
    actual: Option<f64>,
}

impl Report {
    fn new(plan: &PlanFile, moves: Vec<Done>, took: Duration, now: Option<&Inventory>) -> Self {
        let count = |is: fn(&Outcome) -> bool| moves.iter().filter(|one| is(&one.outcome)).count();
        let sum = |of: fn(&Done) -> u64| -> u64 { moves.iter().map(of).sum() };
        let average = plan.average();
        // As a plan sees it that moves nobody.
        let now = now.and_then(|now| {
            let all = now.accounts.iter().map(|one| one.account).collect();
            let policy = Policy::Peak(peak::Settings::default());
            PlanFile::make(now, &policy, 0, &all, (0, 1)).ok()
        });
        let backends = plan.backends.iter().map(|one| {
            let actual = now.as_ref().and_then(|now| {
                let found = now.backends.iter().find(|other| other.name == one.name)?;
                let average = now.average();
                Some(found.worst(&found.before[..HOURS], average).1)
            });
            Predicted {
                backend: one.name.to_string(),
                before: one.worst(&one.before, average).1,
                predicted: one.worst(&one.after, average).1,
                actual,
            }
        });
        Self {
            moved: count(|one| matches!(one, Outcome::Moved)),
            already_there: count(|one| matches!(one, Outcome::AlreadyThere)),
            gone: count(|one| matches!(one, Outcome::Gone)),
            moved_since: count(|one| matches!(one, Outcome::MovedSince { .. })),
            busy: count(|one| matches!(one, Outcome::Busy)),
            failed: count(|one| matches!(one, Outcome::Failed { .. })),
            not_tried: count(|one| matches!(one, Outcome::NotTried)),
            predicted_octets: plan.moved_octets,
            octets: sum(|one| one.moved_octets),
            copied_octets: sum(|one| one.copied_octets),
            predicted_s: plan.duration_s,
            seconds: took.as_secs_f64(),
            backends: backends.collect(),
            moves,
        }
    }

    fn table(&self, plan: &PlanFile) -> String {
        let mut figures = Table::new();
        figures.set_header(["", "predicted", "actual"]);
        let planned = plan.moves.len().to_string();
        figures.add_row(["accounts moved", &planned, &self.moved.to_string()]);
        figures.add_row([
            "octets",
            &HumanBytes(self.predicted_octets).to_string(),
            &format!(
                "{} ({} copied)",
                HumanBytes(self.octets),
                HumanBytes(self.copied_octets)
            ),
        ]);
        figures.add_row([
            "time",
            &present::duration(self.predicted_s),
            &present::duration(self.seconds),
        ]);
        let passed_over = [
            ("there already", self.already_there),
            ("gone since the plan was made", self.gone),
            ("moved since the plan was made", self.moved_since),
            ("in another move", self.busy),
            ("failed", self.failed),
            ("not tried after that", self.not_tried),
        ];
        for (name, count) in passed_over {
            if count > 0 {
                figures.add_row([name, "", &count.to_string()]);
            }
        }
        let mut backends = Table::new();
        backends.set_header(["worst hour of", "before", "predicted", "actual"]);
        for one in &self.backends {
            let actual = one.actual.map_or_else(|| "-".to_owned(), present::percent);
            backends.add_row([
                one.backend.clone(),
                present::percent(one.before),
                present::percent(one.predicted),
                actual,
            ]);
        }
        let mut text = format!("{figures}\n{backends}\n");
        for one in &self.moves {
            if let Outcome::Failed { cause } = &one.outcome {
                text.push_str(&format!("account {}: {cause}\n", one.planned.account));
            }
        }
        text
    }
}

/// How far the whole plan is, by octets; elsewhere than on a terminal one line an account.
struct Bar {
    bar: ProgressBar,
    count: usize,
    ended: usize,
    /// Of moves that are over.
    octets: u64,
    /// Of those under way: what was planned, and what has come of it.
    running: HashMap<usize, (u64, u64)>,
}

impl Bar {
    fn new(plan: &PlanFile) -> Self {
        let style = ProgressStyle::with_template(
            "{spinner} {msg:<40} {bytes}/{total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left",
        );
        let bar = ProgressBar::new(plan.moved_octets)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            count: plan.moves.len(),
            ended: 0,
            octets: 0,
            running: HashMap::new(),
        }
    }

    fn show(&self) {
        let running: u64 = self.running.values().map(|(_, octets)| octets).sum();
        self.bar.set_position(self.octets + running);
        let (ended, count, at_once) = (self.ended, self.count, self.running.len());
        self.bar
            .set_message(format!("{ended} of {count} accounts, {at_once} under way"));
    }
}

impl Progress for Bar {
    fn begin(&mut self, number: usize, planned: &PlannedMove) {
        self.running.insert(number, (planned.octets, 0));
        self.show();
    }

    fn copied(&mut self, number: usize, progress: &PullProgress) {
        // One that is over may be told of late.
        if let Some((planned, octets)) = self.running.get_mut(&number) {
            *octets = progress.octets.min(*planned);
        }
        self.show();
    }

    fn end(&mut self, number: usize, done: &Done) {
        self.running.remove(&number);
        self.octets += done.planned.octets;
        self.ended += 1;
        self.show();
        if self.bar.is_hidden() {
            let told = serde_json::to_string(&done.outcome).unwrap_or_default();
            let (ended, count) = (self.ended, self.count);
            let PlannedMove { account, to, .. } = &done.planned;
            eprintln!("{ended}/{count} account {account} to {to}: {told}");
        }
    }
}

/// What a time is reckoned with where nobody said it.
const OCTETS_PER_S: u64 = 30_000_000;
/// Two weeks are what load is measured by; half of that has changed by then.
const AGE_MAX_DAYS: u32 = 7;
const DAY_MS: i64 = 86_400_000;
