//! Wakes sessions that wait for their account to change (IDLE, NOTIFY). Accounts that nobody watches cost nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use directory_api::AccountId;
use tokio::sync::watch;

use super::Volume;
use super::record::{Record, StoreFlags};
use super::types::MailboxId;

/// What has changed since a [`Watch`] was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Mailboxes whose messages changed, with the MODSEQ they have reached.
    pub mailboxes: Vec<(MailboxId, u64)>,
    /// Whether mailboxes, names, subscriptions or the account itself changed.
    pub list: bool,
    /// Whether annotations changed (RFC 5464), of whichever mailbox.
    pub annotations: bool,
}

impl Volume {
    /// Watches an account from now on. What is told is in the index. It rings at once, for what came before is not known:
    /// who has read the account already reads it again.
    #[must_use]
    pub fn watch(&self, account: AccountId) -> Watch {
        let watchers = Arc::clone(&self.inner.shared().watchers);
        Watch {
            account,
            seen: None,
            receiver: Some(watchers.subscribe(account)),
            watchers,
        }
    }
}

impl Volume {
    /// Wakes those who watch an account: what it may see on another volume has changed.
    pub(crate) fn ring(&self, account: AccountId) {
        self.inner.shared().watchers.list(account);
    }
}

/// Tells of changes of one account. Changes while nobody asks are kept as one.
#[derive(Debug)]
pub struct Watch {
    account: AccountId,
    /// What it has told; none when it has not rung yet.
    seen: Option<State>,
    /// There until the drop.
    receiver: Option<watch::Receiver<State>>,
    watchers: Arc<Watchers>,
}

impl Watch {
    /// Waits for a change. `None`: the volume is closed. May be dropped while it waits; nothing is lost.
    pub async fn changed(&mut self) -> Option<Changed> {
        if self.seen.is_none() {
            return self.rung();
        }
        self.receiver.as_mut()?.changed().await.ok()?;
        self.take()
    }

    /// A change that has rung already. `None`: there is none, or the volume is closed. It looks rather than polls, for the
    /// runtime lets a task that has done much find nothing ready.
    pub fn rung(&mut self) -> Option<Changed> {
        let has_rung = self.receiver.as_ref()?.has_changed().ok()?;
        match has_rung || self.seen.is_none() {
            true => self.take(),
            false => None,
        }
    }

    fn take(&mut self) -> Option<Changed> {
        let now = self.receiver.as_mut()?.borrow_and_update().clone();
        let changed = match &self.seen {
            None => Changed {
                mailboxes: Vec::new(),
                list: true,
                annotations: true,
            },
            Some(seen) => now.since(seen),
        };
        self.seen = Some(now);
        Some(changed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.receiver = None;
        self.watchers.forget(self.account);
    }
}

/// Everything since the account began to be watched.
#[derive(Clone, Debug, Default)]
struct State {
    mailboxes: BTreeMap<MailboxId, u64>,
    /// Counts changes of the list.
    lists: u64,
    /// Counts changes of annotations.
    annotations: u64,
}

impl State {
    fn since(&self, seen: &Self) -> Changed {
        let news = |(mailbox, modseq): (&MailboxId, &u64)| {
            (seen.mailboxes.get(mailbox) != Some(modseq)).then_some((*mailbox, *modseq))
        };
        Changed {
            mailboxes: self.mailboxes.iter().filter_map(news).collect(),
            list: self.lists != seen.lists,
            annotations: self.annotations != seen.annotations,
        }
    }
}

/// Who watches which account.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// How many accounts, so that a volume without watchers takes no lock for a record.
    count: AtomicUsize,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    watched: HashMap<AccountId, Watched>,
    closed: bool,
}

/// An account that somebody watches.
#[derive(Debug, Default)]
struct Watched {
    sender: watch::Sender<State>,
    /// Of mailboxes whose flags were changed since.
    recent: HashMap<MailboxId, Recent>,
}

/// The last changes of flags in one mailbox, so that a session that follows it need not look for them.
#[derive(Debug)]
struct Recent {
    /// Every change of flags with a greater MODSEQ is here.
    floor: u64,
    /// MODSEQ and UID, in the order of MODSEQs.
    changes: VecDeque<(u64, u32)>,
}

