//! The command line of `migrator`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::Table;
use daemon::identity::{Identity, Role};
use daemon::log::causes;
use daemon::output::print_line;
use daemon::shutdown::{Hangup, Shutdown};
use directory_api::client::{ClientOptions, DirectoryClient, DirectoryError};
use directory_api::operator::DirectorySource;
use directory_api::wire::{MoveRecord, MoveState};
use directory_api::{AccountId, BackendName, LoginName, VolumeName};
use store_api::Backends;

use crate::perform::{MoveError, Mover};
use crate::progress::Shown;
use crate::{Config, run};

mod cost;
mod plan;
mod simulate;

/// The prefix of environment variables that override settings.
pub const ENV_PREFIX: &str = "MIGRATOR";

/// Moves accounts between store back-ends.
#[derive(Debug, Parser)]
#[command(name = "migrator", version)]
struct Arguments {
    /// Settings file of the migrator (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Endpoints file written by `posthouse up --endpoints`.
    #[arg(long, global = true, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// Data folder of `posthouse up` [default: posthouse-data].
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Move one account to another back-end.
    Move {
        /// Account number, or what its owner logs in with.
        account: String,
        /// The back-end that shall have it.
        #[arg(long)]
        to: BackendName,
        /// The volume there; the first one when not said.
        #[arg(long)]
        volume: Option<VolumeName>,
        /// Stop when this state is reached; `resume` goes on.
        #[arg(long, value_enum)]
        until: Option<Until>,
    },
    /// Say which accounts should move, why, and what comes of it; move none.
    Plan(plan::PlanArguments),
    /// Do what a plan says, and tell what came of it. Killed or ended, it is run again: what is done is passed over.
    Run(plan::RunArguments),
    /// Move everybody away from a back-end, and say who is left.
    Drain(plan::DrainArguments),
    /// Finish every move that was left unfinished.
    Resume,
    /// Give an unfinished move up, before the account has switched.
    Abort {
        /// Account number, or what its owner logs in with.
        account: String,
    },
    /// Show the moves that are not finished.
    Status {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Let a policy balance a simulated provider, and report what it reached.
    Simulate(simulate::Arguments),
    /// Keep running: finish the moves that others left. Needs --config.
    Daemon,
    /// Print a settings file with every setting and its default.
    SampleConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    Planned,
    Copying,
    Frozen,
    Verified,
    Switched,
}

impl From<Until> for MoveState {
    fn from(until: Until) -> Self {
        match until {
            Until::Planned => Self::Planned,
            Until::Copying => Self::Copying,
            Until::Frozen => Self::Frozen,
            Until::Verified => Self::Verified,
            Until::Switched => Self::Switched,
        }
    }
}

/// Why the command did not do what it was asked: one line on standard error, and the exit code.
struct Failure {
    line: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(line: String) -> Self {
        let code = 1;
        Self { line, code }
    }
}

/// Something was done, and something was not: run it again.
const UNFINISHED: u8 = 3;

/// Runs the command. 0: done; 1: failed, with one line on standard error; 2: wrong usage; 3: not all of it was done, run it again; 130: a second
/// signal ended it, and `migrator resume` finishes what was under way.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.verb {
        None | Some(Verb::Daemon) => {
            let Some(config) = arguments.config else {
                eprintln!(
                    "migrator: say what to do (see --help), or name a settings file with --config",
                );
                return ExitCode::from(2);
            };
            return daemon::tier::main_of::<Config, _, _, _>("migrator", ENV_PREFIX, &config, run);
        }
        Some(Verb::SampleConfig) => {
            print!("{}", <Config as daemon::config::Settings>::sample());
            return ExitCode::SUCCESS;
        }
        Some(Verb::Simulate(simulation)) => {
            return ended(simulate::perform(&simulation).map_err(Failure::from));
        }
        Some(_) => {}
    }
    daemon::tier::install_crypto();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("migrator: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    ended(runtime.block_on(perform(arguments)))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { line, code }) => {
            eprintln!("migrator: {line}");
            ExitCode::from(code)
        }
    }
}

