//! The words of a volume's contract: what is delivered, what is answered, what a reader sees.

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch, Quota};
use durable::Lsn;
use store_api::deliver::Repeats;

use super::blob::FinishedBlob;

/// One mailbox of an account. From 1; never reused within its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub u32);

impl MailboxId {
    /// INBOX: it exists from the account's first record on.
    pub const INBOX: Self = Self(1);
}

/// The 128 bits that name a transaction of an MX or LMTP client; the same transaction again is a duplicate (P2).
pub type TransactionId = [u8; 16];
/// The 128 bits that name one move of an account.
pub type MoveId = [u8; 16];
/// BLAKE3-256.
pub type Hash = [u8; 32];

/// The system flags of RFC 9051 §2.3.2 as bits. `\Recent` is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`
    pub const DELETED: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// System flags and keywords, as a client names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagSet {
    /// The system flags.
    pub system: Flags,
    /// Keywords (RFC 9051 §2.3.2), in any case; the first spelling used in a mailbox is kept.
    pub keywords: Vec<String>,
}

impl From<Flags> for FlagSet {
    fn from(system: Flags) -> Self {
        Self {
            system,
            keywords: Vec::new(),
        }
    }
}

/// What a STORE does to the flags (RFC 9051 §6.4.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagChange {
    /// `FLAGS`: these and no others.
    Replace(FlagSet),
    /// The same by somebody who may change only some: the others stay as they are.
    ReplaceWithin {
        /// What is to be set.
        set: FlagSet,
        /// The system flags that may change.
        system: Flags,
        /// Whether keywords may.
        keywords: bool,
    },
    /// `+FLAGS`
    Add(FlagSet),
    /// `-FLAGS`
    Remove(FlagSet),
}

impl FlagChange {
    /// What it names.
    #[must_use]
    pub fn named(&self) -> &FlagSet {
        match self {
            Self::Replace(set)
            | Self::ReplaceWithin { set, .. }
            | Self::Add(set)
            | Self::Remove(set) => set,
        }
    }
}

/// The special uses of a mailbox (RFC 6154 §2, RFC 8457) as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecialUse(pub u8);

impl SpecialUse {
    /// `\All`
    pub const ALL: Self = Self(1);
    /// `\Archive`
    pub const ARCHIVE: Self = Self(2);
    /// `\Drafts`
    pub const DRAFTS: Self = Self(4);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(8);
    /// `\Junk`
    pub const JUNK: Self = Self(16);
    /// `\Sent`
    pub const SENT: Self = Self(32);
    /// `\Trash`
    pub const TRASH: Self = Self(64);
    /// `\Important`
    pub const IMPORTANT: Self = Self(128);
}

/// One message of an APPEND.
#[derive(Debug)]
pub struct AppendMessage {
    /// Its octets.
    pub body: AppendBody,
    /// System flags and keywords.
    pub flags: FlagSet,
    /// In milliseconds since 1970.
    pub internal_date_ms: i64,
}

/// The octets of an [`AppendMessage`].
#[derive(Debug)]
pub enum AppendBody {
    /// As they came.
    Finished(FinishedBlob),
    /// Given to [`super::Volume::put_blob`] before, so that many messages of one command do not wait in memory.
    Put {
        /// Their hash.
        hash: Hash,
        /// How many.
        octets: u64,
        /// The message's own, where it is one that there was before: EMAILID stays the same.
        identity: Option<[u8; 16]>,
    },
}

impl AppendBody {
    /// Octets of the message.
    #[must_use]
    pub fn octets(&self) -> u64 {
        match self {
            Self::Finished(blob) => blob.size(),
            Self::Put { octets, .. } => *octets,
        }
    }
}

