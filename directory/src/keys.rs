//! The keys that sign grants, and the change from one to the next without an outage.
//!
//! ```text
//!            asked for            every back-end has asked        its grants are past
//! next   ────── published ─────────── becomes the used one
//! used   ────── signs ──────────────── becomes an old one ───────────── gone
//!                    60 s                                  60 s
//! ```
//!
//! Back-ends ask for the keys every 10 s, when they come back to a directory that was away, and when they
//! meet a grant of a key that they do not know; a grant lives 10 s. So no grant is refused for its
//! key. A restart in between loses nothing: what was published is published again and waits anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::grant::{GrantSigner, KeyError};
use directory_api::wire::{KeyState, PublicKey};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use crate::folder::{FolderError, remove_synced, rename_synced, write_synced};

/// The keys of a data folder.
pub(crate) struct Keys {
    folder: PathBuf,
    held: Mutex<Held>,
    /// How long a key is published before it is used, and kept behind that.
    step: Duration,
}

struct Held {
    used: Arc<GrantSigner>,
    next: Option<GrantSigner>,
    old: Option<PublicKey>,
    /// When the next step is due.
    due: Instant,
}

/// A key is on its way already.
pub(crate) struct OnItsWay;

/// Six times the interval in which back-ends ask, and as often the life of a grant.
pub(crate) const STEP: Duration = Duration::from_secs(60);

const USED: &str = "signing.key";
const NEXT: &str = "signing.next";
const OLD: &str = "signing.old";

impl Keys {
    /// Reads the keys of a folder, or makes the first. Blocking.
    pub(crate) fn open(folder: &Path, step: Duration) -> Result<Self, FolderError> {
        let used = match read(folder, USED)? {
            Some(used) => used,
            None => made(folder, USED)?,
        };
        let held = Held {
            used: Arc::new(used),
            next: read(folder, NEXT)?,
            old: read(folder, OLD)?.map(|old| old.public_key()),
            due: Instant::now() + step,
        };
        Ok(Self {
            folder: folder.to_owned(),
            held: Mutex::new(held),
            step,
        })
    }

    /// The key that signs now.
    pub(crate) fn signer(&self) -> Arc<GrantSigner> {
        Arc::clone(&self.held().used)
    }

    /// Every key whose grants are valid now or soon, the newest last.
    pub(crate) fn published(&self) -> Vec<PublicKey> {
        let held = self.held();
        let state = |key: PublicKey, state| PublicKey {
            state: Some(state),
            ..key
        };
        let old = held.old.clone().map(|key| state(key, KeyState::Old));
        let next = held
            .next
            .as_ref()
            .map(|key| state(key.public_key(), KeyState::Next));
        let used = state(held.used.public_key(), KeyState::Used);
        old.into_iter().chain([used]).chain(next).collect()
    }

    /// Makes a new key and publishes it. Durable when it returns. Blocking.
    pub(crate) fn rotate(&self) -> Result<Result<Vec<PublicKey>, OnItsWay>, FolderError> {
        {
            let mut held = self.held();
            if held.next.is_some() || held.old.is_some() {
                return Ok(Err(OnItsWay));
            }
            let next = made(&self.folder, NEXT)?;
            info!(
                key = next.public_key().id,
                "a new key for grants is published"
            );
            held.next = Some(next);
            held.due = Instant::now() + self.step;
        }
        Ok(Ok(self.published()))
    }

    /// Takes each step when it is due, until it is ended from outside.
    pub(crate) async fn go_on_for_ever(&self) {
        loop {
            let due = self.held().due;
            sleep_until(due.max(Instant::now() + LOOK)).await;
            if Instant::now() >= self.held().due
                && let Err(error) = self.step()
            {
                error!(
                    cause = daemon::log::causes(&error),
                    "keys for grants stay as they are"
                );
                self.held().due = Instant::now() + self.step;
            }
        }
    }

