//! Taking a body in: in memory while it is small, in `incoming/` when it is not.

use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use durable::{Disk, DiskFile, OpenMode};
use tokio::runtime::Handle;

use super::error::WriteError;
use super::recovery::{Failed, Inner, Shared};
use super::space::Level;
use super::turns::Turns;
use super::types::Hash;

/// Bodies up to this go into the journal record. Beyond it one file written once is cheaper than a record that is
/// written and then copied to a file.
pub const BLOB_INLINE_MAX_BYTES: usize = 128 << 10;

/// Takes the octets of one body and hashes them. Uses at most [`BLOB_INLINE_MAX_BYTES`] of memory, whatever the size.
pub struct BlobWriter {
    shared: Arc<Shared>,
    hasher: blake3::Hasher,
    octets: u64,
    buffer: BytesMut,
    spill: Option<Spill>,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

impl BlobWriter {
    pub(super) fn new(inner: &Inner) -> Self {
        Self {
            shared: Arc::clone(inner.shared()),
            hasher: blake3::Hasher::new(),
            octets: 0,
            buffer: BytesMut::new(),
            spill: None,
        }
    }

    /// Octets taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.octets
    }

    /// Takes the next octets.
    ///
    /// # Errors
    /// [`WriteError`]: the body is lost; drop the writer.
    pub async fn write(&mut self, mut octets: &[u8]) -> Result<(), WriteError> {
        self.hasher.update(octets);
        self.octets += octets.len() as u64;
        while self.buffer.len() + octets.len() > BLOB_INLINE_MAX_BYTES {
            let (now, later) = octets.split_at(BLOB_INLINE_MAX_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(now);
            octets = later;
            self.flush(false).await?;
        }
        self.buffer.extend_from_slice(octets);
        Ok(())
    }

    /// The whole body. A large one is synced, with its name, when this returns.
    ///
    /// # Errors
    /// [`WriteError`]: the body is lost.
    pub async fn finish(mut self) -> Result<FinishedBlob, WriteError> {
        let hash = *self.hasher.finalize().as_bytes();
        let content = if self.spill.is_some() {
            self.flush(true).await?;
            let spill = self.spill.take().expect("it was there before the flush");
            Content::Spilled(spill.name)
        } else {
            Content::Memory(self.buffer.split().freeze())
        };
        Ok(FinishedBlob {
            hash,
            octets: self.octets,
            content,
        })
    }

    async fn flush(&mut self, last: bool) -> Result<(), WriteError> {
        let (shared, spill, chunk) = (
            Arc::clone(&self.shared),
            self.spill.take(),
            self.buffer.split(),
        );
        let work = move || -> Result<(Spill, BytesMut), WriteError> {
            if shared.read_only().is_some() {
                return Err(WriteError::ReadOnly);
            }
            if shared.space.level() > Level::Roomy {
                return Err(WriteError::NoRoom);
            }
            let mut spill = match spill {
                Some(spill) => spill,
                None => Spill::create(&shared)?,
            };
            spill.append(&shared, &chunk, last)?;
            Ok((spill, chunk))
        };
        let written = self.shared.turns.run(work).await;
        let (spill, mut chunk) = written.ok_or(WriteError::Stopped)??;
        chunk.clear();
        self.buffer = chunk;
        self.spill = Some(spill);
        Ok(())
    }
}

/// A complete body, not yet named by a record. Dropped unused, nothing is left of it.
#[derive(Debug)]
pub struct FinishedBlob {
    hash: Hash,
    octets: u64,
    content: Content,
}

impl FinishedBlob {
    /// BLAKE3 of the octets taken: compare it with the sender's before use (P9).
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Octets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.octets
    }

    /// Appends some of the octets. Blocking.
    ///
    /// # Errors
    /// [`WriteError::Io`]; what was appended is of no use.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let count = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
        match &self.content {
            Content::Memory(bytes) => {
                out.extend_from_slice(&bytes[count(range.start)..count(range.end)]);
                Ok(())
            }
            Content::Spilled(name) => {
                let begin = out.len();
                out.resize(begin + count(range.end - range.start), 0);
                let file = name.disk.open(&name.path, OpenMode::Read);
                let read = file.and_then(|file| file.read_exact_at(&mut out[begin..], range.start));
                read.map_err(|source| WriteError::Io {
                    path: name.path.clone(),
                    source,
                })
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match &self.content {
            Content::Memory(bytes) => bytes.len(),
            Content::Spilled(_) => 0,
        }
    }

    /// Gives the octets to a record that is about to be written. From here on recovery removes an unused file.
    pub(super) fn into_body(self) -> super::record::Body {
        match self.content {
            Content::Memory(bytes) => super::record::Body::Inline(bytes),
            Content::Spilled(mut name) => {
                name.keep = true;
                super::record::Body::Spilled(name.token)
            }
        }
    }
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    Spilled(SpillName),
}

/// A file in `incoming/`.
struct Spill {
    file: Box<dyn DiskFile>,
    name: SpillName,
    written: u64,
}

impl Spill {
    fn create(shared: &Arc<Shared>) -> Result<Self, WriteError> {
        let token = shared.random_token();
        let path = shared.layout.incoming(&token);
        let opened = shared.disk.open(&path, OpenMode::CreateNew);
        let file = opened.map_err(|source| WriteError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            name: SpillName {
                disk: Arc::clone(&shared.disk),
                turns: shared.turns.clone(),
                path,
                token,
                keep: false,
            },
            written: 0,
        })
    }

    fn append(&mut self, shared: &Shared, chunk: &[u8], last: bool) -> Result<(), WriteError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| WriteError::Io { path, source }
        };
        self.file
            .write_all_at(&[IoSlice::new(chunk)], self.written)
            .map_err(io(&self.name.path))?;
        self.written += chunk.len() as u64;
        if last {
            // The record will name this file: its octets and its name come first (P1).
            let folder = self.name.path.parent().expect("it lies in incoming/");
            let synced = self.file.sync_all().map_err(io(&self.name.path));
            let synced = synced.and_then(|()| self.name.disk.sync_dir(folder).map_err(io(folder)));
            synced.inspect_err(|error| {
                // For want of room it is this body's loss alone. Else the disk loses what it is given.
                if !error.is_no_room() {
                    shared.fail(Failed::Body, error);
                }
            })?;
        }
        Ok(())
    }
}

/// Removes the file when nothing has come to need it.
struct SpillName {
    disk: Arc<dyn Disk>,
    turns: Turns,
    path: PathBuf,
    token: [u8; 16],
    keep: bool,
}

impl std::fmt::Debug for SpillName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillName")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for SpillName {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let (disk, path) = (Arc::clone(&self.disk), std::mem::take(&mut self.path));
        // What cannot be removed now is removed at the next start.
        let remove = move || drop(disk.remove_file(&path));
        // A cut stream drops it on an async thread, where removing a large file must hold nobody up.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.turns.run(remove))),
            Err(_) => remove(),
        }
    }
}
