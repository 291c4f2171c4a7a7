//! Whether a header field holds a text. Most values are matched where they stand; only those with encoded words or octets
//! of another charset are decoded first.

use mail_proto::mime::{
    ADDRESSES_MAX, AddressEntry, Addresses, decode_words, parse_date, unfold, values_of,
};
use memchr::memmem::Finder;

use super::super::text::fold::Folded;
use crate::card;

/// What HEADER and its like look for.
#[derive(Debug)]
pub(super) struct FieldText {
    name: String,
    is_addresses: bool,
    is_kept: bool,
    /// Finds the folded text.
    finder: Finder<'static>,
    sieve: Option<Sieve>,
}

impl FieldText {
    /// A folded text in the fields of a name.
    pub(super) fn new(name: &str, folded: &str) -> Self {
        let mut addresses = ADDRESS_FIELDS.iter();
        let is_addresses = addresses.any(|one| name.eq_ignore_ascii_case(one));
        Self {
            name: name.to_owned(),
            is_kept: card::is_kept(name.as_bytes()),
            is_addresses,
            // An address is found without what stands in the middle of it.
            sieve: Sieve::new(folded).filter(|_| !is_addresses),
            finder: Finder::new(folded).into_owned(),
        }
    }

    /// Whether cards keep such fields.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether a field in one of the header blocks holds it.
    pub(super) fn is_in(&self, blocks: [&[u8]; 2], scratch: &mut Folded) -> bool {
        // RFC 9051 §6.4.4: an empty text is in every field that there is.
        let is_empty = self.finder.needle().is_empty();
        blocks.into_iter().any(|block| {
            let sieve = self.sieve.as_ref();
            sieve.is_none_or(|sieve| sieve.may_be_in(block))
                && values_of(block, &self.name)
                    .any(|value| is_empty || self.is_in_value(value, scratch))
        })
    }

    fn is_in_value(&self, value: &[u8], scratch: &mut Folded) -> bool {
        // White space around a value is none of it.
        let mut has = |text: &str| self.finder.find(scratch.again(text.trim())).is_some();
        match plain(value.trim_ascii()) {
            Some(text) => {
                if has(text) {
                    return true;
                }
            }
            None => {
                if has(&decode_words(&unfold(value))) {
                    return true;
                }
            }
        }
        // RFC 9051 §6.4.4: FROM and its like search what ENVELOPE tells. It differs where an address holds comments,
        // quotes or white space.
        self.is_addresses && {
            let value = unfold(value);
            is_written_otherwise(&value) && has(&plain_addresses(&value))
        }
    }
}

/// Tells of most header blocks that they do not hold a text, without reading a field: that is the most of what a search
/// in fields costs.
#[derive(Debug)]
struct Sieve {
    /// What must be in the block as it is, but for case. No white space: that may be written in many ways.
    run: Vec<u8>,
    /// Finds it, if it has no letters.
    finder: Option<Finder<'static>>,
    /// Where the letter in it is that mail has least.
    rare: usize,
    words: Finder<'static>,
}

impl Sieve {
    /// `None` if nothing can be told of this text.
    fn new(folded: &str) -> Option<Self> {
        let runs = folded.split(' ');
        let run = runs.max_by_key(|run| run.len())?.as_bytes();
        // A prefix will do; it bounds what one place in a block can cost.
        let run = &run[..run.len().min(RUN_MAX_OCTETS)];
        // Unfolding writes `?` for NUL.
        if run.is_empty() || run.contains(&b'?') {
            return None;
        }
        let has_letters = run.iter().any(u8::is_ascii_alphabetic);
        let rank = |at: &usize| RARE_LETTERS.iter().position(|letter| *letter == run[*at]);
        let rare = (0..run.len()).min_by_key(|at| rank(at).unwrap_or(RARE_LETTERS.len()))?;
        Some(Self {
            run: run.to_vec(),
            finder: (!has_letters).then(|| Finder::new(run).into_owned()),
            rare,
            words: Finder::new(b"=?"),
        })
    }

    /// False: it is in no field of the block. Where something has to be decoded nothing is known.
    fn may_be_in(&self, block: &[u8]) -> bool {
        self.is_written_in(block) || !block.is_ascii() || self.words.find(block).is_some()
    }

