//! A blocking connection that reads lines and can turn to TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

pub(crate) struct Wire {
    stream: BufReader<Box<dyn Socket>>,
    /// The same socket, for turning to TLS.
    plain: TcpStream,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let plain =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        plain
            .set_read_timeout(Some(Duration::from_secs(40)))
            .unwrap();
        plain.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(Box::new(plain.try_clone().unwrap())),
            plain,
        }
    }

    /// Goes on in TLS and checks the server's certificate against `ca`, for the name `localhost`.
    pub(crate) fn start_tls(self, ca: &Path) -> Self {
        self.start_tls_showing(ca, None)
    }

    /// The same, showing a certificate (PEM) and having its key, where the server asks for one.
    pub(crate) fn start_tls_showing(self, ca: &Path, shown: Option<(&str, &str)>) -> Self {
        assert!(
            self.stream.buffer().is_empty(),
            "octets before the handshake"
        );
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                let chain = vec![certificate.unwrap()];
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let session =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let stream = StreamOwned::new(session, self.plain.try_clone().unwrap());
        Self {
            stream: BufReader::new(Box::new(stream)),
            plain: self.plain,
        }
    }

    pub(crate) fn write(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// One line with its CRLF; empty when the server has closed.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        // A server that was killed may reset the connection; for a client that is the end too.
        if self.stream.read_until(b'\n', &mut line).is_err() {
            line.clear();
        }
        line
    }
    /// Exactly so many octets.
    pub(crate) fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.stream.read_exact(&mut octets).unwrap();
        octets
    }
}
