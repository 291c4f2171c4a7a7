//! Looks at what LDAP has, and has the database follow.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::log::causes;
use directory_api::AccountId;
use directory_api::wire::LdapSync;
use ldap3::adapters::{Adapter, PagedResults};
use ldap3::{Scope, ldap_escape};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::connection::{Away, Connector, SUCCESS};
use super::entry::Entry;
use super::{Ask, LdapSettings, State, lock};
use crate::engine::{Brought, Engine, EngineError, LdapBatch, LdapUser, Taken, Unusables};

/// Why a look was not whole. What it has taken is taken.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Away(#[from] Away),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("another server looks")]
    Turn,
}

/// Half of a SHA-256: of an entry's id, or of all that it says.
type Digest = [u8; 16];

/// Looks at LDAP, one for the whole process.
pub(crate) struct Looks {
    settings: LdapSettings,
    connector: Connector,
    state: State,
    asked: mpsc::Receiver<Ask>,
    /// Who this server is to the others on the same database.
    server: String,
    turn_until: Instant,
    /// What was taken whole, by id: it is not written again. Some 50 octets each.
    taken: HashMap<Digest, Digest>,
    /// The newest change seen, and when what was the newest.
    newest: String,
    stamps: VecDeque<(Instant, String)>,
    looked_at_all: Option<Instant>,
    /// Accounts whose entries the last look at everything did not find.
    missing: HashSet<AccountId>,
    losses_left: usize,
    /// Too many would have lost something: nobody does until an operator says so, or nobody would any more.
    is_held: bool,
}

/// What a search came to.
#[derive(Default)]
struct Found {
    ids: HashSet<Digest>,
    /// Not every entry had an id, or some are on other servers: whoever is missing may be one of them.
    is_partial: bool,
    /// How often it was referred to other servers.
    referrals: usize,
    created: usize,
    changed: usize,
    /// With what was left out of them.
    left_out: Vec<(LdapUser, Vec<EngineError>)>,
    unusable: Vec<String>,
    /// Ids of accounts' entries that can be no users any more.
    unusable_ids: Vec<String>,
    /// More of the last two than are kept in mind.
    more: usize,
}

impl Looks {
    pub(super) fn new(
        settings: LdapSettings,
        connector: Connector,
        state: State,
        asked: mpsc::Receiver<Ask>,
    ) -> Self {
        Self {
            settings,
            connector,
            state,
            asked,
            server: data_encoding::HEXLOWER.encode(&daemon::random::token128()),
            turn_until: Instant::now(),
            taken: HashMap::new(),
            newest: String::new(),
            stamps: VecDeque::new(),
            looked_at_all: None,
            missing: HashSet::new(),
            losses_left: 0,
            is_held: false,
        }
    }

    /// Until it is ended from outside.
    pub(crate) async fn go_on_for_ever<E: Engine>(mut self, engine: &E) {
        let every = Duration::from_secs(self.settings.look_every_s);
        let mut pause = Duration::ZERO;
        loop {
            let ask = tokio::select! {
                () = sleep(pause) => None,
                Some(ask) = self.asked.recv() => Some(ask),
            };
            pause = every;
            let sync = ask.as_ref().map(|ask| ask.sync.clone());
            match self.step(engine, sync).await {
                Ok(()) => {}
                Err(LookError::Turn) => self.forget(),
                Err(error) => {
                    self.failed(&error);
                    // Another server may reach what this one does not.
                    let now = now_ms();
                    let _ = engine.ldap_turn(self.server.clone(), false, now, now).await;
                }
            }
            if let Some(ask) = ask {
                let _ = ask.answer.send(());
            }
        }
    }

    /// Another server goes on; this one begins anew when its turn comes.
    fn forget(&mut self) {
        self.taken.clear();
        self.stamps.clear();
        self.newest.clear();
        self.looked_at_all = None;
        self.missing.clear();
        lock(&self.state).standby = true;
    }

    fn failed(&self, failure: &LookError) {
        let cause = causes(failure);
        let was = lock(&self.state).failure.replace(cause.clone());
        if was.as_ref() != Some(&cause) {
            error!(cause, "a look at LDAP failed: its users stay as they are");
        }
        if matches!(failure, LookError::Away(_)) {
            metrics::gauge!(super::UP).set(0.0);
        }
    }

