//! What all shells of one back-end share.

use std::sync::Arc;
use std::time::Duration;

use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use directory_api::BackendName;
use directory_api::client::DirectoryClient;
use directory_api::grant::GrantVerifier;
use store_api::Backends;
use store_api::room::Rooms;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::config::Config;
use crate::hold::Holds;
use crate::left::Askers;
use crate::login_delay::LoginDelays;
use crate::sessions::Sessions;
use crate::transfer::{Pulls, Tallies};
use crate::volumes::Volumes;

/// One running back-end.
pub(crate) struct Backend {
    pub(crate) name: BackendName,
    pub(crate) config: Config,
    pub(crate) volumes: Volumes,
    pub(crate) directory: DirectoryClient,
    pub(crate) backends: Backends,
    pub(crate) grants: GrantVerifier,
    /// What siblings said of their accounts.
    pub(crate) rooms: Rooms,
    pub(crate) holds: Holds,
    pub(crate) login_delays: LoginDelays,
    pub(crate) sessions: Sessions,
    pub(crate) pulls: Pulls,
    pub(crate) tallies: Tallies,
    /// Sessions that may yet go over to COMPRESS.
    pub(crate) compressions: Arc<Semaphore>,
    /// A permit for each MiB that an IMAP session keeps to sort.
    pub(crate) sorting: Arc<Semaphore>,
    pub(crate) public_tls: Option<PublicTls>,
    pub(crate) shutdown: Shutdown,
    /// When the grant keys were last asked for outside an announcement.
    pub(crate) keys_asked: Mutex<Option<Instant>>,
    /// Proxies that look for users while the directory is away.
    pub(crate) askers: Askers,
}

/// A forged grant names an unknown key too: it must not make us ask each time.
const KEYS_ASKED_EVERY: Duration = Duration::from_secs(1);

impl Backend {
    /// Asks the directory for the grant keys; false when it was asked a moment ago or is away.
    /// Callers that come while one asks wait for its answer.
    pub(crate) async fn renew_keys(&self) -> bool {
        let came = Instant::now();
        let mut asked = self.keys_asked.lock().await;
        if let Some(asked) = *asked {
            if asked >= came {
                return true;
            }
            if came - asked < KEYS_ASKED_EVERY {
                return false;
            }
        }
        let keys = self.directory.keys().await;
        *asked = Some(Instant::now());
        match keys {
            Ok(keys) => {
                self.grants.set_keys(&keys);
                true
            }
            Err(error) => {
                warn!(%error, "grant keys cannot be asked for");
                false
            }
        }
    }
}
