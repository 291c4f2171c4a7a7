//! RCPT: names a recipient. RFC 5321 §4.1.1.3.

use super::path::ForwardPath;
use super::reply::Reply;
use crate::address::{AddressError, Letters};

/// Reads what follows the verb.
pub(super) fn parse(arguments: &str, letters: Letters) -> Result<ForwardPath, Reply> {
    let path = after_keyword(arguments, "TO:").ok_or(SYNTAX)?;
    let bad_path = |error| path_reply(error, (5, 1, 3), "bad recipient address syntax");
    let (forward_path, rest) = ForwardPath::parse(path, letters).map_err(bad_path)?;
    match Parameters::parse(rest)?.next() {
        // No extension offered has a parameter for RCPT.
        Some(_) => Err(UNKNOWN_PARAMETER),
        None => Ok(forward_path),
    }
}

/// What follows `FROM:` or `TO:`. Spaces behind the colon are against RFC 5321
/// §3.3, but so common that refusing them would lose honest mail.
pub(super) fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let front = arguments.get(..keyword.len())?;
    front
        .eq_ignore_ascii_case(keyword)
        .then(|| arguments[keyword.len()..].trim_start())
}

/// The reply to a path that is none.
pub(super) fn path_reply(error: AddressError, enhanced: (u8, u8, u8), text: &'static str) -> Reply {
    match error {
        AddressError::Syntax => Reply::new(501, enhanced, text),
        // RFC 5321 §4.5.3.1.10.
        AddressError::TooLong => Reply::new(501, enhanced, "path too long"),
        // RFC 6531 §3.5.
        AddressError::NotAscii => {
            Reply::new(553, (5, 6, 7), "address beyond ASCII: MAIL has no SMTPUTF8")
        }
    }
}

/// One `KEYWORD` or `KEYWORD=value`. RFC 5321 §4.1.2.
pub(super) struct Parameter<'a> {
    keyword: &'a str,
    pub(super) value: Option<&'a str>,
}

impl Parameter<'_> {
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword)
    }
}

/// Parameters behind a path.
pub(super) struct Parameters;

impl Parameters {
    pub(super) fn parse(text: &str) -> Result<impl Iterator<Item = Parameter<'_>>, Reply> {
        let is_separated = text.is_empty() || text.starts_with([' ', '\t']);
        let words = || text.split([' ', '\t']).filter(|word| !word.is_empty());
        if !is_separated || words().any(|word| word.starts_with('=')) {
            return Err(BAD_SYNTAX);
        }
        Ok(words().map(|word| match word.split_once('=') {
            Some((keyword, value)) => Parameter {
                keyword,
                value: Some(value),
            },
            None => Parameter {
                keyword: word,
                value: None,
            },
        }))
    }
}

const SYNTAX: Reply = Reply::new(501, (5, 5, 4), "syntax: RCPT TO:<address>");
const BAD_SYNTAX: Reply = Reply::new(501, (5, 5, 4), "bad parameter syntax");
const UNKNOWN_PARAMETER: Reply = Reply::new(555, (5, 5, 4), "parameter not recognised");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_mistake_has_its_code() {
        for (arguments, code, enhanced) in [
            ("", 501, (5, 5, 4)),
            ("FROM:<a@b>", 501, (5, 5, 4)),
            ("TO:<>", 501, (5, 1, 3)),
            ("TO:a@b", 501, (5, 1, 3)),
            ("TO:<a@b> NOTIFY=NEVER", 555, (5, 5, 4)),
            ("TO:<é@b>", 553, (5, 6, 7)),
            ("TO:<é@b", 501, (5, 1, 3)),
        ] {
            let reply = parse(arguments, Letters::Ascii).unwrap_err();
            assert_eq!(
                (reply.code, reply.enhanced),
                (code, Some(enhanced)),
                "{arguments}"
            );
        }
        for (arguments, path) in [("to: <a@b>", "<a@b>"), ("TO:<é.è@ü.test>", "<é.è@ü.test>")]
        {
            assert_eq!(parse(arguments, Letters::Utf8).unwrap().to_string(), path);
        }
    }
}
