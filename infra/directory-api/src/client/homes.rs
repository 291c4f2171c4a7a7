//! Where users who logged in through here live, for when the directory is away: their homes can check their passwords.
//!
//! Nothing here is secret. An answer may be old: a home that the user has left refuses.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::DirectoryClient;
use crate::types::{AccountId, BackendName, LoginName};
use crate::wire::LoginReply;

/// Where a user lived at the last login through here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHome {
    /// Whose mail.
    pub account: AccountId,
    /// The user's canonical name.
    pub login_name: LoginName,
    /// The back-end.
    pub backend: BackendName,
    /// Where that one listens for session streams: `host:port`.
    pub backend_address: String,
}

/// The homes that one process knows.
pub(super) struct Homes(Cache<LoginName, Arc<KnownHome>>);

impl Homes {
    pub(super) fn new(entries_max: u64) -> Self {
        let homes = Cache::builder()
            .max_capacity(entries_max)
            .time_to_live(KEPT)
            .build();
        Self(homes)
    }

    pub(super) async fn note(&self, user: &str, reply: &LoginReply) {
        // A foreign back-end checks no ticket.
        let (Ok(user), None) = (LoginName::new(user), &reply.foreign) else {
            return;
        };
        let known = KnownHome {
            account: reply.account,
            login_name: reply.login_name.clone(),
            backend: reply.home.backend.clone(),
            backend_address: reply.backend_address.clone(),
        };
        self.0.insert(user, Arc::new(known)).await;
    }
}

impl DirectoryClient {
    /// Where a user lived at the last login through here.
    pub async fn known_home(&self, user: &str) -> Option<Arc<KnownHome>> {
        let user = LoginName::new(user).ok()?;
        self.inner.homes.0.get(&user).await
    }
}

/// As long as a ticket may be good.
const KEPT: Duration = Duration::from_secs(72 * 3600);
