//! The paths under `/v1/backup`: an operator's command reads accounts, and puts mail back.
//!
//! Whoever may do this reads everybody's mail without a grant, so the role is not enough: the settings name who may, and each
//! request is logged with who asked (P8).

mod restore;

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::BytesMut;
use daemon::identity::{Peer, Role};
use daemon::link::{LinkBody, Problem, require};
use directory_api::AccountId;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use store_api::SetHash;
use store_api::backup::{Blob, Snapshot, SnapshotEnd, path};
use store_api::frame::{Decoder, Event, Kind, frame, json_frame};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::backend::Backend;
use crate::link::{Asked, next_event};
use crate::refusal::{self, malformed};
use crate::transfer::{PIECE_OCTETS, STALL_MAX, Stopped, WINDOW_PIECES, blob_of, send, send_blob};
use crate::volume::{AccountItems, AccountState, BlobWriter, FinishedBlob, Piece, Refusal};
use crate::volumes::Mounted;

/// The paths, each with its caller checked first.
pub(crate) fn routes() -> Router<Arc<Backend>> {
    Router::new()
        .route(path::SNAPSHOT, post(snapshot))
        .route(path::BLOB, post(blob))
        .merge(restore::routes())
}

/// Accounts read at once: each keeps a transaction of the index open, and a thread.
static SNAPSHOTS: Semaphore = Semaphore::const_new(8);

impl Backend {
    /// Whether this operator may read and put back everybody's mail.
    fn check_operator(&self, peer: &Peer) -> Result<(), Problem> {
        require(peer, &[Role::Operator])?;
        if self.config.backup_operators.contains(&peer.node) {
            return Ok(());
        }
        warn!(%peer, "a backup was asked for by an operator whom `backup_operators` does not name");
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "operator_not_named",
            format!(
                "`backup_operators` of back-end {} does not name {:?}",
                self.name, peer.node
            ),
        ))
    }

    /// The account's volume, if its home is here. One that is being moved away can be read still.
    async fn home_here(&self, account: AccountId) -> Result<Arc<Mounted>, Problem> {
        let home = self.volumes.of(account).await?;
        let info = home.account(account).await?;
        let refused = match info.map(|info| info.state) {
            Some(AccountState::Active | AccountState::Frozen { .. }) => return Ok(home),
            Some(AccountState::Importing { .. }) => Refusal::WrongState,
            Some(AccountState::Moved { backend, epoch }) => Refusal::Moved { backend, epoch },
            // It may only not be there yet: that is no empty account.
            None if !home.may_write() => {
                return Err(Problem::unavailable(
                    "nothing of it is here, but the volume is not adopted: it may have been lost with it",
                ));
            }
            None => Refusal::NoAccount,
        };
        Err(refusal::account(refused))
    }
}

async fn snapshot(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Snapshot>,
) -> Result<Response, Problem> {
    backend.check_operator(&peer)?;
    let Snapshot { account, known } = request;
    let home = backend.home_here(account).await?;
    let turn = timeout(STALL_MAX, SNAPSHOTS.acquire()).await;
    let turn = turn.map_err(|_| Problem::unavailable("too many backups are being taken"))?;
    let known = known.map(|known| known.0);
    let items = home.volume.items_at_once(account, known).await;
    let (sender, body) = LinkBody::channel(WINDOW_PIECES);
    backend.shutdown.spawn(async move {
        let _turn = turn;
        match send_items(items, sender).await {
            Ok(SnapshotEnd {
                items, unchanged, ..
            }) => {
                info!(%account, %peer, items, unchanged, "account read for a backup");
            }
            Err(why) => warn!(%account, %peer, %why, "reading an account for a backup broke off"),
        }
    });
    Ok(Response::new(Body::new(body)))
}

async fn send_items(
    mut items: AccountItems,
    sender: daemon::link::BodySender,
) -> Result<SnapshotEnd, Stopped> {
    let mut piece = BytesMut::with_capacity(PIECE_OCTETS);
    while let Some(next) = items.next().await? {
        let page = match next {
            Piece::Items(page) => page,
            Piece::End(end) => {
                let end = SnapshotEnd {
                    epoch: end.epoch,
                    set_hash: SetHash(end.set_hash),
                    items: end.items,
                    unchanged: end.unchanged,
                };
                piece.extend_from_slice(&json_frame(Kind::Commit, &end));
                piece.extend_from_slice(&frame(Kind::End, b""));
                send(&sender, piece.freeze()).await?;
                sender.finish();
                return Ok(end);
            }
        };
        for item in page {
            piece.extend_from_slice(&frame(Kind::Item, &item.0));
            if piece.len() >= PIECE_OCTETS {
                send(&sender, piece.split().freeze()).await?;
            }
        }
    }
    // Without an end the other side takes none of it.
    Err(Stopped::Stalled)
}

/// The octets of a message's body, read whole and therefore verified (P9): one that proves wrong is cut off before its end.
async fn blob(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Blob>,
) -> Result<Response, Problem> {
    backend.check_operator(&peer)?;
    let Blob {
        account,
        mailbox,
        uid,
        hash,
    } = request;
    let home = backend.home_here(account).await?;
    let blob = blob_of(&home, account, (mailbox, uid), &hash).await?;
    let length = blob.size();
    let (sender, body) = LinkBody::channel(WINDOW_PIECES);
    backend.shutdown.spawn(async move {
        match send_blob(blob, sender).await {
            Ok(()) => info!(%account, %peer, mailbox, uid, "message read for a backup"),
            Err(why) => warn!(%account, %peer, mailbox, uid, %hash, %why, "blob broke off"),
        }
    });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

/// Takes the data frames of a body up to its end, and compares what they hash to (P9).
async fn take_blob(
    mut writer: BlobWriter,
    body: &mut Body,
    decoder: &mut Decoder,
    hash: [u8; 32],
) -> Result<FinishedBlob, Problem> {
    let unwritten = |_| Problem::unavailable("the volume cannot be written now");
    loop {
        match next_within(body, decoder).await? {
            Some(Event::Data(octets)) => writer.write(&octets).await.map_err(unwritten)?,
            Some(Event::Control(Kind::End, _)) => break,
            _ => return Err(malformed("octets and an end were to come")),
        }
    }
    let finished = writer.finish().await.map_err(unwritten)?;
    if finished.hash() == hash {
        Ok(finished)
    } else {
        Err(malformed("the octets have another hash"))
    }
}

/// The next event of a body that comes without a stop.
async fn next_within(body: &mut Body, decoder: &mut Decoder) -> Result<Option<Event>, Problem> {
    timeout(STALL_MAX, next_event(body, decoder))
        .await
        .map_err(|_| malformed("nothing came for too long"))?
}
