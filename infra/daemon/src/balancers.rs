//! Load balancers in front of us: their connections begin with the PROXY protocol's header, which says whom they
//! speak for, and nobody else's may.
//!
//! Who may send a header may name any client, so it is taken from the networks of the settings alone. There it must
//! come: a connection without one would be counted, limited and logged as the balancer's own. Exactly the header is
//! read and no octet behind it, so what follows (TLS, a login) finds its connection untouched. Both versions are
//! understood; of version 2 the extensions (TLVs) are passed over.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::config::{Problem, Settings};

crate::settings! {
    /// Load balancers in front of us that tell by the PROXY protocol, version 1 or 2, whom they speak for.
    pub struct Balancers {
        /// Their networks or addresses, such as "192.0.2.0/28". Connections from there must begin with a header, those
        /// from elsewhere must not.
        pub networks: Vec<Network> = Vec::new(),
        /// Seconds that the header may take.
        pub header_timeout_s: u64 = 5,
    }
}

impl Settings for Balancers {
    fn problems(&self) -> Vec<Problem> {
        Problem::outside("header_timeout_s", &self.header_timeout_s, 1..=60)
            .into_iter()
            .collect()
    }
}

impl Balancers {
    /// Gives the client's address: the peer's own, or the one that a balancer tells. Nothing was said or done on the
    /// connection yet, and nothing but the header is taken from it.
    ///
    /// A balancer that speaks for itself (LOCAL), or does not say for whom (UNKNOWN, UNSPEC), is the client. On loopback it is
    /// nobody in particular, `0.0.0.0`: what is allowed to clients on this machine, such as a login in the clear, is allowed neither to
    /// whoever is behind it, nor to whom a balancer elsewhere calls a client on loopback.
    ///
    /// # Errors
    /// [`HeaderFault`]: the connection is to be closed without a word. Whoever is there does not speak the protocol
    /// that would follow, or not yet.
    pub async fn client(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<SocketAddr, HeaderFault> {
        let address = peer.ip();
        if !self.networks.iter().any(|network| network.holds(address)) {
            return Ok(peer);
        }
        let mut header = Header::default();
        let within = Duration::from_secs(self.header_timeout_s);
        let read = timeout(within, header.read(socket)).await;
        match read {
            Ok(client) => Ok(believed(client?, peer)),
            Err(_) if header.octets.is_empty() => Err(HeaderFault::Missing),
            Err(_) => Err(HeaderFault::TimedOut),
        }
    }
}

fn believed(told: Option<SocketAddr>, peer: SocketAddr) -> SocketAddr {
    let is_local = |one: SocketAddr| one.ip().to_canonical().is_loopback();
    match told {
        Some(client) if !is_local(client) || is_local(peer) => client,
        Some(_) => (Ipv4Addr::UNSPECIFIED, peer.port()).into(),
        None if is_local(peer) => (Ipv4Addr::UNSPECIFIED, peer.port()).into(),
        None => peer,
    }
}

/// Whether a client's first octets are the beginning of a header, in either version. From a peer that is no balancer of
/// ours this is a mistake in somebody's settings, or a lie.
#[must_use]
pub fn looks_like_header(first: &[u8]) -> bool {
    first.starts_with(V1_BEGINNING) || first.starts_with(V2_SIGNATURE)
}

/// Waits for a client that speaks first, as in TLS, and tells whether it begins with a header. Takes nothing.
///
/// # Errors
/// The connection is gone.
pub async fn begins_with_header(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; V2_SIGNATURE.len()];
    let count = socket.peek(&mut first).await?;
    Ok(looks_like_header(&first[..count]))
}

/// Why a balancer's connection is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// Something else came, or nothing.
    #[error("no PROXY header came")]
    Missing,
    /// It began like one.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It is longer than [`HEADER_MAX_OCTETS`], or a line without an end.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It did not end in time.
    #[error("the PROXY header took too long")]
    TimedOut,
    /// The connection ended within it.
    #[error("the connection ended before its PROXY header did")]
    Disconnected(#[from] io::Error),
}

