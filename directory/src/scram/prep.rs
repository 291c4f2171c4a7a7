//! SASLprep for passwords (RFC 4013), so that "é" is the same whichever way it was typed.
//!
//! What clients send in SCRAM comes from the prepared password, so what is kept here has to. Printable
//! ASCII stays as it is. Of the rest: other spaces become a space, what is commonly mapped to nothing
//! goes, NFKC joins what looks the same, and what the RFC prohibits makes the password unfit. Not
//! looked at are the rules for text from right to left and for characters that Unicode 3.2 did not
//! have: they only forbid, and whose client forbids a password never comes here with it.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The password as it goes into the hash; none when it holds what no client may send.
pub(crate) fn prepared(password: &str) -> Option<Cow<'_, str>> {
    if password.bytes().all(|octet| (0x20..0x7f).contains(&octet)) {
        return (!password.is_empty()).then_some(Cow::Borrowed(password));
    }
    let mapped = password.chars().filter_map(|one| match one {
        one if is_other_space(one) => Some(' '),
        one if is_mapped_to_nothing(one) => None,
        one => Some(one),
    });
    let normal: String = mapped.nfkc().collect();
    let fits = !normal.is_empty() && !normal.chars().any(is_prohibited);
    fits.then_some(Cow::Owned(normal))
}

/// RFC 3454, table C.1.2.
fn is_other_space(one: char) -> bool {
    matches!(
        one,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

/// RFC 3454, table B.1.
fn is_mapped_to_nothing(one: char) -> bool {
    matches!(
        one,
        '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200c}' | '\u{200d}'
            | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// RFC 3454, tables C.1.2 and C.2 to C.9.
fn is_prohibited(one: char) -> bool {
    let code = u32::from(one);
    one.is_control()
        || is_other_space(one)
        || code & 0xfffe == 0xfffe
        || matches!(
            one,
            '\u{340}' | '\u{341}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
                | '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2063}'
                | '\u{206a}'..='\u{206f}' | '\u{2ff0}'..='\u{2ffb}' | '\u{e000}'..='\u{f8ff}'
                | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
                | '\u{f0000}'..='\u{10ffff}'
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The first five are RFC 4013 §3's.
    #[test]
    fn passwords_that_look_the_same_are_the_same() {
        for (typed, kept) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            ("e\u{301}t\u{e9}", "\u{e9}t\u{e9}"),
            ("a\u{a0}b\u{3000}c", "a b c"),
            (" spaces stay ", " spaces stay "),
            ("\u{ff30}\u{ff37}", "PW"),
            ("\u{1f600}", "\u{1f600}"),
        ] {
            assert_eq!(prepared(typed).unwrap(), kept, "{typed:?}");
        }
    }

    #[test]
    fn what_no_client_may_send_is_unfit() {
        for typed in [
            "",
            "\u{7}",
            "a\tb",
            "\u{7f}",
            "\u{e9}\u{85}",
            "\u{ad}",
            "\u{e000}",
            "\u{fffd}",
            "\u{fdd0}",
            "\u{1ffff}",
            "\u{202e}abc",
            "\u{e0041}",
        ] {
            assert_eq!(prepared(typed), None, "{typed:?}");
        }
    }
}
