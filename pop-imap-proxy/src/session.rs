//! One user: login here, session at home, octets in between.

use std::net::SocketAddr;
use std::sync::Arc;

use daemon::random;
use daemon::shutdown::Shutdown;
use daemon::stream::{TlsFacts, UserStream};
use data_encoding::BASE32_DNSSEC;
use directory_api::front::{Ended, FrontOptions, LoggedIn, LoginFacts, OpenError, log_in};
use directory_api::wire::LoginReply;
use mail_proto::login::{CloseReason, Refusal, Shut};
use store_api::session::{self, Session, SessionOpen, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::door::Door;
use crate::meter;
use crate::proxy::Shared;

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: &Shared,
    door: Door,
    socket: TcpStream,
    client: SocketAddr,
    shutdown: &Shutdown,
) {
    let Some(_counted) = shared.clients.admit(client.ip()) else {
        meter::refused(door, "client_connections_max");
        return Box::pin(refuse(shared, door, socket, client)).await;
    };
    let _open = meter::connection(door);
    let options = shared.front(door.service);
    let stream = if door.implicit_tls {
        let Some(tls) = &shared.tls else {
            unreachable!("a listener in TLS is opened only with a certificate")
        };
        let handshake = UserStream::implicit_tls(socket, tls, options.login_timeout);
        match Box::pin(handshake).await {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%client, %error, "TLS handshake failed");
                return meter::ended_before_login(door, "tls_failed");
            }
        }
    } else {
        UserStream::plain(socket)
    };
    let trace_id = trace_id();
    // A statement of its own: the dialogue's memory goes before the session's begins.
    let begun = Box::pin(begin(
        shared, door, stream, client, options, &trace_id, shutdown,
    ))
    .await;
    match begun {
        Ok(user) => Box::pin(carry(shared, door, user, &trace_id, shutdown)).await,
        Err(ended) => {
            meter::ended_before_login(door, reason(&ended));
            debug!(%client, door = door.name(), %ended, "connection ended before login");
        }
    }
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
) -> Result<LoggedIn<Session>, Ended> {
    let dialogue = door.dialogue(options.dialogue(&stream, client));
    let open = async |login: Arc<LoginReply>, facts: LoginFacts| {
        let home = &login.home.backend;
        let link = shared.backends.link_at(home, &login.backend_address);
        let first = SessionOpen {
            grant: login.grant.clone(),
            service: facts.service,
            client: facts.client.to_string(),
            tls: facts.tls.map(tls_text),
            tag: facts.tag,
            trace_id: trace_id.to_owned(),
        };
        let opened = Session::open(&link, &first, shared.limits.open_timeout()).await;
        opened.map_err(|error| {
            let (next, code) = after(&error);
            meter::open_failed(door, code);
            let cause = daemon::log::causes(&error);
            warn!(trace_id, account = %login.account, backend = %home, code, cause, "session was not opened");
            next
        })
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
        Why::Frozen => (OpenError::Refused(Refusal::Temporary), "frozen"),
        Why::GrantRefused(_) => (OpenError::Refused(Refusal::Temporary), "grant_refused"),
        Why::Refused(_) => (OpenError::Refused(Refusal::Temporary), "backend_refused"),
    }
}

/// Copies octets both ways until the session ends. Nothing is parsed from here on.
async fn carry(
    shared: &Shared,
    door: Door,
    user: LoggedIn<Session>,
    trace_id: &str,
    shutdown: &Shutdown,
) {
    let LoggedIn {
        stream,
        session,
        login,
        facts,
        leftover,
    } = user;
    let began = Instant::now();
    let idle_max = shared.limits.idle_timeout(door.service);
    let relayed = relay(stream, leftover, session, idle_max, shutdown).await;
    let took = began.elapsed();
    meter::session(
        door,
        relayed.end.as_str(),
        took,
        relayed.from_user,
        relayed.to_user,
    );
    info!(
        trace_id,
        service = door.name(),
        user = %login.login_name,
        account = %login.account,
        client = %facts.client,
        tls = facts.tls.is_some(),
        backend = %login.home.backend,
        octets_from_user = relayed.from_user,
        octets_to_user = relayed.to_user,
        seconds = took.as_secs_f64(),
        end = relayed.end.as_str(),
        "session"
    );
}

/// Says that there are too many connections, where words can be said before TLS, and closes.
pub(crate) async fn refuse(shared: &Shared, door: Door, mut socket: TcpStream, client: SocketAddr) {
    if door.implicit_tls {
        return;
    }
    let stream_is_plain = mail_proto::login::Config::new(
        shared.front(door.service).hostname.clone(),
        mail_proto::login::Tls::Absent,
    );
    let words = door.dialogue(stream_is_plain).last_words(Shut::Overloaded);
    // The send buffer of a new socket takes these lines at once.
    let told = timeout(shared.limits.login_timeout(), socket.write_all(&words)).await;
    debug!(%client, door = door.name(), told = told.is_ok(), "too many connections");
}

fn reason(ended: &Ended) -> &'static str {
    match ended {
        Ended::Closed(CloseReason::Quit) => "quit",
        Ended::Closed(CloseReason::TooManyErrors) => "too_many_errors",
        Ended::Closed(CloseReason::Shut) => "shut",
        Ended::Disconnected => "disconnected",
        Ended::TimedOut => "timed_out",
        Ended::GoingDown => "going_down",
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
        for why in [
            Why::Frozen,
            Why::GrantRefused(problem()),
            Why::Refused(problem()),
        ] {
            assert_eq!(
                after(&why).0,
                OpenError::Refused(Refusal::Temporary),
                "{why}"
            );
        }
    }
}