async fn perform(arguments: Arguments) -> Result<(), Failure> {
    let reach = || {
        let (directory, identity) = connect(&arguments)?;
        let backends = Backends::new(identity, directory.clone());
        Ok::<_, String>((directory, backends))
    };
    if let Some(Verb::Plan(options)) = &arguments.verb {
        return Ok(plan::plan(options, reach).await?);
    }
    let (directory, backends) = reach()?;
    let config = match &arguments.config {
        Some(file) => daemon::config::load(file, ENV_PREFIX).map_err(|error| error.to_string())?,
        None => Config::default(),
    };
    let mover = Mover::new(directory.clone(), backends.clone()).within(config.limits());
    let shutdown = Shutdown::new();
    match arguments.verb {
        Some(Verb::Run(options)) => {
            tokio::spawn(shutdown.clone().on_signals(Hangup::Ends));
            let config = options.cost.over(config);
            plan::run(&options, &config, &directory, &backends, &shutdown).await
        }
        Some(Verb::Drain(options)) => {
            tokio::spawn(shutdown.clone().on_signals(Hangup::Ends));
            let config = options.cost.over(config);
            plan::drain(&options, &config, &directory, &backends, &shutdown).await
        }
        Some(Verb::Move {
            account,
            to,
            volume,
            until,
        }) => {
            let account = account_named(&directory, &account).await?;
            let mut record = mover
                .plan(account, &to, volume)
                .await
                .map_err(|error| causes(&error))?;
            Ok(finish(&mover, &mut record, until.map(MoveState::from)).await?)
        }
        Some(Verb::Resume) => {
            let moves = mover.unfinished().await.map_err(|error| causes(&error))?;
            if moves.is_empty() {
                print_line("every move is finished");
            }
            let mut failed = None;
            for mut record in moves {
                if let Err(line) = finish(&mover, &mut record, None).await {
                    eprintln!("migrator: account {}: {line}", record.account);
                    failed = Some(format!(
                        "account {} is not where it should be yet; run `migrator resume` again",
                        record.account
                    ));
                }
            }
            let code = UNFINISHED;
            failed.map_or(Ok(()), |line| Err(Failure { line, code }))
        }
        Some(Verb::Abort { account }) => {
            let account = account_named(&directory, &account).await?;
            let mut record = directory
                .move_of(account)
                .await
                .map_err(|error| match error {
                    DirectoryError::Unknown => format!("account {account} is not being moved"),
                    error => causes(&error).to_string(),
                })?;
            let mut shown = Shown::new();
            let undone = mover.abort(&mut record, &mut shown).await;
            drop(shown);
            undone.map_err(|error| causes(&error))?;
            print_line(format_args!(
                "account {account} stays on {}",
                record.from.backend
            ));
            Ok(())
        }
        Some(Verb::Status { json }) => {
            let moves = mover.unfinished().await.map_err(|error| causes(&error))?;
            Ok(show(&moves, json)?)
        }
        None | Some(Verb::Daemon | Verb::SampleConfig | Verb::Simulate(_) | Verb::Plan(_)) => {
            Ok(())
        }
    }
}

fn connect(arguments: &Arguments) -> Result<(DirectoryClient, Arc<Identity>), String> {
    if let Some(file) = &arguments.config {
        let config: Config =
            daemon::config::load(file, ENV_PREFIX).map_err(|error| error.to_string())?;
        let identity = Identity::load(&config.identity).map_err(|error| causes(&error))?;
        let client = DirectoryClient::new(&config.directory, &identity, &ClientOptions::default());
        return Ok((client, Arc::new(identity)));
    }
    let source = DirectorySource {
        config: None,
        endpoints: arguments.endpoints.clone(),
        data: arguments.data.clone(),
    };
    source
        .connect(Role::Migrator)
        .map_err(|error| causes(&error))
}

async fn account_named(directory: &DirectoryClient, text: &str) -> Result<AccountId, String> {
    if let Ok(account) = text.parse() {
        return Ok(account);
    }
    let name: LoginName = text
        .parse()
        .map_err(|error| format!("account {text:?}: {error}"))?;
    match directory.account_of(&name).await {
        Ok(account) => Ok(account.id),
        Err(DirectoryError::Unknown) => Err(format!(
            "there is no account {name}; `posthouse account list` shows them"
        )),
        Err(error) => Err(causes(&error)),
    }
}

async fn finish(
    mover: &Mover,
    record: &mut MoveRecord,
    until: Option<MoveState>,
) -> Result<(), String> {
    let mut shown = Shown::new();
    let finished = mover.finish(record, until, &mut shown).await;
    let summary = shown.summary();
    match finished {
        Ok(()) => {
            match record.state {
                MoveState::Released => print_line(format_args!(
                    "account {} moved from {} to {}: {summary}",
                    record.account, record.from.backend, record.to.backend
                )),
                MoveState::Aborted => print_line(format_args!(
                    "account {} stays on {}",
                    record.account, record.from.backend
                )),
                state => print_line(format_args!(
                    "account {} is {state:?}; `migrator resume` goes on",
                    record.account
                )),
            }
            Ok(())
        }
        Err(error) => Err(what_now(&error, record)),
    }
}

fn what_now(error: &MoveError, record: &MoveRecord) -> String {
    let text = causes(error);
    match record.state {
        MoveState::Aborted => format!(
            "{text}; the move was undone, account {} stays on {}",
            record.account, record.from.backend
        ),
        MoveState::Released => text,
        _ => format!("{text}; run `migrator resume` when that is mended"),
    }
}

fn show(moves: &[MoveRecord], json: bool) -> Result<(), String> {
    if json {
        print_line(format_args!(
            "{}",
            serde_json::to_string_pretty(moves).map_err(|error| error.to_string())?
        ));
        return Ok(());
    }
    if moves.is_empty() {
        print_line("every move is finished");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["account", "from", "to", "state", "since"]);
    for record in moves {
        table.add_row([
            record.account.to_string(),
            record.from.backend.to_string(),
            record.to.backend.to_string(),
            format!("{:?}", record.state),
            daemon::clock::rfc5322_date(record.started_ms),
        ]);
    }
    print_line(format_args!("{table}"));
    Ok(())
}
