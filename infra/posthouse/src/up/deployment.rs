//! Certificates and settings files of every tier, in the data folder: what a provider would write by hand.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use daemon::config::{Settings, load};
use daemon::identity::{Authority, Identity, Role};
use daemon::public_tls::TlsFiles;
use directory_api::operator::{PKI_FOLDER, identity_files};

use super::UpError;
use crate::data::{DataError, write_atomically};
use crate::nodes::{BACKENDS, Node, Tier};
use crate::ports::{Port, Ports};

/// Settings of one node, ready to run.
pub(super) enum NodeConfig {
    Directory(Box<directory::Config>),
    Mx(Box<mx_frontend::Config>),
    Proxy(Box<pop_imap_proxy::Config>),
    Backend(usize, Box<store_backend::Config>),
}

impl NodeConfig {
    pub(super) fn node(&self) -> Node {
        match self {
            Self::Directory(_) => Node::Directory,
            Self::Mx(_) => Node::Mx,
            Self::Proxy(_) => Node::Proxy,
            Self::Backend(backend, _) => Node::Backend(*backend),
        }
    }
}

/// All settings, as written to the data folder and read back from there.
pub(super) struct Deployment {
    folder: PathBuf,
    pub(super) configs: Vec<NodeConfig>,
}

impl Deployment {
    /// Makes missing certificates and writes the settings files anew, for these ports.
    ///
    /// `plaintext` allows login without TLS, on loopback.
    pub(super) fn write(data: &Path, ports: Ports, plaintext: bool) -> Result<Self, UpError> {
        certificates(data)?;
        let folder = data.join("config");
        make_folder(&folder)?;
        let mut deployment = Self {
            folder,
            configs: Vec::new(),
        };
        let made = Made {
            data,
            ports,
            plaintext,
        };
        for node in Node::ALL {
            let file = deployment.file(node);
            let tier = node.tier();
            deployment.configs.push(match node {
                Node::Directory => NodeConfig::Directory(settled(&file, tier, &made.directory())?),
                Node::Mx => NodeConfig::Mx(settled(&file, tier, &made.mx())?),
                Node::Proxy => NodeConfig::Proxy(settled(&file, tier, &made.proxy())?),
                Node::Backend(at) => {
                    NodeConfig::Backend(at, settled(&file, tier, &made.backend(at))?)
                }
            });
        }
        Ok(deployment)
    }

    /// The settings file of one node.
    pub(super) fn file(&self, node: Node) -> PathBuf {
        self.folder.join(format!("{node}.toml"))
    }
}

/// Writes settings and reads them back as the tier's own binary would, overrides from the environment included.
fn settled<T: Settings>(file: &Path, tier: Tier, settings: &T) -> Result<Box<T>, UpError> {
    let unwritable = |error: toml::ser::Error| DataError::Io {
        path: file.to_owned(),
        source: io::Error::other(error),
    };
    let text = toml::to_string(settings).map_err(unwritable)?;
    let header = format!(
        "# Written by `posthouse up` at each start: changes made here are lost.\n# `posthouse sample-config {tier}` tells what each setting means.\n\n"
    );
    write_atomically(file, (header + &text).as_bytes(), 0o600)?;
    Ok(Box::new(load(file, tier.env_prefix())?))
}

/// Makes the private authority at the first start, and every certificate that is missing or was cut off.
fn certificates(data: &Path) -> Result<(), UpError> {
    let pki = data.join(PKI_FOLDER);
    make_folder(&pki)?;
    let authority = if pki.join("ca.pem").exists() {
        Authority::open(&pki)?
    } else {
        // The key is written first: one without its certificate was cut off and has signed nothing.
        _ = fs::remove_file(pki.join("ca.key"));
        Authority::create(&pki)?
    };
    let nodes = Node::ALL.map(|node| (node.tier().role(), node.name()));
    let people = [Role::Operator, Role::Migrator].map(|role| (role, role.as_str()));
    for (role, name) in nodes.into_iter().chain(people) {
        let files = identity_files(data, name);
        // The certificate is written after its key.
        if files.certificate.exists() {
            Identity::load(&files)?;
        } else {
            authority.issue(role, name, &files)?;
        }
    }
    let (certificate, key) = public_paths(data);
    if !certificate.exists() {
        authority.issue_public(
            &[HOSTNAME, "localhost", "127.0.0.1", "::1"],
            &certificate,
            &key,
        )?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), DataError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })
}

