//! What a session is between two commands: one value.
//!
//! Everything that the next command depends on stands here and nowhere else, so that the value can
//! be written out, carried to another back-end and read back, also inside IDLE. The shell's own
//! things (what was read and not yet used, replies not yet written, the volume's bell) are made
//! anew. A build with debug assertions does so before every command of every session.

use directory_api::{AccountId, Epoch, LoginName};
use mail_proto::imap::capability::Enabled;
use mail_proto::imap::mailbox::{MailboxName, NameForm};
use mail_proto::imap::sequence::{Addressing, MessageSet};
use serde::{Deserialize, Serialize};

use super::notify::Registration;
use super::view::View;
use crate::deflate::Carried;
use crate::volume::{MailboxId, Rights};

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Whose mail.
    pub(super) account: AccountId,
    /// Under which the session may write (P4).
    pub(super) epoch: Epoch,
    /// What the user is called.
    pub(super) login_name: LoginName,
    /// What ENABLE, or a command that implies it, switched on.
    pub(super) enabled: Enabled,
    /// The open mailbox.
    pub(super) selected: Option<Selected>,
    /// What NOTIFY has registered; none until it is used first. RFC 5465.
    pub(super) notify: Option<Box<Registration>>,
    /// The tag of the IDLE under way.
    pub(super) idle: Option<String>,
    /// Commands answered with BAD since the last good one.
    pub(super) bad_count: u32,
    /// What the client's compressed octets depend on (COMPRESS), while the state is written out: in a session that
    /// is served it moves with every octet, and is the transport's. Within a block of them, where a client never
    /// stops by itself, a session cannot be written out.
    pub(super) compressed: Option<Carried>,
}

/// Where a mailbox is. A number alone would mean another mailbox in another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Whose it is.
    pub(super) account: AccountId,
    /// Under which it may be written (P4): the owner's.
    pub(super) epoch: Epoch,
    /// Which of the owner's.
    #[serde(with = "MailboxNumber")]
    pub(super) mailbox: MailboxId,
    /// What the session may do there.
    #[serde(with = "RightsBits")]
    pub(super) rights: Rights,
}

/// The open mailbox as the client knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selected {
    /// Which.
    pub(super) place: Place,
    /// Its name when it was selected.
    pub(super) name: MailboxName,
    /// EXAMINE.
    pub(super) read_only: bool,
    /// RFC 9051 §2.3.1.1.
    pub(super) uidvalidity: u32,
    /// The messages the client knows of: what gives them their sequence numbers.
    pub(super) view: View,
    /// Those of the view that are gone; the client was not told yet.
    pub(super) gone: View,
    /// Up to which MODSEQ the client was told of everything when the first of `gone` went.
    pub(super) gone_since: u64,
    /// The client was told of every message below this UID.
    pub(super) uid_next: u32,
    /// The client was told of everything up to this MODSEQ, `gone` aside.
    pub(super) modseq: u64,
    /// How many of the mailbox's keywords FLAGS has told; keywords only ever grow.
    pub(super) keyword_count: usize,
    /// `$`: the UIDs a search has saved. RFC 5182.
    pub(super) saved: View,
    /// Those this session was told of before any other: `\Recent`. RFC 3501 §2.3.2.
    pub(super) recent: View,
}

/// Why a set names no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BeyondEnd;

impl State {
    /// A session that has just logged in.
    pub(super) fn new(account: AccountId, epoch: Epoch, login_name: LoginName) -> Self {
        Self {
            account,
            epoch,
            login_name,
            enabled: Enabled::default(),
            selected: None,
            notify: None,
            idle: None,
            bad_count: 0,
            compressed: None,
        }
    }

    /// How names travel.
    pub(super) fn form(&self) -> NameForm {
        match self.enabled.utf8() {
            true => NameForm::Utf8,
            false => NameForm::Utf7,
        }
    }

