//! What a client knows of a mailbox from untagged responses alone, and what must hold of each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::imap_client::Value;

pub(crate) type FlagNames = BTreeSet<String>;

/// What all clients have heard.
#[derive(Default)]
pub(crate) struct Facts {
    /// Of a UID: it is never given twice.
    subjects: Mutex<HashMap<u32, String>>,
    /// Of a UID at a MODSEQ: whoever tells both tells the same.
    flags: Mutex<HashMap<(u32, u64), FlagNames>>,
    /// UIDs that a tagged answer has given.
    given: Mutex<BTreeSet<u32>>,
}

impl Facts {
    /// UIDs that APPENDUID or COPYUID tells.
    pub(crate) fn gave(&self, uids: &[u32]) {
        assert!(uids.is_sorted(), "{uids:?}");
        let mut given = self.given.lock().unwrap();
        for uid in uids {
            assert!(given.insert(*uid), "UID {uid} was given twice");
        }
    }
}

/// One message as far as the client was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) uid: Option<u32>,
    pub(crate) flags: Option<FlagNames>,
    pub(crate) modseq: Option<u64>,
    pub(crate) subject: Option<String>,
}

/// A mailbox as a client knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// By sequence number. With UIDONLY by UID, those that are not known at the end.
    pub(crate) rows: Vec<Row>,
    pub(crate) uid_validity: u32,
    /// What the client would come back with: the highest it has heard, or what it was told to take.
    pub(crate) modseq: u64,
    uid_only: bool,
    /// From a SELECT on, until it says how many there are.
    is_selecting: bool,
    /// How many that are, until it is known which of them went.
    selected: Option<usize>,
    flag_names: FlagNames,
}

impl Model {
    /// Of a client that knows nothing yet.
    pub(crate) fn of(uid_only: bool) -> Self {
        Self {
            uid_only,
            ..Self::default()
        }
    }

    /// A SELECT was sent. What the client knows by UID it keeps, for with QRESYNC it is told the difference.
    pub(crate) fn select(&mut self) {
        self.is_selecting = true;
    }

