//! Search keys made ready: sets resolved to UIDs, strings decoded and folded, dates as days.

use mail_proto::imap::command::{DateField, DateTest, Flag, SearchKey};
use mail_proto::imap::sequence::{Addressing, MessageSet};
use mail_proto::mime::decode_charset;

use super::super::flags;
use super::super::state::Selected;
use super::super::text::fold::Folded;
use super::super::view::View;
use super::field::FieldText;
use crate::volume::Flags;

/// One key.
#[derive(Debug)]
pub(super) enum Key {
    /// True of all, or of none.
    Constant(bool),
    And(Vec<Key>),
    Or(Vec<Key>),
    Not(Box<Key>),
    Uids(View),
    System(Flags),
    Keyword(String),
    /// Days since 1970.
    Internal(DateTest, i64),
    Saved(DateTest, i64),
    Sent(DateTest, i64),
    Larger(u64),
    Smaller(u64),
    /// Internal date, in milliseconds since 1970.
    NotAfter(i64),
    NotBefore(i64),
    ModSeq(u64),
    EmailId([u8; 16]),
    ThreadId(u64),
    Header(Box<FieldText>),
    /// A string in the body: its place in [`Keys::strings`].
    Body(usize),
    /// A string in header or body.
    Text(usize),
}

/// All keys of a search.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) root: Key,
    /// Folded strings of BODY and TEXT, and whether it is TEXT.
    pub(super) strings: Vec<(String, bool)>,
    /// Fields are looked at.
    pub(super) reads_fields: bool,
    /// What cards do not keep is looked at.
    pub(super) needs_header: bool,
}

/// The charset is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCharset;

/// Makes keys ready.
pub(super) fn compile(
    keys: &SearchKey,
    charset: Option<&str>,
    selected: &Selected,
    now_s: u64,
) -> Result<Keys, BadCharset> {
    let charset = charset.unwrap_or("UTF-8");
    if decode_charset(charset.as_bytes(), b"").is_none() {
        return Err(BadCharset);
    }
    let mut compiler = Compiler {
        charset,
        selected,
        now_ms: i64::try_from(now_s).unwrap_or(i64::MAX / 1000) * 1000,
        strings: Vec::new(),
        reads_fields: false,
        needs_header: false,
    };
    let root = compiler.key(keys);
    Ok(Keys {
        root,
        reads_fields: compiler.reads_fields,
        needs_header: compiler.needs_header || compiler.strings.iter().any(|(_, is_text)| *is_text),
        strings: compiler.strings,
    })
}

impl Keys {
    /// The only messages that can match, where a set that all must be in says so: the others are not even
    /// looked at.
    pub(super) fn named(&self) -> Option<View> {
        match &self.root {
            Key::Uids(uids) => Some(uids.clone()),
            Key::And(keys) => {
                let mut sets = keys.iter().filter_map(|key| match key {
                    Key::Uids(uids) => Some(uids),
                    _ => None,
                });
                let mut named = sets.next()?.clone();
                sets.for_each(|uids| named.intersect(uids));
                Some(named)
            }
            _ => None,
        }
    }
}

struct Compiler<'a> {
    charset: &'a str,
    selected: &'a Selected,
    now_ms: i64,
    strings: Vec<(String, bool)>,
    reads_fields: bool,
    needs_header: bool,
}

