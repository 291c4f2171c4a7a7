//! COMPRESS. RFC 4978.
//!
//! The proxy copies; compression is between the client and here. Each session that compresses holds up to 32 KiB
//! for the client's direction, see [`crate::deflate`], therefore only so many may at once.

use std::sync::Arc;

use super::Session;
use super::reply::Reply;
use super::updates::MayTell;
use crate::metrics;
use crate::session::SessionEnd;
use crate::user::Cut;

/// Answers, and compresses all that comes behind the answer; what the client has sent behind the command is
/// compressed already.
pub(super) async fn run(session: &mut Session<'_>) -> Result<Option<SessionEnd>, Cut> {
    if session.user.is_compressed() {
        let reply = Reply::no("COMPRESSIONACTIVE", "DEFLATE is active already");
        return session.answer(Ok(reply), MayTell::All).await;
    }
    let Ok(permit) = Arc::clone(session.service.compressions).try_acquire_owned() else {
        metrics::compression_refused();
        let reply = Reply::no("LIMIT", "too many sessions compress, go on without");
        return session.answer(Ok(reply), MayTell::All).await;
    };
    let end = session
        .answer(Ok(Reply::ok("DEFLATE active")), MayTell::All)
        .await?;
    // The answer is the last that goes out plainly.
    session.flush().await?;
    session.user.compress(permit);
    Ok(end)
}
