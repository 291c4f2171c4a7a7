//! What callers ask, and the bounded queue in which it waits for the next batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use directory_api::{AccountId, BackendName, Epoch, Quota};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::acl::AclChange;
use super::blob::FinishedBlob;
use super::sequencer::EXPUNGE_SLICE;
use super::types::{
    AnnotationChange, AppendBody, AppendMessage, Appended, Copied, Delivery, Expunged, FlagChange,
    Flags, Item, MailboxId, MoveId, Outcome, Refusal, SpecialUse, Stored, TransactionId, Undeleted,
};

/// One thing to decide. To add a verb: a variant here, its decision in the sequencer, its record and its apply.
#[derive(Debug)]
pub(super) enum Command {
    Deliver(Delivery),
    /// Senders have read the answers to messages with these keys.
    Answered {
        messages: Vec<(AccountId, TransactionId)>,
    },
    EnsureAccount {
        account: AccountId,
        epoch: Epoch,
        /// What it may keep from now on; `None` says nothing of it.
        quota: Option<Quota>,
    },
    Append {
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        messages: Vec<AppendMessage>,
        /// Mailbox and UID of the message whose place they take.
        replaced: Option<(MailboxId, u32)>,
    },
    /// COPY, or MOVE when the messages leave the source.
    Copy {
        account: AccountId,
        epoch: Epoch,
        source: MailboxId,
        uids: Vec<u32>,
        target: MailboxId,
        leave: bool,
    },
    Expunge {
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        which: Which,
    },
    StoreFlags {
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
        change: FlagChange,
        unchanged_since: Option<u64>,
    },
    CreateMailbox {
        account: AccountId,
        epoch: Epoch,
        name: String,
        special_use: SpecialUse,
    },
    DeleteMailbox {
        account: AccountId,
        epoch: Epoch,
        name: String,
        /// Which one had the name when it was looked for: then it is that one or none.
        mailbox: Option<MailboxId>,
    },
    RenameMailbox {
        account: AccountId,
        epoch: Epoch,
        from: String,
        /// As with a deletion.
        mailbox: Option<MailboxId>,
        to: String,
        /// What goes along when `from` is INBOX.
        inbox_uids: Vec<u32>,
    },
    Subscribe {
        account: AccountId,
        epoch: Epoch,
        name: String,
        subscribed: bool,
    },
    SetSpecialUse {
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        special_use: SpecialUse,
    },
    SetAcl {
        /// The owner.
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        owner_name: Option<String>,
        grantee: (AccountId, String),
        change: AclChange,
    },
    Annotate {
        account: AccountId,
        epoch: Epoch,
        /// 0: the account itself.
        mailbox: MailboxId,
        changes: Vec<AnnotationChange>,
    },
    /// Expunged messages of one mailbox again.
    Undelete {
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
        /// Into this one.
        to: Option<String>,
    },
    Freeze {
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    },
    Thaw {
        account: AccountId,
        move_id: MoveId,
    },
    Release {
        account: AccountId,
        move_id: MoveId,
        backend: BackendName,
        epoch: Epoch,
    },
    BeginImport {
        account: AccountId,
        move_id: MoveId,
        /// `None`: a backup.
        source: Option<BackendName>,
    },
    ImportItems {
        account: AccountId,
        move_id: MoveId,
        items: Vec<Item>,
    },
    /// What an import has and its source has no more.
    ImportGone {
        account: AccountId,
        move_id: MoveId,
        items: Vec<Item>,
    },
    PutBlob {
        blob: FinishedBlob,
    },
    /// From here on nothing comes from a backup.
    BeginAdoption,
    /// Of an old copy that is adopted: every mailbox goes on so many UIDs further.
    SkipAhead {
        account: AccountId,
        uids: u32,
    },
    /// The same: messages get a new MODSEQ and stay as they are.
    RenewModseq {
        account: AccountId,
        mailbox: MailboxId,
        uids: Vec<u32>,
    },
    Activate {
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    },
    DiscardImport {
        account: AccountId,
        move_id: MoveId,
        /// Where it lives, in case that nothing of it has come yet.
        source: Option<BackendName>,
    },
}

