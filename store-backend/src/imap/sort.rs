//! SORT. RFC 5256, RFC 5267 (ESORT), RFC 5957 (DISPLAYFROM, DISPLAYTO).

use std::cmp::Ordering;

use mail_proto::imap::command::{Sort, SortCriterion, SortKey};
use mail_proto::imap::encode::{Code, Condition, Numbers, SearchResult};
use mail_proto::imap::sequence::Addressing;
use mail_proto::mime::{AddressEntry, Addresses, decode_words};

use super::Session;
use super::collect::{Collected, collect, comparable, field, sent_s, subject};
use super::fetch::blocking;
use super::reply::{Failure, Reply};
use super::search::{Found, ends_of, find, forget_saved, named_of, tell_extended, window_of};
use super::view::View;
use crate::volume::Summary;

pub(super) async fn run(session: &mut Session<'_>, request: Sort) -> Result<Reply, Failure> {
    session.selected()?;
    let saves = request.returns.is_some_and(|returns| returns.save);
    let (found, uids) = match sorted(session, &request).await {
        Ok(Ok(sorted)) => sorted,
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
    let numbers: Vec<u32> = match request.by {
        Addressing::Uid => uids.clone(),
        Addressing::Sequence => {
            let sequence = |uid: &u32| selected.view.sequence(*uid);
            uids.iter().filter_map(sequence).collect()
        }
    };
    match request.returns {
        None => {
            let modseq = found.modseq_of(&found.uids);
            session.encoder().sort(numbers, modseq);
        }
        Some(returns) => {
            let named = named_of(&returns, &uids);
            let window = |window| (window, Numbers::Ordered(window_of(&numbers, window)));
            let result = SearchResult {
                all: Some(Numbers::Ordered(&numbers)),
                partial: returns.partial.map(window),
                modseq: found.modseq_of(&named),
                // RFC 5267 §3.1: first and last in the order asked for.
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
    Ok(found.reply(request.by))
}

/// What was found, and its UIDs in order.
async fn sorted(
    session: &mut Session<'_>,
    request: &Sort,
) -> Result<Result<(Found, Vec<u32>), Reply>, Failure> {
    let found = match find(session, &request.keys, Some(&request.charset)).await? {
        Ok(found) => found,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Some(code) = found.beyond {
        return Ok(Err(not_all(&code)));
    }
    let criteria = request.criteria.clone();
    let headers = criteria
        .iter()
        .any(|one| !matches!(one.key, SortKey::Arrival | SortKey::Size));
    let make = move |summary: &Summary, header: &[u8]| {
        let value = |one: &SortCriterion| Value::of(one.key, summary, header);
        Sortable {
            uid: summary.uid,
            values: criteria.iter().map(value).collect(),
        }
    };
    let sortables = match collect(session, &found.uids, headers, make).await? {
        Ok(sortables) => sortables,
        Err(refused) => return Ok(Err(refused)),
    };
    let criteria = request.criteria.clone();
    let (sorted, ()) = blocking(&session.turns(), sortables, move |sortables| {
        // Stable: where nothing tells them apart, they stay in the order of the mailbox.
        let order =
            |one: &Sortable, other: &Sortable| compare(&criteria, &one.values, &other.values);
        sortables.values.sort_by(order);
    })
    .await?;
    let uids = sorted.values.iter().map(|one| one.uid).collect();
    Ok(Ok((found, uids)))
}

/// RFC 9738 §3.3: a part of the messages in order is no part of all in order, as a part of their threads is none.
pub(super) fn not_all(code: &Code<'_>) -> Reply {
    let text = "too many messages to put in order";
    Reply::new(Condition::No, Some(code), text)
}

/// A message, and what each criterion compares of it.
struct Sortable {
    uid: u32,
    values: Box<[Value]>,
}

impl Collected for Sortable {
    fn heap_octets(&self) -> usize {
        let texts = self.values.iter().map(|value| match value {
            Value::Number(_) => 0,
            Value::Text(text) => text.len(),
        });
        size_of_val(&*self.values) + texts.sum::<usize>()
    }
}

fn compare(criteria: &[SortCriterion], one: &[Value], other: &[Value]) -> Ordering {
    for ((criterion, one), other) in criteria.iter().zip(one).zip(other) {
        let order = match criterion.reverse {
            true => other.cmp(one),
            false => one.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// What a criterion compares.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(Box<str>),
}

impl Value {
    fn of(key: SortKey, summary: &Summary, header: &[u8]) -> Self {
        let text = |text: &str| Self::Text(comparable(text).into());
        match key {
            SortKey::Arrival => Self::Number(summary.internal_date_ms),
            SortKey::Size => Self::Number(i64::try_from(summary.size_octets).unwrap_or(i64::MAX)),
            SortKey::Date => Self::Number(sent_s(summary, header)),
            SortKey::Subject => Self::Text(subject(header).text.into()),
            SortKey::From => text(&first_local(header, "From")),
            SortKey::To => text(&first_local(header, "To")),
            SortKey::Cc => text(&first_local(header, "Cc")),
            SortKey::DisplayFrom => text(&first_display(header, "From")),
            SortKey::DisplayTo => text(&first_display(header, "To")),
        }
    }
}

/// `addr-mailbox` of the first address, as ENVELOPE has it; empty without one.
fn first_local(header: &[u8], name: &str) -> String {
    let local = match first(header, name) {
        Some(AddressEntry::Mailbox(mailbox)) => mailbox.local.unwrap_or_default(),
        Some(AddressEntry::GroupStart(group)) => group,
        Some(AddressEntry::GroupEnd) | None => Vec::new(),
    };
    decode_words(&local)
}

/// RFC 5957 §3: the name of the first address, else the address.
fn first_display(header: &[u8], name: &str) -> String {
    match first(header, name) {
        Some(AddressEntry::Mailbox(mailbox)) => {
            match mailbox.name.filter(|name| !name.is_empty()) {
                Some(name) => decode_words(&name),
                None => {
                    let (local, domain) = (mailbox.local, mailbox.domain);
                    let parts = [local.unwrap_or_default(), domain.unwrap_or_default()];
                    decode_words(&parts.join(&b'@'))
                }
            }
        }
        Some(AddressEntry::GroupStart(group)) => decode_words(&group),
        Some(AddressEntry::GroupEnd) | None => String::new(),
    }
}

fn first(header: &[u8], name: &str) -> Option<AddressEntry> {
    Addresses::new(&field(header, name)?).next()
}
