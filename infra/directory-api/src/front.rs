//! The shell of the dialogue before login, shared by the proxy and by back-ends that users reach
//! directly.
//!
//! A pure core of `mail-proto` reads and answers the commands; this file meets the socket, the
//! clock, TLS and the directory. What becomes of a login is the caller's: `open` gets the
//! directory's answer, opens the session wherever it has to be opened, and may refuse:
//!
//! ```text
//! bytes ─▶ core ─ credentials ─▶ directory ─ grant ─▶ open ─ session ─▶ LoggedIn
//!            ▲         refused ◀──────┘  ▲               │
//!            ├───────────────────────────┼──── refused ◀─┤
//!            │                           └─ look again ◀─┘  (at most 3 times: the home has moved)
//! ```
//!
//! While the directory is away, `open` gets the password that was shown, and where the user lived: that home checks it by
//! a ticket ([`crate::ticket`]) or lets nobody in.
//!
//! Mechanisms that the directory decides itself, so that no password comes by here, take more
//! steps: `front/sasl.rs`.

mod entry;
mod sasl;
mod wait;

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use daemon::balancers::looks_like_header;
use daemon::log::causes;
use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use daemon::stream::{TlsFacts, UserStream};
use mail_proto::login::{
    CloseReason, Config, Credentials, LoginDialogue, LoginEvent, LoginStep, Mechanism, Refusal,
    Shut, Tls,
};
use mail_proto::pop3::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::client::{AskHome, DirectoryClient, DirectoryError, LoginError};
use crate::types::{BackendName, Service};
use crate::wire::{LoginRequest, SaslRequest, Secret};
pub use entry::{Entry, Shown, Whose};
use sasl::Connection;
use wait::{MoveWait, Wait, until_moved};

/// How a front lets users in. One for each service and process.
#[derive(Clone)]
pub struct FrontOptions {
    /// What a login opens.
    pub service: Service,
    /// The name in the greeting.
    pub hostname: String,
    /// Certificates for STARTTLS and STLS; none when there are none.
    pub tls: Option<PublicTls>,
    /// Whether a client on loopback may log in without TLS. Others never may.
    pub plaintext_on_loopback: bool,
    /// Time from the connection to the login (DESIGN §13: 60 s).
    pub login_timeout: Duration,
    /// How long a login waits while its account is being moved, before it is told to come again.
    pub move_wait: Duration,
    /// Only accounts of this back-end may log in here; none on a proxy.
    pub backend: Option<BackendName>,
    /// How back-ends are asked for a user whose home is not known while the directory is away; none where that is not done.
    pub ask_home: Option<AskHome>,
    /// What IMAP announces before the login, besides STARTTLS and mechanisms; the usual when nothing is said.
    pub imap_capabilities: Option<Arc<str>>,
    /// The rules that POP3 announces before the login; none when they are known after it alone.
    pub pop3_policy: Option<Policy>,
}

impl FrontOptions {
    /// The set-up of the core for one connection. The directory says which mechanisms are offered.
    pub async fn dialogue(
        &self,
        stream: &UserStream,
        client: SocketAddr,
        directory: &DirectoryClient,
    ) -> Config {
        let tls = match (stream.tls_facts(), &self.tls) {
            (Some(_), _) => Tls::Active,
            (None, Some(_)) => Tls::Offered,
            (None, None) => Tls::Absent,
        };
        let mut config = Config::new(self.hostname.clone(), tls);
        config.pop3_policy = self.pop3_policy;
        config.imap_capabilities = self.imap_capabilities.clone();
        config.has_binding = !stream.channel_bindings().is_empty();
        config.has_certificate = !stream.client_certificates().is_empty();
        config.mechanisms = sasl::offered(&directory.mechanisms().await, directory.is_silent());
        config.plaintext_login =
            self.plaintext_on_loopback && client.ip().to_canonical().is_loopback();
        config
    }
}

