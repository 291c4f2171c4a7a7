//! A user's program that does exactly what it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::played::LONG;

/// One connection.
pub(crate) struct User<S> {
    pub(crate) stream: S,
    pub(crate) pending: Vec<u8>,
}

impl User<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            pending: Vec::new(),
        }
    }

    pub(crate) async fn handshake(self, authority_pem: &str) -> User<TlsStream<TcpStream>> {
        assert!(
            self.pending.is_empty(),
            "nothing may stand before the handshake"
        );
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = timeout(LONG, connector.connect(name, self.stream))
            .await
            .unwrap()
            .unwrap();
        User {
            stream,
            pending: Vec::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> User<S> {
    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        timeout(LONG, self.stream.write_all(octets.as_ref()))
            .await
            .unwrap()
            .unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends a command and gives the next line.
    pub(crate) async fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.line().await
    }

    /// The next line; empty when the connection is closed or cut.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).unwrap();
            }
            match timeout(LONG, self.stream.read_buf(&mut self.pending))
                .await
                .unwrap()
            {
                Ok(0) | Err(_) => return String::new(),
                Ok(_) => {}
            }
        }
    }

    /// Expects the next line to begin so.
    pub(crate) async fn expect(&mut self, beginning: &str) {
        let line = self.line().await;
        assert!(
            line.starts_with(beginning),
            "{beginning} expected: {line:?}"
        );
    }

    /// Logs in by USER and PASS and reads the home's own words.
    pub(crate) async fn pop3_login(&mut self) {
        self.expect("+OK proxy.test").await;
        self.send("USER ann\r\n").await;
        self.expect("+OK").await;
        self.send("PASS right\r\n").await;
        self.expect("+OK welcome").await;
    }
}
