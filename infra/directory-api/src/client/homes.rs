//! Where users who logged in through here live, for when the directory is away: their homes can check their passwords.
//!
//! Nothing here is secret. An answer may be old: a home that the user has left refuses. What the feed tells of moves is dropped.

use std::sync::Arc;
use std::time::Duration;

use super::changed::ChangedAccounts;
use super::users::OfUsers;
use crate::types::{AccountId, BackendName, ChangeNumber, LoginName};
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
pub(super) struct Homes {
    known: OfUsers<Arc<KnownHome>>,
    changed: ChangedAccounts,
}

impl Homes {
    pub(super) fn new(entries_max: u64, changed: &ChangedAccounts) -> Self {
        Self {
            known: OfUsers::new(entries_max, |_| 1, KEPT),
            changed: changed.clone(),
        }
    }

    /// Notes an answer that was asked for when `before` was the newest change known.
    pub(super) async fn note(&self, user: &str, reply: &LoginReply, before: ChangeNumber) {
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
        self.known.name(user, known.account).await;
        self.known
            .accounts
            .insert(known.account, Arc::new(known))
            .await;
        if !self.changed.holds(reply.account, before) {
            self.drop_of(reply.account).await;
        }
    }

    pub(super) async fn get(&self, user: &LoginName) -> Option<Arc<KnownHome>> {
        self.known.get(user).await
    }

    /// The account may live elsewhere now.
    pub(super) async fn drop_of(&self, account: AccountId) {
        self.known.accounts.invalidate(&account).await;
    }
}

/// As long as a ticket may be good.
const KEPT: Duration = Duration::from_secs(72 * 3600);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::types::{Epoch, Home, Quota};

    fn reply(account: u64, backend: &str) -> LoginReply {
        LoginReply {
            account: AccountId(account),
            login_name: "ann@x.test".parse().unwrap(),
            home: Home {
                backend: backend.parse().unwrap(),
                volume: "v1".parse().unwrap(),
                epoch: Epoch(1),
            },
            backend_address: format!("{backend}.test:4300"),
            quota: Quota::NONE,
            grant: String::new(),
            foreign: None,
        }
    }

    #[tokio::test]
    async fn a_home_is_known_by_every_name_of_its_user_until_the_account_has_another() {
        let changed = ChangedAccounts::new();
        let homes = Homes::new(10, &changed);
        let knows = async |user: &str| {
            let home = homes.get(&user.parse().unwrap()).await;
            home.map(|home| home.backend.to_string())
        };
        let note = async |user, backend, before| {
            let reply = reply(7, backend);
            homes.note(user, &reply, ChangeNumber(before)).await;
        };
        note("Ann@X.test", "b1", 4).await;
        note("ann@alias.test", "b1", 4).await;
        for user in ["ann@x.test", "ann@alias.test"] {
            assert_eq!(knows(user).await.as_deref(), Some("b1"));
        }
        assert_eq!(knows("eve@x.test").await, None);
        changed.note(AccountId(7), ChangeNumber(5));
        homes.drop_of(AccountId(7)).await;
        // It was on its way while the account moved.
        note("ann@x.test", "b1", 4).await;
        for user in ["ann@x.test", "ann@alias.test"] {
            assert_eq!(knows(user).await, None);
        }
        note("ann@x.test", "b2", 5).await;
        assert_eq!(knows("ann@alias.test").await.as_deref(), Some("b2"));
    }
}