impl Compiler<'_> {
    /// The parser bounds how deep this goes.
    fn key(&mut self, key: &SearchKey) -> Key {
        match key {
            SearchKey::All | SearchKey::SaveDateSupported => Key::Constant(true),
            SearchKey::Recent => Key::Uids(self.selected.recent.clone()),
            SearchKey::And(keys) => Key::And(self.keys(keys)),
            SearchKey::Or(keys) => Key::Or(self.keys(keys)),
            SearchKey::Not(key) => Key::Not(Box::new(self.key(key))),
            SearchKey::Sequence(set) => {
                Key::Uids(self.selected.resolve_known(set, Addressing::Sequence))
            }
            SearchKey::Uid(set) => Key::Uids(self.selected.resolve_known(set, Addressing::Uid)),
            SearchKey::UidAfter(bound) => {
                Key::Uids(self.beside(bound, |ends| (ends.1.saturating_add(1), u32::MAX)))
            }
            SearchKey::UidBefore(bound) => {
                Key::Uids(self.beside(bound, |ends| (1, ends.0.saturating_sub(1))))
            }
            SearchKey::Flag(Flag::Keyword(keyword)) => Key::Keyword(keyword.as_str().to_owned()),
            SearchKey::Flag(flag) => {
                Key::System(flags::to_store(std::slice::from_ref(flag)).system)
            }
            SearchKey::Header(name, text) => {
                let field = FieldText::new(name, &self.folded(text));
                self.reads_fields = true;
                self.needs_header |= !field.is_kept();
                Key::Header(Box::new(field))
            }
            SearchKey::Body(text) => Key::Body(self.string(text, false)),
            SearchKey::Text(text) => Key::Text(self.string(text, true)),
            SearchKey::Date(field, test, date) => {
                let day = date.unix_days();
                match field {
                    DateField::Internal => Key::Internal(*test, day),
                    DateField::Sent => {
                        self.reads_fields = true;
                        Key::Sent(*test, day)
                    }
                    DateField::Saved => Key::Saved(*test, day),
                }
            }
            SearchKey::Larger(octets) => Key::Larger(*octets),
            SearchKey::Smaller(octets) => Key::Smaller(*octets),
            SearchKey::Older(seconds) => Key::NotAfter(self.now_ms - i64::from(*seconds) * 1000),
            SearchKey::Younger(seconds) => Key::NotBefore(self.now_ms - i64::from(*seconds) * 1000),
            SearchKey::ModSeq(modseq) => Key::ModSeq(*modseq),
            // What is not written as ours are is none of ours.
            SearchKey::EmailId(id) => number_of(id).map_or(Key::Constant(false), Key::EmailId),
            SearchKey::ThreadId(id) => match number_of(id).map(u64::from_be_bytes) {
                None | Some(0) => Key::Constant(false),
                Some(thread) => Key::ThreadId(thread),
            },
        }
    }

    /// The messages in a range beside a UID, which need not exist, or beside all of `$`: none beside nothing.
    fn beside(&self, bound: &MessageSet, range: impl Fn((u32, u32)) -> (u32, u32)) -> View {
        let ends = match bound {
            MessageSet::Numbers(uid) => uid.largest().map(|uid| (uid, uid)),
            MessageSet::Saved => self.selected.saved.ends(),
        };
        let range = ends.map(range);
        let within = |(first, last)| self.selected.view.uids_between(first, last);
        range.into_iter().flat_map(within).collect()
    }

    fn keys(&mut self, keys: &[SearchKey]) -> Vec<Key> {
        keys.iter().map(|key| self.key(key)).collect()
    }

    fn folded(&self, text: &[u8]) -> String {
        let decoded = decode_charset(self.charset.as_bytes(), text);
        Folded::of(&decoded.unwrap_or_default())
    }

    fn string(&mut self, text: &[u8], is_text: bool) -> usize {
        let string = (self.folded(text), is_text);
        let known = self.strings.iter().position(|other| *other == string);
        known.unwrap_or_else(|| {
            self.strings.push(string);
            self.strings.len() - 1
        })
    }
}

/// An EMAILID or THREADID as the number that it stands for.
fn number_of<const OCTETS: usize>(id: &str) -> Option<[u8; OCTETS]> {
    let octets = data_encoding::HEXLOWER.decode(id.as_bytes()).ok()?;
    octets.try_into().ok()
}

/// Whether a day is as asked.
pub(super) fn is_day(test: DateTest, day: i64, asked: i64) -> bool {
    match test {
        DateTest::Before => day < asked,
        DateTest::On => day == asked,
        DateTest::Since => day >= asked,
    }
}
