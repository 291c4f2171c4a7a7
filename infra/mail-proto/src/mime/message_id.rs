//! Finds the message identifiers that threads are made of.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

/// Iterates the identifiers in an unfolded Message-ID, In-Reply-To or
/// References value, without angle brackets and white space within.
///
/// Words around them, which In-Reply-To once allowed (RFC 822 §4.6.2), are
/// passed, and so is what has no `@`, for it is no identifier: RFC 5256
/// §3 THREAD=REFERENCES.
pub fn message_ids(value: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let end = memchr(b'>', rest)?;
            let (before, after) = rest.split_at(end);
            rest = &after[1..];
            let Some(start) = memrchr(b'<', before) else {
                continue;
            };
            let id = &before[start + 1..];
            if memchr(b'@', id).is_none() {
                continue;
            }
            if !id.iter().any(u8::is_ascii_whitespace) {
                return Some(Cow::Borrowed(id));
            }
            let kept = id.iter().filter(|octet| !octet.is_ascii_whitespace());
            return Some(Cow::Owned(kept.copied().collect()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_between_words() {
        let value = b"Your mail of <x> <a@b> (<<c@ d>) <e@f";
        let ids: Vec<_> = message_ids(value).collect();
        assert_eq!(ids, [&b"a@b"[..], b"c@d"]);
        assert_eq!(message_ids(b"a@b").count(), 0);
        assert_eq!(message_ids(b"<a@b>").count(), 1);
    }
}