    async fn step<E: Engine>(
        &mut self,
        engine: &E,
        sync: Option<LdapSync>,
    ) -> Result<(), LookError> {
        self.take_turn(engine, sync.is_some()).await?;
        let every = Duration::from_secs(self.settings.look_at_all_every_s);
        let is_due = self.looked_at_all.is_none_or(|at| at.elapsed() >= every);
        let at_all = is_due || sync.is_some() || !self.missing.is_empty() || self.newest.is_empty();
        let kind = if at_all { "all" } else { "changes" };
        let looked = match at_all {
            true => self.look_at_all(engine, sync.unwrap_or_default()).await,
            false => self.look_at_changes(engine).await,
        };
        let outcome = if looked.is_ok() { "ok" } else { "failed" };
        metrics::counter!(LOOKS, "kind" => kind, "outcome" => outcome).increment(1);
        looked?;
        let now = now_ms();
        {
            let mut state = lock(&self.state);
            state.standby = false;
            state.looked_ms = Some(now);
            if at_all {
                state.looked_at_all_ms = Some(now);
            }
            if state.failure.take().is_some() {
                info!("LDAP can be looked at again");
            }
        }
        metrics::gauge!(super::UP).set(1.0);
        let kinds: &[&'static str] = if at_all {
            &["changes", "all"]
        } else {
            &["changes"]
        };
        for kind in kinds {
            metrics::gauge!(LOOKED, "kind" => *kind).set(now as f64 / 1_000.0);
        }
        self.stamps.push_back((Instant::now(), self.newest.clone()));
        while self
            .stamps
            .get(1)
            .is_some_and(|(at, _)| at.elapsed() >= OVERLAP)
        {
            self.stamps.pop_front();
        }
        Ok(())
    }

    async fn take_turn<E: Engine>(&mut self, engine: &E, force: bool) -> Result<(), LookError> {
        let turn = Duration::from_secs(self.settings.look_every_s) * 3 + TURN_MIN;
        let until_ms = now_ms() + i64::try_from(turn.as_millis()).unwrap_or(i64::MAX / 2);
        let server = self.server.clone();
        let is_mine = engine.ldap_turn(server, force, now_ms(), until_ms).await?;
        if !is_mine {
            return Err(LookError::Turn);
        }
        self.turn_until = Instant::now() + turn;
        Ok(())
    }

    async fn look_at_changes<E: Engine>(&mut self, engine: &E) -> Result<(), LookError> {
        let filter = &self.settings.filter;
        let since = self.stamps.front().map(|(_, stamp)| stamp.as_str());
        let since = ldap_escape(since.unwrap_or_default());
        let modified = &self.settings.modified_attribute;
        let filter = format!("(&{filter}({modified}>={since}))");
        let found = self.search(engine, filter, None).await?;
        let held = self.suspend(engine, &found).await? + self.tell(&found, 0);
        if held > 0 {
            self.hold(held);
        }
        Ok(())
    }

    async fn look_at_all<E: Engine>(
        &mut self,
        engine: &E,
        sync: LdapSync,
    ) -> Result<(), LookError> {
        let known = links(engine).await?;
        self.losses_left = match sync.losses_max {
            Some(most) => most,
            None if self.is_held => 0,
            None => losses_max(known.len(), self.settings.losses_max_percent),
        };
        self.is_held &= sync.losses_max.is_none();
        let ids = known.iter().map(|(_, id)| *id).collect();
        let filter = self.settings.filter.clone();
        let found = self.search(engine, filter, Some(ids)).await?;
        let suspending = self.suspend(engine, &found).await?;
        let is_missing = |(_, id): &&(AccountId, Digest)| !found.ids.contains(id);
        let missing: Vec<_> = known.iter().filter(is_missing).copied().collect();
        // Whoever is held, or an operator has spoken of, is not looked for twice.
        let once = sync.losses_max.is_some() || self.is_held;
        let is_sure = |one: &&(AccountId, Digest)| once || self.missing.contains(&one.0);
        let gone: Vec<_> = missing.iter().filter(is_sure).copied().collect();
        self.missing = missing.iter().map(|(account, _)| *account).collect();
        let (mut closed, mut held) = (0, 0);
        if found.is_partial {
            self.missing.clear();
        } else if gone.len() > self.losses_left {
            held = gone.len();
            // The next look at everything is the usual one.
            self.missing.clear();
        } else {
            self.close(engine, &gone).await?;
            closed = gone.len();
        }
        let held = held + suspending + self.tell(&found, closed);
        self.hold(held);
        lock(&self.state).users = found.ids.len();
        metrics::gauge!(USERS).set(found.ids.len() as f64);
        self.looked_at_all = Some(Instant::now());
        Ok(())
    }

