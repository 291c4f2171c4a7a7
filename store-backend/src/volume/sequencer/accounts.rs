//! The sequencer's view of accounts, and who may write to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use directory_api::{AccountId, Epoch, Quota};
use durable::Lsn;
use tracing::info;

use super::super::error::IndexError;
use super::super::intake::Reply;
use super::super::layout::NUMBER_LIMIT;
use super::super::record::{Record, SetAccount};
use super::super::rows::{AccountRow, MailboxRow, State};
use super::super::types::{Flags, Hash, MailboxId, MoveId, Refusal, TransactionId};
use super::annotations::Annotations;
use super::{Batch, Decided, Sequencer, Stop, check_epoch};
use crate::metrics;

/// An account with what is in flight.
pub(super) struct Account {
    id: AccountId,
    quota_warning_percent: u8,
    pub(super) row: Option<AccountRow>,
    /// In boxes, because a node of the tree has room for eleven and most accounts have one or two.
    pub(super) mailboxes: BTreeMap<MailboxId, Box<MailboxRow>>,
    /// Loaded when they are first needed.
    pub(super) subscriptions: Option<BTreeSet<String>>,
    /// Loaded when they are first needed.
    pub(super) annotations: Option<Annotations>,
    /// The last record that changed it.
    pub(super) last: Lsn,
    /// The last record that emptied it: until that is applied, a snapshot shows what is no more.
    pub(super) wiped: Lsn,
    /// Whether the sender has read the answer, of those that are keys of messages.
    transactions: HashMap<TransactionId, (Lsn, bool)>,
    messages: HashMap<(MailboxId, u32), (Lsn, InFlight)>,
    touched: VecDeque<(Lsn, Touched)>,
}

/// A message that the index does not yet show as it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InFlight {
    Has(Known),
    Gone,
    /// It had gone, and came back as another one.
    Back,
}

/// What decisions need of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) flags: Flags,
    /// Numbers of keywords, growing.
    pub(super) keywords: Vec<u16>,
    pub(super) modseq: u64,
    pub(super) blob: u64,
    /// Of the blob.
    pub(super) octets: u64,
    /// What a client reads: prologue and blob.
    pub(super) size_octets: u64,
    /// The blob's; `None` when the index has the blob.
    pub(super) hash: Option<Hash>,
}

#[derive(Clone, Copy)]
enum Touched {
    Transaction(TransactionId),
    Message(MailboxId, u32),
}

impl Account {
    pub(super) fn touch_transaction(&mut self, lsn: Lsn, txn: TransactionId, is_answered: bool) {
        self.transactions.insert(txn, (lsn, is_answered));
        self.touched.push_back((lsn, Touched::Transaction(txn)));
        self.last = lsn;
    }

    pub(super) fn touch_message(
        &mut self,
        lsn: Lsn,
        mailbox: MailboxId,
        uid: u32,
        message: InFlight,
    ) {
        self.messages.insert((mailbox, uid), (lsn, message));
        self.touched
            .push_back((lsn, Touched::Message(mailbox, uid)));
        self.last = lsn;
    }

    pub(super) fn in_flight(&self, mailbox: MailboxId, uid: u32) -> Option<&InFlight> {
        self.messages
            .get(&(mailbox, uid))
            .map(|(_, message)| message)
    }

    /// Every message of a mailbox that the index does not yet show as it will be.
    pub(super) fn all_in_flight(
        &self,
        mailbox: MailboxId,
    ) -> impl Iterator<Item = (u32, &InFlight)> {
        let messages = self.messages.iter();
        messages
            .filter(move |((place, _), _)| *place == mailbox)
            .map(|((_, uid), (_, message))| (*uid, message))
    }

    /// Whether it is in flight, and its answer was read.
    pub(super) fn transaction_in_flight(&self, txn: &TransactionId) -> Option<bool> {
        let in_flight = self.transactions.get(txn);
        in_flight.map(|(_, is_answered)| *is_answered)
    }

