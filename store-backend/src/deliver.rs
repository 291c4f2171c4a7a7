//! `POST /v1/deliver`: one message for accounts of this back-end, from a front-end or a sibling.
//!
//! ```text
//! AwaitOpen ──Open──▶ AwaitData ──Data──▶ AwaitData ──Commit──▶ volume ──▶ reply
//!                        └──── end, cut, stall, too large ────▶ the blob is dropped: nothing stays
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::AccountId;
use http::StatusCode;
use store_api::deliver::{
    CommitRecipient, DeliverCommit, DeliverOpen, DeliverReply, DeliverResult, Outcome,
};
use store_api::frame::{Decoder, Event, Kind};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::backend::Backend;
use crate::delivered::Delivered;
use crate::hold;
use crate::link::{first_frame, json, next_event};
use crate::metrics;
use crate::refusal::{self, malformed};
use crate::spread::{Envelope, Spread, Whole};
use crate::volume::{
    Detail, HOLD_EPOCH, MailboxId, RECIPIENTS_MAX, Recipient, held_for, holder_of,
};

/// The front-end's id in logs.
const TRACE_ID_MAX_OCTETS: usize = 64;
/// It stands in every record of the delivery. RFC 5321 §4.5.3.1.3 has 256; a local part of 64 and a domain of 255 are more.
const REVERSE_PATH_MAX_OCTETS: usize = 1024;

/// Serves `POST /v1/deliver`. The request ends before or with the commit; what is answered after it is durable (P1).
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Json<DeliverReply>, Problem> {
    require(&peer, &[Role::MxFrontend, Role::StoreBackend])?;
    let began = Instant::now();
    let mut decoder = Decoder::default();
    let open: DeliverOpen = first_frame(&mut body, &mut decoder).await?;
    let accounts = check_open(&backend, &open)?;
    let spread = Spread::begin(&backend.volumes, accounts).await;
    check_spread(spread.failed())?;
    let received = receive(&backend, spread, &open.trace_id, &mut body, &mut decoder);
    let (whole, commit) = match received.await {
        Ok(received) => received,
        Err(problem) => {
            warn!(trace_id = open.trace_id, txn = %open.txn, peer = %peer, why = %problem, "delivery not taken");
            return Err(problem);
        }
    };
    check_commit(&open, &commit, &whole)?;
    let received = Instant::now();
    let octets = commit.octets;
    let accounts: Vec<AccountId> = commit
        .recipients
        .iter()
        .map(|recipient| recipient.account)
        .collect();
    let sender = open.reverse_path.clone();
    let (envelope, recipients, full) = delivery(&backend, &open, commit);
    let held_octets = recipients.iter().filter_map(|recipient| {
        let account = held_for(recipient.account)?;
        Some((account, octets + recipient.prologue.len() as u64))
    });
    let held_octets: HashMap<AccountId, u64> = held_octets.collect();
    let within = Duration::from_secs(backend.config.limits.commit_s);
    let outcomes = whole.deliver(envelope, recipients, within).await;
    let mut outcomes: HashMap<AccountId, Outcome> = outcomes.into_iter().collect();
    outcomes.extend(full.into_iter().map(|holder| (holder, Outcome::Full)));
    let results: Vec<_> = accounts
        .into_iter()
        .map(|account| DeliverResult {
            account,
            outcome: answer(&mut outcomes, account),
        })
        .collect();
    for DeliverResult { account, outcome } in &results {
        if *outcome == Outcome::Held {
            let octets = held_octets.get(account).copied();
            backend.holds.came(*account, octets.unwrap_or_default());
        }
    }
    Delivered {
        via: "deliver",
        trace_id: &open.trace_id,
        txn: open.txn,
        sender: &sender,
        octets,
        receive: received - began,
        commit: received.elapsed(),
        reply: None,
    }
    .report(&results);
    Ok(Json(DeliverReply { results }))
}

/// What became of one recipient: of the account itself, or of its holder where that had to take the message.
fn answer(outcomes: &mut HashMap<AccountId, Outcome>, account: AccountId) -> Outcome {
    let own = outcomes.remove(&account);
    let held = holder_of(account).and_then(|holder| outcomes.remove(&holder));
    match (own, held) {
        (Some(own), _) if own.is_kept() => own,
        (_, Some(held)) if held.is_kept() => Outcome::Held,
        (Some(own), _) => own,
        (None, held) => held.unwrap_or(Outcome::Unavailable),
    }
}

/// Gives the accounts that get the body: those that are named, or their holders.
fn check_open(backend: &Backend, open: &DeliverOpen) -> Result<Vec<AccountId>, Problem> {
    if open.trace_id.len() > TRACE_ID_MAX_OCTETS {
        return Err(malformed("the trace id is longer than 64 octets"));
    }
    if open.recipients.is_empty() || open.recipients.len() > RECIPIENTS_MAX {
        return Err(malformed("there are no recipients, or more than 1,000"));
    }
    if open.reverse_path.len() > REVERSE_PATH_MAX_OCTETS {
        return Err(malformed("the reverse path is longer than 1,024 octets"));
    }
    match open.declared_octets {
        Some(octets) if octets > backend.config.limits.message_size_max_bytes => {
            return Err(too_large());
        }
        _ => {}
    }
    let holds_only = open.recipients.iter().all(|recipient| recipient.hold);
    if let (true, Err(reason)) = (holds_only, backend.may_hold()) {
        metrics::hold_refused(reason);
        info!(trace_id = open.trace_id, reason, "no more mail is held");
        return Err(refusal::no_room());
    }
    let accounts = open.recipients.iter().map(|recipient| {
        let holder = holder_of(recipient.account).ok_or_else(no_account)?;
        Ok(match recipient.hold {
            true => holder,
            false => recipient.account,
        })
    });
    accounts.collect()
}

