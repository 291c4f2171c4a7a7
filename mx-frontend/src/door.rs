//! A listener: who is let in, and what is said to those who are not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemon::clients::{Clients, Counted};
use daemon::listener::accept_each_or;
use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info};

use crate::frontend::Shared;
use crate::meter;
use crate::rates::Event;
use crate::reply::Closing;
use crate::session::{End, Session, handshake, leave};

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Smtp,
    /// In TLS from the first octet.
    Smtps,
    /// Where it is always as under stress.
    Stressed,
}

impl Door {
    /// Its setting.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Smtp => "listen",
            Self::Smtps => "smtps_listen",
            Self::Stressed => "stressed_listen",
        }
    }

    /// What it is called in logs.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Smtp => "mx smtp",
            Self::Smtps => "mx smtps",
            Self::Stressed => "mx smtp, always stressed",
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Which client that is, to limits and history.
    pub(crate) key: IpAddr,
    /// Whose history it has: with IPv6 that of a whole site, whose hosts change their networks.
    pub(crate) history: IpAddr,
    /// Whether its connections and rates are limited.
    pub(crate) limited: bool,
    /// Whether the checks look at it.
    pub(crate) checked: bool,
    /// Whether this is one of its first connections: a good history is no leave to take them all.
    is_first: bool,
    /// Whether it is served as ever while connections run out.
    pub(crate) is_good: bool,
}

impl Client {
    /// Whoever has connected. A relay is no client until it has said whom it speaks for: with limits of its own, all those
    /// would share them.
    pub(crate) async fn connected(shared: &Shared, address: SocketAddr) -> Self {
        Self::new(shared, address, shared.is_relay(address.ip())).await
    }

    /// The client at an address.
    pub(crate) async fn at(shared: &Shared, address: SocketAddr) -> Self {
        Self::new(shared, address, false).await
    }

    async fn new(shared: &Shared, address: SocketAddr, is_relay: bool) -> Self {
        let mut client = Self {
            address,
            key: shared.grouping.client(address.ip()),
            history: shared.histories.client(address.ip()),
            checked: !is_relay && shared.checks.concern(address.ip()),
            limited: !is_relay && !shared.grouping.is_exempt(address.ip()),
            is_first: true,
            is_good: false,
        };
        client.look_back(shared).await;
        client
    }

    /// Looks at the client's history.
    pub(crate) async fn look_back(&mut self, shared: &Shared) {
        self.is_good =
            !self.limited || (self.is_first && shared.stress.is_good(self.history).await);
    }

    /// Lets the client in, while what it gives lasts.
    pub(crate) fn admit(&mut self, shared: &Shared) -> Result<Places, Closing> {
        let admit = |clients: &Clients| match self.limited {
            true => clients.admit(self.address.ip()),
            false => Some(Counted::free()),
        };
        let own = admit(&shared.clients).ok_or(Closing::ClientConnectionsMax)?;
        let of_history = admit(&shared.sites).unwrap_or_else(Counted::free);
        self.is_first = of_history.nth() <= shared.stress.good_connections_max;
        self.is_good &= self.is_first;
        if shared.stress.is_reserved() && !self.is_good {
            // To a stranger none is free.
            shared.stress.on_connection(true);
            return Err(Closing::ConnectionsMax);
        }
        if self.limited {
            let counted = shared.rates.count(Event::Connection, self.key);
            counted.map_err(Closing::TooOften)?;
        }
        Ok(Places {
            _own: own,
            _of_history: of_history,
        })
    }
}

/// Where a connection is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Places {
    _own: Counted,
    /// Among those that share a history.
    _of_history: Counted,
}

impl Places {
    /// Those of a connection that is not counted.
    pub(crate) fn free() -> Self {
        Self {
            _own: Counted::free(),
            _of_history: Counted::free(),
        }
    }
}

/// Accepts at one listener.
pub(crate) async fn attend(
    shared: Arc<Shared>,
    door: Door,
    socket: TcpListener,
    shutdown: Shutdown,
) {
    let (full, sessions) = (Arc::clone(&shared), shutdown.clone());
    let slots = shared.slots.clone();
    accept_each_or(
        socket,
        slots,
        shutdown,
        move |socket, client| {
            let (shared, sessions) = (Arc::clone(&shared), sessions.clone());
            async move { converse(&shared, door, socket, client, &sessions).await }
        },
        move |socket, _| {
            full.stress.on_none_free();
            refuse(door, socket, Closing::ConnectionsMax)
        },
    )
    .await;
}

async fn converse(
    shared: &Shared,
    door: Door,
    mut socket: TcpStream,
    peer: SocketAddr,
    shutdown: &Shutdown,
) {
    shared.stress.on_connection(false);
    // First of all: whose connection it is decides what it may.
    let address = match shared.balancers.client(&mut socket, peer).await {
        Ok(client) => client,
        Err(fault) => {
            meter::refused("connection", fault.code());
            let cause = daemon::log::causes(&fault);
            return info!(%peer, reason = fault.code(), cause, "connection of a balancer refused");
        }
    };
    let mut client = Client::connected(shared, address).await;
    let counted = match client.admit(shared) {
        Ok(counted) => counted,
        Err(why) => {
            debug!(client = %address, reason = why.code(), "connection refused");
            return refuse(door, socket, why).await;
        }
    };
    let open = meter::connection();
    let stream = match door {
        Door::Smtp | Door::Stressed => Ok(UserStream::plain(socket)),
        Door::Smtps => {
            let shake = async {
                let leave = leave(shared, &client).map_err(|why| {
                    meter::refused("connection", why.code());
                    End::Closed(Closing::TooOften(why))
                })?;
                handshake(shared, UserStream::plain(socket), &client, leave, false).await
            };
            tokio::select! {
                shaken = Box::pin(shake) => shaken,
                () = shutdown.requested() => Err(End::Closed(Closing::Draining)),
            }
        }
    };
    let end = match stream {
        Ok(stream) => {
            let session = Session::new(shared, door, &stream, client, counted);
            Box::pin(session.run(stream, shutdown)).await
        }
        Err(end) => end,
    };
    drop(open);
    meter::connection_ended(end.code());
    debug!(client = %address, end = end.code(), "connection ended");
}

/// Counts a refusal, says why and closes; a client that does not read is not waited for, and whoever is not to be told is counted
/// all the same.
fn refuse(door: Door, socket: TcpStream, why: Closing) -> impl Future<Output = ()> + Send {
    meter::refused("connection", why.code());
    tell(door, socket, why)
}

async fn tell(door: Door, mut socket: TcpStream, why: Closing) {
    if door == Door::Smtps {
        // Plain words are nothing that a client in TLS reads, and a handshake is what they are to be spared.
        return;
    }
    let mut words = Vec::new();
    why.reply().write_to(&mut words);
    // The send buffer of a new socket takes one line at once.
    _ = tokio::time::timeout(REFUSAL_TIMEOUT, socket.write_all(&words)).await;
}

const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
