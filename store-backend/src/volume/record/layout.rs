//! How records are written: the only place that knows the order of their fields.

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch, Quota};

use super::super::acl::Acl;
use super::super::codec::{Malformed, Put, Take};
use super::super::rows::{State, quota_of};
use super::super::types::{MailboxId, SpecialUse};
use super::{
    Annotate, Answered, Append, Appended, BlobRef, Body, CopiedMessage, CopyMessages,
    CreateMailboxes, DeleteMailbox, Deliver, DeliverTo, DropBlobs, Expunge, FlagsOf, Grace, Import,
    NO_KEY, NewMailbox, Purge, PutBlob, Record, RenameMailboxes, Replaced, SetAccount, SetAcl,
    SetSpecialUse, StoreFlags, Subscribe,
};

/// A record's payload in two parts, so that a body is never copied into the head.
#[derive(Debug)]
pub(in super::super) struct Encoded {
    pub(in super::super) kind: u8,
    pub(in super::super) head: Vec<u8>,
    pub(in super::super) body: Bytes,
}

impl Encoded {
    pub(in super::super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

const VERSION: u8 = 1;
/// Of a delivery it says by what each message is known when it is sent again; of the kinds by which messages go, when they went, so that
/// they can be brought back for a time. Without such a key or time version 1 is written, which says all there is and which older builds read.
const VERSION_LATER: u8 = 2;

impl Record {
    pub(in super::super) fn encode(&self) -> Encoded {
        let has_grace = self.grace().is_some_and(|grace| !grace.is_none());
        let version = match has_grace || self.has_keys() {
            true => VERSION_LATER,
            false => VERSION,
        };
        let mut head = vec![version];
        let mut body = Bytes::new();
        match self {
            Self::Deliver(record) => {
                head.reserve(
                    256 + record
                        .recipients
                        .iter()
                        .map(|to| 80 + to.prologue.len())
                        .sum::<usize>(),
                );
                head.put_i64(record.at_ms);
                head.put_fixed(&record.txn);
                head.put_fixed(&record.content_key);
                head.put_i64(record.received_ms);
                head.put_string(&record.sender);
                head.put_string(&record.trace);
                head.put_count(record.recipients.len());
                for to in &record.recipients {
                    head.put_u64(to.account.0);
                    head.put_u64(to.epoch.0);
                    head.put_u32(to.inbox_uidvalidity);
                    head.put_u32(to.mailbox.0);
                    head.put_u32(to.uid);
                    head.put_u64(to.modseq);
                    head.put_fixed(&to.identity);
                    if version == VERSION_LATER {
                        head.put_fixed(&to.key);
                    }
                    head.put_string(&to.prologue);
                }
                body = put_blob(&mut head, &record.blob);
            }
            Self::Expunge(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u64(record.modseq);
                put_grace(&mut head, record.grace);
                head.put_count(record.uids.len());
                record.uids.iter().for_each(|uid| head.put_u32(*uid));
            }
            Self::Flags(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u64(record.modseq);
                head.put_strings(&record.new_keywords);
                head.put_count(record.changes.len());
                record.changes.iter().for_each(|one| one.put(&mut head));
            }
            Self::Mailbox(record) => {
                head.put_u64(record.account.0);
                head.put_count(record.created.len());
                for new in &record.created {
                    head.put_u32(new.mailbox.0);
                    head.put_u32(new.uidvalidity);
                    head.put_u8(new.special_use.0);
                    head.put_string(new.name.as_bytes());
                }
            }
            Self::Account(record) => {
                head.put_u64(record.account.0);
                head.put_u8(record.state as u8);
                head.put_u64(record.epoch.0);
                head.put_fixed(&record.move_id);
                head.put_string(
                    record
                        .elsewhere
                        .as_ref()
                        .map_or("", BackendName::as_str)
                        .as_bytes(),
                );
                put_quota(&mut head, &record.quota);
                head.put_u32(record.inbox_uidvalidity);
                head.put_u8(u8::from(record.wipe));
                head.put_i64(record.keep_until_ms);
            }
            Self::Import(record) => {
                head.put_u64(record.account.0);
                put_copies(&mut head, &record.copies);
                head.put_count(record.numbers.len());
                record
                    .numbers
                    .iter()
                    .for_each(|number| head.put_u64(*number));
                head.put_count(record.items.len());
                record.items.iter().for_each(|item| head.put_string(item));
            }
            Self::Blob(record) => {
                head.put_i64(record.keep_until_ms);
                body = put_blob(&mut head, &record.blob);
            }
            Self::Drop(record) => {
                head.put_count(record.blobs.len());
                for (number, hash) in &record.blobs {
                    head.put_u64(*number);
                    head.put_fixed(hash);
                }
            }
            Self::Append(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u64(record.modseq);
                head.put_i64(record.saved_ms);
                head.put_strings(&record.new_keywords);
                put_copies(&mut head, &record.copies);
                head.put_count(record.messages.len());
                for message in &record.messages {
                    message.flags.put(&mut head);
                    head.put_i64(message.internal_date_ms);
                    head.put_fixed(&message.identity);
                    head.put_u64(message.blob);
                    head.put_fixed(&message.hash);
                    head.put_u64(message.octets);
                }
                head.put_count(usize::from(record.replaced.is_some()));
                if let Some(replaced) = &record.replaced {
                    head.put_u32(replaced.mailbox.0);
                    head.put_u32(replaced.uid);
                    head.put_u64(replaced.modseq);
                    put_grace(&mut head, replaced.grace);
                }
            }
            Self::Copy(record) | Self::Undelete(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.source.0);
                head.put_u32(record.target.0);
                head.put_u64(record.modseq);
                if matches!(self, Self::Copy(_)) {
                    head.put_u64(record.source_modseq);
                }
                head.put_i64(record.saved_ms);
                head.put_strings(&record.new_keywords);
                put_copies(&mut head, &record.copies);
                put_copied(&mut head, &record.messages);
            }
            Self::Delete(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                put_grace(&mut head, record.grace);
            }
            Self::Rename(record) => {
                head.put_u64(record.account.0);
                head.put_count(record.renamed.len());
                for (mailbox, name) in &record.renamed {
                    head.put_u32(mailbox.0);
                    head.put_string(name.as_bytes());
                }
            }
            Self::Subscribe(record) => {
                head.put_u64(record.account.0);
                head.put_u8(u8::from(record.subscribed));
                head.put_string(record.name.as_bytes());
            }
            Self::SpecialUse(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u8(record.special_use.0);
            }
            Self::Annotate(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_count(record.changes.len());
                for (entry, value) in &record.changes {
                    head.put_string(entry.as_bytes());
                    head.put_u8(u8::from(value.is_some()));
                    head.put_string(value.as_deref().unwrap_or_default());
                }
            }
            Self::Acl(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                record.acl.put(&mut head);
            }
            Self::Answered(record) => {
                head.put_count(record.messages.len());
                for (account, key) in &record.messages {
                    head.put_u64(account.0);
                    head.put_fixed(key);
                }
            }
            Self::Purge(record) => {
                head.put_i64(record.until_ms);
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u32(record.uid);
            }
        }
        Encoded {
            kind: self.kind(),
            head,
            body,
        }
    }

    pub(in super::super) fn decode(kind: u8, payload: Bytes) -> Result<Self, Malformed> {
        Self::take(kind, Take::new(payload, "journal record"))
    }

    /// One of which only the head was kept: what [`Record::encode`] gives as such.
    pub(in super::super) fn decode_kept(kind: u8, head: Bytes) -> Result<Self, Malformed> {
        Self::take(kind, Take::without_body(head, "kept record"))
    }

    fn take(kind: u8, mut take: Take) -> Result<Self, Malformed> {
        let version = take.u8()?;
        if version != VERSION && (version != VERSION_LATER || !may_be_later(kind)) {
            return Err(take.malformed());
        }
        match kind {
            1 => {
                let (at_ms, txn, content_key) = (take.i64()?, take.fixed()?, take.fixed()?);
                let (received_ms, sender, trace) = (take.i64()?, take.string()?, take.string()?);
                let recipients = take.list(56, |take| {
                    Ok(DeliverTo {
                        account: AccountId(take.u64()?),
                        epoch: Epoch(take.u64()?),
                        inbox_uidvalidity: take.u32()?,
                        mailbox: MailboxId(take.u32()?),
                        uid: take.u32()?,
                        modseq: take.u64()?,
                        identity: take.fixed()?,
                        key: match version {
                            VERSION_LATER => take.fixed()?,
                            _ => NO_KEY,
                        },
                        prologue: take.string()?,
                    })
                })?;
                let blob = take_last_blob(take)?;
                Ok(Self::Deliver(Deliver {
                    at_ms,
                    txn,
                    content_key,
                    received_ms,
                    sender,
                    trace,
                    recipients,
                    blob,
                }))
            }
            2 => {
                let record = Expunge {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    modseq: take.u64()?,
                    grace: take_grace(&mut take, version)?,
                    uids: take.list(4, Take::u32)?,
                };
                take.end()?;
                Ok(Self::Expunge(record))
            }
            3 => {
                let record = StoreFlags {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    modseq: take.u64()?,
                    new_keywords: take.list(4, Take::text)?,
                    changes: take.list(12, FlagsOf::take)?,
                };
                take.end()?;
                Ok(Self::Flags(record))
            }
            4 => {
                let record = CreateMailboxes {
                    account: AccountId(take.u64()?),
                    created: take.list(13, |take| {
                        Ok(NewMailbox {
                            mailbox: MailboxId(take.u32()?),
                            uidvalidity: take.u32()?,
                            special_use: SpecialUse(take.u8()?),
                            name: take.text()?,
                        })
                    })?,
                };
                take.end()?;
                Ok(Self::Mailbox(record))
            }
            5 => {
                let bad = take.malformed();
                let record = SetAccount {
                    account: AccountId(take.u64()?),
                    state: State::from_u8(take.u8()?).ok_or(bad)?,
                    epoch: Epoch(take.u64()?),
                    move_id: take.fixed()?,
                    elsewhere: match take.text()? {
                        name if name.is_empty() => None,
                        name => Some(BackendName::new(name).map_err(|_| bad)?),
                    },
                    quota: take_quota(&mut take)?,
                    inbox_uidvalidity: take.u32()?,
                    wipe: take.u8()? != 0,
                    keep_until_ms: take.i64()?,
                };
                take.end()?;
                Ok(Self::Account(record))
            }
            6 => {
                let record = Import {
                    account: AccountId(take.u64()?),
                    copies: take_copies(&mut take)?,
                    numbers: take.list(8, Take::u64)?,
                    items: take.list(4, Take::string)?,
                };
                take.end()?;
                Ok(Self::Import(record))
            }
            7 => {
                let keep_until_ms = take.i64()?;
                Ok(Self::Blob(PutBlob {
                    keep_until_ms,
                    blob: take_last_blob(take)?,
                }))
            }
            8 => {
                let record = DropBlobs {
                    blobs: take.list(40, |take| Ok((take.u64()?, take.fixed()?)))?,
                };
                take.end()?;
                Ok(Self::Drop(record))
            }
            9 => {
                let bad = take.malformed();
                let record = Append {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    modseq: take.u64()?,
                    saved_ms: take.i64()?,
                    new_keywords: take.list(4, Take::text)?,
                    copies: take_copies(&mut take)?,
                    messages: take.list(84, |take| {
                        Ok(Appended {
                            flags: FlagsOf::take(take)?,
                            internal_date_ms: take.i64()?,
                            identity: take.fixed()?,
                            blob: take.u64()?,
                            hash: take.fixed()?,
                            octets: take.u64()?,
                        })
                    })?,
                    replaced: match &take.list(24, |take| take_replaced(take, version))?[..] {
                        [] => None,
                        [one] => Some(one.clone()),
                        _ => return Err(bad),
                    },
                };
                take.end()?;
                Ok(Self::Append(record))
            }
            10 | 17 => {
                let record = CopyMessages {
                    account: AccountId(take.u64()?),
                    source: MailboxId(take.u32()?),
                    target: MailboxId(take.u32()?),
                    modseq: take.u64()?,
                    source_modseq: if kind == 10 { take.u64()? } else { 0 },
                    saved_ms: take.i64()?,
                    new_keywords: take.list(4, Take::text)?,
                    copies: take_copies(&mut take)?,
                    messages: take.list(56, take_copied)?,
                };
                take.end()?;
                Ok(match kind {
                    10 => Self::Copy(record),
                    _ => Self::Undelete(record),
                })
            }
            11 => {
                let record = DeleteMailbox {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    grace: take_grace(&mut take, version)?,
                };
                take.end()?;
                Ok(Self::Delete(record))
            }
            12 => {
                let record = RenameMailboxes {
                    account: AccountId(take.u64()?),
                    renamed: take.list(8, |take| Ok((MailboxId(take.u32()?), take.text()?)))?,
                };
                take.end()?;
                Ok(Self::Rename(record))
            }
            13 => {
                let record = Subscribe {
                    account: AccountId(take.u64()?),
                    subscribed: take.u8()? != 0,
                    name: take.text()?,
                };
                take.end()?;
                Ok(Self::Subscribe(record))
            }
            14 => {
                let record = SetSpecialUse {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    special_use: SpecialUse(take.u8()?),
                };
                take.end()?;
                Ok(Self::SpecialUse(record))
            }
            15 => {
                let record = Annotate {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    changes: take.list(9, |take| {
                        let entry = take.text()?;
                        let has_value = take.u8()? != 0;
                        let value = take.string()?;
                        Ok((entry, has_value.then_some(value)))
                    })?,
                };
                take.end()?;
                Ok(Self::Annotate(record))
            }
            16 => {
                let record = SetAcl {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    acl: Acl::take(&mut take)?,
                };
                take.end()?;
                Ok(Self::Acl(record))
            }
            18 => {
                let record = Purge {
                    until_ms: take.i64()?,
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    uid: take.u32()?,
                };
                take.end()?;
                Ok(Self::Purge(record))
            }
            19 => {
                let one = |take: &mut Take| Ok((AccountId(take.u64()?), take.fixed()?));
                let messages = take.list(24, one)?;
                take.end()?;
                Ok(Self::Answered(Answered { messages }))
            }
            _ => Err(take.malformed()),
        }
    }

    /// Whether one of its messages is known when it is sent again.
    fn has_keys(&self) -> bool {
        match self {
            Self::Deliver(record) => record.recipients.iter().any(|to| to.key != NO_KEY),
            _ => false,
        }
    }

    /// Of the messages that go by it.
    fn grace(&self) -> Option<Grace> {
        match self {
            Self::Expunge(record) => Some(record.grace),
            Self::Delete(record) => Some(record.grace),
            Self::Append(record) => record.replaced.as_ref().map(|gone| gone.grace),
            _ => None,
        }
    }
}

/// Whether records of this kind have a version 2: deliveries with keys, and those that have [`Record::grace`].
fn may_be_later(kind: u8) -> bool {
    matches!(kind, 1 | 2 | 9 | 11)
}

fn put_grace(head: &mut Vec<u8>, grace: Grace) {
    head.put_i64(grace.until_ms);
    if !grace.is_none() {
        head.put_i64(grace.at_ms);
    }
}

fn take_grace(take: &mut Take, version: u8) -> Result<Grace, Malformed> {
    let until_ms = take.i64()?;
    match version {
        VERSION => Ok(Grace::none(until_ms)),
        _ => Ok(Grace {
            at_ms: take.i64()?,
            until_ms,
        }),
    }
}

fn take_replaced(take: &mut Take, version: u8) -> Result<Replaced, Malformed> {
    Ok(Replaced {
        mailbox: MailboxId(take.u32()?),
        uid: take.u32()?,
        modseq: take.u64()?,
        grace: take_grace(take, version)?,
    })
}

fn put_copied(head: &mut Vec<u8>, messages: &[CopiedMessage]) {
    head.put_count(messages.len());
    for message in messages {
        head.put_u32(message.source_uid);
        message.flags.put(head);
        head.put_u64(message.blob);
        head.put_fixed(&message.hash);
    }
}

fn take_copied(take: &mut Take) -> Result<CopiedMessage, Malformed> {
    Ok(CopiedMessage {
        source_uid: take.u32()?,
        flags: FlagsOf::take(take)?,
        blob: take.u64()?,
        hash: take.fixed()?,
    })
}

/// 65 octets; answers the body, which the caller puts last.
fn put_blob(head: &mut Vec<u8>, blob: &BlobRef) -> Bytes {
    let (tag, token) = blob.body.tag();
    head.put_u64(blob.number);
    head.put_fixed(&blob.hash);
    head.put_u64(blob.octets);
    head.put_u8(tag);
    head.put_fixed(&token);
    match &blob.body {
        Body::Inline(bytes) => bytes.clone(),
        _ => Bytes::new(),
    }
}

/// 24 octets; 0 is no limit.
pub(in super::super) fn put_quota(head: &mut Vec<u8>, quota: &Quota) {
    head.put_u64(quota.octets.unwrap_or(0));
    head.put_u64(quota.messages.unwrap_or(0));
    head.put_u64(quota.as_of.0);
}

pub(in super::super) fn take_quota(take: &mut Take) -> Result<Quota, Malformed> {
    Ok(quota_of(take.u64()?, take.u64()?, take.u64()?))
}

fn put_copies(head: &mut Vec<u8>, copies: &[BlobRef]) {
    head.put_count(copies.len());
    for copy in copies {
        put_blob(head, copy);
    }
}

fn take_copies(take: &mut Take) -> Result<Vec<BlobRef>, Malformed> {
    take.list(65, |take| take_blob(take).map(|(blob, _)| blob))
}

/// The blob, and whether its octets are the rest of the record.
fn take_blob(take: &mut Take) -> Result<(BlobRef, bool), Malformed> {
    let (number, hash, octets) = (take.u64()?, take.fixed()?, take.u64()?);
    let (tag, token) = (take.u8()?, take.fixed()?);
    let body = match tag {
        Body::KNOWN => Body::Known,
        Body::INLINE => Body::Inline(Bytes::new()),
        Body::SPILLED => Body::Spilled(token),
        Body::COPIED => Body::Copied(Body::copied_from(&token)),
        _ => return Err(take.malformed()),
    };
    Ok((
        BlobRef {
            number,
            hash,
            octets,
            body,
        },
        tag == Body::INLINE,
    ))
}

fn take_last_blob(mut take: Take) -> Result<BlobRef, Malformed> {
    let bad = take.malformed();
    let (mut blob, inline) = take_blob(&mut take)?;
    if !inline {
        take.end()?;
        return Ok(blob);
    }
    if take.is_without_body() {
        take.end()?;
        blob.body = Body::Left;
        return Ok(blob);
    }
    let bytes = take.rest();
    if bytes.len() as u64 != blob.octets {
        return Err(bad);
    }
    blob.body = Body::Inline(bytes);
    Ok(blob)
}
