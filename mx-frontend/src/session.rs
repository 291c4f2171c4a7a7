//! One SMTP connection: moves octets between socket and protocol core, and has the verbs decide.
//!
//! ```text
//!            MAIL              RCPT…  DATA           final dot, RSET
//!   Idle ──────────▶ Envelope ────────────▶ Body ──────────────────────▶ Idle
//!                                             └── fault ──▶ Refused ──▶ Idle
//! ```
//! The core keeps grammar, order of commands and limits; this file is the only one that meets the
//! socket. It never keeps a message on disk and holds at most some pieces of one in memory.

mod commit;
mod data;
mod envelope;
mod io;
mod mail;
mod rcpt;
mod record;
mod starttls;
mod trace;

use std::net::SocketAddr;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use mail_proto::smtp::{CloseReason, Server, Step};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::frontend::Shared;
use crate::meter;
use crate::pace::Pace;
use crate::reply::Closing;
use crate::timeline::Timeline;
use data::Delivery;
use envelope::Envelope;
use record::Record;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// QUIT.
    Quit,
    /// The client closed or cut the connection.
    Gone,
    /// The client did not take our replies.
    NotReading,
    /// The TLS handshake failed.
    Tls,
    /// The client made too many mistakes.
    TooManyErrors,
    /// Where the next command begins is not known, or too far away.
    UnreadChunk,
    /// We closed it and said why.
    Closed(Closing),
}

impl End {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Gone => "gone",
            Self::NotReading => "not_reading",
            Self::Tls => "tls_failed",
            Self::TooManyErrors => "too_many_errors",
            Self::UnreadChunk => "unread_chunk",
            Self::Closed(why) => why.code(),
        }
    }
}

/// How long a client may take to accept the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The transaction, as far as it has come.
#[derive(Debug)]
enum Phase {
    Idle(Timeline),
    Envelope(Box<Envelope>),
    Body(Box<Delivery>),
    /// The body is refused already; the core reads to its true end.
    Refused(Pace),
}

