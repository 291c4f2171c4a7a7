//! Flags between the grammar's words and the store's bits.

use mail_proto::imap::command::{Flag, Keyword};

use crate::volume::{FlagSet, Flags, FlagsNow, Rights, Snapshot, Stored, Summary};

const SYSTEM: [(Flag, Flags); 5] = [
    (Flag::Answered, Flags::ANSWERED),
    (Flag::Flagged, Flags::FLAGGED),
    (Flag::Deleted, Flags::DELETED),
    (Flag::Seen, Flags::SEEN),
    (Flag::Draft, Flags::DRAFT),
];

/// What a client named, for the store.
pub(super) fn to_store(named: &[Flag]) -> FlagSet {
    let mut set = FlagSet::default();
    for flag in named {
        match flag {
            Flag::Keyword(keyword) => set.keywords.push(keyword.as_str().to_owned()),
            system => {
                let bits = SYSTEM.iter().find(|(name, _)| name == system);
                set.system = set.system | bits.map_or(Flags::default(), |(_, bits)| *bits);
            }
        }
    }
    set
}

/// Whether these rights let a flag be changed.
pub(super) fn may_change(flag: &Flag, rights: Rights) -> bool {
    rights.has(match flag {
        Flag::Seen => Rights::SEEN,
        Flag::Deleted => Rights::DELETE,
        _ => Rights::WRITE,
    })
}

/// The flags of one message.
pub(super) fn of_message(snapshot: &Snapshot, message: &Summary) -> Vec<Flag> {
    of(message.flags, snapshot.keywords_of(message))
}

/// The flags of one message that a STORE has named.
pub(super) fn of_stored(stored: &Stored, message: &FlagsNow) -> Vec<Flag> {
    let numbers = message.keywords.iter().map(|number| usize::from(*number));
    let words = numbers.filter_map(|number| stored.keywords.get(number));
    of(message.flags, words.map(String::as_str))
}

fn of<'k>(flags: Flags, words: impl Iterator<Item = &'k str>) -> Vec<Flag> {
    let system = SYSTEM.into_iter().filter(|(_, bits)| flags.contains(*bits));
    let system = system.map(|(flag, _)| flag);
    system.chain(keywords(words)).collect()
}

/// All flags that messages of a mailbox have or had: what FLAGS tells.
pub(super) fn of_mailbox(keywords_used: &[String]) -> Vec<Flag> {
    let used = keywords_used.iter().map(String::as_str);
    Flag::SYSTEM.into_iter().chain(keywords(used)).collect()
}

fn keywords<'k>(words: impl Iterator<Item = &'k str>) -> impl Iterator<Item = Flag> {
    // The store takes atoms alone; what is none could not be written.
    words.filter_map(Keyword::new).map(Flag::Keyword)
}
