//! Strings and numbers, in the form that cannot be misread. RFC 9051 §4.3, §4.6.

use super::super::chars::is_astring_char;
use super::super::command::Flag;
use super::super::mailbox::NameForm;
use crate::output::number;

/// An atom where that is enough, else a string.
pub fn astring(out: &mut Vec<u8>, octets: &[u8], form: NameForm) {
    let is_atom = !octets.is_empty()
        && octets.iter().copied().all(is_astring_char)
        // Where NIL can stand as well, it would be taken for that.
        && !octets.eq_ignore_ascii_case(b"NIL");
    match is_atom {
        true => out.extend_from_slice(octets),
        false => string(out, octets, form),
    }
}

/// Quoted, or a literal where quotes cannot hold it: CR, LF, NUL, 8-bit (UTF-8
/// aside, where that was enabled), or long. A literal cannot hold NUL either and
/// no client's grammar has a literal8 here: `?` stands for it.
pub fn string(out: &mut Vec<u8>, octets: &[u8], form: NameForm) {
    let is_plain = |octet: &u8| !matches!(octet, 0 | b'\r' | b'\n') && *octet < 0x80;
    let is_text = |octet: &u8| !matches!(octet, 0 | b'\r' | b'\n');
    let can_be_quoted = octets.len() <= QUOTED_MAX
        && match form {
            NameForm::Utf7 => octets.iter().all(is_plain),
            NameForm::Utf8 => octets.iter().all(is_text) && std::str::from_utf8(octets).is_ok(),
        };
    if can_be_quoted {
        out.push(b'"');
        for octet in octets {
            if matches!(octet, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*octet);
        }
        out.push(b'"');
    } else {
        literal_head(out, octets.len() as u64, false);
        out.extend(
            octets
                .iter()
                .map(|octet| if *octet == 0 { b'?' } else { *octet }),
        );
    }
}

/// A string or NIL.
pub fn nstring(out: &mut Vec<u8>, octets: Option<&[u8]>, form: NameForm) {
    match octets {
        Some(octets) => string(out, octets, form),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A string, a literal8 if it has NUL, or NIL. Where the grammar has literal8:
/// METADATA's values, BINARY.
pub fn nstring8(out: &mut Vec<u8>, octets: Option<&[u8]>, form: NameForm) {
    match octets {
        Some(octets) if memchr::memchr(0, octets).is_some() => {
            literal_head(out, octets.len() as u64, true);
            out.extend_from_slice(octets);
        }
        octets => nstring(out, octets, form),
    }
}

/// What announces a literal; exactly `size` octets must follow.
pub fn literal_head(out: &mut Vec<u8>, size: u64, binary: bool) {
    if binary {
        out.push(b'~');
    }
    out.push(b'{');
    number(out, size);
    out.extend_from_slice(b"}\r\n");
}

/// `(\Seen $Junk)`, with `\*` if new keywords can be made.
pub(super) fn flag_list<'f>(
    out: &mut Vec<u8>,
    flags: impl IntoIterator<Item = &'f Flag>,
    any: bool,
) {
    out.push(b'(');
    let start = out.len();
    let words = flags.into_iter().map(Flag::as_str);
    for word in words.chain(any.then_some("\\*")) {
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(word.as_bytes());
    }
    out.push(b')');
}

/// Some clients read quoted strings into fixed buffers; RFC 2683 §3.2.1.5 asks
/// for lines of about a thousand octets.
const QUOTED_MAX: usize = 1000;