/// What holds for others is addressed by their numbers alone.
fn no_account() -> Problem {
    malformed("no account has such a number")
}

/// One volume that takes the message is enough to go on.
fn check_spread(failed: Option<&Outcome>) -> Result<(), Problem> {
    match failed {
        None => Ok(()),
        Some(Outcome::Full) => Err(refusal::no_room()),
        Some(_) => Err(Problem::unavailable("the message cannot be taken now")),
    }
}

/// Takes the octets as they come and returns them with the commit. Any error drops them.
async fn receive(
    backend: &Backend,
    mut spread: Spread,
    trace_id: &str,
    body: &mut Body,
    decoder: &mut Decoder,
) -> Result<(Whole, DeliverCommit), Problem> {
    let mut octets = 0u64;
    loop {
        let event = timeout(backend.config.limits.stall(), next_event(body, decoder));
        match event.await.map_err(|_| {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "stalled", "the stream stalled")
        })?? {
            Some(Event::Data(piece)) => {
                octets += piece.len() as u64;
                if octets > backend.config.limits.message_size_max_bytes {
                    return Err(too_large());
                }
                spread.write(&piece, trace_id).await;
                check_spread(spread.failed())?;
            }
            Some(Event::Control(Kind::Commit, payload)) => {
                let commit: DeliverCommit = json(&payload)?;
                // What is cut after the commit was still committed; what follows it in order is an error.
                if let Ok(Some(_)) =
                    timeout(backend.config.limits.stall(), next_event(body, decoder))
                        .await
                        .unwrap_or(Ok(None))
                {
                    return Err(malformed("the stream goes on after its commit"));
                }
                let whole = spread.finish(trace_id).await;
                check_spread(whole.failed())?;
                return Ok((whole, commit));
            }
            Some(Event::Control(..)) => {
                return Err(malformed("a delivery has data and one commit"));
            }
            None => return Err(malformed("the stream ended without its commit")),
        }
    }
}

/// The hash is that of the octets that really are here (P9), and everything named was announced.
fn check_commit(open: &DeliverOpen, commit: &DeliverCommit, whole: &Whole) -> Result<(), Problem> {
    if whole.identity() != Some((commit.octets, commit.blob_hash.0)) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "hash_mismatch",
            "the octets that came are not those that were committed",
        ));
    }
    let mut left: HashSet<AccountId> = open
        .recipients
        .iter()
        .map(|recipient| recipient.account)
        .collect();
    let mut held = HashSet::new();
    let may_have = |one: &CommitRecipient| match &one.hold {
        Some(hold) if hold.only => {
            left.remove(&one.account);
            holder_of(one.account).is_some() && held.insert(one.account)
        }
        _ => left.remove(&one.account),
    };
    let is_long = |one: &CommitRecipient| {
        let address = one.hold.as_ref().map_or(0, |hold| hold.address.len());
        address > REVERSE_PATH_MAX_OCTETS
    };
    if commit.recipients.len() > RECIPIENTS_MAX || commit.recipients.iter().any(is_long) {
        return Err(malformed(
            "the commit names more recipients, or a longer address, than it may",
        ));
    }
    if !commit.recipients.iter().all(may_have) {
        return Err(malformed(
            "the commit names a recipient twice, or one that was not announced",
        ));
    }
    Ok(())
}

/// What the volumes are given, and the holders that have no room.
fn delivery(
    backend: &Backend,
    open: &DeliverOpen,
    commit: DeliverCommit,
) -> (Envelope, Vec<Recipient>, Vec<AccountId>) {
    let envelope = Envelope {
        txn: open.txn.0,
        sender: open.reverse_path.clone().into_bytes(),
        content_key: commit.content_key.0,
        repeats: commit.repeats,
        trace: open.trace_id.clone(),
        received_ms: commit.received_ms,
    };
    let rule = backend.config.subaddress_mailbox;
    let room = backend.may_hold();
    let mut full = Vec::new();
    let mut recipients = Vec::with_capacity(commit.recipients.len());
    for one in commit.recipients {
        let (account, epoch) = (one.account, one.epoch);
        if !one.hold.as_ref().is_some_and(|hold| hold.only) {
            recipients.push(Recipient {
                account,
                epoch,
                mailbox: MailboxId::INBOX,
                detail: rule.detail(one.detail.as_deref()),
                prologue: one.prologue.0.clone(),
            });
        }
        let (Some(hold), Some(holder)) = (one.hold, holder_of(account)) else {
            continue;
        };
        let room = room.and_then(|()| match backend.may_hold_for(account) {
            true => Ok(()),
            false => Err(hold::ACCOUNT_FULL),
        });
        if let Err(reason) = room {
            // Of one that lives here it is not known yet whether it has to be held.
            if hold.only {
                metrics::hold_refused(reason);
                info!(trace_id = open.trace_id, %account, reason, "no more mail is held for the account");
            }
            full.push(holder);
        } else {
            // There is no such mailbox, but it tells repeats apart.
            let detail = rule.detail(one.detail.as_deref()).map(|detail| Detail {
                makes: false,
                ..detail
            });
            let held = hold::Envelope::new(open, commit.content_key, &hold.address, one.detail);
            recipients.push(Recipient {
                account: holder,
                epoch: HOLD_EPOCH,
                mailbox: MailboxId::INBOX,
                detail,
                prologue: held.before(&one.prologue.0),
            });
        }
    }
    (envelope, recipients, full)
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        "the message is larger than this back-end takes",
    )
}
