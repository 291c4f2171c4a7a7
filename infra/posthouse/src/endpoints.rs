//! The endpoints file: where everything of a running system listens, for tests, benches and other people's tools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::{DataError, write_atomically};
use crate::nodes::{BACKENDS, Node};
use crate::ports::{Port, Ports};

/// The whole file. Fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The data folder, absolute.
    pub data: PathBuf,
    /// The process of `posthouse up`.
    pub pid: u32,
    /// The MX front-end.
    pub mx: MxEndpoints,
    /// The proxy.
    pub proxy: ProxyEndpoints,
    /// The store back-ends.
    pub backends: Vec<BackendEndpoints>,
    /// The directory.
    pub directory: DirectoryEndpoints,
    /// Health and metrics by tier.
    pub metrics: BTreeMap<String, SocketAddr>,
    /// Process ids by tier.
    pub pids: BTreeMap<String, u32>,
}

/// Where the MX front-end listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MxEndpoints {
    /// SMTP.
    pub smtp: SocketAddr,
}

/// Where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyEndpoints {
    /// IMAP.
    pub imap: SocketAddr,
    /// IMAP over TLS.
    pub imaps: SocketAddr,
    /// POP3.
    pub pop3: SocketAddr,
    /// POP3 over TLS.
    pub pop3s: SocketAddr,
    /// Operators, over mutual TLS.
    pub inside: SocketAddr,
}

/// Where a store back-end listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendEndpoints {
    /// Its name.
    pub name: String,
    /// LMTP.
    pub lmtp: SocketAddr,
    /// IMAP.
    pub imap: SocketAddr,
    /// POP3.
    pub pop3: SocketAddr,
    /// Streams from the other tiers.
    pub link: SocketAddr,
}

/// Where the directory listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEndpoints {
    /// HTTP/2 over mutual TLS.
    pub http: SocketAddr,
}

impl Endpoints {
    /// Describes a system by its ports and processes.
    #[must_use]
    pub fn new(data: &Path, ports: Ports, pids: &BTreeMap<Node, u32>) -> Self {
        let backend = |(at, name): (usize, &&str)| BackendEndpoints {
            name: (*name).to_owned(),
            lmtp: ports.of(Port::Lmtp(at)),
            imap: ports.of(Port::BackendImap(at)),
            pop3: ports.of(Port::BackendPop3(at)),
            link: ports.of(Port::Link(at)),
        };
        Self {
            data: data.to_owned(),
            pid: std::process::id(),
            mx: MxEndpoints {
                smtp: ports.of(Port::Smtp),
            },
            proxy: ProxyEndpoints {
                imap: ports.of(Port::Imap),
                imaps: ports.of(Port::Imaps),
                pop3: ports.of(Port::Pop3),
                pop3s: ports.of(Port::Pop3s),
                inside: ports.of(Port::ProxyInside),
            },
            backends: BACKENDS.iter().enumerate().map(backend).collect(),
            directory: DirectoryEndpoints {
                http: ports.of(Port::Directory),
            },
            metrics: Node::ALL
                .map(|node| (node.name().to_owned(), ports.of(Port::Metrics(node))))
                .into(),
            pids: pids
                .iter()
                .map(|(node, pid)| (node.name().to_owned(), *pid))
                .collect(),
        }
    }

    /// Writes the file in one step; a reader never meets half of it.
    ///
    /// # Errors
    /// `Io` names the file.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_atomically(path, text.as_bytes(), 0o644)
    }
}
