//! TLS towards users and the internet: public certificates, exchangeable while running.

mod tickets;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::ServerName,
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{error, info};

use tickets::SharedTickets;

use crate::{
    channel_binding::{EndPoint, end_point},
    client_certificate::UserAuthorities,
    config::{Problem, Settings},
    identity::{IdentityError, certificates, private_key},
    metrics::counter,
    shutdown::Shutdown,
};

crate::settings! {
    /// The certificate shown to the outside; without one no TLS is offered there. Changed files are read again within
    /// half a minute, and at once after SIGHUP; sessions go on.
    pub struct TlsFiles {
        /// Certificate chain (PEM).
        pub certificate: Option<PathBuf> = None,
        /// Private key of that certificate (PEM).
        pub key: Option<PathBuf> = None,
        /// Certificates for further names, such as [{ certificate = "b.pem", key = "b.key" }]. A client that asks for a
        /// name (SNI) is shown the first that is for it, and the one above when none is, or when it asks for none.
        pub others: Vec<CertificateFiles> = Vec::new(),
        /// Keys of session tickets, so that a client resumes at any process that shows the same certificates and has the same file. One key
        /// a line, made by `openssl rand -base64 48`, 2 to 16 of them: the last but one seals, all open. To roll them, twice a day say, append
        /// a line, remove the first, and copy the file to all machines; whoever has read it opens all tickets of these keys, so
        /// keep it as the private key. Without it each process makes and rolls its own. With `users_ca` of a proxy there are no tickets.
        pub ticket_keys: Option<PathBuf> = None,
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Private key of that certificate (PEM).
    pub key: PathBuf,
}

impl Settings for TlsFiles {
    fn problems(&self) -> Vec<Problem> {
        let missing = |key, other| {
            let problem = format!("missing, though {other} is given");
            vec![Problem::new(key, "", problem, "give both or none")]
        };
        match (&self.certificate, &self.key) {
            (Some(_), None) => missing("key", "certificate"),
            (None, Some(_)) => missing("certificate", "key"),
            (None, None) if self.ticket_keys.is_some() => missing("certificate", "ticket_keys"),
            (None, None) if !self.others.is_empty() => {
                let problem = "missing, though there are others";
                let remedy = "name the one that clients are shown who ask for no name";
                vec![Problem::new("certificate", "", problem, remedy)]
            }
            (Some(_), Some(_)) | (None, None) => Vec::new(),
        }
    }
}

impl TlsFiles {
    /// Reads what the settings name; nothing when they name nothing.
    ///
    /// # Errors
    /// As [`PublicTls::load`].
    pub fn load(&self) -> Result<Option<PublicTls>, IdentityError> {
        self.load_asking(None)
    }

    /// The same, asking clients for a certificate of one of these authorities. Who shows none is served too; who shows another's
    /// is not.
    ///
    /// # Errors
    /// As [`PublicTls::load`].
    pub fn load_asking(
        &self,
        users: Option<UserAuthorities>,
    ) -> Result<Option<PublicTls>, IdentityError> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        let first = CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let all = std::iter::once(&first).chain(&self.others);
        let read = ReadFrom {
            files: all.cloned().collect(),
            ticket_keys: self.ticket_keys.clone(),
            users,
        };
        PublicTls::of(read).map(Some)
    }
}

/// The certificates shown to users; clones share them, and a reload reaches all.
#[derive(Clone)]
pub struct PublicTls {
    shared: Arc<Shared>,
}

struct Shared {
    read: ReadFrom,
    config: ArcSwap<Shown>,
}

/// What all is made of.
struct ReadFrom {
    files: Vec<CertificateFiles>,
    ticket_keys: Option<PathBuf>,
    users: Option<UserAuthorities>,
}

/// What handshakes use until the next reload.
struct Shown {
    config: Arc<ServerConfig>,
    by_name: Arc<ByName>,
}

impl fmt::Debug for PublicTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicTls")
            .field(&self.shared.read.files)
            .finish()
    }
}

