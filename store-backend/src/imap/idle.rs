//! IDLE. RFC 2177, RFC 9051 §6.3.13.
//!
//! While the client idles the shell waits for the volume too, see `wait.rs`; the line that
//! ends it is `Session::on_idle_line`.

use super::reply::Failure;
use super::{Session, updates};

/// Goes into IDLE. What has changed meanwhile is told at once.
pub(super) async fn begin(session: &mut Session<'_>) -> Result<(), Failure> {
    session.state.idle = Some(std::mem::take(&mut session.tag));
    session.encoder().continuation("idling");
    session.settle().await;
    updates::tell(session, true).await
}
