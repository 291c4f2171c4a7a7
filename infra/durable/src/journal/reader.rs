//! Reading records by their place, beside the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Place;
use super::error::JournalError;
use super::format::{HEADER_BLOCK_BYTES, RECORD_HEADER_BYTES, intact_record};
use super::segment::{Segment, SegmentTable};

/// Reads payloads by their place, on any thread; clones share the journal's open files. Calls block.
#[derive(Clone)]
pub struct JournalReader {
    table: Arc<SegmentTable>,
}

impl JournalReader {
    pub(super) fn new(table: Arc<SegmentTable>) -> JournalReader {
        JournalReader { table }
    }

    /// Reads a whole payload and verifies its checksum.
    ///
    /// # Errors
    /// [`JournalError::Released`]: look where the content went; [`JournalError::BadPlace`]: rot, or a place of another
    /// journal; [`JournalError::Io`].
    pub fn read(&self, place: Place) -> Result<Vec<u8>, JournalError> {
        let segment = self.table.find(place.segment)?;
        check(&segment, place)?;
        let mut bytes = vec![0; (RECORD_HEADER_BYTES + place.len) as usize];
        read_live(&segment, &mut bytes, place.offset - RECORD_HEADER_BYTES)?;
        match intact_record(&bytes, segment.identity) {
            Some((header, _)) if header.len == place.len => {
                bytes.drain(..RECORD_HEADER_BYTES as usize);
                Ok(bytes)
            }
            _ => Err(bad_place(&segment, place)),
        }
    }

    /// Fills `buffer` with the payload's bytes beginning at its byte `from`. Not verified: for content that carries a
    /// hash of its own.
    ///
    /// # Errors
    /// As [`JournalReader::read`]; [`JournalError::BadPlace`] also when the range leaves the payload.
    pub fn read_range(
        &self,
        place: Place,
        from: u32,
        buffer: &mut [u8],
    ) -> Result<(), JournalError> {
        let segment = self.table.find(place.segment)?;
        check(&segment, place)?;
        if u64::from(from) + buffer.len() as u64 > u64::from(place.len) {
            return Err(bad_place(&segment, place));
        }
        read_live(&segment, buffer, place.offset + from)
    }
}

/// Refuses a place that cannot be a record's, so that a wrong one costs neither memory nor an overflow.
fn check(segment: &Segment, place: Place) -> Result<(), JournalError> {
    let end = u64::from(place.offset) + u64::from(place.len);
    let begins_early = place.offset < HEADER_BLOCK_BYTES + RECORD_HEADER_BYTES;
    if begins_early || end > u64::from(segment.len) {
        return Err(bad_place(segment, place));
    }
    Ok(())
}

fn read_live(segment: &Segment, buffer: &mut [u8], offset: u32) -> Result<(), JournalError> {
    let read = segment.file.read_exact_at(buffer, offset.into());
    // A release comes before the overwrite it allows: not released now means that nothing read was overwritten.
    if segment.released.load(Ordering::SeqCst) {
        return Err(JournalError::Released {
            segment: segment.number,
        });
    }
    read.map_err(|source| segment.io("read", source))
}

fn bad_place(segment: &Segment, place: Place) -> JournalError {
    JournalError::BadPlace {
        path: segment.path.clone(),
        offset: place.offset,
        len: place.len,
    }
}
