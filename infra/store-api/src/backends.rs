//! Links to store back-ends: a few cached connections to each, made when first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::identity::Identity;
use daemon::link::{Link, LinkOptions, LinkTarget};
use directory_api::BackendName;
use directory_api::client::{DirectoryClient, DirectoryError};

/// The back-ends as this process knows them. Clones share the links.
#[derive(Clone)]
pub struct Backends {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    directory: DirectoryClient,
    links: Mutex<HashMap<BackendName, Known>>,
}

struct Known {
    address: String,
    link: Link,
}

/// There is no way to the back-end now. Temporary for mail and sessions (P6), whatever the cause.
#[derive(Debug, thiserror::Error)]
pub enum BackendAway {
    /// The directory gave no address.
    #[error("address of back-end {name} is not known")]
    Unknown {
        /// The back-end.
        name: BackendName,
        /// Why not.
        #[source]
        cause: DirectoryError,
    },
    /// It is another mail system: proxies log users in there, and nothing else goes there.
    #[error("back-end {0} is foreign: only proxies go there")]
    Foreign(BackendName),
}

impl BackendAway {
    /// Whether the directory has no such back-end, rather than no answer now.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unknown {
                cause: DirectoryError::Unknown,
                ..
            }
        )
    }
}

impl Backends {
    /// Knows no back-end yet; addresses come from `directory`.
    #[must_use]
    pub fn new(identity: Arc<Identity>, directory: DirectoryClient) -> Self {
        Self {
            inner: Arc::new(Inner {
                identity,
                directory,
                links: Mutex::default(),
            }),
        }
    }

    /// The link to a back-end whose address the directory client knows or asks for.
    ///
    /// # Errors
    /// [`BackendAway`]: the directory has no address for it, or gives no answer.
    pub async fn link(&self, name: &BackendName) -> Result<Link, BackendAway> {
        match self.inner.directory.backend(name).await {
            Ok(backend) if backend.foreign.is_some() => Err(BackendAway::Foreign(name.clone())),
            Ok(backend) => Ok(self.link_at(name, &backend.address)),
            Err(cause) => Err(BackendAway::Unknown {
                name: name.clone(),
                cause,
            }),
        }
    }

    /// The link to a back-end whose address is at hand. A new address replaces the link kept.
    #[must_use]
    pub fn link_at(&self, name: &BackendName, address: &str) -> Link {
        let mut links = self
            .inner
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = links.get(name)
            && known.address == address
        {
            return known.link.clone();
        }
        let target = LinkTarget {
            address: address.to_owned(),
            server_name: format!("{name}.store-backend.posthouse.internal"),
        };
        let link = Link::new(target, &self.inner.identity, LinkOptions::default());
        links.insert(
            name.clone(),
            Known {
                address: address.to_owned(),
                link: link.clone(),
            },
        );
        link
    }
}
