//! FETCH. RFC 9051 §6.4.5, RFC 7162 §3.1.4, §3.2.6.
//!
//! Messages are taken in slices. For each slice one visit to a thread that may block finds the rows and writes
//! responses into a buffer until that is full; the buffer goes to the client, and the work goes on where it was, even in the middle
//! of a literal ([`producer`]). So a command costs one buffer of memory, whatever it fetches.

pub(super) mod producer;
mod section;

use mail_proto::imap::command::{Fetch, FetchItem};
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::sequence::{Addressing, MessageSet, PartialRange, SequenceSet};
use mail_proto::mime::Dialect;
use tracing::error;

use super::place::check_open;
use super::reply::{Failure, Reply};
use super::select::intersection;
use super::state::{Place, Selected};
use super::view::View;
use super::{Causes, Session, limit, updates};
use crate::user::Cut;
use crate::volume::{FlagChange, Flags, ReadError, Rights, Turns};
use producer::{Producer, Progress, Wanted};

pub(super) async fn run(session: &mut Session<'_>, request: Fetch) -> Result<Reply, Failure> {
    let selected = session.selected()?;
    if request.vanished {
        // RFC 7162 §3.2.6.
        if !session.state.enabled.qresync {
            return Ok(Reply::bad("enable QRESYNC first"));
        }
        if request.by != Addressing::Uid || request.changed_since.is_none() {
            return Ok(Reply::bad("VANISHED goes with UID FETCH and CHANGEDSINCE"));
        }
    }
    let mut uids = selected.resolve(&request.set, request.by)?;
    if let Some(window) = request.partial {
        // RFC 9738 §3.1: asking for too many at once is refused, how many there are is not looked at.
        let limit = session.service.message_limit.kept();
        if let Some(limit) = limit.filter(|limit| window.last - window.first >= *limit) {
            let code = Code::MessageLimit(limit, None);
            let text = "the range is of too many messages";
            return Ok(Reply::new(Condition::No, Some(&code), text));
        }
        uids = within(&uids, window);
    }
    let beyond = limit::keep_last(session, &mut uids);
    let asks_modseq = request.items.contains(&FetchItem::ModSeq) || request.changed_since.is_some();
    if asks_modseq {
        session.use_modseq();
    }
    if let (true, Some(since)) = (request.vanished, request.changed_since) {
        tell_vanished(session, &request.set, since).await?;
    }
    let reply = fetch(session, &request, &uids, asks_modseq).await?;
    Ok(limit::conclude(session, reply, beyond))
}

/// What NOTIFY fetches of new messages.
pub(super) async fn new_messages(
    session: &mut Session<'_>,
    request: &Fetch,
    uids: &View,
) -> Result<(), Failure> {
    let asks_modseq = request.items.contains(&FetchItem::ModSeq);
    fetch(session, request, uids, asks_modseq).await.map(drop)
}

