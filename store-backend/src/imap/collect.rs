//! Something of each message that a search found, from its row and the fields on its card: what SORT and THREAD
//! compare. No message is opened.

use std::borrow::Cow;
use std::sync::Arc;

use mail_proto::mime::{BaseSubject, Fields, base_subject, decode_words, parse_date, unfold};
use tokio::sync::OwnedSemaphorePermit;

use super::Session;
use super::fetch::blocking;
use super::message::{Message, Unreadable};
use super::place::check_open;
use super::reply::{Failure, Reply};
use super::search::Progress;
use super::state::Place;
use super::text::fold::collated;
use super::view::View;
use crate::volume::{MailboxReader, ReadError, Summary, Want};

/// A value that is kept for each message while they are sorted.
pub(super) trait Collected: Send + 'static {
    /// Octets that it holds elsewhere.
    fn heap_octets(&self) -> usize;
}

/// The values, and the right to the memory that they take.
pub(super) struct Values<T> {
    pub(super) values: Vec<T>,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Makes a value of each message that there still is, in the order of their UIDs. Without headers, none is opened and
/// they are empty. What is too much is refused: [`VALUES_MAX_MIB`] for one command, and [`SORTING_MAX_MIB`] for all.
pub(super) async fn collect<T: Collected>(
    session: &mut Session<'_>,
    uids: &View,
    headers: bool,
    make: impl Fn(&Summary, &[u8]) -> T + Send + Clone + 'static,
) -> Result<Result<Values<T>, Reply>, Failure> {
    let Place {
        account, mailbox, ..
    } = session.selected()?.place;
    let volume = session.volume_of(account).await?;
    let reader = volume.mailbox_reader(account, mailbox).await;
    let uids: Vec<u32> = uids.uids().collect();
    let mut values = Vec::new();
    let mut permits = Vec::new();
    let mut octets = 0;
    let mut progress = Progress::new();
    for (at, slice) in uids.chunks(SLICE).enumerate() {
        let (slice, make) = (slice.to_vec(), make.clone());
        let work = move |reader: &mut MailboxReader| one_slice(reader, &slice, headers, make);
        let (_, some) = blocking(&reader.turns(), reader.clone(), work).await?;
        let some = some?;
        let heap = some.iter().map(T::heap_octets);
        octets += some.len() * size_of::<T>() + heap.sum::<usize>();
        values.extend(some);
        // The first of them is every session's own.
        while octets >> 20 > permits.len() {
            if permits.len() == VALUES_MAX_MIB {
                return Ok(Err(too_many()));
            }
            let Ok(permit) = Arc::clone(session.service.sorting).try_acquire_owned() else {
                let text = "too much is being sorted, try again";
                return Ok(Err(Reply::no("UNAVAILABLE", text)));
            };
            permits.push(permit);
        }
        // Whoever may not read it any more gets no further.
        check_open(session).await?;
        session.may_go_on()?;
        progress.tell(session, at * SLICE, uids.len()).await?;
    }
    Ok(Ok(Values {
        values,
        _permits: permits,
    }))
}

/// The answer to SORT or THREAD of more than we sort.
pub(super) fn too_many() -> Reply {
    Reply::no("LIMIT", "too many messages, search for fewer")
}

fn one_slice<T>(
    reader: &MailboxReader,
    uids: &[u32],
    headers: bool,
    make: impl Fn(&Summary, &[u8]) -> T,
) -> Result<Vec<T>, ReadError> {
    let mut made = Vec::with_capacity(uids.len());
    let mut rest = uids;
    let want = match headers {
        true => Want {
            card: true,
            ..Want::ROWS
        },
        false => Want::ROWS,
    };
    while !rest.is_empty() {
        let Some(batch) = reader.messages(rest, want)? else {
            break;
        };
        rest = &rest[batch.done_count..];
        if !headers {
            made.extend(batch.now.messages.iter().map(|summary| make(summary, b"")));
        }
        for (summary, content) in batch.now.messages.iter().zip(batch.contents) {
            match Message::new(content).fields(reader) {
                Ok(fields) => made.push(make(summary, &fields)),
                Err(Unreadable::Gone) => {}
                Err(Unreadable::Failed(error)) => return Err(error),
            }
        }
    }
    Ok(made)
}

/// The first field of that name, unfolded.
pub(super) fn field<'h>(header: &'h [u8], name: &str) -> Option<Cow<'h, [u8]>> {
    let mut fields = Fields::new(header);
    fields
        .find(|field| field.is(name))
        .map(|field| unfold(field.value))
}

/// The sent date in seconds since 1970; the internal date where there is none. RFC 5256 §2.2.
pub(super) fn sent_s(summary: &Summary, header: &[u8]) -> i64 {
    let date = field(header, "Date").and_then(|value| parse_date(&value));
    date.map_or(summary.internal_date_ms.div_euclid(1000), |date| {
        date.epoch_seconds
    })
}

/// The base subject, comparable.
pub(super) fn subject(header: &[u8]) -> BaseSubject {
    let subject = field(header, "Subject").unwrap_or_default();
    let mut subject = base_subject(&decode_words(&subject));
    subject.text = comparable(&subject.text);
    subject
}

/// As much of a text as is compared, collated.
pub(super) fn comparable(text: &str) -> String {
    let mut text = collated(text);
    text.truncate(text.floor_char_boundary(TEXT_MAX_OCTETS));
    text.shrink_to_fit();
    text
}

/// Messages looked at in one visit to a thread.
const SLICE: usize = 250;
/// The most that one command keeps to sort: a million messages by date, and some 500,000 by subject.
const VALUES_MAX_MIB: usize = 64;
/// The most that all sessions together do, besides 1 MiB each.
pub(crate) const SORTING_MAX_MIB: usize = 512;
/// Of a text that is compared; what is the same up to there is the same. Subjects are some 50 octets.
const TEXT_MAX_OCTETS: usize = 1024;
