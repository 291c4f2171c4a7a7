//! Something of each message that a search found, from its row and the fields on its card: what SORT and THREAD
//! compare. No message is opened.

use std::borrow::Cow;

use mail_proto::mime::{BaseSubject, Fields, base_subject, decode_words, parse_date, unfold};

use super::Session;
use super::fetch::blocking;
use super::message::{Message, Unreadable};
use super::reply::Failure;
use super::state::Place;
use super::text::fold::collated;
use super::view::View;
use crate::volume::{MailboxReader, ReadError, Summary, Want};

/// Makes a value of each message that there still is, in the order of their UIDs. Without headers, none is opened and
/// they are empty.
pub(super) async fn collect<T: Send + 'static>(
    session: &mut Session<'_>,
    uids: &View,
    headers: bool,
    make: impl Fn(&Summary, &[u8]) -> T + Send + Clone + 'static,
) -> Result<Vec<T>, Failure> {
    let Place {
        account, mailbox, ..
    } = session.selected()?.place;
    let reader = session
        .service
        .volume
        .mailbox_reader(account, mailbox)
        .await;
    let uids: Vec<u32> = uids.uids().collect();
    let mut made = Vec::with_capacity(uids.len());
    for slice in uids.chunks(SLICE) {
        let (slice, make) = (slice.to_vec(), make.clone());
        let work = move |reader: &mut MailboxReader| one_slice(reader, &slice, headers, make);
        let (_, some) = blocking(reader.clone(), work).await?;
        made.extend(some?);
        session.may_go_on()?;
    }
    Ok(made)
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
    subject.text = collated(&subject.text);
    subject
}

/// Messages looked at in one visit to a thread.
const SLICE: usize = 250;
