//! Mailbox names and patterns as they travel: modified UTF-7 or UTF-8.
//! RFC 3501 §5.1.3, RFC 9051 §5.1, RFC 6855 §3.
//!
//! New names are Net-Unicode (RFC 5198): composed (NFC), so that two names that look the same are one, and without
//! characters that nobody can see or type. A name is read as it was sent all the same, for a mailbox may have been made
//! by a server that was less strict; what it stands for is found by [`composed`].

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// A mailbox's name in UTF-8; `INBOX` in capitals however it was sent. At most
/// 1,024 octets, no control characters, not empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailboxName(String);

/// How names travel on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameForm {
    /// Modified UTF-7: what every client knows.
    #[default]
    Utf7,
    /// UTF-8: once `UTF8=ACCEPT` or `IMAP4rev2` was enabled.
    Utf8,
}

/// Why octets are no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("mailbox name is empty")]
    Empty,
    /// Over [`MailboxName::OCTETS_MAX`].
    #[error("mailbox name is too long")]
    TooLong,
    /// Neither valid modified UTF-7 nor UTF-8.
    #[error("mailbox name is not valid modified UTF-7 or UTF-8")]
    Encoding,
    /// A control character, which no client could show or type again.
    #[error("mailbox name has a control character")]
    Control,
}

impl MailboxName {
    /// DESIGN, limits: mailbox name.
    pub const OCTETS_MAX: usize = 1024;

    /// The name in UTF-8.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        Ok(Self(with_inbox(checked(name.to_owned())?)))
    }

    /// Reads a name as sent.
    ///
    /// 8-bit UTF-8 passes in either form, since clients send it without asking
    /// (see [`crate::quirks`]).
    ///
    /// # Errors
    /// [`NameError`].
    pub fn decode(octets: &[u8], form: NameForm) -> Result<Self, NameError> {
        if octets.is_empty() {
            return Err(NameError::Empty);
        }
        decode_text(octets, form).map(Self)
    }

    /// The name in UTF-8.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it travels, before quoting.
    pub fn encode(&self, form: NameForm) -> String {
        encode_text(&self.0, form)
    }

    /// Whether it has characters that nobody can see or type: then no mailbox may be made with it. RFC 9051 §5.1.
    pub fn has_hidden(&self) -> bool {
        self.0.chars().any(is_hidden)
    }

    /// Whether it is INBOX itself.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a reference or pattern of LIST, which may be empty and may hold
/// wildcards, into UTF-8. A whole first level `inbox` becomes `INBOX`; matching
/// `inb*` is the caller's.
///
/// # Errors
/// [`NameError`].
pub fn decode_text(octets: &[u8], form: NameForm) -> Result<String, NameError> {
    // Either form at most triples when decoded; do not decode what is refused.
    if octets.len() > 3 * MailboxName::OCTETS_MAX {
        return Err(NameError::TooLong);
    }
    let text = std::str::from_utf8(octets).map_err(|_| NameError::Encoding)?;
    let text = checked(match form {
        NameForm::Utf8 => text.to_owned(),
        NameForm::Utf7 => decode_utf7(text).ok_or(NameError::Encoding)?,
    })?;
    Ok(with_inbox(text))
}

/// The reverse of [`decode_text`].
pub fn encode_text(text: &str, form: NameForm) -> String {
    match form {
        NameForm::Utf8 => text.to_owned(),
        NameForm::Utf7 => encode_utf7(text),
    }
}

/// A name or pattern in Normalization Form C: the one form of all those that look the same. RFC 5198 §3.
pub fn composed(text: &str) -> Cow<'_, str> {
    match is_nfc(text) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.nfc().collect()),
    }
}

/// Beside controls, which no name has: separators of lines and paragraphs (RFC 5198 §2), the byte order mark, which is no
/// part of a text (RFC 5198 §2), and what will never be a character (RFC 3629 §3 leaves them to Unicode, which reserves them).
fn is_hidden(character: char) -> bool {
    let code = u32::from(character);
    matches!(
        character,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fdd0}'..='\u{fdef}'
    ) || code & 0xfffe == 0xfffe
}