impl Command {
    /// Whose share of a batch it takes; whose mailboxes it is about.
    pub(super) fn account(&self) -> Option<AccountId> {
        match self {
            Self::Deliver(delivery) => delivery
                .recipients
                .first()
                .map(|recipient| recipient.account),
            Self::Answered { messages } => messages.first().map(|(account, _)| *account),
            Self::EnsureAccount { account, .. }
            | Self::Append { account, .. }
            | Self::Copy { account, .. }
            | Self::Expunge { account, .. }
            | Self::StoreFlags { account, .. }
            | Self::CreateMailbox { account, .. }
            | Self::DeleteMailbox { account, .. }
            | Self::RenameMailbox { account, .. }
            | Self::Subscribe { account, .. }
            | Self::SetSpecialUse { account, .. }
            | Self::Annotate { account, .. }
            | Self::SetAcl { account, .. }
            | Self::Undelete { account, .. }
            | Self::Freeze { account, .. }
            | Self::Thaw { account, .. }
            | Self::Release { account, .. }
            | Self::BeginImport { account, .. }
            | Self::ImportItems { account, .. }
            | Self::ImportGone { account, .. }
            | Self::Activate { account, .. }
            | Self::DiscardImport { account, .. }
            | Self::SkipAhead { account, .. }
            | Self::RenewModseq { account, .. } => Some(*account),
            Self::PutBlob { .. } | Self::BeginAdoption => None,
        }
    }

    /// Memory it holds while it waits.
    fn cost_bytes(&self) -> usize {
        let variable = match self {
            Self::Deliver(delivery) => {
                let prologues: usize = delivery
                    .recipients
                    .iter()
                    .map(|to| 128 + to.prologue.len())
                    .sum();
                delivery.blob.memory_bytes() + prologues
            }
            Self::Append { messages, .. } => {
                let bodies = messages.iter().map(|message| match &message.body {
                    AppendBody::Finished(blob) => 128 + blob.memory_bytes(),
                    AppendBody::Put { .. } => 128,
                });
                bodies.sum()
            }
            // Each becomes a part of a record, and is in flight until it is applied.
            Self::Copy { uids, .. }
            | Self::Expunge {
                which: Which::Uids { uids, .. },
                ..
            }
            | Self::StoreFlags { uids, .. }
            | Self::RenewModseq { uids, .. }
            | Self::Undelete { uids, .. }
            | Self::RenameMailbox {
                inbox_uids: uids, ..
            } => 64 * uids.len(),
            Self::Annotate { changes, .. } => {
                let value =
                    |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
                let one = |(entry, new): &AnnotationChange| entry.len() + value(new);
                changes.iter().map(one).sum()
            }
            Self::Expunge {
                which: Which::Deleted(ranges),
                ..
            } => 8 * ranges.len() + 64 * EXPUNGE_SLICE,
            Self::ImportItems { items, .. } | Self::ImportGone { items, .. } => {
                items.iter().map(|item| item.0.len()).sum()
            }
            Self::PutBlob { blob } => blob.memory_bytes(),
            Self::Answered { messages } => 64 * messages.len(),
            _ => 0,
        };
        512 + variable
    }
}

/// What an expunge removes.
#[derive(Debug)]
pub(super) enum Which {
    /// These messages, as far as they have all of the flags.
    Uids { uids: Vec<u32>, having: Flags },
    /// Those with `\Deleted` in these ranges of UIDs, both ends included, growing and disjoint.
    Deleted(Vec<(u32, u32)>),
}

/// The answer to a command.
#[derive(Debug)]
pub(super) enum Reply {
    Done,
    Delivered(Vec<Outcome>),
    Appended(Appended),
    Copied(Copied),
    Expunged(Expunged),
    Stored(Stored),
    Mailbox(MailboxId),
    Undeleted(Undeleted),
    Refused(Refusal),
}

impl Reply {
    pub(super) fn done(self) -> Result<(), Refusal> {
        match self {
            Self::Done => Ok(()),
            other => other.refused(),
        }
    }

    /// The refusal in it. An answer of another verb cannot come; it would be a bug, and is answered as a failure.
    pub(super) fn refused<T>(self) -> Result<T, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::ReadOnly),
        }
    }
}

/// A command with the way back.
pub(super) struct Request {
    /// Who asks, if that is not the owner or the system.
    pub(super) user: Option<AccountId>,
    pub(super) command: Command,
    pub(super) waiter: Waiter,
    cost_bytes: usize,
}

impl Request {
    /// Memory it holds.
    pub(super) fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }
}

/// Who waits for an answer; holds its share of the intake's memory until then.
pub(super) struct Waiter {
    sender: oneshot::Sender<Reply>,
    _permit: Option<OwnedSemaphorePermit>,
    _share: Option<OwnedSemaphorePermit>,
}

impl Waiter {
    pub(super) fn answer(self, reply: Reply) {
        // A caller that has gone away does not need it.
        let _ = self.sender.send(reply);
    }
}

/// The queue before the commit thread.
pub(super) struct Intake {
    memory: Arc<Semaphore>,
    /// What each account may have waiting. A flooded one waits here, where it holds up nobody else.
    shares: Mutex<HashMap<AccountId, Arc<Semaphore>>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    woken: bool,
    closed: bool,
}

