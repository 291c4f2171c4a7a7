//! `POST /v1/transfer/pull`: this back-end, the target, fetches an account from its source.
//!
//! ```text
//! begin import ─▶ sums of the source ─▶ blocks that differ ─▶ their items: what is gone goes, blobs that are missing come
//!                        ▲              (several at once), then the items that name them ─┐
//!                        └─── more than a little had changed, or, of a frozen source, something differs ──┘
//! ```
//! A round asks which blocks differ, not what was changed: so it does not matter what came before, be it nothing, a round whose
//! source was written meanwhile, or a pull that was killed. What is here is not copied again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use daemon::identity::Peer;
use daemon::link::{BodySender, LinkBody, Problem, require};
use daemon::log::causes;
use directory_api::AccountId;
use directory_api::wire::code;
use store_api::frame::{Kind, frame, json_frame};
use store_api::transfer::{
    Blob, BlockName, EXPORT_BLOCKS_MAX, Export, Pull, PullProgress, PullStopped, SumsQuery,
    TransferClient, TransferError,
};
use store_api::{BlobHash, MoveId};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::source::AT_WORK_INTERVAL;
use super::{DRIVERS, octets};
use crate::backend::Backend;
use crate::link::Asked;
use crate::volume::{Block, Hash, Item, NamedMessage, ReadError, Refusal, Tally, WriteError};
use crate::volumes::Mounted;
use crate::{metrics, refusal};

/// Blobs on their way at once: hides the round trip, and bounds memory by a few windows.
const BLOBS_IN_FLIGHT: usize = 8;
/// Items of one import command, and their octets.
const ITEMS_MAX: usize = 500;
const ITEMS_MAX_OCTETS: usize = 1 << 20;
/// The source sends nothing for this long: it is gone, and the migrator asks again.
const STALL_MAX: Duration = Duration::from_secs(30);

/// So little is left that a freeze is short: changes of one round, and octets that came with them.
const NEAR_CHANGES: u64 = 64;
const NEAR_OCTETS: u64 = 1 << 20;
/// From this round on it is enough that a round is short: the account is written without a pause.
const ROUNDS_MAX: u32 = 16;
const ROUND_SHORT: Duration = Duration::from_millis(500);
/// Then its writers are faster than the copy, or its owner moves huge mailboxes to and fro.
const ROUNDS_LIMIT: u32 = 200;
/// Of a frozen source, of which one should do.
const LAST_ROUNDS_MAX: u32 = 3;

/// How often a batch's blobs are fetched again because some went between asking and importing.
const COPY_TRIES: usize = 3;
/// A pull whose migrator is gone ends at once; this one waits for it.
const TURN_MAX: Duration = Duration::from_secs(5);

/// One pull of an account at a time: a second would begin the import anew under the first.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    running: Mutex<Running>,
    ended: Notify,
}

impl Pulls {
    /// Ends the pull of an account, if one of this move is running: it is given up.
    pub(super) fn stop(&self, account: AccountId, move_id: MoveId) {
        if let Some((running, stop)) = lock(&self.running).get(&account)
            && *running == move_id
        {
            stop.notify_one();
        }
    }
}

/// The right to pull one account, until dropped.
struct Turn {
    backend: Arc<Backend>,
    account: AccountId,
    stop: Arc<Notify>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.backend.pulls.running).remove(&self.account);
        self.backend.pulls.ended.notify_waiters();
    }
}

/// Waits until nobody else pulls the account.
async fn turn(backend: &Arc<Backend>, account: AccountId, move_id: MoveId) -> Turn {
    loop {
        let ended = backend.pulls.ended.notified();
        let stop = Arc::new(Notify::new());
        if let Entry::Vacant(free) = lock(&backend.pulls.running).entry(account) {
            free.insert((move_id, Arc::clone(&stop)));
            return Turn {
                backend: Arc::clone(backend),
                account,
                stop,
            };
        }
        ended.await;
    }
}