/// What is known of a connection when its user has proved who they are.
#[derive(Clone, Debug)]
pub struct LoginFacts {
    /// What is opened.
    pub service: Service,
    /// The user's end of the connection.
    pub client: SocketAddr,
    /// The connection's TLS, if any.
    pub tls: Option<TlsFacts>,
    /// The IMAP command that is still to be answered; none in POP3.
    pub tag: Option<String>,
    /// How the credentials came.
    pub mechanism: Mechanism,
    /// What the client's program has told of itself (RFC 2971).
    pub client_id: Option<String>,
}

/// A user who is in. Nothing has been said to them about it yet: the session says it.
#[derive(Debug)]
pub struct LoggedIn<T> {
    /// The user's connection.
    pub stream: UserStream,
    /// What `open` made.
    pub session: T,
    /// Who they are.
    pub login: Whose,
    /// The connection.
    pub facts: LoginFacts,
    /// What the user sent behind the login command: the session's first input.
    pub leftover: Vec<u8>,
}

/// Why a session could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The account is not there any more: ask the directory again, the home has moved.
    LookAgain,
    /// The account is on its way elsewhere: ask the directory again in a moment.
    Moving,
    /// Say this to the user.
    Refused(Refusal),
}

/// How a connection ended without a login. All but `Failed` are everyday events.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The core closed it.
    #[error("closed before login: {0:?}")]
    Closed(CloseReason),
    /// The user went away.
    #[error("disconnected before login")]
    Disconnected,
    /// No login within the time allowed.
    #[error("no login within the time allowed")]
    TimedOut,
    /// This process is going down.
    #[error("going down")]
    GoingDown,
    /// It began with a load balancer's header, which only those of the settings may send.
    #[error("a PROXY header came from a peer that is no load balancer of ours")]
    HeaderUnexpected,
    /// The connection or its TLS handshake broke.
    #[error("connection failed before login")]
    Failed(#[source] std::io::Error),
}

/// Homes that one login may be sent on by: an account may move while it is opened (DESIGN: at most 3 hops).
const LOOKS_MAX: usize = 3;
/// Time for saying good-bye to a client that may not read.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Read at once before login: one command line is rarely longer, and thousands may wait here.
const READ_OCTETS: usize = 1024;

/// Leads the dialogue until the user is in or gone.
///
/// `open` is called with the directory's answer, at each look a new one, or while the directory is away with what the user
/// has shown. It must not answer the user.
///
/// # Errors
/// [`Ended`]: the connection is closed, and the user was told why where the protocol has words for it.
pub async fn log_in<D, T, F, Fut>(
    mut stream: UserStream,
    mut dialogue: D,
    client: SocketAddr,
    directory: &DirectoryClient,
    options: &FrontOptions,
    shutdown: &Shutdown,
    open: F,
) -> Result<LoggedIn<T>, Ended>
where
    D: LoginDialogue,
    F: Fn(Entry, LoginFacts) -> Fut,
    Fut: Future<Output = Result<T, OpenError>>,
{
    let deadline = Instant::now() + options.login_timeout;
    let mut is_new = true;
    let mut sasl = sasl::Dialogue::new(directory, options, &open);
    let facts = |tag, mechanism, stream: &UserStream, dialogue: &D| LoginFacts {
        service: options.service,
        client,
        tls: stream.tls_facts(),
        tag,
        mechanism,
        client_id: dialogue.client_id().map(str::to_owned),
    };
    let (login, session, facts) = loop {
        let spoken = tokio::select! {
            // A login under way is answered before the process goes down; one that waits is told to come again.
            biased;
            spoken = timeout_at(deadline, speak(&mut stream, &mut dialogue, &mut is_new)) => spoken,
            () = shutdown.requested() => {
                say_goodbye(&mut stream, &mut dialogue, Shut::GoingDown).await;
                return Err(Ended::GoingDown);
            }
        };
        let Ok(event) = spoken else {
            say_goodbye(&mut stream, &mut dialogue, Shut::TimedOut).await;
            return Err(Ended::TimedOut);
        };
        match event? {
            LoginEvent::StartTls => {
                stream = start_tls(stream, options, deadline).await?;
                dialogue.tls_started(!stream.channel_bindings().is_empty());
                if !stream.client_certificates().is_empty() {
                    dialogue.certificate_shown();
                }
            }
            LoginEvent::SaslOver => sasl.give_up(),
            LoginEvent::Sasl(message) => {
                let facts = facts(message.tag.clone(), message.mechanism, &stream, &dialogue);
                let bindings = stream.channel_bindings();
                let wait = Wait::new(&stream, shutdown, deadline, options);
                let connection = Connection {
                    bindings: &bindings,
                    certificates: &stream.client_certificates(),
                };
                match sasl.take(&message, &connection, &facts, &wait).await {
                    Ok(sasl::Next::Say(octets)) => dialogue.challenge(&octets),
                    Ok(sasl::Next::In { login, session }) => {
                        break (login.whose(), session, facts);
                    }
                    Err(refusal) => dialogue.refuse(refusal),
                }
            }
            LoginEvent::Login(credentials) => {
                let facts = facts(
                    credentials.tag.clone(),
                    credentials.mechanism,
                    &stream,
                    &dialogue,
                );
                let wait = Wait::new(&stream, shutdown, deadline, options);
                match try_login(&credentials, &facts, directory, options, &wait, &open).await {
                    Ok((login, session)) => break (login.whose(), session, facts),
                    Err(refusal) => dialogue.refuse(refusal),
                }
            }
        }
    };
    Ok(LoggedIn {
        stream,
        session,
        login,
        facts,
        leftover: dialogue.take_leftover(),
    })
}

