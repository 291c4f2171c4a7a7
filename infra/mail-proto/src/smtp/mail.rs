//! MAIL: opens a transaction. RFC 5321 §4.1.1.2, RFC 1870, RFC 6152, RFC 6531.

use super::path::ReversePath;
use super::rcpt::{Parameters, after_keyword, path_reply};
use super::reply::Reply;
use crate::address::Letters;

/// A well-formed MAIL command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Where the message comes from.
    pub reverse_path: ReversePath,
    /// Declared size in octets, RFC 1870; within the limit already.
    pub size: Option<u64>,
    /// Declared body type.
    pub body: BodyType,
    /// Whether addresses and header may go beyond ASCII. RFC 6531.
    pub utf8: bool,
}

/// What the client says about its octets. RFC 6152.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    /// BODY=7BIT, or nothing said.
    #[default]
    SevenBit,
    /// BODY=8BITMIME.
    EightBitMime,
}

impl Mail {
    /// Reads what follows the verb.
    pub(super) fn parse(arguments: &str, size_max_bytes: u64) -> Result<Self, Reply> {
        let path = after_keyword(arguments, "FROM:").ok_or(SYNTAX)?;
        let bad_path = |error| path_reply(error, (5, 1, 7), "bad sender address syntax");
        // Whether letters beyond ASCII are announced stands behind the path that has them.
        let (reverse_path, rest) = ReversePath::parse(path, Letters::Utf8).map_err(bad_path)?;
        let mut size = None;
        let mut body = None;
        let mut utf8 = None;
        for parameter in Parameters::parse(rest)? {
            if parameter.is("SIZE") {
                let value = parameter.value.ok_or(BAD_PARAMETER)?;
                set_once(&mut size, parse_size(value, size_max_bytes)?)?;
            } else if parameter.is("BODY") {
                let value = parameter.value.ok_or(BAD_PARAMETER)?;
                set_once(&mut body, BodyType::parse(value)?)?;
            } else if parameter.is("SMTPUTF8") {
                set_once(&mut utf8, ())?;
                if parameter.value.is_some() {
                    return Err(BAD_PARAMETER);
                }
            } else {
                return Err(UNKNOWN_PARAMETER);
            }
        }
        if utf8.is_none() {
            let again = ReversePath::parse(path, Letters::Ascii);
            again.map_err(bad_path)?;
        }
        Ok(Self {
            reverse_path,
            size,
            body: body.unwrap_or_default(),
            utf8: utf8.is_some(),
        })
    }
}

impl BodyType {
    fn parse(value: &str) -> Result<Self, Reply> {
        if value.eq_ignore_ascii_case("7BIT") {
            Ok(Self::SevenBit)
        } else if value.eq_ignore_ascii_case("8BITMIME") {
            Ok(Self::EightBitMime)
        } else {
            Err(BAD_PARAMETER)
        }
    }
}

/// RFC 1870 §4: one to twenty digits.
fn parse_size(value: &str, size_max_bytes: u64) -> Result<u64, Reply> {
    let is_number =
        matches!(value.len(), 1..=20) && value.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number {
        return Err(BAD_PARAMETER);
    }
    // Twenty digits may exceed 64 bits; that is too large as well.
    let size = value.parse().unwrap_or(u64::MAX);
    if size > size_max_bytes {
        Err(TOO_LARGE)
    } else {
        Ok(size)
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), Reply> {
    if place.replace(value).is_some() {
        Err(BAD_PARAMETER)
    } else {
        Ok(())
    }
}

const SYNTAX: Reply = Reply::new(501, (5, 5, 4), "syntax: MAIL FROM:<address> [parameters]");
const BAD_PARAMETER: Reply = Reply::new(501, (5, 5, 4), "bad parameter value");
const UNKNOWN_PARAMETER: Reply = Reply::new(555, (5, 5, 4), "parameter not recognised");
pub(super) const TOO_LARGE: Reply = Reply::new(552, (5, 3, 4), "message exceeds the size limit");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_read_in_any_case_and_order() {
        let mail = Mail::parse("from:<a@b.test> body=8bitmime SIZE=100", 100).unwrap();
        assert_eq!((mail.size, mail.body), (Some(100), BodyType::EightBitMime));
        assert_eq!(mail.reverse_path.to_string(), "<a@b.test>");
        let mail = Mail::parse("FROM:<\"é b\"@ü.test> SMTPUTF8", 100).unwrap();
        assert_eq!(mail.reverse_path.to_string(), "<\"é b\"@ü.test>");
        assert!(mail.utf8);
        assert_eq!(
            Mail::parse("FROM: <>", 100).unwrap().reverse_path,
            ReversePath::Null
        );
    }

    #[test]
    fn each_mistake_has_its_code() {
        for (arguments, code, enhanced) in [
            ("", 501, (5, 5, 4)),
            ("<a@b>", 501, (5, 5, 4)),
            ("TO:<a@b>", 501, (5, 5, 4)),
            ("FROM:a@b", 501, (5, 1, 7)),
            ("FROM:<a@b", 501, (5, 1, 7)),
            ("FROM:<a@b>SIZE=1", 501, (5, 5, 4)),
            ("FROM:<a@b> SIZE", 501, (5, 5, 4)),
            ("FROM:<a@b> SIZE=", 501, (5, 5, 4)),
            ("FROM:<a@b> SIZE=-1", 501, (5, 5, 4)),
            ("FROM:<a@b> SIZE=1 SIZE=1", 501, (5, 5, 4)),
            ("FROM:<a@b> SIZE=101", 552, (5, 3, 4)),
            ("FROM:<a@b> SIZE=99999999999999999999", 552, (5, 3, 4)),
            ("FROM:<a@b> SIZE=999999999999999999999", 501, (5, 5, 4)),
            ("FROM:<a@b> BODY=9BIT", 501, (5, 5, 4)),
            ("FROM:<a@b> SMTPUTF8=1", 501, (5, 5, 4)),
            ("FROM:<a@b> SMTPUTF8 SMTPUTF8", 501, (5, 5, 4)),
            ("FROM:<é@b>", 553, (5, 6, 7)),
            ("FROM:<é@b", 501, (5, 1, 7)),
            ("FROM:<a\u{85}@b> SMTPUTF8", 501, (5, 1, 7)),
            ("FROM:<a@b> AUTH=<>", 555, (5, 5, 4)),
            ("FROM:<a@b> =1", 501, (5, 5, 4)),
        ] {
            let reply = Mail::parse(arguments, 100).unwrap_err();
            assert_eq!(
                (reply.code, reply.enhanced),
                (code, Some(enhanced)),
                "{arguments}"
            );
        }
    }
}
