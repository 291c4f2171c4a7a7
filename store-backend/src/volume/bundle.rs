//! Bundles: the prologues of one delivery's recipients in one row, for they are the same but for the recipient's name.
//!
//! A record's recipients are numbered as they stand in it; a bundle has those of [`MEMBERS_MAX`] numbers that have a
//! prologue. The first of them stands as it is, the others say what they have of it.
//!
//! ```text
//! version, 1        u8
//! for each member:
//!   its number      u8     the recipient's, modulo 16; growing
//!   octets behind   u16
//!   the first member's prologue; of all others pieces:
//!     octets of its own  u16, those
//!     octets of the first member's prologue that follow: from u16, count u16
//! ```

use std::borrow::Cow;
use std::iter::zip;

use super::codec::{Malformed, Put};

/// One prologue with its recipient's number in the bundle.
pub(super) type Member<'b> = (u8, Cow<'b, [u8]>);

/// Which bundle of a record has a recipient, and under which number.
pub(super) fn place(recipient: u32) -> (u32, u8) {
    let number = u8::try_from(recipient % MEMBERS_MAX).expect("it is below 16");
    (recipient / MEMBERS_MAX, number)
}

/// Whether a prologue goes into a bundle. One without octets has no row at all.
pub(super) fn takes(prologue: &[u8]) -> bool {
    (1..=PROLOGUE_MAX_OCTETS).contains(&prologue.len())
}

/// The row. Each prologue is one that a bundle takes.
pub(super) fn encode(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = vec![VERSION];
    let base = members.first().map_or(&[][..], |(_, prologue)| prologue);
    for (i, (number, prologue)) in members.iter().enumerate() {
        let kept = match i {
            0 => Cow::Borrowed(&prologue[..]),
            _ => Cow::Owned(difference(base, prologue)),
        };
        out.put_u8(*number);
        put_count(&mut out, kept.len());
        out.put_fixed(&kept);
    }
    out
}

/// One prologue of a row; `None`: it is not in it.
pub(super) fn member(row: &[u8], number: u8) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let mut members = Members::of(row)?;
    loop {
        match members.next()? {
            Some(kept) if kept.number == number => return kept.prologue().map(Some),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

/// All prologues of a row.
pub(super) fn members(row: &[u8]) -> Result<Vec<Member<'_>>, Malformed> {
    let mut members = Members::of(row)?;
    let mut found = Vec::new();
    while let Some(kept) = members.next()? {
        found.push((kept.number, kept.prologue()?));
    }
    Ok(found)
}

struct Members<'b> {
    rest: &'b [u8],
    base: Option<&'b [u8]>,
}

struct Kept<'b> {
    number: u8,
    /// `None`: it is the first.
    base: Option<&'b [u8]>,
    octets: &'b [u8],
}

impl<'b> Members<'b> {
    fn of(row: &'b [u8]) -> Result<Self, Malformed> {
        match row.split_first() {
            Some((&VERSION, rest)) => Ok(Self { rest, base: None }),
            _ => Err(BAD),
        }
    }

    fn next(&mut self) -> Result<Option<Kept<'b>>, Malformed> {
        let Some((number, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        let count = take_count(&mut self.rest)?;
        let octets = take(&mut self.rest, count)?;
        let base = self.base;
        self.base = Some(base.unwrap_or(octets));
        Ok(Some(Kept {
            number: *number,
            base,
            octets,
        }))
    }
}

impl<'b> Kept<'b> {
    fn prologue(&self) -> Result<Cow<'b, [u8]>, Malformed> {
        let Some(base) = self.base else {
            return Ok(Cow::Borrowed(self.octets));
        };
        let mut prologue = Vec::with_capacity(base.len() + self.octets.len());
        let mut rest = self.octets;
        while !rest.is_empty() {
            let count = take_count(&mut rest)?;
            prologue.extend_from_slice(take(&mut rest, count)?);
            let (from, count) = (take_count(&mut rest)?, take_count(&mut rest)?);
            prologue.extend_from_slice(base.get(from..from + count).ok_or(BAD)?);
        }
        Ok(Cow::Owned(prologue))
    }
}

/// The pieces that make `text` of `base`.
fn difference(base: &[u8], text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // How far they are told, and up to where the text has octets of its own.
    let (mut in_text, mut in_base, mut own) = (0, 0, 0);
    for _ in 1..PIECES_MAX {
        let (text, base) = (&text[in_text..], &base[in_base..]);
        let same = zip(&text[own..], base).take_while(|(a, b)| a == b).count();
        put_piece(&mut out, &text[..own], in_base, same);
        in_text += own + same;
        in_base += same;
        let (text, base) = (&text[own + same..], &base[same..]);
        if text.is_empty() {
            return out;
        }
        let Some((own_next, skipped)) = alike_again(base, text) else {
            break;
        };
        own = own_next;
        in_base += skipped;
    }
    put_piece(&mut out, &text[in_text..], 0, 0);
    out
}

