//! `posthouse account app-password …`

use daemon::random::token128;
use data_encoding::BASE32_NOPAD;
use directory_api::wire::{AccountChange, AppPassword, Credential, CredentialEntry};
use directory_api::{CredentialName, DirectoryClient};
use serde::Serialize;

use super::{NOUN, Open, services_of, services_text};
use crate::backup::Moment;
use crate::verbs::{Output, Row, VerbError, account_id, told};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// The account's own password and its app passwords: what each opens and when it was last used
    List {
        /// Number or login name
        account: String,
    },
    /// Make a password for one program or machine, and show it this once
    Add {
        /// Number or login name
        account: String,
        /// What to call it: letters, digits, `-`, `.`, `_`. One of that name is replaced
        name: CredentialName,
        /// Services it opens [default: what the account may]
        #[arg(long, value_delimiter = ',', value_name = "pop3,imap")]
        services: Option<Vec<Open>>,
    },
    /// Remove an app password: who has it cannot log in with it any more
    Remove {
        /// Number or login name
        account: String,
        name: CredentialName,
    },
}

impl Verb {
    pub(super) async fn perform(
        self,
        directory: &DirectoryClient,
        output: &Output,
    ) -> Result<(), VerbError> {
        let (account, change, made) = match self {
            Self::List { account } => {
                let id = account_id(directory, &account).await?;
                let found = directory
                    .credentials(id)
                    .await
                    .map_err(|error| told(NOUN, &account, error))?;
                output.rows(&found.items);
                return Ok(());
            }
            Self::Add {
                account,
                name,
                services,
            } => {
                let password = BASE32_NOPAD.encode(&token128()).to_lowercase();
                let one = AppPassword {
                    name: name.clone(),
                    // With 128 random bits a fast scheme is enough, and keeps refusals quick.
                    credential: Credential::salted_sha256(&password, &token128()),
                    services: services.as_deref().map(services_of),
                };
                let change = AccountChange {
                    app_passwords: vec![one],
                    ..AccountChange::default()
                };
                (account, change, Made { name, password })
            }
            Self::Remove { account, name } => {
                let change = AccountChange {
                    remove_app_passwords: vec![name.clone()],
                    ..AccountChange::default()
                };
                let password = String::new();
                (account, change, Made { name, password })
            }
        };
        let id = account_id(directory, &account).await?;
        directory
            .change_account(id, &change)
            .await
            .map_err(|error| told(NOUN, &account, error))?;
        let done = match change.app_passwords.is_empty() {
            true => "removed",
            false => "added; the password is not shown again",
        };
        output.one(Some(done), &made);
        Ok(())
    }
}

/// An app password that was made, or removed: then without the password.
#[derive(Serialize)]
struct Made {
    name: CredentialName,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
}

impl Row for Made {
    const HEADINGS: &'static [&'static str] = &["NAME", "PASSWORD"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.password.clone()]
    }
}

impl Row for CredentialEntry {
    const HEADINGS: &'static [&'static str] = &["NAME", "SERVICES", "KEPT AS", "SET", "LAST USED"];

    fn cells(&self) -> Vec<String> {
        let time =
            |ms: Option<i64>, none: &str| ms.map_or(none.to_owned(), |ms| Moment(ms).to_string());
        vec![
            self.name
                .as_ref()
                .map_or("(own password)".to_owned(), ToString::to_string),
            self.services
                .as_deref()
                .map_or("as the account".to_owned(), services_text),
            self.scheme.clone(),
            time(self.set_ms, "unknown"),
            time(self.last_used_ms, "never"),
        ]
    }
}
