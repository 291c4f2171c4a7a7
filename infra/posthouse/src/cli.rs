//! The command line: what can be said, who does it, how its failure is told.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use daemon::config::Settings;
use daemon::identity::Role;
use directory_api::operator::DirectorySource;
use store_api::Backends;

use crate::nodes::Tier;
use crate::verbs::{self, VerbError};
use crate::{certificate, copy_directory, down, fsck, status, tier, up};

/// A tiered mail system. Without a command: `up`, the whole system on this machine.
#[derive(Parser)]
#[command(name = "posthouse", version, args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run directory, two store back-ends, MX and proxy on loopback
    Up(up::Options),
    /// Stop what `up` runs, and wait until it is gone
    Down(down::Options),
    /// Ask every tier for its health; exit code 1 unless all are ready
    Status {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Mail domains
    Domain(Directed<verbs::domain::Verb>),
    /// Accounts: who logs in, with what, where they live
    Account(Directed<verbs::account::Verb>),
    /// Addresses and aliases, and what they deliver to
    Address(Directed<verbs::address::Verb>),
    /// Store back-ends
    Backend(Directed<verbs::backend::Verb>),
    /// Which back-end each account lives on
    Home(Directed<verbs::home::Verb>),
    /// The keys by which back-ends check who may open a mailbox
    Key(Directed<verbs::key::Verb>),
    /// What back-ends have to do, and for which accounts most
    Load {
        #[command(flatten)]
        options: verbs::load::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Users who come from an LDAP server
    Ldap(Directed<verbs::ldap::Verb>),
    /// The sessions that users have open at the proxies
    Connections {
        #[command(flatten)]
        options: verbs::connections::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// End sessions of a user, or one, with a word to the user
    Kick {
        #[command(flatten)]
        options: verbs::kick::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Let no user into a proxy, or through any proxy to a back-end, and wait until the last one has left
    Drain {
        #[command(flatten)]
        options: verbs::drain::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Mail that back-ends hold for accounts whose home cannot be reached: look at it, have it tried, give it up
    Hold {
        #[command(flatten)]
        options: verbs::hold::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Why mail for an address goes where it goes, or a login was refused
    Why {
        #[command(flatten)]
        options: verbs::why::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Bring domains, accounts and addresses from a file; exit code 1 when a line was refused
    Import {
        #[command(flatten)]
        options: verbs::import::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Write domains, accounts (without passwords) and addresses as `import` takes them
    Export {
        #[command(flatten)]
        options: verbs::export::Options,
        #[command(flatten)]
        source: Source,
    },
    /// Bring back messages that a user has expunged or deleted, while they are kept; all of them unless told which
    Undelete {
        #[command(flatten)]
        options: verbs::undelete::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Read accounts, online, into a folder that holds what was read before; list, verify and prune such folders
    Backup {
        #[command(flatten)]
        options: verbs::backup::Options,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Put a mailbox's messages back from a backup, or all accounts of a lost volume
    Restore {
        #[command(flatten)]
        options: verbs::restore::Options,
        #[command(flatten)]
        source: Source,
    },
    /// Look at the volume of a stopped back-end, and mend it; exit code 1 when something was wrong, 2 when it could not be done
    Fsck {
        #[command(flatten)]
        options: fsck::Options,
        #[command(flatten)]
        output: verbs::Output,
    },
    /// Copy a directory that is stopped, passwords and keys included, from its folder to PostgreSQL, or back
    CopyDirectory(copy_directory::Options),
    /// Make key and certificate for a tier that runs by itself, or for a person
    Certificate(certificate::Options),
    /// Print a complete settings file of a tier, every setting explained
    SampleConfig { tier: Sample },
    /// Run one tier, as its own binary would
    #[command(hide = true)]
    Tier {
        tier: Tier,
        /// End with this process
        #[arg(long)]
        supervisor: Option<u32>,
        /// As the tier's own binary takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Whose settings.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Sample {
    Directory,
    StoreBackend,
    MxFrontend,
    PopImapProxy,
    Migrator,
    /// For the verbs of this command, given with --config
    Operator,
}

/// A verb for the directory, where that is, and how to print the answer.
#[derive(clap::Args)]
struct Directed<V: Subcommand> {
    #[command(subcommand)]
    verb: V,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: verbs::Output,
}

/// How to find a running system. `--data` is enough on the machine of `posthouse up`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Source {
    /// Settings file that names the directory and a certificate (`sample-config operator`)
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Endpoints file of `posthouse up`
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "config")]
    pub(crate) endpoints: Option<PathBuf>,
    /// Data folder of `posthouse up` [default: posthouse-data]
    #[arg(long, value_name = "DIR", global = true, conflicts_with_all = ["config", "endpoints"])]
    pub(crate) data: Option<PathBuf>,
}

impl From<Source> for DirectorySource {
    fn from(source: Source) -> Self {
        Self {
            config: source.config,
            endpoints: source.endpoints,
            data: source.data,
        }
    }
}

/// Runs the command. Exit codes: 0 done, 1 failed, 2 wrong command line.
#[must_use]
pub fn main() -> ExitCode {
    let line = Line::parse();
    match line.command.unwrap_or(Command::Up(line.up)) {
        Command::Up(options) => told(up::run(&options)),
        Command::Down(options) => told(down::run(&options)),
        Command::Status { source, output } => match status::run(&source.into(), &output) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => told(Err(error)),
        },
        Command::Domain(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Account(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Address(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Backend(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Key(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Ldap(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Home(line) => told(verbs::perform(line.verb, line.source, &line.output)),
        Command::Load {
            options,
            source,
            output,
        } => told(verbs::load::perform(options, source, &output)),
        Command::Connections {
            options,
            source,
            output,
        } => told(verbs::connections::perform(options, source, &output)),
        Command::Kick {
            options,
            source,
            output,
        } => told(verbs::kick::perform(options, source, &output)),
        Command::Drain {
            options,
            source,
            output,
        } => told(verbs::drain::perform(&options, source, &output)),
        Command::Why {
            options,
            source,
            output,
        } => told(verbs::why::perform(options, source, &output)),
        Command::Import {
            options,
            source,
            output,
        } => whole(verbs::import::perform(&options, source, &output)),
        Command::Export { options, source } => told(verbs::export::perform(&options, source)),
        Command::Backup {
            options,
            source,
            output,
        } => whole(verbs::backup::perform(options, source, &output)),
        Command::Restore { options, source } => whole(verbs::restore::perform(options, source)),
        Command::Hold {
            options,
            source,
            output,
        } => whole(verbs::hold::perform(&options, source, &output)),
        Command::Undelete {
            options,
            source,
            output,
        } => told(verbs::undelete::perform(options, source, &output)),
        Command::Fsck { options, output } => fsck::run(&options, &output),
        Command::CopyDirectory(options) => told(copy_directory::run(&options)),
        Command::Certificate(options) => told(certificate::run(&options)),
        Command::SampleConfig { tier } => {
            print!("{}", sample(tier));
            ExitCode::SUCCESS
        }
        Command::Tier {
            tier,
            supervisor,
            arguments,
        } => tier::main(tier, supervisor, arguments),
    }
}

/// Exit code 1 also when it was done, and something is missing.
fn whole(result: Result<bool, VerbError>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => told(Err(error)),
    }
}

fn told<E: StdError>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("posthouse: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sample(of: Sample) -> String {
    match of {
        Sample::Directory => directory::Config::sample(),
        Sample::StoreBackend => store_backend::Config::sample(),
        Sample::MxFrontend => mx_frontend::Config::sample(),
        Sample::PopImapProxy => pop_imap_proxy::Config::sample(),
        Sample::Migrator => migrator::Config::sample(),
        Sample::Operator => directory_api::operator::OperatorConfig::sample(),
    }
}

/// A client of the directory with the operator's certificate.
pub(crate) fn connect(source: Source) -> Result<directory_api::DirectoryClient, VerbError> {
    let (client, _) = DirectorySource::from(source).connect(Role::Operator)?;
    Ok(client)
}

/// The same, and the back-ends.
pub(crate) fn reach(
    source: Source,
) -> Result<(directory_api::DirectoryClient, Backends), VerbError> {
    let (directory, identity) = DirectorySource::from(source).connect(Role::Operator)?;
    let backends = Backends::new(identity, directory.clone());
    Ok((directory, backends))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Line::command().debug_assert();
    }

    #[test]
    fn no_command_is_up_with_its_options() {
        let line = Line::try_parse_from(["posthouse", "--port-base", "5000"]).unwrap();
        assert!(line.command.is_none());
        let line = Line::try_parse_from(["posthouse", "up", "--port-base", "5000"]).unwrap();
        assert!(matches!(line.command, Some(Command::Up(_))));
        assert!(Line::try_parse_from(["posthouse", "upp"]).is_err());
    }

    #[test]
    fn a_tier_takes_its_own_arguments() {
        let line = [
            "posthouse",
            "tier",
            "mx-frontend",
            "--supervisor",
            "7",
            "--config",
            "mx.toml",
        ];
        let Some(Command::Tier {
            supervisor,
            arguments,
            ..
        }) = Line::try_parse_from(line).unwrap().command
        else {
            panic!("not a tier");
        };
        assert_eq!(
            (supervisor, arguments),
            (Some(7), vec!["--config".into(), "mx.toml".into()])
        );
    }

    #[test]
    fn a_volume_is_named_before_anything_is_done_to_it() {
        let parses = |line: &[&str]| Line::try_parse_from(line).is_ok();
        assert!(!parses(&["posthouse", "fsck"]));
        let volume = ["posthouse", "fsck", "--volume", "/v"];
        assert!(parses(&volume));
        assert!(parses(
            &[&volume[..], &["--repair", "--hashes", "--json"]].concat()
        ));
        // Never by itself: it gives new UIDVALIDITYs.
        assert!(!parses(&[&volume[..], &["--new-uidvalidity"]].concat()));
    }

    #[test]
    fn a_password_is_no_argument() {
        assert!(
            Line::try_parse_from([
                "posthouse",
                "account",
                "add",
                "a@example.test",
                "--password",
                "x"
            ])
            .is_err()
        );
    }
}
