//! The one map from what happened to what a client is told.

use mail_proto::imap::encode::{Code, Condition, Encoder};
use mail_proto::imap::mailbox::NameForm;
use mail_proto::imap::parse::{ErrorKind, ParseError};

use super::notify::SUPPORTED;
use super::state::BeyondEnd;
use crate::user::Cut;
use crate::volume::{ReadError, Refusal, WriteError};

/// The tagged answer that ends a command: all but its tag.
#[derive(Debug)]
pub(super) struct Reply {
    /// OK, NO or BAD.
    pub(super) condition: Condition,
    /// Whether it has a response code.
    pub(super) has_code: bool,
    /// Everything behind the tag.
    rest: Vec<u8>,
}

/// Why a command could not be done, where that is not the verb's own business.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The connection is of no use any more: nothing is answered.
    #[error("connection cannot be used")]
    Cut(#[from] Cut),
    /// The selected mailbox is not there any more: there is no way to say so but BYE.
    #[error("selected mailbox was deleted")]
    MailboxGone,
    /// The session shall end, and the command would take too long.
    #[error("session ends")]
    Ending,
    /// The selected mailbox is another user's, who is being moved.
    #[error("owner of the selected mailbox is away")]
    OwnerAway,
    /// The volume of another user's mailbox is not open.
    #[error("volume is not available")]
    VolumeAway,
    /// A command of the selected state, outside of it.
    #[error("no mailbox is selected")]
    NotSelected,
    /// A command that changes the mailbox, after EXAMINE.
    #[error("mailbox was opened read-only")]
    ReadOnly,
    /// The volume takes no writes until an operator has adopted it.
    #[error("volume is not adopted")]
    NotAdopted,
    /// A sequence number without a message.
    #[error("no such message")]
    BeyondEnd,
    /// The volume refused.
    #[error("volume refused")]
    Refused(#[from] Refusal),
    /// The volume cannot be read.
    #[error("volume cannot be read")]
    Read(#[from] ReadError),
    /// A message cannot be taken.
    #[error("message cannot be written")]
    Write(#[from] WriteError),
}

impl Reply {
    /// An answer; `text` is fixed and safe.
    pub(super) fn new(condition: Condition, code: Option<&Code<'_>>, text: &str) -> Self {
        let mut rest = Vec::new();
        // The tag is not known here; what follows it does not depend on it.
        Encoder::new(&mut rest, NameForm::Utf7).tagged("x", condition, code, text);
        let has_code = code.is_some();
        Self {
            condition,
            has_code,
            rest,
        }
    }

    /// OK.
    pub(super) fn ok(text: &str) -> Self {
        Self::new(Condition::Ok, None, text)
    }

    /// OK with a code.
    pub(super) fn ok_with(code: &Code<'_>, text: &str) -> Self {
        Self::new(Condition::Ok, Some(code), text)
    }

    /// NO with a code of RFC 5530 or an extension.
    pub(super) fn no(code: &'static str, text: &str) -> Self {
        Self::new(Condition::No, Some(&Code::Word(code)), text)
    }

    /// OK to what was done with all messages that are there, while others that the client counts are gone: FETCH, STORE and
    /// SEARCH by sequence number. The code says so (RFC 5530), and EXPUNGE is told as soon as numbers may change. RFC 2180
    /// §4.2 knows servers that say NO to a STORE whose new flags are asked for; but it was done as far as it can be, and
    /// a client that takes it for failed would do it again. COPY and MOVE do all or nothing, and refuse: `copy::missing`.
    pub(super) fn some_gone() -> Self {
        let code = Code::Word("EXPUNGEISSUED");
        Self::ok_with(&code, "some of the messages are gone")
    }

    /// BAD.
    pub(super) fn bad(text: &str) -> Self {
        Self::new(Condition::Bad, None, text)
    }

    /// BAD to a sequence number, once UIDONLY is enabled. RFC 9586 §3.
    pub(super) fn uid_required() -> Self {
        let code = Code::Word("UIDREQUIRED");
        Self::new(Condition::Bad, Some(&code), "only UIDs, as you enabled it")
    }

    /// NO to an event of NOTIFY that cannot be told. RFC 5465 §3.1.
    pub(super) fn bad_event() -> Self {
        let code = Code::BadEvent(SUPPORTED);
        Self::new(Condition::No, Some(&code), "no such event here")
    }

    /// The answer to what the grammar does not take.
    pub(super) fn unreadable(error: &ParseError) -> Self {
        match error.kind {
            ErrorKind::Limit => {
                Self::new(Condition::Bad, Some(&Code::Word("LIMIT")), &error.text())
            }
            ErrorKind::Name => Self::no("CANNOT", &error.text()),
            ErrorKind::BadEvent => Self::bad_event(),
            ErrorKind::Syntax | ErrorKind::Unknown => Self::bad(&error.text()),
        }
    }

    /// Writes it behind its tag.
    pub(super) fn encode(&self, tag: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(tag.as_bytes());
        out.extend_from_slice(&self.rest[1..]);
    }
}

impl Failure {
    /// What the client is told; `None` when the session ends instead.
    pub(super) fn reply(&self) -> Option<Reply> {
        Some(match self {
            Self::Cut(_) | Self::MailboxGone | Self::OwnerAway | Self::Ending => return None,
            Self::NotSelected => Reply::bad("no mailbox is selected"),
            Self::ReadOnly => Reply::new(Condition::No, None, "mailbox was opened read-only"),
            Self::BeyondEnd => Reply::bad("there is no such message"),
            Self::NotAdopted => Reply::no("UNAVAILABLE", "the store takes no changes at present"),
            Self::Refused(refusal) => refused(refusal),
            Self::Read(_) | Self::VolumeAway => {
                Reply::no("UNAVAILABLE", "mailbox cannot be read now, try again")
            }
            Self::Write(_) => Reply::no("UNAVAILABLE", "message cannot be taken now, try again"),
        })
    }
}

fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::StaleEpoch { .. } | Refusal::Frozen | Refusal::Moved { .. } => Reply::no(
            "UNAVAILABLE",
            "account is being moved, try again in a moment",
        ),
        Refusal::ReadOnly => Reply::no("UNAVAILABLE", "the store takes no changes at present"),
        // Neither the user's quota nor a limit of a command: it passes. RFC 5530 §3.
        Refusal::NoRoom => Reply::no(
            "UNAVAILABLE",
            "the store is nearly full, only what makes room is taken at present",
        ),
        Refusal::NoMailbox => Reply::no("NONEXISTENT", "there is no such mailbox"),
        Refusal::NoSource => Reply::no("NONEXISTENT", "the selected mailbox was deleted"),
        Refusal::NoMessage => Reply::no("EXPUNGEISSUED", "the message is gone"),
        Refusal::MailboxExists => Reply::no("ALREADYEXISTS", "mailbox exists already"),
        Refusal::BadName => Reply::no("CANNOT", "not a name that a mailbox or keyword can have"),
        Refusal::NotAllowed => Reply::no("CANNOT", "this cannot be done with this mailbox"),
        Refusal::NotPermitted => Reply::no("NOPERM", "you have not the right to do this"),
        Refusal::OverQuota => Reply::no("OVERQUOTA", "the account's quota is used up"),
        Refusal::Full => Reply::no("LIMIT", "a limit is reached"),
        // None of these is about anything a client can name.
        Refusal::NoAccount
        | Refusal::WrongState
        | Refusal::OtherMove
        | Refusal::Adopted
        | Refusal::MissingBlobs(_)
        | Refusal::BadItem => Reply::no("SERVERBUG", "the command failed"),
    }
}

impl From<BeyondEnd> for Failure {
    fn from(_: BeyondEnd) -> Self {
        Self::BeyondEnd
    }
}
