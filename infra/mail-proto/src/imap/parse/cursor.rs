//! The words of a frame, one after the other.

use std::borrow::Cow;

use super::super::chars::{is_astring_char, is_atom_char, is_list_char, is_tag_char};
use super::super::framing::Frame;
use super::super::mailbox::{MailboxName, NameError, NameForm, decode_text};
use super::error::{ErrorKind, ParseError};

/// Reads a frame from front to end.
pub(super) struct Cursor<'a> {
    frame: &'a Frame,
    octets: &'a [u8],
    at: usize,
    form: NameForm,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Cursor<'a> {
    pub(super) fn new(frame: &'a Frame, form: NameForm) -> Self {
        Self {
            frame,
            octets: frame.octets(),
            at: 0,
            form,
        }
    }

    // Errors.

    pub(super) fn expected(&self, expected: &'static str) -> ParseError {
        self.error(self.at, expected, ErrorKind::Syntax)
    }

    /// Something was read and turned out wrong: the place is where it began.
    pub(super) fn expected_from(&self, at: usize, expected: &'static str) -> ParseError {
        self.error(at, expected, ErrorKind::Syntax)
    }

    pub(super) fn expected_at_end(&self, expected: &'static str) -> ParseError {
        self.error(self.octets.len(), expected, ErrorKind::Syntax)
    }

    pub(super) fn over_limit(&self, expected: &'static str) -> ParseError {
        self.error(self.at, expected, ErrorKind::Limit)
    }

    pub(super) fn bad_event(&self, at: usize) -> ParseError {
        self.error(at, "an event that is supported", ErrorKind::BadEvent)
    }

    pub(super) fn unknown(&self) -> ParseError {
        self.error(self.at, "a command", ErrorKind::Unknown)
    }

    fn error(&self, at: usize, expected: &'static str, kind: ErrorKind) -> ParseError {
        ParseError { at, expected, kind }
    }

    // Places.

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to a place that `at` gave.
    pub(super) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.octets.get(self.at).copied()
    }

    /// Takes one octet if it is this.
    pub(super) fn take(&mut self, octet: u8) -> bool {
        let is_it = self.peek() == Some(octet);
        self.at += usize::from(is_it);
        is_it
    }

    pub(super) fn require(&mut self, octet: u8, expected: &'static str) -> Parsed<()> {
        match self.take(octet) {
            true => Ok(()),
            false => Err(self.expected(expected)),
        }
    }

    /// One space or more. RFC: exactly one; see [`crate::quirks`].
    pub(super) fn spaces(&mut self) -> Parsed<()> {
        match self.take(b' ') {
            true => {
                self.optional_spaces();
                Ok(())
            }
            false => Err(self.expected("a space")),
        }
    }

    /// Whether what was passed last is a space.
    pub(super) fn was_space(&self) -> bool {
        self.at > 0 && self.octets.get(self.at - 1) == Some(&b' ')
    }

    pub(super) fn optional_spaces(&mut self) {
        while self.take(b' ') {}
    }

    /// Spaces, which some clients leave out before a parenthesis.
    pub(super) fn spaces_or_open(&mut self) -> Parsed<()> {
        match self.peek() {
            Some(b'(') => Ok(()),
            _ => self.spaces(),
        }
    }

    /// Whether spaces and something behind them come; takes the spaces then.
    pub(super) fn has_more(&mut self) -> bool {
        let before = self.at;
        self.optional_spaces();
        let has_more =
            self.at < self.octets.len() && (self.at > before || self.peek() == Some(b'('));
        if !has_more {
            self.at = before;
        }
        has_more
    }

    pub(super) fn end(&mut self) -> Parsed<()> {
        self.optional_spaces();
        match self.at == self.octets.len() {
            true => Ok(()),
            false => Err(self.expected("the end of the command")),
        }
    }

    // Lists.

    /// Spaces and `(`.
    pub(super) fn open(&mut self) -> Parsed<()> {
        self.optional_spaces();
        self.require(b'(', "an opening parenthesis")?;
        self.optional_spaces();
        Ok(())
    }

    /// Behind `(` or an item: whether another item comes; takes what separates
    /// them, or the `)`.
    pub(super) fn next_in_list(&mut self, is_first: bool) -> Parsed<bool> {
        let before = self.at;
        self.optional_spaces();
        if self.take(b')') {
            return Ok(false);
        }
        let is_separated = is_first || self.at > before || self.peek() == Some(b'(');
        match is_separated && self.at < self.octets.len() {
            true => Ok(true),
            false => Err(self.expected("a space or a closing parenthesis")),
        }
    }

    /// A list in parentheses, read item by item. May be empty.
    pub(super) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.open()?;
        let mut is_first = true;
        while self.next_in_list(is_first)? {
            item(self)?;
            is_first = false;
        }
        Ok(())
    }

    // Words.

    fn run(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.octets[self.at..];
        let length = rest
            .iter()
            .position(|octet| !is_part(*octet))
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn word(&mut self, expected: &'static str, is_part: impl Fn(u8) -> bool) -> Parsed<&'a str> {
        let start = self.at;
        let word = self.run(is_part);
        match std::str::from_utf8(word) {
            Ok(word) if !word.is_empty() => Ok(word),
            _ => Err(self.expected_from(start, expected)),
        }
    }

    pub(super) fn tag(&mut self) -> Parsed<&'a str> {
        let tag = self.word("a tag", is_tag_char)?;
        match self.peek() {
            None | Some(b' ') => Ok(tag),
            Some(_) => Err(self.expected("a space behind the tag")),
        }
    }

    pub(super) fn atom(&mut self, expected: &'static str) -> Parsed<&'a str> {
        self.word(expected, is_atom_char)
    }

    /// The word that says which command: short, letters only.
    pub(super) fn verb(&mut self) -> Parsed<Cow<'a, str>> {
        let verb = self.word("a command", |octet| octet.is_ascii_alphabetic())?;
        Ok(match verb.bytes().any(|octet| octet.is_ascii_lowercase()) {
            true => Cow::Owned(verb.to_ascii_uppercase()),
            false => Cow::Borrowed(verb),
        })
    }

    /// An item's name: letters, digits, dots, dashes. In capitals.
    pub(super) fn name(&mut self, expected: &'static str) -> Parsed<Cow<'a, str>> {
        let is_part = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-');
        let name = self.word(expected, is_part)?;
        Ok(match name.bytes().any(|octet| octet.is_ascii_lowercase()) {
            true => Cow::Owned(name.to_ascii_uppercase()),
            false => Cow::Borrowed(name),
        })
    }

    /// Takes this word, in any case, if it stands here as a whole.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let end = self.at + word.len();
        let is_it = self
            .octets
            .get(self.at..end)
            .is_some_and(|octets| octets.eq_ignore_ascii_case(word.as_bytes()))
            && !self.octets.get(end).copied().is_some_and(is_atom_char);
        if is_it {
            self.at = end;
        }
        is_it
    }

    // Numbers.

    pub(super) fn digits(&mut self) -> &'a [u8] {
        self.run(|octet| octet.is_ascii_digit())
    }

    /// Passes over whatever a time of day and a zone are made of.
    pub(super) fn pass_clock(&mut self) {
        self.run(|octet| octet.is_ascii_digit() || b" :+-".contains(&octet));
    }

    pub(super) fn letters(&mut self) -> &'a [u8] {
        self.run(|octet| octet.is_ascii_alphabetic())
    }

    /// A number of at most 64 bits.
    pub(super) fn number64(&mut self, expected: &'static str) -> Parsed<u64> {
        let start = self.at;
        let digits = self.digits();
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| self.expected_from(start, expected))
    }

    pub(super) fn number(&mut self, expected: &'static str) -> Parsed<u32> {
        let start = self.at;
        u32::try_from(self.number64(expected)?).map_err(|_| self.expected_from(start, expected))
    }

    pub(super) fn positive(&mut self, expected: &'static str) -> Parsed<u32> {
        let start = self.at;
        match self.number(expected)? {
            0 => Err(self.expected_from(start, expected)),
            number => Ok(number),
        }
    }

    /// A modification sequence: at most 63 bits. RFC 7162 §7.
    pub(super) fn modseq(&mut self) -> Parsed<u64> {
        let start = self.at;
        let modseq = self.number64("a modification sequence")?;
        match i64::try_from(modseq) {
            Ok(_) => Ok(modseq),
            Err(_) => Err(self.expected_from(start, "a modification sequence")),
        }
    }

    // Strings.

    /// Quoted or literal.
    pub(super) fn string(&mut self, expected: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(expected, false),
            _ => Err(self.expected(expected)),
        }
    }

    /// String or literal8. RFC 5464's values.
    pub(super) fn string8(&mut self, expected: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'~') => self.literal(expected, true),
            _ => self.string(expected),
        }
    }

    /// Atom, quoted or literal. 8-bit octets pass; see [`crate::quirks`].
    pub(super) fn astring(&mut self, expected: &'static str) -> Parsed<Cow<'a, [u8]>> {
        self.string_or(expected, |octet| is_astring_char(octet) || octet >= 0x80)
    }

    /// An astring that must be UTF-8.
    pub(super) fn astring_text(&mut self, expected: &'static str) -> Parsed<String> {
        let start = self.at;
        String::from_utf8(self.astring(expected)?.into_owned())
            .map_err(|_| self.expected_from(start, expected))
    }

    fn string_or(
        &mut self,
        expected: &'static str,
        is_part: impl Fn(u8) -> bool,
    ) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(expected),
            _ => match self.run(is_part) {
                [] => Err(self.expected(expected)),
                word => Ok(Cow::Borrowed(word)),
            },
        }
    }

    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let start = self.at;
        let octets = self.quoted_octets()?;
        // RFC 6855 §3: who may send UTF-8 may send nothing else.
        match self.form == NameForm::Utf8 && std::str::from_utf8(&octets).is_err() {
            true => Err(self.expected_from(start, "a quoted string in UTF-8")),
            false => Ok(octets),
        }
    }

    fn quoted_octets(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let start = self.at + 1;
        let rest = &self.octets[start..];
        let mut copied: Option<Vec<u8>> = None;
        let mut index = 0;
        loop {
            match rest.get(index) {
                Some(b'"') => {
                    self.at = start + index + 1;
                    return Ok(copied.map_or(Cow::Borrowed(&rest[..index]), Cow::Owned));
                }
                Some(b'\\') => {
                    let copied = copied.get_or_insert_with(|| rest[..index].to_vec());
                    match rest.get(index + 1) {
                        Some(quoted @ (b'"' | b'\\')) => {
                            copied.push(*quoted);
                            index += 2;
                        }
                        _ => {
                            copied.push(b'\\');
                            index += 1;
                        }
                    }
                }
                // A line break cannot be here, but a literal's octets can.
                Some(0 | b'\r' | b'\n') | None => {
                    return Err(self.expected_from(start + index, "a closing quote"));
                }
                Some(octet) => {
                    if let Some(copied) = &mut copied {
                        copied.push(*octet);
                    }
                    index += 1;
                }
            }
        }
    }

    fn literal(&mut self, expected: &'static str, may_be_binary: bool) -> Parsed<Cow<'a, [u8]>> {
        let start = self.at;
        let literal = self
            .frame
            .literal_at(self.at)
            .filter(|literal| may_be_binary || !literal.binary)
            .ok_or_else(|| self.expected(expected))?;
        let content = &self.octets[literal.content.clone()];
        // RFC 9051 §4.3: only a literal8 may have it.
        if !literal.binary && memchr::memchr(0, content).is_some() {
            return Err(self.expected_from(start, "a literal without NUL"));
        }
        self.at = literal.content.end;
        Ok(Cow::Borrowed(content))
    }

    /// The announcement of the message that ends the frame; whether it may
    /// hold NUL.
    pub(super) fn message(&mut self) -> Parsed<bool> {
        match self.frame.message() {
            Some(message) if message.announced_at == self.at => {
                self.at = self.octets.len();
                Ok(message.binary)
            }
            _ => Err(self.expected("a literal with the message")),
        }
    }

    // Names of mailboxes.

    pub(super) fn mailbox(&mut self) -> Parsed<MailboxName> {
        let start = self.at;
        let octets = self.astring("a mailbox name")?;
        MailboxName::decode(&octets, self.form).map_err(|error| self.name_error(start, error))
    }

    pub(super) fn spaced_mailbox(&mut self) -> Parsed<MailboxName> {
        self.spaces()?;
        self.mailbox()
    }

    /// A mailbox's name, or the empty one that means the server.
    pub(super) fn mailbox_or_server(&mut self) -> Parsed<Option<MailboxName>> {
        let start = self.at;
        let octets = self.astring("a mailbox name")?;
        match MailboxName::decode(&octets, self.form) {
            Ok(name) => Ok(Some(name)),
            Err(NameError::Empty) => Ok(None),
            Err(error) => Err(self.name_error(start, error)),
        }
    }

    /// LIST's reference.
    pub(super) fn reference(&mut self) -> Parsed<String> {
        let start = self.at;
        let octets = self.astring("a reference name")?;
        decode_text(&octets, self.form).map_err(|error| self.name_error(start, error))
    }

    /// LIST's pattern.
    pub(super) fn pattern(&mut self) -> Parsed<String> {
        let start = self.at;
        let octets = self.string_or("a mailbox pattern", |octet| {
            is_list_char(octet) || octet >= 0x80
        })?;
        match decode_text(&octets, self.form) {
            // No name is like that, and the answer to that is an empty list.
            Err(NameError::Encoding) => Ok(String::from_utf8_lossy(&octets).into_owned()),
            text => text.map_err(|error| self.name_error(start, error)),
        }
    }

    fn name_error(&self, at: usize, error: NameError) -> ParseError {
        match error {
            NameError::TooLong => self.error(
                at,
                "a mailbox name of at most 1024 octets",
                ErrorKind::Limit,
            ),
            NameError::Empty => self.expected_from(at, "a mailbox name that is not empty"),
            NameError::Encoding => self.error(
                at,
                "a mailbox name in modified UTF-7 or UTF-8",
                ErrorKind::Name,
            ),
            NameError::Control => self.error(
                at,
                "a mailbox name without control characters",
                ErrorKind::Name,
            ),
        }
    }
}