/// Of two texts that begin otherwise, how much of the second and of the first comes before they go on alike.
fn alike_again(base: &[u8], text: &[u8]) -> Option<(usize, usize)> {
    let ends = |count| (0..=count).map(move |own| (own, count - own));
    (1..=SKIPPED_MAX).flat_map(ends).find(|(own, skipped)| {
        let text = text.get(*own..*own + ALIKE_MIN);
        text.is_some() && text == base.get(*skipped..*skipped + ALIKE_MIN)
    })
}

fn put_piece(out: &mut Vec<u8>, own: &[u8], from: usize, count: usize) {
    put_count(out, own.len());
    out.put_fixed(own);
    put_count(out, from);
    put_count(out, count);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("a bundle takes no long prologue");
    out.put_fixed(&count.to_le_bytes());
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Result<&'b [u8], Malformed> {
    let (octets, behind) = rest.split_at_checked(count).ok_or(BAD)?;
    *rest = behind;
    Ok(octets)
}

fn take_count(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let (count, behind) = rest.split_first_chunk().ok_or(BAD)?;
    *rest = behind;
    Ok(usize::from(u16::from_le_bytes(*count)))
}

const VERSION: u8 = 1;
const BAD: Malformed = Malformed { what: "bundle" };
/// With the usual prologue of 250 octets a row of that many has under 1 KiB: four a page. One that goes has the row
/// written anew. Never change: it is where a recipient's prologue is looked for.
const MEMBERS_MAX: u32 = 16;
/// Longer ones have rows of their own, so that a bundle has 32 KiB at most. The usual one has 250.
const PROLOGUE_MAX_OCTETS: usize = 2048;
/// Pieces of one prologue. The recipient's name is in two places: that makes three.
const PIECES_MAX: usize = 8;
/// What is alike and shorter costs more as a piece of its own than it spares.
const ALIKE_MIN: usize = 8;
/// Of the two names together.
const SKIPPED_MAX: usize = 160;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lines(address: &str) -> Vec<u8> {
        let text = format!(
            "Return-Path: <a@example.test>\r\nDelivered-To: {address}\r\nReceived: from client.example.test ([192.0.2.7])\r\n\tby mx.example.test with ESMTPS id 0123456789abcdef\r\n\tfor <{address}>; Sun, 22 Nov 2026 14:11:12 +0000\r\n"
        );
        text.into_bytes()
    }

    #[test]
    fn a_recipient_costs_little_more_than_its_name() {
        let prologues: Vec<_> = (0..10)
            .map(|i| lines(&format!("user{i:06}@example.test")))
            .collect();
        let all: Vec<Member<'_>> =
            zip(0.., prologues.iter().map(|one| Cow::Borrowed(&one[..]))).collect();
        let row = encode(&all);
        assert_eq!(members(&row).unwrap(), all);
        let others = (row.len() - prologues[0].len()) / 9;
        assert!(others < 40, "{others}");
    }

    #[test]
    fn whatever_the_prologues_are_they_read_back_and_so_do_those_that_stay() {
        let mut random = blake3::Hasher::new().finalize_xof();
        let mut number = move |below: u16| {
            let mut octets = [0; 2];
            random.fill(&mut octets);
            usize::from(u16::from_le_bytes(octets) % below)
        };
        for _ in 0..40 {
            let count = 1 + number(16);
            let mut all = Vec::new();
            for i in 0..count {
                let prologue = match number(5) {
                    0 => vec![b'x'; 1 + number(2048)],
                    1 => (0..1 + number(300))
                        .map(|_| b'a' + number(3) as u8)
                        .collect(),
                    2 => lines(&"ü".repeat(number(60))),
                    _ => lines(&format!("{}@{}.test", number(9000), number(3))),
                };
                assert!(takes(&prologue));
                all.push((u8::try_from(i).unwrap(), Cow::Owned(prologue)));
            }
            while !all.is_empty() {
                let row = encode(&all);
                assert_eq!(members(&row).unwrap(), all);
                for (number, prologue) in &all {
                    assert_eq!(member(&row, *number).unwrap().as_ref(), Some(prologue));
                }
                let (gone, _) = all.remove(number(all.len() as u16));
                assert_eq!(member(&encode(&all), gone).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_row_that_is_cut_or_points_beyond_is_refused() {
        let all = [
            (0, Cow::Owned(lines("ann@example.test"))),
            (3, Cow::Owned(lines("bob@example.test"))),
        ];
        let row = encode(&all);
        let first = 4 + all[0].1.len();
        for end in 1..row.len() {
            assert_eq!(
                members(&row[..end]).is_ok(),
                end == first || end == 1,
                "{end}"
            );
        }
        assert!(members(&[]).is_err() && members(&[2]).is_err());
        let mut row = row;
        let last = row.len() - 1;
        row[last] = 0xff;
        assert!(members(&row).is_err());
    }
}