    /// Writes it out.
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a value of numbers and strings can be written")
    }

    /// Reads back what [`write`](Self::write) wrote.
    pub(super) fn read(octets: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(octets)
    }
}

impl Selected {
    /// What [`resolve`](Self::resolve) finds, numbers without a message passed over: a search for them finds nothing,
    /// and that is an answer.
    pub(super) fn resolve_known(&self, set: &MessageSet, by: Addressing) -> View {
        let count = self.view.count();
        match (set, by) {
            (MessageSet::Numbers(numbers), Addressing::Sequence) if count > 0 => {
                let uid = |sequence: u32| self.view.uid(sequence.min(count));
                let ranges = numbers.resolve(count).filter(|(first, _)| *first <= count);
                let ranges = ranges.filter_map(|(first, last)| uid(first).zip(uid(last)));
                ranges
                    .flat_map(|(first, last)| self.view.uids_between(first, last))
                    .collect()
            }
            _ => self.resolve(set, by).unwrap_or_default(),
        }
    }

    /// These are gone, and the client must be told. Call it before `modseq` says that it knows.
    pub(super) fn note_gone(&mut self, uids: impl Iterator<Item = u32>) {
        for uid in uids {
            if self.gone.is_empty() {
                self.gone_since = self.modseq;
            }
            self.gone.insert(uid);
        }
    }

    /// Up to which MODSEQ the client was told of everything, `gone` too.
    pub(super) fn modseq_of_all(&self) -> u64 {
        match self.gone.is_empty() {
            true => self.modseq,
            false => self.gone_since,
        }
    }

    /// The rights to change flags: none in a mailbox that was opened read-only.
    pub(super) fn flag_rights(&self) -> Rights {
        match self.read_only {
            true => Rights::default(),
            false => self.place.rights,
        }
    }

    /// The UIDs that a set of a command names, of messages the client knows. UIDs that do not exist
    /// are passed over, as RFC 9051 §6.4.9 has it; the messages may be gone by now.
    ///
    /// # Errors
    /// [`BeyondEnd`]: there is no message of a sequence number in it.
    pub(super) fn resolve(&self, set: &MessageSet, by: Addressing) -> Result<View, BeyondEnd> {
        let numbers = match set {
            MessageSet::Saved => return Ok(self.saved.clone()),
            MessageSet::Numbers(numbers) => numbers,
        };
        let Some(last_uid) = self.view.last() else {
            // `1:*` of an empty mailbox is what clients send to list it.
            return match by == Addressing::Sequence && !numbers.has_star() {
                true => Err(BeyondEnd),
                false => Ok(View::default()),
            };
        };
        let named = |first, last| self.view.uids_between(first, last);
        match by {
            Addressing::Uid => {
                let ranges = numbers.resolve(last_uid);
                Ok(ranges
                    .flat_map(|(first, last)| named(first, last))
                    .collect())
            }
            Addressing::Sequence => {
                let count = self.view.count();
                if numbers.largest().is_some_and(|largest| largest > count) {
                    return Err(BeyondEnd);
                }
                let uid = |sequence| self.view.uid(sequence).unwrap_or(last_uid);
                let ranges = numbers.resolve(count);
                Ok(ranges
                    .flat_map(|(first, last)| named(uid(first), uid(last)))
                    .collect())
            }
        }
    }
}

/// [`MailboxId`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "MailboxId")]
struct MailboxNumber(u32);

