//! The life of a volume: what tells it from an old copy of itself that was put back.
//!
//! ```text
//! one life ──(the directory knows more)──▶ restored ──(an operator adopts)──▶ skip ahead ──▶ the next life
//! ```
//! An old copy does not know which UIDs and MODSEQs were given out after it was made. Once the directory has shown it to be
//! one, the file `RESTORED` stands in its folder, with the incarnation of the life that is to begin, under which it is
//! announced from then on: so a start in between changes nothing, and the volume that the copy was made of is never taken for it.
//! When the directory takes that incarnation, every mailbox goes on far above what it has given out ([`Volume::adopt`]), `FORMAT`
//! gets the incarnation, and the file goes.

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use directory_api::AccountId;
use durable::{Disk, OpenMode};
use tokio::task::JoinSet;

use super::Volume;
use super::error::{OpenError, ReadError};
use super::intake::Command;
use super::layout::Layout;
use super::marker::{random, replace, write_marker};
use super::read::blocking;
use super::rows::{mailbox_key, mailbox_of};
use super::types::{MailboxId, Refusal};

/// Which life it is.
#[derive(Debug)]
pub(super) struct Life(Mutex<Known>);

#[derive(Clone, Debug)]
struct Known {
    incarnation: String,
    restored: Option<Restored>,
    /// Its mailboxes skip ahead, or will when the adoption that failed is tried again.
    is_being_adopted: bool,
}

/// What `RESTORED` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Restored {
    /// Of the life to come.
    incarnation: String,
    /// Records that the directory knew of and the copy has not: each gave one UID of a mailbox, as a rule.
    lost_records: u64,
}