fn checked(name: String) -> Result<String, NameError> {
    if name.len() > MailboxName::OCTETS_MAX {
        return Err(NameError::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(name)
}

/// RFC 9051 §5.1: INBOX in any case is the same name, also as the root of a tree.
fn with_inbox(mut name: String) -> String {
    let is_inbox = name
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("INBOX"));
    if is_inbox && matches!(name.as_bytes().get(5), None | Some(b'/')) {
        name.replace_range(..5, "INBOX");
    }
    name
}

/// RFC 3501 §5.1.3. Strict about what two encoders could write differently
/// (padding bits, encoded ASCII, two shifts in a row), so that a name has one form.
fn decode_utf7(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(shift) = rest.find('&') {
        decoded.push_str(&rest[..shift]);
        let end = shift + rest[shift..].find('-')?;
        let run = &rest[shift + 1..end];
        rest = &rest[end + 1..];
        if run.is_empty() {
            decoded.push('&');
            continue;
        }
        let units = decode_units(run)?;
        for unit in char::decode_utf16(units) {
            let character = unit.ok()?;
            if matches!(character, ' '..='~') {
                return None;
            }
            decoded.push(character);
        }
        // `&AAA-&AAA-` should have been one run.
        if rest.starts_with('&') && !rest.starts_with("&-") {
            return None;
        }
    }
    decoded.push_str(rest);
    Some(decoded)
}

fn decode_units(run: &str) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(run.len() * 3 / 8);
    let (mut bits, mut count) = (0u32, 0u8);
    for octet in run.bytes() {
        let value = BASE64.iter().position(|letter| *letter == octet)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push(u16::try_from(bits >> count & 0xffff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0).then_some(units)
}

fn encode_utf7(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let ' '..='~' = first {
            encoded.push(first);
            if first == '&' {
                encoded.push('-');
            }
            rest = &rest[1..];
            continue;
        }
        let end = rest
            .find(|character| matches!(character, ' '..='~'))
            .unwrap_or(rest.len());
        encoded.push('&');
        let (mut bits, mut count) = (0u32, 0u8);
        for unit in rest[..end].encode_utf16() {
            bits = bits << 16 | u32::from(unit);
            count += 16;
            while count >= 6 {
                count -= 6;
                encoded.push(letter(bits >> count));
            }
            bits &= (1 << count) - 1;
        }
        if count > 0 {
            encoded.push(letter(bits << (6 - count)));
        }
        encoded.push('-');
        rest = &rest[end..];
    }
    encoded
}

fn letter(bits: u32) -> char {
    char::from(BASE64[(bits & 0x3f) as usize])
}

/// RFC 3501 §5.1.3: base-64 with `,` in place of `/`.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn utf7(text: &str) -> Result<String, NameError> {
        MailboxName::decode(text.as_bytes(), NameForm::Utf7).map(|name| name.to_string())
    }

    #[test]
    fn names_are_read_from_modified_utf7() {
        for (sent, name) in [
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),
            ("A&-B", "A&B"),
            ("Entw&APw-rfe", "Entwürfe"),
            ("&2D3eAA-", "😀"),
            ("&-&-", "&&"),
            ("Entwürfe", "Entwürfe"),
            ("inbox", "INBOX"),
            ("iNbOx/Sub", "INBOX/Sub"),
            ("inboxes", "inboxes"),
        ] {
            assert_eq!(utf7(sent).as_deref(), Ok(name));
            let again = MailboxName::new(name).unwrap().encode(NameForm::Utf7);
            assert_eq!(utf7(&again).as_deref(), Ok(name));
        }
    }

    #[test]
    fn broken_names_are_refused() {
        for (sent, why) in [
            ("", NameError::Empty),
            ("A&B", NameError::Encoding),
            ("A&", NameError::Encoding),
            ("&AGE-", NameError::Encoding), // an `a` in disguise
            ("&2D0-", NameError::Encoding), // half a surrogate pair
            ("&APw-&APw-", NameError::Encoding),
            ("&APx-", NameError::Encoding), // padding bits
            ("&A-", NameError::Encoding),
            ("&!!!-", NameError::Encoding),
            ("&AAA-", NameError::Control),
            ("a\tb", NameError::Control),
            ("\u{85}", NameError::Control),
        ] {
            assert_eq!(utf7(sent), Err(why), "{sent:?}");
        }
        assert_eq!(
            MailboxName::decode(b"\xff", NameForm::Utf8),
            Err(NameError::Encoding)
        );
    }

    #[test]
    fn new_names_are_visible_and_composed() {
        for (name, has_hidden) in [
            ("A&B ~#", false),
            ("Entw\u{fc}rfe", false),
            ("\u{53f0}\u{5317}/\u{1f4e7}\u{200d}", false),
            ("\u{fffd}", false),
            ("a\u{2028}b", true),
            ("\u{2029}", true),
            ("\u{feff}a", true),
            ("\u{fdd0}", true),
            ("\u{fdef}", true),
            ("\u{fffe}", true),
            ("\u{10ffff}", true),
        ] {
            // Whatever was made before is read.
            let name = MailboxName::new(name).unwrap();
            assert_eq!(name.has_hidden(), has_hidden, "{name:?}");
            let sent = name.encode(NameForm::Utf7);
            assert_eq!(
                MailboxName::decode(sent.as_bytes(), NameForm::Utf7),
                Ok(name)
            );
        }
        for (sent, name) in [
            ("Entwu\u{308}rfe", "Entw\u{fc}rfe"),
            ("\u{212b}/%", "\u{c5}/%"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("INBOX", "INBOX"),
        ] {
            assert_eq!(composed(sent), name);
        }
    }

    #[test]
    fn a_name_of_1024_octets_is_taken_and_one_more_refused() {
        for form in [NameForm::Utf7, NameForm::Utf8] {
            assert!(MailboxName::decode(&[b'x'; 1023], form).is_ok());
            assert!(MailboxName::decode(&[b'x'; 1024], form).is_ok());
            let more = MailboxName::decode(&[b'x'; 1025], form);
            assert_eq!(more, Err(NameError::TooLong));
        }
        assert!(MailboxName::new(&"ü".repeat(512)).is_ok());
        assert_eq!(MailboxName::new(&"ü".repeat(513)), Err(NameError::TooLong));
    }

    #[test]
    fn utf8_takes_an_ampersand_as_it_is() {
        let name = MailboxName::decode("A&B ü".as_bytes(), NameForm::Utf8).unwrap();
        assert_eq!(name.as_str(), "A&B ü");
        assert_eq!(name.encode(NameForm::Utf8), "A&B ü");
        assert_eq!(name.encode(NameForm::Utf7), "A&-B &APw-");
    }

    proptest! {
        #[test]
        fn any_name_written_is_read_the_same(name in "\\PC{1,60}") {
            for form in [NameForm::Utf7, NameForm::Utf8] {
                if let Ok(name) = MailboxName::new(&name) {
                    let sent = name.encode(form);
                    prop_assert!(form == NameForm::Utf8 || sent.is_ascii());
                    prop_assert_eq!(MailboxName::decode(sent.as_bytes(), form), Ok(name));
                }
            }
        }

        #[test]
        fn any_octets_read_as_a_name_are_written_as_one_that_reads_the_same(octets in "[&A-Za-z0-9+,-]{0,40}") {
            if let Ok(name) = MailboxName::decode(octets.as_bytes(), NameForm::Utf7) {
                let sent = name.encode(NameForm::Utf7);
                prop_assert_eq!(MailboxName::decode(sent.as_bytes(), NameForm::Utf7), Ok(name));
            }
        }
    }
}
