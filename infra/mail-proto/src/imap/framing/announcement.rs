//! `{n}` at the end of a line. RFC 9051 §4.3, RFC 7888, RFC 3516.

/// A literal to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::imap) struct Announcement {
    /// Octets; `u64::MAX` for every number beyond.
    pub(in crate::imap) size: u64,
    /// Whether they come without our go-ahead: `{n+}`.
    pub(in crate::imap) unasked: bool,
    /// Whether it is a literal8: `~{n}`.
    pub(in crate::imap) binary: bool,
    /// Length of the announcement itself.
    pub(in crate::imap) length: usize,
}

impl Announcement {
    /// Reads it off the end of a line, of which the last [`TAIL`] octets are enough.
    pub(in crate::imap) fn at_end_of(line: &[u8]) -> Option<Self> {
        let inner = line.strip_suffix(b"}")?;
        let number = inner.strip_suffix(b"+").unwrap_or(inner);
        let digit_count = number
            .iter()
            .rev()
            .take(DIGITS_MAX + 1)
            .take_while(|octet| octet.is_ascii_digit())
            .count();
        let (before, digits) = number.split_at(number.len() - digit_count);
        // So many digits are never a number of octets. It does not matter what
        // stands before them, and the tail of a skipped line no longer has it.
        let is_endless = digit_count > DIGITS_MAX;
        if digit_count == 0 || !(is_endless || before.ends_with(b"{")) {
            return None;
        }
        // Of endless digits only the last are here, and those may be zeros and a small number.
        let size = match is_endless {
            true => u64::MAX,
            false => std::str::from_utf8(digits)
                .ok()?
                .parse()
                .unwrap_or(u64::MAX),
        };
        let binary = before.ends_with(b"~{");
        let braces = if is_endless {
            0
        } else {
            1 + usize::from(binary)
        };
        Some(Self {
            size,
            unasked: number.len() != inner.len(),
            binary,
            length: line.len() - before.len() + braces,
        })
    }
}

/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;
/// How much of a line tells whether it ends in an announcement: one digit more
/// than can be, in `~{` and `+}`.
pub(super) const TAIL: usize = DIGITS_MAX + 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_announced_at_a_lines_end_only() {
        let read = |line: &[u8]| {
            Announcement::at_end_of(line).map(|a| (a.size, a.unasked, a.binary, a.length))
        };
        assert_eq!(read(b"a LOGIN {5}"), Some((5, false, false, 3)));
        assert_eq!(read(b"{0+}"), Some((0, true, false, 4)));
        assert_eq!(read(b"a ~{12+}"), Some((12, true, true, 6)));
        assert_eq!(
            read(b"{18446744073709551615}"),
            Some((u64::MAX, false, false, 22))
        );
        assert_eq!(
            read(b"{18446744073709551616}"),
            Some((u64::MAX, false, false, 22))
        );
        for line in [
            &b"a {5} b"[..],
            b"a {}",
            b"a {+}",
            b"a {5-}",
            b"a {x}",
            b"a 5}",
            b"a {5 }",
            b"a {-5}",
            b"",
        ] {
            assert_eq!(read(line), None);
        }
    }

    #[test]
    fn endless_digits_are_a_literal_too_long() {
        let line = [&b"a {"[..], &[b'0'; 500], b"5+}"].concat();
        for from in [0, line.len() - TAIL] {
            let read = Announcement::at_end_of(&line[from..]);
            assert!(
                read.is_some_and(|a| a.unasked && a.size == u64::MAX && a.length <= line.len()),
                "{from}"
            );
        }
    }
}
