//! Which siblings hold mail for accounts whose home cannot take it (P6).

use std::sync::{Mutex, PoisonError};

use daemon::link::Link;
use daemon::random;
use directory_api::{BackendName, BackendState, DirectoryClient, DirectoryError};
use store_api::Backends;
use store_api::away::AwayVolumes;
use tracing::debug;

/// The back-ends that may hold, as the directory said last: what it says of them while it is away is good enough for asking them.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    known: Mutex<Vec<BackendName>>,
}

/// How many are tried for one message: each that does not answer costs up to a second.
const TRIED_MAX: usize = 3;

impl Holders {
    /// Asks the directory which back-ends there are.
    ///
    /// # Errors
    /// It gives no answer; what was known stays.
    pub(crate) async fn renew(&self, directory: &DirectoryClient) -> Result<(), DirectoryError> {
        let mut own = directory.own_backends().await?;
        own.retain(|one| one.state != BackendState::Down && !one.address.is_empty());
        let names = own.into_iter().map(|one| one.name).collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }

    /// One that takes a message now: of the `preferred`, which have the body or a connection, in their order, else any, but none of
    /// those that have just failed.
    pub(crate) async fn find(
        &self,
        backends: &Backends,
        away: &AwayVolumes,
        preferred: impl IntoIterator<Item = BackendName>,
        failed: &[BackendName],
    ) -> Option<(BackendName, Link)> {
        let mut candidates: Vec<BackendName> = preferred.into_iter().collect();
        let mut others = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !others.is_empty() {
            // Not all mail of a home that is down to the same one.
            let first = usize::from(random_octet()) % others.len();
            others.rotate_left(first);
        }
        candidates.extend(others);
        let mut tried: Vec<BackendName> = failed.to_vec();
        for name in candidates {
            if tried.contains(&name) {
                continue;
            }
            if tried.len() - failed.len() == TRIED_MAX {
                break;
            }
            tried.push(name.clone());
            let link = match backends.link(&name).await {
                Ok(link) => link,
                Err(error) => {
                    debug!(backend = %name, %error, "sibling cannot be found");
                    continue;
                }
            };
            if link.ready().await.is_ok() && away.holds(&link, &name).await {
                return Some((name, link));
            }
        }
        None
    }
}

fn random_octet() -> u8 {
    let mut octet = [0];
    random::fill(&mut octet);
    octet[0]
}
