//! `POST /v1/transfer/pull`: this back-end, the target, fetches an account from its source.
//!
//! ```text
//! begin import ─▶ all items ─▶ of some hundred: blobs that are missing (several at once) ─▶ import ─▶ … ─▶ done
//! ```
//! Blobs come before the items that name them, because an item may only name a blob that is here.
//! Asked again after a crash or a cut, what came before is still here and is not copied again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use daemon::identity::Peer;
use daemon::link::{BodySender, LinkBody, Problem, require};
use directory_api::AccountId;
use store_api::BlobHash;
use store_api::frame::{Kind, frame, json_frame};
use store_api::transfer::{Blob, Export, Pull, PullProgress, TransferClient, TransferError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{DRIVERS, octets};
use crate::backend::Backend;
use crate::link::Asked;
use crate::volume::{Item, NamedMessage, ReadError, Refusal, WriteError};
use crate::volumes::Mounted;
use crate::{metrics, refusal};

/// Blobs on their way at once: hides the round trip, and bounds memory by a few windows.
const BLOBS_IN_FLIGHT: usize = 8;
/// Items of one import command, and their octets.
const ITEMS_MAX: usize = 500;
const ITEMS_MAX_OCTETS: usize = 1 << 20;
/// The source sends nothing for this long: it is gone, and the migrator asks again.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How often a batch's blobs are fetched again because some went between asking and importing.
const COPY_TRIES: usize = 3;
/// A pull whose migrator is gone ends at once; this one waits for it.
const TURN_MAX: Duration = Duration::from_secs(5);

/// One pull of an account at a time: a second would begin the import anew under the first.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    running: Mutex<HashSet<AccountId>>,
    ended: Notify,
}

/// The right to pull one account, until dropped.
struct Turn {
    backend: Arc<Backend>,
    account: AccountId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.backend.pulls.running).remove(&self.account);
        self.backend.pulls.ended.notify_waiters();
    }
}

/// Waits until nobody else pulls the account.
async fn turn(backend: &Arc<Backend>, account: AccountId) -> Turn {
    loop {
        let ended = backend.pulls.ended.notified();
        if lock(&backend.pulls.running).insert(account) {
            let backend = Arc::clone(backend);
            return Turn { backend, account };
        }
        ended.await;
    }
}

