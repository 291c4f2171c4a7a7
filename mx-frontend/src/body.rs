//! The octets of one message as they pass: gathered into pieces, hashed, and kept while they are few.

mod forged;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use forged::Forged;
use store_api::{BlobHash, ContentKey};

/// One body under way.
#[derive(Debug)]
pub(crate) struct Body {
    piece: BytesMut,
    /// Two kilobytes: not for the session's stack.
    hasher: Box<Hasher>,
    /// Of a message from outside: what takes out forged trace fields, and the hash of all that came, while they may differ.
    foreign: Option<Box<(Forged, Hasher)>>,
    octets: u64,
    kept: Option<Vec<Bytes>>,
    kept_max_bytes: u64,
}

/// A body that has passed.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) hash: BlobHash,
    pub(crate) content_key: ContentKey,
    pub(crate) octets: u64,
    /// All of it, when it is small enough to be sent again.
    pub(crate) kept: Option<Vec<Bytes>>,
}

/// What goes out in one piece: few enough pieces that a frame costs nothing, small enough that the
/// window of a session stays within its 512 KiB.
const PIECE_BYTES: usize = 16 << 10;

impl Body {
    /// `kept_max_bytes`: bodies up to this size are kept for further tries. `ours`: fields that claim to be of this name are taken out.
    pub(crate) fn new(kept_max_bytes: u64, ours: Option<&str>) -> Self {
        Self {
            piece: BytesMut::new(),
            hasher: Box::new(Hasher::new()),
            foreign: ours.map(|ours| Box::new((Forged::new(ours), Hasher::new()))),
            octets: 0,
            kept: Some(Vec::new()),
            kept_max_bytes,
        }
    }

    /// Takes the next octets; gives a piece when enough have come together.
    pub(crate) fn take(&mut self, octets: &[u8]) -> Option<Bytes> {
        match &mut self.foreign {
            None => self.piece.extend_from_slice(octets),
            Some(foreign) => {
                let (forged, received) = &mut **foreign;
                received.update(octets);
                forged.take(octets, &mut self.piece);
                if forged.is_over() && !forged.has_removed() {
                    // From here on what goes out is what came in.
                    self.foreign = None;
                }
            }
        }
        (self.piece.len() >= PIECE_BYTES).then(|| self.pass())
    }

    /// Gives the last piece, if any is left, and what is known of the whole.
    pub(crate) fn finish(mut self) -> (Option<Bytes>, Passed) {
        if let Some(foreign) = &mut self.foreign {
            foreign.0.finish(&mut self.piece);
        }
        let last = (!self.piece.is_empty()).then(|| self.pass());
        let hash: [u8; 32] = self.hasher.finalize().into();
        // A resend is known by what came, whatever was taken out of it.
        let received = self.foreign.map(|foreign| foreign.1.finalize().into());
        let passed = Passed {
            hash: BlobHash(hash),
            content_key: ContentKey(received.unwrap_or(hash)),
            octets: self.octets,
            kept: self.kept,
        };
        (last, passed)
    }

    fn pass(&mut self) -> Bytes {
        let piece = self.piece.split().freeze();
        self.hasher.update(&piece);
        self.octets += piece.len() as u64;
        if self.octets > self.kept_max_bytes {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(chunks: &[&[u8]], kept_max_bytes: u64) -> (Vec<u8>, Passed) {
        let mut body = Body::new(kept_max_bytes, None);
        let mut sent = Vec::new();
        for chunk in chunks {
            sent.extend(body.take(chunk).into_iter().flatten());
        }
        let (last, passed) = body.finish();
        sent.extend(last.into_iter().flatten());
        (sent, passed)
    }

    #[test]
    fn what_goes_out_is_what_came_in_and_is_what_was_hashed() {
        let whole: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let chunks: Vec<&[u8]> = whole.chunks(777).collect();
        let (sent, passed) = pass(&chunks, 1 << 20);
        assert_eq!(sent, whole);
        assert_eq!(passed.octets, 100_000);
        assert_eq!(passed.hash.0, *blake3::hash(&whole).as_bytes());
        assert_eq!(passed.content_key.0, passed.hash.0);
        assert_eq!(passed.kept.unwrap().concat(), whole);
    }

    #[test]
    fn a_resend_is_known_by_what_came_whatever_was_taken_out() {
        let forged = b"From: a\r\nAuthentication-Results: mx.test; spf=pass\r\n\r\nx\r\n";
        let clean = b"From: a\r\n\r\nx\r\n";
        let pass = |whole: &[u8]| {
            let mut body = Body::new(1000, Some("mx.test"));
            for chunk in whole.chunks(7) {
                assert_eq!(body.take(chunk), None);
            }
            let (last, passed) = body.finish();
            (last.unwrap(), passed)
        };
        let (sent, passed) = pass(forged);
        assert_eq!(sent, clean.as_slice());
        assert_eq!(passed.octets, clean.len() as u64);
        assert_eq!(passed.hash.0, *blake3::hash(clean).as_bytes());
        assert_eq!(passed.content_key.0, *blake3::hash(forged).as_bytes());
        assert_eq!(passed.kept.unwrap().concat(), clean);
        let (sent, passed) = pass(clean);
        assert_eq!(sent, clean.as_slice());
        assert_eq!(passed.content_key.0, passed.hash.0);
        // It ends within its header.
        let (sent, passed) = pass(&clean[..9]);
        assert_eq!(sent, clean[..9]);
        assert_eq!(passed.content_key.0, passed.hash.0);
    }

    #[test]
    fn a_body_at_the_limit_is_kept_and_one_beyond_is_not() {
        assert_eq!(
            pass(&[&[7; 1000]], 1000).1.kept.unwrap().concat(),
            [7; 1000]
        );
        assert!(pass(&[&[7; 1000], &[7]], 1000).1.kept.is_none());
        let (sent, passed) = pass(&[], 1000);
        assert_eq!((sent.len(), passed.octets), (0, 0));
        assert_eq!(passed.kept.unwrap().len(), 0);
    }
}
