//! Deliver: one message to some accounts.

use std::collections::HashSet;

use bytes::Bytes;
use directory_api::AccountId;

use super::super::holds::held_for;
use super::super::intake::Reply;
use super::super::record::{Body, Deliver, DeliverTo, Record};
use super::super::types::{
    Delivery, Flags, MailboxId, Outcome, PROLOGUE_MAX_BYTES, Recipient, Refusal, TransactionId,
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
            if open_bytes + recipient.prologue.len() > RECORD_PROLOGUES_MAX_BYTES {
                batch.records.extend(open.take().map(Record::Deliver));
                open_bytes = 0;
            }
            match self.admit_recipient(batch, &txn, &recipient) {
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
                    let to = self.number(batch, &txn, recipient, inbox_uidvalidity, known)?;
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
        recipient: &Recipient,
    ) -> Result<Option<u32>, Stop> {
        // First of all: after a move or freeze a retry still is one, its message moves along (P2).
        if self.has_transaction(batch, recipient.account, txn)? {
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
        if entry.has_in_flight(txn) {
            return Ok(true);
        }
        Ok(self.index.has_transaction(batch.txn, account, txn)?)
    }

    /// Assigns UID, MODSEQ and identity (P3).
    fn number(
        &mut self,
        batch: &Batch<'_>,
        txn: &TransactionId,
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
        account.touch_transaction(lsn, *txn);
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
            prologue: Bytes::from(recipient.prologue),
        })
    }
}

/// Keeps a record far below the smallest segment that is sensible.
const RECORD_PROLOGUES_MAX_BYTES: usize = 512 << 10;
