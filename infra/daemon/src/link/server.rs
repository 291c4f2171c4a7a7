//! The accepting side of links.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_service::Service;
use tracing::{debug, warn};

use super::{
    CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, RESET_STREAMS_MAX, SEND_BUFFER_MAX,
    STREAM_WINDOW, STREAMS_MAX,
};
use crate::{
    identity::{Identity, Peer},
    listener::accept_each,
    log::causes,
    shutdown::Shutdown,
};

/// Serves a router to processes of our authority until the shutdown begins, then lets streams end.
///
/// Each request carries `axum::Extension<Peer>`. At the shutdown the listener closes, peers are told to send nothing
/// new (GOAWAY), and connections live until their last stream ends: [`Shutdown::drained`] waits for them.
///
/// When a stream is reset or its connection is lost, its handler is dropped where it waits. Work that must not stop
/// half-way, a commit above all, belongs in a task of its own ([`Shutdown::spawn`]) that the handler waits for.
pub async fn serve(
    listener: TcpListener,
    identity: Arc<Identity>,
    router: Router,
    shutdown: Shutdown,
) {
    let acceptor = TlsAcceptor::from(identity.server_config());
    // The router is made ready once; it has no back-pressure of its own.
    let mut router = router;
    let Ok(()) = poll_fn(|cx| Service::<Request<Incoming>>::poll_ready(&mut router, cx)).await;
    let ending = shutdown.clone();
    accept_each(listener, CONNECTIONS_MAX, shutdown, move |tcp, from| {
        let (acceptor, router, ending) = (acceptor.clone(), router.clone(), ending.clone());
        async move {
            match let_in(&acceptor, tcp).await {
                Ok((tls, peer)) => converse(tls, peer, router, &ending).await,
                Err(refusal) => warn!(%from, cause = refusal, "refused a link"),
            }
        }
    })
    .await;
}

/// Finishes the TLS handshake and finds out who is there; otherwise says why not.
async fn let_in(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
) -> Result<(TlsStream<TcpStream>, Peer), String> {
    let tls = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp))
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|error| causes(&error))?;
    let session = tls.get_ref().1;
    if session.alpn_protocol() != Some(b"h2") {
        return Err("does not ask for HTTP/2".to_owned());
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let peer = certificate
        .map(Peer::of)
        .ok_or("no certificate")?
        .map_err(|error| error.to_string())?;
    Ok((tls, peer))
}

async fn converse(tls: TlsStream<TcpStream>, peer: Peer, router: Router, ending: &Shutdown) {
    debug!(%peer, "link accepted");
    let who = peer.to_string();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        // In a box: the stream's task keeps the room of its handler as long as the answer's body goes on, which for
        // an idle user is half an hour.
        let answer = Box::pin(router.clone().call(request));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(tls), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match result {
        Ok(()) => debug!(peer = who, "link ended"),
        Err(error) => debug!(peer = who, cause = causes(&error), "link lost"),
    }
}

/// Processes of an installation times their few connections, with room; one costs about 30 KiB.
const CONNECTIONS_MAX: usize = 10_000;
/// Five times what a client of ours waits.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
