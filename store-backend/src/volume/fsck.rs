//! `posthouse fsck`: looks at a stopped volume part by part, and mends it.
//!
//! Without [`Options::repair`] nothing is changed. With it the index is made right first: what can be counted anew is
//! counted, else it is made anew as at any start ([`super::rebuild`]). Then the volume is opened, which brings index and
//! files to the journal's end, and what is wrong with blobs and links is mended as the scrub does it. No octets are
//! deleted: what does not belong goes to `quarantine/`.

mod index;
mod refind;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use directory_api::{BackendName, VolumeName};
use durable::{Disk, Lsn, inspect_journal};

use super::broken::Broken;
use super::check::{BlobFault, Ground, LinkFault};
use super::commit::chain;
use super::copy;
use super::error::{IndexError, OpenError};
use super::index::{Index, Meta};
use super::keeper::make_copy;
use super::kept_log;
use super::layout::{FORMAT_FILE, INDEX_DIR, JOURNAL_DIR, KEPT_DIR, Layout};
use super::marker;
use super::mend::{self, Mend, Mended};
use super::recovery::Shared;
use super::rows::{BlobRow, mailbox_of, message_of};
use super::{OpenError as VolumeOpenError, Volume, VolumeConfig};

/// What to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Mend what is found.
    pub repair: bool,
    /// Read every blob and compare its hash.
    pub hashes: bool,
    /// Where the index is lost and nothing makes it anew: find the messages by their files, with new UIDVALIDITYs.
    pub new_uidvalidity: bool,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The journal.
    Journal,
    /// The index, and what outlives it.
    Index,
    /// The files of bodies.
    Blobs,
    /// The names of messages.
    Links,
}

impl Part {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Index => "index",
            Self::Blobs => "blobs",
            Self::Links => "links",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub part: Part,
    /// What, in words.
    pub what: String,
    /// Whether it is right now.
    pub mended: bool,
}

/// What is told while it works.
#[derive(Debug)]
pub enum Event<'e> {
    /// How far it is: for people.
    Progress(&'e str),
    /// What a part holds.
    Fact(Part, &'e str),
    /// Something is wrong.
    Found(&'e Finding),
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was wrong.
    pub found_count: u64,
    /// What of it is right now.
    pub mended_count: u64,
}

/// Why a volume could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// There is no volume.
    #[error(
        "look at {path}: it is no volume, there is no FORMAT file in it; give the folder that `data` names in the settings of the back-end"
    )]
    NoVolume {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] VolumeOpenError),
}

impl From<IndexError> for FsckError {
    fn from(error: IndexError) -> Self {
        Self::Open(error.into())
    }
}

impl From<lmdb::heed::Error> for FsckError {
    fn from(error: lmdb::heed::Error) -> Self {
        Self::Open(error.into())
    }
}

/// Looks at the volume in a folder. Blocking, and long.
///
/// # Errors
/// [`FsckError`]: it could not be done, or not to the end.
pub fn fsck(
    path: &Path,
    disk: Arc<dyn Disk>,
    options: Options,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Verdict, FsckError> {
    let layout = Layout { root: path.into() };
    let marker = layout.file(FORMAT_FILE);
    if !disk
        .exists(&marker)
        .map_err(OpenError::io("look for", &marker))?
    {
        return Err(FsckError::NoVolume { path: path.into() });
    }
    let lock = marker::lock(&layout)?;
    let (config, kept_as) = config_of(&*disk, &layout)?;
    let mut run = Run {
        options,
        disk,
        config,
        kept_as,
        layout,
        tell,
        verdict: Verdict::default(),
        changed_index: false,
    };
    let journal = run.journal()?;
    run.kept(journal)?;
    let usable = run.index(journal)?;
    if !options.repair {
        if usable {
            run.files_as_they_are(journal)?;
        }
        return Ok(run.verdict);
    }
    drop(lock);
    run.open_and_mend()?;
    Ok(run.verdict)
}

struct Run<'r> {
    options: Options,
    disk: Arc<dyn Disk>,
    config: VolumeConfig,
    /// What copy and kept log are known by.
    kept_as: String,
    layout: Layout,
    tell: &'r mut dyn FnMut(Event<'_>),
    verdict: Verdict,
    /// Rows were counted anew: the index is not what its copy and the kept log make any more.
    changed_index: bool,
}

/// The oldest record in the journal and one past the last.
type Range = Option<(Lsn, Lsn)>;