/// What the commit thread finds.
pub(super) enum Taken {
    /// Requests in a fair order; empty after a wake-up or the timeout.
    Batch(Vec<Request>),
    /// Closed, and nothing is left.
    Closed,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self {
            memory: Arc::new(Semaphore::new(MEMORY_MAX_BYTES / PERMIT_BYTES)),
            shares: Mutex::default(),
            queue: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Queues a command; waits while the queue is full.
    pub(super) async fn submit(&self, user: Option<AccountId>, command: Command) -> Reply {
        let cost_bytes = command.cost_bytes();
        // One command never needs more than half, so that a huge one can go ahead at all.
        let permits = cost_bytes
            .div_ceil(PERMIT_BYTES)
            .min(MEMORY_MAX_BYTES / PERMIT_BYTES / 2);
        let permits = u32::try_from(permits).expect("it is capped");
        let share = match command.account() {
            Some(account) => Some(self.share(account, permits).await),
            None => None,
        };
        let Ok(permit) = Arc::clone(&self.memory).acquire_many_owned(permits).await else {
            return Reply::Refused(Refusal::ReadOnly);
        };
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter {
            sender,
            _permit: Some(permit),
            _share: share,
        };
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Reply::Refused(Refusal::ReadOnly);
            }
            queue.requests.push_back(Request {
                user,
                command,
                waiter,
                cost_bytes,
            });
        }
        self.arrived.notify_one();
        receiver.await.unwrap_or(Reply::Refused(Refusal::ReadOnly))
    }

    /// Waits until so much more of one account may wait.
    async fn share(&self, account: AccountId, permits: u32) -> OwnedSemaphorePermit {
        let semaphore = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            if shares.len() >= SHARES_CHECKED && shares.len().is_power_of_two() {
                // Those of which nobody holds a part.
                shares.retain(|_, share| Arc::strong_count(share) > 1);
            }
            let share = shares.entry(account);
            let share = share.or_insert_with(|| Arc::new(Semaphore::new(SHARE_MAX as usize)));
            Arc::clone(share)
        };
        let permits = permits.clamp(SHARE_MAX / WAITING_MAX, SHARE_MAX);
        let acquired = semaphore.acquire_many_owned(permits).await;
        acquired.expect("no share is ever closed")
    }

    /// Everything queued, up to the limits of a batch, at most `share` for one account; the rest stays in order. Waits at
    /// most `timeout` for a first one.
    pub(super) fn take(&self, timeout: Duration, share: usize) -> Taken {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.requests.is_empty() && !queue.closed && !queue.woken {
            let waited = self.arrived.wait_timeout(queue, timeout);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.woken = false;
        if queue.requests.is_empty() && queue.closed {
            return Taken::Closed;
        }
        Taken::Batch(fair_batch(&mut queue.requests, share))
    }

    /// Makes the next [`Intake::take`] return at once.
    pub(super) fn wake(&self) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .woken = true;
        self.arrived.notify_one();
    }

    /// Takes no more; `drop_queued` also forgets what waits.
    pub(super) fn close(&self, drop_queued: bool) {
        self.memory.close();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        if drop_queued {
            queue.requests.clear();
        }
        drop(queue);
        self.arrived.notify_one();
    }
}

/// What one account may have of a batch while so much of the journal waits for a checkpoint. In the upper half of what may
/// wait it is less and less: whoever is flooded is slowed down to what the files thread does, before all have to wait for it.
pub(super) fn account_share(unreleased_bytes: u64, unreleased_max_bytes: u64) -> usize {
    let half = (unreleased_max_bytes / 2).max(1);
    let left = unreleased_max_bytes.saturating_sub(unreleased_bytes);
    let share = u128::from(left.min(half)) * ACCOUNT_SHARE as u128 / u128::from(half);
    usize::try_from(share).unwrap_or(ACCOUNT_SHARE).max(1)
}

fn fair_batch(requests: &mut VecDeque<Request>, account_share: usize) -> Vec<Request> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut shares: HashMap<AccountId, usize> = HashMap::new();
    let mut later = VecDeque::new();
    while batch.len() < BATCH_COUNT_MAX && later.len() < BATCH_COUNT_MAX {
        let Some(request) = requests.pop_front() else {
            break;
        };
        if bytes > 0 && bytes + request.cost_bytes > BATCH_MAX_BYTES {
            requests.push_front(request);
            break;
        }
        if let Some(account) = request.command.account() {
            let share = shares.entry(account).or_default();
            *share += 1;
            if *share > account_share {
                later.push_back(request);
                continue;
            }
        }
        bytes += request.cost_bytes;
        batch.push(request);
    }
    while let Some(request) = later.pop_back() {
        requests.push_front(request);
    }
    batch
}

