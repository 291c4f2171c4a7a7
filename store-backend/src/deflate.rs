//! Raw DEFLATE for a session's octets. RFC 1951, RFC 4978. Bytes in, bytes out.
//!
//! Thousands of compressed sessions wait at once, so neither direction keeps its machine meanwhile:
//!
//! - **out**: each write is compressed by the thread's one machine, for itself: it refers to nothing before it and ends
//!   with a sync flush at a whole octet, which is all that the next one needs. That costs some compression of small
//!   answers, and saves 260 KiB a session.
//! - **in**: between two blocks of the client's stream the rest of it depends on nothing but the last 32 KiB that came
//!   out, and at most seven bits. Clients flush behind each command, so that is where a session waits; and since a
//!   client sends far less than it reads, the 32 KiB are mostly one or two. This is [`Carried`], and can be written out.
//!   A session that waits within a block (its client was cut by the network) holds 11 KiB more and cannot be carried over.

use std::cell::RefCell;

use bytes::{Buf as _, Bytes};
use data_encoding::BASE64;
use flate2::{Compress, Compression, FlushCompress};
use miniz_oxide::inflate::TINFLStatus as Status;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};
use serde::{Deserialize, Serialize};

/// The client's direction of a compressed session.
#[derive(Default)]
pub(crate) struct Inflater {
    /// What came out last.
    history: Vec<u8>,
    place: Place,
}

enum Place {
    Between(Bits),
    Within {
        machine: Box<DecompressorOxide>,
        /// More would come out without more going in.
        is_full: bool,
    },
}

/// The last octet's bits that belong to the next block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bits {
    count: u8,
    bits: u8,
}

/// An [`Inflater`] between two blocks, as it is written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    bits: Bits,
    /// In base-64: what was typed is mostly text, but need not be.
    history: String,
}

/// The client's octets are not a stream of DEFLATE, or its end, which RFC 4978 has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("octets are not compressed as agreed")]
pub(crate) struct Garbage;

impl Inflater {
    /// Takes of `input` what gives at most [`STEP_OCTETS`]: a bomb costs no more than the same octets sent plainly.
    /// Nothing comes out when the client has flushed nothing yet, or nothing but a flush came in.
    pub(crate) fn step(&mut self, input: &mut Bytes) -> Result<Bytes, Garbage> {
        OUTPUT.with_borrow_mut(|output| {
            let from = self.history.len();
            output[..from].copy_from_slice(&self.history);
            let room = &mut output[..from + STEP_OCTETS];
            let mut at = from;
            let (mut machine, mut is_between) = match std::mem::take(&mut self.place) {
                Place::Between(bits) => (Box::new(bits.machine()), true),
                Place::Within { machine, .. } => (machine, false),
            };
            let mut is_full = false;
            loop {
                let (status, taken, given) = decompress(&mut machine, input, room, at, FLAGS);
                input.advance(taken);
                at += given;
                match status {
                    Status::BlockBoundary => {
                        is_between = true;
                        if input.is_empty() || at == room.len() {
                            break;
                        }
                    }
                    Status::NeedsMoreInput => {
                        // Not one bit of a next block was there.
                        is_between &= taken == 0;
                        break;
                    }
                    Status::HasMoreOutput => {
                        is_between = false;
                        is_full = true;
                        break;
                    }
                    _ => return Err(Garbage),
                }
            }
            let between = match is_between {
                true => machine.block_boundary_state(),
                false => None,
            };
            self.place = match between {
                Some(state) => Place::Between(Bits::of(&state)),
                None => Place::Within { machine, is_full },
            };
            let given = &room[from..at];
            self.remember(given);
            Ok(Bytes::copy_from_slice(given))
        })
    }

    /// Whether more may come out although nothing more goes in.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.place, Place::Within { is_full: true, .. })
    }

    /// The value to carry over; nothing within a block.
    pub(crate) fn carried(&self) -> Option<Carried> {
        match &self.place {
            Place::Between(bits) => Some(Carried {
                bits: *bits,
                history: BASE64.encode(&self.history),
            }),
            Place::Within { .. } => None,
        }
    }

    /// An inflater that goes on where another was.
    pub(crate) fn from_carried(carried: &Carried) -> Result<Self, Garbage> {
        let history = BASE64.decode(carried.history.as_bytes());
        match history {
            Ok(history) if history.len() <= WINDOW_OCTETS && carried.bits.count < 8 => Ok(Self {
                // Decoding took room by the length of the text.
                history: history.into_boxed_slice().into_vec(),
                place: Place::Between(carried.bits),
            }),
            _ => Err(Garbage),
        }
    }

    fn remember(&mut self, given: &[u8]) {
        let given = &given[given.len().saturating_sub(WINDOW_OCTETS)..];
        let excess = (self.history.len() + given.len()).saturating_sub(WINDOW_OCTETS);
        self.history.drain(..excess);
        let wanted = (self.history.len() + given.len()).next_power_of_two();
        // Never over the window, which doubling from any length could be.
        self.history.reserve_exact(wanted - self.history.len());
        self.history.extend_from_slice(given);
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::Between(Bits::default())
    }
}

impl Bits {
    fn of(state: &BlockBoundaryState) -> Self {
        Self {
            count: state.num_bits,
            bits: state.bit_buf,
        }
    }

    fn machine(self) -> DecompressorOxide {
        DecompressorOxide::from_block_boundary_state(&BlockBoundaryState {
            num_bits: self.count,
            bit_buf: self.bits,
            ..BlockBoundaryState::default()
        })
    }
}

/// Compresses octets so that the client can read all of them, whatever follows.
pub(crate) fn deflate(octets: &[u8]) -> Vec<u8> {
    DEFLATER.with_borrow_mut(|machine| {
        machine.reset();
        let mut out = Vec::with_capacity(octets.len() / 2 + FLUSH_OCTETS);
        let mut rest = octets;
        loop {
            let before = machine.total_in();
            // It has no data error to make, and a buffer error only says that there is nothing to do.
            let _ = machine.compress_vec(rest, &mut out, FlushCompress::Sync);
            let taken = usize::try_from(machine.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // Room is left: everything is out, the flush's last octet too (zlib's manual, deflate).
            if rest.is_empty() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(FLUSH_OCTETS.max(rest.len() / 2));
        }
    })
}

thread_local! {
    /// What came out before and what comes out now, for the time of one step.
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; WINDOW_OCTETS + STEP_OCTETS]);
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(LEVEL, false));
}

const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT
    | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
    | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
/// RFC 1951 §2: how far back a block may refer.
const WINDOW_OCTETS: usize = 32 << 10;
/// What one read from a plain connection gives too.
const STEP_OCTETS: usize = 16 << 10;
/// More than a flush needs.
const FLUSH_OCTETS: usize = 64;
/// Measured on documents, ENVELOPEs and base-64 in pieces of 64 KiB: 1 is faster by a third and leaves a third more; 6
/// takes twice the time and leaves a tenth less.
const LEVEL: Compression = Compression::new(2);

#[cfg(test)]
mod tests;
