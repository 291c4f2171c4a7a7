//! The directory: knows domains, addresses, accounts, back-ends and homes, and checks passwords.
//!
//! [`run`] opens the database and serves version 1 of the interface defined in `directory-api`.
//! What is stored stands behind [`engine::Engine`]: LMDB in the folder, or PostgreSQL for several servers. The directory
//! never sees a message and never talks to another tier by itself.

mod api;
pub mod config;
mod copy;
pub mod engine;
mod folder;
mod keys;
mod last_use;
mod ldap;
mod login;
mod oauth;
mod password;
mod refusals;
mod sasl;
mod scram;
mod server;
mod survey;
mod upgrade;

pub use config::Config;
pub use copy::{Copied, CopyError, CopyTo, copy};
pub use folder::FolderError;
pub use keys::KeepError;
pub use ldap::{LdapSettings, LdapSetupError};
pub use oauth::{KeySetError, KeysError, OauthSettings};
pub use sasl::ExternalSettings;
pub use server::{RunError, run};