/// One connection.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    core: Server,
    client: SocketAddr,
    phase: Phase,
    /// A decided delivery whose reply is not written yet.
    decided: Option<Record>,
    /// Why we are closing the connection.
    closing: Closing,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Shared, stream: &UserStream, client: SocketAddr) -> Self {
        Self {
            shared,
            core: Server::new(shared.core_config(stream)),
            client,
            phase: Phase::Idle(Timeline::new(Instant::now())),
            decided: None,
            closing: Closing::Draining,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self, stream: UserStream, shutdown: &Shutdown) -> End {
        let end = match self.dialogue(stream, shutdown).await {
            Ok(end) | Err(end) => end,
        };
        if let Phase::Body(delivery) = self.phase {
            // Its streams end without a commit: nothing stays anywhere.
            meter::cut_bodies().increment(1);
            debug!(client = %self.client, trace_id = delivery.trace_id(), end = end.code(), "body was cut");
        }
        end
    }

    /// Work that is awaited seldom is boxed: a connection spends its life waiting for input, and
    /// what it holds then is what ten thousand of them cost.
    async fn dialogue(&mut self, mut stream: UserStream, shutdown: &Shutdown) -> Result<End, End> {
        loop {
            let slowed = self.core.is_slowed();
            match self.core.next() {
                Step::NeedInput => self.read(&mut stream, shutdown).await?,
                Step::Send(octets) => {
                    if slowed {
                        sleep(self.shared.limits.error_delay()).await;
                    }
                    let patience = self.shared.limits.command_timeout();
                    let sent = match timeout(patience, io::write_all(&mut stream, octets)).await {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(_)) => Err(End::Gone),
                        Err(_) => Err(End::NotReading),
                    };
                    self.on_sent(sent.is_ok());
                    sent?;
                }
                Step::Mail(mail) => {
                    self.phase = Phase::Envelope(mail::begin(self.shared, mail, self.idle_since()));
                    self.core.accept();
                }
                Step::Recipient(path) => {
                    let Phase::Envelope(envelope) = &mut self.phase else {
                        unreachable!("the core asks for recipients only after MAIL")
                    };
                    match Box::pin(rcpt::add(self.shared, envelope, path)).await {
                        Ok(()) => self.core.accept(),
                        Err(refusal) => {
                            meter::refused("rcpt", refusal.code());
                            self.core.refuse(refusal.reply());
                        }
                    }
                }
                Step::BodyStart => {
                    let Phase::Envelope(envelope) = self.take_phase() else {
                        unreachable!("the core asks for a body only after RCPT")
                    };
                    let start = Box::pin(data::start(self.shared, *envelope));
                    self.phase = Phase::Body(start.await);
                    self.core.accept();
                }
                Step::BodyChunk(octets) => {
                    if let Phase::Body(delivery) = &mut self.phase {
                        delivery.chunk(octets).await;
                    }
                }
                Step::BodyBroken(fault) => {
                    meter::refused("body", data::fault_code(fault));
                    if let Phase::Body(delivery) = self.take_phase() {
                        // With it go its streams, before the rest of the body has arrived.
                        self.phase = Phase::Refused(delivery.pace);
                    }
                }
                Step::BodyEnd { .. } => {
                    let Phase::Body(delivery) = self.take_phase() else {
                        unreachable!("the core ends only a body that was begun")
                    };
                    let connection = trace::Connection::of(&self.core, &stream, self.client);
                    let commit = Box::pin(commit::commit(self.shared, *delivery, connection));
                    let (reply, record) = commit.await;
                    self.core.finish(&[reply]);
                    self.decided = Some(record);
                }
                Step::Reset => {
                    let idle = Phase::Idle(self.idle_since());
                    if let Phase::Body(_) = std::mem::replace(&mut self.phase, idle) {
                        meter::cut_bodies().increment(1);
                    }
                }
                Step::StartTls => {
                    stream = Box::pin(starttls::handshake(self.shared, stream)).await?;
                    self.core.tls_started();
                }
                Step::AwaitAnswer => {
                    unreachable!("every question is answered before the next step")
                }
                Step::Close(reason) => {
                    // In TLS an end that is not said could be an attacker's (RFC 8446 §6.1).
                    _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
                    return Ok(match reason {
                        CloseReason::Quit => End::Quit,
                        CloseReason::TooManyErrors => End::TooManyErrors,
                        CloseReason::UnreadChunk => End::UnreadChunk,
                        CloseReason::Shut => End::Closed(self.closing),
                    });
                }
            }
        }
    }

    async fn read(&mut self, stream: &mut UserStream, shutdown: &Shutdown) -> Result<(), End> {
        let command_timeout = self.shared.limits.command_timeout();
        let (patience, in_body) = match &self.phase {
            Phase::Body(delivery) => (delivery.pace.patience().min(command_timeout), true),
            Phase::Refused(pace) => (pace.patience().min(command_timeout), false),
            Phase::Idle(_) | Phase::Envelope(_) => (command_timeout, false),
        };
        let began = Instant::now();
        let read = tokio::select! {
            read = timeout(patience, io::read_into(stream, &mut self.core)) => read,
            // A body under way is finished: the drain waits for it.
            () = shutdown.requested(), if !in_body => {
                self.shut(Closing::Draining);
                return Ok(());
            }
        };
        let octets = match read {
            Ok(Ok(0) | Err(_)) => return Err(End::Gone),
            Ok(Ok(octets)) => octets,
            Err(_) if patience == command_timeout => {
                self.shut(Closing::Idle);
                return Ok(());
            }
            Err(_) => 0,
        };
        let kept_up = match &mut self.phase {
            Phase::Body(delivery) => delivery.pace.read(began.elapsed(), octets),
            Phase::Refused(pace) => pace.read(began.elapsed(), octets),
            Phase::Idle(_) | Phase::Envelope(_) => Ok(()),
        };
        if kept_up.is_err() {
            self.shut(Closing::TooSlow);
        }
        Ok(())
    }

    /// Our replies so far were written, or the client does not take them.
    fn on_sent(&mut self, sent: bool) {
        if let Some(record) = self.decided.take() {
            self.phase = Phase::Idle(record.told(Instant::now(), sent));
        } else if let Phase::Refused(_) = self.phase {
            self.phase = Phase::Idle(self.idle_since());
        }
    }

    fn shut(&mut self, why: Closing) {
        self.phase = Phase::Idle(self.idle_since());
        self.closing = why;
        meter::refused("connection", why.code());
        self.core.shut(why.reply());
    }

    fn take_phase(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Idle(Timeline::new(Instant::now())))
    }

    /// Since when there is no transaction: now, when one ends here.
    fn idle_since(&self) -> Timeline {
        match &self.phase {
            Phase::Idle(since) => *since,
            Phase::Envelope(_) | Phase::Body(_) | Phase::Refused(_) => {
                Timeline::new(Instant::now())
            }
        }
    }
}
