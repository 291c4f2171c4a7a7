//! `posthouse home …`: reads homes, and mends one by hand.

use directory_api::wire::{AccountHome, CompareAndSet, Place};
use directory_api::{BackendName, DirectoryClient, Epoch, VolumeName};

use super::{Output, Row, VerbError, account_id, told};

const NOUN: &str = "home";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// All homes. They come with `account add`, go with `account remove`, and change by `migrator move`
    List {
        /// Only homes on this back-end
        #[arg(long)]
        backend: Option<BackendName>,
    },
    /// The home of one account
    Show {
        /// Number or login name
        account: String,
    },
    /// Point an account to another place WITHOUT moving its mail: to mend by hand what no `migrator resume` can, or to change over
    /// to or from a foreign back-end (whose volume is `foreign`). Sessions at a foreign one end within seconds; those at one of
    /// ours end by `posthouse kick`
    Set {
        /// Number or login name
        account: String,
        /// The new back-end
        #[arg(long)]
        backend: BackendName,
        /// The volume there
        #[arg(long)]
        volume: VolumeName,
        /// The epoch that `home show` tells; with any other nothing is changed
        #[arg(long)]
        from_epoch: Epoch,
    },
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        match self {
            Self::List { backend } => {
                let filter = backend.map(String::from);
                return output
                    .list(filter, async |query| directory.homes(&query).await)
                    .await;
            }
            Self::Show { account } => {
                let id = account_id(directory, &account).await?;
                let home = directory
                    .home(id)
                    .await
                    .map_err(|error| told("account", &account, error))?;
                output.one(None, &home);
            }
            Self::Set {
                account,
                backend,
                volume,
                from_epoch,
            } => {
                let id = account_id(directory, &account).await?;
                let request = CompareAndSet {
                    from_epoch,
                    to: Place { backend, volume },
                    move_id: None,
                };
                let set = directory
                    .compare_and_set(id, &request)
                    .await
                    .map_err(|error| told(NOUN, &account, error))?;
                output.one(
                    Some("set"),
                    &AccountHome {
                        account: id,
                        home: set.home,
                    },
                );
            }
        }
        Ok(())
    }
}

impl Row for AccountHome {
    const HEADINGS: &'static [&'static str] = &["ACCOUNT", "BACKEND", "VOLUME", "EPOCH"];

    fn cells(&self) -> Vec<String> {
        let home = &self.home;
        vec![
            self.account.to_string(),
            home.backend.to_string(),
            home.volume.to_string(),
            home.epoch.to_string(),
        ]
    }
}
