//! `posthouse account …`

use directory_api::wire::{Account, AccountChange, AccountNew};
use directory_api::{
    AccountStatus, Address, BackendName, DirectoryClient, LoginName, Service, VolumeName,
};

use super::{Output, Row, VerbError, account_id, password, told};

mod app_password;

const NOUN: &str = "account";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// All accounts
    List {
        /// Only login names that contain this
        #[arg(long)]
        filter: Option<String>,
        /// Only accounts of this status
        #[arg(long)]
        status: Option<Status>,
    },
    /// One account
    Show {
        /// Number or login name
        account: String,
    },
    /// A new account. The password is asked for, or read as one line from standard input
    Add {
        login_name: LoginName,
        /// Read the password from standard input even at a terminal
        #[arg(long)]
        password_stdin: bool,
        /// What is read is not a password but another server's hash of it, as {SHA512-CRYPT}$6$…
        #[arg(long)]
        hashed: bool,
        /// Nobody can log in until a password is set
        #[arg(long, conflicts_with_all = ["password_stdin", "hashed"])]
        no_password: bool,
        /// Addresses that deliver to it [default: the login name, when it is an address]
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<Address>,
        /// Where it shall live [default: where the fewest accounts are]
        #[arg(long)]
        backend: Option<BackendName>,
        /// The volume there
        #[arg(long, requires = "backend")]
        volume: Option<VolumeName>,
        #[command(flatten)]
        changes: Changes,
    },
    /// Change an account
    Set {
        /// Number or login name
        account: String,
        /// A new name to log in with; addresses stay
        #[arg(long)]
        login_name: Option<LoginName>,
        /// Set a new password, asked for or read as one line from standard input
        #[arg(long)]
        password: bool,
        /// Set a new password, read from standard input even at a terminal
        #[arg(long)]
        password_stdin: bool,
        /// Set another server's hash of a password, as {SHA512-CRYPT}$6$…, read likewise
        #[arg(long)]
        hashed: bool,
        #[command(flatten)]
        changes: Changes,
    },
    /// Passwords for single programs or machines, beside the account's own
    AppPassword {
        #[command(subcommand)]
        verb: app_password::Verb,
    },
    /// Remove an account, its home and its addresses. Its mail stays on the back-end, out of reach
    Remove {
        /// Number or login name
        account: String,
    },
}

#[derive(clap::Args)]
pub(crate) struct Changes {
    /// active; suspended: takes mail, cannot log in; closing: takes no mail either, and keeps what it has until it is removed
    #[arg(long)]
    status: Option<Status>,
    /// Services it may open
    #[arg(long, value_delimiter = ',', value_name = "pop3,imap")]
    services: Option<Vec<Open>>,
    /// Most octets kept; 0 for no limit
    #[arg(long, value_name = "OCTETS")]
    quota_octets: Option<u64>,
    /// Most messages kept; 0 for no limit
    #[arg(long, value_name = "COUNT")]
    quota_messages: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Status {
    Active,
    Suspended,
    Closing,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Open {
    Pop3,
    Imap,
}

impl Changes {
    fn status(&self) -> Option<AccountStatus> {
        self.status.map(|status| match status {
            Status::Active => AccountStatus::Active,
            Status::Suspended => AccountStatus::Suspended,
            Status::Closing => AccountStatus::Closing,
        })
    }

    fn services(&self) -> Option<Vec<Service>> {
        self.services.as_deref().map(services_of)
    }
}

fn services_of(given: &[Open]) -> Vec<Service> {
    let service = |open: &Open| match open {
        Open::Pop3 => Service::Pop3,
        Open::Imap => Service::Imap,
    };
    given.iter().map(service).collect()
}

fn services_text(services: &[Service]) -> String {
    let names: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
    names.join(",")
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        match self {
            Self::List { filter, status } => {
                let status = super::word_of(status);
                return output
                    .list(filter, async |mut query| {
                        query.status.clone_from(&status);
                        directory.accounts(&query).await
                    })
                    .await;
            }
            Self::Show { account } => {
                let id = account_id(directory, &account).await?;
                let found = directory
                    .account(id)
                    .await
                    .map_err(|error| told(NOUN, &account, error))?;
                output.one(None, &found);
            }
            Self::Add {
                login_name,
                password_stdin,
                hashed,
                no_password,
                addresses,
                backend,
                volume,
                changes,
            } => {
                let credential = if no_password {
                    None
                } else {
                    Some(password::credential(password_stdin, hashed)?)
                };
                let own = || login_name.as_str().parse().ok().into_iter().collect();
                let new = AccountNew {
                    addresses: if addresses.is_empty() {
                        own()
                    } else {
                        addresses
                    },
                    status: changes.status(),
                    services: changes.services(),
                    quota_octets: changes.quota_octets.filter(|octets| *octets > 0),
                    quota_messages: changes.quota_messages.filter(|count| *count > 0),
                    backend,
                    volume,
                    ..AccountNew::new(login_name.clone(), credential)
                };
                let made = directory
                    .create_account(&new)
                    .await
                    .map_err(|error| told(NOUN, &login_name, error))?;
                output.one(Some("added"), &made.now);
            }
            Self::Set {
                account,
                login_name,
                password,
                password_stdin,
                hashed,
                changes,
            } => {
                let id = account_id(directory, &account).await?;
                let credential = if password || password_stdin || hashed {
                    Some(password::credential(password_stdin, hashed)?)
                } else {
                    None
                };
                let change = AccountChange {
                    login_name,
                    credential,
                    status: changes.status(),
                    services: changes.services(),
                    quota_octets: changes.quota_octets,
                    quota_messages: changes.quota_messages,
                    ..AccountChange::default()
                };
                let changed = directory
                    .change_account(id, &change)
                    .await
                    .map_err(|error| told(NOUN, &account, error))?;
                output.one(Some("set"), &changed.now);
            }
            Self::AppPassword { verb } => return verb.perform(directory, output).await,
            Self::Remove { account } => {
                let id = account_id(directory, &account).await?;
                let removed = directory
                    .delete_account(id)
                    .await
                    .map_err(|error| told(NOUN, &account, error))?;
                output.one(Some("removed"), &removed.now);
            }
        }
        Ok(())
    }
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "ACCOUNT",
        "LOGIN NAME",
        "STATUS",
        "SERVICES",
        "MOST OCTETS",
        "MOST MESSAGES",
        "BACKEND",
        "VOLUME",
        "EPOCH",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.login_name.to_string(),
            format!("{:?}", self.status).to_lowercase(),
            services_text(&self.services),
            limit(self.quota_octets),
            limit(self.quota_messages),
            self.home.backend.to_string(),
            self.home.volume.to_string(),
            self.home.epoch.to_string(),
        ]
    }
}

fn limit(most: Option<u64>) -> String {
    most.map_or("no limit".to_owned(), |most| most.to_string())
}
