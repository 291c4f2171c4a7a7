//! One connection to an LDAP server: found, made safe, and known to somebody.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daemon::dial;
use daemon::identity::{self, IdentityError};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError};
use rustls::ClientConfig;

use super::LdapSettings;

/// Why LDAP cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum LdapSetupError {
    /// Its authorities.
    #[error(transparent)]
    Authorities(#[from] IdentityError),
    /// The file with the password.
    #[error("{}: the file cannot be read", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// An empty password is none: a server takes it for nobody's, and says that all is well.
    #[error("{}: the file has no password", .0.display())]
    Empty(PathBuf),
}

/// Why a server gave no verdict: for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Away {
    /// It cannot be reached, or the connection broke.
    #[error("the LDAP server cannot be reached")]
    Connection(#[from] LdapError),
    /// It answers, and not to what was asked.
    #[error("the LDAP server refuses to {doing}: {code} {text:?}")]
    Refused {
        doing: &'static str,
        code: u32,
        text: String,
    },
    /// It answers nonsense.
    #[error("the LDAP server's answer cannot be read")]
    Nonsense,
    /// All connections are in use.
    #[error("more passwords wait for the LDAP server than it checks")]
    Busy,
    /// It says nothing.
    #[error("the LDAP server says nothing")]
    Silent,
    /// It did not answer a moment ago.
    #[error("the LDAP server gave no answer a moment ago")]
    Still,
}

/// How to come to a connection. Clones share what they know of the servers.
#[derive(Clone)]
pub(super) struct Connector(Arc<Shared>);

struct Shared {
    urls: Vec<String>,
    tls: Option<Arc<ClientConfig>>,
    reader: Option<(String, String)>,
    connect_timeout: Duration,
    answer_timeout: Duration,
    /// The one that answered last.
    last: AtomicUsize,
}

impl Connector {
    /// Blocking.
    pub(super) fn new(settings: &LdapSettings) -> Result<Self, LdapSetupError> {
        let reader = match (&settings.bind_dn, &settings.bind_password_file) {
            (Some(dn), Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| LdapSetupError::Read(path.clone(), source))?;
                let password = text.trim_end_matches(['\r', '\n']).to_owned();
                if password.is_empty() {
                    return Err(LdapSetupError::Empty(path.clone()));
                }
                Some((dn.clone(), password))
            }
            _ => None,
        };
        let tls = settings.tls_ca.as_ref().map(tls).transpose()?;
        Ok(Self(Arc::new(Shared {
            urls: settings.urls.clone(),
            tls,
            reader,
            connect_timeout: Duration::from_secs(settings.connect_timeout_s),
            answer_timeout: Duration::from_secs(settings.answer_timeout_s),
            last: AtomicUsize::new(0),
        })))
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        self.0.answer_timeout
    }

    /// A connection to the first server that takes one, as nobody.
    pub(super) async fn connect(&self) -> Result<Ldap, Away> {
        let shared = &self.0;
        let count = shared.urls.len();
        let first = shared.last.load(Ordering::Relaxed);
        let mut failure = Away::Still;
        for number in (first..first + count).map(|number| number % count) {
            match self.connect_to(&shared.urls[number]).await {
                Ok(ldap) => {
                    shared.last.store(number, Ordering::Relaxed);
                    return Ok(ldap);
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, url: &str) -> Result<Ldap, LdapError> {
        let mut settings = LdapConnSettings::new().set_conn_timeout(self.0.connect_timeout);
        if let Some(tls) = &self.0.tls {
            settings = settings.set_starttls(true).set_config(Arc::clone(tls));
        }
        let (connection, ldap) = LdapConnAsync::with_settings(settings, url).await?;
        tokio::spawn(async move {
            // Who uses it is told.
            let _ = connection.drive().await;
        });
        Ok(ldap)
    }

    /// A connection that may read entries.
    pub(super) async fn reader(&self) -> Result<Ldap, Away> {
        let mut ldap = self.connect().await?;
        if self.0.reader.is_some() {
            self.become_reader(&mut ldap).await?;
        }
        Ok(ldap)
    }

    /// Has a connection, whosever it was, read entries from now on.
    pub(super) async fn become_reader(&self, ldap: &mut Ldap) -> Result<(), Away> {
        // Without either it is nobody's again (RFC 4513 §5.1.1).
        let reader = self.0.reader.as_ref();
        let (dn, password) = reader.map_or(("", ""), |(dn, password)| (dn, password));
        let bind = ldap.with_timeout(self.0.answer_timeout);
        let result = bind.simple_bind(dn, password).await?;
        match result.rc {
            SUCCESS => Ok(()),
            code => Err(Away::Refused {
                doing: "let the reader in",
                code,
                text: result.text,
            }),
        }
    }
}

fn tls(authorities: &PathBuf) -> Result<Arc<ClientConfig>, LdapSetupError> {
    Ok(Arc::new(dial::config(identity::authorities(authorities)?)))
}

/// RFC 4511 §4.1.9.
pub(super) const SUCCESS: u32 = 0;
