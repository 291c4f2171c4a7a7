//! Framing inside a stream body: `{kind: u8, length: u32 big-endian, payload}`.
//!
//! HTTP/2 already carries bytes in order and resets a broken stream; the frames add what it lacks:
//! an end that is said ([`Kind::End`], [`Kind::Commit`]) and control messages between the bytes.
//! Data payloads are handed on as they arrive, whatever the frame's length, so a receiver never
//! buffers mail; a control payload is gathered whole and bounded by [`CONTROL_MAX_OCTETS`].
//! Version 1. An unknown kind is an error: the version stands in the path (`/v1/…`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

/// The largest control payload. A commit for 1,000 recipients with prologues of 1 KiB in base64
/// is near 1.4 MiB.
pub const CONTROL_MAX_OCTETS: usize = 4 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Octets of the message, of the user's session, or of an item.
    Data = 1,
    /// JSON, first frame of a delivery or a session.
    Open = 2,
    /// JSON, last frame of a delivery.
    Commit = 3,
    /// Empty: this direction of a session is over, orderly.
    End = 4,
    /// JSON: stop sending and tell the offset reached.
    Pause = 5,
    /// JSON: go on from an offset.
    Resume = 6,
    /// JSON: progress of long work.
    Progress = 7,
    /// Binary: one canonical item of an account.
    Item = 8,
    /// Binary: sums of blocks of an account.
    Sums = 9,
    /// JSON: long work stopped, and why.
    Stopped = 10,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Data,
            2 => Self::Open,
            3 => Self::Commit,
            4 => Self::End,
            5 => Self::Pause,
            6 => Self::Resume,
            7 => Self::Progress,
            8 => Self::Item,
            9 => Self::Sums,
            10 => Self::Stopped,
            _ => return None,
        })
    }
}

/// One step of a framed body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Some octets of a data frame, in order. Frame edges within data carry no meaning.
    Data(Bytes),
    /// A whole frame of any other kind.
    Control(Kind, Bytes),
}

/// The peer does not speak version 1 of the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind octet is not one of [`Kind`].
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The control payload is larger than [`CONTROL_MAX_OCTETS`].
    #[error("control frame of {0} octets is over the limit")]
    TooLarge(usize),
}

/// Takes a body apart as it arrives.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: BytesMut,
    arrived: Bytes,
    data_left: usize,
}

const HEADER_OCTETS: usize = 5;

impl Decoder {
    /// Hands over the next piece of the body. The piece before must have been drained by [`next`](Self::next).
    pub fn push(&mut self, piece: Bytes) {
        if self.arrived.is_empty() {
            self.arrived = piece;
        } else {
            let mut joined = BytesMut::with_capacity(self.arrived.len() + piece.len());
            joined.put_slice(&self.arrived);
            joined.put_slice(&piece);
            self.arrived = joined.freeze();
        }
    }

    /// The next event, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is to be reset; nothing after it can be trusted.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, FrameError> {
        loop {
            if self.data_left > 0 {
                if self.arrived.is_empty() {
                    return Ok(None);
                }
                let take = self.data_left.min(self.arrived.len());
                self.data_left -= take;
                return Ok(Some(Event::Data(self.arrived.split_to(take))));
            }
            if !self.fill(HEADER_OCTETS) {
                return Ok(None);
            }
            let octet = self.pending[0];
            let kind = Kind::from_octet(octet).ok_or(FrameError::UnknownKind(octet))?;
            let length = (&self.pending[1..HEADER_OCTETS]).get_u32() as usize;
            if kind == Kind::Data {
                self.pending.clear();
                self.data_left = length;
                continue;
            }
            if length > CONTROL_MAX_OCTETS {
                return Err(FrameError::TooLarge(length));
            }
            if !self.fill(HEADER_OCTETS + length) {
                return Ok(None);
            }
            let mut whole = std::mem::take(&mut self.pending).freeze();
            whole.advance(HEADER_OCTETS);
            return Ok(Some(Event::Control(kind, whole)));
        }
    }

    /// Whether the body may end here: between frames, with nothing left over.
    #[must_use]
    pub fn at_edge(&self) -> bool {
        self.data_left == 0 && self.pending.is_empty() && self.arrived.is_empty()
    }

    fn fill(&mut self, want: usize) -> bool {
        let take = want
            .saturating_sub(self.pending.len())
            .min(self.arrived.len());
        self.pending.extend_from_slice(&self.arrived.split_to(take));
        self.pending.len() >= want
    }
}

