//! Journal records: what was decided, with its results, so that replay needs no decisions.
//!
//! The kind stands in the journal's record header, the payload begins with the kind's version (1). Fields are as
//! [`super::codec`] writes them, in the order of the structs below. A body, if any, comes last, without a length.
//! A reader refuses a kind or version it does not know: the journal of a newer build is not replayed by an older one.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch, Quota};

use super::acl::Acl;
use super::codec::{Malformed, Put, Take};
use super::rows::{State, quota_of};
use super::types::{Flags, Hash, MailboxId, MoveId, SpecialUse, TransactionId};

/// One decided change of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Kind 1: one message for some accounts.
    Deliver(Deliver),
    /// Kind 2: messages removed from one mailbox.
    Expunge(Expunge),
    /// Kind 3: new flags of messages of one mailbox.
    Flags(StoreFlags),
    /// Kind 4: new mailboxes.
    Mailbox(CreateMailboxes),
    /// Kind 5: an account's state; makes the account and its INBOX when there is none.
    Account(SetAccount),
    /// Kind 6: canonical items taken over from another back-end.
    Import(Import),
    /// Kind 7: a blob for items to come.
    Blob(PutBlob),
    /// Kind 8: blobs without links go for good.
    Drop(DropBlobs),
    /// Kind 9: messages that a client brought, without prologues; with REPLACE one leaves for it.
    Append(Append),
    /// Kind 10: messages of one mailbox again in another one; with MOVE they leave the first.
    Copy(CopyMessages),
    /// Kind 11: a mailbox with all it has.
    Delete(DeleteMailbox),
    /// Kind 12: new names of mailboxes.
    Rename(RenameMailboxes),
    /// Kind 13: a name subscribed, or not any more.
    Subscribe(Subscribe),
    /// Kind 14: what a mailbox is for.
    SpecialUse(SetSpecialUse),
    /// Kind 15: annotations of a mailbox or of the account.
    Annotate(Annotate),
    /// Kind 16: who besides the owner may use a mailbox.
    Acl(SetAcl),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deliver {
    pub(super) at_ms: i64,
    pub(super) txn: TransactionId,
    pub(super) content_key: Hash,
    pub(super) received_ms: i64,
    pub(super) sender: Bytes,
    pub(super) trace: Bytes,
    pub(super) recipients: Vec<DeliverTo>,
    pub(super) blob: BlobRef,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliverTo {
    pub(super) account: AccountId,
    /// The account's epoch from now on.
    pub(super) epoch: Epoch,
    /// UIDVALIDITY of the INBOX when this makes the account, else 0.
    pub(super) inbox_uidvalidity: u32,
    pub(super) mailbox: MailboxId,
    pub(super) uid: u32,
    pub(super) modseq: u64,
    pub(super) identity: [u8; 16],
    pub(super) prologue: Bytes,
}

/// The blob of a record and how its octets arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlobRef {
    pub(super) number: u64,
    pub(super) hash: Hash,
    pub(super) octets: u64,
    pub(super) body: Body,
}

/// Where a blob's octets are when the record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// 0: an earlier record brought it.
    Known,
    /// 1: at the end of this record.
    Inline(Bytes),
    /// 2: in `incoming/` under this name, synced.
    Spilled([u8; 16]),
    /// 3: a copy of the blob with this number, whose inode has all the links it may have.
    Copied(u64),
}

impl Body {
    pub(super) const KNOWN: u8 = 0;
    pub(super) const INLINE: u8 = 1;
    pub(super) const SPILLED: u8 = 2;
    pub(super) const COPIED: u8 = 3;

    /// The tag and the 16 octets that follow it.
    pub(super) fn tag(&self) -> (u8, [u8; 16]) {
        match self {
            Self::Known => (Self::KNOWN, [0; 16]),
            Self::Inline(_) => (Self::INLINE, [0; 16]),
            Self::Spilled(token) => (Self::SPILLED, *token),
            Self::Copied(from) => {
                let mut token = [0; 16];
                token[..8].copy_from_slice(&from.to_le_bytes());
                (Self::COPIED, token)
            }
        }
    }

