//! What is known of one message so far, and what of a search that decides.
//!
//! A key that cannot be answered yet is unknown, and so is what depends on it (Kleene's logic).

use super::super::text::fold::Folded;
use super::field::sent_day;
use super::key::{Key, is_day};
use crate::volume::Summary;

/// What is known of one message so far.
pub(super) struct Facts<'a> {
    pub(super) summary: &'a Summary,
    /// Whether it has a keyword.
    pub(super) has_keyword: &'a dyn Fn(&str) -> bool,
    /// EMAILID, THREADID (0: not known).
    pub(super) ids: ([u8; 16], u64),
    /// Prologue and header of the blob, and whether the header is whole or only what cards keep.
    pub(super) header: Option<([&'a [u8]; 2], bool)>,
    /// Which strings were found, and whether the search for them is over.
    pub(super) strings: Option<(Vec<bool>, bool)>,
}

impl Facts<'_> {
    /// `None`: it cannot be told yet. The memory is for text at work.
    pub(super) fn decide(&self, key: &Key, scratch: &mut Folded) -> Option<bool> {
        let summary = self.summary;
        Some(match key {
            Key::Constant(is) => *is,
            Key::And(keys) => return self.all(keys, true, scratch),
            Key::Or(keys) => return self.all(keys, false, scratch),
            Key::Not(key) => return self.decide(key, scratch).map(|is| !is),
            Key::Uids(uids) => uids.contains(summary.uid),
            Key::System(flags) => summary.flags.contains(*flags),
            Key::Keyword(keyword) => (self.has_keyword)(keyword),
            Key::Internal(test, day) => is_day(*test, days(summary.internal_date_ms), *day),
            Key::Saved(test, day) => is_day(*test, days(summary.save_date_ms), *day),
            Key::Larger(octets) => summary.size_octets > *octets,
            Key::Smaller(octets) => summary.size_octets < *octets,
            Key::NotAfter(ms) => summary.internal_date_ms <= *ms,
            Key::NotBefore(ms) => summary.internal_date_ms >= *ms,
            Key::ModSeq(modseq) => summary.modseq >= *modseq,
            Key::EmailId(id) => self.ids.0 == *id,
            Key::ThreadId(id) => self.ids.1 == *id,
            Key::Sent(test, day) => {
                let sent = sent_day(self.header?.0);
                sent.is_some_and(|sent| is_day(*test, sent, *day))
            }
            Key::Header(field) => {
                let (blocks, is_whole) = self.header?;
                return match field.is_in(blocks, scratch) {
                    true => Some(true),
                    false => (is_whole || field.is_kept()).then_some(false),
                };
            }
            Key::Body(at) | Key::Text(at) => {
                let (found, is_over) = self.strings.as_ref()?;
                return match found[*at] {
                    true => Some(true),
                    false => is_over.then_some(false),
                };
            }
        })
    }

    /// AND, or with `is_and` false OR.
    fn all(&self, keys: &[Key], is_and: bool, scratch: &mut Folded) -> Option<bool> {
        let mut answer = Some(is_and);
        for key in keys {
            match self.decide(key, scratch) {
                Some(is) if is != is_and => return Some(!is_and),
                Some(_) => {}
                None => answer = None,
            }
        }
        answer
    }
}

fn days(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}
