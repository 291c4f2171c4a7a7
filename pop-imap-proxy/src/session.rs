//! One user: login here, session at home, octets in between.

use std::net::SocketAddr;
use std::sync::Arc;

use daemon::balancers::{HEADER_UNEXPECTED, begins_with_header};
use daemon::random;
use daemon::shutdown::Shutdown;
use daemon::stream::{TlsFacts, UserStream};
use data_encoding::BASE32_DNSSEC;
use directory_api::front::{
    Ended, Entry, FrontOptions, LoggedIn, LoginFacts, OpenError, SHOWN_WITHIN, log_in,
};
use directory_api::wire::{Foreign, LoginReply};
use mail_proto::login::{CloseReason, Refusal, Shut};
use store_api::session::{
    self, Passed, RelayEnd, Session, SessionOpen, SessionShown, Terms, relay, relay_plain,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::door::Door;
use crate::foreign::{self, Fault, Wanted};
use crate::meter;
use crate::proxy::Shared;
use crate::sessions::{About, Entered, NoEntry};

/// A session at the user's home, and its place among the open ones.
struct Home {
    session: Way,
    entered: Entered,
}

/// How it is reached.
enum Way {
    Ours(Session),
    Foreign {
        stream: Box<dyn foreign::Octets>,
        /// What the user hears first.
        words: Vec<u8>,
    },
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: &Shared,
    door: Door,
    mut socket: TcpStream,
    peer: SocketAddr,
    shutdown: &Shutdown,
) {
    // First of all: whose connection it is decides what it may.
    let client = match shared.balancers.client(&mut socket, peer).await {
        Ok(client) => client,
        Err(fault) => {
            meter::refused(door, fault.code());
            let cause = daemon::log::causes(&fault);
            return info!(%peer, door = door.name(), reason = fault.code(), cause, "connection of a balancer refused");
        }
    };
    if shared.sessions.is_drained_at(None) {
        meter::refused(door, NoEntry::Drained.code());
        return Box::pin(refuse(shared, door, socket, client, Shut::GoingDown)).await;
    }
    let Some(_counted) = shared.clients.admit(client.ip()) else {
        meter::refused(door, "client_connections_max");
        return Box::pin(refuse(shared, door, socket, client, Shut::Overloaded)).await;
    };
    let _open = meter::connection(door);
    let options = shared.front(door.service);
    let Some(stream) = Box::pin(open_stream(shared, door, socket, client, options)).await else {
        return;
    };
    let trace_id = trace_id();
    // A statement of its own: the dialogue's memory goes before the session's begins.
    let begun = Box::pin(begin(
        shared, door, stream, client, options, &trace_id, shutdown,
    ))
    .await;
    match begun {
        Ok(user) => Box::pin(carry(shared, door, user, &trace_id, shutdown)).await,
        Err(Ended::HeaderUnexpected) => header_unexpected(door, client),
        Err(ended) => {
            meter::ended_before_login(door, reason(&ended));
            debug!(%client, door = door.name(), %ended, "connection ended before login");
        }
    }
}

/// The stream that the dialogue is led on; nothing when there is none to lead.
async fn open_stream(
    shared: &Shared,
    door: Door,
    socket: TcpStream,
    client: SocketAddr,
    options: &FrontOptions,
) -> Option<UserStream> {
    if !door.implicit_tls {
        return Some(UserStream::plain(socket));
    }
    let Some(tls) = &shared.tls else {
        unreachable!("a listener in TLS is opened only with a certificate")
    };
    let began = Instant::now();
    let error = match timeout(options.login_timeout, begins_with_header(&socket)).await {
        Ok(Ok(true)) => {
            header_unexpected(door, client);
            return None;
        }
        Ok(Ok(false)) => {
            let left = options.login_timeout.saturating_sub(began.elapsed());
            match UserStream::implicit_tls(socket, tls, left).await {
                Ok(stream) => return Some(stream),
                Err(error) => error,
            }
        }
        Ok(Err(error)) => error,
        Err(elapsed) => elapsed.into(),
    };
    debug!(%client, %error, "TLS handshake failed");
    meter::ended_before_login(door, "tls_failed");
    None
}

/// Somebody speaks for others who may not.
fn header_unexpected(door: Door, client: SocketAddr) {
    meter::ended_before_login(door, HEADER_UNEXPECTED);
    info!(%client, door = door.name(), reason = HEADER_UNEXPECTED, "connection refused: a PROXY header, and not from a network of balancers.networks");
}

/// The dialogue up to the login. The session is opened before the user is told anything.
async fn begin(
    shared: &Shared,
    door: Door,
    stream: UserStream,
    client: SocketAddr,
    options: &FrontOptions,
    trace_id: &str,
    shutdown: &Shutdown,
) -> Result<LoggedIn<Home>, Ended> {
    let config = options.dialogue(&stream, client, &shared.directory).await;
    let dialogue = door.dialogue(config);
    let open = async |login: Entry, facts: LoginFacts| {
        let home = login.backend();
        let foreign = match &login {
            Entry::Granted(granted) => granted.foreign.as_ref(),
            Entry::Shown(_) => None,
        };
        let about = || About {
            account: login.account(),
            user: login.login_name().clone(),
            door,
            client: facts.client,
            backend: home.clone().into(),
            is_foreign: foreign.is_some(),
            trace_id: trace_id.to_owned(),
            began: Instant::now(),
            passed: Passed::default(),
            ending: shutdown.child(),
        };
        let enter = || {
            shared.sessions.enter(about()).map_err(|no| {
            meter::open_failed(door, no.code());
            info!(trace_id, account = %login.account(), user = %login.login_name(), client = %facts.client, backend = %home, reason = no.code(), "session refused");
            OpenError::Refused(match no {
                NoEntry::UserFull => Refusal::TooMany,
                NoEntry::Drained => Refusal::Temporary,
            })
        })
        };
        if let Entry::Granted(granted) = &login
            && let Some(foreign) = foreign
        {
            let entered = enter()?;
            let session = open_foreign(shared, door, foreign, granted, &facts, trace_id).await?;
            return Ok(Home { session, entered });
        }
        let link = shared.backends.link_at(home, login.backend_address());
        let first = |grant: &str| SessionOpen {
            grant: grant.to_owned(),
            service: facts.service,
            client: facts.client.to_string(),
            tls: facts.tls.map(tls_text),
            tag: facts.tag.clone(),
            client_id: facts.client_id.clone(),
            trace_id: trace_id.to_owned(),
        };
        let time = shared.patience.with(home, Instant::now());
        let (entered, opened) = match &login {
            Entry::Granted(login) => {
                let entered = enter()?;
                let opened = Session::open(&link, &first(&login.grant), time).await;
                match &opened {
                    Err(session::OpenError::Away(_)) => {
                        shared.patience.was_silent(home, time, Instant::now());
                    }
                    Ok(_) | Err(_) => shared.patience.has_answered(home),
                }
                (Some(entered), opened)
            }
            // Whoever only tries passwords takes none of the user's places. The home may wait for the directory, too.
            Entry::Shown(shown) => {
                let shown = SessionShown {
                    user: shown.request.user.clone(),
                    password: shown.request.password.clone(),
                    session: first(""),
                };
                (None, Session::open_shown(&link, &shown, SHOWN_WITHIN).await)
            }
        };
        let session = opened.map_err(|error| {
            let (next, code) = after(&error);
            meter::open_failed(door, code);
            let cause = daemon::log::causes(&error);
            warn!(trace_id, account = %login.account(), backend = %home, code, cause, "session was not opened");
            next
        })?;
        let entered = entered.map_or_else(enter, Ok)?;
        if let Some(has) = session.capabilities() {
            shared.announced.compare(home, has);
        }
        let session = Way::Ours(session);
        Ok(Home { session, entered })
    };
    log_in(
        stream,
        dialogue,
        client,
        &shared.directory,
        options,
        shutdown,
        open,
    )
    .await
}

/// Logs the user in on a foreign back-end.
async fn open_foreign(
    shared: &Shared,
    door: Door,
    foreign: &Foreign,
    login: &LoginReply,
    facts: &LoginFacts,
    trace_id: &str,
) -> Result<Way, OpenError> {
    let home = &login.home.backend;
    let wanted = Wanted {
        home,
        foreign,
        service: facts.service,
        user: &login.login_name,
        client: facts.client,
        trace_id,
    };
    let time = shared.patience.with(home, Instant::now());
    let opened = shared.masters.open(&wanted, time).await;
    match &opened {
        Err(Fault::Silent(_)) => shared.patience.was_silent(home, time, Instant::now()),
        Err(fault) if !fault.has_answered() => {}
        Ok(_) | Err(_) => shared.patience.has_answered(home),
    }
    let mut opened = opened.map_err(|fault| {
        let (code, cause) = (fault.code(), daemon::log::causes(&fault));
        meter::open_failed(door, code);
        warn!(trace_id, account = %login.account, backend = %home, code, cause, "nobody was logged in on a foreign back-end");
        OpenError::Refused(fault.refusal())
    })?;
    if let Some(has) = &opened.welcome.capabilities {
        shared.announced.compare(home, has);
    }
    let words = opened.words(facts.tag.as_deref());
    Ok(Way::Foreign {
        stream: opened.stream,
        words,
    })
}

/// What follows from a session that did not open, and the reason code in logs and metrics.
fn after(error: &session::OpenError) -> (OpenError, &'static str) {
    use session::OpenError as Why;
    match error {
        Why::Moved(_) => (OpenError::LookAgain, "moved"),
        Why::StaleEpoch => (OpenError::LookAgain, "stale_epoch"),
        Why::Away(_) => (OpenError::Refused(Refusal::Temporary), "backend_away"),
        Why::LoginDelay(wait_s) => {
            let wait_s = *wait_s;
            (
                OpenError::Refused(Refusal::LoginDelay { wait_s }),
                "login_delay",
            )
        }
        Why::Frozen => (OpenError::Moving, "frozen"),
        Why::NotVerified => (OpenError::Refused(Refusal::Temporary), "not_verified"),
        Why::GrantRefused(_) => (OpenError::Refused(Refusal::Temporary), "grant_refused"),
        Why::Refused(_) => (OpenError::Refused(Refusal::Temporary), "backend_refused"),
    }
}

/// Copies octets both ways until the session ends. Nothing is parsed from here on.
async fn carry(
    shared: &Shared,
    door: Door,
    user: LoggedIn<Home>,
    trace_id: &str,
    shutdown: &Shutdown,
) {
    let LoggedIn {
        stream,
        session: Home { session, entered },
        login,
        facts,
        leftover,
    } = user;
    let about = Arc::clone(&entered.about);
    let terms = Terms {
        passed: &about.passed,
        idle_max: shared.limits.idle_timeout(door.service),
        service: door.service,
        backends: &shared.backends,
        went_on: &|backend| about.went_on(backend),
        trace_id,
        shutdown: &about.ending,
    };
    let end = match session {
        Way::Ours(session) => relay(stream, leftover, session, &terms).await,
        Way::Foreign {
            stream: home,
            words,
        } => relay_plain(stream, leftover, home, words, &terms).await,
    };
    drop(entered);
    let end = match end {
        RelayEnd::Shutdown if !shutdown.is_requested() => "kicked",
        end => end.as_str(),
    };
    let took = about.began.elapsed();
    let (from_user, to_user) = (about.passed.from_user(), about.passed.to_user());
    meter::session(door, end, took, from_user, to_user);
    info!(
        trace_id,
        service = door.name(),
        user = %login.login_name,
        account = %login.account,
        client = %facts.client,
        tls = facts.tls.is_some(),
        backend = %about.backend(),
        octets_from_user = from_user,
        octets_to_user = to_user,
        seconds = took.as_secs_f64(),
        end,
        "session"
    );
}

/// Says why a connection is not served, where words can be said before TLS, and closes.
pub(crate) async fn refuse(
    shared: &Shared,
    door: Door,
    mut socket: TcpStream,
    client: SocketAddr,
    why: Shut,
) {
    if door.implicit_tls {
        return;
    }
    let stream_is_plain = mail_proto::login::Config::new(
        shared.front(door.service).hostname.clone(),
        mail_proto::login::Tls::Absent,
    );
    let words = door.dialogue(stream_is_plain).last_words(why);
    // The send buffer of a new socket takes these lines at once.
    let told = timeout(shared.limits.login_timeout(), socket.write_all(&words)).await;
    debug!(%client, door = door.name(), told = told.is_ok(), ?why, "connection refused");
}

fn reason(ended: &Ended) -> &'static str {
    match ended {
        Ended::Closed(CloseReason::Quit) => "quit",
        Ended::Closed(CloseReason::TooManyErrors) => "too_many_errors",
        Ended::Closed(CloseReason::Shut) => "shut",
        Ended::Disconnected => "disconnected",
        Ended::TimedOut => "timed_out",
        Ended::GoingDown => "going_down",
        Ended::HeaderUnexpected => HEADER_UNEXPECTED,
        Ended::Failed(_) => "failed",
    }
}