fn lock(running: &Mutex<HashSet<AccountId>>) -> MutexGuard<'_, HashSet<AccountId>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a pull stopped. Everything that is here stays for the next.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("source: {0}")]
    Source(#[from] TransferError),
    #[error("source sent nothing for too long")]
    Stalled,
    #[error("source sent other octets than those of blob {0}")]
    WrongBlob(BlobHash),
    #[error("blob cannot be written: {0}")]
    Write(#[from] WriteError),
    #[error("volume cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("volume refused: {0}")]
    Refused(#[from] Refusal),
    #[error("migrator is gone")]
    Gone,
    #[error("process is stopping")]
    Stopped,
}

/// Serves the path. A refusal of the import itself is a problem; what fails later cuts the stream.
pub(super) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Pull>,
) -> Result<Response, Problem> {
    require(&peer, &DRIVERS)?;
    let Some(turn) = timeout(TURN_MAX, turn(&backend, request.account))
        .await
        .ok()
    else {
        return Err(Problem::unavailable(
            "another pull of the account is running",
        ));
    };
    let Pull {
        account,
        move_id,
        ref source,
        ..
    } = request;
    let to = backend
        .volumes
        .for_import(account, request.volume.as_ref())
        .await?;
    to.check_writable()?;
    let begun = to
        .volume
        .begin_import(account, octets(move_id), Some(source.clone()))
        .await;
    if let Err(refused) = begun {
        metrics::transfer("pull", "refused");
        warn!(%account, %move_id, %source, why = %refused, "pull refused");
        return Err(refusal::account(refused));
    }
    let (sender, body) = LinkBody::channel(2);
    let pulling = Arc::clone(&backend);
    backend.shutdown.spawn(async move {
        let _turn = turn;
        let Pull { account, move_id, source, .. } = &request;
        let pulled = tokio::select! {
            pulled = run(&pulling, &to, &request, &sender) => pulled,
            () = sender.gone() => Err(PullError::Gone),
        };
        match pulled {
            Ok(PullProgress { messages, octets, copied_octets, .. }) => {
                metrics::transfer("pull", "done");
                info!(%account, %move_id, %source, messages, octets, copied_octets, "account pulled");
                sender.finish();
            }
            Err(why) => {
                metrics::transfer("pull", "failed");
                warn!(%account, %move_id, %source, %why, "pull stopped");
            }
        }
    });
    Ok(Response::new(Body::new(body)))
}

async fn run(
    backend: &Backend,
    to: &Arc<Mounted>,
    request: &Pull,
    sender: &BodySender,
) -> Result<PullProgress, PullError> {
    let Pull {
        account,
        move_id,
        ref source,
        ref source_address,
        ..
    } = *request;
    let client = TransferClient::new(backend.backends.link_at(source, source_address));
    let items = items(&client, &Export { account, move_id }).await?;
    let mut progress = PullProgress::default();
    (progress.messages_total, progress.octets_total) = messages(&items);
    report(sender, progress).await?;
    for batch in batches(items) {
        let (count, octets) = messages(&batch);
        let mut tries_left = COPY_TRIES;
        loop {
            copy_missing(to, &client, request, &batch, sender, &mut progress).await?;
            tries_left -= 1;
            let import = to
                .volume
                .import_items(account, self::octets(move_id), batch.clone());
            match import.await {
                // A blob that only something just deleted had named was still there when it was
                // asked for, and is gone now: an earlier try of this very move, for one.
                Err(Refusal::MissingBlobs(_)) if tries_left > 0 => {}
                imported => break imported?,
            }
        }
        progress.messages += count;
        progress.octets += octets;
        report(sender, progress).await?;
    }
    progress.done = true;
    report(sender, progress).await?;
    within(sender.send(frame(Kind::End, b"")))
        .await?
        .map_err(|_| PullError::Gone)?;
    Ok(progress)
}

/// Fetches the blobs that these items name and that are not here.
async fn copy_missing(
    to: &Arc<Mounted>,
    client: &TransferClient,
    request: &Pull,
    items: &[Item],
    sender: &BodySender,
    progress: &mut PullProgress,
) -> Result<(), PullError> {
    let mut missing = missing(to, items).await?.into_iter();
    let mut copying = JoinSet::new();
    loop {
        while copying.len() < BLOBS_IN_FLIGHT
            && let Some(named) = missing.next()
        {
            let (to, client) = (Arc::clone(to), client.clone());
            let blob = Blob {
                account: request.account,
                move_id: request.move_id,
                mailbox: named.mailbox.0,
                uid: named.uid,
                hash: BlobHash(named.hash),
            };
            copying.spawn(async move { copy(&to, &client, &blob).await });
        }
        let Some(copied) = copying.join_next().await else {
            return Ok(());
        };
        progress.copied_octets += copied.map_err(|_| PullError::Stopped)??;
        report(sender, *progress).await?;
    }
}

/// All items. They hold no mail but trace lines: some hundred octets for each message.
async fn items(client: &TransferClient, export: &Export) -> Result<Vec<Item>, PullError> {
    let mut stream = within(client.export(export)).await??;
    let mut items = Vec::new();
    while let Some(item) = within(stream.next()).await?? {
        items.push(Item(item));
    }
    Ok(items)
}

/// Copies one blob and verifies its hash (P9); answers its octets.
async fn copy(to: &Mounted, client: &TransferClient, blob: &Blob) -> Result<u64, PullError> {
    let mut stream = within(client.blob(blob)).await??;
    let mut writer = to.volume.begin_blob();
    while let Some(octets) = within(stream.next()).await?? {
        writer.write(&octets).await?;
    }
    let finished = writer.finish().await?;
    if finished.hash() != blob.hash.0 {
        return Err(PullError::WrongBlob(blob.hash));
    }
    let octets = finished.size();
    // An import that finds it missing asks for it again.
    drop(to.volume.put_blob(finished).await?);
    Ok(octets)
}

/// How many messages, and the octets of their blobs.
fn messages(items: &[Item]) -> (u64, u64) {
    items
        .iter()
        .filter_map(Item::message)
        .fold((0, 0), |(count, sum), message| {
            (count + 1, sum + message.octets)
        })
}

/// Messages whose blobs are not here, one for each blob that these items name.
async fn missing(to: &Mounted, items: &[Item]) -> Result<Vec<NamedMessage>, PullError> {
    let mut named: Vec<NamedMessage> = items.iter().filter_map(Item::message).collect();
    named.sort_unstable_by_key(|message| message.hash);
    named.dedup_by_key(|message| message.hash);
    let hashes = named.iter().map(|message| message.hash).collect();
    let here = to.volume.has_blobs(hashes).await?;
    Ok(named
        .into_iter()
        .zip(here)
        .filter_map(|(message, here)| (!here).then_some(message))
        .collect())
}

fn batches(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut batches = Vec::new();
    let (mut batch, mut octets) = (Vec::new(), 0);
    for item in items {
        octets += item.0.len();
        batch.push(item);
        if batch.len() >= ITEMS_MAX || octets >= ITEMS_MAX_OCTETS {
            batches.push(std::mem::take(&mut batch));
            octets = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

async fn report(sender: &BodySender, progress: PullProgress) -> Result<(), PullError> {
    within(sender.send(json_frame(Kind::Progress, &progress)))
        .await?
        .map_err(|_| PullError::Gone)
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, PullError> {
    timeout(STALL_MAX, work)
        .await
        .map_err(|_| PullError::Stalled)
}