    fn step(&self) -> Result<(), FolderError> {
        let mut held = self.held();
        let folder = self.folder.as_path();
        if held.next.is_some() {
            // Whatever breaks this off, the used key is one that is published at the next start.
            copy(folder, USED, OLD)?;
            rename_synced(folder, NEXT, USED)?;
            let next = held.next.take().expect("it was there a moment ago");
            let old = std::mem::replace(&mut held.used, Arc::new(next));
            info!(
                key = held.used.public_key().id,
                "grants are signed with a new key"
            );
            held.old = Some(old.public_key());
        } else if let Some(old) = held.old.clone() {
            remove_synced(folder, OLD)?;
            info!(key = old.id, "no grant of the old key is left");
            held.old = None;
        }
        held.due = Instant::now() + self.step;
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How soon a key that is asked for is noticed.
const LOOK: Duration = Duration::from_millis(100);

fn key_error(folder: &Path, name: &str) -> impl Fn(KeyError) -> FolderError {
    let path = folder.join(name);
    move |source| FolderError::Key {
        path: path.clone(),
        source,
    }
}

fn octets(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FolderError::Io {
            path,
            what: "cannot be read",
            source,
        }),
    }
}

fn read(folder: &Path, name: &str) -> Result<Option<GrantSigner>, FolderError> {
    let octets = octets(folder, name)?;
    let read = octets.map(|octets| GrantSigner::from_pkcs8(&octets));
    read.transpose().map_err(key_error(folder, name))
}

fn made(folder: &Path, name: &str) -> Result<GrantSigner, FolderError> {
    let (signer, octets) = GrantSigner::generate().map_err(key_error(folder, name))?;
    write_synced(folder, name, &octets, 0o600)?;
    Ok(signer)
}

fn copy(folder: &Path, from: &str, to: &str) -> Result<(), FolderError> {
    match octets(folder, from)? {
        Some(octets) => write_synced(folder, to, &octets, 0o600),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn states(keys: &Keys) -> Vec<(String, KeyState)> {
        let shown = |key: PublicKey| (key.id, key.state.unwrap());
        keys.published().into_iter().map(shown).collect()
    }

    #[tokio::test]
    async fn a_key_is_published_then_used_then_kept_a_while_and_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Keys::open(dir.path(), STEP).unwrap();
        let keys = open();
        let first = keys.signer().public_key().id;
        assert_eq!(states(&keys), [(first.clone(), KeyState::Used)]);
        assert!(keys.rotate().unwrap().is_ok() && keys.rotate().unwrap().is_err());
        let both = states(&keys);
        let second = both[1].0.clone();
        assert_eq!(
            both,
            [
                (first.clone(), KeyState::Used),
                (second.clone(), KeyState::Next)
            ]
        );
        assert_eq!(keys.signer().public_key().id, first);

        let keys = open();
        assert_eq!(states(&keys), both);
        keys.step().unwrap();
        let both = [(first, KeyState::Old), (second.clone(), KeyState::Used)];
        assert_eq!(states(&keys), both);
        assert_eq!(keys.signer().public_key().id, second);
        assert!(
            keys.rotate().unwrap().is_err(),
            "grants of the old one live"
        );

        let keys = open();
        assert_eq!(states(&keys), both);
        keys.step().unwrap();
        let last = [(second, KeyState::Used)];
        assert_eq!(states(&keys), last);
        assert_eq!(states(&open()), last);
        assert!(keys.rotate().unwrap().is_ok());
    }

    #[test]
    fn a_step_that_was_broken_off_leaves_a_used_key_that_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), STEP).unwrap();
        let first = keys.signer().public_key().id;
        assert!(keys.rotate().unwrap().is_ok());
        copy(dir.path(), USED, OLD).unwrap();
        let keys = Keys::open(dir.path(), STEP).unwrap();
        assert_eq!(keys.signer().public_key().id, first);
        assert!(
            states(&keys)
                .iter()
                .any(|(_, state)| *state == KeyState::Next)
        );
        keys.step().unwrap();
        keys.step().unwrap();
        assert_ne!(keys.signer().public_key().id, first);
        assert_eq!(states(&keys).len(), 1);
    }
}
