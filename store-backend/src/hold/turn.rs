//! One account's turn: its held messages go to its home in their order, each by the transaction that it was accepted by.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use daemon::link::Link;
use directory_api::{AccountId, BackendName, Home};
use store_api::BlobHash;
use store_api::deliver::{
    CommitRecipient, DeliverClient, DeliverCommit, DeliverError, DeliverOpen, DeliverRecipient,
    Outcome, Prologue, Repeats,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::feed::Waiting;
use super::homes::home_of;
use super::{Envelope, Place};
use crate::backend::Backend;
use crate::metrics;
use crate::outcome::label;
use crate::volume::{HOLD_EPOCH, MailboxId, MessageBytes, holder_of, repeat_key};
use crate::volumes::Mounted;

/// How it went.
pub(super) enum Turn {
    /// All of it is there, or set aside: so many messages this time.
    Whole(usize),
    /// The others have their turn before it goes on.
    More,
    /// It lives on another back-end now.
    Elsewhere,
    /// The home answers, and takes nothing for this account now; it has its delay.
    Waits,
    /// The home does not answer.
    Home(&'static str),
}

/// Why one message was not given.
enum NotGiven {
    /// It is the message's fault, or may be: the others go on.
    Message(&'static str),
    /// It is the account's, or its volume's there.
    Account(&'static str),
    /// Everybody on that back-end is concerned.
    Home(&'static str),
    /// The same, and nobody knows whether it was this message that did it.
    NoAnswer,
}

/// An account has the home for so long before others have their turn.
const TURN: Duration = Duration::from_secs(10);
/// One delivery, from its first octet to its answer, the first time: each time that it was too short the next is given twice as much.
const DELIVERY_WITHIN: Duration = Duration::from_secs(60);
/// 64 times that is an hour: at that pace the largest message passes over a line of 14 KiB/s.
const DOUBLED_MAX: u32 = 6;
/// A home that takes no piece, 64 KiB, for so long does not answer.
const PIECE_WITHIN: Duration = Duration::from_secs(20);
/// A message at whose commit a home was lost so often is taken to be the reason.
const LOST_MAX: u32 = 3;

/// Feeds one account.
pub(super) async fn feed(
    backend: &Backend,
    link: &Link,
    to: &BackendName,
    waiting: &Waiting,
) -> Turn {
    let Waiting { at, account } = waiting;
    let account = *account;
    let Some(holder) = holder_of(account) else {
        return Turn::Whole(0);
    };
    let home = match home_of(backend, account, Duration::ZERO).await {
        Ok(home) if home.backend == *to => home,
        Ok(_) => return Turn::Elsewhere,
        Err(why) => return waits(backend, account, why),
    };
    let began = Instant::now();
    let messages = match at.volume.messages(holder, MailboxId::INBOX).await {
        Ok(messages) => messages,
        Err(error) => {
            warn!(%account, volume = %at.name, %error, "held mail cannot be listed");
            return waits(backend, account, "unreadable");
        }
    };
    let uids: HashSet<u32> = messages.iter().map(|message| message.uid).collect();
    let is_gone = |place: &Place| {
        place.volume == at.name && place.account == account && !uids.contains(&place.uid)
    };
    backend.holds.known().forget_messages(is_gone);
    let mut fed = 0;
    for message in messages {
        if backend.shutdown.is_requested() || began.elapsed() >= TURN {
            return Turn::More;
        }
        let place = Place {
            volume: at.name.clone(),
            account,
            uid: message.uid,
        };
        let Some(tries) = backend.holds.known().tries(&place, Instant::now()) else {
            continue;
        };
        let read = at
            .volume
            .read_message(holder, MailboxId::INBOX, message.uid);
        let held = match read.await {
            Ok(Some(held)) => held,
            // An operator has dropped it.
            Ok(None) => continue,
            Err(error) => {
                error!(%account, uid = message.uid, %error, reason = "hold_unreadable", "held message cannot be read, it stays");
                metrics::hold_fed("unreadable");
                set_aside(backend, place, "unreadable");
                continue;
            }
        };
        // Made anew from files, the holder is at no epoch, and nothing could be removed from it.
        if held.prologue.is_empty() {
            let raised = at.volume.ensure_account(holder, HOLD_EPOCH).await;
            if let Err(refusal) = raised {
                warn!(%account, ?refusal, "holder cannot be written");
                return waits(backend, account, "not_removed");
            }
        }
        let repeats = repeats_of(backend, at, holder, &held).await;
        let giving = Instant::now();
        let within = DELIVERY_WITHIN * (1 << tries.min(DOUBLED_MAX));
        let given = timeout(within, deliver(link, account, &home, held, repeats));
        let given = given.await.unwrap_or(Err(NotGiven::Message("timed_out")));
        let word = match &given {
            Ok(outcome) => label(outcome),
            Err(NotGiven::Message(why) | NotGiven::Account(why) | NotGiven::Home(why)) => *why,
            Err(NotGiven::NoAnswer) => "no_answer",
        };
        metrics::hold_fed(word);
        match given {
            Ok(outcome) if outcome.is_kept() => {}
            Err(NotGiven::Message(why)) => {
                set_aside(backend, place, why);
                continue;
            }
            Err(NotGiven::Home(why)) => return Turn::Home(why),
            Err(NotGiven::NoAnswer) => {
                if backend.holds.known().lost_at(&place) >= LOST_MAX {
                    set_aside(backend, place, word);
                }
                return Turn::Home(word);
            }
            // Moved, perhaps, or not known there: whatever it is, the directory is asked again.
            Ok(_) | Err(NotGiven::Account(_)) => return waits(backend, account, word),
        }
        backend.holds.known().given(&place);
        fed += 1;
        let gone = at
            .volume
            .expunge(holder, HOLD_EPOCH, MailboxId::INBOX, vec![message.uid]);
        if let Err(refusal) = gone.await {
            // It is fed again, and the home says that it has it.
            warn!(%account, ?refusal, "held mail that was fed cannot be removed");
            return waits(backend, account, "not_removed");
        }
        // What the home needs for its own mail in between.
        let share = u32::from(backend.config.hold.feed_share_percent);
        sleep(giving.elapsed() * (100 - share) / share).await;
    }
    Turn::Whole(fed)
}

/// The account waits, and its home is asked for again.
fn waits(backend: &Backend, account: AccountId, why: &'static str) -> Turn {
    let tries = backend.holds.known().account_waits(account, why);
    debug!(%account, why, tries, "held mail is not taken yet");
    Turn::Waits
}

/// The message waits by itself.
fn set_aside(backend: &Backend, place: Place, why: &'static str) {
    let Place {
        volume,
        account,
        uid,
    } = place.clone();
    let tries = backend.holds.known().set_aside(place, why);
    // Not each time: nothing has changed.
    if tries == 1 {
        warn!(%account, %volume, uid, why, reason = "hold_set_aside", "held message is not taken, it is set aside and tried again by itself");
    }
}

/// Whether the home may have the message from its sender, who sent it again when he had not read that it is held.
async fn repeats_of(
    backend: &Backend,
    at: &Mounted,
    holder: AccountId,
    held: &MessageBytes,
) -> Repeats {
    let Some((envelope, _)) = Envelope::split(&held.prologue) else {
        return Repeats::Deliver;
    };
    let rule = backend.config.subaddress_mailbox;
    let detail = rule.detail(envelope.detail.as_deref());
    let sender = envelope.reverse_path.as_bytes();
    let key = repeat_key(sender, &envelope.content_key.0, detail.as_ref());
    match at.volume.may_be_repeated(holder, held.info.uid, key).await {
        Ok(false) => Repeats::Deliver,
        Ok(true) | Err(_) => Repeats::SuppressRead,
    }
}

/// Delivers one message.
async fn deliver(
    link: &Link,
    account: AccountId,
    home: &Home,
    held: MessageBytes,
    repeats: Repeats,
) -> Result<Outcome, NotGiven> {
    let mut blob = held.blob;
    let (hash, octets) = (blob.hash(), blob.size());
    let (envelope, prologue) = match held.prologue.is_empty() {
        true => (Envelope::found_again(account, held.info.uid, hash), &[][..]),
        false => Envelope::split(&held.prologue).ok_or(NotGiven::Message("malformed"))?,
    };
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
    let told = |error: DeliverError| {
        debug!(%account, %error, "home takes no held mail");
        not_given(&error)
    };
    let mut client = DeliverClient::open(link, &open).await;
    while let Some(piece) = blob
        .next()
        .await
        .map_err(|_| NotGiven::Message("unreadable"))?
    {
        let written = timeout(PIECE_WITHIN, client.write(piece)).await;
        written
            .map_err(|_| NotGiven::Home("stalled"))?
            .map_err(told)?;
    }
    let commit = DeliverCommit {
        blob_hash: BlobHash(hash),
        content_key,
        repeats,
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
    let reply = client
        .commit(&commit, DELIVERY_WITHIN)
        .await
        .map_err(told)?;
    let mut results = reply.results.into_iter();
    let mine = results.find(|result| result.account == account);
    let mine = mine.map(|result| result.outcome);
    mine.ok_or(NotGiven::Message("nonsense"))
}

/// Whose fault it is.
fn not_given(error: &DeliverError) -> NotGiven {
    if error.is_too_large() {
        return NotGiven::Message("too_large");
    }
    if error.is_malformed() {
        return NotGiven::Message("malformed");
    }
    match (error, error.status()) {
        (DeliverError::CommitUnknown(_), _) => NotGiven::NoAnswer,
        (DeliverError::Stalled(_), _) => NotGiven::Home("stalled"),
        (_, Some(StatusCode::UNPROCESSABLE_ENTITY)) => NotGiven::Message("hash_mismatch"),
        (_, Some(StatusCode::REQUEST_TIMEOUT)) => NotGiven::Message("timed_out"),
        (_, Some(StatusCode::INTERNAL_SERVER_ERROR)) => NotGiven::Message("internal"),
        // One of its volumes, perhaps.
        (_, Some(StatusCode::INSUFFICIENT_STORAGE)) => NotGiven::Account("full"),
        (_, Some(StatusCode::SERVICE_UNAVAILABLE)) => NotGiven::Account("unavailable"),
        (_, Some(_)) => NotGiven::Home("refused"),
        (_, None) => NotGiven::Home("away"),
    }
}