/// By what a message is known when its sender sends it again by another transaction: he may not have read the answer. Kept
/// among an account's transactions, with the same length.
#[must_use]
pub fn repeat_key(sender: &[u8], content_key: &Hash, detail: Option<&Detail>) -> TransactionId {
    let mut hasher = blake3::Hasher::new_derive_key("posthouse 2026 what a sender sends again");
    hasher.update(content_key);
    hasher.update(&(sender.len() as u64).to_le_bytes());
    hasher.update(sender);
    hasher.update(detail.map_or("", |detail| &detail.name).as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// One transaction's message for accounts of this volume.
#[derive(Debug)]
pub struct Delivery {
    /// Names the transaction; kept with each account, so that a retry is a [`Outcome::Duplicate`].
    pub txn: TransactionId,
    /// The reverse path, empty for `<>`.
    pub sender: Vec<u8>,
    /// BLAKE3 of the DATA octets as received.
    pub content_key: Hash,
    /// What becomes of the same message by another transaction.
    pub repeats: Repeats,
    /// The body; its hash was compared with the sender's by the caller (P9).
    pub blob: FinishedBlob,
    /// Trace id for the log.
    pub trace: String,
    /// When the message was accepted, in milliseconds since 1970: becomes the internal date.
    pub received_ms: i64,
    /// Who gets it. At most [`RECIPIENTS_MAX`].
    pub recipients: Vec<Recipient>,
}

/// One recipient of a [`Delivery`].
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The account.
    pub account: AccountId,
    /// The epoch the sender believes in (P4).
    pub epoch: Epoch,
    /// Where to put it.
    pub mailbox: MailboxId,
    /// The name of another mailbox that gets it, if at the commit there is one that may.
    pub detail: Option<Detail>,
    /// The trace lines that come before the body for this recipient, complete lines with CRLF.
    /// At most [`PROLOGUE_MAX_BYTES`].
    pub prologue: Vec<u8>,
}

/// The detail of a subaddress (RFC 5233), as the name of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// In lower case.
    pub name: String,
    /// Whether the mailbox is made if there is none of that name, in whatever case.
    pub makes: bool,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the synced journal (P1).
    Committed {
        /// Its UID.
        uid: u32,
        /// The record it stands in.
        lsn: Lsn,
    },
    /// This account has had this transaction before (P2).
    Duplicate,
    /// The sender's epoch is not the account's here (P4): ask the directory again.
    StaleEpoch {
        /// The epoch this volume knows.
        ours: Epoch,
    },
    /// The account is being moved: try again in a moment.
    Frozen,
    /// The account lives elsewhere now.
    Moved {
        /// Its home.
        backend: BackendName,
        /// The epoch there.
        epoch: Epoch,
    },
    /// This volume cannot hold an account with that number.
    NoAccount,
    /// The mailbox does not exist.
    NoMailbox,
    /// The volume takes no writes; [`super::VolumeStatus::read_only`] says why.
    ReadOnly,
    /// The mailbox or the message's trace lines are at their limit.
    Full,
    /// The disk is full or nearly so.
    NoRoom,
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's epoch is not the account's here (P4).
    #[error("the account's epoch here is {ours}")]
    StaleEpoch {
        /// The epoch this volume knows.
        ours: Epoch,
    },
    /// The account is frozen or being imported.
    #[error("the account is being moved")]
    Frozen,
    /// The account lives elsewhere now.
    #[error("the account moved to {backend} in epoch {epoch}")]
    Moved {
        /// Its home.
        backend: BackendName,
        /// The epoch there.
        epoch: Epoch,
    },
    /// The volume has no such account.
    #[error("no such account on this volume")]
    NoAccount,
    /// The account has no such mailbox.
    #[error("no such mailbox")]
    NoMailbox,
    /// The mailbox that messages were to be taken from is not there; whether their target is, was not looked at.
    #[error("no such mailbox to take messages from")]
    NoSource,
    /// The mailbox has no such message.
    #[error("no such message")]
    NoMessage,
    /// The name is taken.
    #[error("the mailbox exists")]
    MailboxExists,
    /// Not a name a mailbox or keyword can have: empty, too long or deep, or with characters that are not allowed.
    #[error("the name is not valid")]
    BadName,
    /// INBOX cannot be deleted, and no mailbox can be renamed to a place below itself.
    #[error("this cannot be done to this mailbox")]
    NotAllowed,
    /// The owner's lists do not let this user do it (RFC 4314).
    #[error("the user has not the right")]
    NotPermitted,
    /// The volume takes no writes.
    #[error("the volume takes no writes")]
    ReadOnly,
    /// The disk is full or nearly so: what takes room is refused until there is more.
    #[error("the disk is nearly full")]
    NoRoom,
    /// A count or size is at its limit.
    #[error("a limit is reached")]
    Full,
    /// The account would hold more than it may (RFC 9208).
    #[error("the account's quota is used up")]
    OverQuota,
    /// The account is not in the state this step of a move begins with.
    #[error("the account is not in the right state for this step of the move")]
    WrongState,
    /// The account is in another move.
    #[error("the account is in another move")]
    OtherMove,
    /// Accounts come whole from a backup only before the volume is adopted.
    #[error("the volume is not restored any more: it is adopted, or was never lost")]
    Adopted,
    /// Import items name blobs that are not here: send them first.
    #[error("{} blobs are missing", .0.len())]
    MissingBlobs(Vec<Hash>),
    /// An import item cannot be read, or contradicts what is here.
    #[error("an import item is not valid")]
    BadItem,
}

