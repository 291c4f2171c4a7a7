//! The volumes of this back-end: by name, and by the account that lives there.
//!
//! Which volume an account lives on is asked here and nowhere else. The directory gives each account its home, volume
//! included, before anything of it is here; from then on the row in that volume's index says so, also while the directory is
//! away. So a look at the open volumes answers for every account that was ever used, and the directory for all others:
//!
//! ```text
//! of(account) ─▶ a row on an open volume that is not of a past home, and all volumes have answered ─▶ that one
//!             └▶ none ─▶ the directory ─▶ here, on an open volume ─▶ that one
//!                                      ├▶ elsewhere, with a row of the past here ─▶ that one: it knows where to
//!                                      ├▶ on a volume that is not open ─▶ Away
//!                                      └▶ no answer ─▶ that row, if there is one; else Away
//! ```
//! `Away` is a temporary answer for whoever asks (P6): an account whose volume is not open is never looked for, and so never
//! made anew, on another one. A back-end with one volume looks nowhere.

mod asking;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use shared::Named;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use daemon::link::Problem;
use directory_api::client::{DirectoryClient, DirectoryError};
use directory_api::{AccountId, BackendName, VolumeName};
use tracing::{error, warn};

use crate::refusal;
use crate::volume::{AccountInfo, AccountState, Refusal, Volume, VolumeStatus, held_for};

/// All of them, open or not, in the order of the settings.
pub(crate) struct Volumes {
    backend: BackendName,
    directory: DirectoryClient,
    slots: Vec<Slot>,
    known: Mutex<Known>,
}

/// Where accounts live that were looked for.
#[derive(Default)]
struct Known {
    /// Of those with a row here, so no more than there are.
    at: HashMap<AccountId, usize>,
    /// How often one was forgotten: what was looked for before may be of the past.
    forgotten: u64,
}

/// What the open volumes have of an account.
struct Looked {
    /// Where it is at its last epoch.
    live: Option<usize>,
    /// The one that knows best where it went.
    past: Option<usize>,
    /// All volumes were asked and have answered. Otherwise the live row may be one of the past, of an old copy: the account may
    /// live on the volume that is missing (P4, P8).
    is_sure: bool,
    /// As [`Known::forgotten`] was before.
    forgotten: u64,
}

/// One volume of the settings.
struct Slot {
    name: VolumeName,
    /// From when it is open until the process ends.
    mounted: OnceLock<Arc<Mounted>>,
}

/// An open volume.
pub(crate) struct Mounted {
    pub(crate) name: VolumeName,
    pub(crate) volume: Volume,
    /// Whether the directory knows a newer state of it than it has: no writes then, nor before it was asked once.
    restored: AtomicBool,
    /// Whether the directory has taken how it was when it was opened.
    announced: AtomicBool,
    /// Whether it refused writes, or what takes room, when it was last looked at.
    refuses: AtomicBool,
    /// Whether its disk had no room for mail of others then.
    is_short: AtomicBool,
    /// The questions to it that have waited too long and have no answer yet; see [`Mounted::ask`].
    late: AtomicUsize,
}

/// The account's volume is not open, or nobody can say which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's volume is not available")]
pub(crate) struct Away;

impl From<Away> for Problem {
    fn from(_: Away) -> Self {
        Self::unavailable("the account's volume is not available now")
    }
}

impl From<Away> for Refusal {
    fn from(_: Away) -> Self {
        Self::ReadOnly
    }
}

impl Mounted {
    /// Whether mail and deletions may be written. A volume restored from an old copy would give UIDs
    /// again that were given to other messages (P3).
    pub(crate) fn may_write(&self) -> bool {
        !self.restored.load(Ordering::Relaxed)
    }

