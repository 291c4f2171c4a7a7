//! Wakes sessions that wait for their account to change (IDLE, NOTIFY). Accounts that nobody watches cost nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use directory_api::AccountId;
use tokio::sync::watch;

use super::Volume;
use super::record::Record;
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
    /// Watches an account from now on; read it after this. What is told is in the index.
    #[must_use]
    pub fn watch(&self, account: AccountId) -> Watch {
        let watchers = Arc::clone(&self.inner.shared().watchers);
        let receiver = watchers.subscribe(account);
        let seen = receiver.borrow().clone();
        Watch {
            account,
            seen,
            receiver: Some(receiver),
            watchers,
        }
    }
}

/// Tells of changes of one account. Changes while nobody asks are kept as one.
#[derive(Debug)]
pub struct Watch {
    account: AccountId,
    seen: State,
    /// There until the drop.
    receiver: Option<watch::Receiver<State>>,
    watchers: Arc<Watchers>,
}

impl Watch {
    /// Waits for a change. `None`: the volume is closed. May be dropped while it waits; nothing is lost.
    pub async fn changed(&mut self) -> Option<Changed> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        let now = receiver.borrow_and_update().clone();
        let news = |(mailbox, modseq): (&MailboxId, &u64)| {
            (self.seen.mailboxes.get(mailbox) != Some(modseq)).then_some((*mailbox, *modseq))
        };
        let changed = Changed {
            mailboxes: now.mailboxes.iter().filter_map(news).collect(),
            list: now.lists != self.seen.lists,
            annotations: now.annotations != self.seen.annotations,
        };
        self.seen = now;
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

/// Who watches which account.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// How many accounts, so that a volume without watchers takes no lock for a record.
    count: AtomicUsize,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    senders: HashMap<AccountId, watch::Sender<State>>,
    closed: bool,
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
        let receiver = accounts.senders.entry(account).or_default().subscribe();
        self.count.store(accounts.senders.len(), Ordering::Release);
        receiver
    }

    fn forget(&self, account: AccountId) {
        let mut accounts = self.lock();
        if accounts
            .senders
            .get(&account)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            accounts.senders.remove(&account);
            self.count.store(accounts.senders.len(), Ordering::Release);
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
        accounts.senders.clear();
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
            Record::Copy(record) => {
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
            Record::Annotate(record) => self.annotations(record.account),
            Record::Account(record) => self.list(record.account),
            // An account that is imported has no sessions; a blob alone is nobody's.
            Record::Import(_) | Record::Blob(_) | Record::Drop(_) => {}
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
        if let Some(sender) = self.lock().senders.get(&account) {
            sender.send_modify(change);
        }
    }
}
