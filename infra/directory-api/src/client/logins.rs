//! Logins that were right a moment ago, so that a mail program which comes again does not cost the
//! directory a question each time.
//!
//! For the listeners of a back-end alone, and for accounts that live there: what it opens with them
//! is its own. A proxy keeps none, it needs a fresh grant each time (P8). A login is kept for a short
//! time and only while the changes are followed: a changed password, a suspended account, a home
//! that moves are dropped as the feed tells them, and when it does not, the directory is asked. A
//! directory that has fallen silent without closing its connections is noticed within 10 s, one that
//! holds them and does not answer within 27 s: so long a login may outlive a change that is not told.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use moka::future::Cache;

use super::cached::Seen;
use super::changed::ChangedAccounts;
use super::{DirectoryClient, GaveUp, LOGIN_DEADLINE, LoginError};
use crate::types::{BackendName, ChangeNumber};
use crate::wire::{LoginReply, LoginRequest};

/// Which logins are kept, and for how long.
#[derive(Clone, Debug)]
pub struct KeptLogins {
    /// Where their accounts live.
    pub home: BackendName,
    /// For how long each; zero keeps none.
    pub time: Duration,
}

/// What stands for a user, a password and a service: nothing of them is kept in the clear. The key
/// lives as long as the process.
pub(super) type Tag = [u8; 32];

/// The logins that are kept.
pub(super) struct Logins {
    key: hmac::Key,
    kept: Option<(BackendName, Cache<Tag, Kept>)>,
    followed: AtomicBool,
    seen: Seen,
    changed: ChangedAccounts,
}

#[derive(Clone)]
struct Kept {
    reply: Arc<LoginReply>,
    /// The newest change known when it was asked for. The account has not changed since, or it is of no use.
    as_of: ChangeNumber,
}

/// Logins kept at once: 60 s of 1,600 new ones a second, 50 MB when full.
const LOGINS_MAX: u64 = 100_000;

impl Logins {
    pub(super) fn new(which: Option<&KeptLogins>, seen: &Seen, changed: &ChangedAccounts) -> Self {
        let mut key = [0; 32];
        daemon::random::fill(&mut key);
        let kept = which.filter(|which| !which.time.is_zero()).map(|which| {
            let cache = Cache::builder()
                .max_capacity(LOGINS_MAX)
                .time_to_live(which.time)
                .build();
            (which.home.clone(), cache)
        });
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            kept,
            followed: AtomicBool::new(false),
            seen: seen.clone(),
            changed: changed.clone(),
        }
    }

    /// Whether the feed tells of every change now. What was kept before a gap is forgotten: a directory that was restored
    /// meanwhile, and has gone on to where it was, would not tell what it changed on its way.
    pub(super) fn set_followed(&self, is_followed: bool) {
        if is_followed && !self.followed.load(Ordering::SeqCst) {
            self.drop_all();
        }
        self.followed.store(is_followed, Ordering::SeqCst);
    }

    async fn get(&self, tag: &Tag) -> Option<Arc<LoginReply>> {
        let (_, cache) = self.kept.as_ref()?;
        if !self.followed.load(Ordering::SeqCst) {
            return None;
        }
        let kept = cache.get(tag).await?;
        let holds = self.changed.holds(kept.reply.account, kept.as_of);
        holds.then_some(kept.reply)
    }

    /// Keeps an answer that was asked for when `as_of` was the newest change known.
    async fn keep(&self, tag: Tag, reply: &LoginReply, as_of: ChangeNumber) {
        let Some((home, cache)) = &self.kept else {
            return;
        };
        let is_followed = self.followed.load(Ordering::SeqCst);
        // One below tells of a directory that went back in time.
        if reply.home.backend != *home || !is_followed || self.seen.number() < as_of {
            return;
        }
        let reply = Arc::new(reply.clone());
        cache.insert(tag, Kept { reply, as_of }).await;
    }

    async fn drop_one(&self, tag: &Tag) {
        if let Some((_, cache)) = &self.kept {
            cache.invalidate(tag).await;
        }
    }

    pub(super) fn drop_all(&self) {
        if let Some((_, cache)) = &self.kept {
            cache.invalidate_all();
        }
    }
}

/// Stands for a user, a password, and what else they are wanted for.
pub(super) fn tag(key: &hmac::Key, of: &[u8], request: &LoginRequest) -> Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(of);
    context.update(&(request.user.len() as u64).to_be_bytes());
    context.update(request.user.as_bytes());
    context.update(request.password.reveal().as_bytes());
    let tag = context.sign();
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 octets")
}

impl DirectoryClient {
    /// As [`DirectoryClient::login`], but a login of an account that lives at the home named in the
    /// client's options may be answered from those kept (its grant has been used or is past its
    /// time then), unless it `looks_again` because the answer turned out to be old.
    ///
    /// # Errors
    /// [`LoginError`]: each variant is another answer to the user. None is kept.
    pub async fn login_or_kept(
        &self,
        request: &LoginRequest,
        looks_again: bool,
    ) -> Result<Arc<LoginReply>, LoginError> {
        self.login_or_kept_unless(request, looks_again, pending())
            .await
    }

    /// The same, but waits for its turn no longer than until `gives_up`.
    ///
    /// # Errors
    /// [`LoginError`]; `Throttled` when there was no turn.
    pub async fn login_or_kept_unless(
        &self,
        request: &LoginRequest,
        looks_again: bool,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<Arc<LoginReply>, LoginError> {
        self.login_or_kept_within(request, looks_again, LOGIN_DEADLINE, gives_up)
            .await
    }

    /// The same, but the directory, once it is asked, is away if it does not answer within a time.
    ///
    /// # Errors
    /// [`LoginError`]; `Throttled` when there was no turn.
    pub async fn login_or_kept_within(
        &self,
        request: &LoginRequest,
        looks_again: bool,
        deadline: Duration,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<Arc<LoginReply>, LoginError> {
        let logins = &self.inner.logins;
        if logins.kept.is_none() {
            let reply = self.login_within(request, deadline, gives_up).await;
            return reply.map(Arc::new);
        }
        let wanted = [request.service as u8, u8::from(request.secured)];
        let tag = tag(&logins.key, &wanted, request);
        if looks_again {
            logins.drop_one(&tag).await;
        } else if let Some(kept) = logins.get(&tag).await {
            metrics::counter!(super::KEPT_LOGINS).increment(1);
            return Ok(kept);
        }
        let as_of = self.inner.seen.number();
        let reply = self.login_within(request, deadline, gives_up).await?;
        logins.keep(tag, &reply, as_of).await;
        Ok(Arc::new(reply))
    }
}