type Running = HashMap<AccountId, (MoveId, Arc<Notify>)>;

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a pull stopped. Everything that is here stays for the next.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("source did not answer")]
    Source(#[from] TransferError),
    #[error("source sent nothing for too long")]
    Stalled,
    #[error("body of message {} in mailbox {} did not come whole from the source (blob {})", .0.uid, .0.mailbox, .0.hash)]
    Blob(Blob, #[source] TransferError),
    #[error("source sent other octets than those of blob {0}")]
    WrongBlob(BlobHash),
    #[error("source is frozen and has no message any more with blob {0}, which its items name")]
    NoBlob(BlobHash),
    #[error("source sent what nobody asked for")]
    Unasked,
    #[error("account is written faster than it can be copied")]
    TooFast,
    #[error("{0} blocks differ still, though the source is frozen and everything was copied")]
    Different(usize),
    #[error("blob cannot be written")]
    Write(#[from] WriteError),
    #[error("volume cannot be read")]
    Read(#[from] ReadError),
    #[error("volume refused")]
    Refused(#[from] Refusal),
    #[error("migrator is gone")]
    Gone,
    #[error("move was given up, or the process is stopping")]
    Stopped,
}

/// Serves the path. A refusal of the import itself is a problem; what fails later cuts the stream.
pub(super) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Pull>,
) -> Result<Response, Problem> {
    require(&peer, &DRIVERS)?;
    let Some(turn) = timeout(TURN_MAX, turn(&backend, request.account, request.move_id))
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
        let Pull { account, move_id, source, is_last, .. } = &request;
        let began = Instant::now();
        let client = TransferClient::new(pulling.backends.link_at(source, &request.source_address));
        let told = Mutex::default();
        let mut run = Run {
            told: &told,
            backend: &pulling,
            to,
            client,
            request: &request,
            sender: &sender,
            pace: Pace::new(request.octets_per_s.filter(|_| !is_last)),
            progress: PullProgress::default(),
        };
        let pulled = tokio::select! {
            pulled = run.rounds() => pulled,
            () = turn.stop.notified() => Err(PullError::Stopped),
            () = sender.gone() => Err(PullError::Gone),
            gone = still_at_work(&sender, &told) => Err(gone),
        };
        let PullProgress { round, messages, octets, copied_octets, .. } = run.progress;
        match pulled {
            Ok(()) => {
                metrics::transfer("pull", "done");
                info!(%account, %move_id, %source, is_last, rounds = round, messages, octets, copied_octets,
                    seconds = began.elapsed().as_secs_f64(), "account pulled");
                sender.finish();
            }
            Err(why) => {
                metrics::transfer("pull", "failed");
                let why = causes(&why);
                warn!(%account, %move_id, %source, is_last, rounds = round, copied_octets, why, "pull stopped");
                // Who is gone does not hear it.
                let _ = sender.send(json_frame(Kind::Stopped, &PullStopped { why })).await;
                sender.finish();
            }
        }
        drop(turn);
    });
    Ok(Response::new(Body::new(body)))
}

/// One pull.
struct Run<'a> {
    backend: &'a Arc<Backend>,
    to: Arc<Mounted>,
    client: TransferClient,
    request: &'a Pull,
    sender: &'a BodySender,
    /// What was told last, to be told again.
    told: &'a Mutex<PullProgress>,
    pace: Pace,
    progress: PullProgress,
}

/// What a round has changed here.
#[derive(Clone, Copy, Default)]
struct Work {
    changes: u64,
    octets: u64,
}