/// Moves octets until the core asks something. The first ones on a new connection may be a load balancer's.
async fn speak<D: LoginDialogue>(
    stream: &mut UserStream,
    dialogue: &mut D,
    is_new: &mut bool,
) -> Result<LoginEvent, Ended> {
    loop {
        match dialogue.next() {
            LoginStep::Send(octets) => {
                stream.write_all(octets).await.map_err(Ended::Failed)?;
                stream.flush().await.map_err(Ended::Failed)?;
            }
            LoginStep::NeedInput => {
                let mut buffer = [0; READ_OCTETS];
                let room = dialogue.room().min(READ_OCTETS);
                let count = stream
                    .read(&mut buffer[..room])
                    .await
                    .map_err(Ended::Failed)?;
                if count == 0 {
                    return Err(Ended::Disconnected);
                }
                if std::mem::replace(is_new, false) && looks_like_header(&buffer[..count]) {
                    return Err(Ended::HeaderUnexpected);
                }
                let taken = dialogue.receive(&buffer[..count]);
                debug_assert_eq!(taken, count, "the core takes what it has room for");
            }
            LoginStep::Ask(event) => return Ok(event),
            LoginStep::Close(reason) => {
                let _ = stream.shutdown().await;
                return Err(Ended::Closed(reason));
            }
            LoginStep::AwaitAnswer => {
                unreachable!("every question is answered before the core is asked again")
            }
        }
    }
}

async fn start_tls(
    stream: UserStream,
    options: &FrontOptions,
    deadline: Instant,
) -> Result<UserStream, Ended> {
    let Some(tls) = &options.tls else {
        return Err(Ended::Failed(std::io::Error::other(
            "TLS was asked for but there is no certificate",
        )));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    stream
        .starttls(tls, left)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::TimedOut => Ended::TimedOut,
            _ => Ended::Failed(error),
        })
}

/// Asks the directory and opens the session; again while the home moves under us.
async fn try_login<T, F, Fut>(
    credentials: &Credentials,
    facts: &LoginFacts,
    directory: &DirectoryClient,
    options: &FrontOptions,
    wait: &Wait<'_>,
    open: &F,
) -> Result<(Entry, T), Refusal>
where
    F: Fn(Entry, LoginFacts) -> Fut,
    Fut: Future<Output = Result<T, OpenError>>,
{
    // What is no UTF-8 can be nobody's password: the directory only stores text.
    let password = std::str::from_utf8(credentials.password.as_bytes())
        .map_err(|_| Refusal::BadCredentials)?;
    let request = LoginRequest {
        user: credentials.user.clone(),
        password: Secret::new(password.to_owned()),
        service: facts.service,
        client_address: facts.client.ip().to_canonical(),
        secured: facts.tls.is_some(),
        backend: options.backend.clone(),
    };
    let user = Some(credentials.user.as_str());
    let question = Question::Password {
        request: &request,
        ask_home: options.ask_home.as_ref(),
    };
    let (admission, session) = open_at_home(directory, &question, facts, user, wait, open).await?;
    report(
        user,
        facts,
        match admission.login {
            Entry::Granted(_) => "ok",
            Entry::Shown(_) => "ok_by_ticket",
        },
    );
    Ok((admission.login, session))
}

