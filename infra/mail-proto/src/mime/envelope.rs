//! The ENVELOPE of a message. RFC 9051 §7.5.2.

use std::borrow::Cow;

use super::ADDRESSES_MAX;
use super::address::{AddressEntry, Addresses, Mailbox};
use super::header::{Fields, unfold};
use super::string::Dialect;
use super::structure::{put_number, put_string, take_number, take_string};

/// The fields of a header that make the ENVELOPE, unfolded.
///
/// Of Date, Subject, In-Reply-To and Message-ID that come twice the last
/// counts, as in other servers; address fields are taken together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// In the order of `FIELDS`. Address fields that came twice are joined
    /// with LF, which no unfolded value holds.
    values: [Option<Cow<'a, [u8]>>; FIELDS.len()],
}

impl<'a> Envelope<'a> {
    /// Reads the fields of a header block.
    pub fn read(block: &'a [u8]) -> Self {
        let mut values: [Option<Cow<'a, [u8]>>; FIELDS.len()] = Default::default();
        for field in Fields::new(block) {
            let Some(at) = FIELDS.iter().position(|(name, _)| field.is(name)) else {
                continue;
            };
            let value = unfold(field.value);
            match &mut values[at] {
                Some(before) if FIELDS[at].1 == Form::Addresses => {
                    let joined = before.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(&value);
                }
                place => *place = Some(value),
            }
        }
        Self { values }
    }

    /// Appends the value of the FETCH item ENVELOPE, ready to send. It is valid
    /// grammar whatever the mail holds.
    pub fn write(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let mut left = ADDRESSES_MAX;
        out.push(b'(');
        for (at, (_, form)) in FIELDS.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            let value = self.values[at].as_deref();
            match form {
                Form::Text => dialect.nstring(value, out),
                Form::Addresses => {
                    let written = write_list(value, dialect, &mut left, out);
                    // RFC 9051 §7.5.2: without them it is From.
                    if !written && matches!(at, SENDER | REPLY_TO) {
                        let from = self.values[FROM].as_deref();
                        out.truncate(out.len() - b"NIL".len());
                        write_list(from, dialect, &mut left, out);
                    }
                }
            }
        }
        out.push(b')');
    }

    /// The form kept in a structure: bits of the fields present, their values.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let bits = self
            .values
            .iter()
            .rev()
            .fold(0, |bits, value| bits << 1 | u64::from(value.is_some()));
        put_number(bits, &mut octets);
        for value in self.values.iter().flatten() {
            put_string(value, &mut octets);
        }
        octets
    }

    /// Reads what `to_bytes` gave; what is missing is not there.
    pub(super) fn from_bytes(mut octets: &'a [u8]) -> Self {
        let bits = take_number(&mut octets).unwrap_or(0);
        let mut values: [Option<Cow<'a, [u8]>>; FIELDS.len()] = Default::default();
        for (at, value) in values.iter_mut().enumerate() {
            if bits >> at & 1 == 1 {
                *value = take_string(&mut octets).map(Cow::Borrowed);
            }
        }
        Self { values }
    }
}

/// Appends a list of addresses, or NIL if there is none; true if there is.
fn write_list(value: Option<&[u8]>, dialect: Dialect, left: &mut usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for list in value.unwrap_or_default().split(|octet| *octet == b'\n') {
        let mut group_is_open = false;
        for entry in Addresses::new(list) {
            // The end of a group is written even over the limit.
            let closes = entry == AddressEntry::GroupEnd && group_is_open;
            if *left == 0 && !closes {
                if group_is_open {
                    write_address(&[None, None, None, None], dialect, out);
                }
                break;
            }
            *left = left.saturating_sub(1);
            if out.len() == start {
                out.push(b'(');
            }
            write_entry(&entry, dialect, out);
            group_is_open = match entry {
                AddressEntry::Mailbox(_) => group_is_open,
                AddressEntry::GroupStart(_) => true,
                AddressEntry::GroupEnd => false,
            };
        }
    }
    let written = out.len() > start;
    out.extend_from_slice(if written { b")" } else { b"NIL" });
    written
}