impl Refusal {
    /// The same of the mailbox that messages were to be taken from.
    pub(crate) fn of_source(self) -> Self {
        match self {
            Self::NoMailbox => Self::NoSource,
            other => other,
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { ours } => Self::StaleEpoch { ours },
            Refusal::Frozen
            | Refusal::WrongState
            | Refusal::OtherMove
            | Refusal::Adopted
            | Refusal::MissingBlobs(_)
            | Refusal::BadItem => Self::Frozen,
            Refusal::Moved { backend, epoch } => Self::Moved { backend, epoch },
            Refusal::NoAccount => Self::NoAccount,
            Refusal::NoMailbox
            | Refusal::NoSource
            | Refusal::NoMessage
            | Refusal::MailboxExists
            | Refusal::BadName
            | Refusal::NotAllowed
            | Refusal::NotPermitted => Self::NoMailbox,
            Refusal::ReadOnly => Self::ReadOnly,
            Refusal::NoRoom => Self::NoRoom,
            // Never said of a delivery: after RCPT quota refuses nothing (DESIGN §6).
            Refusal::Full | Refusal::OverQuota => Self::Full,
        }
    }
}

/// What an account is doing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// Takes mail and sessions.
    Active,
    /// A move is copying its last changes.
    Frozen {
        /// The move.
        move_id: MoveId,
    },
    /// It is arriving here.
    Importing {
        /// The move.
        move_id: MoveId,
    },
    /// It lives elsewhere; the data is kept for a grace period, read-only.
    Moved {
        /// Its home.
        backend: BackendName,
        /// The epoch there.
        epoch: Epoch,
    },
}

/// One account as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Its number.
    pub account: AccountId,
    /// The epoch writers must name.
    pub epoch: Epoch,
    /// What it is doing.
    pub state: AccountState,
    /// Messages in all mailboxes.
    pub message_count: u64,
    /// Octets of all messages, prologues included, shared bodies counted each time.
    pub size_octets: u64,
    /// The limits, as last heard of.
    pub quota: Quota,
}

/// One mailbox as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Its number in the account.
    pub mailbox: MailboxId,
    /// Its name, UTF-8, `/` between levels.
    pub name: String,
    /// MAILBOXID (RFC 8474): never given twice; survives renames and moves of the account.
    pub identity: [u8; 16],
    /// What it is for.
    pub special_use: SpecialUse,
    /// RFC 9051 §2.3.1.1.
    pub uidvalidity: u32,
    /// The UID the next message gets.
    pub uidnext: u32,
    /// RFC 7162.
    pub highestmodseq: u64,
    /// Messages in it.
    pub message_count: u64,
    /// Messages without `\Seen`.
    pub unseen_count: u64,
    /// Messages with `\Deleted`.
    pub deleted_count: u64,
    /// Octets of its messages, prologues included.
    pub size_octets: u64,
}