/// Why a volume was not adopted. Asked again, it goes on.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A mailbox could not be changed.
    #[error("volume refused")]
    Refused(#[from] Refusal),
    /// The index cannot be read.
    #[error("volume cannot be read")]
    Read(#[from] ReadError),
    /// The files that say it cannot be written.
    #[error("the volume's folder cannot be written")]
    Io(#[from] io::Error),
    /// The process is stopping.
    #[error("process is stopping")]
    Stopped,
}

impl Life {
    pub(super) fn load(
        disk: &dyn Disk,
        layout: &Layout,
        incarnation: String,
    ) -> Result<Self, OpenError> {
        let path = layout.file(RESTORED_FILE);
        let restored = read(disk, &path).map_err(OpenError::io("read", &path))?;
        Ok(Self(Mutex::new(Known {
            incarnation,
            restored,
            is_being_adopted: false,
        })))
    }

    /// The one to be announced.
    pub(super) fn incarnation(&self) -> String {
        let known = self.lock();
        let next = known
            .restored
            .as_ref()
            .map(|restored| &restored.incarnation);
        next.unwrap_or(&known.incarnation).clone()
    }

    /// Whether accounts may come whole from a backup. Only the sequencer asks, and only it says when that is over.
    pub(super) fn takes_accounts(&self) -> bool {
        let known = self.lock();
        known.restored.is_some() && !known.is_being_adopted
    }

    pub(super) fn begin_adoption(&self) {
        self.lock().is_being_adopted = true;
    }

    fn restored(&self) -> Option<Restored> {
        self.lock().restored.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume {
    /// Whether it is known to be an old copy that nobody has adopted: it must take no mail.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.inner.shared().life.restored().is_some()
    }

    /// The one it is announced by: made at random with the volume, and again when it is found to be an old copy.
    #[must_use]
    pub fn incarnation(&self) -> String {
        self.inner.shared().life.incarnation()
    }

    /// Writes down that it is an old copy, for good until it is adopted. Durable when it returns; repeatable.
    /// `lost_records`: how many more the directory knows of.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn mark_restored(&self, lost_records: u64) -> io::Result<()> {
        self.with_folder(move |shared| {
            let mut known = shared.life.lock();
            if known.restored.is_some() {
                return Ok(());
            }
            let fresh: [u8; 16] = random().map_err(io::Error::other)?;
            let restored = Restored {
                incarnation: data_encoding::HEXLOWER.encode(&fresh),
                lost_records,
            };
            write(&*shared.disk, &shared.layout, &restored)?;
            known.restored = Some(restored);
            known.is_being_adopted = false;
            Ok(())
        })
        .await
    }

    /// Begins the next life of an old copy, when an operator has said so: no UID and no MODSEQ is given again that the life
    /// it is a copy of may have given (P3), and clients are told of every message that they knew and this one does not.
    /// What was not lost keeps UIDVALIDITY and UID. Changes nothing unless [`Volume::is_restored`].
    ///
    /// # Errors
    /// [`AdoptError`]: the volume is still restored, and it may be asked again.
    pub async fn adopt(&self) -> Result<(), AdoptError> {
        let Some(restored) = self.inner.shared().life.restored() else {
            return Ok(());
        };
        let lost = u32::try_from(restored.lost_records).unwrap_or(u32::MAX);
        let uids = UIDS_AHEAD.saturating_add(lost).min(UIDS_AHEAD_MAX);
        let begin = self.inner.submit(Command::BeginAdoption);
        begin.await.done()?;
        let mut after = None;
        let mut running = JoinSet::new();
        loop {
            let accounts = self.accounts_after(after).await?;
            let Some(last) = accounts.last() else { break };
            after = Some(*last);
            for account in accounts {
                if running.len() >= ACCOUNTS_AT_ONCE
                    && let Some(done) = running.join_next().await
                {
                    done.map_err(|_| AdoptError::Stopped)??;
                }
                let volume = self.clone();
                running.spawn(async move { volume.skip_ahead(account, uids).await });
            }
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|_| AdoptError::Stopped)??;
        }
        self.with_folder(move |shared| {
            let mut known = shared.life.lock();
            let (disk, layout) = (&*shared.disk, &shared.layout);
            // Copy and kept log go on: there is no moment in which they would not make this volume's index anew.
            let known_by = (&*restored.incarnation, &*shared.kept_as);
            write_marker(disk, &shared.config, layout, known_by).map_err(io::Error::other)?;
            disk.remove_file(&layout.file(RESTORED_FILE))?;
            disk.sync_dir(&layout.root)?;
            known.incarnation = restored.incarnation;
            known.restored = None;
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn skip_ahead(&self, account: AccountId, uids: u32) -> Result<(), AdoptError> {
        let skip = Command::SkipAhead { account, uids };
        self.inner.submit(skip).await.done()?;
        for mailbox in self.mailboxes(account).await? {
            let mailbox = mailbox.mailbox;
            let all = self.uids_of(account, mailbox).await?;
            for slice in all.chunks(RENEW_SLICE) {
                let renew = Command::RenewModseq {
                    account,
                    mailbox,
                    uids: slice.to_vec(),
                };
                self.inner.submit(renew).await.done()?;
            }
        }
        Ok(())
    }

    async fn uids_of(&self, account: AccountId, mailbox: MailboxId) -> Result<Vec<u32>, ReadError> {
        self.query(account, move |shared, txn| {
            let mut uids = Vec::new();
            let prefix = mailbox_key(account, mailbox);
            shared
                .index
                .each_message::<ReadError>(txn, &prefix, |_, uid, _, _| {
                    uids.push(uid);
                    Ok(())
                })?;
            Ok(uids)
        })
        .await
    }

    /// Some hundred accounts that have a row here, by number; none after the last.
    async fn accounts_after(&self, after: Option<AccountId>) -> Result<Vec<AccountId>, ReadError> {
        let first = after.map_or(0, |after| after.0.saturating_add(1));
        blocking(self.inner.shared(), move |shared| {
            shared.index.read(|txn| {
                let mut found: Vec<AccountId> = Vec::new();
                let mut from = mailbox_key(AccountId(first), MailboxId(0));
                while found.len() < ACCOUNTS_PAGE {
                    let range = (Bound::Included(&from[..]), Bound::Unbounded);
                    let Some(row) = shared.index.mailboxes.range(txn, &range)?.next() else {
                        break;
                    };
                    let Some((account, _)) = mailbox_of(row?.0) else {
                        break;
                    };
                    found.push(account);
                    from = mailbox_key(AccountId(account.0 + 1), MailboxId(0));
                }
                Ok(found)
            })
        })
        .await
    }

    /// Files of the volume's folder are written on a thread that may block.
    async fn with_folder(
        &self,
        work: impl FnOnce(&super::recovery::Shared) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(self.inner.shared());
        let ran = self.inner.shared().turns.run(move || work(&shared)).await;
        ran.unwrap_or_else(|| Err(io::Error::other("the volume is being closed")))
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Restored>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let mut bytes = vec![0; FILE_MAX_BYTES];
    let count = disk.open(path, OpenMode::Read)?.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    let text = String::from_utf8_lossy(&bytes);
    let value = |key: &str| {
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        words.find(|(word, _)| *word == key).map(|(_, value)| value)
    };
    let restored = value("incarnation").zip(value("lost"));
    let restored = restored.and_then(|(incarnation, lost)| {
        Some(Restored {
            incarnation: incarnation.to_owned(),
            lost_records: lost.parse().ok()?,
        })
    });
    // It is written whole: this is not ours, and must not be taken for a volume that may be written.
    restored.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

fn write(disk: &dyn Disk, layout: &Layout, restored: &Restored) -> io::Result<()> {
    let text = format!(
        "{RESTORED} 1\nincarnation {}\nlost {}\n",
        restored.incarnation, restored.lost_records
    );
    replace(disk, layout, (RESTORED_NEW, RESTORED_FILE), &text)
}

const RESTORED_FILE: &str = "RESTORED";
const RESTORED_NEW: &str = "RESTORED.new";
const RESTORED: &str = "posthouse restored";
/// Three short lines.
const FILE_MAX_BYTES: usize = 4096;
/// More than a mailbox is given in the years an old copy may be old, and a four-thousandth of all UIDs there are. The records
/// that the directory knew of come on top.
const UIDS_AHEAD: u32 = 1 << 20;
/// A quarter of all UIDs there are.
const UIDS_AHEAD_MAX: u32 = 1 << 30;
/// Their records share a sync.
const ACCOUNTS_AT_ONCE: usize = 64;
const ACCOUNTS_PAGE: usize = 256;
/// Messages of one record: others get between.
const RENEW_SLICE: usize = 4000;