fn write_entry(entry: &AddressEntry, dialect: Dialect, out: &mut Vec<u8>) {
    let parts = match entry {
        AddressEntry::Mailbox(Mailbox {
            name,
            route,
            local,
            domain,
        }) => [
            name.as_deref(),
            route.as_deref(),
            // NIL here would mean a group.
            Some(local.as_deref().unwrap_or(MISSING_LOCAL)),
            Some(domain.as_deref().unwrap_or(MISSING_DOMAIN)),
        ],
        AddressEntry::GroupStart(name) => [None, None, Some(&name[..]), None],
        AddressEntry::GroupEnd => [None, None, None, None],
    };
    write_address(&parts, dialect, out);
}

fn write_address(parts: &[Option<&[u8]>; 4], dialect: Dialect, out: &mut Vec<u8>) {
    out.push(b'(');
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        dialect.nstring(*part, out);
    }
    out.push(b')');
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Addresses,
}

/// The fields, in the order of the ENVELOPE.
const FIELDS: [(&str, Form); 10] = [
    ("Date", Form::Text),
    ("Subject", Form::Text),
    ("From", Form::Addresses),
    ("Sender", Form::Addresses),
    ("Reply-To", Form::Addresses),
    ("To", Form::Addresses),
    ("Cc", Form::Addresses),
    ("Bcc", Form::Addresses),
    ("In-Reply-To", Form::Text),
    ("Message-ID", Form::Text),
];
const FROM: usize = 2;
const SENDER: usize = 3;
const REPLY_TO: usize = 4;
/// What clients know from other servers for an address without them; neither
/// can be a real one, for `_` is in no domain.
const MISSING_LOCAL: &[u8] = b"MISSING_MAILBOX";
const MISSING_DOMAIN: &[u8] = b"MISSING_DOMAIN";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(block: &[u8], dialect: Dialect) -> String {
        let envelope = Envelope::read(block);
        assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), envelope);
        let mut out = Vec::new();
        envelope.write(dialect, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn an_envelope_is_written_ready_to_send() {
        let block = "Date: today\r\nSubject: a\r\n b \"é\"\r\nFrom: Joe <joe@x.test>\r\n\
            To: root\r\nTO: g: a@b;\r\nCc:\r\nsubject : c\"é\"\r\nMessage-ID: <1@x>\r\n\r\nBcc: x@y";
        let joe = "((\"Joe\" NIL \"joe\" \"x.test\"))";
        let to = "((NIL NIL \"root\" \"MISSING_DOMAIN\")(NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL NIL NIL))";
        assert_eq!(
            written(block.as_bytes(), Dialect::Utf8),
            format!("(\"today\" \"c\\\"é\\\"\" {joe} {joe} {joe} {to} NIL NIL NIL \"<1@x>\")")
        );
        assert_eq!(
            written(block.as_bytes(), Dialect::Rev1),
            format!("(\"today\" {{5}}\r\nc\"é\" {joe} {joe} {joe} {to} NIL NIL NIL \"<1@x>\")")
        );
        assert_eq!(
            written(b"", Dialect::Rev1),
            "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
        );
    }

    #[test]
    fn ten_thousand_addresses_are_listed_and_no_more() {
        for (count, listed) in [(9_999, 9_999), (10_000, 10_000), (10_001, 10_000)] {
            let block = format!("To: {}\r\n", "a@b,".repeat(count));
            let shown = written(block.as_bytes(), Dialect::Rev1);
            assert_eq!(shown.matches("(NIL NIL \"a\"").count(), listed);
        }
        // A group that is cut is closed.
        let block = format!("To: g: {};\r\nCc: c@d\r\n", "a@b,".repeat(10_000));
        let shown = written(block.as_bytes(), Dialect::Rev1);
        assert_eq!(shown.matches("(NIL NIL \"a\" \"b\")").count(), 9_999);
        assert!(shown.ends_with("(NIL NIL NIL NIL)) NIL NIL NIL NIL)"));
    }
}