fn public_files(data: &Path) -> TlsFiles {
    let (certificate, key) = public_paths(data);
    TlsFiles {
        certificate: Some(certificate),
        key: Some(key),
        ..TlsFiles::default()
    }
}

fn public_paths(data: &Path) -> (PathBuf, PathBuf) {
    let pki = data.join(PKI_FOLDER);
    (pki.join("public.pem"), pki.join("public.key"))
}

/// Everything the settings are made from.
struct Made<'a> {
    data: &'a Path,
    ports: Ports,
    plaintext: bool,
}

impl Made<'_> {
    fn at(&self, port: Port) -> std::net::SocketAddr {
        self.ports.of(port)
    }

    fn directory(&self) -> directory::Config {
        let node = Node::Directory;
        directory::Config {
            listen: self.at(Port::Directory),
            metrics_listen: self.at(Port::Metrics(node)),
            data: self.data.join(node.name()),
            identity: identity_files(self.data, node.name()),
            ..directory::Config::default()
        }
    }

    fn mx(&self) -> mx_frontend::Config {
        let node = Node::Mx;
        mx_frontend::Config {
            listen: self.at(Port::Smtp),
            hostname: HOSTNAME.to_owned(),
            directory: self.at(Port::Directory).to_string(),
            metrics_listen: self.at(Port::Metrics(node)),
            postmaster: format!("postmaster@{}", super::accounts::DOMAIN),
            identity: identity_files(self.data, node.name()),
            tls: public_files(self.data),
            ..mx_frontend::Config::default()
        }
    }

    fn proxy(&self) -> pop_imap_proxy::Config {
        let node = Node::Proxy;
        pop_imap_proxy::Config {
            pop3: Some(self.at(Port::Pop3)),
            pop3s: Some(self.at(Port::Pop3s)),
            imap: Some(self.at(Port::Imap)),
            imaps: Some(self.at(Port::Imaps)),
            inside_listen: Some(self.at(Port::ProxyInside)),
            hostname: HOSTNAME.to_owned(),
            directory: self.at(Port::Directory).to_string(),
            metrics_listen: self.at(Port::Metrics(node)),
            plaintext_login_on_loopback: self.plaintext,
            identity: identity_files(self.data, node.name()),
            tls: public_files(self.data),
            ..pop_imap_proxy::Config::default()
        }
    }

    fn backend(&self, at: usize) -> store_backend::Config {
        let name = BACKENDS[at];
        store_backend::Config {
            name: name.to_owned(),
            data: self.data.join(name),
            hostname: HOSTNAME.to_owned(),
            link_listen: self.at(Port::Link(at)),
            directory: self.at(Port::Directory).to_string(),
            // Who has this machine's data folder has all mail anyway.
            backup_operators: vec![Role::Operator.as_str().to_owned()],
            metrics_listen: self.at(Port::Metrics(Node::Backend(at))),
            identity: identity_files(self.data, name),
            listen: store_backend::Listeners {
                lmtp: Some(self.at(Port::Lmtp(at))),
                pop3: Some(self.at(Port::BackendPop3(at))),
                imap: Some(self.at(Port::BackendImap(at))),
                plaintext_login: self.plaintext,
                ..store_backend::Listeners::default()
            },
            tls: public_files(self.data),
            ..store_backend::Config::default()
        }
    }
}

/// Our name towards users and senders; it stands in the public certificate.
const HOSTNAME: &str = "mail.example.test";