impl HeaderFault {
    /// The reason in logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "proxy_header_missing",
            Self::Malformed => "proxy_header_malformed",
            Self::TooLong => "proxy_header_too_long",
            Self::TimedOut => "proxy_header_timed_out",
            Self::Disconnected(_) => "proxy_header_disconnected",
        }
    }
}

/// The reason in logs and metrics for a header that nobody was to send.
pub const HEADER_UNEXPECTED: &str = "proxy_header_unexpected";

/// The longest header taken, extensions included. The protocol's document wants a sender to stay below 536 (§2.2);
/// certificates' names and a provider's own extensions have been seen to need some hundred more.
pub const HEADER_MAX_OCTETS: usize = 4096;
/// Version 1, with its CRLF (§2.1).
const V1_MAX_OCTETS: usize = 107;
const V1_BEGINNING: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 up to its length: signature, version and command, family, length.
const V2_HEAD_OCTETS: usize = V2_SIGNATURE.len() + 4;
/// Version and command of a connection that the balancer makes for itself.
const V2_LOCAL: u8 = 0x20;

/// A header as it arrives.
#[derive(Default)]
struct Header {
    octets: Vec<u8>,
}

/// How far a header has come.
enum Progress {
    /// So many more octets are sure to be of it.
    Lacks(usize),
    /// It is a line of version 1 that has not ended.
    LacksEnd,
    Whole,
}

impl Header {
    /// Reads one header; nothing when the balancer speaks for itself.
    async fn read(&mut self, socket: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderFault> {
        loop {
            match self.progress()? {
                Progress::Whole => return self.client(),
                Progress::Lacks(count) => self.take(socket, count).await?,
                Progress::LacksEnd => {
                    // What has come is looked at first: behind the line's end stand the client's own octets.
                    let mut ahead = [0; V1_MAX_OCTETS];
                    let room = V1_MAX_OCTETS - self.octets.len();
                    let there = socket.peek(&mut ahead[..room]).await?;
                    let end = ahead[..there].iter().position(|octet| *octet == b'\n');
                    // At the connection's end nothing is there, and taking an octet says so.
                    let count = end.map_or(there.max(1), |end| end + 1);
                    self.take(socket, count).await?;
                }
            }
        }
    }

    async fn take(&mut self, socket: &mut TcpStream, count: usize) -> Result<(), HeaderFault> {
        let mut left = socket.take(count as u64);
        match left.read_buf(&mut self.octets).await? {
            0 if self.octets.is_empty() => Err(HeaderFault::Missing),
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    fn progress(&self) -> Result<Progress, HeaderFault> {
        let octets = self.octets.as_slice();
        let begins = |with: &[u8]| {
            let common = octets.len().min(with.len());
            octets[..common] == with[..common]
        };
        if begins(V1_BEGINNING) && !octets.is_empty() {
            return match octets.len() {
                length if length < V1_BEGINNING.len() => {
                    Ok(Progress::Lacks(V1_BEGINNING.len() - length))
                }
                _ if octets.ends_with(b"\n") => Ok(Progress::Whole),
                length if length >= V1_MAX_OCTETS => Err(HeaderFault::TooLong),
                _ => Ok(Progress::LacksEnd),
            };
        }
        if !begins(V2_SIGNATURE) {
            return Err(HeaderFault::Missing);
        }
        // Either beginning is at least that long.
        if octets.len() < V1_BEGINNING.len() {
            return Ok(Progress::Lacks(V1_BEGINNING.len() - octets.len()));
        }
        if octets.len() < V2_HEAD_OCTETS {
            return Ok(Progress::Lacks(V2_HEAD_OCTETS - octets.len()));
        }
        let length = u16::from_be_bytes([octets[V2_HEAD_OCTETS - 2], octets[V2_HEAD_OCTETS - 1]]);
        let whole = V2_HEAD_OCTETS + usize::from(length);
        match whole - octets.len() {
            _ if whole > HEADER_MAX_OCTETS => Err(HeaderFault::TooLong),
            0 => Ok(Progress::Whole),
            lacks => Ok(Progress::Lacks(lacks)),
        }
    }

    fn client(&self) -> Result<Option<SocketAddr>, HeaderFault> {
        // With LOCAL whatever stands behind is to be passed over, the family included (§2.2).
        if self.octets.get(V2_SIGNATURE.len()) == Some(&V2_LOCAL) {
            return Ok(None);
        }
        let config = ParseConfig {
            include_tlvs: false,
            ..ParseConfig::default()
        };
        let (header, length) =
            ProxyHeader::parse(&self.octets, config).map_err(|_| HeaderFault::Malformed)?;
        match header.proxied_address() {
            _ if length != self.octets.len() => Err(HeaderFault::Malformed),
            Some(told) if told.protocol == Protocol::Stream => Ok(Some(told.source)),
            Some(_) => Err(HeaderFault::Malformed),
            None => Ok(None),
        }
    }
}

/// A network, or with all bits given one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// This machine, to itself.
    pub const LOOPBACK: [Self; 2] = [
        Self {
            address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
            bits: 8,
        },
        Self {
            address: IpAddr::V6(Ipv6Addr::LOCALHOST),
            bits: 128,
        },
    ];

    /// Whether an address is in it; one of IPv4 that came in IPv6's form too.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 192.0.2.0/28 or 2001:db8::/64, and no address")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => bits_max,
        };
        if bits > bits_max {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const CLIENT: &str = "192.0.2.7:4711";
    const CLIENT_SIX: &str = "[2001:db8::7]:4711";

    fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, block].concat()
    }