/// What may wait and be in work at one time: a few batches, so that a stalled disk costs bounded memory (P7).
const MEMORY_MAX_BYTES: usize = 64 << 20;
const PERMIT_BYTES: usize = 512;
/// A batch is written in some milliseconds even by a slow disk.
const BATCH_MAX_BYTES: usize = 8 << 20;
const BATCH_COUNT_MAX: usize = 1024;
/// A flooded mailbox gets this much of a batch, so that the others' mail is in the same batch and does not wait long for the
/// one before: thousands a second all the same.
const ACCOUNT_SHARE: usize = 16;
/// Permits of one account: a quarter of the memory.
const SHARE_MAX: u32 = (16 << 20) / 512;
/// Commands of one account that may wait: some batches, and fewer than a batch looks past.
const WAITING_MAX: u32 = 512;
/// From so many accounts on, those with nothing waiting are forgotten now and then; one takes some hundred octets.
const SHARES_CHECKED: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(account: u64) -> Request {
        let command = Command::EnsureAccount {
            account: AccountId(account),
            epoch: Epoch(1),
            quota: None,
        };
        let waiter = Waiter {
            sender: oneshot::channel().0,
            _permit: None,
            _share: None,
        };
        Request {
            user: None,
            cost_bytes: command.cost_bytes(),
            command,
            waiter,
        }
    }

    fn accounts(batch: &[Request]) -> Vec<u64> {
        batch
            .iter()
            .map(|request| request.command.account().unwrap().0)
            .collect()
    }

    #[test]
    fn a_flooded_account_gets_its_share_of_a_batch_and_the_others_are_in_it() {
        let mut queue: VecDeque<_> = (0..200)
            .map(|_| request(1))
            .chain([request(2), request(1), request(3)])
            .collect();
        let first = accounts(&fair_batch(&mut queue, ACCOUNT_SHARE));
        assert_eq!(first.len(), ACCOUNT_SHARE + 2);
        assert_eq!(first[ACCOUNT_SHARE..], [2, 3]);
        assert_eq!(queue.len(), 201 - ACCOUNT_SHARE);
        assert_eq!(
            accounts(&fair_batch(&mut queue, ACCOUNT_SHARE)).len(),
            ACCOUNT_SHARE
        );
    }

    #[test]
    fn a_flooded_account_gets_less_the_more_of_the_journal_waits() {
        let shares = [0, 499, 500, 750, 990, 1000, 5000].map(|bytes| account_share(bytes, 1000));
        let all = ACCOUNT_SHARE;
        assert_eq!(shares, [all, all, all, all / 2, 1, 1, 1]);
        assert_eq!(account_share(0, u64::MAX), all);
        let mut queue: VecDeque<_> = [1, 1, 1, 2, 3, 3].into_iter().map(request).collect();
        assert_eq!(accounts(&fair_batch(&mut queue, 1)), [1, 2, 3]);
        assert_eq!(accounts(&fair_batch(&mut queue, 1)), [1, 3]);
    }

    #[tokio::test]
    async fn what_is_behind_a_flood_of_any_size_is_in_the_next_batch() {
        let intake = Arc::new(Intake::new());
        let submit = |account| {
            let intake = Arc::clone(&intake);
            let command = request(account).command;
            tokio::spawn(async move { intake.submit(None, command).await })
        };
        let flood: Vec<_> = (0..5000).map(|_| submit(1)).collect();
        let other = submit(2);
        // They run on this thread, in turn, some dozens between two turns of ours.
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        let Taken::Batch(batch) = intake.take(Duration::ZERO, ACCOUNT_SHARE) else {
            panic!("closed");
        };
        let accounts = accounts(&batch);
        assert_eq!(accounts.len(), ACCOUNT_SHARE + 1);
        assert_eq!(accounts.last(), Some(&2));
        // As those in work are answered, the others come; none is lost.
        let mut done = batch.len();
        drop(batch);
        while done < flood.len() + 1 {
            if let Taken::Batch(batch) = intake.take(Duration::ZERO, ACCOUNT_SHARE) {
                done += batch.len();
            }
            tokio::task::yield_now().await;
        }
        other.await.unwrap();
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut queue: VecDeque<_> = (0..5000).map(request).collect();
        assert_eq!(fair_batch(&mut queue, ACCOUNT_SHARE).len(), BATCH_COUNT_MAX);
        for request in &mut queue {
            request.cost_bytes = BATCH_MAX_BYTES / 2 + 1;
        }
        assert_eq!(fair_batch(&mut queue, ACCOUNT_SHARE).len(), 1);
        queue[0].cost_bytes = 10 * BATCH_MAX_BYTES;
        assert_eq!(fair_batch(&mut queue, ACCOUNT_SHARE).len(), 1);
    }
}
