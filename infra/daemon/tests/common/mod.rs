//! One authority and what the tests issue from it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use daemon::{
    identity::{Authority, Identity, IdentityFiles, Role, server_name},
    link::{Link, LinkOptions, LinkTarget, serve},
    listener::bind,
    shutdown::Shutdown,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

pub const LONG: Duration = Duration::from_secs(20);

pub struct Site {
    pub folder: TempDir,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        Self { folder, authority }
    }

    pub fn files(&self, node: &str) -> IdentityFiles {
        IdentityFiles {
            ca: self.path("trusted.pem"),
            certificate: self.path(&format!("{node}.pem")),
            key: self.path(&format!("{node}.key")),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn identity(&self, role: Role, node: &str) -> Identity {
        self.authority.issue(role, node, &self.files(node)).unwrap()
    }

    /// Serves as back-end b1; gives its address.
    pub fn serve(
        &self,
        at: SocketAddr,
        router: Router,
        shutdown: &Shutdown,
    ) -> (SocketAddr, JoinHandle<()>) {
        let identity = Arc::new(self.identity(Role::StoreBackend, "b1"));
        let listener = bind(at, "test link").unwrap();
        let address = listener.local_addr().unwrap();
        (
            address,
            tokio::spawn(serve(listener, identity, router, shutdown.clone())),
        )
    }

    pub fn link(&self, to: SocketAddr) -> Link {
        self.link_with(to, LinkOptions::default())
    }

    pub fn link_with(&self, to: SocketAddr, options: LinkOptions) -> Link {
        Link::new(b1(to), &self.identity(Role::MxFrontend, "mx1"), options)
    }
}

pub fn b1(to: SocketAddr) -> LinkTarget {
    LinkTarget {
        address: to.to_string(),
        server_name: server_name(Role::StoreBackend, "b1"),
    }
}

pub fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
