//! Users who live on another mail system: the proxy logs in there for them by a master login, after the directory has
//! checked their password, and copies octets from then on.
//!
//! P8 does not reach there: whoever has this proxy's settings can open every mailbox of the foreign back-end. So the
//! master's password is in a file of each proxy, and no reply of the directory holds it.

mod dialogue;
mod reach;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::config::{Problem, Secret};
use daemon::dial::Trust;
use daemon::identity::IdentityError;
use directory_api::wire::{Foreign, ForeignService, ForeignTls};
use directory_api::{BackendName, LoginName, Service};
use mail_proto::login::Refusal;
use serde::{Deserialize, Serialize};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use dialogue::{Dialogue, Plan, Step};
use reach::Reach;

pub(crate) use dialogue::Welcome;

/// How users are logged in at one foreign back-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignLogin {
    /// The back-end's name at the directory.
    pub backend: BackendName,
    /// Who may log in as everybody there.
    pub master: String,
    /// The file with this one's password, on its first line.
    pub password_file: PathBuf,
    /// Dovecot's `auth_master_user_separator`: users are logged in as `user*master`. Without it the user is the
    /// authorization identity of SASL PLAIN, which Dovecot and Cyrus know too.
    #[serde(default)]
    pub separator: Option<char>,
    /// Certificates (PEM) of the authorities that its certificate may be of.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Whether the login may go in the clear to another machine. To this one it always may.
    #[serde(default)]
    pub plaintext: bool,
    /// Whether it is told the user's address: by ID in IMAP, by XCLIENT in POP3. It must take us for one of its own
    /// (Dovecot: `login_trusted_networks`).
    #[serde(default)]
    pub tell_client: bool,
}

impl ForeignLogin {
    pub(crate) fn problem(&self) -> Option<Problem> {
        let is_plain = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        let problem = match self.separator {
            _ if !is_plain(&self.master) => "master is no user name",
            Some(separator) if separator.is_control() || separator.is_whitespace() => {
                "separator is no character of a user name"
            }
            Some(separator) if self.master.contains(separator) => "master contains the separator",
            Some(_) | None => return None,
        };
        let remedy = "write it as the foreign server's own settings have it";
        Some(Problem::new("foreign", &self.backend, problem, remedy))
    }
}

/// A back-end's login as it is used.
struct Master {
    settings: ForeignLogin,
    password: Secret,
    trust: Option<Trust>,
    reach: Reach,
}

/// Settings of a foreign back-end name a file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The password cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its first line is no password.
    #[error("{}: its first line is no password", .0.display())]
    Empty(PathBuf),
    /// Certificates of authorities cannot be used.
    #[error("foreign: {0}")]
    Trust(#[from] IdentityError),
}

/// All foreign back-ends that this proxy can log users in at.
pub(crate) struct Masters {
    by_backend: HashMap<BackendName, Master>,
}

/// Whose session is to be opened.
pub(crate) struct Wanted<'a> {
    pub(crate) home: &'a BackendName,
    pub(crate) foreign: &'a Foreign,
    pub(crate) service: Service,
    pub(crate) user: &'a LoginName,
    pub(crate) client: SocketAddr,
    pub(crate) trace_id: &'a str,
}

/// A session there.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Octets>,
    pub(crate) welcome: Welcome,
}

/// A connection, plain or in TLS.
pub(crate) trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

/// Why nobody was logged in. For the log: the user hears what [`refusal`](Self::refusal) says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the settings `foreign` of this proxy do not name it")]
    NotSet,
    #[error("it has no such service")]
    NoService,
    #[error(
        "the master login would go in the clear to another machine; see `plaintext` in `foreign`"
    )]
    Plaintext,
    #[error("it is to be reached by TLS, and `foreign` names no `ca`")]
    NoAuthority,
    #[error("the user's name holds the separator of the master login")]
    UserName,
    #[error("it cannot be reached")]
    Away(#[source] io::Error),
    #[error("TLS was refused")]
    Tls(#[source] io::Error),
    #[error("it said nothing within {} s", _0.as_secs())]
    Silent(Duration),
    #[error("it did not come to an answer within {} s", _0.as_secs())]
    Slow(Duration),
    #[error("it refused: {text:?}")]
    Refused { why: Refusal, text: String },
    #[error("what it said is no answer: {0:?}")]
    Nonsense(String),
    #[error("it said too much")]
    TooLong,
}

impl Fault {
    /// The reason in logs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotSet | Self::Plaintext | Self::NoAuthority | Self::UserName => {
                "foreign_not_set"
            }
            Self::NoService => "foreign_no_service",
            Self::Away(_) | Self::Silent(_) | Self::Slow(_) => "foreign_away",
            Self::Tls(_) => "foreign_tls_failed",
            Self::Refused { .. } => "foreign_refused",
            Self::Nonsense(_) | Self::TooLong => "foreign_nonsense",
        }
    }

    /// Whether the other side is there and speaks: the next login may be waited for as usual.
    pub(crate) fn has_answered(&self) -> bool {
        match self {
            Self::Slow(_) | Self::Refused { .. } | Self::Nonsense(_) | Self::TooLong => true,
            Self::NotSet
            | Self::NoService
            | Self::Plaintext
            | Self::NoAuthority
            | Self::UserName
            | Self::Away(_)
            | Self::Tls(_)
            | Self::Silent(_) => false,
        }
    }

    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::NoService => Refusal::NotAllowed,
            Self::Refused { why, .. } => *why,
            _ => Refusal::Temporary,
        }
    }
}