    fn forget_applied(&mut self, applied: Lsn) {
        while self.touched.front().is_some_and(|(lsn, _)| *lsn <= applied) {
            match self.touched.pop_front().expect("it is not empty").1 {
                Touched::Transaction(txn) => {
                    if self
                        .transactions
                        .get(&txn)
                        .is_some_and(|(lsn, _)| *lsn <= applied)
                    {
                        self.transactions.remove(&txn);
                    }
                }
                Touched::Message(mailbox, uid) => {
                    if self
                        .messages
                        .get(&(mailbox, uid))
                        .is_some_and(|(lsn, _)| *lsn <= applied)
                    {
                        self.messages.remove(&(mailbox, uid));
                    }
                }
            }
        }
    }

    /// The row of an account that takes writes with this epoch.
    pub(super) fn writable(&mut self, epoch: Epoch) -> Result<&mut AccountRow, Refusal> {
        let row = self.row.as_mut().ok_or(Refusal::NoAccount)?;
        match row.state {
            State::Active => check_epoch(epoch, row.epoch)?,
            State::Frozen | State::Importing => return Err(Refusal::Frozen),
            State::Moved => return Err(moved(row)),
        }
        Ok(row)
    }

    /// Refuses what would be more than the account may hold, with all that is in flight. Deliveries may have passed a
    /// limit already: only what grows is held against its limit.
    pub(super) fn check_quota(&self, messages: u64, octets: u64) -> Result<(), Refusal> {
        let row = self.row.as_ref().ok_or(Refusal::NoAccount)?;
        let after = |before: u64, more: u64| match more {
            0 => 0,
            more => before.saturating_add(more),
        };
        let (messages, octets) = (
            after(row.message_count, messages),
            after(row.size_octets, octets),
        );
        if row.quota.allows(messages, octets) {
            return Ok(());
        }
        metrics::quota("refused");
        info!(account = %self.id, reason = "over_quota", messages, octets, quota = ?row.quota, "write refused");
        Err(Refusal::OverQuota)
    }

    /// Counts a message that comes.
    pub(super) fn count_in(&mut self, mailbox: MailboxId, octets: u64) {
        if let Some(row) = self.mailboxes.get_mut(&mailbox) {
            row.message_count += 1;
            row.size_octets += octets;
        }
        let Some(row) = &mut self.row else { return };
        let percent = self.quota_warning_percent;
        let was_near = row
            .quota
            .is_near(percent, row.message_count, row.size_octets);
        let was_within = row.quota.allows(row.message_count, row.size_octets);
        row.message_count += 1;
        row.size_octets += octets;
        if was_within && !row.quota.allows(row.message_count, row.size_octets) {
            metrics::quota("exceeded");
            info!(account = %self.id, reason = "quota_exceeded", messages = row.message_count,
                octets = row.size_octets, quota = ?row.quota, "quota is exceeded");
        }
        if !was_near
            && row
                .quota
                .is_near(percent, row.message_count, row.size_octets)
        {
            metrics::quota("warned");
            info!(account = %self.id, reason = "quota_warning", messages = row.message_count,
                octets = row.size_octets, quota = ?row.quota, "quota is nearly used up");
        }
    }

    /// Counts a message that goes.
    pub(super) fn count_out(&mut self, mailbox: MailboxId, octets: u64) {
        if let Some(row) = self.mailboxes.get_mut(&mailbox) {
            row.message_count = row.message_count.saturating_sub(1);
            row.size_octets = row.size_octets.saturating_sub(octets);
        }
        if let Some(row) = &mut self.row {
            row.message_count = row.message_count.saturating_sub(1);
            row.size_octets = row.size_octets.saturating_sub(octets);
        }
    }

    /// Whether it ever held a message or mailbox here, or was in a move. A first session alone does not count.
    pub(super) fn was_used(&self) -> bool {
        self.row.as_ref().is_some_and(|row| {
            row.move_id != MoveId::default() || row.mailbox_next > MailboxId::INBOX.0 + 1
        }) || self.mailboxes.values().any(|mailbox| mailbox.uidnext > 1)
    }

    /// Empties it, as a wipe does.
    pub(super) fn wipe(&mut self, lsn: Lsn) {
        self.wiped = lsn;
        self.mailboxes.clear();
        self.subscriptions = Some(BTreeSet::new());
        self.annotations = Some(Annotations::default());
        self.transactions.clear();
        self.messages.clear();
        self.touched.clear();
    }
}

