//! The sessions that are open here: counted by user, so that one user cannot take them all (P7), and told and ended for an
//! operator.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemon::shutdown::Shutdown;
use directory_api::{AccountId, BackendName, LoginName};
use store_api::session::Passed;
use tokio::time::Instant;

use crate::door::Door;
use crate::operate::{Connection, Connections, ListConnections, PAGE_MAX, Which};

/// All open sessions of this process, and who takes no new ones.
pub(crate) struct Sessions {
    table: Arc<Mutex<Table>>,
    user_max: usize,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Arc<About>>,
    of_user: HashMap<AccountId, usize>,
    /// This process takes no new sessions.
    is_drained: bool,
    /// None are opened at these.
    drained: HashSet<BackendName>,
}

/// What is known of one session.
pub(crate) struct About {
    pub(crate) account: AccountId,
    pub(crate) user: LoginName,
    pub(crate) door: Door,
    pub(crate) client: SocketAddr,
    pub(crate) backend: Mutex<BackendName>,
    /// That back-end is another mail system.
    pub(crate) is_foreign: bool,
    pub(crate) trace_id: String,
    pub(crate) began: Instant,
    pub(crate) passed: Passed,
    /// Ends this session; it begins with that of the process.
    pub(crate) ending: Shutdown,
}

/// One session that is entered; dropped, it is open no more.
pub(crate) struct Entered {
    table: Arc<Mutex<Table>>,
    number: u64,
    pub(crate) about: Arc<About>,
}

/// Why no session may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoEntry {
    /// The user has as many as one may.
    UserFull,
    /// An operator has said that there are to be no new ones, here or at that back-end.
    Drained,
}

impl NoEntry {
    /// The reason in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::UserFull => "user_sessions_max",
            Self::Drained => "drained",
        }
    }
}

impl Sessions {
    pub(crate) fn new(user_max: usize) -> Self {
        Self {
            table: Arc::default(),
            user_max,
        }
    }

    /// Enters one more session.
    pub(crate) fn enter(&self, about: About) -> Result<Entered, NoEntry> {
        let mut table = self.table();
        if table.is_drained || table.drained.contains(&about.backend()) {
            return Err(NoEntry::Drained);
        }
        let count = table.of_user.entry(about.account).or_default();
        if *count >= self.user_max {
            return Err(NoEntry::UserFull);
        }
        *count += 1;
        table.last += 1;
        let (number, about) = (table.last, Arc::new(about));
        table.open.insert(number, Arc::clone(&about));
        Ok(Entered {
            table: Arc::clone(&self.table),
            number,
            about,
        })
    }

    /// Whether this process takes no new sessions, at one back-end or at all.
    pub(crate) fn is_drained_at(&self, backend: Option<&BackendName>) -> bool {
        let table = self.table();
        match backend {
            None => table.is_drained,
            Some(backend) => table.drained.contains(backend),
        }
    }

    /// Takes no new sessions from now on, or takes them again; at one back-end, or at all. Tells whether that is news.
    pub(crate) fn drain(&self, backend: Option<BackendName>, on: bool) -> bool {
        let mut table = self.table();
        match (backend, on) {
            (None, on) => std::mem::replace(&mut table.is_drained, on) != on,
            (Some(backend), true) => table.drained.insert(backend),
            (Some(backend), false) => table.drained.remove(&backend),
        }
    }

    /// What takes no new sessions: this process, and back-ends.
    pub(crate) fn drained(&self) -> (bool, Vec<BackendName>) {
        let table = self.table();
        let mut backends: Vec<_> = table.drained.iter().cloned().collect();
        backends.sort();
        (table.is_drained, backends)
    }

    /// Counts the sessions that are meant.
    pub(crate) fn count(&self, which: &Which) -> usize {
        let table = self.table();
        let open = table.open.iter();
        open.filter(|(_, about)| which.means(about)).count()
    }

    /// Asks the sessions that are meant to end, and counts them. They say good-bye first.
    pub(crate) fn end(&self, which: &Which) -> usize {
        self.end_where(|about| which.means(about))
    }

    /// The same with the sessions that these accounts have at foreign back-ends.
    pub(crate) fn end_abroad(&self, accounts: &HashSet<AccountId>) -> usize {
        self.end_where(|about| about.is_foreign && accounts.contains(&about.account))
    }

    fn end_where(&self, is_meant: impl Fn(&About) -> bool) -> usize {
        let meant: Vec<_> = {
            let table = self.table();
            let open = table.open.values();
            open.filter(|about| is_meant(about)).cloned().collect()
        };
        // Outside the lock: those that end take it.
        meant.iter().for_each(|about| about.ending.begin());
        meant.len()
    }