/// One message as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageInfo {
    /// Its UID.
    pub uid: u32,
    /// RFC 7162.
    pub modseq: u64,
    /// System flags.
    pub flags: Flags,
    /// Octets a client reads: prologue and blob.
    pub size_octets: u64,
    /// Octets of the prologue alone.
    pub prologue_octets: u32,
    /// The internal date in milliseconds since 1970.
    pub internal_date_ms: i64,
    /// When it came into this mailbox (RFC 8514), in milliseconds since 1970.
    pub save_date_ms: i64,
    /// THREADID (RFC 8474); 0 not known.
    pub thread: u64,
    /// Names the message for ever, through restarts and moves: EMAILID, and UIDL by [`Self::uidl`].
    pub identity: [u8; 16],
}

impl MessageInfo {
    /// The POP3 unique-id (RFC 1939 §7): 32 hexadecimal digits.
    #[must_use]
    pub fn uidl(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.identity)
    }
}

/// What a STORE did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// MODSEQ of every changed message; 0 when none was.
    pub modseq: u64,
    /// Messages whose flags are in effect different from before, by UID.
    pub changed: Vec<u32>,
    /// Messages that UNCHANGEDSINCE kept from it (RFC 7162 §3.1.3), by UID.
    pub failed: Vec<u32>,
    /// The others as they are now, by UID; those that do not exist are in neither.
    pub now: Vec<FlagsNow>,
    /// The mailbox's keywords, when the change names some or a message in `now` has some.
    pub keywords: Vec<String>,
}

/// The flags of a message that a STORE has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsNow {
    /// Which.
    pub uid: u32,
    /// Its system flags.
    pub flags: Flags,
    /// Numbers of its keywords, growing.
    pub keywords: Vec<u16>,
    /// When they were last changed.
    pub modseq: u64,
    /// The same, before this change.
    pub modseq_before: u64,
}

/// What an expunge removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expunged {
    /// The mailbox's HIGHESTMODSEQ by it; 0 when nothing was removed.
    pub modseq: u64,
    /// The messages, by UID.
    pub uids: Vec<u32>,
    /// Whether there are more of those asked for: ask again.
    pub has_more: bool,
}

/// An expunged message that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Where it was; with its UID there, which no other message ever has, it is named.
    pub mailbox: MailboxId,
    /// Its UID there.
    pub uid: u32,
    /// What that mailbox is called, or was when it went.
    pub name: String,
    /// What a client reads: prologue and blob.
    pub size_octets: u64,
    /// INTERNALDATE.
    pub internal_date_ms: i64,
    /// When it was expunged.
    pub expunged_ms: i64,
    /// Until when it is kept at least.
    pub until_ms: i64,
    /// Fields of its header, where they are at hand.
    pub fields: Option<Bytes>,
}

/// Where expunged messages came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undeleted {
    /// The mailbox; empty when nothing came back.
    pub name: String,
    /// UIDs that they had, with those that they have.
    pub uids: Vec<(u32, u32)>,
}

/// Where an APPEND put its messages (RFC 4315 APPENDUID).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Of the mailbox.
    pub uidvalidity: u32,
    /// MODSEQ of every message.
    pub modseq: u64,
    /// HIGHESTMODSEQ of the mailbox that the replaced message left, else 0.
    pub replaced_modseq: u64,
    /// One for each message, in order, without a gap.
    pub uids: Vec<u32>,
}

/// Where a COPY or MOVE put messages (RFC 4315 COPYUID).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Of the target.
    pub uidvalidity: u32,
    /// MODSEQ of every new message; 0 when there was none.
    pub modseq: u64,
    /// HIGHESTMODSEQ of the source by a MOVE, else 0.
    pub source_modseq: u64,
    /// UID in the source, UID in the target, both growing.
    pub uids: Vec<(u32, u32)>,
}

/// One message in a [`Snapshot`]: what SELECT and a FETCH of flags need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its UID.
    pub uid: u32,
    /// System flags.
    pub flags: Flags,
    /// RFC 7162.
    pub modseq: u64,
    /// Octets a client reads: prologue and blob.
    pub size_octets: u64,
    /// In milliseconds since 1970.
    pub internal_date_ms: i64,
    /// When it came into this mailbox (RFC 8514), in milliseconds since 1970.
    pub save_date_ms: i64,
    /// Which of [`Snapshot::keyword_sets`] it has.
    pub keyword_set: u32,
}

