//! Decides everything: admission, duplicates, UIDs and MODSEQs, before the journal is written.
//!
//! It runs on the commit thread alone. Its memory is ahead of the index by what is in flight: an entry loaded from
//! the index stays true because nothing else changes accounts, and is only forgotten once the index has caught up
//! with it. Messages and octets are counted here too, so that quota is exact. Counts of flags and the history of expunged
//! UIDs are kept by the apply thread only; entries here do not follow them.

mod accounts;
mod acl;
mod annotations;
mod deliver;
mod detail;
mod import;
mod kept;
mod life;
mod mailbox;
mod messages;
mod moves;

pub(super) use mailbox::canonical;
pub(super) use messages::EXPUNGE_SLICE;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use directory_api::{AccountId, Epoch};
use durable::Lsn;

use super::blob::FinishedBlob;
use super::broken::Broken;
use super::error::IndexError;
use super::held::HeldBodies;
use super::index::{Index, Meta, RoTxn};
use super::intake::{Command, Reply};
use super::life::Life;
use super::record::{BlobRef, Body, DropBlobs, Record};
use super::rows::State;
use super::types::{Hash, MoveId, Refusal};
use accounts::{Account, Known};

/// What a batch is decided against, and what was decided.
pub(super) struct Batch<'t> {
    txn: &'t RoTxn<'t>,
    now_ms: i64,
    first_lsn: Lsn,
    /// What takes room is refused: the disk is nearly full.
    low: bool,
    pub(super) records: Vec<Record>,
}

impl<'t> Batch<'t> {
    pub(super) fn new(txn: &'t RoTxn<'t>, now_ms: i64, first_lsn: Lsn, low: bool) -> Self {
        Self {
            txn,
            now_ms,
            first_lsn,
            low,
            records: Vec::new(),
        }
    }

    /// Whether a command may take room. Deleting and what it needs always may: it is how room comes back.
    fn check_room(&self) -> Result<(), Refusal> {
        match self.low {
            true => Err(Refusal::NoRoom),
            false => Ok(()),
        }
    }

    /// The number of the next record pushed.
    fn lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.records.len() as u64)
    }
}

/// When a reply may be given.
pub(super) enum Decided {
    /// When the journal is synced.
    AfterSync(Reply),
    /// When the journal is synced; who reads the account from then on waits until the index has it.
    Settling(AccountId, Reply),
    /// When the index has it.
    AfterApply(Reply),
}

