//! Parts that hold NUL, as a literal8 brings them. RFC 3516 §4.4, RFC 9051 §4.3.1.
//!
//! No BODY[…] can tell of NUL. A part that says of itself that it is binary and holds some is kept as base64, so that whoever
//! reads it, in whichever way, finds a message that mail can carry; BINARY[…] gives the octets that came. Nothing else of a
//! message is touched, ever.

use std::ops::Range;

use data_encoding::BASE64_MIME;
use mail_proto::mime::{Fields, HEADER_MAX_OCTETS, Kind, Part, Scanner};

use super::fetch::blocking;
use super::reply::Failure;
use crate::volume::{FinishedBlob, Volume, WriteError};

/// What the message is put together of.
enum Piece {
    Text(&'static [u8]),
    /// Octets of what came.
    Of(Range<u64>),
    /// The same as base64.
    Base64(Range<u64>),
}

/// The message with its binary parts as base64, or as it is if no part that is binary holds NUL.
pub(super) async fn encoded(volume: &Volume, blob: FinishedBlob) -> Result<FinishedBlob, Failure> {
    let (mut blob, pieces) = blocking(&volume.turns(), blob, |blob| plan(blob)).await?;
    let pieces = pieces?;
    if pieces.is_empty() {
        return Ok(blob);
    }
    let mut writer = volume.begin_blob();
    for piece in pieces {
        let (range, is_plain) = match piece {
            Piece::Text(text) => {
                writer.write(text).await?;
                continue;
            }
            Piece::Of(range) => (range, true),
            Piece::Base64(range) => (range, false),
        };
        for part in split(range) {
            let read;
            (blob, read) = blocking(&volume.turns(), blob, move |blob| octets(blob, part)).await?;
            let octets = read?;
            match is_plain {
                true => writer.write(&octets).await?,
                false => writer.write(BASE64_MIME.encode(&octets).as_bytes()).await?,
            }
        }
    }
    Ok(writer.finish().await?)
}

/// Nothing if the message stays as it is. Blocking.
fn plan(blob: &FinishedBlob) -> Result<Vec<Piece>, WriteError> {
    let mut scanner = Scanner::new();
    for part in split(0..blob.size()) {
        scanner.push(&octets(blob, part)?);
    }
    let structure = scanner.finish().structure;
    let mut pieces = Vec::new();
    let mut done = 0;
    for part in leaves(structure.root()) {
        let (header, body) = (part.header(), part.body());
        let is_read = header.end - header.start <= HEADER_MAX_OCTETS as u64;
        if !is_read || !part.encoding().eq_ignore_ascii_case(b"binary") {
            continue;
        }
        if !has_nul(blob, body.clone())? {
            continue;
        }
        let block = octets(blob, header.clone())?;
        for field in Fields::new(&block) {
            if field.is("Content-Transfer-Encoding") {
                let Range { start, end } = field.range();
                pieces.push(Piece::Of(done..header.start + start as u64));
                pieces.push(Piece::Text(b"Content-Transfer-Encoding: base64\r\n"));
                done = header.start + end as u64;
            }
        }
        pieces.push(Piece::Of(done..body.start));
        done = body.end;
        pieces.push(Piece::Base64(body));
    }
    if !pieces.is_empty() {
        pieces.push(Piece::Of(done..blob.size()));
    }
    Ok(pieces)
}

/// The parts that hold no others, in order.
fn leaves(root: Part<'_>) -> Vec<Part<'_>> {
    let mut leaves = Vec::new();
    let mut left = vec![root];
    while let Some(part) = left.pop() {
        match part.kind() {
            Kind::Leaf => leaves.push(part),
            Kind::Multipart | Kind::Message => {
                let children: Vec<_> = part.children().collect();
                left.extend(children.into_iter().rev());
            }
        }
    }
    leaves
}

fn has_nul(blob: &FinishedBlob, range: Range<u64>) -> Result<bool, WriteError> {
    for part in split(range) {
        if memchr::memchr(0, &octets(blob, part)?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn octets(blob: &FinishedBlob, range: Range<u64>) -> Result<Vec<u8>, WriteError> {
    let mut octets = Vec::new();
    blob.read(range, &mut octets)?;
    Ok(octets)
}

fn split(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = range.clone().step_by(PIECE_OCTETS);
    starts.map(move |start| start..range.end.min(start + PIECE_OCTETS as u64))
}

/// A whole number of lines of base64.
const PIECE_OCTETS: usize = 57 << 10;