async fn fetch(
    session: &mut Session<'_>,
    request: &Fetch,
    uids: &View,
    asks_modseq: bool,
) -> Result<Reply, Failure> {
    let selected = session.selected()?;
    let sets_seen = request.items.iter().any(FetchItem::sets_seen)
        && selected.flag_rights().has(Rights::SEEN)
        && session.service.may_write;
    let enabled = session.state.enabled;
    let wanted = Wanted {
        items: request.items.as_slice().into(),
        // RFC 9051 §6.4.9: with UID FETCH it is always told; RFC 7162 §3.2.10: with QRESYNC too. RFC 9586 §3.3:
        // UIDFETCH begins with it.
        uid: request.items.contains(&FetchItem::Uid)
            || !enabled.uid_only && (request.by == Addressing::Uid || enabled.qresync),
        modseq: asks_modseq,
        uid_only: enabled.uid_only,
        condstore: enabled.condstore,
        recent: selected.recent.clone(),
        changed_since: request.changed_since,
        form: session.state.form(),
        dialect: match enabled.utf8() {
            true => Dialect::Utf8,
            false => Dialect::Rev1,
        },
    };
    let Place {
        account, mailbox, ..
    } = selected.place;
    let volume = session.volume_of(account).await?;
    let reader = volume.mailbox_reader(account, mailbox).await;
    let turns = reader.turns();
    let mut producer = Box::new(Producer::new(reader, wanted));
    let slice_max = match sets_seen {
        true => SEEN_SLICE,
        false => SLICE,
    };
    let mut iter = uids.uids();
    loop {
        let selected = session.selected()?;
        let numbered = |uid| selected.view.sequence(uid).map(|sequence| (uid, sequence));
        let slice: Vec<(u32, u32)> = iter.by_ref().take(slice_max).filter_map(numbered).collect();
        if slice.is_empty() {
            break;
        }
        session.may_go_on()?;
        // Whoever may not read it any more gets no further.
        check_open(session).await?;
        producer.take_slice(slice);
        while producer.has_slice() {
            if sets_seen {
                let unseen;
                (producer, unseen) = blocking(&turns, producer, Producer::load_to_see).await?;
                let unseen = unseen.map_err(Failure::Read)?;
                tell_keywords(session, &producer);
                if !unseen.is_empty() {
                    set_seen(session, &mut producer, unseen).await?;
                }
            }
            producer = write_all(session, &turns, producer, !sets_seen).await?;
        }
    }
    if let Some(batch) = producer.batch() {
        session.saw(batch.now.mailbox.highestmodseq);
    }
    Ok(answer(session, &mut producer, request.by))
}

/// Writes what is loaded, and with `loads` what is left of the slice. While one buffer goes to the client, the next is
/// filled.
async fn write_all(
    session: &mut Session<'_>,
    turns: &Turns,
    producer: Box<Producer>,
    loads: bool,
) -> Result<Box<Producer>, Failure> {
    let fill = |producer| {
        blocking(turns, producer, move |work: &mut Box<Producer>| {
            work.fill(loads)
        })
    };
    let mut filling = fill(producer);
    let mut is_within = false;
    loop {
        let Ok((mut producer, progress)) = filling.await else {
            // It may be within a literal.
            return Err(broken(session, ReadError::Stopped));
        };
        // The client may have taken minutes for what came before.
        if let Err(failure) = check_open(session).await {
            return Err(match is_within {
                // There is no way to say so.
                true => Failure::Cut(Cut::Gone),
                false => failure,
            });
        }
        is_within = producer.is_within_response();
        // Two buffers go round: one is filled while the other is written.
        match session.out.is_empty() {
            true => std::mem::swap(&mut session.out, &mut producer.out),
            false => session.out.append(&mut producer.out),
        }
        match progress {
            Progress::Full => {
                filling = fill(producer);
                session.write_out().await?;
            }
            Progress::Keywords => {
                tell_keywords(session, &producer);
                filling = fill(producer);
                session.flush_if_full().await?;
            }
            Progress::Empty => {
                session.flush_if_full().await?;
                return Ok(producer);
            }
            Progress::Unloaded(error) => return Err(Failure::Read(error)),
            Progress::Broken(error) => return Err(broken(session, error)),
        }
    }
}

/// Keywords that the next responses may hold and the client does not know.
fn tell_keywords(session: &mut Session<'_>, producer: &Producer) {
    if let Some(batch) = producer.batch() {
        updates::tell_keywords(session, &batch.now.keywords);
    }
}

/// A message that cannot be read on in the middle of a literal: there is no way to say so but to end.
fn broken(session: &mut Session<'_>, error: ReadError) -> Failure {
    let failure = Failure::Read(error);
    error!(account = %session.state.account, error = %Causes(&failure), "message cannot be read to its end");
    session.out.clear();
    Failure::Cut(Cut::Gone)
}

