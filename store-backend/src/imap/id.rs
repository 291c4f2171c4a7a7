//! ID. RFC 2971.

use super::Session;
use super::reply::{Failure, Reply};

/// What the client says of itself helps whoever looks into trouble with it.
pub(super) fn run(
    session: &mut Session<'_>,
    client: &[(String, Option<String>)],
) -> Result<Reply, Failure> {
    tracing::debug!(account = %session.state.account, ?client, "imap client");
    // No version: nobody but an attacker needs it.
    session.encoder().id(&[("name", Some("Posthouse"))]);
    Ok(Reply::ok("done"))
}
