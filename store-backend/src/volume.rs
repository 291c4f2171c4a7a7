//! One volume: a journal, an index and a file tree that together keep mail.
//!
//! The journal is the only thing a delivery waits for; index and files are views of it, brought up to date by
//! two more threads ([`apply`], [`files`]). What a record says is decided before it is written ([`sequencer`]):
//!
//! ```text
//! callers ─▶ intake ─▶ commit thread ─────▶ apply thread ────▶ files thread
//!            (bounded)  sequencer, journal   index (LMDB)       blobs, links, checkpoint
//!                       answers deliveries   answers commands   lets journal segments go
//! ```
//!
//! The three follow each other in journal order, so that each may rely on the one before it.
//! This module never speaks a mail protocol and never reads configuration files.
//!
//! Where the contract's words differ: reads answer `Result<Option<…>, ReadError>` because a volume can fail;
//! rows are called [`MailboxInfo`] and [`MessageInfo`] and name their blob by identity of the message, not by hash
//! (the hash is asked for with the message); [`Volume::release`] and [`Volume::thaw`] are repeatable, as is every
//! step of a move.

mod acl;
mod annotations;
mod apply;
mod backup;
mod blob;
mod broken;
mod bundle;
mod check;
mod codec;
mod commit;
mod copy;
mod dump;
mod error;
mod file_system;
mod files;
mod fsck;
mod held;
mod holds;
mod index;
mod intake;
mod item;
mod keeper;
mod kept;
mod kept_log;
mod layout;
mod life;
mod load;
mod mailboxes;
mod marker;
mod mend;
mod messages;
mod opening;
mod patience;
mod pipe;
mod read;
mod rebuild;
mod recent;
mod record;
mod recovery;
mod replay;
mod rows;
mod scrub;
mod sequencer;
mod settled;
mod space;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod turns;
mod types;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use directory_api::{AccountId, BackendName, Epoch, Quota, VolumeName};
use durable::{Disk, Lsn};

pub use acl::{
    ACL_ENTRIES_MAX, ACL_NAME_MAX_BYTES, Acl, AclChange, AclEntry, Rights, Shared, Writer,
};
pub use backup::{AccountItems, ItemsEnd, Piece};
pub use blob::{BLOB_INLINE_MAX_BYTES, BlobWriter, FinishedBlob};
pub use error::{OpenError, ReadError, WriteError};
pub use fsck::{Event, Finding, FsckError, Options as FsckOptions, Part, Verdict, fsck};
pub use held::Held;
pub use holds::{HOLD_EPOCH, HeldMail, held_for, holder_of};
pub use index::ReadersStatus;
pub use item::{ItemContent, MailboxTold, MessageTold, SetHash};
pub use life::AdoptError;
pub(crate) use load::Charge;
pub use mailboxes::Named;
pub use opening::{Inbox, OpeningError};
pub(crate) use read::Sight;
pub use read::{Batch, BlobReader, Content, Listing, MailboxReader, MessageBytes, Want};
pub(crate) use space::SHORTAGES;
pub use space::SpaceStatus;
pub use tally::{Block, Tally};
pub(crate) use turns::Turns;
pub use types::{
    ANNOTATION_MAX_BYTES, ANNOTATION_NAME_MAX_BYTES, ANNOTATIONS_MAX, APPEND_MESSAGES_MAX,
    AccountInfo, AccountState, AnnotationChange, AppendBody, AppendMessage, Appended, Changes,
    Copied, Delivery, Detail, Expunged, FlagChange, FlagSet, Flags, FlagsNow, Hash, Item,
    KEYWORD_MAX_BYTES, KEYWORDS_MAX, KeptMessage, MAILBOX_DEPTH_MAX, MAILBOX_NAME_MAX_BYTES,
    MESSAGE_KEYWORDS_MAX, MailboxId, MailboxInfo, MessageInfo, MoveId, NamedMessage, OpenedMailbox,
    Outcome, PROLOGUE_MAX_BYTES, RECIPIENTS_MAX, Recipient, Refusal, Snapshot, SpecialUse, Stored,
    Summary, TransactionId, UIDS_MAX, UNDELETE_MAX, Undeleted, repeat_key,
};
pub use watch::{Changed, Watch};

use intake::{Command, Reply};
use recovery::Inner;

