//! ORDEREDSUBJECT: messages of one base subject are a thread, the first of them its head. RFC 5256 §3.

use mail_proto::imap::encode::ThreadEntry;

use super::{Mail, entry};

pub(super) fn thread(mails: &mut [Mail]) -> Vec<ThreadEntry> {
    mails.sort_by(|one, other| {
        let (a, b) = (&one.subject.text, &other.subject.text);
        a.cmp(b).then_with(|| one.order().cmp(&other.order()))
    });
    let mut threads: Vec<&[Mail]> = mails
        .chunk_by(|one, other| one.subject.text == other.subject.text)
        .collect();
    threads.sort_by_key(|thread| thread[0].order());
    let entries = threads.into_iter().flat_map(|thread| {
        let places = thread.iter().enumerate();
        places.map(|(place, mail)| entry(usize::from(place > 0), Some(mail.uid)))
    });
    entries.collect()
}
