//! Copying between a user's socket and a session stream, once the login is over.
//!
//! Nothing is parsed. A buffer is borrowed only while octets move: reading goes into a scratch
//! buffer of the thread inside one poll, so an idle session holds none.
//!
//! A session can change its back-end without the user noticing: at a `pause` nothing more is read
//! from the user, both ends tell how far they are, and at the `resume` copying goes on, on the same
//! stream or on a new one to another back-end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use daemon::shutdown::Shutdown;
use directory_api::{BackendName, Service};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::client::Received;
use super::{Offsets, Resume, Session, SessionReceiver, SessionResume, SessionSender};
use crate::Backends;

/// How a relayed session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// The back-end said so: the user logged out, or was told why not to go on.
    Backend,
    /// The user's connection was closed or lost.
    User,
    /// The stream to the back-end was cut.
    Cut,
    /// The back-end paused the session, and it went on nowhere.
    HandOver,
    /// Neither side said anything for too long.
    Idle,
    /// The shutdown was begun.
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
            Self::HandOver => "hand_over_failed",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a relay has to know besides its two ends.
pub struct Terms<'a> {
    /// Counts what passes, for whoever looks on.
    pub passed: &'a Passed,
    /// Silence both ways after which the session is cut.
    pub idle_max: Duration,
    /// What the user speaks: the farewell is said in it.
    pub service: Service,
    /// The way to the back-end where a paused session goes on.
    pub backends: &'a Backends,
    /// Told when it goes on at another one.
    pub went_on: &'a (dyn Fn(&BackendName) + Sync),
    /// Tells the session apart in the logs of every tier.
    pub trace_id: &'a str,
    /// Ends the session.
    pub shutdown: &'a Shutdown,
}

/// Copies both ways until one side ends. `leftover` is what the user sent behind the login.
///
/// A user who only shuts down the sending side is still answered: the back-end is told `End` and
/// has the last word. When the back-end's stream is cut the user's connection is dropped without
/// an orderly close of TLS, so that a client can tell the difference.
///
/// At a shutdown whatever is on its way passes first, until nothing has moved for [`QUIET`] or
/// [`DRAIN_MAX`] is over. Then the back-end is told that the user has no more to say, and behind
/// its own end, where no answer can be half given, the user is told the farewell.
pub async fn relay<S>(stream: S, leftover: Vec<u8>, session: Session, terms: &Terms<'_>) -> RelayEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (user_read, user_write) = tokio::io::split(stream);
    let leaving = Leaving::with(Some(farewell(terms.service)));
    let work = carry(user_read, user_write, leftover, session, terms, &leaving);
    attend(work, terms, &leaving).await
}

/// The same where the other end is a connection to somebody who knows nothing of sessions. The user is told `words` first.
///
/// When we end it, nothing is said behind the other end's: many a server just stops within an answer when its client has gone,
/// and a farewell there would be octets of a message. The user's connection is dropped as if the other one were cut.
pub async fn relay_plain<S, H>(
    stream: S,
    leftover: Vec<u8>,
    home: H,
    words: Vec<u8>,
    terms: &Terms<'_>,
) -> RelayEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: AsyncRead + AsyncWrite + Unpin,
{
    let (mut user_read, mut user_write) = tokio::io::split(stream);
    let (mut receiver, sender) = tokio::io::split(home);
    let leaving = Leaving::with(None);
    let work = async {
        let mut sender = Some(sender);
        let told = write_within(&mut user_write, &words, terms.idle_max).await;
        if told.is_err() {
            return RelayEnd::User;
        }
        terms
            .passed
            .to_user
            .fetch_add(words.len() as u64, Ordering::Relaxed);
        let ended = copy(
            (&mut user_read, &mut user_write),
            leftover.into(),
            (&mut sender, &mut receiver),
            terms,
            &leaving,
        );
        // Nobody there can pause.
        ended.await.err().unwrap_or(RelayEnd::Cut)
    };
    attend(work, terms, &leaving).await
}

/// Lets a session be carried until it ends, is idle, or a shutdown ends it.
async fn attend(
    work: impl Future<Output = RelayEnd>,
    terms: &Terms<'_>,
    leaving: &Leaving,
) -> RelayEnd {
    let passed = terms.passed;
    let mut work = pin!(work);
    let mut seen = passed.sum();
    let mut idle_from = Instant::now();
    let mut ends_at = None;
    loop {
        let patience = if ends_at.is_some() {
            QUIET
        } else {
            terms.idle_max
        };
        tokio::select! {
            biased;
            end = &mut work => return end,
            () = tokio::time::sleep_until(idle_from + patience) => {
                let now = passed.sum();
                match ends_at {
                    None if now == seen => return RelayEnd::Idle,
                    Some(at) if now == seen && !passed.is_writing() || Instant::now() >= at => break,
                    None | Some(_) => {}
                }
                seen = now;
                idle_from = Instant::now();
            }
            () = terms.shutdown.requested(), if ends_at.is_none() => {
                seen = passed.sum();
                idle_from = Instant::now();
                ends_at = Some(idle_from + DRAIN_MAX);
            }
        }
    }
    leaving.begin();
    // Whatever ends it now, it was we who began.
    _ = timeout(LEAVE_MAX, work).await;
    RelayEnd::Shutdown
}