fn answer(session: &Session<'_>, producer: &mut Producer, by: Addressing) -> Reply {
    if let Some(error) = producer.failed.take() {
        let failure = Failure::Read(error);
        error!(account = %session.state.account, error = %Causes(&failure), "messages cannot be read");
        return Reply::no("SERVERBUG", "some of the messages cannot be read");
    }
    if producer.unknown_encoding {
        return Reply::no("UNKNOWN-CTE", "a part has an encoding that is not known");
    }
    match producer.has_missing && by == Addressing::Sequence {
        true => Reply::some_gone(),
        false => Reply::ok("done"),
    }
}

/// `\Seen` for those of a slice that do not have it, before they are told with their new flags.
async fn set_seen(
    session: &mut Session<'_>,
    producer: &mut Producer,
    unseen: Vec<u32>,
) -> Result<(), Failure> {
    let place = session.selected()?.place;
    let by = place.writer(session.state.account);
    let change = FlagChange::Add(Flags::SEEN.into());
    let stored = session
        .volume_of(place.account)
        .await?
        .store_flags(place.account, by, place.mailbox, unseen, change, None)
        .await;
    match stored {
        Ok(stored) => {
            if stored.modseq > 0 {
                session.told(stored.modseq);
                producer.seen(stored);
                tell_keywords(session, producer);
            }
            Ok(())
        }
        // A mailbox that cannot be written can be read still: also when the right to do so has just gone.
        Err(_) => Ok(()),
    }
}

/// VANISHED (EARLIER): those of the set that went since. Messages that the client still counts are told as any
/// other expunge, with the answer.
async fn tell_vanished(
    session: &mut Session<'_>,
    set: &MessageSet,
    since: u64,
) -> Result<(), Failure> {
    let selected = session.selected()?;
    let Place {
        account, mailbox, ..
    } = selected.place;
    let volume = session.volume_of(account).await?;
    let Some(changes) = volume.changes_since(account, mailbox, since).await? else {
        return Err(Failure::MailboxGone);
    };
    check_open(session).await?;
    session.saw(changes.now.mailbox.highestmodseq);
    let selected = session.selected()?;
    let named: Vec<(u32, u32)> = match set {
        MessageSet::Numbers(set) => set.resolve(selected.uid_next.saturating_sub(1)).collect(),
        MessageSet::Saved => selected.saved.ranges(),
    };
    let gone = intersection(&changes.vanished, &named);
    let gone = SequenceSet::from_ranges(unknown_to(selected, &gone));
    session.encoder().vanished(true, &gone);
    session.flush_if_full().await?;
    Ok(())
}

/// The ranges without what is in the client's view.
pub(super) fn unknown_to(selected: &Selected, ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut unknown = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        let mut from = *first;
        for uid in selected.view.uids_between(*first, *last) {
            if from < uid {
                unknown.push((from, uid - 1));
            }
            from = uid + 1;
        }
        if from <= *last {
            unknown.push((from, *last));
        }
    }
    unknown
}

/// The messages in a window. RFC 9394.
fn within(uids: &View, window: PartialRange) -> View {
    let skip = usize::try_from(window.first - 1).unwrap_or(usize::MAX);
    let count = usize::try_from(window.last - window.first).unwrap_or(usize::MAX);
    let count = count.saturating_add(1);
    match window.from_end {
        false => uids.uids().skip(skip).take(count).collect(),
        true => uids.uids().rev().skip(skip).take(count).collect(),
    }
}

/// Runs a piece of work on a thread that may block, in the volume's turn, and brings the worker back.
pub(super) fn blocking<W: Send + 'static, T: Send + 'static>(
    turns: &Turns,
    mut worker: W,
    work: impl FnOnce(&mut W) -> T + Send + 'static,
) -> impl Future<Output = Result<(W, T), Failure>> + Send {
    let ran = turns.run(move || {
        let result = work(&mut worker);
        (worker, result)
    });
    async move { ran.await.ok_or(Failure::Read(ReadError::Stopped)) }
}

/// Messages at a time.
const SLICE: usize = 4000;
/// Messages at a time that get `\Seen` in one change.
const SEEN_SLICE: usize = 250;
