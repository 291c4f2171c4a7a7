//! The client's side of a reply. RFC 5321 §4.2, RFC 2034.
//!
//! The data of a message is written with [`DotStuffer`](crate::stuffing::DotStuffer).

use super::reply::Reply;
use crate::input::{Frame, Input};

/// Reads replies off the octets a server sends.
#[derive(Debug, Default)]
pub struct Replies {
    input: Input,
    /// Lines of a reply whose last line is still to come.
    lines: Vec<String>,
    code: Option<u16>,
}

/// Why what a server sent is no reply. Close the connection: where the next
/// reply begins is not known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line too long, or not ended by CRLF.
    #[error("reply line too long or not ended by CRLF")]
    Line,
    /// Not three digits and a space or hyphen, or lines with different codes.
    #[error("malformed reply")]
    Syntax,
    /// More lines than any server has reason to send.
    #[error("reply of too many lines")]
    TooManyLines,
}

impl Replies {
    /// One for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many octets [`receive`](Self::receive) takes now. Positive whenever
    /// `next` gave nothing.
    pub fn room(&self) -> usize {
        INPUT_MAX.saturating_sub(self.input.len())
    }

    /// Takes octets from the server and returns how many it took.
    pub fn receive(&mut self, octets: &[u8]) -> usize {
        self.input.receive(octets, INPUT_MAX)
    }

    /// The next whole reply, if it is there.
    ///
    /// # Errors
    /// [`ReplyError`]; the connection is of no more use then.
    #[expect(
        clippy::should_implement_trait,
        reason = "fails for good, an Iterator would go on"
    )]
    pub fn next(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let range = match self.input.next_line(LINE_MAX) {
                Frame::Partial => return Ok(None),
                Frame::Fault(_) => return Err(ReplyError::Line),
                Frame::Line(range) => range,
            };
            let line = String::from_utf8_lossy(self.input.slice(range)).into_owned();
            let (code, is_last, text) = split(&line).ok_or(ReplyError::Syntax)?;
            if self.code.is_some_and(|earlier| earlier != code) {
                return Err(ReplyError::Syntax);
            }
            if self.lines.len() >= LINES_MAX {
                return Err(ReplyError::TooManyLines);
            }
            self.lines.push(text.to_owned());
            self.code = Some(code);
            if is_last {
                self.code = None;
                return Ok(Some(reply(code, &std::mem::take(&mut self.lines))));
            }
        }
    }
}

/// Code, whether it is the last line, text.
fn split(line: &str) -> Option<(u16, bool, &str)> {
    let (code, rest) = line.split_at_checked(3)?;
    let is_code = code.bytes().all(|digit| digit.is_ascii_digit())
        && matches!(code.as_bytes()[0], b'2'..=b'5');
    let code = code.parse().ok().filter(|_| is_code)?;
    match rest.as_bytes().first() {
        // RFC 5321 §4.2.1 lets a bare code pass.
        None => Some((code, true, "")),
        Some(b' ') => Some((code, true, &rest[1..])),
        Some(b'-') => Some((code, false, &rest[1..])),
        Some(_) => None,
    }
}

/// Takes the enhanced code off each line, if every line has the same.
fn reply(code: u16, lines: &[String]) -> Reply {
    let enhanced = lines.first().and_then(|line| enhanced(code, line));
    let texts: Option<Vec<&str>> = enhanced.map(|(found, _)| found).and_then(|found| {
        lines
            .iter()
            .map(|line| {
                self::enhanced(code, line)
                    .filter(|(other, _)| *other == found)
                    .map(|(_, text)| text)
            })
            .collect()
    });
    match (enhanced, texts) {
        (Some((enhanced, _)), Some(texts)) => Reply {
            code,
            enhanced: Some(enhanced),
            text: texts.join("\n").into(),
        },
        _ => Reply {
            code,
            enhanced: None,
            text: lines.join("\n").into(),
        },
    }
}

/// An enhanced code at the front, of the class its reply code has.
fn enhanced(code: u16, line: &str) -> Option<((u8, u8, u8), &str)> {
    let (word, text) = line.split_once(' ').unwrap_or((line, ""));
    let mut numbers = word.split('.').map(str::parse);
    let (class, subject, detail) = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    (numbers.next().is_none() && u16::from(class) == code / 100)
        .then_some(((class, subject, detail), text))
}

/// Far over the 512 of RFC 5321 §4.5.3.1.5, for servers that explain at length.
const LINE_MAX: usize = 4096;
const INPUT_MAX: usize = 8192;
/// An EHLO reply has some twenty.
const LINES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8], piece: usize) -> Result<Vec<Reply>, ReplyError> {
        let mut replies = Replies::new();
        let mut seen = Vec::new();
        for part in octets.chunks(piece) {
            assert_eq!(replies.receive(part), part.len());
            while let Some(reply) = replies.next()? {
                seen.push(reply);
            }
        }
        Ok(seen)
    }

    #[test]
    fn replies_are_the_same_for_every_cut() {
        let octets = b"220 mx ESMTP\r\n250-mx\r\n250-SIZE 10\r\n250 PIPELINING\r\n550-5.1.1 no\r\n550 5.1.1 user\r\n354\r\n";
        for piece in 1..=octets.len() {
            let expected = vec![
                Reply::plain(220, "mx ESMTP".into()),
                Reply::plain(250, "mx\nSIZE 10\nPIPELINING".into()),
                Reply::new(550, (5, 1, 1), "no\nuser"),
                Reply::plain(354, "".into()),
            ];
            assert_eq!(read(octets, piece), Ok(expected), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for octets in [
            &b"hello\r\n"[..],
            b"25\r\n",
            b"650 x\r\n",
            b"250_x\r\n",
            b"250-a\r\n550 b\r\n",
            b"+50 x\r\n",
            "25é x\r\n".as_bytes(),
        ] {
            assert_eq!(read(octets, 100), Err(ReplyError::Syntax), "{octets:?}");
        }
        assert_eq!(read(b"250 x\n250 y\r\n", 100), Err(ReplyError::Line));
        assert_eq!(read(&[b'2'; 5000], 5000), Err(ReplyError::Line));
        assert_eq!(
            read(&b"250-x\r\n".repeat(129), 7),
            Err(ReplyError::TooManyLines)
        );
    }
}