/// Octets that have passed since the login, each way.
#[derive(Debug, Default)]
pub struct Passed {
    from_user: AtomicU64,
    to_user: AtomicU64,
    /// Octets for the user have been begun and not all taken: a slow reader is not a quiet one.
    writing: AtomicBool,
}

impl Passed {
    /// From the user to the back-end.
    #[must_use]
    pub fn from_user(&self) -> u64 {
        self.from_user.load(Ordering::Relaxed)
    }

    /// From the back-end to the user.
    #[must_use]
    pub fn to_user(&self) -> u64 {
        self.to_user.load(Ordering::Relaxed)
    }

    fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    fn sum(&self) -> u64 {
        self.from_user() + self.to_user()
    }

    fn offsets(&self) -> Offsets {
        Offsets {
            from_user: self.from_user(),
            to_user: self.to_user(),
        }
    }
}

/// We end the session: the user is taken to have no more to say.
struct Leaving {
    is_begun: AtomicBool,
    told: Notify,
    /// What the user hears behind the other end's, where no answer can be half given.
    farewell: Option<&'static [u8]>,
}

impl Leaving {
    fn with(farewell: Option<&'static [u8]>) -> Self {
        Self {
            is_begun: AtomicBool::new(false),
            told: Notify::new(),
            farewell,
        }
    }

    fn begin(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed)
    }
}

/// Copies until the end, on one stream after another when the session is handed on.
async fn carry<R, W>(
    mut user_read: R,
    mut user_write: W,
    leftover: Vec<u8>,
    session: Session,
    terms: &Terms<'_>,
    leaving: &Leaving,
) -> RelayEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut unsent = Bytes::from(leftover);
    let (sender, mut receiver) = session.split();
    // None once the user has no more to say.
    let mut sender = Some(sender);
    loop {
        let copied = copy(
            (&mut user_read, &mut user_write),
            std::mem::take(&mut unsent),
            (&mut sender, &mut receiver),
            terms,
            leaving,
        );
        let paused = match copied.await {
            Ok(paused) => paused,
            Err(end) => return end,
        };
        let goes_on = Box::pin(timeout(
            PAUSE_MAX,
            hand_over(paused, &mut sender, &mut receiver, terms),
        ));
        match goes_on.await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return RelayEnd::HandOver,
        }
    }
}

/// Copies on one stream, until it ends or the back-end pauses.
async fn copy<R, W, O, I>(
    (user_read, user_write): (&mut R, &mut W),
    unsent: Bytes,
    (sender, receiver): (&mut Option<O>, &mut I),
    terms: &Terms<'_>,
    leaving: &Leaving,
) -> Result<Offsets, RelayEnd>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    O: Onward,
    I: Inward,
{
    let pause = Notify::new();
    // Two loops, not one: a side that is slow to take octets must not stop the other way, or
    // a user who sends much and reads little would block the session for good.
    let mut up = pin!(up(user_read, unsent, sender, terms.passed, leaving, &pause));
    let mut down = pin!(down(receiver, user_write, terms, leaving));
    let mut up_runs = true;
    let paused = loop {
        tokio::select! {
            biased;
            told = &mut down => break told?,
            went = &mut up, if up_runs => match went {
                Ok(()) => up_runs = false,
                Err(_) => return Err(RelayEnd::User),
            },
        }
    };
    pause.notify_one();
    if up_runs {
        match timeout(PAUSE_MAX, up).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(RelayEnd::User),
            Err(_) => return Err(RelayEnd::HandOver),
        }
    }
    Ok(paused)
}

/// The way to whoever has the user's mail.
trait Onward {
    /// Passes octets on; whether they were taken.
    async fn pass(&mut self, octets: Bytes) -> bool;
    /// The user has no more to say.
    async fn end(self);
}

impl Onward for SessionSender {
    async fn pass(&mut self, octets: Bytes) -> bool {
        self.send(octets).await.is_ok()
    }

    async fn end(self) {
        Self::end(self).await;
    }
}

impl<H: AsyncRead + AsyncWrite> Onward for WriteHalf<H> {
    async fn pass(&mut self, octets: Bytes) -> bool {
        let write = async {
            self.write_all(&octets).await?;
            self.flush().await
        };
        write.await.is_ok()
    }

    async fn end(mut self) {
        _ = timeout(CLOSE_TIMEOUT, self.shutdown()).await;
    }
}

/// The way back.
trait Inward {
    /// What comes next; nothing when the stream was cut.
    async fn next(&mut self) -> Option<Received>;
}

impl Inward for SessionReceiver {
    async fn next(&mut self) -> Option<Received> {
        self.event().await.ok()
    }
}

