//! The row of an account: what it is doing here, and in which moves it was.

use directory_api::{AccountId, BackendName, Epoch, Quota};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::codec::Malformed;
use super::super::types::{AccountInfo, AccountState, MailboxId};
use super::quota_of;

/// An account: the fixed part, followed by the name of the back-end in `moved_to_octets`, and by the moves before, 16 octets each. A
/// build that does not know of these leaves them out when it writes the row.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct AccountBytes {
    version: u8,
    state: u8,
    moved_to_octets: U16,
    mailbox_next: U32,
    uidvalidity_last: U32,
    reserved: U32,
    epoch: U64,
    message_count: U64,
    size_octets: U64,
    move_id: [u8; 16],
    /// 0: no limit.
    quota_octets: U64,
    /// 0: no limit.
    quota_messages: U64,
    quota_as_of: U64,
    reserved_later: [u8; 8],
}

/// What an account is doing, as stored. Never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in super::super) enum State {
    Active = 1,
    Frozen = 2,
    Importing = 3,
    Moved = 4,
}

impl State {
    pub(in super::super) fn from_u8(value: u8) -> Option<Self> {
        [Self::Active, Self::Frozen, Self::Importing, Self::Moved]
            .into_iter()
            .find(|state| *state as u8 == value)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct AccountRow {
    pub(in super::super) state: State,
    pub(in super::super) epoch: Epoch,
    /// Of the move under way, or of the last one.
    pub(in super::super) move_id: [u8; 16],
    /// Those that it was in here before, the last one first: what still comes of them is late.
    pub(in super::super) moves_before: Vec<[u8; 16]>,
    /// Where it lives (`Moved`), or comes from (`Importing`).
    pub(in super::super) elsewhere: Option<BackendName>,
    pub(in super::super) mailbox_next: u32,
    /// The last UIDVALIDITY given: the next is greater.
    pub(in super::super) uidvalidity_last: u32,
    pub(in super::super) message_count: u64,
    pub(in super::super) size_octets: u64,
    /// The newest that was heard of.
    pub(in super::super) quota: Quota,
}

impl AccountRow {
    pub(in super::super) fn new(epoch: Epoch) -> Self {
        Self {
            state: State::Active,
            epoch,
            move_id: NO_MOVE,
            moves_before: Vec::new(),
            elsewhere: None,
            mailbox_next: MailboxId::INBOX.0 + 1,
            uidvalidity_last: 0,
            message_count: 0,
            size_octets: 0,
            quota: Quota::NONE,
        }
    }

    /// The account takes part in a move, or one was given up here.
    pub(in super::super) fn set_move(&mut self, move_id: [u8; 16]) {
        let before = std::mem::replace(&mut self.move_id, move_id);
        self.moves_before.retain(|one| *one != move_id);
        if before != move_id && before != NO_MOVE {
            self.moves_before.insert(0, before);
            self.moves_before.truncate(MOVES_BEFORE_MAX);
        }
    }

    /// Whether a move is over here, however it ended: nothing of it is done any more.
    pub(in super::super) fn has_ended(&self, move_id: &[u8; 16]) -> bool {
        let at_rest = matches!(self.state, State::Active | State::Moved);
        self.moves_before.contains(move_id) || at_rest && self.move_id == *move_id
    }

    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let elsewhere = self.elsewhere.as_ref().map_or("", BackendName::as_str);
        let fixed = AccountBytes {
            version: 1,
            state: self.state as u8,
            moved_to_octets: u16::try_from(elsewhere.len())
                .expect("a back-end's name has at most 63 octets")
                .into(),
            mailbox_next: self.mailbox_next.into(),
            uidvalidity_last: self.uidvalidity_last.into(),
            reserved: 0.into(),
            epoch: self.epoch.0.into(),
            message_count: self.message_count.into(),
            size_octets: self.size_octets.into(),
            move_id: self.move_id,
            quota_octets: self.quota.octets.unwrap_or(0).into(),
            quota_messages: self.quota.messages.unwrap_or(0).into(),
            quota_as_of: self.quota.as_of.0.into(),
            reserved_later: [0; 8],
        };
        let before = self.moves_before.as_flattened();
        [fixed.as_bytes(), elsewhere.as_bytes(), before].concat()
    }

    pub(in super::super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed {
            what: "account row",
        };
        let (fixed, rest) = AccountBytes::read_from_prefix(bytes).map_err(|_| bad)?;
        if fixed.version != 1 {
            return Err(bad);
        }
        let (name, before) = rest
            .split_at_checked(usize::from(fixed.moved_to_octets.get()))
            .ok_or(bad)?;
        let (moves_before, _) = before.as_chunks::<16>();
        let elsewhere = match std::str::from_utf8(name).map_err(|_| bad)? {
            "" => None,
            name => Some(BackendName::new(name).map_err(|_| bad)?),
        };
        Ok(Self {
            state: State::from_u8(fixed.state).ok_or(bad)?,
            epoch: Epoch(fixed.epoch.get()),
            move_id: fixed.move_id,
            moves_before: moves_before.to_vec(),
            elsewhere,
            mailbox_next: fixed.mailbox_next.get(),
            uidvalidity_last: fixed.uidvalidity_last.get(),
            message_count: fixed.message_count.get(),
            size_octets: fixed.size_octets.get(),
            quota: quota_of(
                fixed.quota_octets.get(),
                fixed.quota_messages.get(),
                fixed.quota_as_of.get(),
            ),
        })
    }

    pub(in super::super) fn info(&self, account: AccountId) -> Result<AccountInfo, Malformed> {
        Ok(AccountInfo {
            account,
            epoch: self.epoch,
            state: match self.state {
                State::Active => AccountState::Active,
                State::Frozen => AccountState::Frozen {
                    move_id: self.move_id,
                },
                State::Importing => AccountState::Importing {
                    move_id: self.move_id,
                },
                State::Moved => AccountState::Moved {
                    backend: self.elsewhere.clone().ok_or(Malformed {
                        what: "account row",
                    })?,
                    epoch: self.epoch,
                },
            },
            message_count: self.message_count,
            size_octets: self.size_octets,
            quota: self.quota,
        })
    }
}

const NO_MOVE: [u8; 16] = [0; 16];
/// A request that is late is minutes late, hours if its sender was stopped; moves of one account are days apart.
const MOVES_BEFORE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_row_has_the_size_the_format_page_says_and_reads_back_as_it_was_written() {
        assert_eq!(size_of::<AccountBytes>(), 88);
        let mut account = AccountRow {
            state: State::Moved,
            elsewhere: Some(BackendName::new("b2").unwrap()),
            message_count: 3,
            ..AccountRow::new(Epoch(7))
        };
        for number in 0..3 {
            assert_eq!(AccountRow::decode(&account.encode()).unwrap(), account);
            account.set_move([number; 16]);
        }
        let mut bytes = account.encode();
        // What a build leaves that knows of no moves before.
        let short = AccountRow::decode(&bytes[..88 + 2]).unwrap();
        assert_eq!((short.move_id, short.moves_before), ([2; 16], Vec::new()));
        assert!(AccountRow::decode(&bytes[..88 + 1]).is_err());
        bytes[0] = 2;
        assert!(AccountRow::decode(&bytes).is_err());
    }

    #[test]
    fn a_move_has_ended_when_another_has_come_or_the_account_is_at_rest() {
        let mut account = AccountRow::new(Epoch(1));
        assert!(!account.has_ended(&[1; 16]));
        account.set_move([1; 16]);
        assert!(account.has_ended(&[1; 16]));
        account.state = State::Frozen;
        assert!(!account.has_ended(&[1; 16]));
        for number in 2..12 {
            account.set_move([number; 16]);
            assert!(account.has_ended(&[number - 1; 16]) && !account.has_ended(&[number; 16]));
        }
        assert_eq!(account.moves_before.len(), MOVES_BEFORE_MAX);
        // The same once more is no other.
        let before = account.clone();
        account.set_move(account.move_id);
        assert_eq!(account, before);
    }
}