/// Why a decision stopped.
enum Stop {
    Refused(Refusal),
    Index(IndexError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<IndexError> for Stop {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

pub(super) struct Sequencer {
    index: Index,
    rules: Rules,
    accounts: HashMap<AccountId, Account>,
    blobs: HashMap<Hash, Blob>,
    /// Blobs in the order they were touched, for forgetting.
    blobs_touched: VecDeque<(Lsn, Hash)>,
    blob_next: u64,
    identities: Identities,
    applied: Lsn,
    checkpoint: Lsn,
    /// What was kept until then or less went, or goes by a record in flight.
    purged_until_ms: i64,
    /// The last purge, and whether it left some for the next one.
    purge: (Lsn, bool),
    held: Arc<HeldBodies>,
    broken: Arc<Broken>,
    /// Those that were broken when the batch began: what one decision finds whole is whole for those that follow from it.
    broken_now: Arc<BTreeMap<u64, Hash>>,
    life: Arc<Life>,
}

/// Settings that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) links_max: u64,
    pub(super) expunge_grace_ms: i64,
    /// A record above this is refused: it must fit into a segment.
    pub(super) record_max_bytes: usize,
    /// How much of a quota is used when the log is told.
    pub(super) quota_warning_percent: u8,
}

/// A blob in flight.
#[derive(Clone, Copy, Debug)]
struct Blob {
    number: u64,
    /// Links it has or will have; expunges in flight are not subtracted, which errs to the safe side.
    links: u64,
    /// A record in flight drops it: the next use is a new blob.
    dropped: bool,
    /// The record that makes it as a copy of another inode: its octets stand in no record.
    copied_by: Option<Lsn>,
    last: Lsn,
}

impl Sequencer {
    pub(super) fn new(
        index: Index,
        rules: Rules,
        held: Arc<HeldBodies>,
        broken: Arc<Broken>,
        life: Arc<Life>,
        seed: [u8; 32],
    ) -> Result<Self, IndexError> {
        let (blob_next, applied) = index.read(|txn| {
            Ok::<_, IndexError>((
                index.number(txn, Meta::BlobNext)?,
                index.lsn(txn, Meta::Applied)?,
            ))
        })?;
        Ok(Self {
            index,
            rules,
            accounts: HashMap::new(),
            blobs: HashMap::new(),
            blobs_touched: VecDeque::new(),
            // 0 marks "no blob" in rows to come.
            blob_next: blob_next.max(1),
            identities: Identities { seed, count: 0 },
            applied,
            checkpoint: Lsn(0),
            purged_until_ms: 0,
            purge: (Lsn(0), false),
            held,
            broken_now: broken.now(),
            broken,
            life,
        })
    }

    /// Forgets what the index knows by now. Call it before the transaction of the next batch is taken: what is
    /// forgotten must be in the snapshot.
    pub(super) fn begin(&mut self, applied: Lsn, checkpoint: Lsn) {
        (self.applied, self.checkpoint) = (applied, checkpoint);
        self.broken_now = self.broken.now();
        while self
            .blobs_touched
            .front()
            .is_some_and(|(lsn, _)| *lsn <= applied)
        {
            let (_, hash) = self.blobs_touched.pop_front().expect("it is not empty");
            if self
                .blobs
                .get(&hash)
                .is_some_and(|blob| blob.last <= applied)
            {
                self.blobs.remove(&hash);
            }
        }
        if self.accounts.len() > ACCOUNTS_MAX {
            self.accounts.retain(|_, account| account.last > applied);
        }
    }

    /// Forgets everything, when a batch was decided and then not written. The index must have all that was.
    pub(super) fn forget(&mut self) -> Result<(), IndexError> {
        let seed = self.identities.next();
        let mut fresh_seed = [0; 32];
        fresh_seed[..16].copy_from_slice(&seed);
        let (held, broken) = (Arc::clone(&self.held), Arc::clone(&self.broken));
        let (index, life) = (self.index.clone(), Arc::clone(&self.life));
        *self = Self::new(index, self.rules, held, broken, life, fresh_seed)?;
        Ok(())
    }

    /// Decides one command; its records are appended to the batch. `user`: who asks, if that is not the owner or the system.
    ///
    /// # Errors
    /// The index cannot be read: nothing more can be decided.
    pub(super) fn decide(
        &mut self,
        batch: &mut Batch<'_>,
        user: Option<AccountId>,
        command: Command,
    ) -> Result<Decided, IndexError> {
        let permitted = match user {
            None => Ok(()),
            Some(user) => self.check_rights(batch, user, &command),
        };
        let decided = permitted.and_then(|()| self.carry_out(batch, command));
        match decided {
            Ok(decided) => Ok(decided),
            Err(Stop::Refused(refusal)) => Ok(Decided::AfterSync(Reply::Refused(refusal))),
            Err(Stop::Index(error)) => Err(error),
        }
    }

    /// To whom a delivery is who is just being moved, and by which move: it is better answered a moment later, when the account is
    /// open again or its new home is known.
    pub(super) fn moving(
        &mut self,
        batch: &Batch<'_>,
        command: &Command,
    ) -> Result<Vec<(AccountId, MoveId)>, IndexError> {
        let mut moving = Vec::new();
        let Command::Deliver(delivery) = command else {
            return Ok(moving);
        };
        for recipient in &delivery.recipients {
            let row = match self.account(batch, recipient.account) {
                Ok(entry) => entry.row.as_ref(),
                Err(Stop::Refused(_)) => None,
                Err(Stop::Index(error)) => return Err(error),
            };
            if let Some(row) = row
                && matches!(row.state, State::Frozen | State::Importing)
            {
                moving.push((recipient.account, row.move_id));
            }
        }
        Ok(moving)
    }

    fn carry_out(&mut self, batch: &mut Batch<'_>, command: Command) -> Result<Decided, Stop> {
        match command {
            Command::Deliver(delivery) => self.deliver(batch, delivery).map(Decided::AfterSync),
            Command::Answered { messages } => {
                self.answered(batch, messages).map(Decided::AfterSync)
            }
            Command::EnsureAccount {
                account,
                epoch,
                quota,
            } => self.ensure_account(batch, account, epoch, quota),
            Command::Append {
                account,
                epoch,
                mailbox,
                messages,
                replaced,
            } => self.append(batch, account, epoch, mailbox, messages, replaced),
            Command::Copy {
                account,
                epoch,
                source,
                uids,
                target,
                leave,
            } => self.copy(batch, account, epoch, source, uids, target, leave),
            Command::Expunge {
                account,
                epoch,
                mailbox,
                which,
            } => self.expunge(batch, account, epoch, mailbox, which),
            Command::StoreFlags {
                account,
                epoch,
                mailbox,
                uids,
                change,
                unchanged_since,
            } => self.store_flags(
                batch,
                account,
                epoch,
                mailbox,
                uids,
                &change,
                unchanged_since,
            ),
            Command::CreateMailbox {
                account,
                epoch,
                name,
                special_use,
            } => self.create_mailbox(batch, account, epoch, &name, special_use),
            Command::DeleteMailbox {
                account,
                epoch,
                name,
                mailbox,
            } => self.delete_mailbox(batch, account, epoch, &name, mailbox),
            Command::RenameMailbox {
                account,
                epoch,
                from,
                mailbox,
                to,
                inbox_uids,
            } => self.rename_mailbox(batch, account, epoch, (&from, mailbox), &to, &inbox_uids),
            Command::Subscribe {
                account,
                epoch,
                name,
                subscribed,
            } => self.subscribe(batch, account, epoch, &name, subscribed),
            Command::SetSpecialUse {
                account,
                epoch,
                mailbox,
                special_use,
            } => self.set_special_use(batch, account, epoch, mailbox, special_use),
            Command::SetAcl {
                account,
                epoch,
                mailbox,
                owner_name,
                grantee,
                change,
            } => self.set_acl(
                batch, account, epoch, mailbox, owner_name, &grantee, &change,
            ),
            Command::Annotate {
                account,
                epoch,
                mailbox,
                changes,
            } => self.annotate(batch, account, epoch, mailbox, changes),
            Command::Undelete {
                account,
                epoch,
                mailbox,
                uids,
                to,
            } => self.undelete(batch, account, epoch, mailbox, uids, to.as_deref()),
            Command::Freeze {
                account,
                epoch,
                move_id,
            } => self.freeze(batch, account, epoch, move_id),
            Command::Thaw { account, move_id } => self.thaw(batch, account, move_id),
            Command::Release {
                account,
                move_id,
                backend,
                epoch,
            } => self.release(batch, account, move_id, backend, epoch),
            Command::BeginImport {
                account,
                move_id,
                source,
            } => self.begin_import(batch, account, move_id, source),
            Command::ImportItems {
                account,
                move_id,
                items,
            } => self.import_items(batch, account, move_id, &items),
            Command::ImportGone {
                account,
                move_id,
                items,
            } => self.import_gone(batch, account, move_id, &items),
            Command::PutBlob { blob } => self.put_blob(batch, blob),
            Command::BeginAdoption => self.begin_adoption(),
            Command::SkipAhead { account, uids } => self.skip_ahead(batch, account, uids),
            Command::RenewModseq {
                account,
                mailbox,
                uids,
            } => self.renew_modseq(batch, account, mailbox, &uids),
            Command::Activate {
                account,
                epoch,
                move_id,
            } => self.activate(batch, account, epoch, move_id),
            Command::DiscardImport {
                account,
                move_id,
                source,
            } => self.discard_import(batch, account, move_id, source),
        }
    }

    /// Lets blobs go that have had no link for long enough. Answers whether there may be more.
    ///
    /// The index says which; a blob that something in flight refers to, or a command under way will, stays. Expunged
    /// messages that could be brought back go before their blobs: no blob goes before any of its messages may.
    pub(super) fn drop_unlinked(&mut self, batch: &mut Batch<'_>) -> Result<bool, IndexError> {
        if self.purge(batch)? {
            return Ok(true);
        }
        let mut drop = Vec::new();
        for row in self.index.unlinked.iter(batch.txn)? {
            let (key, _) = row?;
            let bad = IndexError::Contradiction("a key of unlinked");
            let Some((until, number)) = key.split_first_chunk::<8>() else {
                return Err(bad);
            };
            let number = number.try_into().map(u64::from_be_bytes).map_err(|_| bad)?;
            if i64::try_from(u64::from_be_bytes(*until)).unwrap_or(i64::MAX) > batch.now_ms {
                break;
            }
            let blob = self
                .index
                .blob(batch.txn, number)?
                .ok_or(IndexError::Contradiction("an unlinked blob"))?;
            // In flight: linked again, being dropped already, or followed by a new inode because links in flight
            // have filled this one, which the snapshot does not show yet.
            if self.blobs.contains_key(&blob.hash) || self.held.has(&blob.hash) {
                continue;
            }
            drop.push((number, blob.hash));
            if drop.len() == DROP_MAX {
                break;
            }
        }
        if drop.is_empty() {
            return Ok(false);
        }
        self.purged_until_ms = self.purged_until_ms.max(batch.now_ms);
        let more = drop.len() == DROP_MAX;
        let last = batch.lsn();
        for (number, hash) in &drop {
            let blob = match self.current(batch, hash)? {
                // It takes new links still; touched, so that the older one is not dropped twice.
                Some(newer) if newer.number != *number => Blob { last, ..newer },
                _ => Blob {
                    number: *number,
                    links: 0,
                    dropped: true,
                    copied_by: None,
                    last,
                },
            };
            self.touch(*hash, blob);
        }
        batch.records.push(Record::Drop(DropBlobs { blobs: drop }));
        Ok(more)
    }

    /// The blob that takes new links for these octets, if there is one. A broken one takes none: the octets begin a new one.
    fn current(&self, batch: &Batch<'_>, hash: &Hash) -> Result<Option<Blob>, IndexError> {
        let is_whole = |number| !self.broken_now.contains_key(&number);
        if let Some(blob) = self.blobs.get(hash) {
            let takes = |blob: &Blob| !blob.dropped && is_whole(blob.number);
            return Ok(Some(*blob).filter(takes));
        }
        let found = self.index.blob_of(batch.txn, hash)?;
        let found = found.filter(|(number, _)| is_whole(*number));
        Ok(found.map(|(number, row)| Blob {
            number,
            links: row.link_count.get(),
            dropped: false,
            copied_by: (row.source == Body::COPIED).then_some(Lsn(row.lsn.get())),
            last: Lsn(0),
        }))
    }

    /// Whether octets that are at hand may be let go, because these links can be had of a blob that has them. A copy that is
    /// to be made has not: the inode that it will be made from may turn out to be rotten.
    fn has_body(&self, batch: &Batch<'_>, hash: &Hash) -> Result<bool, IndexError> {
        let known = self.current(batch, hash)?;
        Ok(known.is_some_and(|blob| {
            blob.links < self.rules.links_max
                && blob.copied_by.is_none_or(|lsn| lsn <= self.checkpoint)
        }))
    }

    fn touch(&mut self, hash: Hash, blob: Blob) {
        self.blobs_touched.push_back((blob.last, hash));
        self.blobs.insert(hash, blob);
    }

    /// A new inode for these octets; the next record brings it.
    fn new_blob(&mut self, batch: &Batch<'_>, hash: Hash, links: u64) -> Blob {
        let blob = Blob {
            number: self.blob_next,
            links,
            dropped: false,
            copied_by: None,
            last: batch.lsn(),
        };
        self.blob_next += 1;
        self.touch(hash, blob);
        blob
    }

    /// A new inode that is made from another one.
    fn copy_of(&mut self, batch: &Batch<'_>, hash: Hash, number: u64) -> (Blob, Bring) {
        let blob = self.new_blob(batch, hash, 1);
        let blob = Blob {
            copied_by: Some(blob.last),
            ..blob
        };
        self.touch(hash, blob);
        (blob, Bring::CopyOf(number))
    }

    /// One link more for a finished body, known or new; the second value says whether the record must bring it.
    fn link_finished(
        &mut self,
        batch: &Batch<'_>,
        finished: &FinishedBlob,
    ) -> Result<(Blob, Bring), IndexError> {
        let hash = finished.hash();
        if self.has_body(batch, &hash)?
            && let Some(linked) = self.link(batch, &hash)?
        {
            return Ok(linked);
        }
        Ok((self.new_blob(batch, hash, 1), Bring::Body))
    }

    /// One link more for a known blob: on its inode, or on a new one when that has all it may have.
    fn link(
        &mut self,
        batch: &Batch<'_>,
        hash: &Hash,
    ) -> Result<Option<(Blob, Bring)>, IndexError> {
        let Some(known) = self.current(batch, hash)? else {
            return Ok(None);
        };
        if known.links >= self.rules.links_max {
            return Ok(Some(self.copy_of(batch, *hash, known.number)));
        }
        let blob = Blob {
            links: known.links + 1,
            last: batch.lsn(),
            ..known
        };
        self.touch(*hash, blob);
        Ok(Some((blob, Bring::Nothing)))
    }

    /// One link more for a blob that a message has, on the inode that takes new ones.
    fn link_again(
        &mut self,
        batch: &Batch<'_>,
        hash: &Hash,
        number: u64,
    ) -> Result<(Blob, Bring), IndexError> {
        if let Some(linked) = self.link(batch, hash)? {
            return Ok(linked);
        }
        if !self.broken_now.contains_key(&number) {
            // The inode that took new links has gone, and this one was full before it.
            return Ok(self.copy_of(batch, *hash, number));
        }
        // Nothing can be copied. It shares what becomes of the blob: whoever brings the octets again heals both.
        let blob = Blob {
            number,
            // Whatever the index counts: it is asked again when it has this one too.
            links: self.rules.links_max,
            dropped: false,
            copied_by: None,
            last: batch.lsn(),
        };
        self.touch(*hash, blob);
        Ok((blob, Bring::Nothing))
    }
}

/// What a record must bring for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bring {
    Nothing,
    Body,
    CopyOf(u64),
}

fn blob_ref(number: u64, hash: Hash, octets: u64, body: Body) -> BlobRef {
    BlobRef {
        number,
        hash,
        octets,
        body,
    }
}

/// Message identities: unique for ever, without a counter that would have to be kept.
struct Identities {
    seed: [u8; 32],
    count: u64,
}

impl Identities {
    fn next(&mut self) -> [u8; 16] {
        self.count += 1;
        let mut identity = [0; 16];
        let hash = blake3::keyed_hash(&self.seed, &self.count.to_le_bytes());
        identity.copy_from_slice(&hash.as_bytes()[..16]);
        identity
    }
}

/// The epoch check of P4.
fn check_epoch(theirs: Epoch, ours: Epoch) -> Result<(), Refusal> {
    if theirs == ours {
        Ok(())
    } else {
        Err(Refusal::StaleEpoch { ours })
    }
}

/// An account entry takes some hundred octets.
const ACCOUNTS_MAX: usize = 50_000;
/// Blobs dropped by one record.
const DROP_MAX: usize = 1000;