impl Run<'_> {
    async fn rounds(&mut self) -> Result<(), PullError> {
        let Pull {
            account,
            move_id,
            is_last,
            ..
        } = *self.request;
        self.report().await?;
        let tallies = &self.backend.tallies;
        let volume = &self.to.volume.clone();
        let mut tally = tallies.counted(volume, account, move_id).await?;
        // If this stops in between they are counted again.
        tallies.keep(account, move_id, None).await;
        let mut is_done = false;
        while !is_done {
            self.progress.round += 1;
            let began = Instant::now();
            let differ = self.differing(&tally).await?;
            let blocks: Vec<Block> = differ.keys().copied().collect();
            let work = self.take(&blocks).await?;
            tally = volume.recount(tally, blocks).await?;
            self.progress.messages = self.progress.messages_total;
            self.progress.octets = self.progress.octets_total;
            let round = self.progress.round;
            if is_last {
                let left = differ
                    .iter()
                    .filter(|(block, sum)| tally.sum(**block) != **sum);
                let left = left.count();
                is_done = left == 0;
                if !is_done && round >= LAST_ROUNDS_MAX {
                    return Err(PullError::Different(left));
                }
            } else {
                let near = work.changes <= NEAR_CHANGES && work.octets <= NEAR_OCTETS;
                is_done = near || round >= ROUNDS_MAX && began.elapsed() <= ROUND_SHORT;
                if !is_done && round >= ROUNDS_LIMIT {
                    return Err(PullError::TooFast);
                }
            }
            self.report().await?;
        }
        tallies.keep(account, move_id, Some(tally)).await;
        self.progress.done = true;
        self.report().await?;
        self.send(frame(Kind::End, b"")).await
    }

    /// The blocks of which the source has another sum, or which it has not.
    async fn differing(
        &mut self,
        ours: &Tally,
    ) -> Result<BTreeMap<Block, Option<Hash>>, PullError> {
        let query = SumsQuery {
            account: self.request.account,
            move_id: self.request.move_id,
        };
        let mut stream = within(self.client.sums(&query)).await??;
        let head = within(stream.head()).await??;
        self.progress.messages_total = head.messages;
        self.progress.octets_total = head.octets;
        let mut differ: BTreeMap<Block, Option<Hash>> =
            ours.sums().map(|(block, _)| (block, None)).collect();
        while let Some(sums) = within(stream.next()).await?? {
            for (name, sum) in sums {
                let block = Block::of_octets(name.0).ok_or(PullError::Unasked)?;
                match ours.sum(block) == Some(sum) {
                    true => differ.remove(&block),
                    false => differ.insert(block, Some(sum)),
                };
            }
        }
        Ok(differ)
    }

    /// Makes blocks here what they are at the source now.
    async fn take(&mut self, blocks: &[Block]) -> Result<Work, PullError> {
        let mut work = Work::default();
        for asked in blocks.chunks(EXPORT_BLOCKS_MAX) {
            let export = Export {
                account: self.request.account,
                move_id: self.request.move_id,
                blocks: asked
                    .iter()
                    .map(|block| BlockName(block.octets()))
                    .collect(),
            };
            let mut stream = within(self.client.export(&export)).await??;
            // Blocks that have come whole, and the one that is coming.
            let (mut begun, mut items, mut octets) = (0, Vec::new(), 0);
            let mut coming = asked[0];
            while let Some(item) = within(stream.next()).await?? {
                let item = Item(item);
                let block = item.block().ok_or(PullError::Unasked)?;
                if block != coming {
                    let at = asked.binary_search(&block);
                    let at = at
                        .ok()
                        .filter(|_| block > coming)
                        .ok_or(PullError::Unasked)?;
                    if items.len() >= ITEMS_MAX
                        || octets >= ITEMS_MAX_OCTETS
                        || coming.is_frame() && !block.is_frame()
                    {
                        self.make_same(&asked[begun..at], std::mem::take(&mut items), &mut work)
                            .await?;
                        (begun, octets) = (at, 0);
                    }
                    coming = block;
                }
                octets += item.0.len();
                items.push(item);
            }
            self.make_same(&asked[begun..], items, &mut work).await?;
        }
        Ok(work)
    }

    /// Makes some blocks here what they are at the source: `theirs` are all the items they have there.
    async fn make_same(
        &mut self,
        blocks: &[Block],
        theirs: Vec<Item>,
        work: &mut Work,
    ) -> Result<(), PullError> {
        let Pull {
            account, move_id, ..
        } = *self.request;
        let volume = self.to.volume.clone();
        let id = octets(move_id);
        let (count, their_octets) = messages(&theirs);
        let ours = volume.items_of(account, blocks.to_vec()).await?;
        let names: HashSet<_> = theirs.iter().filter_map(Item::name).collect();
        let gone = |item: &Item| item.name().is_some_and(|name| !names.contains(&name));
        let gone: Vec<Item> = ours.iter().filter(|item| gone(item)).cloned().collect();
        let ours: BTreeSet<Item> = ours.into_iter().collect();
        let new = theirs.into_iter().filter(|item| !ours.contains(item));
        let new: Vec<Item> = new.collect();
        drop(ours);
        work.changes += (gone.len() + new.len()) as u64;
        for batch in batches(gone) {
            volume.import_gone(account, id, batch).await?;
        }
        for mut batch in batches(new) {
            work.octets += batch.iter().map(|item| item.0.len() as u64).sum::<u64>();
            let mut tries_left = COPY_TRIES;
            loop {
                let before = self.progress.copied_octets;
                self.copy_missing(&mut batch).await?;
                work.octets += self.progress.copied_octets - before;
                tries_left -= 1;
                match volume.import_items(account, id, batch.clone()).await {
                    // A blob that only something just deleted had named was still there when it was
                    // asked for, and is gone now: an earlier try of this very move, for one.
                    Err(Refusal::MissingBlobs(_)) if tries_left > 0 => {}
                    imported => break imported?,
                }
            }
        }
        let progress = &mut self.progress;
        progress.messages = progress.messages_total.min(progress.messages + count);
        progress.octets = progress.octets_total.min(progress.octets + their_octets);
        self.report().await
    }

    /// Fetches the blobs that these items name and that are not here. Messages that have gone at the source meanwhile are left
    /// out: the next round has it.
    async fn copy_missing(&mut self, items: &mut Vec<Item>) -> Result<(), PullError> {
        let mut missing = missing(&self.to, items).await?.into_iter();
        let mut copying = JoinSet::new();
        let mut gone = HashSet::new();
        loop {
            while copying.len() < BLOBS_IN_FLIGHT
                && let Some(named) = missing.next()
            {
                let (to, client) = (Arc::clone(&self.to), self.client.clone());
                let blob = Blob {
                    account: self.request.account,
                    move_id: self.request.move_id,
                    mailbox: named.mailbox.0,
                    uid: named.uid,
                    hash: BlobHash(named.hash),
                };
                copying.spawn(async move { copy(&to, &client, blob).await });
            }
            let Some(copied) = copying.join_next().await else {
                break;
            };
            match copied.map_err(|_| PullError::Stopped)?? {
                Ok(octets) => {
                    self.progress.copied_octets += octets;
                    self.pace.spend(octets).await;
                    self.report().await?;
                }
                Err(hash) if !self.request.is_last => {
                    gone.insert(hash.0);
                }
                Err(hash) => return Err(PullError::NoBlob(hash)),
            }
        }
        if !gone.is_empty() {
            let is_there = |item: &Item| item.message().is_none_or(|it| !gone.contains(&it.hash));
            items.retain(is_there);
        }
        Ok(())
    }

    async fn report(&self) -> Result<(), PullError> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.progress;
        self.send(json_frame(Kind::Progress, &self.progress)).await
    }

    async fn send(&self, piece: Bytes) -> Result<(), PullError> {
        tell(self.sender, piece).await
    }
}

