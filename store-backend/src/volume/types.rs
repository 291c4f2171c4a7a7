//! The words of a volume's contract: what is delivered, what is answered, what a reader sees.

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch};
use durable::Lsn;

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

/// What a STORE does to the flags (RFC 9051 §6.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagChange {
    /// `FLAGS`: these and no others.
    Replace(Flags),
    /// `+FLAGS`
    Add(Flags),
    /// `-FLAGS`
    Remove(Flags),
}

impl FlagChange {
    /// The flags after the change.
    #[must_use]
    pub fn apply(self, before: Flags) -> Flags {
        match self {
            Self::Replace(flags) => flags,
            Self::Add(flags) => Flags(before.0 | flags.0),
            Self::Remove(flags) => Flags(before.0 & !flags.0),
        }
    }
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
    /// The trace lines that come before the body for this recipient, complete lines with CRLF.
    /// At most [`PROLOGUE_MAX_BYTES`].
    pub prologue: Vec<u8>,
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
    /// The name is taken.
    #[error("the mailbox exists")]
    MailboxExists,
    /// The volume takes no writes.
    #[error("the volume takes no writes")]
    ReadOnly,
    /// A count or size is at its limit.
    #[error("a limit is reached")]
    Full,
    /// The account is not in the state this step of a move begins with.
    #[error("the account is not in the right state for this step of the move")]
    WrongState,
    /// The account is in another move.
    #[error("the account is in another move")]
    OtherMove,
    /// Import items name blobs that are not here: send them first.
    #[error("{} blobs are missing", .0.len())]
    MissingBlobs(Vec<Hash>),
    /// An import item cannot be read, or contradicts what is here.
    #[error("an import item is not valid")]
    BadItem,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { ours } => Self::StaleEpoch { ours },
            Refusal::Frozen
            | Refusal::WrongState
            | Refusal::OtherMove
            | Refusal::MissingBlobs(_)
            | Refusal::BadItem => Self::Frozen,
            Refusal::Moved { backend, epoch } => Self::Moved { backend, epoch },
            Refusal::NoAccount => Self::NoAccount,
            Refusal::NoMailbox | Refusal::MailboxExists => Self::NoMailbox,
            Refusal::ReadOnly => Self::ReadOnly,
            Refusal::Full => Self::Full,
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
}

/// One mailbox as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Its number in the account.
    pub mailbox: MailboxId,
    /// Its name, UTF-8, `/` between levels.
    pub name: String,
    /// RFC 9051 §2.3.1.1.
    pub uidvalidity: u32,
    /// The UID the next message gets.
    pub uidnext: u32,
    /// RFC 7162.
    pub highestmodseq: u64,
    /// Messages in it.
    pub message_count: u64,
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

/// The flags of one message after a STORE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFlags {
    /// Its UID.
    pub uid: u32,
    /// The new flags.
    pub flags: Flags,
    /// The MODSEQ of the change.
    pub modseq: u64,
}

/// One canonical item of an account: what a transfer carries and what the set-hash sums.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item(pub Bytes);

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
