//! Deliver: one message to some accounts.

use std::collections::HashSet;

use bytes::Bytes;
use directory_api::AccountId;
use store_api::deliver::Repeats;

use super::super::holds::held_for;
use super::super::intake::Reply;
use super::super::record::{Answered, Body, Deliver, DeliverTo, NO_KEY, Record};
use super::super::rows::State;
use super::super::types::{
    Delivery, Flags, MailboxId, Outcome, PROLOGUE_MAX_BYTES, Recipient, Refusal, TransactionId,
    repeat_key,
};
use super::accounts::{InFlight, Known};
use super::{Batch, Bring, Sequencer, Stop, blob_ref};

impl Sequencer {
    pub(super) fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        delivery: Delivery,
    ) -> Result<Reply, Stop> {
        let Delivery {
            txn,
            sender,
            content_key,
            repeats,
            blob,
            trace,
            received_ms,
            recipients,
        } = delivery;
        let (hash, octets) = (blob.hash(), blob.size());
        let mut body = Some(blob);
        let template = Deliver {
            at_ms: batch.now_ms,
            txn,
            content_key,
            received_ms,
            sender: sender.into(),
            trace: trace.into(),
            recipients: Vec::new(),
            blob: blob_ref(0, hash, octets, Body::Known),
        };
        // One record for all, unless prologues are large or the blob's inode is full in between.
        let mut open: Option<Deliver> = None;
        let mut open_bytes = 0;
        let mut outcomes = Vec::with_capacity(recipients.len());
        // Before the first record of the message is begun, for they come before it.
        for recipient in &recipients {
            match self.make_for_detail(batch, &txn, recipient) {
                Ok(()) | Err(Stop::Refused(_)) => {}
                Err(stop) => return Err(stop),
            }
        }
        // Those of whom a holder may come.
        let mut given: HashSet<AccountId> = HashSet::new();
        for recipient in recipients {
            if held_for(recipient.account).is_some_and(|account| given.contains(&account)) {
                outcomes.push(Outcome::Duplicate);
                continue;
            }
            let account = recipient.account;
            let key = match repeats {
                Repeats::Deliver => NO_KEY,
                _ => repeat_key(&template.sender, &content_key, recipient.detail.as_ref()),
            };
            if open_bytes + recipient.prologue.len() > RECORD_PROLOGUES_MAX_BYTES {
                batch.records.extend(open.take().map(Record::Deliver));
                open_bytes = 0;
            }
            match self.admit_recipient(batch, &txn, (key, repeats), &recipient) {
                Ok(None) => {
                    given.insert(account);
                    outcomes.push(Outcome::Duplicate);
                }
                Err(Stop::Refused(refusal)) => outcomes.push(refusal.into()),
                Err(stop) => return Err(stop),
                Ok(Some(inbox_uidvalidity)) => {
                    let (number, bring) = match &body {
                        Some(finished) => self.link_finished(batch, finished),
                        None => self
                            .link(batch, &hash)
                            .map(|linked| linked.expect("the first recipient linked it")),
                    }
                    .map(|(blob, bring)| (blob.number, bring))?;
                    let fits = open
                        .as_ref()
                        .is_some_and(|record| record.blob.number == number);
                    if !fits {
                        batch.records.extend(open.take().map(Record::Deliver));
                        open_bytes = 0;
                    }
                    open_bytes += recipient.prologue.len();
                    let record = open.get_or_insert_with(|| {
                        let brought = match bring {
                            // It stays at hand until then: the inode of the last recipient may be full for the next one.
                            Bring::Body => {
                                let finished = body.take().expect("it was at hand");
                                finished.into_body()
                            }
                            Bring::CopyOf(from) => Body::Copied(from),
                            Bring::Nothing => Body::Known,
                        };
                        Deliver {
                            blob: blob_ref(number, hash, octets, brought),
                            ..template.clone()
                        }
                    });
                    let known = Known {
                        flags: Flags::default(),
                        keywords: Vec::new(),
                        modseq: 0,
                        blob: number,
                        octets,
                        size_octets: recipient.prologue.len() as u64 + octets,
                        hash: Some(hash),
                    };
                    let to = self.number(batch, [txn, key], recipient, inbox_uidvalidity, known)?;
                    given.insert(account);
                    outcomes.push(Outcome::Committed {
                        uid: to.uid,
                        lsn: batch.lsn(),
                    });
                    record.recipients.push(to);
                }
            }
        }
        batch.records.extend(open.map(Record::Deliver));
        Ok(Reply::Delivered(outcomes))
    }

    /// Everything that may refuse. `None` is a duplicate; a number is the UIDVALIDITY of a new INBOX, or 0.
    fn admit_recipient(
        &mut self,
        batch: &Batch<'_>,
        txn: &TransactionId,
        repeat: (TransactionId, Repeats),
        recipient: &Recipient,
    ) -> Result<Option<u32>, Stop> {
        // First of all: after a move or freeze a retry still is one, its message moves along (P2).
        if self.has_transaction(batch, recipient.account, txn)?
            || self.is_repeat(batch, recipient.account, repeat)?
        {
            return Ok(None);
        }
        batch.check_room()?;
        if recipient.prologue.len() > PROLOGUE_MAX_BYTES {
            return Err(Refusal::Full.into());
        }
        // A new account has only an INBOX; it must not be made for a message that cannot go there.
        if recipient.mailbox != MailboxId::INBOX
            && self.account(batch, recipient.account)?.row.is_none()
        {
            return Err(Refusal::NoMailbox.into());
        }
        let inbox_uidvalidity = self.admit(batch, recipient.account, recipient.epoch)?;
        let account = self.account(batch, recipient.account)?;
        let mailbox = account.place(recipient);
        let mailbox = account.mailboxes.get(&mailbox).ok_or(Refusal::NoMailbox)?;
        if mailbox.uidnext == u32::MAX {
            return Err(Refusal::Full.into());
        }
        Ok(Some(inbox_uidvalidity))
    }

    pub(super) fn has_transaction(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        txn: &TransactionId,
    ) -> Result<bool, Stop> {
        let entry = self.account(batch, account)?;
        if entry.transaction_in_flight(txn).is_some() {
            return Ok(true);
        }
        Ok(self.index.has_transaction(batch.txn, account, txn)?)
    }

    /// Whether a sender who did not read the answer sends a message again.
    fn is_repeat(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        (key, repeats): (TransactionId, Repeats),
    ) -> Result<bool, Stop> {
        if repeats == Repeats::Deliver {
            return Ok(false);
        }
        let is_answered = self.is_answered(batch, account, &key)?;
        Ok(is_answered.is_some_and(|is_answered| !is_answered || repeats == Repeats::SuppressRead))
    }

    /// Whether the answer to the last message with a key was read; `None` if there was no such message in the last days.
    fn is_answered(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        key: &TransactionId,
    ) -> Result<Option<bool>, Stop> {
        let entry = self.account(batch, account)?;
        if let Some(is_answered) = entry.transaction_in_flight(key) {
            return Ok(Some(is_answered));
        }
        let row = self.index.transaction(batch.txn, account, key)?;
        let row = row.filter(|row| row.committed_ms.get() > batch.now_ms - REPEATED_MS);
        Ok(row.map(|row| row.is_answered.get() != 0))
    }

    /// Notes which answers were read. What is known nowhere is no news.
    pub(super) fn answered(
        &mut self,
        batch: &mut Batch<'_>,
        mut messages: Vec<(AccountId, TransactionId)>,
    ) -> Result<Reply, Stop> {
        let mut known = Vec::with_capacity(messages.len());
        for (account, key) in messages.drain(..) {
            // Of one that is being moved nothing changes any more; there it is taken for a repeat.
            let row = self.account(batch, account)?.row.as_ref();
            let is_active = row.is_some_and(|row| row.state == State::Active);
            if is_active && self.is_answered(batch, account, &key)? == Some(false) {
                let lsn = batch.lsn();
                self.account(batch, account)?
                    .touch_transaction(lsn, key, true);
                known.push((account, key));
            }
        }
        if !known.is_empty() {
            batch
                .records
                .push(Record::Answered(Answered { messages: known }));
        }
        Ok(Reply::Done)
    }

    /// Assigns UID, MODSEQ and identity (P3).
    fn number(
        &mut self,
        batch: &Batch<'_>,
        [txn, key]: [TransactionId; 2],
        recipient: Recipient,
        inbox_uidvalidity: u32,
        known: Known,
    ) -> Result<DeliverTo, Stop> {
        let identity = self.identities.next();
        let lsn = batch.lsn();
        let account = self.account(batch, recipient.account)?;
        let row = account.row.as_ref().ok_or(Refusal::NoAccount)?;
        let epoch = row.epoch;
        let place = account.place(&recipient);
        let mailbox = account
            .mailboxes
            .get_mut(&place)
            .ok_or(Refusal::NoMailbox)?;
        let uid = mailbox.uidnext;
        mailbox.uidnext += 1;
        mailbox.highestmodseq += 1;
        let modseq = mailbox.highestmodseq;
        account.count_in(place, known.size_octets);
        account.touch_transaction(lsn, txn, false);
        if key != NO_KEY {
            account.touch_transaction(lsn, key, false);
        }
        let known = Known { modseq, ..known };
        account.touch_message(lsn, place, uid, InFlight::Has(known));
        Ok(DeliverTo {
            account: recipient.account,
            epoch,
            inbox_uidvalidity,
            mailbox: place,
            uid,
            modseq,
            identity,
            key,
            prologue: Bytes::from(recipient.prologue),
        })
    }
}

/// For how long a message is known again whose sender is not known to have read the answer: senders give up after five days.
/// RFC 5321 §4.5.4.1.
const REPEATED_MS: i64 = 5 * 24 * 3600 * 1000;
/// Keeps a record far below the smallest segment that is sensible.
const RECORD_PROLOGUES_MAX_BYTES: usize = 512 << 10;
