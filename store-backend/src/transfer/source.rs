//! What a source gives to the target that fetches an account: its items, then the blobs asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use daemon::identity::{Peer, Role};
use daemon::link::{BodySender, Gone, LinkBody, Problem, require};
use directory_api::AccountId;
use http::header::CONTENT_LENGTH;
use store_api::frame::{Kind, frame, json_frame};
use store_api::transfer::{Blob, EXPORT_BLOCKS_MAX, Export, SumsHead, SumsQuery};
use store_api::{BlobHash, MoveId};
use tokio::time::timeout;
use tracing::{error, warn};

use super::octets;
use crate::backend::Backend;
use crate::link::Asked;
use crate::refusal;
use crate::volume::{
    AccountInfo, AccountState, BlobReader, Block, MailboxId, ReadError, Refusal, Tally,
};
use crate::volumes::Mounted;

/// Pieces that wait for the target.
pub(crate) const WINDOW_PIECES: usize = 4;
/// Who waits for long work is told so often that it goes on.
pub(super) const AT_WORK_INTERVAL: Duration = Duration::from_secs(5);
/// Items are small: so many octets of them go in one piece.
pub(crate) const PIECE_OCTETS: usize = 64 << 10;
/// A target that takes nothing for this long is gone; it asks again.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

/// Serves `POST /v1/transfer/sums`.
pub(super) async fn sums(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<SumsQuery>,
) -> Result<Response, Problem> {
    require(&peer, &[Role::StoreBackend])?;
    let SumsQuery { account, move_id } = request;
    let (home, info) = given(&backend, &peer, account, move_id).await?;
    let head = SumsHead {
        messages: info.message_count,
        octets: info.size_octets,
    };
    let (sender, body) = LinkBody::channel(WINDOW_PIECES);
    let counting = Arc::clone(&backend);
    backend.shutdown.spawn(async move {
        let tally = counting.tallies.refreshed(&home.volume, account, move_id);
        if let Err(why) = send_sums(tally, head, sender).await {
            warn!(%account, %move_id, peer = %peer, %why, "sums broke off");
        }
    });
    Ok(Response::new(Body::new(body)))
}

async fn send_sums(
    tally: impl Future<Output = Result<Tally, ReadError>>,
    head: SumsHead,
    sender: BodySender,
) -> Result<(), Stopped> {
    send(&sender, json_frame(Kind::Open, &head)).await?;
    // A huge account is counted for minutes.
    let mut at_work = tokio::time::interval(AT_WORK_INTERVAL);
    tokio::pin!(tally);
    let tally = loop {
        tokio::select! {
            tally = &mut tally => break tally?,
            _ = at_work.tick() => send(&sender, frame(Kind::Sums, b"")).await?,
        }
    };
    let mut octets = Vec::with_capacity(PIECE_OCTETS);
    for (block, sum) in tally.sums() {
        octets.extend_from_slice(&block.octets());
        octets.extend_from_slice(&sum);
        if octets.len() + Block::OCTETS + sum.len() > PIECE_OCTETS {
            send(&sender, frame(Kind::Sums, &octets)).await?;
            octets.clear();
        }
    }
    if !octets.is_empty() {
        send(&sender, frame(Kind::Sums, &octets)).await?;
    }
    send(&sender, frame(Kind::End, b"")).await?;
    sender.finish();
    Ok(())
}

/// Serves `POST /v1/transfer/export`.
pub(super) async fn export(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Export>,
) -> Result<Response, Problem> {
    require(&peer, &[Role::StoreBackend])?;
    let Export {
        account,
        move_id,
        blocks,
    } = request;
    let blocks: Option<Vec<Block>> = blocks
        .into_iter()
        .map(|name| Block::of_octets(name.0))
        .collect();
    let blocks = blocks
        .filter(|blocks| blocks.len() <= EXPORT_BLOCKS_MAX && blocks.is_sorted())
        .ok_or_else(|| refusal::malformed("too many blocks, in no order, or of no known kind"))?;
    let (home, _) = given(&backend, &peer, account, move_id).await?;
    let (sender, body) = LinkBody::channel(WINDOW_PIECES);
    backend.shutdown.spawn(async move {
        if let Err(why) = send_items(&home, account, blocks, sender).await {
            error!(%account, %move_id, peer = %peer, %why, "export broke off");
        }
    });
    Ok(Response::new(Body::new(body)))
}