impl Masters {
    /// Reads the files that the settings name. Who has said nothing for `keepalive` is asked whether it is still there.
    pub(crate) fn load(
        settings: Vec<ForeignLogin>,
        keepalive: Duration,
    ) -> Result<Self, SecretError> {
        let mut by_backend = HashMap::new();
        for settings in settings {
            let path = settings.password_file.clone();
            let text = std::fs::read_to_string(&path).map_err(|source| SecretError::Read {
                path: path.clone(),
                source,
            })?;
            let password = text.lines().next().unwrap_or_default();
            if password.is_empty() || password.contains('\0') {
                return Err(SecretError::Empty(path));
            }
            let trust = settings.ca.as_deref().map(Trust::load).transpose()?;
            let master = Master {
                password: Secret::new(password.to_owned()),
                trust,
                reach: Reach::new(keepalive),
                settings,
            };
            by_backend.insert(master.settings.backend.clone(), master);
        }
        Ok(Self { by_backend })
    }

    /// Logs a user in there, in at most `within`.
    pub(crate) async fn open(
        &self,
        wanted: &Wanted<'_>,
        within: Duration,
    ) -> Result<Opened, Fault> {
        let master = self.by_backend.get(wanted.home).ok_or(Fault::NotSet)?;
        let service = wanted.foreign.service(wanted.service);
        let service = service.ok_or(Fault::NoService)?;
        let has_spoken = AtomicBool::new(false);
        let opened = timeout(within, master.open(wanted, service, &has_spoken)).await;
        opened.unwrap_or_else(|_| {
            Err(match has_spoken.load(Ordering::Relaxed) {
                true => Fault::Slow(within),
                false => Fault::Silent(within),
            })
        })
    }
}

impl Master {
    /// Tells in `has_spoken` that the other side has said something.
    async fn open(
        &self,
        wanted: &Wanted<'_>,
        at: &ForeignService,
        has_spoken: &AtomicBool,
    ) -> Result<Opened, Fault> {
        let ForeignLogin {
            master,
            separator,
            plaintext,
            tell_client,
            ..
        } = &self.settings;
        let user = wanted.user.as_str();
        let (authorization, authentication) = match separator {
            Some(separator) if user.contains(*separator) => return Err(Fault::UserName),
            Some(separator) => ("", format!("{user}{separator}{master}")),
            None => (user, master.clone()),
        };
        let mut dialogue = Dialogue::new(Plan {
            service: wanted.service,
            starttls: at.tls == ForeignTls::StartTls,
            client: tell_client.then_some((wanted.client, wanted.trace_id)),
            authorization,
            authentication: &authentication,
            password: self.password.reveal(),
        });
        let trust = match (&self.trust, at.tls) {
            (_, ForeignTls::Plain) => None,
            (Some(trust), _) => Some(trust),
            (None, _) => return Err(Fault::NoAuthority),
        };
        let addresses = self.reach.addresses(&at.address).await;
        let addresses = addresses.map_err(Fault::Away)?;
        let is_here = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        if trust.is_none() && !plaintext && !addresses.iter().all(is_here) {
            return Err(Fault::Plaintext);
        }
        let socket = self.reach.connect(&addresses).await;
        let mut socket = socket.map_err(Fault::Away)?;
        let mut stream: Box<dyn Octets> = match trust {
            None => Box::new(socket),
            Some(trust) => {
                if at.tls == ForeignTls::StartTls {
                    let welcome = speak(&mut socket, &mut dialogue, has_spoken).await?;
                    debug_assert!(welcome.is_none(), "nobody is in before TLS");
                }
                let secured = trust.handshake(&at.address, socket).await;
                let secured = secured.map_err(Fault::Tls)?;
                if at.tls == ForeignTls::StartTls {
                    dialogue.tls_started();
                }
                Box::new(secured)
            }
        };
        match speak(&mut stream, &mut dialogue, has_spoken).await? {
            Some(welcome) => Ok(Opened { stream, welcome }),
            None => Err(Fault::Nonsense("TLS within TLS".to_owned())),
        }
    }
}

/// Leads the dialogue until the user is in, or TLS is to begin.
async fn speak<S: Octets>(
    stream: &mut S,
    dialogue: &mut Dialogue<'_>,
    has_spoken: &AtomicBool,
) -> Result<Option<Welcome>, Fault> {
    loop {
        match dialogue.next()? {
            Step::Send(octets) => {
                stream.write_all(&octets).await.map_err(Fault::Away)?;
                stream.flush().await.map_err(Fault::Away)?;
            }
            Step::NeedInput => {
                let mut buffer = [0; READ_OCTETS];
                let count = stream.read(&mut buffer).await.map_err(Fault::Away)?;
                if count == 0 {
                    return Err(Fault::Away(io::ErrorKind::UnexpectedEof.into()));
                }
                has_spoken.store(true, Ordering::Relaxed);
                dialogue.receive(&buffer[..count]);
            }
            Step::StartTls => return Ok(None),
            Step::In(welcome) => return Ok(Some(welcome)),
        }
    }
}

impl Opened {
    /// Our own words for the user's login command: the other side's answer was to another one.
    pub(crate) fn words(&mut self, tag: Option<&str>) -> Vec<u8> {
        let mut words = match (tag, &self.welcome.capabilities) {
            (Some(tag), Some(told)) => format!("{tag} OK [CAPABILITY {told}] logged in\r\n"),
            (Some(tag), None) => format!("{tag} OK logged in\r\n"),
            (None, _) => "+OK logged in\r\n".to_owned(),
        }
        .into_bytes();
        words.append(&mut self.welcome.more);
        words
    }
}

/// Read at once before the login is answered: its lines are short.
const READ_OCTETS: usize = 1024;

#[cfg(test)]
mod tests;
