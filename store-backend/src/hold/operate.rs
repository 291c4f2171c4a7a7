//! The paths under `/v1/hold`: an operator sees what is held, has it tried at once, or gives it up.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::{AccountId, VolumeName};
use store_api::hold::{
    ACCOUNTS_MAX, AGES, AGES_MIN, ASIDE_MAX, Aside, Drop, Dropped, Held, List, Listed, Waits, path,
};
use tracing::{info, warn};

use super::delays::Delay;
use super::{Known, Place};

use crate::backend::Backend;
use crate::link::Asked;
use crate::refusal;
use crate::volume::{HOLD_EPOCH, MailboxId, holder_of};

/// The paths, each with its role checked first.
pub(crate) fn routes() -> Router<Arc<Backend>> {
    Router::new()
        .route(path::LIST, post(list))
        .route(path::FLUSH, post(flush))
        .route(path::DROP, post(drop_held))
}

async fn list(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<List>,
) -> Result<Json<Listed>, Problem> {
    require(&peer, &[Role::Operator])?;
    let now = now_ms();
    let mut accounts = Vec::new();
    // In an order that does not change, so that pages follow each other.
    let mut volumes: Vec<_> = backend.volumes.mounted().cloned().collect();
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    for at in volumes {
        let held = at.volume.held_mail().await;
        for held in held.map_err(|error| refusal::read(&error))? {
            let place = (at.name.clone(), held.account);
            if request.after.as_ref().is_some_and(|after| place <= *after) {
                continue;
            }
            if accounts.len() == ACCOUNTS_MAX {
                return Ok(Json(Listed {
                    accounts,
                    has_more: true,
                }));
            }
            let Some(holder) = holder_of(held.account) else {
                continue;
            };
            let rows = at.volume.messages(holder, MailboxId::INBOX).await;
            let mut messages = [0; AGES];
            for message in rows.map_err(|error| refusal::read(&error))? {
                messages[age(now - message.internal_date_ms)] += 1;
            }
            let known = backend.holds.known();
            let (aside_count, aside) = set_aside(&known, &at.name, held.account);
            accounts.push(Held {
                volume: at.name.clone(),
                account: held.account,
                home: known
                    .homes
                    .last(held.account)
                    .map(|home| home.backend.clone()),
                messages,
                octets: held.octets,
                oldest_ms: held.oldest_ms,
                waits: known.accounts.of(&held.account).map(waits),
                aside_count,
                aside,
            });
        }
    }
    Ok(Json(Listed {
        accounts,
        has_more: false,
    }))
}

/// The messages that wait by themselves: how many, and the first of them.
fn set_aside(known: &Known, volume: &VolumeName, account: AccountId) -> (u64, Vec<Aside>) {
    let mine = known.aside.iter();
    let mine = mine.filter(|(place, _)| place.volume == *volume && place.account == account);
    let mut mine: Vec<(u32, Delay)> = mine.map(|(place, delay)| (place.uid, *delay)).collect();
    mine.sort_by_key(|(uid, _)| *uid);
    let told = mine.iter().take(ASIDE_MAX).map(|(uid, delay)| Aside {
        uid: *uid,
        waits: waits(*delay),
    });
    (mine.len() as u64, told.collect())
}

fn waits(delay: Delay) -> Waits {
    let left = delay.until.saturating_duration_since(Instant::now());
    Waits {
        reason: delay.why.to_owned(),
        tries: delay.tries,
        next_s: left.as_secs(),
    }
}

/// The place of an age in a histogram.
fn age(milliseconds: i64) -> usize {
    let minutes = u64::try_from(milliseconds / 60_000).unwrap_or(0);
    AGES_MIN.partition_point(|end| *end <= minutes)
}

async fn flush(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<()>, Problem> {
    require(&peer, &[Role::Operator])?;
    backend.holds.known().end_delays();
    backend.holds.wake.notify_one();
    info!(%peer, "held mail is tried at once");
    Ok(Json(()))
}

async fn drop_held(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Drop>,
) -> Result<Json<Dropped>, Problem> {
    require(&peer, &[Role::Operator])?;
    let account = request.account;
    let Some(holder) = holder_of(account) else {
        return Ok(Json(Dropped { messages: 0 }));
    };
    let mut dropped = 0;
    for at in backend.volumes.mounted() {
        let rows = at.volume.messages(holder, MailboxId::INBOX).await;
        let rows = rows.map_err(|error| refusal::read(&error))?;
        let uids = rows.iter().map(|message| message.uid);
        let is_meant = |uid: &u32| {
            let place = Place {
                volume: at.name.clone(),
                account,
                uid: *uid,
            };
            !request.only_aside || backend.holds.known().aside.of(&place).is_some()
        };
        let uids: Vec<u32> = uids.filter(is_meant).collect();
        for uids in uids.chunks(DROPPED_AT_ONCE) {
            let gone = at
                .volume
                .expunge(holder, HOLD_EPOCH, MailboxId::INBOX, uids.to_vec());
            let gone = gone.await.map_err(refusal::account)?;
            dropped += gone.uids.len() as u64;
        }
    }
    // Mail that somebody was promised is gone.
    warn!(%account, %peer, messages = dropped, "held mail dropped");
    Ok(Json(Dropped { messages: dropped }))
}

const DROPPED_AT_ONCE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_their_places() {
        let minutes = |count: i64| age(count * 60_000);
        assert_eq!(
            [minutes(0), minutes(4), minutes(5), minutes(9)],
            [0, 0, 1, 1]
        );
        assert_eq!([minutes(1279), minutes(1280), minutes(99_999)], [8, 9, 9]);
        assert_eq!(age(-5), 0, "a clock that was set back");
    }
}
