//! THREAD. RFC 5256 §3.

mod references;
mod subjects;

use mail_proto::imap::command::{Thread, ThreadAlgorithm};
use mail_proto::imap::encode::ThreadEntry;
use mail_proto::imap::sequence::Addressing;
use mail_proto::mime::{BaseSubject, message_ids};

use super::Session;
use super::collect::{Collected, collect, field, sent_s, subject, too_many};
use super::fetch::blocking;
use super::reply::{Failure, Reply};
use super::search::find;
use super::sort::not_all;
use crate::volume::Summary;

pub(super) async fn run(session: &mut Session<'_>, request: Thread) -> Result<Reply, Failure> {
    session.selected()?;
    let found = match find(session, &request.keys, Some(&request.charset)).await? {
        Ok(found) => found,
        Err(refused) => return Ok(refused),
    };
    if let Some(code) = &found.beyond {
        return Ok(not_all(code));
    }
    let mails = match collect(session, &found.uids, true, Mail::of).await? {
        Ok(mails) => mails,
        Err(refused) => return Ok(refused),
    };
    let algorithm = request.algorithm;
    let (_mails, entries) = blocking(&session.turns(), mails, move |mails| match algorithm {
        ThreadAlgorithm::OrderedSubject => Ok(subjects::thread(&mut mails.values)),
        ThreadAlgorithm::References => references::thread(&mails.values),
    })
    .await?;
    let Ok(mut entries) = entries else {
        return Ok(too_many());
    };
    if request.by == Addressing::Sequence {
        let selected = session.selected()?;
        for entry in &mut entries {
            entry.number = entry.number.and_then(|uid| selected.view.sequence(uid));
        }
    }
    session.encoder().thread(&entries);
    session.flush_if_full().await?;
    Ok(found.reply(request.by))
}

/// What threading looks at in a message.
#[derive(Clone, Debug)]
struct Mail {
    uid: u32,
    sent_s: i64,
    subject: BaseSubject,
    /// Its Message-ID.
    id: Option<Id>,
    /// Those it refers to, the oldest first.
    references: Vec<Id>,
}

impl Collected for Mail {
    fn heap_octets(&self) -> usize {
        self.subject.text.len() + self.references.len() * size_of::<Id>()
    }
}

/// Messages name more others than a thread may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooMany;

/// A Message-ID. With 128 bits, two are the same only if they are.
type Id = u128;

impl Mail {
    fn of(summary: &Summary, header: &[u8]) -> Self {
        let ids = |name| {
            let value = field(header, name).unwrap_or_default();
            let ids: Vec<Id> = message_ids(&value).map(|id| short(&id)).collect();
            ids
        };
        let mut references = ids("References");
        if references.is_empty() {
            references = ids("In-Reply-To");
            references.truncate(1);
        }
        // The last ones are the nearest.
        let skip = references.len().saturating_sub(REFERENCES_MAX);
        references.drain(..skip);
        references.shrink_to_fit();
        Self {
            uid: summary.uid,
            sent_s: sent_s(summary, header),
            subject: subject(header),
            id: ids("Message-ID").first().copied(),
            references,
        }
    }

    /// What threads and their answers are sorted by.
    fn order(&self) -> (i64, u32) {
        (self.sent_s, self.uid)
    }
}

fn short(id: &[u8]) -> Id {
    let hash = blake3::hash(id);
    let (half, _) = hash.as_bytes().split_at(size_of::<Id>());
    half.try_into().map_or(0, Id::from_le_bytes)
}

fn entry(depth: usize, uid: Option<u32>) -> ThreadEntry {
    ThreadEntry {
        depth: u32::try_from(depth).unwrap_or(u32::MAX),
        number: uid,
    }
}

/// References taken from one message; mailers cut long lists themselves (RFC 5537 §3.4.4 keeps 21 at least).
const REFERENCES_MAX: usize = 100;

#[cfg(test)]
mod tests;
