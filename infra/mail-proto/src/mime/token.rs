//! Cuts a structured field into RFC 5322 tokens.

use std::borrow::Cow;

/// One token of a structured field body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Atom octets. Dots are not among them, octets over 127 are.
    Atom(&'a [u8]),
    /// A quoted string, unquoted.
    Quoted(Cow<'a, [u8]>),
    /// `[…]`, brackets included.
    Literal(&'a [u8]),
    /// Any of `< > @ , ; : . ]` and stray `)` or `\`.
    Special(u8),
}

/// Reads tokens from an unfolded value. Nothing is an error: what is
/// unterminated ends with the value. Each octet is looked at once.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    value: &'a [u8],
    at: usize,
    before: usize,
    comment: Option<(usize, usize)>,
    spaced: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self {
            value,
            at: 0,
            before: 0,
            comment: None,
            spaced: false,
        }
    }

    /// The last comment passed since this was last asked, without its outer
    /// parentheses and quoting, if it says anything.
    pub(super) fn take_comment(&mut self) -> Option<Vec<u8>> {
        let (start, end) = self.comment.take()?;
        let text = self.value[start..end].trim_ascii();
        (!text.is_empty()).then(|| unescape(text).into_owned())
    }

    /// True if white space or a comment stood before the last token.
    pub(super) fn spaced(&self) -> bool {
        self.spaced
    }

    /// Steps back to before the last token, once.
    pub(super) fn unread(&mut self) {
        self.at = self.before;
    }

    fn skip_space(&mut self) {
        let start = self.at;
        while let Some(octet) = self.value.get(self.at) {
            match octet {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'(' => self.skip_comment(),
                _ => break,
            }
        }
        self.spaced = self.at > start;
    }

    fn skip_comment(&mut self) {
        let start = self.at + 1;
        self.at = comment_end(self.value, self.at);
        let closed = self.value[..self.at].ends_with(b")") && self.at > start;
        self.comment = Some((start, self.at - usize::from(closed)));
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let start = self.at;
        self.before = start;
        Some(match *self.value.get(start)? {
            b'"' => {
                let (text, end) = quoted_string(self.value, start);
                self.at = end;
                Token::Quoted(text)
            }
            b'[' => {
                self.at = self.value[start..]
                    .iter()
                    .position(|octet| *octet == b']')
                    .map_or(self.value.len(), |end| start + end + 1);
                Token::Literal(&self.value[start..self.at])
            }
            octet if is_special(octet) => {
                self.at += 1;
                Token::Special(octet)
            }
            _ => {
                let rest = &self.value[start..];
                self.at += rest
                    .iter()
                    .position(|octet| is_special(*octet) || is_space_or_opener(*octet))
                    .unwrap_or(rest.len());
                Token::Atom(&self.value[start..self.at])
            }
        })
    }
}

fn is_special(octet: u8) -> bool {
    matches!(
        octet,
        b'<' | b'>' | b'@' | b',' | b';' | b':' | b'.' | b']' | b')' | b'\\'
    )
}

fn is_space_or_opener(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b'"' | b'[')
}

/// Where the comment that begins at `at` ends, or the value if it does not.
pub(super) fn comment_end(value: &[u8], mut at: usize) -> usize {
    // Comments nest; a counter, for a sender chooses how deep.
    let mut open = 0usize;
    while let Some(octet) = value.get(at) {
        match octet {
            b'\\' => at += 1,
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        at += 1;
        if open == 0 {
            return at;
        }
    }
    value.len()
}

/// Reads the quoted string that begins at `at`: its text, and where it ends.
pub(super) fn quoted_string(value: &[u8], at: usize) -> (Cow<'_, [u8]>, usize) {
    let start = at + 1;
    let mut at = start;
    while let Some(octet) = value.get(at) {
        match octet {
            b'\\' => at += 2,
            b'"' => return (unescape(&value[start..at]), at + 1),
            _ => at += 1,
        }
    }
    (unescape(&value[start..]), value.len())
}

/// Takes the backslashes out of quoted pairs.
pub(super) fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' => plain.extend(octets.next()),
            octet => plain.push(*octet),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_nest_and_quotes_end_with_the_value() {
        let mut lexer = Lexer::new(b"a (b (c\\)) d).\"e\\\"f\"[g]<\"h\\");
        let tokens: Vec<_> = lexer.by_ref().collect();
        assert_eq!(
            tokens,
            [
                Token::Atom(b"a"),
                Token::Special(b'.'),
                Token::Quoted(Cow::Borrowed(b"e\"f")),
                Token::Literal(b"[g]"),
                Token::Special(b'<'),
                Token::Quoted(Cow::Borrowed(b"h")),
            ]
        );
        assert_eq!(lexer.take_comment().as_deref(), Some(&b"b (c)) d"[..]));
    }
}
