//! Journal records: what was decided, with its results, so that replay needs no decisions.
//!
//! The kind stands in the journal's record header, the payload begins with the kind's version (1). Fields are as
//! [`super::codec`] writes them, in the order of the structs below ([`layout`]). A body, if any, comes last, without a length.
//! A reader refuses a kind or version it does not know: the journal of a newer build is not replayed by an older one.

mod layout;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch, Quota};

use super::acl::Acl;
use super::codec::{Malformed, Put, Take};
use super::rows::State;
use super::types::{Flags, Hash, MailboxId, MoveId, SpecialUse, TransactionId};
pub(super) use layout::{Encoded, put_quota, take_quota};

/// One decided change of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Kind 1: one message for some accounts.
    Deliver(Deliver),
    /// Kind 2: messages removed from one mailbox.
    Expunge(Expunge),
    /// Kind 3: new flags of messages of one mailbox; of none where its MODSEQ grows by something else.
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
    /// Kind 17: expunged messages again, as new ones.
    /// The same of messages that are kept: none leaves its mailbox.
    Undelete(CopyMessages),
    /// Kind 18: expunged messages whose grace is over go for good.
    Purge(Purge),
    /// Kind 19: senders have read the answers to messages.
    Answered(Answered),
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
    /// By what the same message is known by another transaction; [`NO_KEY`]: by nothing.
    pub(super) key: TransactionId,
    pub(super) prologue: Bytes,
}

/// Of a message that is not looked for when it comes again.
pub(super) const NO_KEY: TransactionId = [0; 16];

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
    /// 1 too, in a record that is kept without it ([`super::kept_log`]).
    Left,
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
            Self::Inline(_) | Self::Left => (Self::INLINE, [0; 16]),
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

/// Above every MODSEQ that a mailbox can have (RFC 7162 §3.1.1: 63 bits): an expunge with it is no part of the history.
pub(super) const MODSEQ_OF_IMPORT: u64 = i64::MAX as u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expunge {
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    /// [`MODSEQ_OF_IMPORT`]: an import takes back what its source has no more.
    pub(super) modseq: u64,
    pub(super) grace: Grace,
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
    pub(super) grace: Grace,
}

/// When messages went, and how long they can be brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grace {
    pub(super) at_ms: i64,
    /// Their bodies stay for so long at least.
    pub(super) until_ms: i64,
}

impl Grace {
    /// No time at all: what goes is gone.
    pub(super) fn none(at_ms: i64) -> Self {
        Self {
            at_ms,
            until_ms: at_ms,
        }
    }

    pub(super) fn is_none(self) -> bool {
        self.until_ms <= self.at_ms
    }
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
    pub(super) grace: Grace,
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
pub(super) struct Answered {
    /// The account and the key of each message.
    pub(super) messages: Vec<(AccountId, TransactionId)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Purge {
    /// The last of those that go: until when it was kept, and its place. All that sort before it go too.
    pub(super) until_ms: i64,
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
    pub(super) uid: u32,
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
            Self::Undelete(_) => 17,
            Self::Purge(_) => 18,
            Self::Answered(_) => 19,
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

    /// Those of whom it changes something that they or others read.
    pub(super) fn accounts(&self) -> Vec<AccountId> {
        match self {
            Self::Deliver(record) => record.recipients.iter().map(|to| to.account).collect(),
            Self::Expunge(Expunge { account, .. })
            | Self::Flags(StoreFlags { account, .. })
            | Self::Mailbox(CreateMailboxes { account, .. })
            | Self::Account(SetAccount { account, .. })
            | Self::Import(Import { account, .. })
            | Self::Append(Append { account, .. })
            | Self::Copy(CopyMessages { account, .. })
            | Self::Undelete(CopyMessages { account, .. })
            | Self::Delete(DeleteMailbox { account, .. })
            | Self::Rename(RenameMailboxes { account, .. })
            | Self::Subscribe(Subscribe { account, .. })
            | Self::SpecialUse(SetSpecialUse { account, .. })
            | Self::Annotate(Annotate { account, .. })
            | Self::Acl(SetAcl { account, .. }) => vec![*account],
            // Nobody has these bodies, or not any more; nor is what was expunged read by its number, nor what a sender knows.
            Self::Blob(_) | Self::Drop(_) | Self::Purge(_) | Self::Answered(_) => Vec::new(),
        }
    }

    /// Who pays for a record of so many octets, and for how many each: what is synced for it besides is among them, and a message for
    /// several accounts is shared by them. What moves and the volume itself write is nobody's.
    pub(super) fn bill(&self, octets: u64, bill: &mut Vec<(AccountId, u64)>) {
        let more = match self {
            Self::Import(_)
            | Self::Account(_)
            | Self::Blob(_)
            | Self::Drop(_)
            | Self::Purge(_)
            | Self::Answered(_) => {
                return;
            }
            Self::Deliver(Deliver { blob, .. }) if matches!(blob.body, Body::Spilled(_)) => {
                blob.octets
            }
            // Their bodies came in records before it.
            Self::Append(Append { messages, .. }) => messages.iter().map(|one| one.octets).sum(),
            _ => 0,
        };
        let accounts = self.accounts();
        let each = octets.saturating_add(more) / accounts.len().max(1) as u64;
        bill.extend(accounts.into_iter().map(|account| (account, each)));
    }

    /// Of which account it may change what others see of it.
    pub(super) fn sharer(&self) -> Option<AccountId> {
        match self {
            Self::Acl(SetAcl { account, .. })
            | Self::Delete(DeleteMailbox { account, .. })
            | Self::Rename(RenameMailboxes { account, .. })
            | Self::Account(SetAccount { account, .. })
            | Self::Import(Import { account, .. }) => Some(*account),
            _ => None,
        }
    }

    /// Whether it can take the last link of a blob away.
    pub(super) fn may_unlink(&self) -> bool {
        matches!(self, Self::Expunge(_) | Self::Delete(_))
            || matches!(self, Self::Account(account) if account.wipe)
            || matches!(self, Self::Append(append) if append.replaced.is_some())
    }
}