impl Recent {
    fn note(&mut self, record: &StoreFlags) {
        if record.changes.len() > RECENT_MAX {
            self.changes.clear();
            self.floor = record.modseq;
            return;
        }
        for change in &record.changes {
            self.changes.push_back((record.modseq, change.uid));
        }
        while self.changes.len() > RECENT_MAX {
            // All of one MODSEQ or none.
            if let Some((modseq, _)) = self.changes.pop_front() {
                self.floor = modseq;
            }
        }
        let gone = self
            .changes
            .partition_point(|(modseq, _)| *modseq <= self.floor);
        self.changes.drain(..gone);
    }
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self, account: AccountId) -> watch::Receiver<State> {
        let mut accounts = self.lock();
        if accounts.closed {
            return watch::channel(State::default()).1;
        }
        let receiver = accounts
            .watched
            .entry(account)
            .or_default()
            .sender
            .subscribe();
        self.count.store(accounts.watched.len(), Ordering::Release);
        receiver
    }

    fn forget(&self, account: AccountId) {
        let mut accounts = self.lock();
        if accounts
            .watched
            .get(&account)
            .is_some_and(|watched| watched.sender.receiver_count() == 0)
        {
            accounts.watched.remove(&account);
            self.count.store(accounts.watched.len(), Ordering::Release);
        }
    }

    #[cfg(test)]
    pub(super) fn account_count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Ends every watch, and those to come.
    pub(super) fn close(&self) {
        let mut accounts = self.lock();
        accounts.closed = true;
        accounts.watched.clear();
        self.count.store(0, Ordering::Release);
    }

    /// Wakes those whose account a record has changed. Call it when the index has the record.
    pub(super) fn tell(&self, record: &Record) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        match record {
            Record::Deliver(record) => {
                for to in &record.recipients {
                    self.mailbox(to.account, to.mailbox, to.modseq);
                }
            }
            Record::Append(record) => {
                self.mailbox(record.account, record.mailbox, record.modseq);
                if let Some(gone) = &record.replaced {
                    self.mailbox(record.account, gone.mailbox, gone.modseq);
                }
            }
            Record::Copy(record) | Record::Undelete(record) => {
                self.mailbox(record.account, record.target, record.modseq);
                if record.source_modseq > 0 {
                    self.mailbox(record.account, record.source, record.source_modseq);
                }
            }
            Record::Expunge(record) => self.mailbox(record.account, record.mailbox, record.modseq),
            Record::Flags(record) => self.mailbox(record.account, record.mailbox, record.modseq),
            Record::Mailbox(record) => self.list(record.account),
            Record::Delete(record) => self.list(record.account),
            Record::Rename(record) => self.list(record.account),
            Record::Subscribe(record) => self.list(record.account),
            Record::SpecialUse(record) => self.list(record.account),
            Record::Acl(record) => {
                self.list(record.account);
                // Whoever may see it from now on does not watch its owner yet.
                for entry in &record.acl.entries {
                    self.list(entry.account);
                }
            }
            Record::Annotate(record) => self.annotations(record.account),
            Record::Account(record) => self.list(record.account),
            // An account that is imported has no sessions; a blob alone is nobody's.
            Record::Import(_)
            | Record::Blob(_)
            | Record::Drop(_)
            | Record::Purge(_)
            | Record::Answered(_) => {}
        }
    }

    fn mailbox(&self, account: AccountId, mailbox: MailboxId, modseq: u64) {
        self.with(account, |state| {
            state.mailboxes.insert(mailbox, modseq);
        });
    }

    fn list(&self, account: AccountId) {
        self.with(account, |state| state.lists += 1);
    }

    fn annotations(&self, account: AccountId) {
        self.with(account, |state| state.annotations += 1);
    }

    fn with(&self, account: AccountId, change: impl FnOnce(&mut State)) {
        if let Some(watched) = self.lock().watched.get(&account) {
            watched.sender.send_modify(change);
        }
    }

    /// Keeps what a record changes of flags in an account that is watched. Call it before the index has the record: who
    /// sees the record there must find it here.
    pub(super) fn note(&self, record: &Record) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        match record {
            Record::Flags(record) => {
                if let Some(watched) = self.lock().watched.get_mut(&record.account) {
                    let recent = watched.recent.entry(record.mailbox);
                    let recent = recent.or_insert_with(|| Recent {
                        floor: record.modseq - 1,
                        changes: VecDeque::new(),
                    });
                    recent.note(record);
                }
            }
            // What comes back with a move was changed elsewhere meanwhile.
            Record::Account(record) if record.wipe => {
                if let Some(watched) = self.lock().watched.get_mut(&record.account) {
                    watched.recent.clear();
                }
            }
            _ => {}
        }
    }

    /// UIDs of all messages whose flags were changed after a MODSEQ, growing, and perhaps more. `None`: that is not known
    /// any more. Call it with the index open for reading, so that what is seen there is known here.
    pub(super) fn flagged_since(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        modseq: u64,
    ) -> Option<Vec<u32>> {
        let accounts = self.lock();
        let recent = accounts.watched.get(&account)?.recent.get(&mailbox)?;
        if modseq < recent.floor {
            return None;
        }
        let first = recent.changes.partition_point(|(at, _)| *at <= modseq);
        let mut uids: Vec<u32> = recent.changes.range(first..).map(|(_, uid)| *uid).collect();
        uids.sort_unstable();
        uids.dedup();
        Some(uids)
    }
}

