//! Feeds what is held to the homes that can be reached again: slowly at first, and never so that their users' own mail waits for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use directory_api::{AccountId, BackendName, DirectoryError, Home};
use store_api::BlobHash;
use store_api::deliver::{
    CommitRecipient, DeliverClient, DeliverCommit, DeliverOpen, DeliverRecipient, Outcome, Prologue,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::Envelope;
use crate::backend::Backend;
use crate::metrics;
use crate::outcome::label;
use crate::volume::{HOLD_EPOCH, MailboxId, MessageBytes, ReadError, holder_of};
use crate::volumes::Mounted;

/// One account for which something is held.
struct Waiting {
    at: Arc<Mounted>,
    account: AccountId,
    /// Where it lived when it was looked for: another epoch is another place (P4).
    home: Home,
}

/// How one account's held mail went.
enum Fed {
    /// All of it.
    Whole,
    /// Its home takes it later, or another one.
    Later(&'static str),
}

/// How often it is looked at what is held, while anything is.
const PASS_EVERY: Duration = Duration::from_secs(2);
/// How often while nothing is: what comes wakes.
const IDLE_PASS_EVERY: Duration = Duration::from_secs(60);
/// Accounts fed to one home at once, at first and at most: Postfix's `initial_destination_concurrency` and
/// `default_destination_concurrency_limit`.
const WINDOW_FIRST: usize = 5;
const WINDOW_MAX: usize = 20;
/// So many accounts in a row that a home did not take, and it is left alone until the next pass.
const COHORT: usize = 5;
/// Accounts whose homes are asked for in one pass, so that a day's mail of a whole back-end keeps neither the directory busy nor those
/// waiting whose homes are known.
const ASKS_MAX: usize = 2000;
/// A pass takes no more than this part of the time, however much is held.
const PASS_SHARE: u32 = 20;
/// One delivery, from its first octet to its answer.
const DELIVERY_WITHIN: Duration = Duration::from_secs(60);
/// The log says that mail is old so often.
const ALARM_EVERY: Duration = Duration::from_secs(600);

/// Runs until the shutdown begins.
pub(crate) async fn run(backend: Arc<Backend>) {
    let mut feeding: JoinSet<BackendName> = JoinSet::new();
    let mut busy: HashSet<BackendName> = HashSet::new();
    let mut alarmed: Option<Instant> = None;
    loop {
        while let Some(done) = feeding.try_join_next() {
            match done {
                Ok(home) => _ = busy.remove(&home),
                Err(failed) => error!(%failed, "feeding of held mail ended"),
            }
        }
        let began = Instant::now();
        let mut waiting = look(&backend, &mut alarmed).await;
        let least = began.elapsed() * PASS_SHARE;
        let pause = match waiting.is_empty() {
            true => IDLE_PASS_EVERY,
            false => PASS_EVERY,
        };
        waiting.retain(|home, _| !busy.contains(home));
        for (home, accounts) in waiting {
            busy.insert(home.clone());
            let backend = Arc::clone(&backend);
            feeding.spawn(async move {
                feed_home(&backend, &home, accounts).await;
                home
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

/// What came together is fed together.
const WAKE_AFTER: Duration = Duration::from_millis(50);

/// What is held, by where it shall go, and what is told of it.
async fn look(
    backend: &Backend,
    alarmed: &mut Option<Instant>,
) -> HashMap<BackendName, Vec<Waiting>> {
    let (mut messages, mut octets, mut oldest_ms) = (0, 0, i64::MAX);
    let mut waiting: HashMap<BackendName, Vec<Waiting>> = HashMap::new();
    let mut asks_left = ASKS_MAX;
    let all_came = backend.holds.all_came();
    for at in backend.volumes.mounted() {
        let held = match at.volume.held_mail().await {
            Ok(held) => held,
            Err(error) => {
                warn!(volume = %at.name, %error, "held mail cannot be listed");
                continue;
            }
        };
        for held in held {
            messages += held.messages;
            octets += held.octets;
            oldest_ms = oldest_ms.min(held.oldest_ms);
            if let Some(home) = home_of(backend, held.account, &mut asks_left).await {
                let of_home = waiting.entry(home.backend.clone()).or_default();
                of_home.push(Waiting {
                    at: Arc::clone(at),
                    account: held.account,
                    home,
                });
            }
        }
    }
    backend.holds.found(octets, all_came);
    let age = match messages {
        0 => Duration::ZERO,
        _ => Duration::from_millis(u64::try_from(now_ms() - oldest_ms).unwrap_or(0)),
    };
    metrics::held(messages, octets, age);
    let is_old = age.as_secs() >= backend.config.hold.alarm_age_s && messages > 0;
    if is_old && alarmed.is_none_or(|at| at.elapsed() >= ALARM_EVERY) {
        *alarmed = Some(Instant::now());
        warn!(
            messages,
            octets,
            oldest_s = age.as_secs(),
            reason = "hold_old",
            "mail is held for long: `posthouse hold list` shows for which homes"
        );
    }
    waiting
}

/// Where an account lives now. While the directory is away, what it said last: the epoch guards the rest (P4).
async fn home_of(backend: &Backend, account: AccountId, asks_left: &mut usize) -> Option<Home> {
    if let Some(known) = backend.holds.known_home(account) {
        return Some(known);
    }
    if *asks_left == 0 {
        return backend.holds.last_home(account);
    }
    *asks_left -= 1;
    match backend.directory.home(account).await {
        Ok(now) => {
            backend.holds.note_home(account, now.home.clone());
            Some(now.home)
        }
        Err(DirectoryError::Unknown) => {
            debug!(%account, reason = "hold_no_account", "mail is held for an account that the directory does not know");
            None
        }
        Err(error) => {
            debug!(%account, %error, "home of held mail cannot be asked for");
            if error.is_away() {
                *asks_left = 0;
            }
            backend.holds.last_home(account)
        }
    }
}

/// Feeds one home until it has all that is held for it, or takes no more.
async fn feed_home(backend: &Arc<Backend>, home: &BackendName, accounts: Vec<Waiting>) {
    let link = match backend.backends.link(home).await {
        Ok(link) => link,
        Err(error) => return debug!(%home, %error, "home of held mail cannot be found"),
    };
    if let Err(error) = link.ready().await {
        return debug!(%home, %error, "home of held mail does not answer yet");
    }
    let began = Instant::now();
    let (mut window, mut failed, mut fed) = (WINDOW_FIRST, 0, 0usize);
    let mut running: JoinSet<Fed> = JoinSet::new();
    let mut accounts = accounts.into_iter();
    loop {
        while running.len() < window && failed < COHORT && !backend.shutdown.is_requested() {
            let Some(waiting) = accounts.next() else {
                break;
            };
            let (backend, link) = (Arc::clone(backend), link.clone());
            running.spawn(async move { feed_account(&backend, &link, &waiting).await });
        }
        match running.join_next().await {
            None => break,
            Some(Ok(Fed::Whole)) => {
                (failed, fed) = (0, fed + 1);
                window = (window + 1).min(WINDOW_MAX);
            }
            Some(Ok(Fed::Later(why))) => {
                failed += 1;
                window = (window / 2).max(1);
                debug!(%home, why, window, "held mail is not taken yet");
            }
            Some(Err(ended)) => {
                failed += 1;
                error!(%home, %ended, "feeding of an account ended");
            }
        }
    }
    if fed > 0 {
        info!(%home, accounts = fed, took_ms = began.elapsed().as_millis(), "held mail fed");
    }
}

/// Feeds one account, its messages in their order.
async fn feed_account(backend: &Backend, link: &daemon::link::Link, waiting: &Waiting) -> Fed {
    let Waiting { at, account, home } = waiting;
    let Some(holder) = holder_of(*account) else {
        return Fed::Whole;
    };
    let messages = match at.volume.messages(holder, MailboxId::INBOX).await {
        Ok(messages) => messages,
        Err(error) => {
            warn!(%account, volume = %at.name, %error, "held mail cannot be listed");
            return Fed::Later("unreadable");
        }
    };
    for message in messages {
        let read = at
            .volume
            .read_message(holder, MailboxId::INBOX, message.uid);
        let held = match read.await {
            Ok(Some(held)) => held,
            // An operator has dropped it.
            Ok(None) => continue,
            Err(error) => {
                unreadable(*account, message.uid, &error);
                continue;
            }
        };
        let began = Instant::now();
        let delivering = timeout(DELIVERY_WITHIN, deliver(link, *account, home, held));
        let outcome = delivering.await.unwrap_or(Err("timed_out"));
        let word = outcome.as_ref().map_or_else(|why| *why, label);
        metrics::hold_fed(word);
        match outcome {
            Ok(outcome) if outcome.is_kept() => {}
            Ok(Outcome::Moved { .. } | Outcome::StaleEpoch { .. }) => {
                backend.holds.forget_home(*account);
                return Fed::Later(word);
            }
            _ => return Fed::Later(word),
        }
        let gone = at
            .volume
            .expunge(holder, HOLD_EPOCH, MailboxId::INBOX, vec![message.uid]);
        if let Err(refusal) = gone.await {
            // It is fed again, and the home says that it has it.
            warn!(%account, ?refusal, "held mail that was fed cannot be removed");
            return Fed::Later("not_removed");
        }
        // What the home needs for its own mail in between.
        let share = u32::from(backend.config.hold.feed_share_percent);
        sleep(began.elapsed() * (100 - share) / share).await;
    }
    backend.holds.forget_home(*account);
    Fed::Whole
}

fn unreadable(account: AccountId, uid: u32, error: &ReadError) {
    metrics::hold_fed("unreadable");
    error!(%account, uid, %error, reason = "hold_unreadable", "held message cannot be read, it stays");
}

/// Delivers one message by the transaction that it was accepted by.
async fn deliver(
    link: &daemon::link::Link,
    account: AccountId,
    home: &Home,
    held: MessageBytes,
) -> Result<Outcome, &'static str> {
    let (envelope, prologue) = Envelope::split(&held.prologue).ok_or("malformed")?;
    let Envelope {
        txn,
        trace_id,
        reverse_path,
        address: _,
        detail,
        content_key,
    } = envelope;
    let open = DeliverOpen {
        txn,
        trace_id,
        reverse_path,
        declared_octets: None,
        recipients: vec![DeliverRecipient {
            account,
            epoch: home.epoch,
            hold: false,
        }],
    };
    let prologue = Prologue(prologue.to_vec());
    let mut blob = held.blob;
    let (hash, octets) = (blob.hash(), blob.size());
    let mut client = DeliverClient::open(link, &open).await;
    while let Some(piece) = blob.next().await.map_err(|_| "unreadable")? {
        client.write(piece).await.map_err(|error| {
            debug!(%account, %error, "home takes no held mail");
            "refused"
        })?;
    }
    let commit = DeliverCommit {
        blob_hash: BlobHash(hash),
        content_key,
        octets,
        received_ms: held.info.internal_date_ms,
        recipients: vec![CommitRecipient {
            account,
            epoch: home.epoch,
            prologue,
            detail,
            hold: None,
        }],
    };
    match client.commit(&commit, DELIVERY_WITHIN).await {
        Ok(reply) => {
            let mut results = reply.results.into_iter();
            let mine = results.find(|result| result.account == account);
            mine.map(|result| result.outcome).ok_or("nonsense")
        }
        Err(error) => {
            debug!(%account, %error, "home gave no answer for held mail");
            Err("no_answer")
        }
    }
}
