//! One command with its literals in their places.

use std::fmt;
use std::ops::Range;

use super::super::chars::is_tag_char;
use super::announcement::Announcement;

/// A command's lines without CRLF, each literal's octets behind its
/// announcement. Literals are known by place, so that a `{3}` inside a quoted
/// string or another literal is never one.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Frame {
    octets: Vec<u8>,
    literals: Vec<Literal>,
    literal_octets: usize,
    /// Where the announcement of the message stands that ends it.
    message: Option<Literal>,
}

/// A literal's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Literal {
    /// Where its announcement begins.
    pub(crate) announced_at: usize,
    pub(crate) content: Range<usize>,
    pub(crate) binary: bool,
}

impl Frame {
    /// A command of one line, for whoever has it whole: tests, benches.
    pub fn line(text: &[u8]) -> Self {
        let mut frame = Self::default();
        frame.push_text(text);
        frame
    }

    /// The tag, if it begins with a valid one that a space has ended: a line that
    /// was cut off may have no tag at all.
    pub fn tag(&self) -> Option<&str> {
        let end = self.octets.iter().position(|octet| *octet == b' ')?;
        let tag = &self.octets[..end];
        let is_tag = !tag.is_empty() && tag.iter().copied().all(is_tag_char);
        is_tag.then(|| std::str::from_utf8(tag).ok()).flatten()
    }

    /// Whether it has no octet.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Everything, announcements and literals included.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The literal announced here.
    pub(crate) fn literal_at(&self, at: usize) -> Option<&Literal> {
        let found = self
            .literals
            .binary_search_by_key(&at, |literal| literal.announced_at);
        found.ok().map(|index| &self.literals[index])
    }

    /// The announcement of the message that ends it.
    pub(crate) fn message(&self) -> Option<&Literal> {
        self.message.as_ref()
    }

    pub(super) fn text_length(&self) -> usize {
        self.octets.len() - self.literal_octets
    }

    pub(super) fn literal_octets(&self) -> usize {
        self.literal_octets
    }

    pub(super) fn push_text(&mut self, text: &[u8]) {
        self.octets.extend_from_slice(text);
    }

    /// The text since the last literal.
    pub(super) fn last_line(&self) -> &[u8] {
        let start = self
            .literals
            .last()
            .map_or(0, |literal| literal.content.end);
        &self.octets[start..]
    }

    /// The line just pushed announces a literal; its octets come next.
    pub(super) fn begin_literal(&mut self, announcement: Announcement) {
        self.literals.push(self.announced(announcement));
    }

    pub(super) fn push_literal(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
        self.literal_octets += octets.len();
        if let Some(literal) = self.literals.last_mut() {
            literal.content.end = self.octets.len();
        }
    }

    /// The line just pushed announces a message.
    pub(super) fn end_with_message(&mut self, announcement: Announcement) {
        self.message = Some(self.announced(announcement));
    }

    fn announced(&self, announcement: Announcement) -> Literal {
        let end = self.octets.len();
        Literal {
            announced_at: end - announcement.length,
            content: end..end,
            binary: announcement.binary,
        }
    }

    /// Whether the literal announced at its end is a message: in APPEND and
    /// REPLACE, where the mailbox's name was already given. Nothing but words
    /// is looked at; a wrong guess ends in a syntax error, at the right edge.
    pub(super) fn awaits_message(&self, announcement: Announcement) -> bool {
        let text_end = self.octets.len() - announcement.length;
        let text = match self.literals.first() {
            Some(first) => &self.octets[..first.announced_at],
            None => &self.octets[..text_end],
        };
        let mut words = text
            .split(|octet| *octet == b' ')
            .filter(|word| !word.is_empty());
        let mut verb = words.nth(1);
        if verb.is_some_and(|verb| verb.eq_ignore_ascii_case(b"UID")) {
            verb = words.next();
        }
        // Arguments up to and including the mailbox's name.
        let named = match verb {
            Some(verb) if verb.eq_ignore_ascii_case(b"APPEND") => 1,
            Some(verb) if verb.eq_ignore_ascii_case(b"REPLACE") => 2,
            _ => return false,
        };
        words.count() + self.literals.len() >= named
    }
}

/// What a client sends is its own: a late LOGIN has a password.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("octets", &self.octets.len())
            .field("literals", &self.literals.len())
            .finish()
    }
}
