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
//!
//! Servers on one database share the keys, in its table `keys`: each step is taken once, by whichever comes first when it is
//! due, and is known to all two seconds later, thirty times sooner than the next. One that has not read the keys for half a
//! step neither signs nor publishes; it has lost the database and could log nobody in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::log::causes;
use directory_api::grant::{GrantSigner, KeyError};
use directory_api::wire::{KeyState, PublicKey};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info};

use crate::engine::{Answer, EngineError, NamedKey, Postgres};
use crate::folder::{FolderError, remove_synced, rename_synced, write_synced};

/// The keys of a data folder, or of a database that several servers share.
pub(crate) struct Keys {
    kept: Kept,
    held: Mutex<Held>,
    /// How long a key is published before it is used, and kept behind that.
    step: Duration,
}

enum Kept {
    Folder(PathBuf),
    /// Any server takes the step that is due, by the database's clock; each reads the keys every [`READ_EVERY`].
    Database(Postgres),
}

struct Held {
    used: Arc<GrantSigner>,
    next: Option<GrantSigner>,
    old: Option<PublicKey>,
    /// When the next step is due.
    due: Instant,
    /// When they were read where others may change them.
    read: Instant,
}

/// A key is on its way already.
pub(crate) struct OnItsWay;

/// Why keys cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Those of a data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] EngineError),
    /// A key in the database is none.
    #[error(
        "a key that signs grants in the database's table `keys` cannot be used: restore it, or remove all three to have a new one made"
    )]
    Damaged(#[from] KeyError),
}

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
            read: Instant::now(),
        };
        Ok(Self {
            kept: Kept::Folder(folder.to_owned()),
            held: Mutex::new(held),
            step,
        })
    }

    /// Reads the keys of a database, or makes the first.
    pub(crate) async fn shared(database: Postgres, step: Duration) -> Result<Self, KeepError> {
        let (_, octets) = GrantSigner::generate()?;
        database.key_or(USED, &octets).await?;
        let asked = Instant::now();
        let held = Held::read(&database.signing_keys(step).await?, asked)?;
        Ok(Self {
            kept: Kept::Database(database),
            held: Mutex::new(held),
            step,
        })
    }

    /// The key that signs now.
    pub(crate) fn signer(&self) -> Answer<Arc<GrantSigner>> {
        Ok(Arc::clone(&self.fresh()?.used))
    }

    /// Every key whose grants are valid now or soon, the newest last.
    pub(crate) fn published(&self) -> Answer<Vec<PublicKey>> {
        let held = self.fresh()?;
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
        Ok(old.into_iter().chain([used]).chain(next).collect())
    }

    /// Makes a new key and publishes it. Durable when it returns.
    pub(crate) async fn rotate(&self) -> Result<Result<Vec<PublicKey>, OnItsWay>, KeepError> {
        let is_new = match &self.kept {
            Kept::Folder(folder) => self.rotate_in(folder)?,
            Kept::Database(database) => {
                let (_, octets) = GrantSigner::generate()?;
                let is_new = database.add_signing_key(&octets).await?;
                self.read_again(database).await?;
                is_new
            }
        };
        if !is_new {
            return Ok(Err(OnItsWay));
        }
        let published = self.published()?;
        if let Some(next) = published.last() {
            info!(key = next.id, "a new key for grants is published");
        }
        Ok(Ok(published))
    }

    fn rotate_in(&self, folder: &Path) -> Result<bool, FolderError> {
        let mut held = self.held();
        if held.next.is_some() || held.old.is_some() {
            return Ok(false);
        }
        held.next = Some(made(folder, NEXT)?);
        held.due = Instant::now() + self.step;
        Ok(true)
    }

    /// Takes each step when it is due, until it is ended from outside.
    pub(crate) async fn go_on_for_ever(&self) {
        loop {
            let went_on = match &self.kept {
                Kept::Folder(folder) => {
                    let due = self.held().due;
                    sleep_until(due.max(Instant::now() + LOOK)).await;
                    // Not in the condition itself: what is held there is held for the whole of it, and the step holds it too.
                    let due = self.held().due;
                    if Instant::now() >= due {
                        self.step(folder).map_err(KeepError::from)
                    } else {
                        Ok(())
                    }
                }
                Kept::Database(database) => {
                    sleep(READ_EVERY).await;
                    self.read_again(database).await
                }
            };
            match went_on {
                Ok(()) => {}
                // That it is away is told once, elsewhere.
                Err(KeepError::Database(_)) => {}
                Err(error) => {
                    error!(cause = causes(&error), "keys for grants stay as they are");
                    self.held().due = Instant::now() + self.step;
                }
            }
        }
    }

    fn step(&self, folder: &Path) -> Result<(), FolderError> {
        let mut held = self.held();
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

    async fn read_again(&self, database: &Postgres) -> Result<(), KeepError> {
        let asked = Instant::now();
        let held = Held::read(&database.signing_keys(self.step).await?, asked)?;
        *self.held() = held;
        Ok(())
    }

    /// Another server may have gone on meanwhile: what was read too long ago is not signed with, while grants of it
    /// are still believed.
    fn fresh(&self) -> Answer<MutexGuard<'_, Held>> {
        let held = self.held();
        match self.kept {
            Kept::Database(_) if held.read.elapsed() > self.step / 2 => {
                let cause = "the keys for grants were not read for too long";
                Err(EngineError::Storage(cause.into()))
            }
            _ => Ok(held),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn read(found: &[NamedKey], asked: Instant) -> Result<Self, KeyError> {
        let of = |wanted| {
            let octets = found.iter().find(|(name, _)| name == wanted);
            octets.map(|(_, octets)| GrantSigner::from_pkcs8(octets))
        };
        Ok(Self {
            used: Arc::new(of(USED).unwrap_or_else(|| GrantSigner::from_pkcs8(&[]))?),
            next: of(NEXT).transpose()?,
            old: of(OLD).transpose()?.map(|old| old.public_key()),
            due: asked,
            read: asked,
        })
    }
}

/// How often shared keys are read: far less than a step.
const READ_EVERY: Duration = Duration::from_secs(2);

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
        keys.published().unwrap().into_iter().map(shown).collect()
    }

    #[tokio::test]
    async fn a_key_is_published_then_used_then_kept_a_while_and_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Keys::open(dir.path(), STEP).unwrap();
        let keys = open();
        let first = keys.signer().unwrap().public_key().id;
        assert_eq!(states(&keys), [(first.clone(), KeyState::Used)]);
        assert!(keys.rotate().await.unwrap().is_ok() && keys.rotate().await.unwrap().is_err());
        let both = states(&keys);
        let second = both[1].0.clone();
        assert_eq!(
            both,
            [
                (first.clone(), KeyState::Used),
                (second.clone(), KeyState::Next)
            ]
        );
        assert_eq!(keys.signer().unwrap().public_key().id, first);

        let keys = open();
        assert_eq!(states(&keys), both);
        keys.step(dir.path()).unwrap();
        let both = [(first, KeyState::Old), (second.clone(), KeyState::Used)];
        assert_eq!(states(&keys), both);
        assert_eq!(keys.signer().unwrap().public_key().id, second);
        assert!(
            keys.rotate().await.unwrap().is_err(),
            "grants of the old one live"
        );

        let keys = open();
        assert_eq!(states(&keys), both);
        keys.step(dir.path()).unwrap();
        let last = [(second, KeyState::Used)];
        assert_eq!(states(&keys), last);
        assert_eq!(states(&open()), last);
        assert!(keys.rotate().await.unwrap().is_ok());
    }

    /// On a thread of its own: one that waits for itself must not keep the test from failing.
    #[test]
    fn a_step_that_is_due_is_taken_and_the_keys_can_be_read_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), Duration::from_millis(1)).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                assert!(keys.rotate().await.unwrap().is_ok());
                let second = states(&keys)[1].0.clone();
                let alone = async {
                    while states(&keys) != [(second.clone(), KeyState::Used)] {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    () = keys.go_on_for_ever() => {}
                    () = alone => told.send(()).unwrap(),
                }
            });
        });
        heard.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[tokio::test]
    async fn a_step_that_was_broken_off_leaves_a_used_key_that_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), STEP).unwrap();
        let first = keys.signer().unwrap().public_key().id;
        assert!(keys.rotate().await.unwrap().is_ok());
        copy(dir.path(), USED, OLD).unwrap();
        let keys = Keys::open(dir.path(), STEP).unwrap();
        assert_eq!(keys.signer().unwrap().public_key().id, first);
        assert!(
            states(&keys)
                .iter()
                .any(|(_, state)| *state == KeyState::Next)
        );
        keys.step(dir.path()).unwrap();
        keys.step(dir.path()).unwrap();
        assert_ne!(keys.signer().unwrap().public_key().id, first);
        assert_eq!(states(&keys).len(), 1);
    }

    #[tokio::test]
    async fn servers_on_one_postgres_have_one_key_and_go_on_to_the_next_together() {
        let Some(cluster) = testkit::postgres::Cluster::shared() else {
            return;
        };
        daemon::tier::install_crypto();
        let settings = crate::engine::PostgresSettings {
            url: Some(cluster.database()),
            ..crate::engine::PostgresSettings::default()
        };
        let database = Postgres::open(settings).await.unwrap();
        let open = async |step| Keys::shared(database.clone(), step).await.unwrap();
        let (one, other) = (open(STEP).await, open(STEP).await);
        let first = states(&one);
        assert_eq!(states(&other), first);
        assert!(one.rotate().await.unwrap().is_ok() && other.rotate().await.unwrap().is_err());
        let both = states(&one);
        assert_eq!((both.len(), both[1].1), (2, KeyState::Next));
        assert_eq!(states(&other), both);

        // A step is due at once for these.
        let soon = Duration::from_millis(1);
        let steps = [open(soon).await, open(soon).await];
        let second = steps[0].held().used.public_key().id;
        assert_eq!(second, both[1].0);
        for keys in [&one, &other] {
            keys.read_again(&database).await.unwrap();
            assert_eq!(keys.signer().unwrap().public_key().id, second);
        }
        // Whoever has not read for long does not sign: others may be past its key.
        sleep(soon * 2).await;
        assert!(steps[0].signer().is_err() && steps[0].published().is_err());

        open(soon).await;
        one.read_again(&database).await.unwrap();
        assert_eq!(states(&one), [(second, KeyState::Used)]);
        assert!(one.rotate().await.unwrap().is_ok());
    }
}
