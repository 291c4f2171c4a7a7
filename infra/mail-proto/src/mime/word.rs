//! Decodes RFC 2047 encoded words and charsets for SEARCH and SORT.

use std::borrow::Cow;

use encoding_rs::{Encoding, ISO_2022_JP, WINDOWS_1252};
use memchr::{memchr, memmem};

/// Decodes an unfolded value to UTF-8: encoded words, and 8-bit octets that
/// stand there bare.
///
/// What is no valid encoded word stays as it is. White space between two
/// encoded words is dropped (RFC 2047 §6.2), and a character cut in two
/// between words of one charset is put together again, for many mailers cut so.
pub fn decode_words(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let mut run = Run::default();
    // Up to here is decoded.
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = memmem::find(&value[at..], b"=?") {
        let start = at + found;
        let Some(word) = Word::read(&value[start..]) else {
            at = start + 2;
            continue;
        };
        let between = &value[done..start];
        let adjacent = run.charset.is_some() && between.iter().all(u8::is_ascii_whitespace);
        if !adjacent {
            run.flush(&mut text);
            text.push_str(&decode_bare(between));
        } else if run.charset != Some(word.charset) || word.charset == ISO_2022_JP {
            // A word of a charset with states ends in ASCII (RFC 2047 §3); put together with the next one, its end would be
            // an escape without effect, which decoders take for an error.
            run.flush(&mut text);
        }
        run.charset = Some(word.charset);
        word.decode(&mut run.octets);
        done = start + word.length;
        at = done;
    }
    run.flush(&mut text);
    text.push_str(&decode_bare(&value[done..]));
    text
}

/// Decodes octets of a named charset to UTF-8; what cannot be decoded becomes
/// U+FFFD. `None` if the charset is unknown.
pub fn decode_charset<'a>(charset: &[u8], octets: &'a [u8]) -> Option<Cow<'a, str>> {
    let encoding = Encoding::for_label(charset)?;
    Some(encoding.decode_without_bom_handling(octets).0)
}

/// Octets without a charset: UTF-8 if they are, else the charset that
/// undeclared mail most often means.
pub(super) fn decode_bare(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(octets).0,
    }
}

/// Octets of adjacent encoded words of one charset.
#[derive(Default)]
struct Run {
    charset: Option<&'static Encoding>,
    octets: Vec<u8>,
}

impl Run {
    fn flush(&mut self, text: &mut String) {
        if let Some(charset) = self.charset.take() {
            text.push_str(&charset.decode_without_bom_handling(&self.octets).0);
            self.octets.clear();
        }
    }
}

/// `=?charset*language?B?text?=`
struct Word<'a> {
    charset: &'static Encoding,
    base64: bool,
    text: &'a [u8],
    length: usize,
}

impl<'a> Word<'a> {
    /// Reads a word at the beginning of `value`, never past its fourth `?`, so
    /// that a value full of beginnings takes linear time.
    fn read(value: &'a [u8]) -> Option<Self> {
        let charset_end = 2 + memchr(b'?', &value[2..])?;
        let text_start = charset_end + 3;
        let base64 = match value.get(charset_end + 1..text_start)? {
            [b'B' | b'b', b'?'] => true,
            [b'Q' | b'q', b'?'] => false,
            _ => return None,
        };
        let text_end = text_start + memchr(b'?', &value[text_start..])?;
        if value.get(text_end + 1) != Some(&b'=') {
            return None;
        }
        let label = value[2..charset_end].split(|octet| *octet == b'*').next()?;
        Some(Self {
            charset: Encoding::for_label(label)?,
            base64,
            text: &value[text_start..text_end],
            length: text_end + 2,
        })
    }

    fn decode(&self, out: &mut Vec<u8>) {
        if self.base64 {
            decode_base64(self.text, out);
        } else {
            decode_quoted(self.text, out);
        }
    }
}

/// Base64 as mail has it: padding may be missing, foreign octets are passed.
fn decode_base64(text: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0u32;
    let mut count = 0;
    for octet in text {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
}

/// The Q encoding: RFC 2047 §4.2.
fn decode_quoted(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let [octet, after @ ..] = rest {
        rest = after;
        match octet {
            b'_' => out.push(b' '),
            b'=' => match hex(after) {
                Some(decoded) => {
                    out.push(decoded);
                    rest = &after[2..];
                }
                None => out.push(b'='),
            },
            octet => out.push(*octet),
        }
    }
}

/// The octet that two hexadecimal digits stand for.
pub(super) fn hex(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded_and_broken_ones_left() {
        for (value, text) in [
            (&b"a =?utf-8?Q?=C3=A9_b?= c"[..], "a é b c"),
            (b"=?UTF-8?B?w6k=?= \t =?iso-8859-1*de?q?=E9?= x", "éé x"),
            (b"=?utf-8?B?w6?= =?utf-8?B?qQ?=", "é"),
            (b"=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é"),
            (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
            (
                b"=?iso-2022-jp?B?GyRCRnwbKEI=?= =?iso-2022-jp?B?GyRCS1wbKEI=?=",
                "日本",
            ),
            (
                b"=?x-none?Q?a?= =?utf-8?X?b?= =?utf-8?Q?c",
                "=?x-none?Q?a?= =?utf-8?X?b?= =?utf-8?Q?c",
            ),
            (b"=?=?utf-8?Q?a=zz?=", "=?a=zz"),
            (b"=?utf-8?Q?a b?=", "a b"),
            (b"\xe9 \xc3\xa9", "é Ã©"),
            ("é".as_bytes(), "é"),
            (b"", ""),
        ] {
            assert_eq!(decode_words(value), text);
        }
    }
}
