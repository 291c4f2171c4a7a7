//! `posthouse backend …`

use std::str::FromStr;

use directory_api::client::DirectoryError;
use directory_api::wire::{Backend, BackendPut, Foreign, ForeignService, ForeignServiceError};
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
        /// Only back-ends of this state
        #[arg(long)]
        state: Option<State>,
    },
    /// One back-end
    Show { name: BackendName },
    /// Name a back-end before it announces itself, or one that is another mail system
    Add {
        name: BackendName,
        /// Where it listens for the other tiers, `host:port`
        #[arg(long, required_unless_present_any = ["foreign_imap", "foreign_pop3"])]
        address: Option<String>,
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
    /// It is another mail system with its IMAP there: plain, starttls or implicit, a colon, host:port. Users who live there
    /// are logged in by proxies whose `foreign` settings name the back-end. `none` says that it has no IMAP any more
    #[arg(long, value_name = "TLS:HOST:PORT")]
    foreign_imap: Option<Service>,
    /// The same for its POP3
    #[arg(long, value_name = "TLS:HOST:PORT")]
    foreign_pop3: Option<Service>,
}

/// What is said of a foreign back-end's service.
#[derive(Clone)]
enum Service {
    There(ForeignService),
    Absent,
}

impl FromStr for Service {
    type Err = ForeignServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Absent),
            text => text.parse().map(Self::There),
        }
    }
}

impl Service {
    fn there(self) -> Option<ForeignService> {
        match self {
            Self::There(service) => Some(service),
            Self::Absent => None,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum State {
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
            Self::List { filter, state } => {
                let state = super::word_of(state);
                return output
                    .list(filter, async |mut query| {
                        query.status.clone_from(&state);
                        directory.backends(&query).await
                    })
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
            } => {
                let put = changes.put(directory, &name, address, None).await?;
                ("added", name, put)
            }
            Self::Set {
                name,
                address,
                changes,
                adopt_volume,
            } => {
                let put = changes.put(directory, &name, address, adopt_volume);
                let put = put.await?;
                ("set", name, put)
            }
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
    async fn put(
        self,
        directory: &DirectoryClient,
        name: &BackendName,
        address: Option<String>,
        adopt_volume: Option<VolumeName>,
    ) -> Result<BackendPut, VerbError> {
        let foreign = match (self.foreign_imap, self.foreign_pop3) {
            (None, None) => None,
            (imap, pop3) => {
                // The directory takes both as a whole: what nothing is said of stays.
                let before = match directory.backend(name).await {
                    Ok(backend) => backend.foreign,
                    Err(DirectoryError::Unknown) => None,
                    Err(error) => return Err(told(NOUN, name, error)),
                };
                let before = before.map_or((None, None), |before| (before.imap, before.pop3));
                Some(Foreign {
                    imap: imap.map_or(before.0, Service::there),
                    pop3: pop3.map_or(before.1, Service::there),
                })
            }
        };
        Ok(BackendPut {
            address,
            state: self.state.map(Into::into),
            weight: self.weight,
            adopt_volume,
            foreign,
        })
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
            match &self.foreign {
                Some(foreign) => format!("foreign: {}", foreign.told()),
                None => self.address.clone(),
            },
            format!("{:?}", self.state).to_lowercase(),
            self.weight.to_string(),
            self.accounts.to_string(),
            volumes.join(", "),
        ]
    }
}