/// Where a volume lies and how it behaves.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// The volume's folder; made when absent.
    pub path: PathBuf,
    /// The back-end it belongs to: written into a new volume, compared in an old one.
    pub backend: BackendName,
    /// Its name on that back-end: written into a new volume, compared in an old one.
    pub name: VolumeName,
    /// Size of one journal segment: a multiple of 4 KiB, at least 2 MiB, because a record must fit into one.
    pub journal_segment_size_bytes: u64,
    /// The files thread makes a checkpoint after this much journal …
    pub checkpoint_bytes: u64,
    /// … or after this long, whichever is first.
    pub checkpoint_interval: Duration,
    /// When this much journal waits for a checkpoint, writers wait (back-pressure).
    pub unreleased_max_bytes: u64,
    /// Messages that may share one inode.
    pub links_max: u64,
    /// How long an expunged message can be brought back, and its body stays after its last reference went. Holds for what is
    /// expunged from now on: what was kept before stays for as long as it was given.
    pub expunge_grace: Duration,
    /// How much of an account's quota is used when the log has a line of it, in per cent.
    pub quota_warning_percent: u8,
    /// How long a delivery waits for the end of a move that is just under way.
    pub move_wait: Duration,
    /// Address space reserved for the index.
    pub index_map_size_bytes: usize,
    /// What takes room is refused while the file system has less than this …
    pub free_min_bytes: u64,
    /// … or less than this many per cent of itself, inodes too.
    pub free_min_percent: u8,
    /// How often it is looked how much there is, and how long what found no room waits before it is tried again.
    pub space_interval: Duration,
    /// How often a copy of the index is made, which together with the kept log outlives it. Zero: never.
    pub index_copy_interval: Duration,
    /// The index is made small when its file is larger than this and would be half as large afterwards. Zero: never.
    pub index_compact_above_bytes: u64,
    /// How long after that it may be made small again, and how often its rows are weighed.
    pub index_compact_interval: Duration,
    /// How many octets a second the scrub reads of blobs, small ones counted as 64 KiB. Zero: there is no scrub.
    pub scrub_bytes_per_s: u64,
    /// After which time what an account has cost counts half.
    pub load_half_life: Duration,
}

impl VolumeConfig {
    /// The usual settings for a volume at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, backend: BackendName, name: VolumeName) -> Self {
        Self {
            path: path.into(),
            backend,
            name,
            journal_segment_size_bytes: 64 << 20,
            // One segment's worth: a checkpoint then frees a segment each time.
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(10),
            // Replay reads about 100 MiB/s with files to make: a start takes seconds, not minutes.
            unreleased_max_bytes: 1 << 30,
            // ext4 stops at 65,000.
            links_max: 60_000,
            expunge_grace: Duration::ZERO,
            quota_warning_percent: 90,
            // A move freezes for a twentieth of that, and a front-end waits ten times as long for an answer.
            move_wait: Duration::from_secs(2),
            index_map_size_bytes: 256 << 30,
            // What the journal, the index and the files of what is accepted may still need, several times over.
            free_min_bytes: 1 << 30,
            free_min_percent: 1,
            space_interval: Duration::from_secs(1),
            // The log since the copy is read in some minutes then, whatever a day brings.
            index_copy_interval: Duration::from_secs(24 * 3600),
            index_compact_above_bytes: INDEX_COMPACT_ABOVE_BYTES,
            // Most of what is given back is used again: mail goes and mail comes.
            index_compact_interval: Duration::from_secs(24 * 3600),
            scrub_bytes_per_s: SCRUB_BYTES_PER_S,
            load_half_life: Duration::from_secs(LOAD_HALF_LIFE_H * 3600),
        }
    }
}

/// Of less than that nobody misses the half.
pub const INDEX_COMPACT_ABOVE_BYTES: u64 = 256 << 20;

/// A disk that turns gives a tenth of its time for it, and 4 TB of large messages take some twelve days.
pub const SCRUB_BYTES_PER_S: u64 = 4 << 20;

/// Each hour of a week is measured two or three times in it: less is mostly noise, and who has changed is found out late by more.
pub const LOAD_HALF_LIFE_H: u64 = 14 * 24;