/// [`Rights`] as they are written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Rights")]
struct RightsBits(u32);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mail_proto::imap::command::Command;
    use mail_proto::imap::framing::Frame;
    use mail_proto::imap::parse;

    use super::*;

    fn selected(uids: &[u32]) -> Selected {
        Selected {
            place: Place {
                account: AccountId(3),
                epoch: Epoch(4),
                mailbox: MailboxId(7),
                rights: Rights::ALL,
            },
            name: MailboxName::new("a").unwrap(),
            read_only: false,
            uidvalidity: 9,
            view: uids.iter().copied().collect(),
            gone: View::default(),
            gone_since: 0,
            uid_next: 100,
            modseq: 1 << 40,
            keyword_count: 3,
            saved: [5, 20].into_iter().collect(),
            recent: [30].into_iter().collect(),
        }
    }

    /// What a set as a client sends it names.
    fn named(uids: &[u32], set: &str, by: Addressing) -> Option<Vec<u32>> {
        let frame = Frame::line(format!("a COPY {set} b").as_bytes());
        let Command::Copy(_, set, _) = parse::command(&frame, NameForm::Utf7).unwrap().command
        else {
            panic!("not a COPY");
        };
        let found = selected(uids).resolve(&set, by).ok()?;
        Some(found.uids().collect())
    }

    #[test]
    fn a_set_names_the_messages_the_client_knows() {
        let by = Addressing::Sequence;
        let uids = [5, 10, 20, 30];
        for (set, found) in [
            ("1", Some(vec![5])),
            ("2:3", Some(vec![10, 20])),
            ("*", Some(vec![30])),
            ("3:*,1", Some(vec![5, 20, 30])),
            ("9:*", None),
            ("5", None),
            ("4:5", None),
            ("$", Some(vec![5, 20])),
        ] {
            assert_eq!(named(&uids, set, by), found, "{set}");
        }
        assert_eq!(named(&[], "1:*", by), Some(vec![]));
        assert_eq!(named(&[], "1", by), None);
    }

    #[test]
    fn a_search_passes_over_numbers_without_a_message() {
        let known = |uids: &[u32], set: &str| {
            let frame = Frame::line(format!("a COPY {set} b").as_bytes());
            let parsed = parse::command(&frame, NameForm::Utf7).unwrap().command;
            let Command::Copy(_, set, _) = parsed else {
                panic!("not a COPY");
            };
            let found = selected(uids).resolve_known(&set, Addressing::Sequence);
            found.uids().collect::<Vec<u32>>()
        };
        let uids = [5, 10, 20, 30];
        for (set, found) in [
            ("5", vec![]),
            ("1000:2000", vec![]),
            ("4:5", vec![30]),
            ("9:*", vec![30]),
            ("1,3:9", vec![5, 20, 30]),
            ("$", vec![5, 20]),
        ] {
            assert_eq!(known(&uids, set), found, "{set}");
        }
        assert!(known(&[], "1").is_empty() && known(&[], "1:*").is_empty());
    }

    #[test]
    fn uids_without_a_message_are_passed_over() {
        let by = Addressing::Uid;
        let uids = [5, 10, 20, 30];
        for (set, found) in [
            ("1:10", vec![5, 10]),
            ("6", vec![]),
            ("31:*", vec![30]),
            ("*", vec![30]),
            ("1:4294967295", vec![5, 10, 20, 30]),
        ] {
            assert_eq!(named(&uids, set, by), Some(found), "{set}");
        }
        assert_eq!(named(&[], "1:*", by), Some(vec![]));
    }

    #[test]
    fn a_state_is_written_and_read_back() {
        let mut state = State::new(AccountId(3), Epoch(4), LoginName::new("ann").unwrap());
        assert_eq!(State::read(&state.write()).unwrap(), state);
        state.selected = Some(selected(&[1, 2, 3, 70_000]));
        state.idle = Some("tag".to_owned());
        state.enabled.qresync = true;
        assert_eq!(State::read(&state.write()).unwrap(), state);
        assert!(State::read(b"{}").is_err());
    }

    #[test]
    fn an_idle_session_of_a_mailbox_without_gaps_is_small() {
        let mut state = State::new(AccountId(3), Epoch(4), LoginName::new("ann").unwrap());
        state.selected = Some(selected(&(1..=1_000_000).collect::<Vec<_>>()));
        assert!(state.write().len() < 1024);
    }
}
