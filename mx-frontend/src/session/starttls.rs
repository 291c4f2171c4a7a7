//! STARTTLS: the handshake. What was sent in plain text before it is gone: the core drops it. RFC 3207.

use daemon::stream::UserStream;
use tracing::debug;

use super::End;
use crate::frontend::Shared;

pub(super) async fn handshake(shared: &Shared, stream: UserStream) -> Result<UserStream, End> {
    let Some(tls) = &shared.tls else {
        unreachable!("the core offers STARTTLS only with a certificate")
    };
    stream
        .starttls(tls, shared.limits.starttls_timeout())
        .await
        .map_err(|error| {
            debug!(%error, "TLS handshake failed");
            End::Tls
        })
}
