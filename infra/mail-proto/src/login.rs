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
    /// The mechanisms offered besides PLAIN and LOGIN, the most wanted first. Those that bind to
    /// the channel are offered only while there is a [`binding`](Self::has_binding).
    pub mechanisms: Vec<Mechanism>,
    /// Whether the connection's TLS, if it is active, can be bound to (RFC 5056).
    pub has_binding: bool,
    /// Whether the client has shown a certificate in TLS: EXTERNAL is offered to none else.
    pub has_certificate: bool,
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
            mechanisms: Vec::new(),
            has_binding: false,
            has_certificate: false,
            errors_max: 10,
        }
    }

    /// Whether a password may be sent over the connection as it is.
    pub(crate) fn allows_login(&self) -> bool {
        self.plaintext_login || self.tls == Tls::Active
    }

    /// The mechanisms that a client may begin now, as RFC 4422 names them.
    pub(crate) fn offered(&self) -> impl Iterator<Item = (Mechanism, &'static str)> {
        let binds = self.has_binding && self.tls == Tls::Active;
        let more = self.mechanisms.iter().copied();
        let shown = self.has_certificate && self.tls == Tls::Active;
        more.filter(move |mechanism| binds || !mechanism.binds_to_channel())
            .filter(move |mechanism| shown || *mechanism != Mechanism::External)
            .chain([Mechanism::Plain, Mechanism::Login])
            .filter(|_| self.allows_login())
            .filter_map(|mechanism| Some((mechanism, mechanism.sasl_name()?)))
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

    /// Answers `Login` or `Sasl` with no; the dialogue goes on.
    fn refuse(&mut self, why: Refusal);

    /// Answers `Sasl`: says this to the client, whose response is the next `Sasl`.
    fn challenge(&mut self, message: &[u8]);

    /// Answers `StartTls`: the handshake is done, and what came of it can be bound to or not.
    fn tls_started(&mut self, has_binding: bool);

    /// The client has shown a certificate in the handshake.
    fn certificate_shown(&mut self);

    /// Answers `Login` or `Sasl` with yes: gives the octets received beyond
    /// the login command, and ends this dialogue. Nothing has been said to the
    /// client; the positive reply is the back-end's.
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
    /// Take the client's next message of a mechanism that is not decided here. Answer with
    /// `challenge`, `refuse` or `take_leftover`.
    Sasl(SaslMessage),
    /// The mechanism that `Sasl` has begun is over: the client cancelled it, or said what is no
    /// message. Nothing is to be answered.
    SaslOver,
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

/// What a client says in a mechanism that is not decided here.
#[derive(Debug)]
pub struct SaslMessage {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// Whether it begins the mechanism anew. What a client said before in one that it then
    /// cancelled is over.
    pub is_first: bool,
    /// The message, decoded: it may be a secret. Below 64 KiB.
    pub message: Password,
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
    /// SASL SCRAM-SHA-256, RFC 7677.
    ScramSha256,
    /// The same, bound to the channel.
    ScramSha256Plus,
    /// SASL OAUTHBEARER, RFC 7628.
    OauthBearer,
    /// SASL XOAUTH2, what came before it and some clients still speak.
    XOauth2,
    /// SASL EXTERNAL, RFC 4422: by the certificate shown in TLS.
    External,
}

impl Mechanism {
    /// A fixed lower-case name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserPass => "userpass",
            Self::LoginCommand => "login-command",
            Self::Plain => "plain",
            Self::Login => "login",
            Self::ScramSha256 => "scram-sha-256",
            Self::ScramSha256Plus => "scram-sha-256-plus",
            Self::OauthBearer => "oauthbearer",
            Self::XOauth2 => "xoauth2",
            Self::External => "external",
        }
    }

    /// Its registered name; none where it is no SASL.
    pub fn sasl_name(self) -> Option<&'static str> {
        match self {
            Self::UserPass | Self::LoginCommand => None,
            Self::Plain => Some("PLAIN"),
            Self::Login => Some("LOGIN"),
            Self::ScramSha256 => Some("SCRAM-SHA-256"),
            Self::ScramSha256Plus => Some("SCRAM-SHA-256-PLUS"),
            Self::OauthBearer => Some("OAUTHBEARER"),
            Self::XOauth2 => Some("XOAUTH2"),
            Self::External => Some("EXTERNAL"),
        }
    }

    fn binds_to_channel(self) -> bool {
        self == Self::ScramSha256Plus
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
    /// The client's message is not as its mechanism says.
    Malformed,
    /// The mechanism is not offered here, or not any more.
    NotOffered,
    /// The client is bound to another channel than the one that ends here, or was kept from
    /// seeing that it could be bound to this one: somebody may be in the middle.
    ChannelBinding,
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