/// How the directory is asked for a grant, and asked again.
enum Question<'a> {
    Password {
        request: &'a LoginRequest,
        /// For when there is no answer.
        ask_home: Option<&'a AskHome>,
    },
    /// A mechanism's last step, and what it brought.
    Sasl(&'a SaslRequest, Admission),
}

/// What lets a user in.
#[derive(Clone)]
struct Admission {
    login: Entry,
    /// What the client is to hear before it is in.
    last_words: Option<Vec<u8>>,
}

impl Question<'_> {
    async fn ask(
        &self,
        directory: &DirectoryClient,
        looks_again: bool,
        wait: &Wait<'_>,
    ) -> Result<Admission, LoginError> {
        match self {
            Self::Password { request, .. } => {
                let login = directory
                    .login_or_kept_unless(request, looks_again, wait.ends())
                    .await?;
                Ok(Admission {
                    login: Entry::Granted(login),
                    last_words: None,
                })
            }
            Self::Sasl(_, granted) if !looks_again => Ok(granted.clone()),
            Self::Sasl(request, _) => match sasl::step(directory, request, wait).await? {
                sasl::Answer::Granted(granted) => Ok(granted),
                sasl::Answer::Refused { .. } => Err(LoginError::BadCredentials),
                sasl::Answer::Challenge { .. } => {
                    Err(sasl::nonsense("a challenge behind the last step"))
                }
            },
        }
    }
}

/// Asks for a grant and opens the session; again while the home moves under us. A refusal is reported.
async fn open_at_home<T, F, Fut>(
    directory: &DirectoryClient,
    question: &Question<'_>,
    facts: &LoginFacts,
    user: Option<&str>,
    wait: &Wait<'_>,
    open: &F,
) -> Result<(Admission, T), Refusal>
where
    F: Fn(Entry, LoginFacts) -> Fut,
    Fut: Future<Output = Result<T, OpenError>>,
{
    let (mut looks, mut looks_again) = (0, false);
    let mut moving = MoveWait::new(wait);
    loop {
        let ask = || question.ask(directory, looks_again, wait);
        let answer = until_moved(facts, &mut moving, ask).await;
        let granted = match (answer, question) {
            (Ok(granted), _) => granted,
            (Err(LoginError::Away(error)), Question::Password { request, ask_home })
                if error.is_away() =>
            {
                let ask = *ask_home;
                return open_unasked(directory, error, request, ask, facts, wait, open).await;
            }
            (Err(error), _) => return Err(directory_refused(user, facts, &error)),
        };
        let login = &granted.login;
        match open(login.clone(), facts.clone()).await {
            Ok(session) => return Ok((granted, session)),
            Err(OpenError::LookAgain) => {
                debug!(account = %login.account(), home = %login.backend(), "home has moved, asking again");
                looks += 1;
                if looks == LOOKS_MAX || wait.is_too_long() {
                    break;
                }
            }
            // The home is frozen before the directory says so.
            Err(OpenError::Moving) => {
                if !moving.pause().await {
                    return Err(directory_refused(user, facts, &LoginError::Moving));
                }
            }
            Err(OpenError::Refused(refusal)) => {
                report(user, facts, "session_refused");
                return Err(refusal);
            }
        }
        looks_again = true;
    }
    report(user, facts, "home_keeps_moving");
    Err(Refusal::Temporary)
}