    pub(super) fn copied_from(token: &[u8; 16]) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&token[..8]);
        u64::from_le_bytes(number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expunge {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    pub(super) modseq: u64,
    /// How long bodies stay that lose their last link.
    pub(super) keep_until_ms: i64,
    pub(super) uids: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreFlags {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    pub(super) modseq: u64,
    pub(super) new_keywords: Vec<String>,
    pub(super) changes: Vec<FlagsOf>,
}

/// The flags of one message from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlagsOf {
    pub(super) uid: u32,
    pub(super) flags: Flags,
    /// Numbers of keywords of its mailbox, growing.
    pub(super) keywords: Vec<u16>,
}

impl FlagsOf {
    fn put(&self, head: &mut Vec<u8>) {
        head.put_u32(self.uid);
        head.put_u32(self.flags.0);
        head.put_u16s(&self.keywords);
    }

    fn take(take: &mut Take) -> Result<Self, Malformed> {
        Ok(Self {
            uid: take.u32()?,
            flags: Flags(take.u32()?),
            keywords: take.u16s()?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateMailboxes {
    pub(super) account: AccountId,
    pub(super) created: Vec<NewMailbox>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewMailbox {
    pub(super) mailbox: MailboxId,
    pub(super) uidvalidity: u32,
    pub(super) special_use: SpecialUse,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Append {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    pub(super) modseq: u64,
    pub(super) saved_ms: i64,
    pub(super) new_keywords: Vec<String>,
    /// New inodes for blobs that have all the links they may have: always [`Body::Copied`].
    pub(super) copies: Vec<BlobRef>,
    pub(super) messages: Vec<Appended>,
    /// The message whose place they take (RFC 8508).
    pub(super) replaced: Option<Replaced>,
}

/// A message that goes with the record that brings another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) mailbox: MailboxId,
    pub(super) uid: u32,
    /// MODSEQ of its mailbox by it.
    pub(super) modseq: u64,
    /// How long its body stays if that was its last link.
    pub(super) keep_until_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    /// With the new UID.
    pub(super) flags: FlagsOf,
    pub(super) internal_date_ms: i64,
    pub(super) identity: [u8; 16],
    /// Brought by an earlier record.
    pub(super) blob: u64,
    pub(super) hash: Hash,
    pub(super) octets: u64,
}

impl Replaced {
    fn take(take: &mut Take) -> Result<Self, Malformed> {
        Ok(Self {
            mailbox: MailboxId(take.u32()?),
            uid: take.u32()?,
            modseq: take.u64()?,
            keep_until_ms: take.i64()?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyMessages {
    pub(super) account: AccountId,
    pub(super) source: MailboxId,
    pub(super) target: MailboxId,
    /// MODSEQ of the new messages.
    pub(super) modseq: u64,
    /// MODSEQ of the source when the messages leave it, else 0.
    pub(super) source_modseq: u64,
    pub(super) saved_ms: i64,
    /// Of the target.
    pub(super) new_keywords: Vec<String>,
    /// As in [`Append`].
    pub(super) copies: Vec<BlobRef>,
    pub(super) messages: Vec<CopiedMessage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopiedMessage {
    pub(super) source_uid: u32,
    /// With UID and keywords in the target.
    pub(super) flags: FlagsOf,
    pub(super) blob: u64,
    pub(super) hash: Hash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeleteMailbox {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    /// How long bodies stay that lose their last link.
    pub(super) keep_until_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenameMailboxes {
    pub(super) account: AccountId,
    pub(super) renamed: Vec<(MailboxId, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscribe {
    pub(super) account: AccountId,
    pub(super) subscribed: bool,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetSpecialUse {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    pub(super) special_use: SpecialUse,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Annotate {
    pub(super) account: AccountId,
    /// 0: of the account itself.
    pub(super) mailbox: MailboxId,
    /// Entries with their values from now on; without one it goes. No entry stands twice.
    pub(super) changes: Vec<(String, Option<Bytes>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetAcl {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    /// All of it.
    pub(super) acl: Acl,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetAccount {
    pub(super) account: AccountId,
    pub(super) state: State,
    pub(super) epoch: Epoch,
    pub(super) move_id: MoveId,
    pub(super) elsewhere: Option<BackendName>,
    pub(super) quota: Quota,
    /// UIDVALIDITY of the INBOX when this makes one, else 0.
    pub(super) inbox_uidvalidity: u32,
    /// Everything the account has goes first: mailboxes, messages, transactions.
    pub(super) wipe: bool,
    /// How long bodies stay that lose their last link by the wipe.
    pub(super) keep_until_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) account: AccountId,
    /// New inodes for blobs that have all the links they may have: always [`Body::Copied`].
    pub(super) copies: Vec<BlobRef>,
    /// The blob's number for each message item, in order.
    pub(super) numbers: Vec<u64>,
    pub(super) items: Vec<Bytes>,
}

impl Import {
    pub(super) fn of(account: AccountId) -> Self {
        Self {
            account,
            copies: Vec::new(),
            numbers: Vec::new(),
            items: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PutBlob {
    /// How long it stays without a link.
    pub(super) keep_until_ms: i64,
    pub(super) blob: BlobRef,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DropBlobs {
    pub(super) blobs: Vec<(u64, Hash)>,
}

/// A record's payload in two parts, so that a body is never copied into the head.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) kind: u8,
    pub(super) head: Vec<u8>,
    pub(super) body: Bytes,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

const VERSION: u8 = 1;

impl Record {
    /// The kind in the journal's record header. Never renumber.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Deliver(_) => 1,
            Self::Expunge(_) => 2,
            Self::Flags(_) => 3,
            Self::Mailbox(_) => 4,
            Self::Account(_) => 5,
            Self::Import(_) => 6,
            Self::Blob(_) => 7,
            Self::Drop(_) => 8,
            Self::Append(_) => 9,
            Self::Copy(_) => 10,
            Self::Delete(_) => 11,
            Self::Rename(_) => 12,
            Self::Subscribe(_) => 13,
            Self::SpecialUse(_) => 14,
            Self::Annotate(_) => 15,
            Self::Acl(_) => 16,
        }
    }

    /// The name in `incoming/` of the body it brings.
    pub(super) fn spilled(&self) -> Option<&[u8; 16]> {
        match self {
            Self::Deliver(Deliver { blob, .. }) | Self::Blob(PutBlob { blob, .. }) => {
                match &blob.body {
                    Body::Spilled(token) => Some(token),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether it can take the last link of a blob away.
    pub(super) fn may_unlink(&self) -> bool {
        matches!(self, Self::Expunge(_) | Self::Delete(_))
            || matches!(self, Self::Account(account) if account.wipe)
            || matches!(self, Self::Append(append) if append.replaced.is_some())
    }

    pub(super) fn encode(&self) -> Encoded {
        let mut head = vec![VERSION];
        let mut body = Bytes::new();
        match self {
            Self::Deliver(record) => {
                head.reserve(
                    256 + record
                        .recipients
                        .iter()
                        .map(|to| 64 + to.prologue.len())
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
                    head.put_string(&to.prologue);
                }
                body = put_blob(&mut head, &record.blob);
            }
            Self::Expunge(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_u64(record.modseq);
                head.put_i64(record.keep_until_ms);
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
                    head.put_i64(replaced.keep_until_ms);
                }
            }
            Self::Copy(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.source.0);
                head.put_u32(record.target.0);
                head.put_u64(record.modseq);
                head.put_u64(record.source_modseq);
                head.put_i64(record.saved_ms);
                head.put_strings(&record.new_keywords);
                put_copies(&mut head, &record.copies);
                head.put_count(record.messages.len());
                for message in &record.messages {
                    head.put_u32(message.source_uid);
                    message.flags.put(&mut head);
                    head.put_u64(message.blob);
                    head.put_fixed(&message.hash);
                }
            }
            Self::Delete(record) => {
                head.put_u64(record.account.0);
                head.put_u32(record.mailbox.0);
                head.put_i64(record.keep_until_ms);
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
        }
        Encoded {
            kind: self.kind(),
            head,
            body,
        }
    }

    pub(super) fn decode(kind: u8, payload: Bytes) -> Result<Self, Malformed> {
        let mut take = Take::new(payload, "journal record");
        if take.u8()? != VERSION {
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
                    keep_until_ms: take.i64()?,
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
                    replaced: match &take.list(24, Replaced::take)?[..] {
                        [] => None,
                        [one] => Some(one.clone()),
                        _ => return Err(bad),
                    },
                };
                take.end()?;
                Ok(Self::Append(record))
            }
            10 => {
                let record = CopyMessages {
                    account: AccountId(take.u64()?),
                    source: MailboxId(take.u32()?),
                    target: MailboxId(take.u32()?),
                    modseq: take.u64()?,
                    source_modseq: take.u64()?,
                    saved_ms: take.i64()?,
                    new_keywords: take.list(4, Take::text)?,
                    copies: take_copies(&mut take)?,
                    messages: take.list(56, |take| {
                        Ok(CopiedMessage {
                            source_uid: take.u32()?,
                            flags: FlagsOf::take(take)?,
                            blob: take.u64()?,
                            hash: take.fixed()?,
                        })
                    })?,
                };
                take.end()?;
                Ok(Self::Copy(record))
            }
            11 => {
                let record = DeleteMailbox {
                    account: AccountId(take.u64()?),
                    mailbox: MailboxId(take.u32()?),
                    keep_until_ms: take.i64()?,
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
            _ => Err(take.malformed()),
        }
    }
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
pub(super) fn put_quota(head: &mut Vec<u8>, quota: &Quota) {
    head.put_u64(quota.octets.unwrap_or(0));
    head.put_u64(quota.messages.unwrap_or(0));
    head.put_u64(quota.as_of.0);
}

pub(super) fn take_quota(take: &mut Take) -> Result<Quota, Malformed> {
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
    let bytes = take.rest();
    if bytes.len() as u64 != blob.octets {
        return Err(bad);
    }
    blob.body = Body::Inline(bytes);
    Ok(blob)
}