    /// One page of the sessions that are meant, in the order in which they were opened.
    pub(crate) fn list(&self, asked: &ListConnections) -> Connections {
        let limit = asked.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let table = self.table();
        let first = asked.after.map_or(0, |after| after.saturating_add(1));
        let mut meant = table
            .open
            .range(first..)
            .filter(|(_, about)| asked.which.means(about));
        let page: Vec<_> = meant.by_ref().take(limit).collect();
        let has_more = meant.next().is_some();
        let connections: Vec<_> = page
            .into_iter()
            .map(|(number, about)| about.told(*number))
            .collect();
        let last = connections.last().map(|one| one.id);
        Connections {
            connections,
            next: last.filter(|_| has_more),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl About {
    /// Where the session is open now.
    pub(crate) fn backend(&self) -> BackendName {
        lock(&self.backend).clone()
    }

    /// It was handed on.
    pub(crate) fn went_on(&self, backend: &BackendName) {
        *lock(&self.backend) = backend.clone();
    }

    fn told(&self, id: u64) -> Connection {
        Connection {
            id,
            user: self.user.clone(),
            account: self.account,
            service: self.door.name().to_owned(),
            client: self.client.to_string(),
            backend: self.backend(),
            age_s: self.began.elapsed().as_secs(),
            octets_from_user: self.passed.from_user(),
            octets_to_user: self.passed.to_user(),
            trace_id: self.trace_id.clone(),
        }
    }
}

impl Which {
    fn means(&self, about: &About) -> bool {
        let is_that_one = |trace_id: &String| *trace_id == about.trace_id;
        self.trace_id.as_ref().is_none_or(is_that_one)
            && self.user.as_ref().is_none_or(|user| *user == about.user)
            && self
                .backend
                .as_ref()
                .is_none_or(|backend| *backend == *lock(&about.backend))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        table.open.remove(&self.number);
        if let Some(count) = table.of_user.get_mut(&self.about.account) {
            *count -= 1;
            if *count == 0 {
                table.of_user.remove(&self.about.account);
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(account: u64, user: &str, backend: &str) -> About {
        About {
            account: AccountId(account),
            user: LoginName::new(user).unwrap(),
            door: Door::IMAP,
            client: ([192, 0, 2, 1], 4711).into(),
            backend: BackendName::new(backend).unwrap().into(),
            is_foreign: false,
            trace_id: "t".into(),
            began: Instant::now(),
            passed: Passed::default(),
            ending: Shutdown::new(),
        }
    }

    #[test]
    fn a_user_has_so_many_sessions_others_have_their_own_and_nothing_stays_behind() {
        let sessions = Sessions::new(2);
        let ann = || sessions.enter(about(1, "ann", "b1"));
        let first = ann().unwrap();
        let second = ann().unwrap();
        assert_eq!(ann().err(), Some(NoEntry::UserFull));
        let other = sessions.enter(about(2, "bob", "b1")).unwrap();
        drop(first);
        let third = ann().unwrap();
        assert_eq!(ann().err(), Some(NoEntry::UserFull));
        drop((second, third, other));
        assert!(sessions.table().of_user.is_empty() && sessions.table().open.is_empty());
    }

    #[test]
    fn a_drained_back_end_and_a_drained_process_take_no_new_sessions_until_told_so() {
        let sessions = Sessions::new(10);
        let at = |backend: &str| sessions.enter(about(1, "ann", backend));
        let b1 = BackendName::new("b1").unwrap();
        let open = at("b1").unwrap();
        sessions.drain(Some(b1.clone()), true);
        assert_eq!(at("b1").err(), Some(NoEntry::Drained));
        assert!(at("b2").is_ok() && !sessions.is_drained_at(None));
        sessions.drain(Some(b1), false);
        assert!(at("b1").is_ok());
        sessions.drain(None, true);
        assert_eq!(at("b2").err(), Some(NoEntry::Drained));
        assert!(!open.about.ending.is_requested() && sessions.is_drained_at(None));
        sessions.drain(None, false);
        assert!(at("b2").is_ok());
    }

    #[test]
    fn a_list_comes_in_pages_and_names_those_that_are_meant() {
        let sessions = Sessions::new(10);
        let open: Vec<_> = (0..5)
            .map(|at| {
                let (user, backend) = if at % 2 == 0 {
                    ("ann", "b1")
                } else {
                    ("bob", "b2")
                };
                let mut about = about(at % 2, user, backend);
                about.trace_id = format!("t{at}");
                sessions.enter(about).unwrap()
            })
            .collect();
        let ids = |asked: &ListConnections| {
            let told = sessions.list(asked);
            let ids: Vec<u64> = told.connections.iter().map(|one| one.id).collect();
            (ids, told.next)
        };
        let mut asked = ListConnections {
            limit: Some(2),
            ..ListConnections::default()
        };
        assert_eq!(ids(&asked), (vec![1, 2], Some(2)));
        asked.after = Some(2);
        assert_eq!(ids(&asked), (vec![3, 4], Some(4)));
        asked.after = Some(4);
        assert_eq!(ids(&asked), (vec![5], None));
        let mut of = ListConnections::default();
        of.which.user = Some(LoginName::new("bob").unwrap());
        assert_eq!(ids(&of), (vec![2, 4], None));
        of.which.backend = Some(BackendName::new("b1").unwrap());
        assert_eq!(ids(&of), (vec![], None));
        let one = Which {
            trace_id: Some("t2".into()),
            ..Which::default()
        };
        assert_eq!((sessions.count(&one), sessions.end(&one)), (1, 1));
        let ending: Vec<_> = open
            .iter()
            .map(|one| one.about.ending.is_requested())
            .collect();
        assert_eq!(ending, [false, false, true, false, false]);
        assert_eq!(sessions.count(&Which::default()), 5);
    }
}
