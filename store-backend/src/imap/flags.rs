//! Flags between the grammar's words and the store's bits.

use mail_proto::imap::command::{Flag, Keyword};

use crate::volume::{FlagSet, Flags, Snapshot, Summary};

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

/// The flags of one message.
pub(super) fn of_message(snapshot: &Snapshot, message: &Summary) -> Vec<Flag> {
    let system = SYSTEM
        .into_iter()
        .filter(|(_, bits)| message.flags.contains(*bits));
    system
        .map(|(flag, _)| flag)
        .chain(keywords(snapshot.keywords_of(message)))
        .collect()
}

/// All flags that messages of a mailbox have or had: what FLAGS tells.
pub(super) fn of_mailbox(snapshot: &Snapshot) -> Vec<Flag> {
    let used = snapshot.keywords.iter().map(String::as_str);
    Flag::SYSTEM.into_iter().chain(keywords(used)).collect()
}

fn keywords<'k>(words: impl Iterator<Item = &'k str>) -> impl Iterator<Item = Flag> {
    // The store takes atoms alone; what is none could not be written.
    words.filter_map(Keyword::new).map(Flag::Keyword)
}
