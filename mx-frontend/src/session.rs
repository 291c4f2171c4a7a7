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
mod screen;
mod starttls;
mod trace;
mod xclient;

pub(crate) use envelope::Envelope;
pub(crate) use starttls::{Leave, handshake, leave};

use std::pin::pin;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use mail_proto::smtp::{self, CloseReason, Mode, Server, Step};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::debug;

use crate::answered::Unread;
use crate::door::{Client, Door, Places};
use crate::frontend::Shared;
use crate::meter;
use crate::pace::Pace;
use crate::rates::{Event, TooOften};
use crate::reply::{Closing, found, too_often};
use crate::stress::{Level, Manner};
use crate::timeline::Timeline;
use data::Delivery;
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
    /// It took too long.
    TlsTimedOut,
    /// The client made too many mistakes.
    TooManyErrors,
    /// Where the next command begins is not known, or too far away.
    UnreadChunk,
    /// A command line or a refused body did not end.
    Endless,
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
            Self::TlsTimedOut => "starttls_timeout",
            Self::TooManyErrors => "too_many_errors",
            Self::UnreadChunk => "unread_chunk",
            Self::Endless => "endless",
            Self::Closed(why) => why.code(),
        }
    }

    /// Whether the client is to blame.
    fn is_misconduct(self) -> bool {
        matches!(
            self,
            Self::TooManyErrors
                | Self::Endless
                | Self::Closed(Closing::TooSlow | Closing::Found(_))
        )
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
    client: Client,
    /// The client's place among its connections.
    counted: Places,
    /// The client's name, as a relay that may tells it.
    client_host: Option<Box<str>>,
    /// Whether connections run out.
    stress: watch::Receiver<Level>,
    /// Whether it is always as if they did.
    is_always_stressed: bool,
    /// How the client is treated now.
    manner: &'a Manner,
    /// When the client last said something, or we did.
    heard: Instant,
    /// Since when the next command, or piece of a body, is waited for.
    waiting: Option<Instant>,
    /// Since when it has brought no message, as far as that counts.
    fruitless: Instant,
    /// It was ended because nothing came any more.
    has_fallen_silent: bool,
    /// That it sent on out of turn was told.
    is_out_of_turn_told: bool,
    /// For the handshake that begins behind our reply.
    leave: Option<Leave>,
    phase: Phase,
    /// A decided delivery whose reply is not written yet, and the message if it was kept.
    decided: Option<(Record, Option<Unread>)>,
    /// A message that was kept; whatever the client says next shows that it has read so.
    unread: Option<Unread>,
    /// Why we are closing the connection.
    closing: Closing,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        door: Door,
        stream: &UserStream,
        client: Client,
        counted: Places,
    ) -> Self {
        let now = Instant::now();
        let manner = &shared.stress.calm;
        let config = smtp::Config {
            size_max_bytes: shared.limits.message_size_max_bytes,
            recipients_max: shared.limits.recipients_max,
            text_line_max_bytes: shared.limits.text_line_max_bytes,
            starttls: shared.tls.is_some(),
            implicit_tls: stream.is_tls(),
            xclient: shared.is_relay(client.address.ip()),
            errors: manner.errors,
            ..smtp::Config::new(Mode::Smtp, shared.hostname.clone())
        };
        Self {
            shared,
            core: Server::new(config),
            client,
            counted,
            client_host: None,
            stress: shared.stress.subscribe(),
            is_always_stressed: door == Door::Stressed,
            manner,
            heard: now,
            waiting: None,
            fruitless: now,
            has_fallen_silent: false,
            is_out_of_turn_told: false,
            leave: None,
            phase: Phase::Idle(Timeline::new(now)),
            decided: None,
            unread: None,
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
            debug!(client = %self.client.address, trace_id = delivery.trace_id(), end = end.code(), "body was cut");
        }
        let is_misconduct = end.is_misconduct() && !self.has_fallen_silent;
        if is_misconduct && self.client.limited && !self.is_always_stressed {
            self.shared.stress.misbehaved(self.client.history).await;
        }
        end
    }

    /// Work that is awaited seldom is boxed: a connection spends its life waiting for input, and
    /// what it holds then is what ten thousand of them cost.
    async fn dialogue(&mut self, mut stream: UserStream, shutdown: &Shutdown) -> Result<End, End> {
        Box::pin(self.see_early_talk(&mut stream, shutdown)).await?;
        loop {
            self.follow_stress();
            _ = self.see_turn();
            let slowed = self.core.is_slowed();
            let step = self.core.next();
            if !matches!(step, Step::NeedInput) {
                self.waiting = None;
            }
            match step {
                Step::NeedInput => self.read(&mut stream, shutdown).await?,
                Step::Send(octets) => {
                    if slowed {
                        meter::delayed_reply();
                        tokio::select! {
                            () = sleep(self.shared.limits.error_delay()) => {}
                            () = shutdown.requested() => {}
                        }
                    }
                    let (began, mut manner) = (Instant::now(), self.manner);
                    let sent = {
                        let mut write = pin!(io::write_all(&mut stream, octets));
                        loop {
                            let ends = began + manner.command_timeout;
                            tokio::select! {
                                written = &mut write => break written.map_err(|_| End::Gone),
                                () = sleep_until(ends) => break Err(End::NotReading),
                                // There may be less time now.
                                Ok(()) = self.stress.changed() => {
                                    let is_on = self.stress.borrow_and_update().is_stressed() && !self.client.is_good;
                                    manner = self.shared.stress.manner(is_on || self.is_always_stressed);
                                }
                            }
                        }
                    };
                    self.on_sent(sent.is_ok());
                    self.heard = Instant::now();
                    meter::tally(self.core.take_tally());
                    sent?;
                }
                Step::Mail(mail) => {
                    if let Err(why) = self.count(Event::Message) {
                        meter::refused("mail", why.code());
                        self.core.refuse_too_often(too_often(why));
                        continue;
                    }
                    let (since, looking) = (self.idle_since(), self.look_up(&mail));
                    self.phase = Phase::Envelope(mail::begin(
                        self.shared,
                        mail,
                        since,
                        looking,
                        self.client.checked,
                    ));
                    self.core.accept();
                }
                Step::Recipient(path) => {
                    if let Err(why) = self.count(Event::Recipient) {
                        meter::refused("rcpt", why.code());
                        self.core.refuse_too_often(too_often(why));
                        continue;
                    }
                    if let Err(finding) = Box::pin(self.screen(&path)).await {
                        meter::refused("rcpt", finding.check.code());
                        self.core.refuse(found(finding));
                        continue;
                    }
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
                    // Refused and not closed, it would have its message read as commands.
                    if self.see_turn().is_err() {
                        continue;
                    }
                    let Phase::Envelope(envelope) = self.take_phase() else {
                        unreachable!("the core asks for a body only after RCPT")
                    };
                    let start = Box::pin(data::start(self.shared, *envelope));
                    self.phase = Phase::Body(start.await);
                    // To connect took our time, not the client's.
                    self.heard = Instant::now();
                    self.core.accept();
                }
                Step::BodyChunk(octets) => {
                    if let Phase::Body(delivery) = &mut self.phase {
                        delivery.chunk(octets).await;
                        // A slow back-end is not the client's silence.
                        self.heard = Instant::now();
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
                    let host = self.client_host.clone();
                    let address = self.client.address;
                    let connection = trace::Connection::of(&self.core, &stream, address, host);
                    let commit = Box::pin(commit::commit(self.shared, *delivery, connection));
                    let (reply, record, unread) = commit.await;
                    // What has come by now was said before the answer.
                    let has_gone = io::read_waiting(&mut stream, &mut self.core).await;
                    let unread = unread.filter(|_| !has_gone);
                    if reply.is_positive() {
                        self.has_brought_mail().await;
                    }
                    if !reply.is_permanent() {
                        self.fruitless = Instant::now();
                    }
                    self.core.finish(&[reply]);
                    self.decided = Some((record, unread));
                }
                Step::Reset => {
                    let idle = Phase::Idle(self.idle_since());
                    if let Phase::Body(_) = std::mem::replace(&mut self.phase, idle) {
                        meter::cut_bodies().increment(1);
                    }
                }
                Step::StartTlsAsked => match leave(self.shared, &self.client) {
                    Err(why) => {
                        meter::refused("starttls", why.code());
                        self.core.refuse_too_often(too_often(why));
                    }
                    Ok(leave) => {
                        self.leave = Some(leave);
                        self.core.accept();
                    }
                },
                Step::StartTls => {
                    let Some(leave) = self.leave.take() else {
                        unreachable!("the core asks before a handshake begins")
                    };
                    let hurried = self.is_always_stressed;
                    let shaken = handshake(self.shared, stream, &self.client, leave, hurried);
                    stream = Box::pin(shaken).await?;
                    self.heard = Instant::now();
                    self.core.tls_started();
                }
                Step::AuthAsked => match self.count(Event::Auth) {
                    Ok(()) => self.core.accept(),
                    Err(why) => {
                        meter::refused("auth", why.code());
                        self.core.refuse_too_often(too_often(why));
                    }
                },
                Step::XClient(told) => Box::pin(self.speaks_for(told)).await,
                Step::AwaitAnswer => {
                    unreachable!("every question is answered before the next step")
                }
                Step::Close(reason) => {
                    if reason == CloseReason::Endless {
                        // It sends on, and an orderly close would have the kernel take it.
                        stream.reset_on_drop();
                    } else {
                        // In TLS an end that is not said could be an attacker's (RFC 8446 §6.1).
                        _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
                    }
                    return Ok(match reason {
                        CloseReason::Quit => End::Quit,
                        CloseReason::TooManyErrors => End::TooManyErrors,
                        CloseReason::UnreadChunk => End::UnreadChunk,
                        CloseReason::Endless => End::Endless,
                        CloseReason::Shut => End::Closed(self.closing),
                    });
                }
            }
        }
    }

    async fn read(&mut self, stream: &mut UserStream, shutdown: &Shutdown) -> Result<(), End> {
        let manner = self.manner;
        let began = Instant::now();
        let waiting = *self.waiting.get_or_insert(self.heard);
        let is_refused = matches!(self.phase, Phase::Refused(_));
        // What is read over has a pace to keep, and no command's time.
        let since = if manner.command_deadline && !is_refused {
            waiting
        } else {
            self.heard
        };
        // When the last connection is taken, good clients too may not keep one for the mail that they may yet bring.
        let spares = self.client.limited && matches!(self.phase, Phase::Idle(_));
        let command_timeout = if spares && *self.stress.borrow() == Level::Full {
            let stressed = &self.shared.stress.stressed;
            manner.command_timeout.min(stressed.command_timeout)
        } else {
            manner.command_timeout
        };
        let silence_ends = since + command_timeout;
        let (pace, in_body) = match &mut self.phase {
            Phase::Body(delivery) => (Some(&mut delivery.pace), true),
            Phase::Refused(pace) => (Some(pace), false),
            Phase::Idle(_) | Phase::Envelope(_) => (None, false),
        };
        let window_ends = pace.and_then(|pace| {
            pace.see_over(manner.sender_window);
            began.checked_add(pace.patience())
        });
        let longest = manner.session_timeout.filter(|_| !in_body);
        let fruitless_ends = longest.map(|longest| self.fruitless + longest);
        if fruitless_ends.is_some_and(|ends| ends <= began) {
            // However much it says.
            self.shut(Closing::NoMail);
            return Ok(());
        }
        let others = [window_ends, fruitless_ends].into_iter().flatten();
        let ends = others.fold(silence_ends, Instant::min);
        let read = tokio::select! {
            read = timeout_at(ends, io::read_into(stream, &mut self.core)) => read,
            // A body under way is finished: the drain waits for it.
            () = shutdown.requested(), if !in_body => {
                self.shut(Closing::Draining);
                return Ok(());
            }
            // There may be less time now.
            _ = self.stress.changed() => {
                // It may have brought mail by another connection since.
                self.client.look_back(self.shared).await;
                return Ok(());
            }
        };
        let octets = match read {
            Ok(closed @ (Ok(0) | Err(_))) => {
                self.see_close(stream, closed).await;
                return Err(End::Gone);
            }
            Ok(Ok(octets)) => octets,
            Err(_) if fruitless_ends == Some(ends) => {
                self.shut(Closing::NoMail);
                return Ok(());
            }
            Err(_) if ends == silence_ends => {
                self.shut(Closing::Idle);
                return Ok(());
            }
            Err(_) => 0,
        };
        if octets > 0 {
            self.heard = Instant::now();
            if let Some(unread) = self.unread.take() {
                self.shared.answers.was_read(unread);
            }
        }
        let kept_up = match &mut self.phase {
            Phase::Body(delivery) => delivery.pace.read(began.elapsed(), octets),
            Phase::Refused(pace) => pace.read(began.elapsed(), octets),
            Phase::Idle(_) | Phase::Envelope(_) => Ok(()),
        };
        if kept_up.is_err() {
            self.has_fallen_silent = self.heard.elapsed() * 2 >= manner.sender_window;
            self.shut(Closing::TooSlow);
        }
        Ok(())
    }

    /// The client sends no more: it has read our answer, unless something says that it did not take it.
    async fn see_close(&mut self, stream: &UserStream, closed: std::io::Result<usize>) {
        let is_end = match closed {
            Ok(_) => true,
            // In TLS few say that they close.
            Err(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        };
        let Some(unread) = self.unread.take().filter(|_| is_end) else {
            return;
        };
        if stream.was_taken().await {
            self.shared.answers.was_read(unread);
        }
    }

    /// Treats the client from now on as the state of things wants.
    fn follow_stress(&mut self) {
        let is_on = self.stress.borrow_and_update().is_stressed() && !self.client.is_good;
        let manner = self.shared.stress.manner(is_on || self.is_always_stressed);
        if !std::ptr::eq(manner, self.manner) {
            self.manner = manner;
            self.fruitless = Instant::now();
            self.core.set_error_limits(manner.errors);
        }
    }

    /// Counts what the client does.
    fn count(&self, event: Event) -> Result<(), TooOften> {
        if !self.client.limited {
            return Ok(());
        }
        self.shared.rates.count(event, self.client.key)
    }

    async fn has_brought_mail(&mut self) {
        if self.client.limited {
            self.shared.stress.brought(self.client.history).await;
            self.client.look_back(self.shared).await;
        }
    }

    /// Our replies so far were written, or the client does not take them.
    fn on_sent(&mut self, sent: bool) {
        if let Some((record, unread)) = self.decided.take() {
            self.unread = unread.filter(|_| sent && !self.core.has_unread_input());
            self.phase = Phase::Idle(record.told(Instant::now(), sent));
        } else if let Phase::Refused(_) = self.phase {
            self.phase = Phase::Idle(self.idle_since());
        }
    }

    fn shut(&mut self, why: Closing) {
        let idle = Phase::Idle(self.idle_since());
        if let Phase::Body(_) = std::mem::replace(&mut self.phase, idle) {
            meter::cut_bodies().increment(1);
        }
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
