//! `posthouse address …`

use directory_api::wire::{AddressEdit, AddressEntry, AddressPut, Changed, Target, Verdict};
use directory_api::{Address, DirectoryClient, DirectoryError};

use super::{Output, Row, VerbError, account_id, told};

const NOUN: &str = "address";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// All addresses
    List {
        /// Only addresses that contain this
        #[arg(long)]
        filter: Option<String>,
    },
    /// One address and what it delivers to
    Show { address: Address },
    /// A new address, or further targets of one that is there
    Add {
        address: Address,
        /// An account (number or login name), or `=address` for an alias of another address
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Replace what an address delivers to
    Set {
        address: Address,
        /// An account (number or login name), or `=address` for an alias of another address
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Remove an address, or some of what it delivers to; accounts stay
    Remove {
        address: Address,
        /// Only these; with the last of them the address goes
        targets: Vec<String>,
    },
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        match self {
            Self::List { filter } => {
                return output
                    .list(filter, async |query| directory.addresses(&query).await)
                    .await;
            }
            Self::Show { address } => {
                let entry = directory
                    .address(&address)
                    .await
                    .map_err(|error| told(NOUN, &address, error))?;
                output.one(None, &entry);
            }
            Self::Add { address, targets } => {
                let add = resolved(directory, &targets).await?;
                let edit = AddressEdit {
                    add,
                    remove: Vec::new(),
                };
                let changed = directory.edit_address(&address, &edit).await;
                print(output, "added", &address, changed)?;
                warn_of_lost_parts(directory, &address).await;
            }
            Self::Set { address, targets } => {
                let targets = resolved(directory, &targets).await?;
                let changed = directory
                    .put_address(&address, &AddressPut { targets })
                    .await;
                print(output, "set", &address, changed)?;
                warn_of_lost_parts(directory, &address).await;
            }
            Self::Remove { address, targets } => {
                let changed = if targets.is_empty() {
                    directory.delete_address(&address).await
                } else {
                    let edit = AddressEdit {
                        add: Vec::new(),
                        remove: resolved(directory, &targets).await?,
                    };
                    directory.edit_address(&address, &edit).await
                };
                print(output, "removed", &address, changed)?;
            }
        }
        Ok(())
    }
}

fn print(
    output: &Output,
    done: &str,
    address: &Address,
    changed: Result<Changed<AddressEntry>, DirectoryError>,
) -> Result<(), VerbError> {
    let changed = changed.map_err(|error| told(NOUN, address, error))?;
    output.one(Some(done), &changed.now);
    Ok(())
}

/// Says which of an address's aliases have nobody behind them: nothing of that is an error, for what is meant may be made next.
async fn warn_of_lost_parts(directory: &DirectoryClient, address: &Address) {
    let Ok(entry) = directory.address(address).await else {
        return;
    };
    for target in entry.targets {
        let Target::Address(alias) = target else {
            continue;
        };
        let Ok(verdict) = directory.lookup(&alias).await else {
            continue;
        };
        if let Some(what) = lost(&verdict) {
            eprintln!("posthouse: warning: {address} leads to {alias}, {what}");
        }
    }
}

/// What becomes of the part of the mail that an alias brings to somebody of whom the directory says this.
fn lost(verdict: &Verdict) -> Option<String> {
    match verdict {
        // A catch-all is for who writes to the domain, and for nobody behind an alias.
        Verdict::Accounts(located) if located.iter().all(|one| one.is_caught) => {
            Some(DANGLING.to_owned())
        }
        Verdict::Accounts(_) => None,
        Verdict::UnknownAddress => Some(DANGLING.to_owned()),
        Verdict::UnknownDomain => Some(format!("which is not ours: {WAITS}")),
        Verdict::External { external, .. } => {
            let external: Vec<_> = external.iter().map(Address::as_str).collect();
            let external = external.join(", ");
            Some(format!(
                "which leads to what is not ours ({external}): {WAITS}"
            ))
        }
    }
}

const DANGLING: &str = "which is nobody's: that part of its mail goes to nobody";
const WAITS: &str =
    "all of its mail is answered 451 and waits with its senders until that is removed";

async fn resolved(directory: &DirectoryClient, given: &[String]) -> Result<Vec<Target>, VerbError> {
    let mut targets = Vec::with_capacity(given.len());
    for text in given {
        targets.push(target(directory, text).await?);
    }
    Ok(targets)
}

/// A login name mostly looks like an address, so an alias is marked.
async fn target(directory: &DirectoryClient, text: &str) -> Result<Target, VerbError> {
    if let Some(alias) = text.strip_prefix('=') {
        let address = alias.parse().map_err(|source| VerbError::Address {
            text: text.to_owned(),
            source,
        })?;
        return Ok(Target::Address(address));
    }
    account_id(directory, text).await.map(Target::Account)
}

impl Row for AddressEntry {
    const HEADINGS: &'static [&'static str] = &["ADDRESS", "DELIVERS TO"];

    fn cells(&self) -> Vec<String> {
        let target = |target: &Target| match target {
            Target::Account(account) => format!("account {account}"),
            Target::Address(address) => format!("={address}"),
        };
        vec![
            self.address.to_string(),
            self.targets
                .iter()
                .map(target)
                .collect::<Vec<_>>()
                .join(", "),
        ]
    }
}
