//! SEARCH, SORT and THREAD. RFC 9051 §6.4.4, RFC 4731, 5032, 5256, 5267, 5957.

use super::super::sequence::{Addressing, MessageSet, PartialRange};
use super::{Date, Flag};

/// SEARCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What numbers the answer has.
    pub by: Addressing,
    /// RETURN: an ESEARCH response with these. Without it, SEARCH (in IMAP4rev1).
    pub returns: Option<ReturnOptions>,
    /// CHARSET of the strings, as sent. UTF-8 when absent.
    pub charset: Option<String>,
    /// What to look for.
    pub keys: SearchKey,
}

/// SORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// What numbers the answer has.
    pub by: Addressing,
    /// RETURN, RFC 5267.
    pub returns: Option<ReturnOptions>,
    /// In which order; the first is the most significant.
    pub criteria: Vec<SortCriterion>,
    /// CHARSET of the strings, as sent.
    pub charset: String,
    /// What to look for.
    pub keys: SearchKey,
}

/// THREAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// What numbers the answer has.
    pub by: Addressing,
    /// How to thread.
    pub algorithm: ThreadAlgorithm,
    /// CHARSET of the strings, as sent.
    pub charset: String,
    /// What to look for.
    pub keys: SearchKey,
}

/// What an ESEARCH response is to have. `RETURN ()` reads as ALL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReturnOptions {
    /// MIN.
    pub min: bool,
    /// MAX.
    pub max: bool,
    /// ALL.
    pub all: bool,
    /// COUNT.
    pub count: bool,
    /// SAVE: keep it for `$`. RFC 5182.
    pub save: bool,
    /// PARTIAL, RFC 9394.
    pub partial: Option<PartialRange>,
}

/// What a message must be. At most 100 levels deep, so that
/// whoever walks it may recurse: a chain of OR is one `Or`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchKey {
    /// Every message.
    All,
    /// All of these; never empty.
    And(Vec<SearchKey>),
    /// Any of these; never empty.
    Or(Vec<SearchKey>),
    /// Not this.
    Not(Box<SearchKey>),
    /// Sequence numbers.
    Sequence(MessageSet),
    /// UID.
    Uid(MessageSet),
    /// UIDAFTER: UIDs above this one, or all of `$`. RFC 9738 §3.2.
    UidAfter(MessageSet),
    /// UIDBEFORE: UIDs below it.
    UidBefore(MessageSet),
    /// A flag or keyword is set (ANSWERED, KEYWORD …).
    Flag(Flag),
    /// RECENT; NEW and OLD are made of it.
    Recent,
    /// A header field has this text; empty text: the field is there. Also BCC,
    /// CC, FROM, SUBJECT and TO, in capitals.
    Header(String, Vec<u8>),
    /// BODY.
    Body(Vec<u8>),
    /// TEXT: header or body.
    Text(Vec<u8>),
    /// BEFORE, ON, SINCE and the like with SENT and SAVED.
    Date(DateField, DateTest, Date),
    /// SAVEDATESUPPORTED, RFC 8514.
    SaveDateSupported,
    /// LARGER than so many octets.
    Larger(u64),
    /// SMALLER than so many octets.
    Smaller(u64),
    /// OLDER: internal date at least so many seconds ago. RFC 5032.
    Older(u32),
    /// YOUNGER: internal date within so many seconds.
    Younger(u32),
    /// MODSEQ: changed at or after. RFC 7162 §3.1.5. An entry name is read and
    /// dropped: modification sequences are per message here.
    ModSeq(u64),
    /// EMAILID, RFC 8474.
    EmailId(String),
    /// THREADID.
    ThreadId(String),
}

/// Which date of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateField {
    /// The internal date.
    Internal,
    /// Its Date field.
    Sent,
    /// When it came into the mailbox. RFC 8514.
    Saved,
}

/// How a date compares; time of day and zone are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateTest {
    /// Earlier than the day.
    Before,
    /// On the day.
    On,
    /// On the day or later.
    Since,
}

/// One of SORT's criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortCriterion {
    /// By what.
    pub key: SortKey,
    /// REVERSE.
    pub reverse: bool,
}

/// By what SORT sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// ARRIVAL: the internal date.
    Arrival,
    /// CC: the first one's mailbox.
    Cc,
    /// DATE.
    Date,
    /// FROM.
    From,
    /// SIZE.
    Size,
    /// SUBJECT: the base subject.
    Subject,
    /// TO.
    To,
    /// DISPLAYFROM, RFC 5957.
    DisplayFrom,
    /// DISPLAYTO.
    DisplayTo,
}

/// How THREAD threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadAlgorithm {
    /// ORDEREDSUBJECT.
    OrderedSubject,
    /// REFERENCES.
    References,
}

impl SearchKey {
    /// Whether any key in it is a set of sequence numbers.
    pub fn has_sequence(&self) -> bool {
        self.any(&|key| matches!(key, Self::Sequence(MessageSet::Numbers(_))))
    }

    /// Whether any key in it uses MODSEQ, which turns CONDSTORE on and puts the
    /// highest MODSEQ into the answer. RFC 7162 §3.1.5.
    pub fn has_modseq(&self) -> bool {
        self.any(&|key| matches!(key, Self::ModSeq(_)))
    }

    fn any(&self, test: &impl Fn(&Self) -> bool) -> bool {
        match self {
            Self::And(keys) | Self::Or(keys) => keys.iter().any(|key| key.any(test)),
            Self::Not(key) => key.any(test),
            key => test(key),
        }
    }
}
