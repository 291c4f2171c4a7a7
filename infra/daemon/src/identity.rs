//! Says who a process is inside: the private CA's certificate carries its role and node.
//!
//! The certificate's DNS names are `<node>.<role>.posthouse.internal` and `<role>.posthouse.internal`. Clients check the
//! name they dialled; servers take the [`Peer`] from the client's certificate and check roles per request.

mod authority;

pub use authority::Authority;

use std::{fmt, io, path::PathBuf, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use serde::{Deserialize, Serialize};

/// All names inside end in this; RFC 6762's and the root zone's owners keep `.internal` out of the public DNS.
const SUFFIX: &str = "posthouse.internal";
/// Spoken over every link, and nothing else.
const ALPN_H2: &[u8] = b"h2";

/// What a process is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Knows users, aliases and homes.
    Directory,
    /// Holds mailboxes.
    StoreBackend,
    /// Takes mail in.
    MxFrontend,
    /// Users log in there.
    PopImapProxy,
    /// Moves accounts.
    Migrator,
    /// A person with the `posthouse` command.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Directory,
        Self::StoreBackend,
        Self::MxFrontend,
        Self::PopImapProxy,
        Self::Migrator,
        Self::Operator,
    ];

    /// Gives the name that stands in certificates and configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::StoreBackend => "store-backend",
            Self::MxFrontend => "mx-frontend",
            Self::PopImapProxy => "pop-imap-proxy",
            Self::Migrator => "migrator",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Gives the TLS server name of a node, as [`LinkTarget`](crate::link::LinkTarget) wants it.
#[must_use]
pub fn server_name(role: Role, node: &str) -> String {
    format!("{node}.{role}.{SUFFIX}")
}

/// Gives the TLS server name that every node of a role answers to.
#[must_use]
pub fn role_name(role: Role) -> String {
    format!("{role}.{SUFFIX}")
}

/// Who is at the other end of a link, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Which one it is, for example `b1`.
    pub node: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.node)
    }
}

impl Peer {
    /// Reads role and node from a certificate whose signature has been checked already.
    ///
    /// # Errors
    /// `NoRole` when its names name no role, no node, or more than one.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed =
            webpki::EndEntityCert::try_from(certificate).map_err(|_| IdentityError::NoRole)?;
        let (mut role, mut node) = (None, None);
        for name in parsed.valid_dns_names() {
            let Some(name) = name
                .strip_suffix(SUFFIX)
                .and_then(|name| name.strip_suffix('.'))
            else {
                continue;
            };
            let (node_named, role_named) = match name.split_once('.') {
                Some((node, role)) => (Some(node), role),
                None => (None, name),
            };
            let named = Role::ALL
                .into_iter()
                .find(|role| role.as_str() == role_named);
            if named.is_none() || role.is_some_and(|seen| Some(seen) != named) {
                return Err(IdentityError::NoRole);
            }
            role = named;
            match (node_named, node) {
                (Some(_), Some(_)) => return Err(IdentityError::NoRole),
                (Some(this), None) => node = Some(this),
                (None, _) => {}
            }
        }
        match (role, node) {
            (Some(role), Some(node)) => Ok(Self {
                role,
                node: node.to_owned(),
            }),
            _ => Err(IdentityError::NoRole),
        }
    }
}

crate::settings! {
    /// The certificate of this process inside, made by `posthouse up` or `posthouse certificate`.
    pub struct IdentityFiles {
        /// Certificate of the private authority (PEM); only what it signed is talked to.
        pub ca: PathBuf = "/etc/posthouse/ca.pem".into(),
        /// Certificate of this process (PEM); its role and node stand in it.
        pub certificate: PathBuf = "/etc/posthouse/identity.pem".into(),
        /// Private key of that certificate (PEM), readable by this process alone.
        pub key: PathBuf = "/etc/posthouse/identity.key".into(),
    }
}
impl crate::config::Settings for IdentityFiles {}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{}: cannot be read ({source}); check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written ({source}); check the folder and who may write there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no PEM of the kind expected.
    #[error("{}: holds no usable {what} in PEM form ({source})", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// Certificate, key and authority do not fit each other.
    #[error("{}: certificate and key cannot be used ({source})", path.display())]
    Mismatch {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A file with keys for session tickets cannot be used.
    #[error("{}: cannot be used for session tickets: {problem}; make a line with `openssl rand -base64 48`", path.display())]
    TicketKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The authority's certificate cannot be trusted.
    #[error("{}: cannot serve as authority ({source})", path.display())]
    Authority {
        /// The authority's file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// A certificate of our authority that names no role and node.
    #[error("the certificate names no role and node (<node>.<role>.{SUFFIX})")]
    NoRole,
    /// The node's name cannot stand in a certificate.
    #[error("{node:?} cannot name a node; use 1 to 40 of a-z, 0-9 and -")]
    NodeName {
        /// The name.
        node: String,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made ({0})")]
    Issue(#[from] rcgen::Error),
}

/// A process's own certificate, and whom it trusts.
#[derive(Clone)]
pub struct Identity {
    peer: Peer,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the three files and checks that they fit together.
    ///
    /// # Errors
    /// `Read` and `Pem` name the file; `Mismatch`, `Authority` and `NoRole` say that the contents cannot be used.
    pub fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let roots = Arc::new(authorities(&files.ca)?);
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        let peer = Peer::of(chain.first().ok_or(IdentityError::NoRole)?)?;

        let mismatch = |source| IdentityError::Mismatch {
            path: files.certificate.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|source| IdentityError::Authority {
                    path: files.ca.clone(),
                    source,
                })?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        server.alpn_protocols = vec![ALPN_H2.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(mismatch)?;
        client.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self {
            peer,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// Gives who this process is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Gives TLS for the accepting side of links: TLS 1.3, HTTP/2, a client certificate of our authority required.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Gives TLS for the dialling side of links.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}

/// Reads certificates of authorities (PEM).
///
/// # Errors
/// `Read`, `Pem` and `Mismatch` name the file.
pub fn authorities(path: &PathBuf) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        let added = roots.add(authority);
        added.map_err(|source| IdentityError::Mismatch {
            path: path.clone(),
            source,
        })?;
    }
    Ok(roots)
}

pub(crate) fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let broken = |source| IdentityError::Pem {
        path: path.clone(),
        what: "certificate",
        source,
    };
    let all = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken)?;
    if all.is_empty() {
        return Err(broken(pem::Error::NoItemsFound));
    }
    Ok(all)
}

pub(crate) fn private_key(path: &PathBuf) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|source| IdentityError::Pem {
        path: path.clone(),
        what: "private key",
        source,
    })
}

fn read(path: &PathBuf) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read {
        path: path.clone(),
        source,
    })
}
