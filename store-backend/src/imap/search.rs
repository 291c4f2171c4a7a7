//! SEARCH. RFC 9051 §6.4.4, RFC 4731, 5182, 7162, 8514, 9394, 9585.
//!
//! What the rows can decide is decided from rows; then come headers; a body is read only for messages that nothing before
//! has decided ([`matching`]). The work is done in slices on threads that may block.

mod facts;
mod field;
pub(super) mod key;
mod matching;

use std::time::{Duration, SystemTime};

use mail_proto::imap::command::{ReturnOptions, Search, SearchKey};
use mail_proto::imap::encode::{Code, Condition, Numbers, SearchResult};
use mail_proto::imap::sequence::{Addressing, PartialRange, SequenceSet};
use tokio::time::Instant;
use tracing::error;

use super::fetch::blocking;
use super::place::check_open;
use super::reply::{Failure, Reply};
use super::state::{Place, Selected};
use super::view::View;
use super::{Causes, Session, limit};
use key::BadCharset;
use matching::Searcher;

pub(super) async fn run(session: &mut Session<'_>, request: Search) -> Result<Reply, Failure> {
    session.selected()?;
    let enabled = session.state.enabled;
    if request.charset.is_some() && enabled.utf8_accept && !enabled.imap4rev2 {
        // RFC 6855 §3: the strings are UTF-8 already. RFC 9051 §6.4.4 permits it again.
        return Ok(Reply::bad("with UTF8=ACCEPT a search names no charset"));
    }
    let returns = match request.returns {
        // RFC 9051 §7.3.4: IMAP4rev2 knows no other answer.
        None if session.state.enabled.imap4rev2 => Some(ReturnOptions {
            all: true,
            ..ReturnOptions::default()
        }),
        returns => returns,
    };
    let saves = returns.is_some_and(|returns| returns.save);
    let found = match find(session, &request.keys, request.charset.as_deref()).await {
        Ok(Ok(found)) => found,
        Ok(Err(refused)) => {
            forget_saved(session, saves);
            return Ok(refused);
        }
        Err(failure) => {
            forget_saved(session, saves);
            return Err(failure);
        }
    };
    let selected = session.selected()?;
    let numbers = to_numbers(selected, &found.uids, request.by);
    match returns {
        None => {
            let modseq = found.modseq_of(&found.uids);
            session.encoder().search(numbers, modseq);
        }
        Some(returns) => {
            let uids: Vec<u32> = found.uids.uids().collect();
            let named = named_of(&returns, &uids);
            let all = SequenceSet::from_numbers(numbers.iter().copied());
            let window = returns.partial.map(|window| {
                let part = window_of(&numbers, window);
                SequenceSet::from_numbers(part.iter().copied())
            });
            let result = SearchResult {
                all: Some(Numbers::Set(&all)),
                partial: returns.partial.zip(window.as_ref().map(Numbers::Set)),
                modseq: found.modseq_of(&named),
                ..ends_of(request.by, &numbers)
            };
            tell_extended(session, returns, result);
            if saves && let Some(selected) = &mut session.state.selected {
                selected.saved = match found.has_unreadable {
                    true => View::default(),
                    false => named,
                };
            }
        }
    }
    session.flush_if_full().await?;
    let reply = found.reply(request.by);
    Ok(limit::conclude(session, reply, found.beyond))
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) uids: View,
    /// UID and MODSEQ of each, growing, if the search used MODSEQ.
    modseqs: Option<Vec<(u32, u64)>>,
    /// A message could not be read, and so not be searched.
    pub(super) has_unreadable: bool,
    /// Messages that the client counts are gone, and so not found.
    pub(super) has_missing: bool,
    /// Not all messages were looked at: the limit and how far it went.
    pub(super) beyond: Option<Code<'static>>,
}

impl Found {
    /// The answer behind the result.
    pub(super) fn reply(&self, by: Addressing) -> Reply {
        if self.has_unreadable {
            return Reply::no("SERVERBUG", "some of the messages cannot be read");
        }
        match self.has_missing && by == Addressing::Sequence {
            // RFC 5530: or it would seem that they do not match.
            true => Reply::some_gone(),
            false => Reply::ok("done"),
        }
    }

    /// The highest MODSEQ of these, if the search used it. RFC 7162 §3.1.5.
    pub(super) fn modseq_of(&self, uids: &View) -> Option<u64> {
        let modseqs = self.modseqs.as_ref()?.iter();
        let told = modseqs.filter(|(uid, _)| uids.contains(*uid));
        told.map(|(_, modseq)| *modseq).max()
    }
}

