#![allow(clippy::unwrap_used)]

use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

/// What a client of zlib sends: one stream, flushed behind each piece.
fn sent(pieces: &[&[u8]], level: u32) -> Vec<u8> {
    let mut machine = Compress::new(Compression::new(level), false);
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let before = machine.total_in();
            out.reserve(1 << 10);
            machine
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .unwrap();
            rest = &rest[usize::try_from(machine.total_in() - before).unwrap()..];
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
    }
    out
}

/// All that comes out of these octets, each step's share apart.
fn steps(inflater: &mut Inflater, octets: &[u8]) -> Result<Vec<Bytes>, Garbage> {
    let mut input = Bytes::copy_from_slice(octets);
    let mut out = Vec::new();
    while !input.is_empty() || inflater.is_full() {
        out.push(inflater.step(&mut input)?);
    }
    Ok(out)
}

fn inflated(inflater: &mut Inflater, octets: &[u8]) -> Vec<u8> {
    steps(inflater, octets).unwrap().concat()
}

/// Octets that compress, of any length, with repeats from near and from 32 KiB ago.
fn text(length: usize) -> Vec<u8> {
    let mut seed = 7u32;
    let mut out = Vec::new();
    while out.len() < length {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(format!("a{} FETCH {} FLAGS\r\n", seed % 97, seed >> 12).as_bytes());
        if out.len() > WINDOW_OCTETS && seed.is_multiple_of(5) {
            let from = out.len() - WINDOW_OCTETS;
            out.extend_from_within(from..from + 40);
        }
    }
    out.truncate(length);
    out
}

#[test]
fn a_stream_cut_at_any_octet_comes_out_whole_and_is_carried_over_at_each_flush() {
    let pieces: [&[u8]; 4] = [b"a1 NOOP\r\n", b"a2 NOOP\r\n", b"", b"a3 SELECT INBOX\r\n"];
    let octets = sent(&pieces, 6);
    for cut in 0..=octets.len() {
        let mut inflater = Inflater::default();
        let mut out = inflated(&mut inflater, &octets[..cut]);
        if let Some(carried) = inflater.carried() {
            let text = serde_json::to_string(&carried).unwrap();
            let carried = serde_json::from_str(&text).unwrap();
            inflater = Inflater::from_carried(&carried).unwrap();
        }
        out.extend(inflated(&mut inflater, &octets[cut..]));
        assert_eq!(out, pieces.concat(), "cut at {cut}");
        assert!(inflater.carried().is_some(), "cut at {cut}");
    }
}

#[test]
fn a_long_stream_refers_back_over_the_whole_window_and_no_further_is_kept() {
    let text = text(300_000);
    for level in [0, 1, 6, 9] {
        let pieces: Vec<&[u8]> = text.chunks(7_001).collect();
        let octets = sent(&pieces, level);
        let mut inflater = Inflater::default();
        let mut out = Vec::new();
        for piece in octets.chunks(1_499) {
            out.extend(inflated(&mut inflater, piece));
            if let Some(carried) = inflater.carried() {
                inflater = Inflater::from_carried(&carried).unwrap();
            }
            assert!(inflater.history.capacity() <= WINDOW_OCTETS);
        }
        assert!(out == text, "level {level}");
    }
}

#[test]
fn a_session_that_has_sent_little_holds_little() {
    let mut inflater = Inflater::default();
    inflated(&mut inflater, &sent(&[&text(1_000)], 6));
    assert!(inflater.history.capacity() <= 1_024);
    assert!(matches!(inflater.place, Place::Between(_)));
    assert!(size_of::<Inflater>() <= 48);
}

#[test]
fn a_bomb_comes_out_a_step_at_a_time() {
    let octets = sent(&[&vec![b'a'; 50 << 20]], 9);
    assert!(octets.len() < 60_000);
    let steps = steps(&mut Inflater::default(), &octets).unwrap();
    assert!(steps.iter().all(|step| step.len() <= STEP_OCTETS));
    assert_eq!(steps.iter().map(Bytes::len).sum::<usize>(), 50 << 20);
}

#[test]
fn what_is_no_deflate_is_garbage_and_so_is_its_end() {
    let finished = {
        let mut out = Vec::with_capacity(100);
        Compress::new(LEVEL, false)
            .compress_vec(b"a", &mut out, FlushCompress::Finish)
            .unwrap();
        out
    };
    // A block of type 3; a stored block whose length does not agree; a reference to before the start; the end.
    for octets in [
        &b"\x07"[..],
        b"\x00\x01\x00\x00\x00",
        b"\x62\x04\xc1\x00\x00",
        &finished,
    ] {
        assert_eq!(
            steps(&mut Inflater::default(), octets),
            Err(Garbage),
            "{octets:?}"
        );
    }
    for carried in [
        r#"{"bits":{"count":8,"bits":0},"history":""}"#,
        r#"{"bits":{"count":0,"bits":0},"history":"*"}"#,
    ] {
        let carried = serde_json::from_str(carried).unwrap();
        assert!(Inflater::from_carried(&carried).is_err());
    }
}

proptest! {
    #[test]
    fn any_octets_are_taken_or_refused_without_a_panic(octets: Vec<u8>, cut in 1usize..9) {
        let mut inflater = Inflater::default();
        for piece in octets.chunks(cut) {
            if steps(&mut inflater, piece).is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_stream_with_a_few_wrong_bits_is_taken_or_refused_without_a_panic(
        length in 1usize..20_000, wrong in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in 1usize..3_000
    ) {
        let mut octets = sent(&[&text(length), b"", &text(length)], 6);
        for (at, octet) in wrong {
            let at = at.index(octets.len());
            octets[at] ^= octet;
        }
        let mut inflater = Inflater::default();
        for piece in octets.chunks(cut) {
            if steps(&mut inflater, piece).is_err() {
                break;
            }
        }
    }
}

#[test]
fn every_write_can_be_read_at_once_and_refers_to_none_before() {
    let text = text(200_000);
    let noise: Vec<u8> = (0..70_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let writes: [&[u8]; 6] = [b"* 1 EXISTS\r\n", b"x", b"", &noise, &text, &text[..65_536]];
    let mut client = Decompress::new(false);
    for write in writes.iter().chain(&writes) {
        let octets = deflate(write);
        let mut alone = Vec::with_capacity(write.len() + 100);
        Decompress::new(false)
            .decompress_vec(&octets, &mut alone, FlushDecompress::Sync)
            .unwrap();
        assert!(alone == *write);
        let mut out = Vec::with_capacity(write.len() + 100);
        let status = client
            .decompress_vec(&octets, &mut out, FlushDecompress::Sync)
            .unwrap();
        assert!(out == *write && status != Status::StreamEnd);
    }
}
