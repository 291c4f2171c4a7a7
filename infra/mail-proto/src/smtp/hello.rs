//! HELO, EHLO and LHLO: the client names itself. RFC 5321 §4.1.1.1.

use std::borrow::Cow;
use std::fmt::Write;

use super::config::{Config, Mode};
use super::reply::Reply;

/// Reads the client's name. Real clients send names that the grammar forbids
/// (underscores, bare addresses); RFC 5321 §4.1.4 forbids to refuse mail for
/// what the name says, so only what cannot be a name is refused.
pub(super) fn parse_name(arguments: &str) -> Result<&str, Reply> {
    let is_name = !arguments.is_empty()
        && arguments.len() <= NAME_MAX
        && arguments.bytes().all(|o| o.is_ascii_graphic());
    if is_name { Ok(arguments) } else { Err(SYNTAX) }
}

/// The reply to EHLO and LHLO: one line per extension.
pub(super) fn extensions(config: &Config, client_name: &str, tls_active: bool) -> Reply {
    let mut text = format!("{} greets {client_name}", config.hostname);
    text.push_str("\nPIPELINING\n8BITMIME\nENHANCEDSTATUSCODES\nCHUNKING\nSMTPUTF8");
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\nSIZE {}\nLIMITS RCPTMAX={}",
        config.size_max_bytes, config.recipients_max
    );
    if config.starttls && !tls_active {
        text.push_str("\nSTARTTLS");
    }
    if config.xclient {
        text.push_str("\nXCLIENT ");
        text.push_str(super::xclient::ATTRIBUTES);
    }
    Reply::plain(250, Cow::Owned(text))
}

/// The first line said.
pub(super) fn greeting(config: &Config) -> Reply {
    let word = match config.mode {
        Mode::Smtp => "ESMTP",
        Mode::Lmtp => "LMTP",
    };
    Reply::plain(
        220,
        Cow::Owned(format!("{} {word} Posthouse", config.hostname)),
    )
}

/// RFC 5321 §4.5.3.1.2.
const NAME_MAX: usize = 255;

const SYNTAX: Reply = Reply::new(
    501,
    (5, 5, 4),
    "syntax: name yourself, by domain or address literal",
);
