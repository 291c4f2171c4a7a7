//! The five processes that make up the system on one machine.

use std::fmt;

use daemon::identity::Role;

/// Names of the store back-ends.
pub const BACKENDS: [&str; 2] = ["b1", "b2"];

/// One process of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The directory.
    Directory,
    /// The MX front-end.
    Mx,
    /// The POP3 and IMAP proxy.
    Proxy,
    /// A store back-end, by its place in [`BACKENDS`].
    Backend(usize),
}

impl Node {
    /// All of them. Started in this order, though any order would do.
    pub const ALL: [Self; 5] = [
        Self::Directory,
        Self::Mx,
        Self::Proxy,
        Self::Backend(0),
        Self::Backend(1),
    ];

    /// The groups in which they drain: first what takes work in, last what the others need.
    pub const DRAIN_ORDER: [&'static [Self]; 3] = [
        &[Self::Mx, Self::Proxy],
        &[Self::Backend(0), Self::Backend(1)],
        &[Self::Directory],
    ];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn position(self) -> usize {
        match self {
            Self::Directory => 0,
            Self::Mx => 1,
            Self::Proxy => 2,
            Self::Backend(backend) => 3 + backend,
        }
    }

    /// Its name in files, certificates, endpoints and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Mx => "mx",
            Self::Proxy => "proxy",
            Self::Backend(backend) => BACKENDS[backend],
        }
    }

    /// Its tier.
    #[must_use]
    pub fn tier(self) -> Tier {
        match self {
            Self::Directory => Tier::Directory,
            Self::Mx => Tier::MxFrontend,
            Self::Proxy => Tier::PopImapProxy,
            Self::Backend(_) => Tier::StoreBackend,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kind of process that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Users, aliases, homes.
    Directory,
    /// Mailboxes.
    StoreBackend,
    /// Mail in.
    MxFrontend,
    /// Users in.
    PopImapProxy,
}

impl Tier {
    /// The role its certificate bears.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Directory => Role::Directory,
            Self::StoreBackend => Role::StoreBackend,
            Self::MxFrontend => Role::MxFrontend,
            Self::PopImapProxy => Role::PopImapProxy,
        }
    }
}

impl Tier {
    /// What the variables that override its settings begin with.
    #[must_use]
    pub fn env_prefix(self) -> &'static str {
        match self {
            Self::Directory => "DIRECTORY",
            Self::StoreBackend => "STORE_BACKEND",
            Self::MxFrontend => "MX_FRONTEND",
            Self::PopImapProxy => "POP_IMAP_PROXY",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.role().fmt(f)
    }
}