/// Tells the migrator again how far it is, for as long as it takes: counting a huge account, for one. Who hears nothing takes this
/// process for stuck.
async fn still_at_work(sender: &BodySender, told: &Mutex<PullProgress>) -> PullError {
    loop {
        tokio::time::sleep(AT_WORK_INTERVAL).await;
        let progress = *told.lock().unwrap_or_else(PoisonError::into_inner);
        // The last word is said where it is known.
        if !progress.done
            && let Err(error) = tell(sender, json_frame(Kind::Progress, &progress)).await
        {
            return error;
        }
    }
}

async fn tell(sender: &BodySender, piece: Bytes) -> Result<(), PullError> {
    within(sender.send(piece))
        .await?
        .map_err(|_| PullError::Gone)
}

/// Keeps to so many octets a second.
struct Pace {
    octets_per_s: Option<u64>,
    began: Instant,
    octets: u64,
}

impl Pace {
    fn new(octets_per_s: Option<u64>) -> Self {
        Self {
            octets_per_s,
            began: Instant::now(),
            octets: 0,
        }
    }

    /// Waits until these octets, too, are within it.
    async fn spend(&mut self, octets: u64) {
        let Some(octets_per_s) = self.octets_per_s else {
            return;
        };
        self.octets += octets;
        let due = Duration::from_secs_f64(self.octets as f64 / octets_per_s.max(1) as f64);
        tokio::time::sleep_until((self.began + due).into()).await;
    }
}

/// Copies one blob and verifies its hash (P9); answers its octets, or that the message is not there any more.
async fn copy(
    to: &Mounted,
    client: &TransferClient,
    blob: Blob,
) -> Result<Result<u64, BlobHash>, PullError> {
    let stream = within(client.blob(&blob)).await?;
    let mut stream = match stream {
        Err(TransferError::Refused(problem)) if problem.code == code::NOT_FOUND => {
            return Ok(Err(blob.hash));
        }
        stream => stream.map_err(|error| PullError::Blob(blob.clone(), error))?,
    };
    let mut writer = to.volume.begin_blob();
    loop {
        let octets = within(stream.next()).await?;
        match octets.map_err(|error| PullError::Blob(blob.clone(), error))? {
            Some(octets) => writer.write(&octets).await?,
            None => break,
        }
    }
    let finished = writer.finish().await?;
    if finished.hash() != blob.hash.0 {
        return Err(PullError::WrongBlob(blob.hash));
    }
    let octets = finished.size();
    // An import that finds it missing asks for it again.
    drop(to.volume.put_blob(finished).await?);
    Ok(Ok(octets))
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

async fn within<T>(work: impl Future<Output = T>) -> Result<T, PullError> {
    timeout(STALL_MAX, work)
        .await
        .map_err(|_| PullError::Stalled)
}
