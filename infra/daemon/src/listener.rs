//! Listens, and accepts no more than it may.

use std::{
    fs::File,
    future::{Future, ready},
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep},
};
use tracing::warn;

use crate::shutdown::Shutdown;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {}", explain(source))]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// What for, for example "mx smtp".
    pub what: String,
    /// Why not.
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use; stop what uses it or choose another port (`posthouse up`: --port-base)"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; correct the setting".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Listens on an address; port 0 takes a free one. Must be called inside a runtime.
///
/// # Errors
/// `BindError`, whose text says what to do.
pub fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A restart must not wait for the TIME_WAIT of connections that ended with the last process.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| BindError {
        address,
        what: what.to_owned(),
        source,
    })
}

/// Listens for clients from outside. One that has vanished, its machine off or its line cut, is noticed some 90 s after `keepalive`
/// without a word from it, and its connection ends; with zero it is never asked whether it is still there.
///
/// # Errors
/// As [`bind`].
pub fn bind_for_clients(
    address: SocketAddr,
    what: &str,
    keepalive: Duration,
) -> Result<TcpListener, BindError> {
    let listener = bind(address, what)?;
    // Linux gives what it accepts the listening socket's own (tcp(7)).
    ask_whether_there(&listener, keepalive).map_err(|source| BindError {
        address,
        what: what.to_owned(),
        source,
    })?;
    Ok(listener)
}

fn ask_whether_there(socket: &impl AsFd, keepalive: Duration) -> io::Result<()> {
    if keepalive.is_zero() {
        return Ok(());
    }
    let asked = TcpKeepalive::new()
        .with_time(keepalive)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(socket).set_tcp_keepalive(&asked)
}

/// Does the same for a connection that we made as [`bind_for_clients`] does for those that come. Nobody is waited for any longer
/// either who confirms nothing of what we have sent, or has no room for more.
///
/// # Errors
/// The kernel's.
pub fn give_up_vanished(socket: &TcpStream, keepalive: Duration) -> io::Result<()> {
    if keepalive.is_zero() {
        return Ok(());
    }
    ask_whether_there(socket, keepalive)?;
    // This time takes the place of the number of questions (tcp(7), TCP_USER_TIMEOUT).
    let give_up = keepalive + KEEPALIVE_INTERVAL * KEEPALIVE_QUESTIONS;
    SockRef::from(socket).set_tcp_user_timeout(Some(give_up))
}

/// Between two questions without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// As many as the kernel asks: net.ipv4.tcp_keepalive_probes.
const KEEPALIVE_QUESTIONS: u32 = 9;

/// Connections that may be open at once, of one listener or of several that share them: clones are the same slots.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Slots {
    /// So many.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are taken now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.limit.saturating_sub(self.free.available_permits())
    }
}

impl From<usize> for Slots {
    fn from(limit: usize) -> Self {
        Self::new(limit)
    }
}

/// Accepts connections until the shutdown begins, as many at once as there are slots; those over it are closed.
///
/// Each is handled in a task that [`Shutdown::drained`] waits for. `TCP_NODELAY` is set.
pub async fn accept_each<H, F>(
    listener: TcpListener,
    slots: impl Into<Slots>,
    shutdown: Shutdown,
    handle: H,
) where
    H: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    accept_each_or(listener, slots, shutdown, handle, |_, _| ready(())).await;
}

/// Like [`accept_each`]; a connection without a slot, or for which no file may be opened any more, is given to `full`, which
/// counts it, and then is told so cheaply before it closes.
///
/// At most 64 are told at once and each for at most 5 s, so that telling is no way to use us up; the others are closed untold.
pub async fn accept_each_or<H, F, R, G>(
    listener: TcpListener,
    slots: impl Into<Slots>,
    shutdown: Shutdown,
    handle: H,
    full: R,
) where
    H: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
    R: Fn(TcpStream, SocketAddr) -> G,
    G: Future<Output = ()> + Send + 'static,
{
    metrics::describe_counter!(
        OUT_OF_FILES,
        "Connections that found no file free for them, and were refused."
    );
    let slots = slots.into();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let refuse = |socket, from| {
        let told = full(socket, from);
        if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
            shutdown.spawn(async move {
                _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
                drop(refusal);
            });
        }
    };
    let mut spare = Spare::default();
    let mut complaints = Complaints::default();
    loop {
        spare.keep();
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            // The client went away before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            Err(error) if is_out_of_files(&error) => {
                metrics::counter!(OUT_OF_FILES).increment(1);
                complaints.say(|| {
                    warn!(
                        cause = %error,
                        "no more files may be open, refusing connections: raise the limit (LimitNOFILE, ulimit -n) or accept fewer"
                    )
                });
                // Who waits in the queue is to hear of it, and whoever looks for room to begin.
                match spare.accept(&listener).await {
                    Some((socket, from)) => refuse(socket, from),
                    None => sleep(ACCEPT_PAUSE).await,
                }
                continue;
            }
            Err(error) => {
                // Trying at once would only burn the processor.
                complaints.say(|| warn!(cause = %error, "cannot accept connections, trying again"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        _ = socket.set_nodelay(true);
        if let Ok(slot) = Arc::clone(&slots.free).try_acquire_owned() {
            // In a box, because a task that awaits what it was given holds it twice.
            let session = Box::pin(handle(socket, from));
            shutdown.spawn(async move {
                session.await;
                drop(slot);
            });
        } else {
            complaints.say(|| {
                warn!(
                    limit = slots.limit,
                    "all connection slots are taken, refusing more"
                )
            });
            refuse(socket, from);
        }
    }
}

/// Whether this process, or the whole system, may have no more files open.
fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// A file that is open for nothing, so that there is one more when no more may be open: without it who waits in the kernel's queue
/// would wait for ever, and nobody would hear why.
#[derive(Default)]
struct Spare(Option<File>);

impl Spare {
    fn keep(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }

    /// The next connection in the spare's place, if one waits.
    async fn accept(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        self.0.take()?;
        let accepted = tokio::time::timeout(ACCEPT_PAUSE, listener.accept()).await;
        accepted.ok()?.ok()
    }
}

/// How often no file was free for a connection.
const OUT_OF_FILES: &str = "posthouse_accept_out_of_files_total";

/// Lets one complaint a while through: what it says does not change a thousand times a second.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    fn say(&mut self, complain: impl FnOnce()) {
        if self
            .last
            .is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL)
        {
            complain();
            self.last = Some(Instant::now());
        }
    }
}

/// What the kernel queues for us; it cuts this to net.core.somaxconn (4096 on Linux since 5.4).
const BACKLOG: u32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_from_outside_is_asked_whether_it_is_there_as_the_settings_say() {
        for (asked, after) in [
            (Duration::from_secs(77), Some(Duration::from_secs(77))),
            (Duration::ZERO, None),
        ] {
            let listener = bind_for_clients(([127, 0, 0, 1], 0).into(), "test", asked).unwrap();
            let address = listener.local_addr().unwrap();
            let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (accepted, _) = accepted.unwrap();
            let near = near.unwrap();
            give_up_vanished(&near, asked).unwrap();
            for socket in [SockRef::from(&accepted), SockRef::from(&near)] {
                assert_eq!(socket.keepalive().unwrap(), after.is_some());
                if let Some(after) = after {
                    assert_eq!(socket.tcp_keepalive_time().unwrap(), after);
                    assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
                }
            }
            let give_up = SockRef::from(&near).tcp_user_timeout().unwrap();
            assert_eq!(give_up, after.map(|_| Duration::from_secs(167)));
        }
    }
}