/// Why a stream to the target stopped. It asks again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("target is gone")]
    Gone,
    #[error("target took nothing for too long")]
    Stalled,
    #[error("volume cannot be read: {0}")]
    Read(#[from] ReadError),
}

async fn send_items(
    home: &Mounted,
    account: AccountId,
    blocks: Vec<Block>,
    sender: BodySender,
) -> Result<(), Stopped> {
    let mut piece = BytesMut::with_capacity(PIECE_OCTETS);
    for some in blocks.chunks(BLOCKS_READ) {
        for item in home.volume.items_of(account, some.to_vec()).await? {
            piece.extend_from_slice(&frame(Kind::Item, &item.0));
            if piece.len() >= PIECE_OCTETS {
                send(&sender, piece.split().freeze()).await?;
            }
        }
    }
    piece.extend_from_slice(&frame(Kind::End, b""));
    send(&sender, piece.freeze()).await?;
    sender.finish();
    Ok(())
}

/// The blob of a message, to be read; only if it has this hash.
pub(crate) async fn blob_of(
    home: &Mounted,
    account: AccountId,
    (mailbox, uid): (u32, u32),
    hash: &BlobHash,
) -> Result<BlobReader, Problem> {
    home.volume
        .read_message(account, MailboxId(mailbox), uid)
        .await
        .map_err(|error| refusal::read(&error))?
        .map(|message| message.blob)
        .filter(|blob| blob.hash() == hash.0)
        .ok_or_else(|| Problem::not_found("the account has no such message with this blob"))
}

/// Serves `POST /v1/transfer/blob`: the octets, read whole and therefore verified (P9). A blob that
/// proves wrong is cut off before its end, so that the target never takes it. A hash alone opens
/// nothing: it would tell of mail that other accounts have (P8).
pub(super) async fn blob(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Blob>,
) -> Result<Response, Problem> {
    require(&peer, &[Role::StoreBackend])?;
    let Blob {
        account,
        move_id,
        mailbox,
        uid,
        hash,
    } = request;
    let (home, _) = given(&backend, &peer, account, move_id).await?;
    let blob = blob_of(&home, account, (mailbox, uid), &hash).await?;
    let length = blob.size();
    let (sender, body) = LinkBody::channel(WINDOW_PIECES);
    backend.shutdown.spawn(async move {
        if let Err(why) = send_blob(blob, sender).await {
            error!(%account, %move_id, %hash, peer = %peer, %why, "blob broke off");
        }
    });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

pub(crate) async fn send_blob(mut blob: BlobReader, sender: BodySender) -> Result<(), Stopped> {
    while let Some(chunk) = blob.next().await? {
        send(&sender, chunk).await?;
    }
    sender.finish();
    Ok(())
}

pub(crate) async fn send(sender: &BodySender, piece: Bytes) -> Result<(), Stopped> {
    match timeout(STALL_MAX, sender.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Gone)) => Err(Stopped::Gone),
        Err(_) => Err(Stopped::Stalled),
    }
}

/// Only to the target that the move's migrator has named, and nothing when another move has frozen the account: nobody reads mail by
/// asking for a transfer (P8).
async fn given(
    backend: &Backend,
    peer: &Peer,
    account: AccountId,
    move_id: MoveId,
) -> Result<(Arc<Mounted>, AccountInfo), Problem> {
    let home = backend.volumes.of(account).await?;
    let info = home
        .account(account)
        .await?
        .ok_or_else(|| refusal::account(Refusal::NoAccount))?;
    let refused = match &info.state {
        AccountState::Frozen { move_id: frozen } if *frozen != octets(move_id) => {
            Some(Refusal::OtherMove)
        }
        AccountState::Active | AccountState::Frozen { .. }
            if backend.tallies.is_offered(account, move_id, &peer.node) =>
        {
            None
        }
        _ => Some(Refusal::WrongState),
    };
    match refused {
        None => Ok((home, info)),
        Some(refusal) => Err(refusal::account(refusal)),
    }
}

/// Blocks read at once: of messages 512, some hundred KiB.
const BLOCKS_READ: usize = 8;
