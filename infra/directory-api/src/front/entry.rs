//! What a session is opened with: the directory's grant, or, while the directory is away, the password itself.

use std::sync::Arc;

use crate::client::KnownHome;
use crate::types::{AccountId, BackendName, LoginName};
use crate::wire::{LoginReply, LoginRequest};

/// What a session is opened with.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The directory has let the user in.
    Granted(Arc<LoginReply>),
    /// **Nobody has checked anything yet.** The directory is away, and the home where the user lived has to find out.
    Shown(Arc<Shown>),
}

/// A password that was shown, and to whom it may be told.
#[derive(Debug)]
pub struct Shown {
    /// Where the user of that name lived.
    pub home: Arc<KnownHome>,
    /// What the directory would have been asked.
    pub request: LoginRequest,
}

/// Whose session it is, without what let them in: neither a password nor a ticket is kept for as long as it lasts.
#[derive(Debug)]
pub struct Whose {
    /// Whose mail.
    pub account: AccountId,
    /// The user's canonical name.
    pub login_name: LoginName,
    /// Where the session was opened.
    pub backend: BackendName,
}

impl Entry {
    pub(super) fn whose(&self) -> Whose {
        Whose {
            account: self.account(),
            login_name: self.login_name().clone(),
            backend: self.backend().clone(),
        }
    }

    /// Whose mail.
    #[must_use]
    pub fn account(&self) -> AccountId {
        match self {
            Self::Granted(login) => login.account,
            Self::Shown(shown) => shown.home.account,
        }
    }

    /// The user's canonical name.
    #[must_use]
    pub fn login_name(&self) -> &LoginName {
        match self {
            Self::Granted(login) => &login.login_name,
            Self::Shown(shown) => &shown.home.login_name,
        }
    }

    /// Where the session is to be opened.
    #[must_use]
    pub fn backend(&self) -> &BackendName {
        match self {
            Self::Granted(login) => &login.home.backend,
            Self::Shown(shown) => &shown.home.backend,
        }
    }

    /// Where that back-end listens for session streams: `host:port`.
    #[must_use]
    pub fn backend_address(&self) -> &str {
        match self {
            Self::Granted(login) => &login.backend_address,
            Self::Shown(shown) => &shown.home.backend_address,
        }
    }
}