    /// Suspends whose entries can be no users any more, or says how many it would be.
    async fn suspend<E: Engine>(&mut self, engine: &E, found: &Found) -> Result<usize, LookError> {
        if found.unusable_ids.is_empty() {
            return Ok(0);
        }
        let ids = found.unusable_ids.clone();
        let now = engine.users_unusable(ids, self.losses_left, now_ms());
        let Unusables { suspended, held } = now.await?;
        if !suspended.is_empty() {
            self.losses_left -= suspended.len();
            metrics::counter!(TAKEN, "what" => "suspended").increment(suspended.len() as u64);
            warn!(
                accounts = ?suspended,
                "their entries in LDAP cannot be users any more: the accounts are suspended until they can, `posthouse ldap status` says why"
            );
        }
        Ok(held)
    }

    /// Nobody loses anything any more while somebody is held.
    fn hold(&mut self, held: usize) {
        self.is_held = held > 0;
        lock(&self.state).held = held;
        metrics::gauge!(HELD).set(held as f64);
        if self.is_held {
            self.losses_left = 0;
            error!(
                held,
                "too many users of LDAP would lose something at once, and are kept as they are: `posthouse ldap` tells more"
            );
        }
    }

    async fn close<E: Engine>(
        &mut self,
        engine: &E,
        gone: &[(AccountId, Digest)],
    ) -> Result<(), LookError> {
        for some in gone.chunks(BATCH) {
            let accounts: Vec<_> = some.iter().map(|(account, _)| *account).collect();
            info!(
                ?accounts,
                "their entries in LDAP are gone: the accounts are closing"
            );
            let closed = engine.users_gone(accounts, now_ms()).await?;
            metrics::counter!(TAKEN, "what" => "gone").increment(closed as u64);
            self.losses_left = self.losses_left.saturating_sub(some.len());
            for (account, id) in some {
                self.taken.remove(id);
                self.missing.remove(account);
            }
        }
        Ok(())
    }

    /// Says what a look has brought, and how many of its users are held.
    fn tell(&self, found: &Found, gone: usize) -> usize {
        let (created, changed) = (found.created, found.changed);
        metrics::counter!(TAKEN, "what" => "created").increment(created as u64);
        metrics::counter!(TAKEN, "what" => "changed").increment(changed as u64);
        let left_out = found.left_out.len() + found.unusable.len() + found.more;
        let referred = (found.referrals > 0).then(|| {
            format!(
                "{} referrals to other servers, which are not asked: nobody is taken for gone",
                found.referrals
            )
        });
        if created + changed + gone + left_out > 0 {
            info!(created, changed, gone, left_out, "users taken from LDAP");
        }
        let told = |(user, why): &(LdapUser, Vec<EngineError>)| {
            let why: Vec<_> = why.iter().map(ToString::to_string).collect();
            format!("{}: {}", user.dn, why.join("; "))
        };
        let shown = found.left_out.iter().map(told);
        let shown = referred.into_iter().chain(shown);
        let shown = shown.chain(found.unusable.iter().cloned());
        let shown: Vec<String> = shown.take(SHOWN_MAX).collect();
        if let Some(first) = shown.first() {
            warn!(left_out, first, "of users in LDAP something was not taken");
        }
        metrics::gauge!(LEFT_OUT).set(left_out as f64);
        let mut state = lock(&self.state);
        (state.left_out, state.left_out_count) = (shown, left_out);
        let is_held = |(_, why): &&(LdapUser, Vec<EngineError>)| {
            why.iter().any(|one| matches!(one, EngineError::LossHeld))
        };
        found.left_out.iter().filter(is_held).count()
    }