    pub(crate) fn set_restored(&self, restored: bool) {
        self.restored.store(restored, Ordering::Relaxed);
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_announced(&self, announced: bool) {
        self.announced.store(announced, Ordering::Relaxed);
    }

    /// Takes note of how it is. `reserve_percent`: of its disk, free for its own accounts alone.
    pub(crate) fn looked_at(&self, status: &VolumeStatus, reserve_percent: u8) {
        let refuses = status.read_only.is_some() || status.space.refuses;
        self.refuses.store(refuses, Ordering::Relaxed);
        let is_short = status.space.disk.is_some_and(|disk| {
            let reserve = disk.size_bytes / 100 * u64::from(reserve_percent);
            disk.free_bytes < reserve
        });
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    fn takes_mail(&self) -> bool {
        self.may_write() && !self.refuses.load(Ordering::Relaxed) && !self.is_silent()
    }

    /// Whether it takes mail of others, too.
    pub(crate) fn takes_held(&self) -> bool {
        self.takes_mail() && !self.is_short.load(Ordering::Relaxed)
    }

    /// What the volume knows of an account.
    pub(crate) async fn account(&self, account: AccountId) -> Result<Option<AccountInfo>, Problem> {
        let info = self.volume.account(account).await;
        info.map_err(|error| refusal::read(&error))
    }

    /// The same as a refusal.
    pub(crate) fn check_writable(&self) -> Result<(), Problem> {
        match self.may_write() {
            true => Ok(()),
            false => Err(refusal::restored()),
        }
    }
}

impl Volumes {
    /// None of them open yet.
    pub(crate) fn new(
        backend: BackendName,
        directory: DirectoryClient,
        names: impl IntoIterator<Item = VolumeName>,
    ) -> Self {
        let slots = names.into_iter().map(|name| Slot {
            name,
            mounted: OnceLock::new(),
        });
        Self {
            backend,
            directory,
            slots: slots.collect(),
            known: Mutex::default(),
        }
    }

    /// Takes a volume in that was opened. It takes no writes until the directory was asked.
    pub(crate) fn mount(&self, name: &VolumeName, volume: Volume) -> Arc<Mounted> {
        let mounted = Arc::new(Mounted {
            name: name.clone(),
            volume,
            restored: AtomicBool::new(true),
            announced: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            is_short: AtomicBool::new(false),
            late: AtomicUsize::new(0),
        });
        if let Some(slot) = self.slots.iter().find(|slot| slot.name == *name) {
            let taken = slot.mounted.set(Arc::clone(&mounted));
            debug_assert!(taken.is_ok(), "a volume is opened once");
        }
        // A row of the past may have been taken for the account while this one was missing.
        let mut known = self.lock();
        known.at.clear();
        known.forgotten += 1;
        drop(known);
        mounted
    }

    /// Who says where accounts live, and who they are.
    pub(crate) fn directory(&self) -> &DirectoryClient {
        &self.directory
    }

    /// Those that are open.
    pub(crate) fn mounted(&self) -> impl Iterator<Item = &Arc<Mounted>> {
        self.slots.iter().filter_map(|slot| slot.mounted.get())
    }

    /// All of them, open or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&VolumeName, Option<&Arc<Mounted>>)> {
        self.slots
            .iter()
            .map(|slot| (&slot.name, slot.mounted.get()))
    }

    /// Those that take no mail now, open or not.
    pub(crate) fn away(&self) -> impl Iterator<Item = VolumeName> {
        let away = self
            .slots
            .iter()
            .filter(|slot| slot.mounted.get().is_none_or(|one| !one.takes_mail()));
        away.map(|slot| slot.name.clone())
    }

    /// Whether one of them takes mail of others now.
    pub(crate) fn takes_held(&self) -> bool {
        self.mounted().any(|one| one.takes_held())
    }

    /// Whether one of them is not open.
    pub(crate) fn is_one_away(&self) -> bool {
        self.slots.iter().any(|slot| slot.mounted.get().is_none())
    }

    /// The volume that an account lives on, or lived on before it went elsewhere.
    pub(crate) async fn of(&self, account: AccountId) -> Result<Arc<Mounted>, Away> {
        self.of_one_of_many(account, &mut false).await
    }

    /// The same for one of many that are asked for together: once the directory gives no answer it is asked no more, or
    /// each of them would wait for it.
    pub(crate) async fn of_one_of_many(
        &self,
        account: AccountId,
        is_silent: &mut bool,
    ) -> Result<Arc<Mounted>, Away> {
        if let [only] = &self.slots[..] {
            return only.mounted.get().cloned().ok_or(Away);
        }
        if held_for(account).is_some() {
            let mut volumes = self.mounted();
            return volumes.find(|one| one.takes_held()).cloned().ok_or(Away);
        }
        if let Some(known) = self.known(account) {
            return Ok(known);
        }
        let looked = self.look(account).await;
        let live = self.at(looked.live);
        if looked.is_sure || *is_silent {
            if let Some(live) = live {
                return Ok(live);
            }
            if *is_silent {
                return Err(Away);
            }
        }
        match self.directory.home(account).await {
            Ok(now) if now.home.backend == self.backend => {
                let mut slots = self.slots.iter();
                let at = slots.position(|slot| slot.name == now.home.volume);
                if at.is_none() {
                    error!(%account, volume = %now.home.volume, "the directory has an account on a volume that the settings do not name");
                }
                if at == looked.live {
                    self.remember(account, &looked);
                }
                self.at(at).ok_or(Away)
            }
            Ok(_) | Err(DirectoryError::Unknown) => {
                live.or_else(|| self.at(looked.past)).ok_or(Away)
            }
            Err(error) => {
                warn!(%account, %error, "the directory does not say on which volume an account lives");
                *is_silent = matches!(error, DirectoryError::Away(_));
                live.ok_or(Away)
            }
        }
    }

    /// The same; any volume for an account that never was here: it answers that it does not know it.
    pub(crate) async fn of_or_any(&self, account: AccountId) -> Result<Arc<Mounted>, Away> {
        let found = self.of(account).await;
        if found.is_ok() || self.is_one_away() {
            return found;
        }
        let looked = self.look(account).await;
        let found = self.at(looked.live.or(looked.past));
        let any = || self.mounted().next().cloned();
        found.or_else(any).ok_or(Away)
    }

    /// The volume of this name, which a back-end with one need not be told.
    pub(crate) fn named(&self, name: &VolumeName) -> Result<Arc<Mounted>, Problem> {
        let mut slots = self.slots.iter();
        let slot = match &self.slots[..] {
            [only] => Some(only),
            _ => slots.find(|slot| slot.name == *name),
        };
        let slot = slot.ok_or_else(|| Problem::not_found("this back-end has no such volume"))?;
        Ok(slot.mounted.get().cloned().ok_or(Away)?)
    }

    /// The volume that an account shall come to.
    pub(crate) async fn for_import(
        &self,
        account: AccountId,
        named: Option<&VolumeName>,
    ) -> Result<Arc<Mounted>, Problem> {
        if let [only] = &self.slots[..] {
            return Ok(only.mounted.get().cloned().ok_or(Away)?);
        }
        let here = self.at(self.look(account).await.live);
        let Some(named) = named else {
            return here.ok_or_else(|| {
                refusal::malformed("this back-end has several volumes, and none is named")
            });
        };
        match here {
            // From one volume to another of the same back-end nothing is moved.
            Some(here) if here.name != *named => Err(refusal::account(Refusal::WrongState)),
            _ => self.named(named),
        }
    }

    /// The open volume that an account lives on: where all can be asked, whatever the directory says, and else as it says.
    pub(crate) async fn live(&self, account: AccountId) -> Option<Arc<Mounted>> {
        self.live_or_away(account).await.ok().flatten()
    }

    /// The same; away if nobody can say.
    async fn live_or_away(&self, account: AccountId) -> Result<Option<Arc<Mounted>>, Away> {
        if let Some(known) = self.known(account) {
            return Ok(Some(known));
        }
        let looked = self.look(account).await;
        let live = self.at(looked.live);
        if let (Some(live), false) = (&live, looked.is_sure) {
            let now = match self.directory.home(account).await {
                Ok(now) => now.home,
                Err(DirectoryError::Unknown) => return Ok(None),
                Err(_) => return Err(Away),
            };
            if now.backend != self.backend || now.volume != live.name {
                return Ok(None);
            }
            self.remember(account, &looked);
        }
        match live {
            // Its row was there when it was asked what it shares, and it could not be read since.
            None if !looked.is_sure => Err(Away),
            live => Ok(live),
        }
    }

    /// The volume of an account that was looked for before.
    pub(crate) fn known(&self, account: AccountId) -> Option<Arc<Mounted>> {
        if let [only] = &self.slots[..] {
            return only.mounted.get().cloned();
        }
        let at = self.lock().at.get(&account).copied();
        at.and_then(|at| self.slots[at].mounted.get().cloned())
    }

    /// An account has come or gone: it is looked for again.
    pub(crate) fn forget(&self, account: AccountId) {
        let mut known = self.lock();
        known.at.remove(&account);
        known.forgotten += 1;
    }

    /// Asks all open volumes.
    async fn look(&self, account: AccountId) -> Looked {
        let forgotten = self.lock().forgotten;
        let (mut live, mut past) = (None, None);
        let mut is_sure = !self.is_one_away();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(mounted) = slot.mounted.get() else {
                continue;
            };
            // One that cannot be read is as one that is not open.
            let row = mounted
                .ask(|volume| async move { volume.account(account).await })
                .await;
            is_sure &= row.is_ok();
            let Ok(Some(row)) = row else {
                continue;
            };
            let best = match row.state {
                AccountState::Moved { .. } => &mut past,
                _ => &mut live,
            };
            if best.is_none_or(|(_, epoch)| epoch < row.epoch) {
                *best = Some((at, row.epoch));
            }
        }
        let looked = Looked {
            live: live.map(|(at, _)| at),
            past: past.map(|(at, _)| at),
            is_sure,
            forgotten,
        };
        if is_sure {
            self.remember(account, &looked);
        }
        looked
    }

    /// Keeps where the account lives, unless it was forgotten meanwhile.
    fn remember(&self, account: AccountId, looked: &Looked) {
        let mut known = self.lock();
        if let Some(at) = looked.live
            && known.forgotten == looked.forgotten
        {
            known.at.insert(account, at);
        }
    }

    fn at(&self, at: Option<usize>) -> Option<Arc<Mounted>> {
        self.slots.get(at?)?.mounted.get().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
