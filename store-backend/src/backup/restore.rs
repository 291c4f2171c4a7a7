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
    AppendBody, AppendMessage, FlagSet, Flags, Item, MailboxInfo, Refusal, SpecialUse, Volume,
};
use crate::volumes::Mounted;

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
    let mut decoder = Decoder::default();
    let open: Append = first_frame(&mut body, &mut decoder).await?;
    let Append { account, epoch, .. } = open;
    let home = backend.volumes.of(account).await?;
    home.check_writable()?;
    let volume = &home.volume;
    // An account whose home has lost it is begun anew, as by a session or a delivery.
    let here = volume.ensure_account(account, epoch).await;
    here.map_err(refusal::account)?;
    let writer = volume.begin_blob();
    let blob = take_blob(writer, &mut body, &mut decoder, open.hash.0).await?;
    let octets = blob.size();
    let appended = async {
        // Held until a message names it.
        let _held = volume.put_blob(blob).await?;
        let mailbox = match mailbox(volume, account, &open.mailbox).await? {
            Some(found) => found.mailbox,
            None => {
                let made = volume
                    .create_mailbox(account, epoch, &open.mailbox, SpecialUse::default())
                    .await;
                match (made, mailbox(volume, account, &open.mailbox).await?) {
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
    volume: &Volume,
    account: AccountId,
    name: &str,
) -> Result<Option<MailboxInfo>, Refusal> {
    let found = volume.mailbox(account, name).await;
    found.map_err(|_| Refusal::ReadOnly)
}

async fn begin(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Begin>,
) -> Result<Json<()>, Problem> {
    let home = restored_home(&backend, &peer, request.account).await?;
    let begun = home
        .volume
        .begin_import(request.account, octets(request.restore_id), None);
    done(&peer, "begin", request, begun.await)
}

async fn missing(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Missing>,
) -> Result<Json<Missing>, Problem> {
    let home = restored_home(&backend, &peer, request.account).await?;
    let Missing { account, hashes } = request;
    if hashes.len() > HASHES_MAX {
        return Err(malformed("more hashes than one request may name"));
    }
    let asked = hashes.iter().map(|hash| hash.0).collect();
    let here = home.volume.has_blobs(asked).await;
    let here = here.map_err(|error| refusal::read(&error))?;
    let missing = hashes.into_iter().zip(here);
    Ok(Json(Missing {
        account,
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
    backend.check_operator(&peer)?;
    let mut decoder = Decoder::default();
    let open: Put = first_frame(&mut body, &mut decoder).await?;
    let volume = &restored_home(&backend, &peer, open.account).await?.volume;
    let writer = volume.begin_blob();
    let blob = take_blob(writer, &mut body, &mut decoder, open.hash.0).await?;
    // Items that name it come within the hour that it is kept for, or it is asked for again.
    drop(volume.put_blob(blob).await.map_err(refusal::account)?);
    Ok(Json(()))
}

async fn items(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Json<()>, Problem> {
    backend.check_operator(&peer)?;
    let mut decoder = Decoder::default();
    let begin: Begin = first_frame(&mut body, &mut decoder).await?;
    let home = restored_home(&backend, &peer, begin.account).await?;
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
    let taken = home
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
    let Finish {
        account,
        restore_id,
        epoch,
        set_hash,
    } = request;
    let home = restored_home(&backend, &peer, account).await?;
    let here = home.volume.set_hash(account).await;
    if here.map_err(|error| refusal::read(&error))? != set_hash.0 {
        warn!(%account, %peer, "a restored account differs from its backup");
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "different",
            "what is here differs from the backup",
        ));
    }
    let opened = home.volume.activate(account, epoch, octets(restore_id));
    let begin = Begin {
        account,
        restore_id,
    };
    done(&peer, "finish", begin, opened.await)
}

/// Accounts come whole only to a volume that takes no mail: once it does, the numbers they bring may be given already, and
/// nothing would make them skip ahead. That nothing comes during and behind an adoption, the volume decides.
async fn restored_home(
    backend: &Backend,
    peer: &Peer,
    account: AccountId,
) -> Result<Arc<Mounted>, Problem> {
    backend.check_operator(peer)?;
    let home = backend.volumes.of(account).await?;
    match home.volume.is_restored() {
        true => Ok(home),
        false => Err(refusal::account(Refusal::Adopted)),
    }
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