    /// Takes what a search finds, in parts as it comes. `known`: the entries that accounts are of; none: any may be.
    async fn search<E: Engine>(
        &mut self,
        engine: &E,
        filter: String,
        known: Option<HashSet<Digest>>,
    ) -> Result<Found, LookError> {
        let (sender, mut entries) = mpsc::channel(BATCH);
        // A task of its own: the library ends it where an answer is not as LDAP has it.
        let search = search(
            self.connector.clone(),
            self.settings.clone(),
            filter,
            sender,
        );
        let searching = AbortOnDrop(tokio::spawn(search));
        let mut found = Found::default();
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(entry) = entries.recv().await {
            if let Some(stamp) = entry.modified(&self.settings)
                && stamp > self.newest.as_str()
            {
                stamp.clone_into(&mut self.newest);
            }
            let id = entry.id(&self.settings);
            match &id {
                Some(id) => _ = found.ids.insert(digest(id)),
                None => found.is_partial = true,
            }
            match entry.user(&self.settings) {
                Ok(user) if self.is_taken(&user) => {}
                Ok(user) => batch.push(user),
                Err(error) => {
                    let is_known =
                        |id: &String| known.as_ref().is_none_or(|all| all.contains(&digest(id)));
                    if let Some(id) = id.filter(is_known) {
                        self.taken.remove(&digest(&id));
                        found.unusable_ids.push(id);
                    }
                    match found.unusable.len() {
                        ..SHOWN_MAX => found.unusable.push(format!("{}: {error}", entry.dn)),
                        _ => found.more += 1,
                    }
                }
            }
            if batch.len() == BATCH {
                self.take(engine, std::mem::take(&mut batch), &mut found)
                    .await?;
            }
        }
        let mut searching = searching;
        match (&mut searching.0).await {
            Ok(searched) => found.referrals = searched?,
            Err(_) => return Err(Away::Nonsense.into()),
        }
        found.is_partial |= found.referrals > 0;
        self.take(engine, batch, &mut found).await?;
        // What one lets go another may have now, whichever came first.
        let again = std::mem::take(&mut found.left_out);
        let mut again = again.into_iter().map(|(user, _)| user).peekable();
        while again.peek().is_some() {
            let batch: Vec<_> = again.by_ref().take(BATCH).collect();
            self.take(engine, batch, &mut found).await?;
        }
        Ok(found)
    }

    fn is_taken(&self, user: &LdapUser) -> bool {
        self.taken.get(&digest(&user.id)) == Some(&digest(&format!("{user:?}")))
    }

    async fn take<E: Engine>(
        &mut self,
        engine: &E,
        users: Vec<LdapUser>,
        found: &mut Found,
    ) -> Result<(), LookError> {
        if users.is_empty() {
            return Ok(());
        }
        if self.turn_until < Instant::now() + TURN_MIN {
            self.take_turn(engine, false).await?;
        }
        let batch = LdapBatch {
            users: users.clone(),
            adopt: self.settings.adopt,
            over_catch_all: self.settings.over_catch_all,
            losses_max: self.losses_left,
        };
        let taken = engine.take_users(batch, now_ms()).await?.now;
        for (user, taken) in users.into_iter().zip(taken) {
            let Taken {
                brought,
                is_loss,
                left_out,
                ..
            } = taken;
            match brought {
                Brought::Created => found.created += 1,
                Brought::Updated => found.changed += 1,
                Brought::Equal => {}
            }
            self.losses_left = self.losses_left.saturating_sub(usize::from(is_loss));
            if left_out.is_empty() {
                let what = digest(&format!("{user:?}"));
                self.taken.insert(digest(&user.id), what);
            } else {
                self.taken.remove(&digest(&user.id));
                match found.left_out.len() {
                    ..LEFT_OUT_MAX => found.left_out.push((user, left_out)),
                    _ => found.more += 1,
                }
            }
        }
        Ok(())
    }
}

/// So many users of so many may lose something without an operator's word: few of many, and never most.
fn losses_max(known: usize, percent: u64) -> usize {
    let percent = usize::try_from(percent).unwrap_or(0);
    let part = known.saturating_mul(percent) / 100;
    part.max(LOSSES_MIN).min(known / 2)
}