impl Run<'_> {
    fn found(&mut self, part: Part, what: String, mended: bool) {
        self.verdict.found_count += 1;
        self.verdict.mended_count += u64::from(mended);
        let finding = Finding { part, what, mended };
        (self.tell)(Event::Found(&finding));
    }

    fn fact(&mut self, part: Part, what: &str) {
        (self.tell)(Event::Fact(part, what));
    }

    fn progress(&mut self, what: &str) {
        (self.tell)(Event::Progress(what));
    }

    fn journal(&mut self) -> Result<Range, FsckError> {
        let dir = self.layout.file(JOURNAL_DIR);
        self.progress("reading the journal");
        let seen = match inspect_journal(&*self.disk, &dir) {
            Ok(seen) => seen,
            Err(error) => {
                self.found(Part::Journal, chain(&error), false);
                return Ok(None);
            }
        };
        for segment in &seen.segments {
            let name = segment
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let text = match segment.first_lsn {
                Some(first) => {
                    let last = first.0 + segment.record_count - 1;
                    format!("{name}: records {first} to {last}")
                }
                None => format!("{name}: no records"),
            };
            self.fact(Part::Journal, &text);
        }
        if let Some(cut) = seen.cut {
            let (path, offset) = (cut.path.display(), cut.offset);
            let text = format!(
                "{path}: a batch that was never acknowledged ends at byte {offset}; the next start cuts it"
            );
            self.fact(Part::Journal, &text);
        }
        match seen.range {
            Ok(_) if seen.segments.is_empty() => {
                let what =
                    "no segment is left: records may be lost; restore the journal from its copy";
                self.found(Part::Journal, what.into(), false);
                Ok(None)
            }
            Ok(range) => Ok(Some(range)),
            Err(error) => {
                self.found(Part::Journal, chain(&error), false);
                Ok(None)
            }
        }
    }

    /// Whether copy and kept log would make the index anew.
    fn kept(&mut self, journal: Range) -> Result<(), FsckError> {
        self.progress("reading the copy of the index and the kept log");
        let folder = self.layout.file(KEPT_DIR);
        let path = copy::path(&folder);
        let (disk, incarnation) = (Arc::clone(&self.disk), self.kept_as.clone());
        let mut rows = 0_u64;
        let read = copy::read::<copy::CopyError>(&*disk, &path, &incarnation, |_, _, _| {
            rows += 1;
            Ok(())
        });
        let from = match read {
            Ok(head) => {
                let text = format!("copy up to record {}: {rows} rows, whole", head.applied);
                self.fact(Part::Index, &text);
                head.applied
            }
            Err(copy::CopyError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                self.fact(Part::Index, "no copy of the index yet");
                Lsn(0)
            }
            Err(error) => {
                let mended = self.options.repair && self.put_away(&path);
                self.changed_index |= mended;
                let what = format!(
                    "copy of the index: {}; the next start makes a new one",
                    chain(&error)
                );
                self.found(Part::Index, what, mended);
                Lsn(0)
            }
        };
        let reached = kept_log::reaches(&*disk, &folder, &incarnation, from);
        let reached = reached.map_err(OpenError::io("read", &folder))?;
        let text = format!("kept log up to record {reached}");
        self.fact(Part::Index, &text);
        if let Some((first, _)) = journal
            && reached.next() < first
        {
            let what = format!(
                "copy and kept log end at record {reached}, the journal begins at {first}: a lost index could not be made anew; the next start makes a new copy"
            );
            // At the end of this.
            self.changed_index = true;
            self.found(Part::Index, what, self.options.repair);
        }
        Ok(())
    }

    /// Out of the way, and kept.
    fn put_away(&mut self, path: &Path) -> bool {
        tree::put_away(&*self.disk, &self.layout, path).is_ok()
    }

    /// Of a name that belongs to nothing: out of the way. A file with other names loses this one and no octet.
    fn take_away(&mut self, path: &Path) -> bool {
        let (disk, layout) = (&*self.disk, &self.layout);
        let names = disk.metadata(path).map_or(1, |facts| facts.links);
        match names {
            0 | 1 => tree::put_away(disk, layout, path).is_ok(),
            _ => disk.remove_file(path).is_ok(),
        }
    }

    /// Looks at the index, and makes it right. Answers whether it can be used as it is.
    fn index(&mut self, journal: Range) -> Result<bool, FsckError> {
        let path = self.layout.file(INDEX_DIR);
        // LMDB would make one.
        if !path.join("data.mdb").exists() {
            self.lost(vec!["the index is gone".into()], journal)?;
            return Ok(false);
        }
        let index = match Index::open(&path, self.config.index_map_size_bytes) {
            Ok(index) => index,
            Err(OpenError::Index(error)) if error.is_damage() => {
                self.lost(vec![chain(&error)], journal)?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.progress("comparing the rows of the index");
        let mut lost = Vec::new();
        match index::check(&index, &mut |text| (self.tell)(Event::Progress(text))) {
            Err(error) => lost.push(format!("the index cannot be read: {}", chain(&error))),
            Ok(seen) => {
                let text = format!(
                    "up to record {}: {} accounts, {} mailboxes, {} messages, {} blobs",
                    seen.applied,
                    seen.account_count,
                    seen.mailbox_count,
                    seen.message_count,
                    seen.blob_count
                );
                self.fact(Part::Index, &text);
                lost.extend(seen.contradictions);
                let done = seen.applied.min(seen.checkpoint);
                if journal.is_some_and(|(first, _)| done.next() < first) {
                    lost.push(format!(
                        "the index ends at record {done}, before the journal begins"
                    ));
                }
                let fixed = lost.is_empty() && self.options.repair && !seen.fixes.is_empty();
                if fixed {
                    index::fix(&index, &seen.fixes)?;
                    index.sync().map_err(IndexError::from)?;
                    self.changed_index = true;
                }
                for fix in &seen.fixes {
                    self.found(Part::Index, fix.to_string(), fixed);
                }
            }
        }
        index.close();
        let usable = lost.is_empty();
        if !usable {
            self.lost(lost, journal)?;
        }
        Ok(usable)
    }

    /// What only an index made anew can mend.
    fn lost(&mut self, all: Vec<String>, journal: Range) -> Result<(), FsckError> {
        let (repair, by_files) = (self.options.repair, self.options.new_uidvalidity);
        let mut mended = match journal {
            Some((first, _)) if repair => self.make_anew(first)?,
            _ => false,
        };
        if !mended && repair && by_files && journal.is_some() {
            // Out of the way: what is opened then has none, and the messages are found by their files.
            if self.layout.file(INDEX_DIR).exists() {
                super::rebuild::set_aside(&self.layout)?;
            }
            mended = true;
        }
        for what in all {
            let text = match (journal, self.options.repair) {
                _ if mended => what,
                (None, _) => format!("{what}; restore the journal first"),
                (_, false) => format!(
                    "{what}; --repair makes it anew from its copy, the kept log and the journal"
                ),
                (_, true) => format!("{what}; copy, kept log and journal do not reach one another"),
            };
            self.found(Part::Index, text, mended);
        }
        Ok(())
    }

    /// Makes the index anew, if that can be done; the old one is put aside only then.
    fn make_anew(&mut self, journal_first: Lsn) -> Result<bool, FsckError> {
        self.progress("making the index anew");
        let (config, layout) = (&self.config, &self.layout);
        let incarnation = &self.kept_as;
        let built = super::rebuild::build(config, layout, &*self.disk, incarnation, journal_first)?;
        if built.is_some() {
            let is_gone = !layout.file(INDEX_DIR).exists();
            super::rebuild::put_in_place(layout, is_gone)?;
        }
        Ok(built.is_some())
    }

    /// Blobs and links of a volume that nobody has open, as far as they can be told without opening it.
    fn files_as_they_are(&mut self, journal: Range) -> Result<(), FsckError> {
        let index = Index::open(
            &self.layout.file(INDEX_DIR),
            self.config.index_map_size_bytes,
        )?;
        let disk = Arc::clone(&self.disk);
        let broken = Broken::load(&*disk, &self.layout, &index)?;
        let layout = self.layout.clone();
        let ground = Ground {
            layout: &layout,
            disk: &*disk,
            index: &index,
        };
        let checkpoint = index.read(|txn| index.lsn(txn, Meta::Checkpoint))?;
        let waiting = journal.map_or(0, |(_, next)| next.0.saturating_sub(checkpoint.next().0));
        if waiting > 0 {
            let text = format!(
                "{waiting} records wait for their files: names and their number are not looked at; start and stop the back-end, or use --repair"
            );
            self.fact(Part::Links, &text);
        }
        let look = match waiting {
            0 => Look::Octets,
            _ => Look::OctetsUpTo(checkpoint),
        };
        self.blobs(&ground, &broken, look, None)?;
        if waiting == 0 {
            self.blobs(&ground, &broken, Look::Links, None)?;
            self.links(&ground, &broken, None)?;
            self.strays(&ground)?;
        }
        index.close();
        Ok(())
    }

    /// Opens the volume, which brings everything to the journal's end, and mends what is wrong then.
    fn open_and_mend(&mut self) -> Result<(), FsckError> {
        self.progress("opening the volume");
        let opened = Volume::open(self.config.clone(), Arc::clone(&self.disk));
        let volume = match opened {
            Ok(volume) => volume,
            Err(error @ OpenError::IndexLost { .. }) if self.options.new_uidvalidity => {
                self.found(
                    Part::Index,
                    format!("{}; finding the messages by their files", chain(&error)),
                    true,
                );
                let found = refind::refind(self)?;
                self.fact(Part::Index, &found);
                self.changed_index = true;
                Volume::open(self.config.clone(), Arc::clone(&self.disk))?
            }
            Err(error @ OpenError::IndexLost { .. }) => {
                let what = format!(
                    "{}. If there is none: --repair --new-uidvalidity finds the messages by their files; flags and names of folders are lost then, and mail programs fetch everything anew",
                    chain(&error)
                );
                self.found(Part::Index, what, false);
                return Ok(());
            }
            // It was told.
            Err(OpenError::Journal(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let shared = Arc::clone(volume.inner.shared());
        let done = self.mend(&shared);
        volume.close();
        if let Some(why) = volume.status().read_only {
            self.found(
                Part::Blobs,
                format!("the volume takes no writes: {why}"),
                false,
            );
        }
        done
    }

    fn mend(&mut self, shared: &Arc<Shared>) -> Result<(), FsckError> {
        while shared.read_only().is_none()
            && shared
                .materialised
                .load(std::sync::atomic::Ordering::Acquire)
                < shared.position.load(std::sync::atomic::Ordering::Acquire)
        {
            self.progress("waiting for the files");
            std::thread::sleep(Duration::from_millis(50));
        }
        let layout = shared.layout.clone();
        let ground = Ground {
            layout: &layout,
            disk: &*shared.disk,
            index: &shared.index,
        };
        // Octets first: what is rotten gets no links. Then the links, and then how many there are.
        self.blobs(&ground, &shared.broken, Look::Octets, Some(shared))?;
        self.links(&ground, &shared.broken, Some(shared))?;
        self.strays(&ground)?;
        self.blobs(&ground, &shared.broken, Look::Links, Some(shared))?;
        if self.changed_index {
            self.progress("copying the index");
            if let Err(error) = make_copy(shared) {
                self.found(
                    Part::Index,
                    format!("the index cannot be copied: {}", chain(&error)),
                    false,
                );
            }
        }
        Ok(())
    }

    /// Looks at every blob.
    fn blobs(
        &mut self,
        ground: &Ground<'_>,
        broken: &Broken,
        look: Look,
        mender: Option<&Shared>,
    ) -> Result<(), FsckError> {
        let (mut count, mut octets, mut known, mut healed) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut after = 0_u64;
        let reads = self.options.hashes && look != Look::Links;
        loop {
            let rows = index::blobs_after(ground.index, after, PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            for (number, row) in rows {
                if broken.has(number) {
                    known += 1;
                    continue;
                }
                if matches!(look, Look::OctetsUpTo(last) if row.lsn.get() > last.0) {
                    continue;
                }
                let fault = ground.blob(number, &row, reads);
                let fault = fault.map_err(OpenError::io("look into", &ground.layout.root))?;
                count += 1;
                octets += row.octets.get();
                if count.is_multiple_of(PROGRESS_ROWS) {
                    self.progress(&format!("blobs: {count} looked at"));
                }
                match fault {
                    Some(fault)
                        if matches!(fault, BlobFault::Links { .. }) == (look == Look::Links) =>
                    {
                        self.blob(ground, number, &row, fault, mender);
                    }
                    None if look != Look::Links => {
                        if let Some(shared) = mender {
                            healed += mend::heal_all(shared, number, &row.hash);
                        }
                    }
                    _ => {}
                }
            }
        }
        if look == Look::Links {
            return Ok(());
        }
        let read = match reads {
            true => "read and their hashes compared",
            false => "there; --hashes reads them too",
        };
        let text = format!("{count} blobs of {octets} octets {read}");
        self.fact(Part::Blobs, &text);
        if healed > 0 {
            let what = format!("{healed} blobs in quarantine are made anew from other copies");
            self.found(Part::Blobs, what, true);
            // One that came behind its copy was not counted.
            known = broken.count() as u64;
        }
        if known > 0 {
            let what = format!(
                "{known} blobs are in quarantine and not served; put good files in their places, or wait until the same mail comes again"
            );
            self.found(Part::Blobs, what, false);
        }
        Ok(())
    }

    fn blob(
        &mut self,
        ground: &Ground<'_>,
        number: u64,
        row: &BlobRow,
        fault: BlobFault,
        mender: Option<&Shared>,
    ) {
        let path = ground.layout.blob(number, &row.hash);
        let (path, hash, messages) = (path.display(), row.hash, row.link_count.get());
        let what = match fault {
            BlobFault::Missing => format!("{path} is missing; {messages} messages have no octets"),
            BlobFault::Wrong => {
                format!("{path} has other octets than its hash says; {messages} messages")
            }
            BlobFault::Links { found, wanted } => {
                return self.found(
                    Part::Links,
                    format!("{path} has {found} names, {wanted} are right"),
                    false,
                );
            }
        };
        let mended = mender.map(|shared| mend::mend(shared, Mend::Quarantine { number, hash }));
        let what = match mended {
            Some(Mended::Aside) => format!("{what}; put aside and not served"),
            Some(Mended::Whole) => format!("{what}; made anew from another copy"),
            _ => what,
        };
        self.found(Part::Blobs, what, mended == Some(Mended::Whole));
    }

    /// Looks at the name of every message.
    fn links(
        &mut self,
        ground: &Ground<'_>,
        broken: &Broken,
        mender: Option<&Shared>,
    ) -> Result<(), FsckError> {
        let mut count = 0_u64;
        let mut after = vec![0; 16];
        loop {
            let index = ground.index;
            let rows = index::messages_after(index, &after, PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (key, number) in rows {
                let (Some((account, _)), Some((mailbox, uid))) =
                    (mailbox_of(&key), message_of(&key))
                else {
                    continue;
                };
                let row = index.read(|txn| index.blob(txn, number))?;
                let Some(row) = row.filter(|_| !broken.has(number)) else {
                    continue;
                };
                let fault = ground.link(account, mailbox, uid, number, &row);
                let fault = fault.map_err(OpenError::io("look into", &ground.layout.root))?;
                count += 1;
                if count.is_multiple_of(PROGRESS_ROWS) {
                    self.progress(&format!("names: {count} looked at"));
                }
                let Some(fault) = fault else { continue };
                let path = ground.layout.message(account, mailbox, uid);
                let what = match fault {
                    LinkFault::Missing => format!("{} is missing", path.display()),
                    LinkFault::Other => {
                        format!("{} is another file than its message's", path.display())
                    }
                };
                let link = Mend::Link {
                    account,
                    mailbox,
                    uid,
                };
                let mended = mender.map(|shared| mend::mend(shared, link));
                self.found(Part::Links, what, mended == Some(Mended::Whole));
            }
        }
        self.fact(Part::Links, &format!("{count} names of messages looked at"));
        Ok(())
    }

    /// Files that nothing in the index needs.
    fn strays(&mut self, ground: &Ground<'_>) -> Result<(), FsckError> {
        self.progress("looking for files that belong to nothing");
        let strays = tree::strays(ground)?;
        for (part, path) in strays {
            let mended = self.options.repair && self.take_away(&path);
            let what = format!(
                "{} belongs to no {}",
                path.display(),
                match part {
                    Part::Links => "message",
                    _ => "blob",
                }
            );
            self.found(part, what, mended);
        }
        Ok(())
    }
}

/// What of blobs is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Their files.
    Octets,
    /// Of those that are on disk by this record.
    OctetsUpTo(Lsn),
    /// How many names their files have.
    Links,
}

/// Settings by which the volume can be opened, from what its marker says.
fn config_of(disk: &dyn Disk, layout: &Layout) -> Result<(VolumeConfig, String), FsckError> {
    let found = marker::marker_of(disk, layout)?;
    let bad = |_| OpenError::Foreign {
        path: layout.root.clone(),
    };
    let config = VolumeConfig {
        scrub_bytes_per_s: 0,
        index_copy_interval: Duration::ZERO,
        index_compact_above_bytes: 0,
        ..VolumeConfig::new(
            &layout.root,
            BackendName::new(found.backend).map_err(bad)?,
            VolumeName::new(found.volume).map_err(bad)?,
        )
    };
    Ok((config, found.kept))
}

/// Rows of one short transaction.
const PAGE_ROWS: usize = 1000;
const PROGRESS_ROWS: u64 = 10_000;
