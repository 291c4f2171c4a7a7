//! Users from LDAP: taken into the database by looks at the server, their passwords checked by binding there.
//!
//! Mail and logins are looked up in the database alone, so they are as fast as ever, and go on while LDAP is away; what has
//! changed there is here within a look. Nothing that a user types gets into a filter or a name, so there is nothing to inject.
//!
//! ```text
//! every minute:        entries changed since ──▶ users ──▶ numbered changes
//! every quarter hour:  all entries ───────────▶ users ──▶ the same; whose entry is missing twice is closed
//!                                                 └── too many at once would lose something: nothing, and an alarm
//! login:               verified lately? ── no ──▶ bind as the entry ──▶ as any login
//! ```

mod binds;
mod connection;
mod entry;
mod looks;
mod settings;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::wire::{LdapState, LdapSync};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use binds::Binds;
pub(crate) use connection::Away;
use connection::Connector;
pub use connection::LdapSetupError;
pub(crate) use looks::Looks;
pub use settings::LdapSettings;

/// What the rest of the directory knows of LDAP.
pub(crate) struct Ldap {
    binds: Arc<Binds>,
    state: State,
    asks: mpsc::Sender<Ask>,
}

type State = Arc<Mutex<LdapState>>;

/// An operator wants a look at everything, and the answer.
struct Ask {
    sync: LdapSync,
    answer: oneshot::Sender<()>,
}

impl Ldap {
    /// None: the settings name no server. Blocking.
    pub(crate) fn open(settings: LdapSettings) -> Result<Option<(Self, Looks)>, LdapSetupError> {
        if settings.urls.is_empty() {
            return Ok(None);
        }
        describe();
        let connector = Connector::new(&settings)?;
        let binds = Binds::new(connector.clone(), settings.clone());
        let (asks, asked) = mpsc::channel(1);
        let state = State::default();
        let looks = Looks::new(settings, connector, Arc::clone(&state), asked);
        let ldap = Self {
            binds: Arc::new(binds),
            state,
            asks,
        };
        Ok(Some((ldap, looks)))
    }

    pub(crate) fn binds(&self) -> Arc<Binds> {
        Arc::clone(&self.binds)
    }

    pub(crate) fn state(&self) -> LdapState {
        lock(&self.state).clone()
    }

    /// Looks at everything; a look that takes longer than the caller waits goes on.
    pub(crate) async fn look(&self, sync: LdapSync) -> LdapState {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { sync, answer };
        let _ = timeout(LOOK_WAIT_MAX, async {
            if self.asks.send(ask).await.is_ok() {
                let _ = answered.await;
            }
        })
        .await;
        self.state()
    }
}

fn lock(state: &State) -> MutexGuard<'_, LdapState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe() {
    metrics::describe_gauge!(UP, "Whether an LDAP server answers.");
    metrics::describe_counter!(
        binds::BINDS,
        "Passwords that an LDAP server was asked about, by outcome (ok, refused, nobody: no such user, another: the name is another entry's now, away)."
    );
    metrics::describe_histogram!(
        binds::SECONDS,
        "Time that an LDAP server took to check a password."
    );
    metrics::describe_counter!(
        looks::LOOKS,
        "Looks at LDAP, by kind (changes, all) and outcome (ok, failed)."
    );
    metrics::describe_gauge!(
        looks::LOOKED,
        "When the last whole look at LDAP ended, by kind (changes, all), in Unix seconds."
    );
    metrics::describe_counter!(
        looks::TAKEN,
        "Users of LDAP who came, changed or went, by what (created, changed, suspended, gone)."
    );
    metrics::describe_gauge!(
        looks::USERS,
        "Entries that the last look at all of LDAP found."
    );
    metrics::describe_gauge!(
        looks::HELD,
        "Users kept as they are, for too many would lose something at once: `posthouse ldap`."
    );
    metrics::describe_gauge!(
        looks::LEFT_OUT,
        "Entries of which something was not taken: `posthouse ldap` says why."
    );
}

const UP: &str = "posthouse_directory_ldap_up";
/// An operator's verb waits for 30 s at most.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(25);
