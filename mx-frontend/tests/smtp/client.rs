//! A sender that does exactly what it is told.

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
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pending: Vec<u8>,
}

impl Client<TcpStream> {
    /// Connects and reads the greeting.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::silent(address).await;
        assert!(client.reply().await.starts_with("220 "));
        client
    }

    /// Connects and reads nothing.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            pending: Vec::new(),
        }
    }

    /// The handshake after the go-ahead to STARTTLS.
    pub(crate) async fn handshake(self, authority_pem: &str) -> Client<TlsStream<TcpStream>> {
        self.shake(&tls_config(authority_pem), "localhost").await
    }

    /// The same, or at once, with a configuration that remembers sessions.
    pub(crate) async fn shake(
        self,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> Client<TlsStream<TcpStream>> {
        assert!(
            self.pending.is_empty(),
            "nothing may stand between 220 and the handshake"
        );
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = timeout(LONG, connector.connect(name, self.stream))
            .await
            .unwrap()
            .unwrap();
        Client {
            stream,
            pending: Vec::new(),
        }
    }
}

/// Believes this authority alone.
pub(crate) fn tls_config(authority_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        timeout(LONG, self.stream.write_all(octets.as_ref()))
            .await
            .unwrap()
            .unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends a command and gives its reply.
    pub(crate) async fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// The next whole reply, however many lines it has; empty when the server closed.
    pub(crate) async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let Some(line) = self.line().await else {
                return reply;
            };
            reply.push_str(&line);
            if line.as_bytes().get(3) == Some(&b' ') {
                return reply;
            }
            reply.push('\n');
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            let read = self.stream.read_buf(&mut self.pending);
            match timeout(LONG, read)
                .await
                .expect("the server says something")
            {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Expects each reply to begin so.
    pub(crate) async fn expect(&mut self, beginnings: &[&str]) {
        for beginning in beginnings {
            let reply = self.reply().await;
            assert!(
                reply.starts_with(beginning),
                "{beginning} expected: {reply:?}"
            );
        }
    }

    /// EHLO, MAIL, RCPT for each recipient and DATA, all accepted.
    pub(crate) async fn begin(&mut self, recipients: &[&str]) {
        assert!(self.command("EHLO client.test").await.starts_with("250"));
        assert!(
            self.command("MAIL FROM:<bob@sender.test>")
                .await
                .starts_with("250 2.1.0")
        );
        for recipient in recipients {
            let reply = self.command(&format!("RCPT TO:<{recipient}>")).await;
            assert!(reply.starts_with("250 2.1.5"), "{reply}");
        }
        assert!(self.command("DATA").await.starts_with("354"));
    }

    /// Reads until the server closes.
    pub(crate) async fn closed(&mut self) {
        while !self.reply().await.is_empty() {}
    }
}