/// The accounts whose entries are there, as far as is known.
async fn links<E: Engine>(engine: &E) -> Result<Vec<(AccountId, Digest)>, LookError> {
    let mut known = Vec::new();
    let mut after = AccountId(0);
    loop {
        let page = engine.links(after, PAGE_ROWS).await?;
        let Some((last, _)) = page.last() else {
            return Ok(known);
        };
        after = *last;
        let there = page.iter().filter(|(_, link)| link.gone_ms.is_none());
        known.extend(there.map(|(account, link)| (*account, digest(&link.id))));
    }
}

/// Sends what is found; `Ok` when it was all that this server has, with how often it referred to others.
async fn search(
    connector: Connector,
    settings: LdapSettings,
    filter: String,
    found: mpsc::Sender<Entry>,
) -> Result<usize, Away> {
    let mut ldap = connector.reader().await?;
    let page = i32::try_from(settings.page_entries).unwrap_or(i32::MAX);
    let paged: Vec<Box<dyn Adapter<String, Vec<String>>>> = vec![Box::new(PagedResults::new(page))];
    let (base, attributes) = (settings.base.as_str(), settings.attributes());
    let whole_page = connector.answer_timeout() * PAGE_TIMES;
    let search = ldap.streaming_search_with(paged, base, Scope::Subtree, &filter, attributes);
    let mut stream = timeout(whole_page, search)
        .await
        .map_err(|_| Away::Silent)??;
    let mut referrals = 0;
    loop {
        let next = timeout(whole_page, stream.next()).await;
        let Some(entry) = next.map_err(|_| Away::Silent)?? else {
            break;
        };
        if entry.is_ref() {
            referrals += 1;
        } else if !entry.is_intermediate() {
            let entry = Entry::read(entry.0).ok_or(Away::Nonsense)?;
            if found.send(entry).await.is_err() {
                // The look is given up.
                return Ok(referrals);
            }
        }
    }
    let result = stream.finish().await;
    if result.rc != SUCCESS {
        // A limit of the server's among them: half an answer is none.
        return Err(Away::Refused {
            doing: "list all its users",
            code: result.rc,
            text: result.text,
        });
    }
    let _ = ldap.unbind().await;
    Ok(referrals)
}

fn digest(text: &str) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let (half, _) = digest.as_ref().split_at(16);
    half.try_into().expect("SHA-256 has 32 octets")
}

/// A look that is given up searches no more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks.
pub(super) const LOOKS: &str = "posthouse_directory_ldap_looks_total";
/// When the last one ended.
pub(super) const LOOKED: &str = "posthouse_directory_ldap_looked_timestamp_seconds";
/// What they brought.
pub(super) const TAKEN: &str = "posthouse_directory_ldap_users_taken_total";
/// Entries there.
pub(super) const USERS: &str = "posthouse_directory_ldap_users";
/// Users that may not lose what they would.
pub(super) const HELD: &str = "posthouse_directory_ldap_users_held";
/// Entries not taken whole.
pub(super) const LEFT_OUT: &str = "posthouse_directory_ldap_left_out";

/// Users of one transaction: some milliseconds.
const BATCH: usize = 200;
/// Rows that are read at once.
const PAGE_ROWS: usize = 1_000;
/// So much of the past is looked at again: a change reaches one of several LDAP servers later than its time says.
const OVERLAP: Duration = Duration::from_secs(300);
/// A turn lasts so much longer than three looks, and is taken again when less is left of it.
const TURN_MIN: Duration = Duration::from_secs(30);
/// A page takes longer than a bind.
const PAGE_TIMES: u32 = 5;
/// Of a small site a few people may leave at once.
const LOSSES_MIN: usize = 3;
/// Users of whom something was left out that are tried again in the same look, some hundred octets each.
const LEFT_OUT_MAX: usize = 10_000;
/// What was left out of how many entries an operator is told.
const SHOWN_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_may_lose_something_and_never_most() {
        for (known, most) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (4, 2),
            (6, 3),
            (40, 3),
            (100, 5),
            (10_000, 500),
        ] {
            assert_eq!(losses_max(known, 5), most, "{known}");
        }
        assert_eq!((losses_max(100, 100), losses_max(100, 0)), (50, 3));
    }
}
