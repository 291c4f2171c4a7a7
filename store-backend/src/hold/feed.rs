//! Feeds what is held to the homes that can be reached again: slowly at first, and never so that their users' own mail waits for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use directory_api::{AccountId, BackendName};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::homes::{DIRECTORY_AWAY, home_of};
use super::turn::{self, Turn};
use crate::backend::Backend;
use crate::metrics;
use crate::volumes::Mounted;

/// One account for which something is held.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) at: Arc<Mounted>,
    pub(super) account: AccountId,
}

/// How often it is looked at what is held, while anything is.
const PASS_EVERY: Duration = Duration::from_secs(2);
/// How often while nothing is: what comes wakes.
const IDLE_PASS_EVERY: Duration = Duration::from_secs(60);
/// Accounts fed to one home at once, at first and at most: Postfix's `initial_destination_concurrency` and
/// `default_destination_concurrency_limit`.
const WINDOW_FIRST: usize = 5;
const WINDOW_MAX: usize = 20;
/// So many accounts in a row for which a home did not answer, and it is left alone until the next pass. What it says of one account or
/// message is an answer.
const COHORT: usize = 5;
/// Accounts whose homes nobody has heard of, asked for in one pass: a day's mail of a whole back-end, after a restart, keeps neither the
/// directory busy nor those waiting whose homes are known.
const ASKS_MAX: usize = 500;
/// A look at what is held takes no more than this part of the time, however much it is.
const LOOK_SHARE: u32 = 20;
/// A home is fed for so long before it is looked at what has come for it meanwhile.
const FEED_MAX: Duration = Duration::from_secs(30);
/// The log says that mail is old so often.
const ALARM_EVERY: Duration = Duration::from_secs(600);
/// What came together is fed together.
const WAKE_AFTER: Duration = Duration::from_millis(50);

/// Where the last round ended, so that the next one begins behind it.
#[derive(Default)]
struct Rounds {
    /// By home: the account that was fed last.
    fed: HashMap<BackendName, AccountId>,
    /// The account whose home was asked for last, of those that nobody has heard of.
    asked: Option<AccountId>,
    alarmed: Option<Instant>,
}

/// Runs until the shutdown begins.
pub(crate) async fn run(backend: Arc<Backend>) {
    let mut feeding: JoinSet<(BackendName, Option<AccountId>)> = JoinSet::new();
    let mut busy: HashSet<BackendName> = HashSet::new();
    let mut rounds = Rounds::default();
    loop {
        while let Some(done) = feeding.try_join_next() {
            match done {
                Ok((home, last)) => {
                    busy.remove(&home);
                    if let Some(last) = last {
                        rounds.fed.insert(home, last);
                    }
                }
                Err(failed) => error!(%failed, "feeding of held mail ended"),
            }
        }
        let began = Instant::now();
        let (is_any, due) = look(&backend, &mut rounds.alarmed).await;
        let least = began.elapsed() * LOOK_SHARE;
        let pause = match is_any {
            false => IDLE_PASS_EVERY,
            true => PASS_EVERY,
        };
        let mut waiting = by_home(&backend, due, &mut rounds.asked).await;
        waiting.retain(|home, _| !busy.contains(home));
        for (home, accounts) in waiting {
            busy.insert(home.clone());
            let backend = Arc::clone(&backend);
            let accounts = behind(accounts, rounds.fed.get(&home).copied());
            feeding.spawn(async move {
                let last = feed_home(&backend, &home, accounts).await;
                (home, last)
            });
        }
        tokio::select! {
            () = backend.shutdown.requested() => return,
            () = sleep(pause.max(least)) => {}
            () = backend.holds.wake.notified() => {
                // Mail that is being held now is not for a home that answers, as a rule.
                sleep(WAKE_AFTER.max(least)).await;
            }
        }
    }
}

/// In the order of their numbers, beginning behind the one that was last: with each round others come first.
fn behind(mut accounts: Vec<Waiting>, last: Option<AccountId>) -> VecDeque<Waiting> {
    accounts.sort_by_key(|one| one.account);
    if let Some(last) = last {
        let first = accounts.partition_point(|one| one.account <= last);
        accounts.rotate_left(first);
    }
    accounts.into()
}

/// Whether anything is held, and whose turn it may be; what is held is told.
async fn look(backend: &Backend, alarmed: &mut Option<Instant>) -> (bool, Vec<Waiting>) {
    let (mut messages, mut octets, mut oldest_ms) = (0, 0, i64::MAX);
    let mut of_accounts: HashMap<AccountId, u64> = HashMap::new();
    let mut all = Vec::new();
    let mut is_whole = true;
    let all_came = backend.holds.all_came();
    for at in backend.volumes.mounted() {
        let held = match at.volume.held_mail().await {
            Ok(held) => held,
            Err(error) => {
                is_whole = false;
                warn!(volume = %at.name, %error, "held mail cannot be listed");
                continue;
            }
        };
        for held in held {
            messages += held.messages;
            octets += held.octets;
            oldest_ms = oldest_ms.min(held.oldest_ms);
            *of_accounts.entry(held.account).or_default() += held.octets;
            // What was fed could not be removed from an old copy, nor may it be: it is fed when the copy is adopted.
            if at.may_write() {
                all.push(Waiting {
                    at: Arc::clone(at),
                    account: held.account,
                });
            }
        }
    }
    // What cannot be listed is not forgotten.
    if is_whole {
        backend.holds.found(of_accounts, all_came);
    }
    let aside = {
        let known = backend.holds.known();
        let now = Instant::now();
        all.retain(|one| known.accounts.is_due(&one.account, now));
        known.aside.len()
    };
    let age = match messages {
        0 => Duration::ZERO,
        _ => Duration::from_millis(u64::try_from(now_ms() - oldest_ms).unwrap_or(0)),
    };
    metrics::held(messages, octets, age, aside);
    let is_old = age.as_secs() >= backend.config.hold.alarm_age_s && messages > 0;
    if is_old && alarmed.is_none_or(|at| at.elapsed() >= ALARM_EVERY) {
        *alarmed = Some(Instant::now());
        warn!(
            messages,
            octets,
            aside,
            oldest_s = age.as_secs(),
            reason = "hold_old",
            "mail is held for long: `posthouse hold list` shows for which homes"
        );
    }
    (messages > 0, all)
}

