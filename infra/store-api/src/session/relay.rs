//! Copying between a user's socket and a session stream, once the login is over.
//!
//! Nothing is parsed. A buffer is borrowed only while octets move: reading goes into a scratch
//! buffer of the thread inside one poll, so an idle session holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use daemon::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::{Session, SessionReceiver, SessionSender};

/// How a relayed session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// The back-end said so: the user logged out, or was told why not to go on.
    Backend,
    /// The user's connection was closed or lost.
    User,
    /// The stream to the back-end was cut.
    Cut,
    /// Neither side said anything for too long.
    Idle,
    /// This process is stopping.
    Shutdown,
}

impl RelayEnd {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::User => "user",
            Self::Cut => "cut",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What passed, and why it ended.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// Octets from the user to the back-end.
    pub from_user: u64,
    /// Octets from the back-end to the user.
    pub to_user: u64,
    /// Why it ended.
    pub end: RelayEnd,
}

/// Copies both ways until one side ends. `leftover` is what the user sent behind the login.
///
/// A user who only shuts down the sending side is still answered: the back-end is told `End` and
/// has the last word. When the back-end's stream is cut the user's connection is dropped without
/// an orderly close of TLS, so that a client can tell the difference.
///
/// At a shutdown whatever is on its way passes first: the session ends when nothing has moved for
/// [`QUIET`], or after [`DRAIN_MAX`].
pub async fn relay<S>(
    stream: S,
    leftover: Vec<u8>,
    session: Session,
    idle_max: Duration,
    shutdown: &Shutdown,
) -> Relayed
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (user_read, user_write) = tokio::io::split(stream);
    let (sender, receiver) = session.split();
    let passed = Passed::default();
    let end = {
        // Two loops, not one: a side that is slow to take octets must not stop the other way, or
        // a user who sends much and reads little would block the session for good.
        let up = up(user_read, leftover, sender, &passed);
        let down = down(receiver, user_write, idle_max, &passed);
        tokio::pin!(up, down);
        let mut user_open = true;
        let mut seen = passed.sum();
        let mut idle_from = Instant::now();
        let mut ends_at = None;
        loop {
            let patience = if ends_at.is_some() { QUIET } else { idle_max };
            tokio::select! {
                biased;
                end = &mut down => break end,
                went = &mut up, if user_open => match went {
                    Ok(()) => user_open = false,
                    Err(_) => break RelayEnd::User,
                },
                () = tokio::time::sleep_until(idle_from + patience) => {
                    let now = passed.sum();
                    match ends_at {
                        None if now == seen => break RelayEnd::Idle,
                        Some(at) if now == seen && !passed.is_writing() || Instant::now() >= at => {
                            break RelayEnd::Shutdown;
                        }
                        None | Some(_) => {}
                    }
                    seen = now;
                    idle_from = Instant::now();
                }
                () = shutdown.requested(), if ends_at.is_none() => {
                    seen = passed.sum();
                    idle_from = Instant::now();
                    ends_at = Some(idle_from + DRAIN_MAX);
                }
            }
        }
    };
    Relayed {
        from_user: passed.from_user.load(Ordering::Relaxed),
        to_user: passed.to_user.load(Ordering::Relaxed),
        end,
    }
}

#[derive(Default)]
struct Passed {
    from_user: AtomicU64,
    to_user: AtomicU64,
    /// Octets for the user have been begun and not all taken: a slow reader is not a quiet one.
    writing: AtomicBool,
}

impl Passed {
    fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    fn sum(&self) -> u64 {
        self.from_user.load(Ordering::Relaxed) + self.to_user.load(Ordering::Relaxed)
    }
}

/// User to back-end. Ends when the user has no more to say or the back-end takes no more.
async fn up<R: AsyncRead + Unpin>(
    mut user: R,
    leftover: Vec<u8>,
    backend: SessionSender,
    passed: &Passed,
) -> io::Result<()> {
    let mut octets = Bytes::from(leftover);
    loop {
        if !octets.is_empty() {
            passed
                .from_user
                .fetch_add(octets.len() as u64, Ordering::Relaxed);
            if backend.send(octets).await.is_err() {
                return Ok(());
            }
        }
        octets = read_piece(&mut user).await?;
        if octets.is_empty() {
            backend.end().await;
            return Ok(());
        }
    }
}

/// Back-end to user, until one of them ends it.
async fn down<W: AsyncWrite + Unpin>(
    mut backend: SessionReceiver,
    mut user: W,
    idle_max: Duration,
    passed: &Passed,
) -> RelayEnd {
    loop {
        match backend.next().await {
            Ok(Some(octets)) => {
                passed.writing.store(true, Ordering::Relaxed);
                if write_within(&mut user, &octets, idle_max).await.is_err() {
                    return RelayEnd::User;
                }
                passed.writing.store(false, Ordering::Relaxed);
                passed
                    .to_user
                    .fetch_add(octets.len() as u64, Ordering::Relaxed);
            }
            Ok(None) => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, user.shutdown()).await;
                return RelayEnd::Backend;
            }
            Err(_) => return RelayEnd::Cut,
        }
    }
}

/// Silence after which a session is taken for idle at a shutdown: some round trips of a slow line.
pub const QUIET: Duration = Duration::from_secs(1);
/// The longest that a session goes on after a shutdown: half of what `posthouse up` gives all tiers.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long the user's side may take to accept the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

async fn write_within<W: AsyncWrite + Unpin>(
    to: &mut W,
    octets: &[u8],
    within: Duration,
) -> io::Result<()> {
    let write = async {
        to.write_all(octets).await?;
        to.flush().await
    };
    tokio::time::timeout(within, write)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// One read's worth: the size of a TLS record.
const SCRATCH_OCTETS: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_OCTETS]);
}

/// The octets that are there, at most one scratch buffer; empty at the end of the stream.
async fn read_piece<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Bytes> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            Ok(Bytes::copy_from_slice(buffer.filled())).into()
        })
    })
    .await
}