/// A mailbox and some or all of its messages at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The mailbox.
    pub mailbox: MailboxInfo,
    /// The mailbox's keywords; a keyword's number is its place. They only ever grow, so that numbers stay true.
    pub keywords: Vec<String>,
    /// Sets of numbers of keywords, growing; the first one is empty.
    pub keyword_sets: Vec<Vec<u16>>,
    /// The messages, by UID.
    pub messages: Vec<Summary>,
}

impl Snapshot {
    /// The keywords of a message of this snapshot.
    pub fn keywords_of(&self, message: &Summary) -> impl Iterator<Item = &str> {
        let set = self.keyword_sets.get(message.keyword_set as usize);
        set.into_iter()
            .flatten()
            .filter_map(|number| self.keywords.get(usize::from(*number)))
            .map(String::as_str)
    }
}

/// A mailbox at the moment of SELECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedMailbox {
    /// The mailbox.
    pub mailbox: MailboxInfo,
    /// Its keywords.
    pub keywords: Vec<String>,
    /// UIDs of its messages, as ranges with both ends, growing.
    pub uids: Vec<(u32, u32)>,
    /// The place of the first message without `\Seen`, from 1.
    pub first_unseen: Option<u32>,
}

/// What became of a mailbox since a MODSEQ (RFC 7162).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The mailbox now, with the messages that are new or have changed since.
    pub now: Snapshot,
    /// UIDs that are gone, as ranges with both ends, growing: those expunged since, or, when the history does not
    /// reach back that far, every UID below UIDNEXT without a message (RFC 7162 §3.2.5.1 allows both).
    pub vanished: Vec<(u32, u32)>,
}

/// What an annotation is to be: its entry, and its value or that it goes.
pub type AnnotationChange = (String, Option<Bytes>);

/// One canonical item of an account: what a transfer carries and what the set-hash sums.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item(pub Bytes);

/// A message and the blob it needs, as an [`Item`] names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedMessage {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// Its UID.
    pub uid: u32,
    /// Its blob.
    pub hash: Hash,
    /// Octets of the blob.
    pub octets: u64,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Item({} octets, kind {:?})",
            self.0.len(),
            self.0.first()
        )
    }
}

/// Recipients of one [`Delivery`]: what the MX accepts at most (DESIGN §10).
pub const RECIPIENTS_MAX: usize = 1000;
/// Octets of one prologue: a Received line and a dozen filter headers take 4 KiB; a header block may have 256 KiB.
pub const PROLOGUE_MAX_BYTES: usize = 64 << 10;
/// Keywords of one mailbox (DESIGN §13).
pub const KEYWORDS_MAX: usize = 512;
/// Keywords of one message (DESIGN §13).
pub const MESSAGE_KEYWORDS_MAX: usize = 128;
/// Octets of one keyword; those in use have a dozen. A mailbox's keywords stand in its row, all of them.
pub const KEYWORD_MAX_BYTES: usize = 128;
/// Messages of one APPEND: the literals a command may have (DESIGN §13).
pub const APPEND_MESSAGES_MAX: usize = 1000;
/// Octets of a mailbox's name (DESIGN §13).
pub const MAILBOX_NAME_MAX_BYTES: usize = 1024;
/// Messages that one command names: they stand in one record and are applied in one transaction.
pub const UIDS_MAX: usize = 100_000;
/// Messages brought back by one command: more would keep others waiting.
pub const UNDELETE_MAX: usize = 1000;
/// Levels of a mailbox's name (DESIGN §13).
pub const MAILBOX_DEPTH_MAX: usize = 64;
/// Octets of an annotation's value (RFC 5464): settings of clients take some KiB.
pub const ANNOTATION_MAX_BYTES: usize = 64 << 10;
/// Octets of an annotation's entry name: it stands in a key of the index, which has 511 at most.
pub const ANNOTATION_NAME_MAX_BYTES: usize = 255;
/// Annotations of one mailbox, and of the account itself.
pub const ANNOTATIONS_MAX: usize = 100;
