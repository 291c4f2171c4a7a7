//! The directory's contract: what the other tiers may ask of it and what its answers mean.
//!
//! Types ([`types`]), the requests and replies of version 1 of the interface ([`wire`]), signed
//! grants ([`grant`]) and the tickets in them ([`ticket`]), the client with its cache ([`client`]) and the shell of the dialogue before
//! login that proxy and back-end share ([`front`]). This package never stores anything and never
//! decides where an account lives.

pub mod client;
pub mod front;
pub mod grant;
pub mod operator;
pub mod ticket;
pub mod types;
pub mod wire;

pub use client::{ClientOptions, DirectoryClient, DirectoryError, KeptLogins, LoginError};
pub use types::{
    AccountId, AccountStatus, Address, AddressError, BackendName, BackendState, ChangeNumber,
    CredentialName, DomainName, Epoch, Home, LoginName, NameError, Quota, Service, VolumeName,
};
