//! What POP3 and IMAP have in common up to the login, so that one shell
//! drives both.

use std::sync::Arc;

use crate::password::Password;
use crate::pop3::Policy;

/// How a login dialogue is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name shown in the greeting.
    pub hostname: String,
    /// The connection's TLS, now and possible.
    pub tls: Tls,
    /// Whether a login may be made without TLS. Loopback and tests only.
    pub plaintext_login: bool,
    /// The rules that POP3 announces before the login; none when they are known after it alone.
    pub pop3_policy: Option<Policy>,
    /// What IMAP announces before the login, besides what follows from the rest of this, when it is not
    /// [`CAPABILITIES_BEFORE_LOGIN`](crate::imap::CAPABILITIES_BEFORE_LOGIN).
    pub imap_capabilities: Option<Arc<str>>,
    /// Refused commands and logins after which the connection is closed.
    pub errors_max: u32,
}

impl Config {
    /// A configuration with the limits of practice.
    pub fn new(hostname: impl Into<String>, tls: Tls) -> Self {
        Self {
            hostname: hostname.into(),
            tls,
            plaintext_login: false,
            pop3_policy: None,
            imap_capabilities: None,
            errors_max: 10,
        }
    }

    /// Whether a password may be sent over the connection as it is.
    pub(crate) fn allows_login(&self) -> bool {
        self.plaintext_login || self.tls == Tls::Active
    }
}

/// Where a connection stands with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// In plain text, and there is no certificate to change that.
    Absent,
    /// In plain text; STLS or STARTTLS is offered.
    Offered,
    /// Encrypted.
    Active,
}

/// The part of a session before its login.
///
/// Pipelined octets wait in the core while a [`LoginEvent`] is unanswered.
pub trait LoginDialogue: Send {
    /// How many octets [`receive`](Self::receive) takes now. Positive whenever
    /// the last step was `NeedInput`.
    fn room(&self) -> usize;

    /// Takes octets from the peer and returns how many it took. While
    /// `StartTls` is unanswered it takes all and drops them: what was sent in
    /// plain text must not be read as if it came through TLS.
    fn receive(&mut self, octets: &[u8]) -> usize;

    /// The next thing to do.
    fn next(&mut self) -> LoginStep<'_>;

    /// Answers `Login` with no; the dialogue goes on.
    fn refuse(&mut self, why: Refusal);

    /// Answers `StartTls`: the handshake is done.
    fn tls_started(&mut self);

    /// Answers `Login` with yes: gives the octets received beyond the login
    /// command, and ends this dialogue. Nothing has been said to the client;
    /// the positive reply is the back-end's.
    fn take_leftover(&mut self) -> Vec<u8>;

    /// What the client's program has told of itself, made fit for a line of a log; none in POP3.
    fn client_id(&self) -> Option<&str>;

    /// Ends the dialogue from our side: says why, then `Close`.
    fn shut(&mut self, why: Shut);
}

/// What the shell of a login dialogue does next.
#[derive(Debug)]
pub enum LoginStep<'a> {
    /// Read from the peer.
    NeedInput,
    /// Write these octets.
    Send(&'a [u8]),
    /// Decide, then answer.
    Ask(LoginEvent),
    /// The question asked before is not answered yet.
    AwaitAnswer,
    /// Close the connection; everything was said.
    Close(CloseReason),
}

/// A question to the shell.
#[derive(Debug)]
pub enum LoginEvent {
    /// Verify these. Answer with `refuse` or `take_leftover`.
    Login(Credentials),
    /// Start the TLS handshake (the go-ahead was sent). Answer with `tls_started`.
    StartTls,
}

/// Who wants to log in.
#[derive(Debug)]
pub struct Credentials {
    /// User name as sent, at most 512 octets.
    pub user: String,
    /// Password, at most 1,024 octets.
    pub password: Password,
    /// How they were sent.
    pub mechanism: Mechanism,
    /// The tag of the IMAP command, to be answered by the back-end. None in POP3.
    pub tag: Option<String>,
}

/// How credentials were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// POP3 USER and PASS.
    UserPass,
    /// IMAP LOGIN command.
    LoginCommand,
    /// SASL PLAIN, RFC 4616.
    Plain,
    /// SASL LOGIN.
    Login,
}

impl Mechanism {
    /// A fixed lower-case name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserPass => "userpass",
            Self::LoginCommand => "login-command",
            Self::Plain => "plain",
            Self::Login => "login",
        }
    }
}

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user or wrong password: deliberately one and the same.
    BadCredentials,
    /// Ours, for now: directory or home away, account being moved.
    Temporary,
    /// No login without TLS. The cores say this by themselves too.
    PlaintextForbidden,
    /// Right credentials, but this account may not use this service.
    NotAllowed,
    /// The mailbox is locked by another session.
    InUse,
    /// The account has too many sessions, or tries to log in too often.
    TooMany,
    /// The account's last login was less than the provider's interval ago (RFC 2449 §8.1.1).
    LoginDelay {
        /// Seconds until it may log in again.
        wait_s: u64,
    },
}

/// Why we end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// Login took too long, or the peer was idle.
    TimedOut,
    /// The process drains, or the account is being moved: come back at once.
    GoingDown,
    /// Too many connections.
    Overloaded,
}

/// Why a core closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said good-bye.
    Quit,
    /// The client made too many mistakes.
    TooManyErrors,
    /// [`Shut`] was asked for.
    Shut,
}
