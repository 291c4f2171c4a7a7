//! Finds strings in text, whatever their case: i;unicode-casemap without its decompositions. RFC 5051.
//!
//! White space of any kind and length counts as one space on both sides, for line ends say nothing about
//! a text. So nothing is missed that an octet by octet comparison would find.

use encoding_rs::Encoding;
use memchr::memmem::Finder;

/// Text made comparable.
#[derive(Debug, Default)]
pub(in super::super) struct Folded {
    /// UTF-8.
    text: Vec<u8>,
    is_behind_space: bool,
}

impl Folded {
    /// Folds a whole string.
    pub(in super::super) fn of(text: &str) -> String {
        let mut folded = Self::default();
        folded.push(text);
        String::from_utf8_lossy(&folded.text).into_owned()
    }

    /// Folds another string, in the same memory.
    pub(in super::super) fn again(&mut self, text: &str) -> &[u8] {
        self.text.clear();
        self.is_behind_space = false;
        self.push(text);
        &self.text
    }

    fn push(&mut self, text: &str) {
        self.text.reserve(text.len());
        let mut rest = text;
        loop {
            let (ascii, beyond) = rest.split_at(Encoding::ascii_valid_up_to(rest.as_bytes()));
            self.push_ascii(ascii.as_bytes());
            let mut chars = beyond.chars();
            for c in chars.by_ref() {
                if c.is_whitespace() {
                    if !self.is_behind_space {
                        self.text.push(b' ');
                    }
                    self.is_behind_space = true;
                } else if !is_ignored(c) {
                    let mut octets = [0; 4];
                    let folded = fold(c).encode_utf8(&mut octets);
                    self.text.extend_from_slice(folded.as_bytes());
                    self.is_behind_space = false;
                }
                // A few words in ASCII between others are not worth the change.
                if c.is_ascii() {
                    break;
                }
            }
            rest = chars.as_str();
            if rest.is_empty() {
                return;
            }
        }
    }

    /// In blocks, of which most have no white space that goes: then the work is the same for every octet, and the compiler does
    /// it for all of a block at once. With one octet at a time, this was half of what a search in bodies costs.
    fn push_ascii(&mut self, ascii: &[u8]) {
        let start = self.text.len();
        self.text.resize(start + ascii.len(), 0);
        let out = &mut self.text[start..];
        let mut count = 0;
        let mut is_behind_space = self.is_behind_space;
        let (blocks, rest) = ascii.as_chunks::<BLOCK_OCTETS>();
        for block in blocks {
            let folded = block.map(fold_ascii);
            // One octet each, so that a shift is a step to the neighbour.
            let spaces = u128::from_le_bytes(folded.map(|octet| u8::from(octet == b' ')));
            let behind_spaces = spaces << 8 | u128::from(is_behind_space);
            if spaces & behind_spaces == 0 {
                out[count..count + BLOCK_OCTETS].copy_from_slice(&folded);
                count += BLOCK_OCTETS;
            } else {
                count = compact(&folded, is_behind_space, out, count);
            }
            is_behind_space = folded[BLOCK_OCTETS - 1] == b' ';
        }
        for octet in rest {
            let folded = [fold_ascii(*octet)];
            count = compact(&folded, is_behind_space, out, count);
            is_behind_space = folded[0] == b' ';
        }
        self.is_behind_space = is_behind_space;
        self.text.truncate(start + count);
    }
}

/// White space as a space, letters as small ones.
fn fold_ascii(octet: u8) -> u8 {
    // As `char::is_whitespace`: tab, line feed, vertical tab, form feed, carriage return, space.
    match octet.wrapping_sub(b'\t') < 5 {
        true => b' ',
        false => octet.to_ascii_lowercase(),
    }
}

/// Writes every octet and counts those that stay: without a branch an octet.
fn compact(folded: &[u8], mut is_behind_space: bool, out: &mut [u8], mut count: usize) -> usize {
    for octet in folded {
        out[count] = *octet;
        let is_space = *octet == b' ';
        count += usize::from(!(is_space && is_behind_space));
        is_behind_space = is_space;
    }
    count
}

/// Strings that are looked for in one text after the other.
#[derive(Debug)]
pub(in super::super) struct Needles {
    finders: Vec<Finder<'static>>,
    found: Vec<bool>,
    /// What a string could begin in that goes on in the next piece.
    folded: Folded,
    keep_octets: usize,
}