/// By the home that was heard last: whether it still is one is asked right before the account is fed. The homes of the others are asked
/// for, of some in each pass, so that each comes to it.
async fn by_home(
    backend: &Backend,
    due: Vec<Waiting>,
    asked: &mut Option<AccountId>,
) -> HashMap<BackendName, Vec<Waiting>> {
    let mut waiting: HashMap<BackendName, Vec<Waiting>> = HashMap::new();
    let mut unheard = Vec::new();
    for one in due {
        let home = {
            let known = backend.holds.known();
            known
                .homes
                .last(one.account)
                .map(|home| home.backend.clone())
        };
        match home {
            Some(home) => waiting.entry(home).or_default().push(one),
            None => unheard.push(one),
        }
    }
    for one in behind(unheard, *asked).into_iter().take(ASKS_MAX) {
        *asked = Some(one.account);
        match home_of(backend, one.account, Duration::ZERO).await {
            Ok(home) => waiting.entry(home.backend).or_default().push(one),
            Err(DIRECTORY_AWAY) => break,
            Err(why) => {
                debug!(account = %one.account, reason = why, "mail is held for an account that the directory does not know");
                backend.holds.known().account_waits(one.account, why);
            }
        }
    }
    waiting
}

/// Feeds one home until it has all that is held for it, takes no more, or was fed for long enough. Answers whose turn was last.
async fn feed_home(
    backend: &Arc<Backend>,
    home: &BackendName,
    mut accounts: VecDeque<Waiting>,
) -> Option<AccountId> {
    let link = match backend.backends.link(home).await {
        Ok(link) => link,
        Err(error) => {
            debug!(%home, %error, "home of held mail cannot be found");
            return ask_again(backend, accounts).await;
        }
    };
    if let Err(error) = link.ready().await {
        debug!(%home, %error, "home of held mail does not answer yet");
        return ask_again(backend, accounts).await;
    }
    let began = Instant::now();
    let (mut window, mut failed, mut fed) = (WINDOW_FIRST, 0, 0usize);
    let mut running: JoinSet<(Waiting, Turn)> = JoinSet::new();
    let mut last = None;
    loop {
        let goes_on =
            failed < COHORT && began.elapsed() < FEED_MAX && !backend.shutdown.is_requested();
        while goes_on
            && running.len() < window
            && let Some(waiting) = accounts.pop_front()
        {
            last = Some(waiting.account);
            let (backend, link, home) = (Arc::clone(backend), link.clone(), home.clone());
            running.spawn(async move {
                let turn = turn::feed(&backend, &link, &home, &waiting).await;
                (waiting, turn)
            });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((_, Turn::Whole(messages)))) => {
                (failed, fed) = (0, fed + usize::from(messages > 0));
                window = (window + 1).min(WINDOW_MAX);
            }
            Some(Ok((waiting, Turn::More))) => {
                failed = 0;
                window = (window + 1).min(WINDOW_MAX);
                accounts.push_back(waiting);
            }
            // It answers, and others may have their turn.
            Some(Ok((_, Turn::Elsewhere | Turn::Waits))) => failed = 0,
            Some(Ok((_, Turn::Home(why)))) => {
                failed += 1;
                window = (window / 2).max(1);
                debug!(%home, why, window, "home of held mail does not answer");
            }
            Some(Err(ended)) => {
                failed += 1;
                error!(%home, %ended, "feeding of an account ended");
            }
        }
    }
    if fed > 0 {
        info!(%home, accounts = fed, left = accounts.len(), took_ms = began.elapsed().as_millis(), "held mail fed");
        if !accounts.is_empty() {
            backend.holds.wake.notify_one();
        }
    }
    last
}

/// The accounts of a home that does not answer may live elsewhere by now: some are asked for, in each pass others. Answers whose turn was
/// last.
async fn ask_again(backend: &Backend, accounts: VecDeque<Waiting>) -> Option<AccountId> {
    let mut last = None;
    for one in accounts.into_iter().take(ASKED_AGAIN_MAX) {
        last = Some(one.account);
        if home_of(backend, one.account, FRESH).await == Err(DIRECTORY_AWAY) {
            break;
        }
    }
    last
}

/// Those of ten thousand are all asked for in some minutes.
const ASKED_AGAIN_MAX: usize = 100;
/// Of few accounts each need not be asked for in each pass.
const FRESH: Duration = Duration::from_secs(10);