/// Octets as a data frame: in one piece when they are few, because a copy costs less than a second
/// HTTP/2 frame, else header and octets apart and uncopied.
pub fn data_frames(octets: Bytes) -> impl Iterator<Item = Bytes> {
    let (first, second) = if octets.len() <= COALESCE_MAX_OCTETS {
        (frame(Kind::Data, &octets), None)
    } else {
        let mut header = BytesMut::with_capacity(HEADER_OCTETS);
        put_header(&mut header, Kind::Data, octets.len());
        (header.freeze(), Some(octets))
    };
    std::iter::once(first).chain(second)
}

const COALESCE_MAX_OCTETS: usize = 16 << 10;

/// A whole frame.
#[must_use]
pub fn frame(kind: Kind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_OCTETS + payload.len());
    put_header(&mut out, kind, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// A whole frame whose payload is JSON.
///
/// # Panics
/// Never for this package's types: they have string keys only.
#[must_use]
pub fn json_frame<T: Serialize>(kind: Kind, value: &T) -> Bytes {
    let json = serde_json::to_vec(value).expect("our frame types have string keys only");
    frame(kind, &json)
}

fn put_header(out: &mut BytesMut, kind: Kind, length: usize) {
    out.put_u8(kind as u8);
    out.put_u32(u32::try_from(length).expect("frames are cut far below 4 GiB"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Taken = (Vec<u8>, Vec<(Kind, Bytes)>, bool);

    fn events(pieces: &[&[u8]]) -> Result<Taken, FrameError> {
        let (mut data, mut control) = (Vec::new(), Vec::new());
        let mut decoder = Decoder::default();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next()? {
                match event {
                    Event::Data(octets) => data.extend_from_slice(&octets),
                    Event::Control(kind, payload) => control.push((kind, payload)),
                }
            }
        }
        Ok((data, control, decoder.at_edge()))
    }

    proptest! {
        #[test]
        fn a_body_cut_anywhere_gives_the_same_frames(cut in 0usize..60, again in 0usize..60) {
            let mut body = Vec::new();
            body.extend_from_slice(&frame(Kind::Open, b"{\"a\":1}"));
            body.extend_from_slice(&frame(Kind::Data, b"some octets"));
            body.extend_from_slice(&frame(Kind::Data, b""));
            body.extend_from_slice(&frame(Kind::Data, b"and more"));
            body.extend_from_slice(&frame(Kind::Commit, b"{}"));
            let first = cut.min(body.len());
            let second = (first + again).min(body.len());
            let (data, control, edge) = events(&[&body[..first], &body[first..second], &body[second..]]).unwrap();
            prop_assert_eq!(data, b"some octetsand more");
            prop_assert_eq!(control.len(), 2);
            prop_assert!(edge);
        }

        #[test]
        fn any_bytes_are_taken_or_refused_without_a_panic(body: Vec<u8>) {
            let _ = events(&[&body]);
        }
    }

    #[test]
    fn a_control_frame_over_the_limit_is_refused_before_it_is_gathered() {
        let mut header = vec![Kind::Open as u8];
        header.extend_from_slice(&(u32::try_from(CONTROL_MAX_OCTETS).unwrap() + 1).to_be_bytes());
        assert_eq!(
            events(&[&header]),
            Err(FrameError::TooLarge(CONTROL_MAX_OCTETS + 1))
        );
        header[0] = 99;
        assert_eq!(events(&[&header]), Err(FrameError::UnknownKind(99)));
    }

    #[test]
    fn a_body_that_ends_within_a_frame_is_not_at_an_edge() {
        let whole = frame(Kind::Data, b"abc");
        for cut in 1..whole.len() {
            assert!(!events(&[&whole[..cut]]).unwrap().2, "cut at {cut}");
        }
    }
}