impl Needles {
    /// Of folded strings.
    pub(in super::super) fn new<'n>(folded: impl IntoIterator<Item = &'n str>) -> Self {
        let finders: Vec<_> = folded
            .into_iter()
            .map(|needle| Finder::new(needle).into_owned())
            .collect();
        let longest = finders.iter().map(|finder| finder.needle().len()).max();
        Self {
            found: finders.iter().map(|f| f.needle().is_empty()).collect(),
            finders,
            folded: Folded::default(),
            keep_octets: longest.unwrap_or(0).saturating_sub(1),
        }
    }

    /// Looks into the next piece of a text, for those of which `is_wanted` says so.
    pub(in super::super) fn push(&mut self, piece: &str, is_wanted: impl Fn(usize) -> bool) {
        self.folded.push(piece);
        let text = &mut self.folded.text;
        for (at, finder) in self.finders.iter().enumerate() {
            if !self.found[at] && is_wanted(at) {
                self.found[at] = finder.find(text).is_some();
            }
        }
        let mut keep = text.len().saturating_sub(self.keep_octets);
        // Not within a character.
        while text.get(keep).is_some_and(|octet| octet & 0xc0 == 0x80) {
            keep -= 1;
        }
        text.drain(..keep);
    }

    /// Nothing was found yet.
    pub(in super::super) fn begin(&mut self) {
        self.end_text();
        for (found, finder) in self.found.iter_mut().zip(&self.finders) {
            *found = finder.needle().is_empty();
        }
    }

    /// The text ends: no string goes on in the next one.
    pub(in super::super) fn end_text(&mut self) {
        self.folded.again("");
    }

    /// Whether each was found.
    pub(in super::super) fn found(&self) -> &[bool] {
        &self.found
    }

    /// Whether there is nothing left to look for.
    pub(in super::super) fn is_done(&self) -> bool {
        self.found.iter().all(|found| *found)
    }
}

/// Simple case folding: to capitals, then to small letters, where that is one letter each.
fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let upper = alone(c.to_uppercase()).unwrap_or(c);
    alone(upper.to_lowercase()).unwrap_or(upper)
}

fn alone(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// Text for SORT to compare. The same texts are equal as are folded; in i;unicode-casemap they are ordered as capitals are,
/// which puts `[` and `_` behind the letters.
pub(in super::super) fn collated(text: &str) -> String {
    let folded = Folded::of(text);
    folded
        .chars()
        .map(|c| alone(c.to_uppercase()).unwrap_or(c))
        .collect()
}

/// As wide as the registers that every x86-64 has.
const BLOCK_OCTETS: usize = 16;

/// Characters that are not seen: soft hyphen, zero width space, byte order mark.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_white_space_make_no_difference() {
        for (one, other) in [
            ("ÄPFEL", "äpfel"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("a \r\n\t b", "A B"),
            ("Привет", "ПРИВЕТ"),
            ("straße", "STRAßE"),
            ("so\u{ad}ft", "Soft"),
        ] {
            assert_eq!(Folded::of(one), Folded::of(other));
        }
        assert_ne!(Folded::of("a"), Folded::of("ä"));
    }

    #[test]
    fn blocks_are_folded_as_single_characters_are() {
        let mut state = 1_u32;
        for length in 0..200 {
            let mut text = String::new();
            for _ in 0..length {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let chars = [
                    "A", "z", " ", "\t", "\r\n", "@", "[", "\u{7f}", "é", "0", "\0", "\x08", "\x0e",
                ];
                text.push_str(chars[(state >> 24) as usize % chars.len()]);
            }
            let mut naive = String::new();
            for c in text.chars() {
                match c.is_whitespace() {
                    true if naive.ends_with(' ') => {}
                    true => naive.push(' '),
                    false => naive.push(fold(c)),
                }
            }
            assert_eq!(Folded::of(&text), naive);
        }
    }

    #[test]
    fn texts_are_ordered_as_capitals() {
        let mut texts = ["_", "b", "[x]", "A", "ä", "Z", "1"];
        texts.sort_by_key(|text| collated(text));
        assert_eq!(texts, ["1", "A", "b", "Z", "[x]", "_", "ä"]);
        assert_eq!(collated("Straße \r\n x"), collated("STRAßE X"));
    }

    #[test]
    fn strings_are_found_over_the_ends_of_pieces_but_not_of_texts() {
        let text = "Ein Männlein\r\nsteht im Walde";
        for size in 1..text.chars().count() {
            let chars: Vec<char> = text.chars().collect();
            let folded = ["männlein steht", "walde", "ein walde", "x", ""];
            let mut needles = Needles::new(folded);
            for piece in chars.chunks(size) {
                needles.push(&piece.iter().collect::<String>(), |at| at != 1);
            }
            assert_eq!(needles.found(), [true, false, false, false, true]);
            needles.end_text();
            needles.push("steht", |_| true);
            needles.end_text();
            needles.push("x", |_| true);
            assert_eq!(needles.found(), [true, false, false, true, true]);
        }
    }
}
