//! NAMESPACE. RFC 2342.

use mail_proto::imap::encode::Namespace;

use super::Session;
use super::place::OTHERS;
use super::reply::{Failure, Reply};

/// What separates the levels of a name.
pub(super) const DELIMITER: Option<char> = Some('/');

/// The user's own mailboxes under no prefix, those of others below one.
pub(super) fn run(session: &mut Session<'_>) -> Result<Reply, Failure> {
    let personal = [Namespace {
        prefix: "",
        delimiter: DELIMITER,
    }];
    let others = [Namespace {
        prefix: &format!("{OTHERS}/"),
        delimiter: DELIMITER,
    }];
    session.encoder().namespace([&personal, &others, &[]]);
    Ok(Reply::ok("done"))
}
