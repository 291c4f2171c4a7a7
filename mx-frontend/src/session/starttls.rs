//! The TLS handshake, behind STARTTLS or at once. What was sent in plain text before it is gone: the core drops it. RFC 3207.

use std::future::pending;
use std::io;

use daemon::stream::UserStream;
use tokio::time::sleep;
use tracing::debug;

use super::End;
use crate::door::Client;
use crate::frontend::Shared;
use crate::meter;
use crate::rates::{Event, TooOften};

/// Leave for one handshake; dropped, it was one that resumes no session, for all that is known.
#[must_use]
pub(crate) struct Leave(());

/// Counts a handshake that is to begin. Only behind it is known whether it resumes a session and is none of those that are limited;
/// counted there alone, any number could begin at once.
pub(crate) fn leave(shared: &Shared, client: &Client) -> Result<Leave, TooOften> {
    if client.limited {
        shared.rates.count(Event::TlsSession, client.key)?;
    }
    Ok(Leave(()))
}

/// Brings a connection into TLS. `hurried`: as under stress, whether it is or not.
pub(crate) async fn handshake(
    shared: &Shared,
    stream: UserStream,
    client: &Client,
    Leave(()): Leave,
    hurried: bool,
) -> Result<UserStream, End> {
    let Some(tls) = &shared.tls else {
        unreachable!("TLS is offered only with a certificate")
    };
    let stress = &shared.stress;
    let too_long_under_stress = async {
        if !hurried && client.is_good {
            pending::<()>().await;
        }
        if !hurried {
            // Who began before has no more time than others.
            let mut mode = stress.subscribe();
            _ = mode.wait_for(|level| level.is_stressed()).await;
        }
        sleep(stress.stressed.starttls_timeout).await;
    };
    let shaken = tokio::select! {
        shaken = stream.starttls(tls, stress.calm.starttls_timeout) => shaken,
        () = too_long_under_stress => Err(io::ErrorKind::TimedOut.into()),
    };
    match shaken {
        Ok(stream) => {
            let kind = if stream.is_resumed() {
                "resumed"
            } else {
                "full"
            };
            meter::handshake(kind);
            if client.limited && stream.is_resumed() {
                shared.rates.give_back(Event::TlsSession, client.key);
            }
            Ok(stream)
        }
        Err(error) => {
            let end = match error.kind() {
                io::ErrorKind::TimedOut => End::TlsTimedOut,
                _ => End::Tls,
            };
            // It may have cost us as much.
            meter::handshake(end.code());
            debug!(client = %client.address, %error, "TLS handshake failed");
            Err(end)
        }
    }
}
