//! `posthouse restore …`

use std::path::PathBuf;

use directory_api::{BackendName, VolumeName};

use super::{VerbError, account_id};
use crate::backup::{Folder, Moment, Wanted, restore_mailboxes, restore_volume};
use crate::cli::Source;
use crate::cli::reach;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The backup's folder
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// As it was then, in UTC: "2026-11-29 22:15", or a day's end by 2026-11-29 [default: as it was last]
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// Every account of this back-end, as it was: for a new volume in place of a lost one, before it is adopted
    #[arg(long, value_name = "BACKEND", conflicts_with_all = ["account", "mailbox", "into", "known_as"])]
    volume: Option<BackendName>,
    /// Only those of this volume of it
    #[arg(long, value_name = "VOLUME", requires = "volume")]
    only: Option<VolumeName>,
    /// Also accounts that had another login name when they were backed up
    #[arg(long, requires = "volume")]
    renamed: bool,
    /// The account, in which the messages come back as new ones: login name or number
    #[arg(value_name = "LOGIN", required_unless_present = "volume")]
    account: Option<String>,
    /// Only this mailbox, as it was called [default: all of them]
    #[arg(long, value_name = "NAME")]
    mailbox: Option<String>,
    /// The mailbox to put them into, made when it is missing [default: the same]
    #[arg(long, value_name = "NAME", requires = "mailbox")]
    into: Option<String>,
    /// The account as the backup knows it, by login name or number, if it has another one now
    #[arg(long, value_name = "LOGIN")]
    known_as: Option<String>,
}

/// Does it; true when nothing is missing.
pub(crate) fn perform(options: Options, source: Source) -> Result<bool, VerbError> {
    let folder = Folder::read(&options.from)?;
    super::block_on_threads(async {
        let (directory, backends) = reach(source)?;
        if let Some(backend) = options.volume {
            let only = options.only.as_ref();
            let (at, renamed) = (options.at, options.renamed);
            let restored =
                restore_volume(&folder, &directory, &backends, &backend, only, at, renamed);
            return Ok(restored.await?);
        }
        let Some(account) = options.account else {
            return Err(VerbError::Missing("an account, or --volume"));
        };
        let wanted = Wanted {
            account: account_id(&directory, &account).await?,
            known_as: options.known_as,
            mailbox: options.mailbox,
            into: options.into,
            at: options.at,
        };
        Ok(restore_mailboxes(&folder, &directory, &backends, &wanted).await?)
    })?
}
