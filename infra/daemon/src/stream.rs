//! A user's connection, plain or in TLS, as one type.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::{
    channel_binding::{
        ChannelBinding, EXPORTER_LABEL, EXPORTER_OCTETS, EndPoint, TLS_EXPORTER,
        TLS_SERVER_END_POINT,
    },
    public_tls::PublicTls,
};

/// A user's connection. `TCP_NODELAY` is set: replies are small and awaited.
#[derive(Debug)]
pub enum UserStream {
    /// Without TLS.
    Plain(TcpStream),
    /// In TLS, from the first octet or since STARTTLS.
    Tls {
        /// The connection.
        stream: Box<TlsStream<TcpStream>>,
        /// The hash of the certificate that was shown; none where it has none.
        end_point: Option<EndPoint>,
    },
}

/// The way there and back, to most.
const RESET_WITHIN: Duration = Duration::from_millis(20);

/// What the handshake agreed on, for trace lines and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's registered name, for example `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
}

impl UserStream {
    /// Takes a connection without TLS.
    #[must_use]
    pub fn plain(socket: TcpStream) -> Self {
        _ = socket.set_nodelay(true);
        Self::Plain(socket)
    }

    /// Takes a connection that begins with TLS (RFC 8314).
    ///
    /// # Errors
    /// The handshake failed or took longer than `within`; the connection is closed.
    pub async fn implicit_tls(
        socket: TcpStream,
        tls: &PublicTls,
        within: Duration,
    ) -> io::Result<Self> {
        _ = socket.set_nodelay(true);
        let (stream, end_point) = tls.accept(socket, within).await?;
        Ok(Self::Tls {
            stream: Box::new(stream),
            end_point,
        })
    }

    /// Goes over to TLS after the positive reply to STARTTLS or STLS was written and flushed.
    ///
    /// The caller must have thrown away whatever it read behind that command: octets from before the handshake may come
    /// from an attacker in the middle (RFC 3207 §6, CVE-2011-0411). Octets it has not read yet are taken for the
    /// handshake, which they spoil.
    ///
    /// # Errors
    /// The handshake failed or took longer than `within`, or TLS is spoken already; the connection is closed.
    pub async fn starttls(self, tls: &PublicTls, within: Duration) -> io::Result<Self> {
        match self {
            Self::Plain(socket) => Self::implicit_tls(socket, tls, within).await,
            Self::Tls { .. } => Err(io::Error::other("TLS is spoken already")),
        }
    }

    /// Gives what the handshake agreed on; `None` without TLS.
    #[must_use]
    pub fn tls_facts(&self) -> Option<TlsFacts> {
        let Self::Tls { stream, .. } = self else {
            return None;
        };
        let session = stream.get_ref().1;
        Some(TlsFacts {
            version: match session.protocol_version()? {
                rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
                rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
                other => other.as_str()?,
            },
            cipher: session.negotiated_cipher_suite()?.suite().as_str()?,
        })
    }

    /// Tells whether the handshake resumed a session of before, which costs no signature; false without TLS.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        let Self::Tls { stream, .. } = self else {
            return false;
        };
        stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Gives what the connection can be bound to; nothing without TLS.
    #[must_use]
    pub fn channel_bindings(&self) -> Vec<ChannelBinding> {
        let Self::Tls { stream, end_point } = self else {
            return Vec::new();
        };
        let session = stream.get_ref().1;
        let is_tls13 = session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let export = || {
            let room = [0; EXPORTER_OCTETS];
            session.export_keying_material(room, EXPORTER_LABEL, Some(&[]))
        };
        let exported = is_tls13.then(export).and_then(Result::ok);
        let exporter = exported.map(|octets| ChannelBinding {
            kind: TLS_EXPORTER,
            data: octets.to_vec(),
        });
        let end_point = end_point.as_ref().map(|octets| ChannelBinding {
            kind: TLS_SERVER_END_POINT,
            data: octets.to_vec(),
        });
        exporter.into_iter().chain(end_point).collect()
    }

    /// The certificates (DER) that the client has shown in TLS, its own first; none where it has shown none.
    #[must_use]
    pub fn client_certificates(&self) -> Vec<Vec<u8>> {
        let Self::Tls { stream, .. } = self else {
            return Vec::new();
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        shown.iter().map(|one| one.to_vec()).collect()
    }

    /// Tells whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls { .. })
    }

    /// Gives the user's address.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// Gives our own address.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Waits until the user's end has no more to say, and takes no octet. It does not show whether it still listens: one that
    /// has closed and one that has only ended its own direction look the same. In TLS this is the connection below.
    pub async fn peer_ended(&self) {
        // Readiness to read would end with the first octet. This one ends with the stream alone: urgent data is not asked of
        // the kernel.
        _ = self.socket().ready(Interest::PRIORITY).await;
    }

    /// When the peer has ended its direction: whether it took what was written before. A peer that was gone by then resets the
    /// connection, within a moment as a rule.
    pub async fn was_taken(&self) -> bool {
        tokio::time::sleep(RESET_WITHIN).await;
        matches!(self.socket().take_error(), Ok(None))
    }

    /// Has the connection reset when it is dropped, whatever the peer still sends: it is neither read nor waited for. What was written
    /// just before may be lost.
    pub fn reset_on_drop(&self) {
        // Zero is no time for what the kernel has yet to send, so that nothing waits for it.
        _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls { stream, .. } => stream.get_ref().0,
        }
    }
}

impl AsyncRead for UserStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UserStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, octets),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
