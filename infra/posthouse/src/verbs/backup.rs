//! `posthouse backup …`

use std::path::PathBuf;

use super::{Output, VerbError, told};
use crate::backup::{Folder, Taking, list, prune, take, verify};
use crate::cli::Source;
use crate::cli::reach;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The backup's folder; made when it is missing
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Every account of the directory
    #[arg(long, conflicts_with = "accounts")]
    all: bool,
    /// Go on with the run that did not end, for the accounts that it was asked for: what it has done is not looked at again
    #[arg(long, conflicts_with_all = ["all", "accounts"])]
    resume: bool,
    /// Login names or numbers
    #[arg(value_name = "LOGIN")]
    accounts: Vec<String>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// The runs of a backup, or the snapshots of one account
    List {
        /// The backup's folder
        dir: PathBuf,
        /// Login name or number
        account: Option<String>,
    },
    /// Read every octet of a backup and compare it; exit code 1 unless all is right
    Verify {
        /// The backup's folder
        dir: PathBuf,
    },
    /// Remove old snapshots, and the bodies that only they name
    Prune {
        /// The backup's folder
        dir: PathBuf,
        /// Snapshots kept of each account: the newest
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
    },
}

/// Does it; true when nothing is missing.
pub(crate) fn perform(
    options: Options,
    source: Source,
    output: &Output,
) -> Result<bool, VerbError> {
    match options.verb {
        Some(Verb::List { dir, account }) => {
            Ok(list(&Folder::read(&dir)?, account.as_deref(), output)?)
        }
        Some(Verb::Verify { dir }) => Ok(verify(&Folder::examine(&dir)?)?),
        Some(Verb::Prune { dir, keep }) => {
            prune(&Folder::change(&dir)?, keep as usize)?;
            Ok(true)
        }
        None => {
            let Some(dir) = options.to else {
                return Err(VerbError::Missing("--to DIR"));
            };
            if !options.all && options.accounts.is_empty() && !options.resume {
                return Err(VerbError::Missing("--all, login names, or --resume"));
            }
            let folder = Folder::create(&dir)?;
            super::block_on_threads(async {
                let (directory, backends) = reach(source)?;
                let taking = if options.resume {
                    Taking::Resume
                } else if options.all {
                    Taking::Accounts(None)
                } else {
                    let named = Taking::named(&directory, &options.accounts).await;
                    let named = named.map_err(|(name, error)| told("account", &name, error))?;
                    Taking::Accounts(Some(named))
                };
                Ok(Box::pin(take(&folder, &directory, &backends, taking)).await?)
            })?
        }
    }
}