pub(super) fn moved(row: &AccountRow) -> Refusal {
    match &row.elsewhere {
        Some(backend) => Refusal::Moved {
            backend: backend.clone(),
            epoch: row.epoch,
        },
        None => Refusal::NoAccount,
    }
}

impl Sequencer {
    /// The account as it will be when all that is in flight is applied.
    pub(super) fn account(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
    ) -> Result<&mut Account, Stop> {
        if account.0 >= NUMBER_LIMIT {
            return Err(Refusal::NoAccount.into());
        }
        if !self.accounts.contains_key(&account) {
            let loaded = self.load(batch, account)?;
            self.accounts.insert(account, loaded);
        }
        let applied = self.applied;
        let entry = self.accounts.get_mut(&account).expect("it was just loaded");
        entry.forget_applied(applied);
        Ok(entry)
    }

    fn load(&self, batch: &Batch<'_>, account: AccountId) -> Result<Account, IndexError> {
        let row = self.index.account(batch.txn, account)?;
        let mailboxes = match row {
            Some(_) => self
                .index
                .mailboxes_of(batch.txn, account)?
                .into_iter()
                .map(|(mailbox, row)| (mailbox, Box::new(row)))
                .collect(),
            None => BTreeMap::new(),
        };
        Ok(Account {
            id: account,
            quota_warning_percent: self.rules.quota_warning_percent,
            row,
            mailboxes,
            subscriptions: None,
            annotations: None,
            last: Lsn(0),
            wiped: Lsn(0),
            transactions: HashMap::new(),
            messages: HashMap::new(),
            touched: VecDeque::new(),
        })
    }

    /// Makes the account when it is new, or takes a higher epoch over when it is empty: an account that never had
    /// anything here cannot lose anything by it. Answers the UIDVALIDITY of a new INBOX, else 0.
    pub(super) fn admit(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        epoch: Epoch,
    ) -> Result<u32, Stop> {
        let now_s = u32::try_from(batch.now_ms / 1000).unwrap_or(u32::MAX);
        let entry = self.account(batch, account)?;
        let Some(row) = &mut entry.row else {
            let mut row = AccountRow::new(epoch);
            row.uidvalidity_last = now_s.max(1);
            entry.mailboxes.insert(
                MailboxId::INBOX,
                Box::new(MailboxRow::new(
                    account,
                    MailboxId::INBOX,
                    "INBOX",
                    row.uidvalidity_last,
                )),
            );
            let uidvalidity = row.uidvalidity_last;
            entry.row = Some(row);
            return Ok(uidvalidity);
        };
        // Nor one of which only the files were left, so that its epoch is not known ([`super::super::fsck`]).
        let has_nothing_to_lose = row.message_count == 0 || row.epoch == Epoch(0);
        if row.state == State::Active && has_nothing_to_lose && epoch > row.epoch {
            row.epoch = epoch;
        }
        entry.writable(epoch)?;
        Ok(0)
    }

    pub(super) fn ensure_account(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        quota: Option<Quota>,
    ) -> Result<Decided, Stop> {
        let known = |row: &AccountRow| (row.epoch, row.quota);
        let before = self.account(batch, account)?.row.as_ref().map(known);
        let inbox_uidvalidity = self.admit(batch, account, epoch)?;
        let row = self.account(batch, account)?.row.as_mut();
        let row = row.ok_or(Refusal::NoAccount)?;
        row.quota = quota.unwrap_or(row.quota);
        if before != Some(known(row)) {
            self.push_account(batch, account, inbox_uidvalidity, false)?;
        }
        // The session that follows opens INBOX at once.
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// A record that sets the account to what its entry says.
    pub(super) fn push_account(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        inbox_uidvalidity: u32,
        wipe: bool,
    ) -> Result<(), Stop> {
        let keep_until_ms = batch.now_ms + self.rules.expunge_grace_ms;
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        entry.last = lsn;
        let row = entry.row.as_ref().ok_or(Refusal::NoAccount)?;
        let record = SetAccount {
            account,
            state: row.state,
            epoch: row.epoch,
            move_id: row.move_id,
            elsewhere: row.elsewhere.clone(),
            quota: row.quota,
            inbox_uidvalidity,
            wipe,
            keep_until_ms,
        };
        batch.records.push(Record::Account(record));
        Ok(())
    }
}