    /// Takes in one untagged response.
    pub(crate) fn hear(&mut self, response: &[u8], facts: &Facts, may_expunge: bool) {
        let text = String::from_utf8_lossy(response);
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        if words.len() > 2 && ["EXISTS", "EXPUNGE", "FETCH", "UIDFETCH"].contains(&words[2]) {
            self.is_selected();
        }
        match words[1..] {
            ["VANISHED", "(EARLIER)", uids] => {
                let gone: BTreeSet<u32> = numbers(uids).into_iter().collect();
                let is_gone = |row: &Row| row.uid.is_some_and(|uid| gone.contains(&uid));
                // What EXISTS counts is told without EARLIER.
                assert!(
                    self.selected.is_some() || !self.rows.iter().any(is_gone),
                    "{text}"
                );
                self.rows.retain(|row| !is_gone(row));
                self.is_selected();
            }
            ["VANISHED", uids] => {
                assert!(may_expunge, "{text}");
                self.is_selected();
                for uid in numbers(uids) {
                    self.vanish(uid);
                }
            }
            [number, "EXISTS"] => self.exists(number.parse().unwrap()),
            [number, "EXPUNGE"] => {
                assert!(may_expunge && !self.uid_only, "{text}");
                self.rows.remove(number.parse::<usize>().unwrap() - 1);
            }
            [number, "FETCH", _] => {
                assert!(!self.uid_only, "{text}");
                let number: usize = number.parse().unwrap();
                let items = Value::list_of(&response[format!("* {number} FETCH ").len()..]);
                self.fetched(number - 1, &items, facts);
            }
            [uid, "UIDFETCH", _] => {
                assert!(self.uid_only, "{text}");
                let items = Value::list_of(&response[format!("* {uid} UIDFETCH ").len()..]);
                let place = self.place_of(uid.parse().unwrap());
                self.fetched(place, &items, facts);
            }
            ["FLAGS", ..] => {
                self.flag_names = names(&Value::list_of(&response["* FLAGS ".len()..]));
            }
            ["OK", code, rest] => {
                let number = || rest.split(']').next().unwrap().parse::<u64>().unwrap();
                match code {
                    "[HIGHESTMODSEQ" => self.modseq = number(),
                    "[UIDVALIDITY" => self.uid_validity = u32::try_from(number()).unwrap(),
                    "[COPYUID" => facts.gave(&given_by(&text)),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn exists(&mut self, count: usize) {
        if std::mem::take(&mut self.is_selecting) {
            self.rows.retain(|row| row.uid.is_some());
            self.selected = Some(count);
            return;
        }
        assert!(count >= self.rows.len(), "{count} EXISTS {:?}", self.uids());
        self.rows.resize(count, Row::default());
    }

    /// Nothing more is said of what went before a SELECT.
    pub(crate) fn is_selected(&mut self) {
        if let Some(count) = self.selected.take() {
            assert!(self.rows.len() <= count, "{count} EXISTS {:?}", self.uids());
            self.rows.resize(count, Row::default());
        }
    }

    fn vanish(&mut self, uid: u32) {
        let place = self.rows.iter().position(|row| row.uid == Some(uid));
        let place = place.unwrap_or_else(|| {
            // One that it knows nothing of: between those with a smaller and a greater UID.
            let below = self
                .rows
                .iter()
                .rposition(|row| row.uid < Some(uid) && row.uid.is_some());
            let first = below.map_or(0, |below| below + 1);
            let first = match self.uid_only {
                true => self.rows.len().saturating_sub(1),
                false => first,
            };
            let is_unknown = self.rows.get(first).is_some_and(|row| row.uid.is_none());
            assert!(is_unknown, "VANISHED {uid} of {:?}", self.uids());
            first
        });
        self.rows.remove(place);
    }

    /// With UIDONLY: where a UID is, or would be.
    fn place_of(&mut self, uid: u32) -> usize {
        if let Some(place) = self.rows.iter().position(|row| row.uid == Some(uid)) {
            return place;
        }
        let unknown = self.rows.pop();
        assert!(
            unknown.is_some_and(|row| row.uid.is_none()),
            "UIDFETCH {uid} of {:?}",
            self.uids()
        );
        let above = |row: &Row| row.uid.is_none_or(|one| one > uid);
        let place = self.rows.iter().position(above).unwrap_or(self.rows.len());
        self.rows.insert(
            place,
            Row {
                uid: Some(uid),
                ..Row::default()
            },
        );
        place
    }

    fn fetched(&mut self, place: usize, items: &[Value], facts: &Facts) {
        let items: BTreeMap<String, &Value> = items
            .chunks(2)
            .map(|pair| (pair[0].text().to_ascii_uppercase(), &pair[1]))
            .collect();
        let row = &mut self.rows[place];
        if let Some(uid) = items.get("UID") {
            let uid = u32::try_from(uid.number()).unwrap();
            assert_eq!(*row.uid.get_or_insert(uid), uid, "at {place}");
        }
        let flags = items.get("FLAGS").map(|flags| {
            let mut flags = names(flags.list());
            flags.remove("\\Recent");
            flags
        });
        if let Some(flags) = &flags {
            assert!(
                self.flag_names.is_superset(flags),
                "{flags:?} of {:?}",
                self.flag_names
            );
            row.flags = Some(flags.clone());
        }
        let modseq = items
            .get("MODSEQ")
            .map(|modseq| modseq.list()[0].number() as u64);
        if let Some(modseq) = modseq {
            assert!(row.modseq <= Some(modseq), "MODSEQ {modseq} of {row:?}");
            row.modseq = Some(modseq);
            self.modseq = self.modseq.max(modseq);
        }
        if let (Some(uid), Some(flags), Some(modseq)) = (row.uid, flags, modseq) {
            let mut told = facts.flags.lock().unwrap();
            let first = told.entry((uid, modseq)).or_insert_with(|| flags.clone());
            assert_eq!(*first, flags, "of UID {uid} at {modseq}");
        }
        let subject = items
            .iter()
            .find(|(name, _)| name.starts_with("BODY[HEADER"));
        if let (Some(uid), Some((_, subject))) = (row.uid, subject) {
            let subject = subject
                .text()
                .trim()
                .trim_start_matches("Subject: ")
                .to_owned();
            let mut subjects = facts.subjects.lock().unwrap();
            let first = subjects.entry(uid).or_insert_with(|| subject.clone());
            assert_eq!(*first, subject, "UID {uid}");
            row.subject = Some(subject);
        }
        let known: Vec<u32> = self.rows.iter().filter_map(|row| row.uid).collect();
        assert!(known.is_sorted_by(|a, b| a < b), "{known:?}");
    }

    /// What a STORE without an answer does.
    pub(crate) fn store_silently(
        &mut self,
        places: std::ops::RangeInclusive<usize>,
        adds: bool,
        flag: &str,
    ) {
        for row in &mut self.rows[places] {
            if let Some(flags) = &mut row.flags {
                match adds {
                    true => flags.insert(flag.to_owned()),
                    false => flags.remove(flag),
                };
            }
        }
    }

    pub(crate) fn uids(&self) -> Vec<Option<u32>> {
        self.rows.iter().map(|row| row.uid).collect()
    }

    /// Whether all that it knows is so.
    pub(crate) fn agrees(&self, last: &Self) -> Result<(), String> {
        if self.rows.len() != last.rows.len() {
            return Err(format!("{:?} are {:?}", self.uids(), last.uids()));
        }
        let by_uid: BTreeMap<_, _> = last.rows.iter().map(|row| (row.uid, row)).collect();
        for (place, row) in self.rows.iter().enumerate() {
            let is = match (self.uid_only, row.uid) {
                (true, None) => continue,
                (true, uid) => by_uid
                    .get(&uid)
                    .copied()
                    .ok_or(format!("{uid:?} is gone"))?,
                (false, _) => &last.rows[place],
            };
            let differs = row.uid.is_some() && row.uid != is.uid
                || row.flags.is_some() && row.flags != is.flags
                || row.modseq.is_some() && row.modseq != is.modseq;
            if differs {
                return Err(format!("{place}: {row:?} is {is:?}"));
            }
        }
        Ok(())
    }
}

/// The words of a list of flags.
fn names(list: &[Value]) -> FlagNames {
    list.iter().map(Value::text).collect()
}

/// The numbers of a set.
pub(crate) fn numbers(set: &str) -> Vec<u32> {
    let ranges = set.split(',').map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// The new UIDs of an answer with APPENDUID or COPYUID.
pub(crate) fn given_by(answer: &str) -> Vec<u32> {
    let Some(at) = answer
        .find("[APPENDUID ")
        .or_else(|| answer.find("[COPYUID "))
    else {
        return Vec::new();
    };
    let code = answer[at..].split(']').next().unwrap();
    numbers(code.rsplit(' ').next().unwrap())
}