    /// 192.0.2.7:4711 to 198.51.100.1:143.
    const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0, 143];

    fn six() -> Vec<u8> {
        let mut block = vec![0x20, 0x01, 0x0d, 0xb8];
        block.extend([0; 11]);
        block.push(7);
        block.extend([0; 15]);
        block.push(1);
        block.extend([0x12, 0x67, 0, 143]);
        block
    }

    /// What comes of a connection on which these pieces arrive; what is left on it; from a network in the settings.
    async fn arrived(pieces: &[&[u8]], ends: bool) -> (Result<SocketAddr, HeaderFault>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        near.set_nodelay(true).unwrap();
        let (mut far, peer) = listener.accept().await.unwrap();
        let balancers = Balancers {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            header_timeout_s: 1,
        };
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                // Who is refused closes, and hears no more.
                if near.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if ends {
                _ = near.shutdown().await;
            }
            near
        });
        let client = balancers.client(&mut far, peer).await;
        let mut near = sending.await.unwrap();
        let mut rest = Vec::new();
        if client.is_ok() {
            _ = near.shutdown().await;
            far.read_to_end(&mut rest).await.unwrap();
        }
        let client = client.map(|client| match client.port() {
            // The kernel chose it.
            port if port == peer.port() => (client.ip(), 0).into(),
            _ => client,
        });
        (client, rest)
    }

    /// Stands for the balancer's own address: it is on loopback, and so nobody in particular.
    fn balancer() -> SocketAddr {
        ([0, 0, 0, 0], 0).into()
    }

    async fn code(pieces: &[&[u8]], ends: bool) -> &'static str {
        arrived(pieces, ends).await.0.unwrap_err().code()
    }

    #[tokio::test]
    async fn the_client_s_address_is_told_in_both_versions_and_what_follows_is_left() {
        let four = version_2(0x21, 0x11, &FOUR);
        let six = version_2(0x21, 0x21, &six());
        // An authority, an unknown extension, and one that is cut short.
        let extended = [&FOUR[..], b"\x02\0\x04mail\xee\0\x01x\x05\xff"].concat();
        let extended = version_2(0x21, 0x11, &extended);
        let cases: [(&[u8], &str); 5] = [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 143\r\n", CLIENT),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 143\r\n",
                CLIENT_SIX,
            ),
            (&four, CLIENT),
            (&six, CLIENT_SIX),
            (&extended, CLIENT),
        ];
        for (header, client) in cases {
            let whole = [header, b"a1 NOOP\r\nPROXY "].concat();
            let octets: Vec<&[u8]> = whole.chunks(1).collect();
            for pieces in [&[&whole[..]][..], &octets] {
                let (told, rest) = arrived(pieces, false).await;
                assert_eq!(told.unwrap(), client.parse().unwrap());
                assert_eq!(rest, b"a1 NOOP\r\nPROXY ");
            }
        }
    }

    #[tokio::test]
    async fn a_balancer_that_speaks_for_itself_is_the_client() {
        let unspecified = version_2(0x21, 0, &[]);
        let unix = version_2(0x21, 0x31, &[0; 216]);
        let local = version_2(0x20, 0, b"\x04\0\0");
        // Whatever the family says, it is passed over.
        let odd = version_2(0x20, 0x77, b"abc");
        let headers: [&[u8]; 6] = [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
            &unspecified,
            &unix,
            &local,
            &odd,
        ];
        for header in headers {
            let (told, rest) = arrived(&[header, b"rest"], false).await;
            assert_eq!(told.unwrap(), balancer());
            assert_eq!(rest, b"rest");
        }
    }

    #[test]
    fn nobody_is_on_this_machine_but_whom_a_balancer_here_says_so_of() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (here, there) = (at("127.0.0.1:9"), at("192.0.2.1:9"));
        let (six, mapped) = (at("[::1]:9"), at("[::ffff:127.0.0.1]:9"));
        let client = at("198.51.100.7:5");
        for peer in [here, there, six, mapped] {
            assert_eq!(believed(Some(client), peer), client);
        }
        let local = at("127.0.0.1:5");
        assert_eq!(believed(Some(local), here), local);
        let nobody = at("0.0.0.0:9");
        for told in [local, at("[::1]:5"), at("[::ffff:127.0.0.1]:5")] {
            assert_eq!(believed(Some(told), there), nobody);
        }
        for peer in [here, six, mapped] {
            assert_eq!(believed(None, peer), nobody);
        }
        assert_eq!(believed(None, there), there);
    }

    #[tokio::test]
    async fn a_balancer_without_a_header_is_refused() {
        assert_eq!(
            code(&[b"a1 LOGIN ann right\r\n"], false).await,
            "proxy_header_missing"
        );
        assert_eq!(
            code(&[b"\x16\x03\x01\x02\0\x01"], false).await,
            "proxy_header_missing"
        );
        assert_eq!(
            code(&[b"\r\n\r\nQUIT\r\n"], false).await,
            "proxy_header_missing"
        );
        assert_eq!(
            code(&[b"PRO", b"FILE\r\n"], false).await,
            "proxy_header_missing"
        );
        assert_eq!(code(&[], true).await, "proxy_header_missing");
        // Who waits for our greeting will not send one.
        assert_eq!(code(&[], false).await, "proxy_header_missing");
    }

    #[tokio::test]
    async fn a_header_that_is_malformed_cut_or_endless_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.300 198.51.100.1 4711 143\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 4711 143\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4711 143\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 143\n",
            "PROXY \r\n",
            "PROXY\tTCP4 192.0.2.7 198.51.100.1 4711 143\r\n",
        ] {
            let said = code(&[line.as_bytes()], false).await;
            let expected = match line.as_bytes()[5] {
                b' ' => "proxy_header_malformed",
                _ => "proxy_header_missing",
            };
            assert_eq!(said, expected, "{line:?}");
        }
        let headers = [
            version_2(0x31, 0x11, &FOUR),
            version_2(0x22, 0x11, &FOUR),
            version_2(0x21, 0x11, &FOUR[..11]),
            version_2(0x21, 0x41, &FOUR),
            // It came by TCP, so its client did too.
            version_2(0x21, 0x12, &FOUR),
        ];
        for header in headers {
            assert_eq!(
                code(&[&header], false).await,
                "proxy_header_malformed",
                "{header:?}"
            );
        }
        let endless = [V1_BEGINNING, &[b'1'; 200]].concat();
        assert_eq!(code(&[&endless], false).await, "proxy_header_too_long");
        let slow: Vec<&[u8]> = endless.chunks(1).collect();
        assert_eq!(code(&slow, false).await, "proxy_header_too_long");
        assert_eq!(
            code(&[b"PROXY TCP4 192.0.2.7"], false).await,
            "proxy_header_timed_out"
        );
        assert_eq!(
            code(&[b"PROXY TCP4 192.0.2.7"], true).await,
            "proxy_header_disconnected"
        );
        let header = version_2(0x21, 0x11, &FOUR);
        assert_eq!(
            code(&[&header[..20]], false).await,
            "proxy_header_timed_out"
        );
        assert_eq!(
            code(&[&header[..20]], true).await,
            "proxy_header_disconnected"
        );
    }

    #[tokio::test]
    async fn a_header_is_taken_up_to_its_limit_and_a_line_up_to_its_own() {
        let with = |octets: usize| {
            let mut block = FOUR.to_vec();
            block.resize(octets - V2_HEAD_OCTETS, 4);
            version_2(0x21, 0x11, &block)
        };
        for octets in [HEADER_MAX_OCTETS - 1, HEADER_MAX_OCTETS] {
            let (told, rest) = arrived(&[&with(octets), b"x"], false).await;
            assert_eq!(
                (told.unwrap(), &rest[..]),
                (CLIENT.parse().unwrap(), &b"x"[..])
            );
        }
        let said = code(&[&with(HEADER_MAX_OCTETS + 1)], false).await;
        assert_eq!(said, "proxy_header_too_long");
        let line = |octets: usize| format!("PROXY UNKNOWN {:>width$}\r\n", 1, width = octets - 16);
        for octets in [V1_MAX_OCTETS - 1, V1_MAX_OCTETS] {
            assert_eq!(line(octets).len(), octets);
            assert!(arrived(&[line(octets).as_bytes()], false).await.0.is_ok());
        }
        let said = code(&[line(V1_MAX_OCTETS + 1).as_bytes()], false).await;
        assert_eq!(said, "proxy_header_too_long");
    }

    #[tokio::test]
    async fn from_elsewhere_nothing_is_taken_and_a_header_is_known_for_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut far, peer) = listener.accept().await.unwrap();
        let balancers = Balancers {
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..Balancers::default()
        };
        assert_eq!(balancers.client(&mut far, peer).await.unwrap(), peer);
        near.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 143\r\n")
            .await
            .unwrap();
        assert!(begins_with_header(&far).await.unwrap());
        let mut first = [0; 5];
        far.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PROXY");
        assert!(looks_like_header(&version_2(0x20, 0, &[])));
        for other in [&b"a1 LOGIN"[..], b"", b"PROXY", b"\x16\x03\x01", b"\r\n"] {
            assert!(!looks_like_header(other), "{other:?}");
        }
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let holds = |net: &str, address: &str| network(net).holds(address.parse().unwrap());
        assert!(holds("192.0.2.0/28", "192.0.2.15") && !holds("192.0.2.0/28", "192.0.2.16"));
        assert!(holds("192.0.2.0/28", "::ffff:192.0.2.15"));
        assert!(holds("192.0.2.9", "192.0.2.9") && !holds("192.0.2.9", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.1") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(
            holds("2001:db8::/64", "2001:db8::1:2") && !holds("2001:db8::/64", "2001:db8:0:1::")
        );
        for wrong in [
            "",
            "192.0.2.0/33",
            "192.0.2/24",
            "2001:db8::/129",
            "a/8",
            "192.0.2.0/",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!(network("192.0.2.9").to_string(), "192.0.2.9/32");
    }
}