/// 4 KiB for a mailbox that is watched and whose flags change; what a session has missed when it looks is a handful.
const RECENT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use directory_api::{Epoch, Quota};

    use super::super::record::{FlagsOf, SetAccount};
    use super::super::rows::State;
    use super::super::types::{Flags, MoveId};
    use super::{AccountId, MailboxId, RECENT_MAX, Record, StoreFlags, Watchers};

    const ANN: AccountId = AccountId(1);

    fn change(modseq: u64, uids: impl Iterator<Item = u32>) -> Record {
        let flags_of = |uid| FlagsOf {
            uid,
            flags: Flags::SEEN,
            keywords: Vec::new(),
        };
        Record::Flags(StoreFlags {
            account: ANN,
            mailbox: MailboxId::INBOX,
            modseq,
            new_keywords: Vec::new(),
            changes: uids.map(flags_of).collect(),
        })
    }

    #[test]
    fn what_is_remembered_of_flags_is_whole_or_not_given() {
        let watchers = Watchers::default();
        let since = |modseq| watchers.flagged_since(ANN, MailboxId::INBOX, modseq);
        watchers.note(&change(10, 1..=3));
        let receiver = watchers.subscribe(ANN);
        assert_eq!(since(9), None);
        watchers.note(&change(12, [7, 5].into_iter()));
        watchers.note(&change(13, [5].into_iter()));
        assert_eq!((since(10), since(11)), (None, Some(vec![5, 7])));
        assert_eq!((since(12), since(13)), (Some(vec![5]), Some(vec![])));
        let many = u32::try_from(RECENT_MAX).unwrap_or_default();
        watchers.note(&change(14, 1..many));
        // One more than there is room for: all of MODSEQ 12 went.
        assert_eq!(
            (since(11), since(12).map(|uids| uids.len())),
            (None, Some(RECENT_MAX - 1))
        );
        watchers.note(&change(15, 0..=many));
        assert_eq!((since(14), since(15)), (None, Some(vec![])));
        // What a move brings back was changed elsewhere.
        watchers.note(&Record::Account(SetAccount {
            account: ANN,
            state: State::Importing,
            epoch: Epoch(2),
            move_id: MoveId::default(),
            elsewhere: None,
            quota: Quota::default(),
            inbox_uidvalidity: 0,
            wipe: true,
            keep_until_ms: 0,
        }));
        assert_eq!(since(15), None);
        watchers.note(&change(30, 1..=1));
        assert_eq!((since(28), since(29)), (None, Some(vec![1])));
        drop(receiver);
        watchers.forget(ANN);
        assert_eq!(since(29), None);
    }
}
