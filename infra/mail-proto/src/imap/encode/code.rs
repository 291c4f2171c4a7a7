//! Response codes: what a client's program reads. RFC 9051 §7.1, RFC 5530.

use super::super::command::Flag;
use super::super::mailbox::NameForm;
use super::super::sequence::SequenceSet;
use super::string::{flag_list, string};
use crate::output::number;

/// What stands between the brackets of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code<'a> {
    /// One without an argument, such as `READ-ONLY`, `TRYCREATE`, `OVERQUOTA`,
    /// `EXPUNGEISSUED`, `CLOSED`, `NOMODSEQ`, `UIDREQUIRED`.
    Word(&'static str),
    /// APPENDUID: UIDVALIDITY and the new UIDs. RFC 4315.
    AppendUid(u32, &'a SequenceSet),
    /// BADCHARSET with those that are known.
    BadCharset(&'a [&'a str]),
    /// BADEVENT with those that are known. RFC 5465.
    BadEvent(&'a [&'a str]),
    /// CAPABILITY.
    Capability(&'a [&'a str]),
    /// COPYUID: UIDVALIDITY, from, to. RFC 4315.
    CopyUid(u32, &'a SequenceSet, &'a SequenceSet),
    /// HIGHESTMODSEQ, RFC 7162.
    HighestModSeq(u64),
    /// INPROGRESS: tag, done, goal. RFC 9585.
    InProgress(Option<&'a str>, Option<u32>, Option<u32>),
    /// MAILBOXID, RFC 8474.
    MailboxId(&'a str),
    /// MESSAGELIMIT: the limit, and the lowest UID done. RFC 9738.
    MessageLimit(u32, Option<u32>),
    /// METADATA LONGENTRIES: size of the largest left out. RFC 5464.
    MetadataLongEntries(u64),
    /// METADATA MAXSIZE.
    MetadataMaxSize(u64),
    /// METADATA TOOMANY.
    MetadataTooMany,
    /// METADATA NOPRIVATE.
    MetadataNoPrivate,
    /// MODIFIED: those that STORE left alone. RFC 7162.
    Modified(&'a SequenceSet),
    /// PERMANENTFLAGS, and whether keywords can be made.
    PermanentFlags(&'a [Flag], bool),
    /// UIDNEXT.
    UidNext(u32),
    /// UIDVALIDITY.
    UidValidity(u32),
    /// UNSEEN, of IMAP4rev1: the first unseen.
    Unseen(u32),
}

impl Code<'_> {
    /// Writes it without its brackets.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let words = |out: &mut Vec<u8>, words: &[&str]| {
            out.extend_from_slice(words.join(" ").as_bytes());
        };
        let named = |out: &mut Vec<u8>, name: &str, value: u64| {
            out.extend_from_slice(name.as_bytes());
            out.push(b' ');
            number(out, value);
        };
        match *self {
            Self::Word(word) => out.extend_from_slice(word.as_bytes()),
            Self::AppendUid(uid_validity, uids) => {
                named(out, "APPENDUID", uid_validity.into());
                out.push(b' ');
                uids.encode(out);
            }
            Self::CopyUid(uid_validity, from, to) => {
                named(out, "COPYUID", uid_validity.into());
                for uids in [from, to] {
                    out.push(b' ');
                    uids.encode(out);
                }
            }
            Self::BadCharset(known) => {
                out.extend_from_slice(b"BADCHARSET (");
                words(out, known);
                out.push(b')');
            }
            Self::BadEvent(known) => {
                out.extend_from_slice(b"BADEVENT (");
                words(out, known);
                out.push(b')');
            }
            Self::Capability(names) => {
                out.extend_from_slice(b"CAPABILITY ");
                words(out, names);
            }
            Self::HighestModSeq(modseq) => named(out, "HIGHESTMODSEQ", modseq),
            Self::InProgress(tag, done, goal) => in_progress(out, tag, done, goal),
            Self::MailboxId(id) => {
                out.extend_from_slice(b"MAILBOXID (");
                out.extend_from_slice(id.as_bytes());
                out.push(b')');
            }
            Self::MessageLimit(limit, uid) => {
                named(out, "MESSAGELIMIT", limit.into());
                if let Some(uid) = uid {
                    out.push(b' ');
                    number(out, uid.into());
                }
            }
            Self::MetadataLongEntries(size) => named(out, "METADATA LONGENTRIES", size),
            Self::MetadataMaxSize(size) => named(out, "METADATA MAXSIZE", size),
            Self::MetadataTooMany => out.extend_from_slice(b"METADATA TOOMANY"),
            Self::MetadataNoPrivate => out.extend_from_slice(b"METADATA NOPRIVATE"),
            Self::Modified(set) => {
                out.extend_from_slice(b"MODIFIED ");
                set.encode(out);
            }
            Self::PermanentFlags(flags, any) => {
                out.extend_from_slice(b"PERMANENTFLAGS ");
                flag_list(out, flags, any);
            }
            Self::UidNext(uid) => named(out, "UIDNEXT", uid.into()),
            Self::UidValidity(uid_validity) => named(out, "UIDVALIDITY", uid_validity.into()),
            Self::Unseen(sequence) => named(out, "UNSEEN", sequence.into()),
        }
    }
}

fn in_progress(out: &mut Vec<u8>, tag: Option<&str>, done: Option<u32>, goal: Option<u32>) {
    out.extend_from_slice(b"INPROGRESS (");
    match tag {
        Some(tag) => string(out, tag.as_bytes(), NameForm::Utf7),
        None => out.extend_from_slice(b"NIL"),
    }
    for count in [done, goal] {
        out.push(b' ');
        match count {
            Some(count) => number(out, count.into()),
            None => out.extend_from_slice(b"NIL"),
        }
    }
    out.push(b')');
}
