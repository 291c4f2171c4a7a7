//! What this back-end keeps in memory of moves under way: who may read an account that is still served, and the sums of its
//! blocks, so that a frozen account is compared without being read. Lost at a restart: the migrator offers again, and the sums
//! are counted again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use directory_api::{AccountId, BackendName};
use store_api::MoveId;

use crate::volume::{ReadError, Tally, Volume};

/// Of all accounts.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<HashMap<Of, Kept>>);

/// By move, too: what comes late of one that was given up does nothing to the next.
type Of = (AccountId, MoveId);

#[derive(Debug)]
struct Kept {
    /// Who may read the account.
    target: Option<BackendName>,
    tally: Slot,
    used: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Tally>>>;

impl Tallies {
    /// Lets a target read an account. False: too many moves are under way.
    pub(super) fn offer(&self, account: AccountId, move_id: MoveId, target: BackendName) -> bool {
        let mut kept = self.lock();
        let Some(kept) = entry(&mut kept, account, move_id) else {
            return false;
        };
        kept.target = Some(target);
        true
    }

    /// Whether a back-end may read an account.
    pub(super) fn is_offered(&self, account: AccountId, move_id: MoveId, to: &str) -> bool {
        let mut kept = self.lock();
        let Some(kept) = kept.get_mut(&(account, move_id)) else {
            return false;
        };
        let target = kept.target.as_ref().map(BackendName::as_str);
        let is_offered = target == Some(to) && !kept.is_old();
        if is_offered {
            kept.used = Instant::now();
        }
        is_offered
    }

    /// The move is over here.
    pub(super) fn forget(&self, account: AccountId, move_id: MoveId) {
        self.lock().remove(&(account, move_id));
    }

    /// The sums of an account that others write, brought up to date.
    pub(super) async fn refreshed(
        &self,
        volume: &Volume,
        account: AccountId,
        move_id: MoveId,
    ) -> Result<Tally, ReadError> {
        let (slot, volume) = (self.slot(account, move_id), volume.clone());
        to_the_end(async move {
            let mut slot = slot.lock_owned().await;
            let tally = match slot.take() {
                Some(tally) => tally,
                None => volume.tally(account).await?,
            };
            let tally = volume.refresh(tally).await?;
            *slot = Some(tally.clone());
            Ok(tally)
        })
        .await
    }

    /// The sums of an account that nobody writes but who keeps them up to date here.
    pub(super) async fn counted(
        &self,
        volume: &Volume,
        account: AccountId,
        move_id: MoveId,
    ) -> Result<Tally, ReadError> {
        let (slot, volume) = (self.slot(account, move_id), volume.clone());
        to_the_end(async move {
            let mut slot = slot.lock_owned().await;
            if let Some(tally) = &*slot {
                return Ok(tally.clone());
            }
            let tally = volume.tally(account).await?;
            *slot = Some(tally.clone());
            Ok(tally)
        })
        .await
    }

    /// Keeps sums that were counted; `None`: they are not to be trusted any more.
    pub(super) async fn keep(&self, account: AccountId, move_id: MoveId, tally: Option<Tally>) {
        *self.slot(account, move_id).lock().await = tally;
    }

    fn slot(&self, account: AccountId, move_id: MoveId) -> Slot {
        let mut kept = self.lock();
        let kept = entry(&mut kept, account, move_id);
        // Beyond the limit they are counted each time.
        kept.map(|kept| Arc::clone(&kept.tally)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Of, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_old(&self) -> bool {
        self.used.elapsed() > KEPT_FOR
    }
}

/// Counting a huge account takes minutes, and who asked may be gone before: the next one finds what was counted.
async fn to_the_end(
    counting: impl Future<Output = Result<Tally, ReadError>> + Send + 'static,
) -> Result<Tally, ReadError> {
    match tokio::spawn(counting).await {
        Ok(counted) => counted,
        Err(_) => Err(ReadError::Stopped),
    }
}

/// What is kept for a move, begun if there is nothing. `None`: there are too many.
fn entry(kept: &mut HashMap<Of, Kept>, account: AccountId, move_id: MoveId) -> Option<&mut Kept> {
    let of = (account, move_id);
    if !kept.contains_key(&of) {
        if kept.len() >= MOVES_MAX {
            kept.retain(|_, one| !one.is_old());
        }
        if kept.len() >= MOVES_MAX {
            return None;
        }
        let fresh = Kept {
            target: None,
            tally: Slot::default(),
            used: Instant::now(),
        };
        kept.insert(of, fresh);
    }
    let one = kept.get_mut(&of)?;
    one.used = Instant::now();
    Some(one)
}

/// A target asks many times a minute, but while it copies one huge blob.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Sums take 40 octets for 64 messages: of a million messages in each of so many accounts 160 MiB.
const MOVES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_offer_holds_for_its_move_and_its_target_until_it_is_over() {
        let (tallies, ann) = (Tallies::default(), AccountId(1));
        let id = |octet| MoveId::from_octets([octet; 16]);
        let b2 = || BackendName::new("b2").expect("it is a name");
        assert!(!tallies.is_offered(ann, id(1), "b2"));
        assert!(tallies.offer(ann, id(1), b2()));
        assert!(tallies.is_offered(ann, id(1), "b2"));
        assert!(!tallies.is_offered(ann, id(1), "b3"));
        assert!(!tallies.is_offered(ann, id(2), "b2"));
        assert!(!tallies.is_offered(AccountId(2), id(1), "b2"));
        assert!(tallies.offer(ann, id(2), b2()));
        tallies.forget(ann, id(1));
        assert!(!tallies.is_offered(ann, id(1), "b2"));
        assert!(tallies.is_offered(ann, id(2), "b2"), "that was another");
        tallies.forget(ann, id(2));
        assert!(!tallies.is_offered(ann, id(2), "b2"));
    }

    #[tokio::test]
    async fn a_count_goes_on_when_who_asked_for_it_is_gone() {
        use tokio::sync::oneshot::channel;
        let ((began, has_begun), (go, may_go)) = (channel(), channel());
        let (ended, has_ended) = channel();
        let asking = tokio::spawn(to_the_end(async move {
            let _ = began.send(());
            let _ = may_go.await;
            let _ = ended.send(());
            Err(ReadError::Stopped)
        }));
        has_begun.await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        has_ended.await.unwrap();
    }

    #[test]
    fn moves_beyond_the_limit_are_not_kept() {
        let tallies = Tallies::default();
        let b2 = || BackendName::new("b2").expect("it is a name");
        let offer = |account| tallies.offer(AccountId(account), MoveId::from_octets([1; 16]), b2());
        assert!((0..MOVES_MAX as u64).all(offer));
        assert!(!offer(MOVES_MAX as u64) && offer(0));
        tallies.forget(AccountId(0), MoveId::from_octets([1; 16]));
        assert!(offer(MOVES_MAX as u64));
    }
}