fn tls_text(facts: TlsFacts) -> String {
    format!("{} {}", facts.version, facts.cipher)
}

/// Tells this session apart in the logs of every tier: 80 random bits in base-32.
fn trace_id() -> String {
    let mut octets = [0; 10];
    random::fill(&mut octets);
    BASE32_DNSSEC.encode(&octets)
}

#[cfg(test)]
mod tests {
    use daemon::link::Problem;
    use directory_api::{BackendName, Epoch};
    use store_api::session::MovedTo;

    use super::*;

    #[test]
    fn only_a_home_that_has_gone_is_looked_up_again_and_nothing_else_is_final() {
        use session::OpenError as Why;
        let moved = MovedTo {
            backend: BackendName::new("b2").unwrap(),
            epoch: Epoch(2),
        };
        assert_eq!(after(&Why::Moved(moved)).0, OpenError::LookAgain);
        assert_eq!(after(&Why::StaleEpoch).0, OpenError::LookAgain);
        let waits = OpenError::Refused(Refusal::LoginDelay { wait_s: 9 });
        assert_eq!(after(&Why::LoginDelay(9)).0, waits);
        let problem = || Problem::unavailable("starting");
        assert_eq!(after(&Why::Frozen).0, OpenError::Moving);
        for why in [Why::GrantRefused(problem()), Why::Refused(problem())] {
            assert_eq!(
                after(&why).0,
                OpenError::Refused(Refusal::Temporary),
                "{why}"
            );
        }
    }
}