/// The messages that match; or what the client is told when the keys make no sense.
pub(super) async fn find(
    session: &mut Session<'_>,
    keys: &SearchKey,
    charset: Option<&str>,
) -> Result<Result<Found, Reply>, Failure> {
    let selected = session.selected()?;
    let now_s = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let compiled = match key::compile(keys, charset, selected, now_s) {
        Ok(compiled) => compiled,
        Err(BadCharset) => {
            let code = Code::BadCharset(&["US-ASCII", "UTF-8"]);
            let text = "charset is not known";
            return Ok(Err(Reply::new(Condition::No, Some(&code), text)));
        }
    };
    let mut uids = selected.view.clone();
    if let Some(named) = compiled.named() {
        uids.intersect(&named);
    }
    // They are gone; the client is told with the answer.
    let count = uids.count();
    uids.subtract(&selected.gone);
    let has_missing = uids.count() < count;
    let beyond = limit::keep_last(session, &mut uids);
    let selected = session.selected()?;
    let has_modseq = keys.has_modseq();
    let Place {
        account, mailbox, ..
    } = selected.place;
    let volume = session.volume_of(account).await?;
    let reader = volume.mailbox_reader(account, mailbox).await;
    let turns = reader.turns();
    let mut searcher = Box::new(Searcher::new(reader, uids.uids().collect(), compiled));
    let mut progress = Progress::new();
    loop {
        let is_done;
        (searcher, is_done) = blocking(&turns, searcher, |searcher| searcher.step()).await?;
        // Whoever may not read it any more gets no further.
        check_open(session).await?;
        if is_done? {
            break;
        }
        session.may_go_on()?;
        progress
            .tell(session, searcher.done(), searcher.goal())
            .await?;
    }
    if let Some(error) = searcher.failed.take() {
        let failure = Failure::Read(error);
        error!(account = %session.state.account, error = %Causes(&failure), "messages cannot be searched");
    }
    let matches = std::mem::take(&mut searcher.found);
    if has_modseq {
        session.use_modseq();
        let highest = matches.iter().map(|(_, modseq)| *modseq).max();
        session.saw(highest.unwrap_or_default());
    }
    Ok(Ok(Found {
        uids: matches.iter().map(|(uid, _)| *uid).collect(),
        modseqs: has_modseq.then_some(matches),
        has_unreadable: searcher.has_failed,
        has_missing: searcher.has_missing || has_missing,
        beyond,
    }))
}

/// INPROGRESS, RFC 9585: so that nobody gives up on a long search. Who has closed the connection is found out by it.
pub(super) struct Progress {
    told: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            told: Instant::now(),
        }
    }

    /// Tells that so many of so many messages are done, if it was not told for long.
    pub(super) async fn tell(
        &mut self,
        session: &mut Session<'_>,
        done: usize,
        goal: usize,
    ) -> Result<(), Failure> {
        let interval = match session.has_ended().await? {
            true => ENDED_INTERVAL,
            false => PROGRESS_INTERVAL,
        };
        if self.told.elapsed() < interval {
            return Ok(());
        }
        self.told = Instant::now();
        let tag = session.tag.clone();
        let count = |number: usize| u32::try_from(number).ok();
        let code = Code::InProgress(Some(&tag), count(done), count(goal));
        session
            .encoder()
            .untagged(Condition::Ok, Some(&code), "searching");
        session.flush().await?;
        Ok(())
    }
}

/// In growing order of UIDs, which is that of sequence numbers too.
fn to_numbers(selected: &Selected, uids: &View, by: Addressing) -> Vec<u32> {
    match by {
        Addressing::Uid => uids.uids().collect(),
        Addressing::Sequence => {
            let sequence = |uid| selected.view.sequence(uid);
            uids.uids().filter_map(sequence).collect()
        }
    }
}

/// Everything that can be told of numbers in their order, but for these themselves.
pub(super) fn ends_of<'r>(by: Addressing, numbers: &[u32]) -> SearchResult<'r> {
    SearchResult {
        tag: None,
        by,
        min: numbers.first().copied(),
        max: numbers.last().copied(),
        all: None,
        count: u32::try_from(numbers.len()).ok(),
        partial: None,
        modseq: None,
    }
}

/// Tells of a whole result what was asked for.
pub(super) fn tell_extended(
    session: &mut Session<'_>,
    returns: ReturnOptions,
    whole: SearchResult<'_>,
) {
    let ReturnOptions {
        min,
        max,
        all,
        count,
        save,
        partial,
    } = returns;
    if save && !(min || max || all || count || partial.is_some()) {
        // RFC 5182 §2.1: then there is no ESEARCH.
        return;
    }
    let tag = session.tag.clone();
    let result = SearchResult {
        tag: Some(&tag),
        min: whole.min.filter(|_| min),
        max: whole.max.filter(|_| max),
        all: whole.all.filter(|_| all),
        count: whole.count.filter(|_| count),
        ..whole
    };
    session.encoder().esearch(&result);
}

/// The numbers in a window of a result in any order.
pub(super) fn window_of(numbers: &[u32], window: PartialRange) -> &[u32] {
    let place = |number: u32| {
        usize::try_from(number)
            .unwrap_or(usize::MAX)
            .min(numbers.len())
    };
    let (before, last) = (place(window.first - 1), place(window.last));
    match window.from_end {
        false => &numbers[before..last],
        true => &numbers[numbers.len() - last..numbers.len() - before],
    }
}

/// What SAVE keeps of a result in its order, and what MODSEQ is of: with MIN, MAX and PARTIAL alone only what these
/// name. RFC 4731 §3.2, RFC 5182 §2.4, RFC 9394 §3.2.
pub(super) fn named_of(returns: &ReturnOptions, uids: &[u32]) -> View {
    let is_part = returns.min || returns.max || returns.partial.is_some();
    if returns.all || returns.count || !is_part {
        return uids.iter().copied().collect();
    }
    let first = uids.first().filter(|_| returns.min);
    let last = uids.last().filter(|_| returns.max);
    let window = returns.partial.map(|window| window_of(uids, window));
    let window = window.into_iter().flatten();
    first
        .into_iter()
        .chain(last)
        .chain(window)
        .copied()
        .collect()
}

/// RFC 5182 §2.1: a search that fails leaves nothing saved.
pub(super) fn forget_saved(session: &mut Session<'_>, saves: bool) {
    if saves && let Some(selected) = &mut session.state.selected {
        selected.saved = View::default();
    }
}

/// RFC 9585 §4 asks for 10 seconds at least.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// A client that has said that it sends no more has mostly gone. The first write after that is lost, the second fails.
const ENDED_INTERVAL: Duration = Duration::from_secs(1);
