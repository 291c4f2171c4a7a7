//! NAMESPACE. RFC 2342.

use mail_proto::imap::encode::Namespace;

use super::Session;
use super::reply::{Failure, Reply};

/// What separates the levels of a name.
pub(super) const DELIMITER: Option<char> = Some('/');

/// All mailboxes are the user's own, under no prefix.
pub(super) fn run(session: &mut Session<'_>) -> Result<Reply, Failure> {
    let personal = [Namespace {
        prefix: "",
        delimiter: DELIMITER,
    }];
    session.encoder().namespace([&personal, &[], &[]]);
    Ok(Reply::ok("done"))
}
