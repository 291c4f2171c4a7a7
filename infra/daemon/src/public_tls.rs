//! TLS towards users and the internet: a public certificate, exchangeable while running.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    config::{Problem, Settings},
    identity::{IdentityError, certificates, private_key},
};

crate::settings! {
    /// The certificate shown to the outside; without one no TLS is offered there.
    pub struct TlsFiles {
        /// Certificate chain (PEM).
        pub certificate: Option<PathBuf> = None,
        /// Private key of that certificate (PEM).
        pub key: Option<PathBuf> = None,
    }
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
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => PublicTls::load(certificate, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// The certificate shown to users; clones share it, and a reload reaches all.
#[derive(Clone)]
pub struct PublicTls {
    shared: Arc<Shared>,
}

struct Shared {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for PublicTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicTls")
            .field(&self.shared.certificate)
            .finish()
    }
}

impl PublicTls {
    /// Reads certificate chain and key (PEM). TLS 1.2 and 1.3 are spoken; no client certificate is asked for.
    ///
    /// # Errors
    /// `Read` and `Pem` name the file, `Mismatch` says that the two do not fit.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let config = ArcSwap::new(Arc::new(config(&certificate, &key)?));
        Ok(Self {
            shared: Arc::new(Shared {
                certificate,
                key,
                config,
            }),
        })
    }

    /// Reads both files again; new handshakes use them, sessions go on. On an error the old ones stay.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<(), IdentityError> {
        let config = config(&self.shared.certificate, &self.shared.key)?;
        self.shared.config.store(Arc::new(config));
        Ok(())
    }

    /// Finishes a handshake with a user, in at most `within`.
    ///
    /// # Errors
    /// What the client did wrong, or `TimedOut`.
    pub async fn accept(
        &self,
        socket: TcpStream,
        within: Duration,
    ) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.shared.config.load_full());
        timeout(within, acceptor.accept(socket)).await?
    }
}

fn config(certificate: &PathBuf, key: &PathBuf) -> Result<ServerConfig, IdentityError> {
    let mismatch = |source| IdentityError::Mismatch {
        path: certificate.clone(),
        source,
    };
    let chain = certificates(certificate)?;
    let key = private_key(key)?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(mismatch)
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
            };
            files.problems()[0].key.clone()
        };
        assert_eq!(half(Some("a.pem"), None), "key");
        assert_eq!(half(None, Some("a.key")), "certificate");
    }
}
