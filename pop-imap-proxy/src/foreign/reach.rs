//! The way to a foreign back-end.
//!
//! Its name is asked for by one login at a time, on behalf of all: each question keeps a thread of the process until the system's
//! resolver gives up, and all users come back at once.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::listener::give_up_vanished;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::Instant;

pub(super) struct Reach {
    known: Mutex<HashMap<String, Known>>,
    keepalive: Duration,
}

struct Known {
    addresses: Arc<[SocketAddr]>,
    at: Instant,
}

impl Reach {
    pub(super) fn new(keepalive: Duration) -> Self {
        Self {
            known: Mutex::default(),
            keepalive,
        }
    }

    /// Where `host:port` is; as it was some seconds ago at most.
    pub(super) async fn addresses(&self, host: &str) -> io::Result<Arc<[SocketAddr]>> {
        let mut known = self.known.lock().await;
        known.retain(|_, known| known.at.elapsed() < KEPT);
        if let Some(known) = known.get(host) {
            return Ok(Arc::clone(&known.addresses));
        }
        let addresses: Arc<[_]> = lookup_host(host).await?.collect();
        let one = Known {
            addresses: Arc::clone(&addresses),
            at: Instant::now(),
        };
        known.insert(host.to_owned(), one);
        Ok(addresses)
    }

    /// To the first of these that is there.
    pub(super) async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(addresses).await?;
        socket.set_nodelay(true)?;
        give_up_vanished(&socket, self.keepalive)?;
        Ok(socket)
    }
}

/// Shorter than any change of a name takes to be known everywhere.
const KEPT: Duration = Duration::from_secs(10);