    fn is_written_in(&self, block: &[u8]) -> bool {
        if let Some(finder) = &self.finder {
            return finder.find(block).is_some();
        }
        let letter = self.run[self.rare];
        let mut places = memchr::memchr2_iter(letter, letter.to_ascii_uppercase(), block);
        places.any(|at| {
            let start = at.checked_sub(self.rare);
            let written = start.and_then(|start| block.get(start..start + self.run.len()));
            written.is_some_and(|written| written.eq_ignore_ascii_case(&self.run))
        })
    }
}

/// The value as it stands, if it reads the same once it is unfolded and decoded: folding makes a space of a line end and
/// what follows it.
fn plain(value: &[u8]) -> Option<&str> {
    // Every encoded word has a `?`, and most values have none.
    let mut signs = memchr::memchr2_iter(b'?', 0, value);
    let is_plain = signs.all(|at| value[at] == b'?' && !value[..at].ends_with(b"="));
    is_plain.then(|| std::str::from_utf8(value).ok())?
}

/// The day in the Date field, as written there.
pub(super) fn sent_day(blocks: [&[u8]; 2]) -> Option<i64> {
    let values = blocks
        .into_iter()
        .flat_map(|block| values_of(block, "Date"));
    parse_date(&unfold(values.last()?)).map(|date| date.written_day())
}

/// Whether an address in it may be written with more than its octets: a comment, or quotes or white space beside the `@`.
fn is_written_otherwise(value: &[u8]) -> bool {
    memchr::memchr2_iter(b'(', b'@', value).any(|at| {
        let before = at.checked_sub(1).and_then(|before| value.get(before));
        let is_blank = |octet: &u8| octet.is_ascii_whitespace();
        value[at] == b'('
            || before.is_some_and(|octet| *octet == b'"' || is_blank(octet))
            || value.get(at + 1).is_some_and(is_blank)
    })
}

/// The addresses alone, as `local@domain`.
fn plain_addresses(value: &[u8]) -> String {
    let mut text = Vec::new();
    for entry in Addresses::new(value).take(ADDRESSES_MAX) {
        if let AddressEntry::Mailbox(mailbox) = entry {
            text.extend_from_slice(&mailbox.local.unwrap_or_default());
            text.push(b'@');
            text.extend_from_slice(&mailbox.domain.unwrap_or_default());
            text.extend_from_slice(b", ");
        }
    }
    decode_words(&text)
}

/// Letters that headers have least, the rarest first.
const RARE_LETTERS: &[u8] = b"qzjxkwvybpfghulcdmnsrtiaoe";
/// As rare as a longer one.
const RUN_MAX_OCTETS: usize = 16;
/// Fields whose addresses are searched apart from how they are written.
const ADDRESS_FIELDS: &[&str] = &["From", "To", "Cc", "Bcc", "Sender", "Reply-To"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sieve_lets_pass_whatever_a_field_may_hold() {
        let mut scratch = Folded::default();
        for (header, text, is_held) in [
            (&b"X: Quick  brown\r\n fox\r\n"[..], "QUICK BROWN FOX", true),
            (b"X: quick\r\n", "quic", true),
            (b"X: quick\r\n", "ick", true),
            (b"Y: quick\r\n", "quick", false),
            (b"X: =?utf-8?Q?qu=69ck?=\r\n", "quick", true),
            (b"X: qu\xc3\xafck 12\r\n", "qu\u{cf}ck", true),
            (b"X: so\xc2\xadft\r\n", "soft", true),
            (b"X: a\0b\r\n", "a?b", true),
            (b"X: 12\r\n\t34\r\n", "12 34", true),
            (b"X: 12\r\nY: 34\r\n", "34", false),
            (b"X: 1234\r\n", "123 4", false),
            (b"X: \xdcber\r\n", "\u{dc}ber", true),
            (b"X:\r\n", "", true),
        ] {
            let field = FieldText::new("x", &Folded::of(text));
            assert_eq!(field.is_in([b"", header], &mut scratch), is_held, "{text}");
            assert_eq!(field.is_in([header, b""], &mut scratch), is_held, "{text}");
        }
    }
}