impl<H: AsyncRead + AsyncWrite> Inward for ReadHalf<H> {
    async fn next(&mut self) -> Option<Received> {
        let piece = read_piece(self).await.ok()?;
        Some(match piece.is_empty() {
            true => Received::End,
            false => Received::Data(piece),
        })
    }
}

/// From a `pause` to the `resume`; nothing when the session does not go on.
async fn hand_over(
    paused: Offsets,
    sender: &mut Option<SessionSender>,
    receiver: &mut SessionReceiver,
    terms: &Terms<'_>,
) -> Option<()> {
    let here = terms.passed.offsets();
    // All that the back-end has sent is with the user; some of what was sent to it, it has not looked at.
    if paused.to_user != here.to_user || paused.from_user > here.from_user {
        return None;
    }
    // Where the user has no more to say, `end` has told the back-end how much there was.
    if let Some(sender) = sender {
        sender.pause(here).await.ok()?;
    }
    let Ok(Received::Resume(resume)) = receiver.event().await else {
        return None;
    };
    let Resume {
        from_user,
        to_user,
        elsewhere,
    } = resume;
    if (Offsets { from_user, to_user }) != here {
        return None;
    }
    let Some(elsewhere) = elsewhere else {
        return Some(());
    };
    let link = terms.backends.link(&elsewhere.backend).await.ok()?;
    let first = SessionResume {
        token: elsewhere.token,
        from_user,
        to_user,
        trace_id: terms.trace_id.to_owned(),
    };
    let session = Session::resume(&link, &first, PAUSE_MAX).await;
    let session = session.inspect_err(|error| {
        let cause = daemon::log::causes(error);
        tracing::warn!(trace_id = terms.trace_id, backend = %elsewhere.backend, cause, "session does not go on");
    });
    let (new_sender, new_receiver) = session.ok()?.split();
    *receiver = new_receiver;
    (terms.went_on)(&elsewhere.backend);
    match sender {
        Some(sender) => *sender = new_sender,
        None => new_sender.end().await,
    }
    Some(())
}

/// User to back-end. Ends when the user has no more to say, the back-end takes no more, or pauses.
async fn up<R: AsyncRead + Unpin, O: Onward>(
    user: &mut R,
    mut octets: Bytes,
    backend: &mut Option<O>,
    passed: &Passed,
    leaving: &Leaving,
    pause: &Notify,
) -> io::Result<()> {
    loop {
        let Some(sender) = backend else {
            return Ok(());
        };
        if !octets.is_empty() {
            passed
                .from_user
                .fetch_add(octets.len() as u64, Ordering::Relaxed);
            if !sender.pass(octets).await {
                return Ok(());
            }
        }
        octets = tokio::select! {
            biased;
            () = pause.notified() => return Ok(()),
            () = leaving.told.notified() => Bytes::new(),
            piece = read_piece(user) => piece?,
        };
        if octets.is_empty()
            && let Some(sender) = backend.take()
        {
            sender.end().await;
        }
    }
}

/// Back-end to user, until the back-end pauses or one of them ends it.
async fn down<W: AsyncWrite + Unpin, I: Inward>(
    backend: &mut I,
    user: &mut W,
    terms: &Terms<'_>,
    leaving: &Leaving,
) -> Result<Offsets, RelayEnd> {
    let passed = terms.passed;
    loop {
        match backend.next().await {
            Some(Received::Data(octets)) => {
                passed.writing.store(true, Ordering::Relaxed);
                if write_within(user, &octets, terms.idle_max).await.is_err() {
                    return Err(RelayEnd::User);
                }
                passed.writing.store(false, Ordering::Relaxed);
                passed
                    .to_user
                    .fetch_add(octets.len() as u64, Ordering::Relaxed);
            }
            Some(Received::Pause(offsets)) => return Ok(offsets),
            Some(Received::End) => {
                if leaving.is_begun() {
                    let farewell = leaving.farewell.ok_or(RelayEnd::Cut)?;
                    _ = write_within(user, farewell, CLOSE_TIMEOUT).await;
                }
                let _ = timeout(CLOSE_TIMEOUT, user.shutdown()).await;
                return Err(RelayEnd::Backend);
            }
            Some(Received::Resume(_)) | None => return Err(RelayEnd::Cut),
        }
    }
}

/// As the login dialogues say it: the client may come back at once, to another process.
fn farewell(service: Service) -> &'static [u8] {
    match service {
        Service::Pop3 => b"-ERR [SYS/TEMP] come back in a moment\r\n",
        Service::Imap => b"* BYE [UNAVAILABLE] come back in a moment\r\n",
    }
}

/// Silence after which a session is taken for idle at a shutdown: some round trips of a slow line.
pub const QUIET: Duration = Duration::from_secs(1);
/// The longest that a session goes on after a shutdown: half of what `posthouse up` gives all tiers.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a back-end may take to end a session whose user is taken to have gone, and the user to be told.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// The longest that each part of a hand-over may take; a freeze of the account is to take two seconds at most.
const PAUSE_MAX: Duration = Duration::from_secs(10);
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
    timeout(within, write)
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
