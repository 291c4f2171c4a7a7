//! What a restore gives: messages for a mailbox in use, or whole accounts for a volume that takes no mail yet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use daemon::identity::Peer;
use daemon::link::Problem;
use directory_api::AccountId;
use http::StatusCode;
use store_api::backup::{Append, Appended, Begin, Finish, HASHES_MAX, Missing, Put, path};
use store_api::frame::{Decoder, Event, Kind};
use tracing::{info, warn};

use super::{next_within, take_blob};
use crate::backend::Backend;
use crate::link::{Asked, first_frame};
use crate::refusal::{self, malformed};
use crate::transfer::octets;
use crate::volume::{
    AppendBody, AppendMessage, FlagSet, Flags, Item, MailboxInfo, Refusal, SpecialUse,
};

pub(super) fn routes() -> Router<Arc<Backend>> {
    Router::new()
        .route(path::APPEND, post(append))
        .route(path::BEGIN, post(begin))
        .route(path::MISSING, post(missing))
        .route(path::PUT, post(put))
        .route(path::ITEMS, post(items))
        .route(path::FINISH, post(finish))
}

/// Octets of the items of one request. One is 64 KiB at most.
const ITEMS_MAX_OCTETS: usize = 4 << 20;

/// One message, as the account's owner would append it; it keeps its EMAILID.
async fn append(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Json<Appended>, Problem> {
    backend.check_operator(&peer)?;
    if !backend.may_write() {
        return Err(refusal::restored());
    }
    let mut decoder = Decoder::default();
    let open: Append = first_frame(&mut body, &mut decoder).await?;
    let Append { account, epoch, .. } = open;
    // An account whose home has lost it is begun anew, as by a session or a delivery.
    let here = backend.volume.ensure_account(account, epoch).await;
    here.map_err(refusal::account)?;
    let writer = backend.volume.begin_blob();
    let blob = take_blob(writer, &mut body, &mut decoder, open.hash.0).await?;
    let octets = blob.size();
    let appended = async {
        let volume = &backend.volume;
        // Held until a message names it.
        let _held = volume.put_blob(blob).await?;
        let mailbox = match mailbox(&backend, account, &open.mailbox).await? {
            Some(found) => found.mailbox,
            None => {
                let made = volume
                    .create_mailbox(account, epoch, &open.mailbox, SpecialUse::default())
                    .await;
                match (made, mailbox(&backend, account, &open.mailbox).await?) {
                    // Another message of the same restore has made it meanwhile.
                    (Ok(made), _) => made,
                    (Err(Refusal::MailboxExists), Some(found)) => found.mailbox,
                    (Err(refused), _) => return Err(refused),
                }
            }
        };
        let message = AppendMessage {
            body: AppendBody::Put {
                hash: open.hash.0,
                octets,
                identity: Some(open.identity.0),
            },
            flags: FlagSet {
                system: Flags(open.flags),
                keywords: open.keywords,
            },
            internal_date_ms: open.internal_date_ms,
        };
        volume.append(account, epoch, mailbox, vec![message]).await
    };
    match appended.await {
        Ok(appended) => {
            let appended = Appended {
                uidvalidity: appended.uidvalidity,
                uid: appended.uids.first().copied().unwrap_or_default(),
            };
            info!(%account, %peer, mailbox = open.mailbox, uid = appended.uid, "message put back from a backup");
            Ok(Json(appended))
        }
        Err(refused) => {
            warn!(%account, %peer, mailbox = open.mailbox, why = %refused, "message not put back");
            Err(match refused {
                Refusal::BadName => Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "bad_name",
                    "no mailbox or keyword can have this name",
                ),
                refused => refusal::account(refused),
            })
        }
    }
}

async fn mailbox(
    backend: &Backend,
    account: AccountId,
    name: &str,
) -> Result<Option<MailboxInfo>, Refusal> {
    let found = backend.volume.mailbox(account, name).await;
    found.map_err(|_| Refusal::ReadOnly)
}

async fn begin(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Begin>,
) -> Result<Json<()>, Problem> {
    check_restored(&backend, &peer)?;
    let begun = backend
        .volume
        .begin_import(request.account, octets(request.restore_id), None);
    done(&peer, "begin", request, begun.await)
}