/// How a volume is.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// Made at random when the volume was created, and again when it is found to be an old copy; 32 hexadecimal digits.
    pub incarnation: String,
    /// The last record in the journal.
    pub position: Lsn,
    /// The last record in the index.
    pub applied: Lsn,
    /// The last record before which every file is known to be on disk.
    pub checkpoint: Lsn,
    /// Journal octets that a restart would replay.
    pub unreleased_bytes: u64,
    /// Why the volume takes no writes, if it does not.
    pub read_only: Option<String>,
    /// The same in a fixed word.
    pub failed: Option<&'static str>,
    /// How much room there is.
    pub space: SpaceStatus,
    /// Accounts in the index.
    pub account_count: u64,
    /// Reads and writes that wait or are being done.
    pub outstanding: u64,
}

/// An open volume; clones share it. [`Volume::close`] it, or drop every clone and leave the rest to recovery.
#[derive(Clone)]
pub struct Volume {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("path", &self.inner.path())
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Whether a volume was begun in this folder, readable or not: [`Volume::open`] makes none there.
    ///
    /// Blocking.
    ///
    /// # Errors
    /// The folder cannot be looked at: that is no sign of an empty one.
    pub fn is_begun(path: &Path) -> std::io::Result<bool> {
        path.join(layout::FORMAT_FILE).try_exists()
    }

    /// Opens the volume, made when its folder is absent or empty, and brings the index up to the journal's end.
    ///
    /// Blocking, and may take long after a crash.
    ///
    /// # Errors
    /// [`OpenError`]; a folder that is not a volume of this version was left untouched.
    pub fn open(config: VolumeConfig, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        Ok(Self {
            inner: recovery::open(config, disk)?,
        })
    }

    /// How the volume is. Reads the index: a blocking call of some microseconds.
    #[must_use]
    pub fn status(&self) -> VolumeStatus {
        self.inner.status()
    }

    /// Refuses new work, finishes what was taken, makes a checkpoint and stops the threads. Blocking.
    ///
    /// Every later write is answered with `ReadOnly`. The lock on the folder goes with the last clone.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Begins a body. Dropped unused, nothing is left of it.
    #[must_use]
    pub fn begin_blob(&self) -> BlobWriter {
        BlobWriter::new(&self.inner)
    }

    /// Commits one transaction: one outcome for each recipient, in order.
    ///
    /// Durable when it answers `Committed` (P1). A message is listed a moment later, when the index has it. The holder of an account
    /// ([`holder_of`]) behind it gets only what the account could not be given, and is answered `Duplicate` else.
    pub async fn deliver(&self, delivery: Delivery) -> Vec<Outcome> {
        let count = delivery.recipients.len();
        let accounts = delivery.recipients.iter().map(|one| one.account);
        let holders = accounts.filter(|one| held_for(*one).is_some()).count();
        if holders.max(count - holders) > RECIPIENTS_MAX {
            return vec![Outcome::Full; count];
        }
        match self.inner.submit(Command::Deliver(delivery)).await {
            Reply::Delivered(outcomes) => outcomes,
            Reply::Refused(refusal) => vec![refusal.into(); count],
            _ => vec![Outcome::ReadOnly; count],
        }
    }

    /// Notes that the senders of these messages ([`repeat_key`]) have read their answers: the same again is a new message. Durable with what
    /// comes next; what is lost of it errs towards duplicates.
    pub async fn answered(&self, messages: Vec<(AccountId, TransactionId)>) {
        // A volume that writes nothing takes no message either.
        _ = self.inner.submit(Command::Answered { messages }).await;
    }

    /// Sees to it that the account has a row with this epoch: for a session whose grant names a new account.
    ///
    /// # Errors
    /// [`Refusal`]: the account is elsewhere, frozen, or at another epoch.
    pub async fn ensure_account(&self, account: AccountId, epoch: Epoch) -> Result<(), Refusal> {
        self.ensure(account, epoch, None).await
    }

    /// The same, with what the directory says that the account may keep: it holds from now on (RFC 9208).
    ///
    /// # Errors
    /// [`Refusal`]: the account is elsewhere, frozen, or at another epoch.
    pub async fn limit_account(
        &self,
        account: AccountId,
        epoch: Epoch,
        quota: Quota,
    ) -> Result<(), Refusal> {
        self.ensure(account, epoch, Some(quota)).await
    }

    async fn ensure(
        &self,
        account: AccountId,
        epoch: Epoch,
        quota: Option<Quota>,
    ) -> Result<(), Refusal> {
        let command = Command::EnsureAccount {
            account,
            epoch,
            quota,
        };
        self.inner.submit(command).await.done()
    }
}
