//! `posthouse backend …`

use directory_api::wire::{Backend, BackendPut};
use directory_api::{BackendName, BackendState, DirectoryClient, VolumeName};

use super::{Output, Row, VerbError, told};

const NOUN: &str = "backend";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// All store back-ends
    List {
        /// Only names that contain this
        #[arg(long)]
        filter: Option<String>,
    },
    /// One back-end
    Show { name: BackendName },
    /// Name a back-end before it announces itself
    Add {
        name: BackendName,
        /// Where it listens for the other tiers, `host:port`
        #[arg(long)]
        address: String,
        #[command(flatten)]
        changes: Changes,
    },
    /// Change how a back-end takes part
    Set {
        name: BackendName,
        /// Where it listens for the other tiers, `host:port`
        #[arg(long)]
        address: Option<String>,
        #[command(flatten)]
        changes: Changes,
        /// Accept a volume that was restored from an old copy
        #[arg(long, value_name = "VOLUME")]
        adopt_volume: Option<VolumeName>,
    },
    /// Forget a back-end on which no account lives
    Remove { name: BackendName },
}

#[derive(clap::Args)]
pub(crate) struct Changes {
    /// active, draining (takes no new accounts) or down
    #[arg(long)]
    state: Option<State>,
    /// Its share of new accounts against the others'
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    weight: Option<u32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum State {
    Active,
    Draining,
    Down,
}

impl From<State> for BackendState {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::Draining => Self::Draining,
            State::Down => Self::Down,
        }
    }
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        let (done, name, put) = match self {
            Self::List { filter } => {
                return output
                    .list(filter, async |query| directory.backends(&query).await)
                    .await;
            }
            Self::Show { name } => {
                let backend = directory
                    .backend(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                output.one(None, &backend);
                return Ok(());
            }
            Self::Remove { name } => {
                let changed = directory
                    .delete_backend(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                output.one(Some("removed"), &changed.now);
                return Ok(());
            }
            Self::Add {
                name,
                address,
                changes,
            } => ("added", name, changes.put(Some(address), None)),
            Self::Set {
                name,
                address,
                changes,
                adopt_volume,
            } => ("set", name, changes.put(address, adopt_volume)),
        };
        let changed = directory
            .put_backend(&name, &put)
            .await
            .map_err(|error| told(NOUN, &name, error))?;
        output.one(Some(done), &changed.now);
        Ok(())
    }
}

impl Changes {
    fn put(self, address: Option<String>, adopt_volume: Option<VolumeName>) -> BackendPut {
        BackendPut {
            address,
            state: self.state.map(Into::into),
            weight: self.weight,
            adopt_volume,
        }
    }
}

impl Row for Backend {
    const HEADINGS: &'static [&'static str] = &[
        "BACKEND", "ADDRESS", "STATE", "WEIGHT", "ACCOUNTS", "VOLUMES",
    ];

    fn cells(&self) -> Vec<String> {
        let volumes: Vec<&str> = self
            .volumes
            .iter()
            .map(|volume| volume.name.as_str())
            .collect();
        vec![
            self.name.to_string(),
            self.address.clone(),
            format!("{:?}", self.state).to_lowercase(),
            self.weight.to_string(),
            self.accounts.to_string(),
            volumes.join(", "),
        ]
    }
}