impl PublicTls {
    /// Reads certificate chain and key (PEM). TLS 1.2 and 1.3 are spoken.
    ///
    /// # Errors
    /// `Read` and `Pem` name the file, `Mismatch` says that the two do not fit.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let files = vec![CertificateFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }];
        Self::of(ReadFrom {
            files,
            ticket_keys: None,
            users: None,
        })
    }

    fn of(read: ReadFrom) -> Result<Self, IdentityError> {
        let config = ArcSwap::new(Arc::new(config(&read)?));
        Ok(Self {
            shared: Arc::new(Shared { read, config }),
        })
    }

    /// Reads all files again; new handshakes use them, sessions go on. On an error the old ones stay, all of them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<(), IdentityError> {
        let config = config(&self.shared.read)?;
        self.shared.config.store(Arc::new(config));
        Ok(())
    }

    /// Reloads at SIGHUP and when a file has changed, until the shutdown. Each reload is a line of the log; one that
    /// fails keeps the old certificates and is tried again.
    ///
    /// # Panics
    /// When the system refuses a signal handler, which it does not for this one.
    pub fn follow(&self, shutdown: &Shutdown) {
        let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be handled");
        let (tls, ending) = (self.clone(), shutdown.clone());
        // From now on, and not only when the task first runs.
        let mut seen = tls.stamps();
        let mut failed = None;
        shutdown.spawn(async move {
            let mut due = interval(LOOK_INTERVAL);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let is_asked = tokio::select! {
                    () = ending.requested() => return,
                    _ = hangup.recv() => true,
                    _ = due.tick() => false,
                };
                let now = tls.stamps();
                // What could not be read may have been within the renewal, or closed to us for a moment, which changes no
                // stamp when it is put right: it is tried again at each look.
                if (is_asked || now != seen) && tls.reload_and_tell(&mut failed) {
                    seen = now;
                }
            }
        });
    }

    /// Whether it has done so. `failed` is what was told last: the same is not told again.
    fn reload_and_tell(&self, failed: &mut Option<String>) -> bool {
        let reloaded = self.reload();
        let result = if reloaded.is_ok() { "ok" } else { "failed" };
        counter!("posthouse_tls_reloads_total", "result" => result).increment(1);
        match reloaded {
            Ok(()) => {
                info!(files = ?self.shared.read.files, "certificates read again");
                *failed = None;
                true
            }
            Err(error) => {
                let told = error.to_string();
                if failed.as_ref() != Some(&told) {
                    error!(
                        error = told,
                        "certificates cannot be read again, the old ones stay; tried until they can"
                    );
                    *failed = Some(told);
                }
                false
            }
        }
    }

    /// What changes with each file; nothing where there is none now, as between two steps of whoever renews it.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let read = &self.shared.read;
        let paths = read.files.iter();
        let paths = paths.flat_map(|files| [&files.certificate, &files.key]);
        let paths = paths.chain(&read.ticket_keys);
        let stamp = |path: &PathBuf| {
            let about = fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        paths.map(stamp).collect()
    }

    /// Finishes a handshake with a user, in at most `within`, and gives the hash of the certificate that was shown.
    ///
    /// # Errors
    /// What the client did wrong, or `TimedOut`.
    pub async fn accept(
        &self,
        socket: TcpStream,
        within: Duration,
    ) -> io::Result<(TlsStream<TcpStream>, Option<EndPoint>)> {
        let shown = self.shared.config.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&shown.config));
        let stream = timeout(within, acceptor.accept(socket)).await??;
        // A session that is resumed is one of the same certificates and name: the tickets and rustls see to it.
        let certificate = shown.by_name.choose(stream.get_ref().1.server_name());
        Ok((stream, certificate.end_point.clone()))
    }
}

/// How often files are looked at. Certificates are renewed weeks before their end.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Shows a client the first certificate that is for the name it asks for, or the first of all.
#[derive(Debug)]
struct ByName {
    first: Certificate,
    others: Vec<Certificate>,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    end_point: Option<EndPoint>,
}

impl Certificate {
    fn new(key: CertifiedKey) -> Self {
        let end_point = key.cert.first().and_then(|end| end_point(end));
        Self {
            key: Arc::new(key),
            end_point,
        }
    }
}

impl ByName {
    fn choose(&self, name: Option<&str>) -> &Certificate {
        let wanted = name.and_then(|name| ServerName::try_from(name).ok());
        let mut all = std::iter::once(&self.first).chain(&self.others);
        let fit = wanted.and_then(|name| all.find(|one| is_for(&one.key, &name)));
        fit.unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.choose(hello.server_name()).key))
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let end = key
        .cert
        .first()
        .and_then(|end| webpki::EndEntityCert::try_from(end).ok());
    end.is_some_and(|end| end.verify_is_valid_for_subject_name(name).is_ok())
}

fn config(read: &ReadFrom) -> Result<Shown, IdentityError> {
    let ReadFrom {
        files,
        ticket_keys,
        users,
    } = read;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut keys = Vec::new();
    for CertificateFiles { certificate, key } in files {
        let chain = certificates(certificate)?;
        let key = private_key(key)?;
        let key = CertifiedKey::from_der(chain, key, &provider);
        let key = key.map_err(|source| mismatch(certificate, source))?;
        keys.push(Certificate::new(key));
    }
    let tickets: Option<Arc<dyn ProducesTickets>> = match (ticket_keys, users) {
        // A ticket would outlive the authority of the certificate that a user showed.
        (_, Some(_)) => None,
        (Some(path), None) => {
            let shown = keys.iter().map(|one| &*one.key);
            Some(Arc::new(SharedTickets::load(path, shown)?))
        }
        (None, None) => {
            let own = rustls::crypto::aws_lc_rs::Ticketer::new();
            Some(own.map_err(|source| mismatch(&files[0].certificate, source))?)
        }
    };
    let others = keys.split_off(1);
    let by_name = Arc::new(ByName {
        first: keys.remove(0),
        others,
    });
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| mismatch(&files[0].certificate, source))?;
    let builder = match users {
        Some(users) => builder.with_client_cert_verifier(users.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::<ByName>::clone(&by_name));
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
        // A session that is resumed here is a ticket's; nothing of it is kept.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Shown {
        config: Arc::new(config),
        by_name,
    })
}

fn mismatch(certificate: &Path, source: rustls::Error) -> IdentityError {
    IdentityError::Mismatch {
        path: certificate.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_its_key_is_a_problem_and_neither_is_none() {
        assert_eq!(TlsFiles::default().problems(), []);
        let half = |certificate: Option<&str>, key: Option<&str>| {
            let files = TlsFiles {
                certificate: certificate.map(Into::into),
                key: key.map(Into::into),
                ..TlsFiles::default()
            };
            files.problems()[0].key.clone()
        };
        assert_eq!(half(Some("a.pem"), None), "key");
        assert_eq!(half(None, Some("a.key")), "certificate");
        let keys = TlsFiles {
            ticket_keys: Some("keys".into()),
            ..TlsFiles::default()
        };
        assert_eq!(keys.problems()[0].key, "certificate");
        let others = TlsFiles {
            others: vec![CertificateFiles {
                certificate: "b.pem".into(),
                key: "b.key".into(),
            }],
            ..TlsFiles::default()
        };
        assert_eq!(others.problems()[0].key, "certificate");
    }
}