/// The directory is away: the home where the user lived checks the password. A user of whom no home is known, and one whom
/// the home does not let in, however long that takes it, hear the same at the same time (P8).
async fn open_unasked<T, F, Fut>(
    directory: &DirectoryClient,
    away: DirectoryError,
    request: &LoginRequest,
    ask_home: Option<&AskHome>,
    facts: &LoginFacts,
    wait: &Wait<'_>,
    open: &F,
) -> Result<(Admission, T), Refusal>
where
    F: Fn(Entry, LoginFacts) -> Fut,
    Fut: Future<Output = Result<T, OpenError>>,
{
    let user = Some(request.user.as_str());
    let opened = async {
        let home = match (directory.known_home(&request.user).await, ask_home) {
            (Some(home), _) => home,
            (None, Some(ask)) => directory.find_home(request, ask).await?,
            (None, None) => return None,
        };
        let request = request.clone();
        let login = Entry::Shown(Arc::new(Shown { home, request }));
        match open(login.clone(), facts.clone()).await {
            Ok(session) => {
                let last_words = None;
                Some(Ok((Admission { login, last_words }, session)))
            }
            // Told behind the check of the password alone.
            Err(OpenError::Refused(refusal @ Refusal::LoginDelay { .. })) => {
                report(user, facts, "session_refused");
                Some(Err(refusal))
            }
            Err(_) => None,
        }
    };
    let decided = async {
        match opened.await {
            Some(decided) => decided,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        decided = decided => decided,
        // Whoever comes late has less, whoever it is.
        _ = timeout(SHOWN_WITHIN, wait.is_over()) => {
            Err(directory_refused(user, facts, &LoginError::Away(away)))
        }
    }
}

/// The time that a home has for a password that is shown to it; and then whoever is not let in hears so. More than a home
/// takes ([`HOME_WITHIN`]), and far less than mail programs wait.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(8);

/// Of that, the time in which a home decides: it may have to find out first that the directory is away for it too, and many
/// come at once.
pub const HOME_WITHIN: Duration = Duration::from_secs(7);

const MOVE_WAITS: &str = "posthouse_front_move_waits_total";

/// Reports that the directory lets nobody in, and says what the user hears.
fn directory_refused(user: Option<&str>, facts: &LoginFacts, error: &LoginError) -> Refusal {
    report(user, facts, error.code());
    if let LoginError::Away(_) = error {
        warn!(
            error = causes(error),
            "directory gave no verdict on a login"
        );
    }
    refusal(error)
}

/// `user` is not known here where only the directory reads what the client says.
fn report(user: Option<&str>, facts: &LoginFacts, outcome: &'static str) {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        metrics::describe_counter!(
            "posthouse_front_logins_total",
            "Logins tried here, by service, mechanism and outcome (ok; ok_by_ticket while the directory is away; or why not)."
        );
        metrics::describe_counter!(
            MOVE_WAITS,
            "Logins that waited for the end of a move, by service and whether it came."
        );
    });
    let (service, mechanism) = (facts.service.as_str(), facts.mechanism.name());
    metrics::counter!(
        "posthouse_front_logins_total",
        "service" => service, "mechanism" => mechanism, "outcome" => outcome
    )
    .increment(1);
    info!(
        service,
        user = user.map(tracing::field::debug),
        client = %facts.client,
        tls = facts.tls.is_some(),
        mechanism,
        outcome,
        "login"
    );
}

fn refusal(error: &LoginError) -> Refusal {
    match error {
        LoginError::BadCredentials => Refusal::BadCredentials,
        LoginError::ServiceForbidden
        | LoginError::Suspended
        | LoginError::Closing
        | LoginError::ForeignBackend => Refusal::NotAllowed,
        LoginError::Moving
        | LoginError::HomeDown
        | LoginError::Throttled
        | LoginError::SaslState
        | LoginError::Away(_) => Refusal::Temporary,
        LoginError::SaslMalformed => Refusal::Malformed,
        LoginError::SaslNotOffered => Refusal::NotOffered,
        LoginError::ChannelBinding => Refusal::ChannelBinding,
    }
}

/// Lets the core say why, to a client that reads; others are just closed.
async fn say_goodbye<D: LoginDialogue>(stream: &mut UserStream, dialogue: &mut D, why: Shut) {
    dialogue.shut(why);
    let _ = timeout(GOODBYE_MAX, speak(stream, dialogue, &mut false)).await;
}
