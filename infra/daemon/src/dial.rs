//! TLS to servers that are not ours, whose authorities an operator names.

use std::{io, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::identity::{self, IdentityError};

/// TLS 1.2 and 1.3 with servers that these authorities vouch for, as nobody.
#[must_use]
pub fn config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Whose certificates are believed.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Reads certificates of authorities (PEM). TLS 1.2 and 1.3 are spoken.
    ///
    /// # Errors
    /// `Read`, `Pem` and `Mismatch` name the file.
    pub fn load(authorities: &Path) -> Result<Self, IdentityError> {
        let roots = identity::authorities(&authorities.to_owned())?;
        Ok(Self {
            config: Arc::new(config(roots)),
        })
    }

    /// Begins TLS on a connection to `address` (`host:port`), whose host the certificate must be for.
    ///
    /// # Errors
    /// The certificate is not believed, the other side speaks no TLS, or the connection is gone.
    pub async fn handshake(
        &self,
        address: &str,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, socket)
            .await
    }
}