async fn missing(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Missing>,
) -> Result<Json<Missing>, Problem> {
    check_restored(&backend, &peer)?;
    if request.hashes.len() > HASHES_MAX {
        return Err(malformed("more hashes than one request may name"));
    }
    let hashes = request.hashes.iter().map(|hash| hash.0).collect();
    let here = backend.volume.has_blobs(hashes).await;
    let here = here.map_err(|error| refusal::read(&error))?;
    let missing = request.hashes.into_iter().zip(here);
    Ok(Json(Missing {
        hashes: missing
            .filter_map(|(hash, here)| (!here).then_some(hash))
            .collect(),
    }))
}

async fn put(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Json<()>, Problem> {
    check_restored(&backend, &peer)?;
    let mut decoder = Decoder::default();
    let open: Put = first_frame(&mut body, &mut decoder).await?;
    let writer = backend.volume.begin_blob();
    let blob = take_blob(writer, &mut body, &mut decoder, open.hash.0).await?;
    // Items that name it come within the hour that it is kept for, or it is asked for again.
    drop(
        backend
            .volume
            .put_blob(blob)
            .await
            .map_err(refusal::account)?,
    );
    Ok(Json(()))
}

async fn items(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Json<()>, Problem> {
    check_restored(&backend, &peer)?;
    let mut decoder = Decoder::default();
    let begin: Begin = first_frame(&mut body, &mut decoder).await?;
    let (mut items, mut size) = (Vec::new(), 0);
    loop {
        match next_within(&mut body, &mut decoder).await? {
            Some(Event::Control(Kind::Item, item)) => {
                size += item.len();
                if size > ITEMS_MAX_OCTETS {
                    return Err(malformed("more items than one request may bring"));
                }
                items.push(Item(item));
            }
            Some(Event::Control(Kind::End, _)) => break,
            _ => return Err(malformed("items and an end were to come")),
        }
    }
    let taken = backend
        .volume
        .import_items(begin.account, octets(begin.restore_id), items);
    match taken.await {
        Ok(()) => Ok(Json(())),
        Err(Refusal::MissingBlobs(_)) => Err(Problem::new(
            StatusCode::CONFLICT,
            "missing_blobs",
            "items name blobs that are not here: put them first",
        )),
        Err(Refusal::BadItem) => Err(malformed("an item is not valid")),
        refused => done(&peer, "items", begin, refused),
    }
}

/// The account is opened only as the backup has it, bit for bit. What was given out since the backup is skipped when the
/// volume is adopted.
async fn finish(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Finish>,
) -> Result<Json<()>, Problem> {
    check_restored(&backend, &peer)?;
    let Finish {
        account,
        restore_id,
        epoch,
        set_hash,
    } = request;
    let here = backend.volume.set_hash(account).await;
    if here.map_err(|error| refusal::read(&error))? != set_hash.0 {
        warn!(%account, %peer, "a restored account differs from its backup");
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "different",
            "what is here differs from the backup",
        ));
    }
    let opened = backend.volume.activate(account, epoch, octets(restore_id));
    let begin = Begin {
        account,
        restore_id,
    };
    done(&peer, "finish", begin, opened.await)
}

/// Accounts come whole only to a volume that takes no mail: once it does, the numbers they bring may be given already, and
/// nothing would make them skip ahead. That nothing comes during and behind an adoption, the volume decides.
fn check_restored(backend: &Backend, peer: &Peer) -> Result<(), Problem> {
    backend.check_operator(peer)?;
    if backend.volume.is_restored() {
        return Ok(());
    }
    Err(refusal::account(Refusal::Adopted))
}

fn done(
    peer: &Peer,
    step: &'static str,
    Begin {
        account,
        restore_id,
    }: Begin,
    outcome: Result<(), Refusal>,
) -> Result<Json<()>, Problem> {
    match outcome {
        Ok(()) => {
            info!(step, %account, %restore_id, %peer, "restore of an account");
            Ok(Json(()))
        }
        Err(refused) => {
            warn!(step, %account, %restore_id, %peer, why = %refused, "restore of an account refused");
            Err(refusal::account(refused))
        }
    }
}
