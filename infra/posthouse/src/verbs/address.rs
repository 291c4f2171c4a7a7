//! `posthouse address …`

use directory_api::wire::{AddressEntry, AddressPut, Target};
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
    /// Remove an address; its accounts stay
    Remove { address: Address },
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
                let before = match directory.address(&address).await {
                    Ok(entry) => entry.targets,
                    Err(DirectoryError::Unknown) => Vec::new(),
                    Err(error) => return Err(told(NOUN, &address, error)),
                };
                put(directory, output, "added", &address, before, &targets).await?;
            }
            Self::Set { address, targets } => {
                put(directory, output, "set", &address, Vec::new(), &targets).await?;
            }
            Self::Remove { address } => {
                let changed = directory
                    .delete_address(&address)
                    .await
                    .map_err(|error| told(NOUN, &address, error))?;
                output.one(Some("removed"), &changed.now);
            }
        }
        Ok(())
    }
}

async fn put(
    directory: &DirectoryClient,
    output: &Output,
    done: &str,
    address: &Address,
    mut targets: Vec<Target>,
    given: &[String],
) -> Result<(), VerbError> {
    for text in given {
        targets.push(target(directory, text).await?);
    }
    targets.sort();
    targets.dedup();
    let put = AddressPut { targets };
    let changed = directory
        .put_address(address, &put)
        .await
        .map_err(|error| told(NOUN, &address, error))?;
    output.one(Some(done), &changed.now);
    Ok(())
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
