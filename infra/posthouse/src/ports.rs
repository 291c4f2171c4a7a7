//! The ports of `posthouse up`: one table, each port an offset from `--port-base`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::nodes::{BACKENDS, Node};

/// Where everything listens, unless `--port-base` says otherwise.
pub const BASE_DEFAULT: u16 = 4100;
/// The last offset in use.
const OFFSET_MAX: u16 = 54;

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Mail from the internet.
    Smtp,
    /// POP3 by way of the proxy; TLS after `STLS`.
    Pop3,
    /// POP3 by way of the proxy, TLS from the first octet.
    Pop3s,
    /// IMAP by way of the proxy; TLS after `STARTTLS`.
    Imap,
    /// IMAP by way of the proxy, TLS from the first octet.
    Imaps,
    /// The proxy's interface, for operators.
    ProxyInside,
    /// The directory's interface, for the other tiers and operators.
    Directory,
    /// A back-end's streams, for the other tiers.
    Link(usize),
    /// A back-end's LMTP, for other mail servers.
    Lmtp(usize),
    /// A back-end's own POP3.
    BackendPop3(usize),
    /// A back-end's own IMAP.
    BackendImap(usize),
    /// A tier's health and metrics.
    Metrics(Node),
}

impl Port {
    /// Every port, in the order of the table.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Smtp,
            Self::Pop3,
            Self::Pop3s,
            Self::Imap,
            Self::Imaps,
            Self::ProxyInside,
            Self::Directory,
        ];
        for backend in 0..BACKENDS.len() {
            all.extend([
                Self::Link(backend),
                Self::Lmtp(backend),
                Self::BackendPop3(backend),
                Self::BackendImap(backend),
            ]);
        }
        all.extend(Node::ALL.map(Self::Metrics));
        all
    }

    fn offset(self) -> u16 {
        // There are two back-ends and five nodes: the casts lose nothing.
        match self {
            Self::Smtp => 0,
            Self::Pop3 => 10,
            Self::Pop3s => 11,
            Self::Imap => 12,
            Self::Imaps => 13,
            Self::ProxyInside => 14,
            Self::Directory => 20,
            Self::Link(backend) => 30 + 10 * backend as u16,
            Self::Lmtp(backend) => 31 + 10 * backend as u16,
            Self::BackendPop3(backend) => 32 + 10 * backend as u16,
            Self::BackendImap(backend) => 33 + 10 * backend as u16,
            Self::Metrics(node) => 50 + node.position() as u16,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp => f.write_str("mx smtp"),
            Self::Pop3 => f.write_str("proxy pop3"),
            Self::Pop3s => f.write_str("proxy pop3s"),
            Self::Imap => f.write_str("proxy imap"),
            Self::Imaps => f.write_str("proxy imaps"),
            Self::ProxyInside => f.write_str("proxy inside"),
            Self::Directory => f.write_str("directory http"),
            Self::Link(backend) => write!(f, "{} link", BACKENDS[*backend]),
            Self::Lmtp(backend) => write!(f, "{} lmtp", BACKENDS[*backend]),
            Self::BackendPop3(backend) => write!(f, "{} pop3", BACKENDS[*backend]),
            Self::BackendImap(backend) => write!(f, "{} imap", BACKENDS[*backend]),
            Self::Metrics(node) => write!(f, "{node} metrics"),
        }
    }
}

/// The addresses of one system, all on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    base: u16,
}

/// Why the ports cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The last ports would lie beyond 65535.
    #[error("--port-base {base} is too high: the ports reach {OFFSET_MAX} further; choose 1024 to {}", u16::MAX - OFFSET_MAX)]
    Base {
        /// As given.
        base: u16,
    },
    /// Somebody else has it, or the system forbids it.
    #[error(
        "cannot listen on {address} for {port}: {source}; stop what uses it or choose another --port-base"
    )]
    Taken {
        /// Where.
        address: SocketAddr,
        /// What for.
        port: Port,
        /// Why.
        source: std::io::Error,
    },
}

impl Ports {
    /// Lays the table over the ports from `base` on.
    ///
    /// # Errors
    /// `Base` when the table does not fit.
    pub fn new(base: u16) -> Result<Self, PortError> {
        if (1024..=u16::MAX - OFFSET_MAX).contains(&base) {
            Ok(Self { base })
        } else {
            Err(PortError::Base { base })
        }
    }

    /// Where one thing is listened for.
    #[must_use]
    pub fn of(self, port: Port) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base + port.offset()).into()
    }

    /// Tries every port, so that a busy one is found before anything has started.
    ///
    /// # Errors
    /// `Taken` for the first that cannot be had.
    pub fn try_all(self) -> Result<(), PortError> {
        for port in Port::all() {
            let address = self.of(port);
            TcpListener::bind(address).map_err(|source| PortError::Taken {
                address,
                port,
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_share_a_port_and_the_last_offset_is_known() {
        let mut offsets: Vec<u16> = Port::all().into_iter().map(Port::offset).collect();
        offsets.sort_unstable();
        let count = offsets.len();
        assert_eq!(offsets.last(), Some(&OFFSET_MAX));
        offsets.dedup();
        assert_eq!(offsets.len(), count);
    }

    #[test]
    fn the_table_must_fit_below_65536() {
        assert!(Ports::new(65_481).is_ok());
        assert!(Ports::new(65_482).is_err());
        assert!(Ports::new(1023).is_err());
    }

    #[test]
    fn a_busy_port_is_named_with_its_purpose() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap().port();
        // The lowest offset is 0, so the block begins with the taken one.
        let Ok(ports) = Ports::new(taken) else { return };
        let said = ports.try_all().unwrap_err().to_string();
        assert!(
            said.contains(&format!("127.0.0.1:{taken} for mx smtp")),
            "{said}"
        );
    }
}
