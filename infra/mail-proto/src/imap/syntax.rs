//! A command's octets with their literals, and the few words a login needs.
//! RFC 9051 §4, §9.

use std::borrow::Cow;
use std::ops::Range;

use super::framing::announcement::Announcement;
use crate::password::wipe;

/// One command being gathered: its lines without their CRLF, each literal's
/// octets in its place behind its announcement. Wiped when dropped or cleared.
#[derive(Debug, Default)]
pub(super) struct CommandText {
    octets: Vec<u8>,
    literals: Vec<Literal>,
    literal_octets: usize,
}

#[derive(Debug)]
struct Literal {
    /// Where its announcement `{n}` begins.
    announced_at: usize,
    content: Range<usize>,
}

impl CommandText {
    /// Octets outside literals.
    pub(super) fn text_length(&self) -> usize {
        self.octets.len() - self.literal_octets
    }

    pub(super) fn literal_count(&self) -> usize {
        self.literals.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(super) fn push_line(&mut self, line: &[u8]) {
        self.push(line);
    }

    /// The line pushed last announced a literal; its octets come next.
    pub(super) fn begin_literal(&mut self, announcement: Announcement) {
        let end = self.octets.len();
        self.literals.push(Literal {
            // A literal8 is none before the login: its tilde stays, and is no word.
            announced_at: end - announcement.length + usize::from(announcement.binary),
            content: end..end,
        });
    }

    pub(super) fn push_literal(&mut self, octets: &[u8]) {
        self.push(octets);
        self.literal_octets += octets.len();
        if let Some(literal) = self.literals.last_mut() {
            literal.content.end = self.octets.len();
        }
    }

    pub(super) fn clear(&mut self) {
        wipe(&mut self.octets);
        self.octets.clear();
        self.octets.shrink_to(IDLE_MAX);
        self.literals.clear();
        self.literal_octets = 0;
    }

    /// Grows in its own way: a plain `Vec` would leave a copy of the password
    /// behind in freed memory.
    fn push(&mut self, octets: &[u8]) {
        if self.octets.capacity() - self.octets.len() < octets.len() {
            let mut larger = Vec::with_capacity((self.octets.len() + octets.len()) * 2);
            larger.extend_from_slice(&self.octets);
            wipe(&mut self.octets);
            self.octets = larger;
        }
        self.octets.extend_from_slice(octets);
    }

    /// The tag, if there is a valid one, and the words behind it.
    pub(super) fn split_tag(&self) -> (Option<&str>, Words<'_>) {
        let end = self
            .octets
            .iter()
            .position(|octet| *octet == b' ')
            .unwrap_or(self.octets.len());
        let tag = std::str::from_utf8(&self.octets[..end]).ok();
        let is_tag = |tag: &&str| {
            !tag.is_empty()
                && tag
                    .bytes()
                    .all(|octet| is_astring_char(octet) && octet != b'+')
        };
        (
            tag.filter(is_tag),
            Words {
                text: self,
                at: end,
            },
        )
    }
}

impl Drop for CommandText {
    fn drop(&mut self) {
        wipe(&mut self.octets);
    }
}

/// Reads a command's words, one after the other.
pub(super) struct Words<'a> {
    text: &'a CommandText,
    at: usize,
}

impl<'a> Words<'a> {
    /// Spaces and an atom behind them.
    pub(super) fn atom(&mut self) -> Option<&'a str> {
        self.spaces()?;
        self.bare(is_astring_char)
            .and_then(|octets| std::str::from_utf8(octets).ok())
    }

    /// Spaces and a word, quoted string or literal behind them: a user name or a
    /// password. What an atom cannot hold passes too; see [`crate::quirks`].
    pub(super) fn astring(&mut self) -> Option<Cow<'a, [u8]>> {
        self.spaces()?;
        match self.text.octets.get(self.at)? {
            b'"' => self.quoted().map(Cow::Owned),
            b'{' => {
                let literal = self
                    .text
                    .literals
                    .iter()
                    .find(|literal| literal.announced_at == self.at)?;
                self.at = literal.content.end;
                Some(Cow::Borrowed(&self.text.octets[literal.content.clone()]))
            }
            _ => {
                let is_part = |octet: u8| !matches!(octet, 0..=b' ' | b'{' | 0x7f);
                self.bare(is_part).map(Cow::Borrowed)
            }
        }
    }

    /// Spaces and everything behind them, if there is something.
    pub(super) fn rest(&mut self) -> Option<&'a [u8]> {
        self.spaces()?;
        let rest = self.text.octets[self.at..].trim_ascii_end();
        self.at = self.text.octets.len();
        (!rest.is_empty()).then_some(rest)
    }

    /// Whether nothing is left but spaces.
    pub(super) fn is_at_end(&self) -> bool {
        let rest = &self.text.octets[self.at..];
        rest.iter().all(|octet| *octet == b' ')
    }

    fn spaces(&mut self) -> Option<()> {
        let rest = &self.text.octets[self.at..];
        let count = rest.iter().take_while(|octet| **octet == b' ').count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn bare(&mut self, is_part: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = &self.text.octets[self.at..];
        let length = rest.iter().take_while(|octet| is_part(**octet)).count();
        self.at += length;
        (length > 0).then_some(&rest[..length])
    }

    /// 8-bit octets pass: RFC 9051 allows UTF-8 there, and passwords have it.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let rest = &self.text.octets[self.at + 1..];
        let mut content = Vec::new();
        let mut octets = rest.iter().enumerate().peekable();
        while let Some((index, octet)) = octets.next() {
            match octet {
                b'"' => {
                    self.at += index + 2;
                    return Some(content);
                }
                b'\\' => {
                    let quoted = octets.next_if(|(_, octet)| matches!(octet, b'"' | b'\\'));
                    content.push(*quoted.map_or(octet, |(_, octet)| octet));
                }
                octet => content.push(*octet),
            }
        }
        None
    }
}

/// ASTRING-CHAR, RFC 9051 §9.
fn is_astring_char(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"(){%*\"\\".contains(&octet)
}

/// Capacity kept between commands.
const IDLE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_are_read_in_all_their_forms() {
        let mut text = CommandText::default();
        text.push_line(br#"a1 LOGIN "jo\"e\\" {3}"#);
        text.begin_literal(Announcement::at_end_of(b"{3}").unwrap());
        text.push_literal(b"\" {");
        text.push_line(b" tail]");
        let (tag, mut words) = text.split_tag();
        assert_eq!((tag, words.atom()), (Some("a1"), Some("LOGIN")));
        assert_eq!(words.astring().unwrap().as_ref(), br#"jo"e\"#);
        assert_eq!(words.astring().unwrap().as_ref(), b"\" {");
        assert_eq!(words.astring().unwrap().as_ref(), b"tail]");
        assert!(words.is_at_end());
        assert_eq!(text.text_length(), br#"a1 LOGIN "jo\"e\\" {3} tail]"#.len());
    }

    #[test]
    fn broken_words_are_none() {
        for line in [&b"a \"x"[..], b"a \"x\\\"", b"a {3}", b"a \t", b"a ", b"a"] {
            let mut text = CommandText::default();
            text.push_line(line);
            assert_eq!(text.split_tag().1.astring(), None, "{line:?}");
        }
        for line in [&b""[..], b" x", b"+ x", b"a+b x", b"* x", b"\xff x"] {
            let mut text = CommandText::default();
            text.push_line(line);
            assert_eq!(text.split_tag().0, None, "{line:?}");
        }
    }
}
