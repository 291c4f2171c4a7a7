//! Who besides its owner may use a mailbox (RFC 4314), and which mailboxes of others an account may use.
//!
//! The list stands in the mailbox's row, so that every answer about a mailbox knows it, and moves and goes with it. The
//! table `shares` is its reverse, kept by the apply thread alone. Entries name accounts by number: a name that is given
//! again opens nothing.
//!
//! This is the one place where an account is read or written for another one than a grant names (P8): what permits it is
//! a list that the owner, or somebody whom the list lets administer it, has set under the owner's own epoch, and that the
//! journal holds.

use std::collections::BTreeMap;

use directory_api::{AccountId, Epoch};

use super::Volume;
use super::codec::{Malformed, Put, Take};
use super::error::{IndexError, ReadError};
use super::index::{Index, RoTxn};
use super::intake::Command;
use super::rows::{State, decode_share, share_of};
use super::sequencer::canonical;
use super::types::{FlagChange, FlagSet, Flags, MailboxId, MailboxInfo, Refusal};

/// Rights of RFC 4314 §2.1 as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(pub u32);

impl Rights {
    /// `l`: it is there.
    pub const LOOKUP: Self = Self(1);
    /// `r`: its messages.
    pub const READ: Self = Self(2);
    /// `s`: `\Seen`.
    pub const SEEN: Self = Self(4);
    /// `w`: other flags than `\Seen` and `\Deleted`.
    pub const WRITE: Self = Self(8);
    /// `i`: new messages.
    pub const INSERT: Self = Self(16);
    /// `p`: mail to its address, of which there is none yet.
    pub const POST: Self = Self(32);
    /// `k`: mailboxes below it.
    pub const CREATE: Self = Self(64);
    /// `x`: its end, or another name.
    pub const DELETE_MAILBOX: Self = Self(128);
    /// `t`: `\Deleted`.
    pub const DELETE: Self = Self(256);
    /// `e`: expunge.
    pub const EXPUNGE: Self = Self(512);
    /// `a`: its list of rights.
    pub const ADMINISTER: Self = Self(1024);
    /// All of them: what the owner has, always.
    pub const ALL: Self = Self(2047);

    /// Whether all of `other` are among these.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What it takes to set these flags.
    pub(super) fn to_set(flags: &FlagSet) -> Self {
        Self::to_change(flags.system, !flags.keywords.is_empty())
    }

    /// What a STORE takes, for all of it to be done.
    pub(super) fn to_store(change: &FlagChange) -> Self {
        match change {
            FlagChange::Replace(_) => Self::to_change(Flags::ALL, true),
            FlagChange::ReplaceWithin {
                system, keywords, ..
            } => Self::to_change(*system, *keywords),
            FlagChange::Add(set) | FlagChange::Remove(set) => Self::to_set(set),
        }
    }

    fn to_change(system: Flags, keywords: bool) -> Self {
        let other = Flags::ALL.0 & !(Flags::SEEN | Flags::DELETED).0;
        let mut rights = Self::default();
        for (is_named, right) in [
            (system.contains(Flags::SEEN), Self::SEEN),
            (system.contains(Flags::DELETED), Self::DELETE),
            (keywords || system.0 & other != 0, Self::WRITE),
        ] {
            if is_named {
                rights = rights | right;
            }
        }
        rights
    }
}

/// Who writes to an account, and what that one knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The account's epoch (P4).
    pub epoch: Epoch,
    /// Another user than the owner: the sequencer asks the lists of rights, as they are with all that is in flight, whether
    /// they permit it (P8). Asked before, by a session, they may have been changed by what stands in the queue. `None`: the
    /// owner, who may do everything, and for whom nothing is asked.
    pub user: Option<AccountId>,
}

impl From<Epoch> for Writer {
    /// The owner.
    fn from(epoch: Epoch) -> Self {
        Self { epoch, user: None }
    }
}

impl std::ops::BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who besides the owner may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// The owner's login name: others see the mailbox below it.
    pub owner: String,
    /// In the order in which they were made; no account and no name stands twice.
    pub entries: Vec<AclEntry>,
}

/// What one account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whose right it is.
    pub account: AccountId,
    /// How that account was called when it got it. For people to read.
    pub name: String,
    /// Never none.
    pub rights: Rights,
}

/// A change of one account's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclChange {
    /// The account has exactly these from now on; with none of them its entry goes.
    Replace(Rights),
    /// These too.
    Add(Rights),
    /// These no more.
    Remove(Rights),
}

/// A mailbox of another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Whose it is.
    pub owner: AccountId,
    /// What the owner is called.
    pub owner_name: String,
    /// The owner's epoch, under which it is written (P4).
    pub epoch: Epoch,
    /// The owner is being moved: it cannot be used for the moment.
    pub is_away: bool,
    /// The mailbox, with its name at its owner's.
    pub mailbox: MailboxInfo,
    /// What the account may do: at least see it.
    pub rights: Rights,
}

impl Acl {
    /// What an account may do that is not the owner.
    #[must_use]
    pub fn rights(&self, account: AccountId) -> Rights {
        let entry = self.entries.iter().find(|entry| entry.account == account);
        entry.map_or(Rights::default(), |entry| entry.rights)
    }

    /// Takes over a change for an account of that name. Other accounts that had the name before lose their entry: nobody
    /// could ask for its end any more.
    pub(super) fn change(&mut self, account: AccountId, name: &str, change: &AclChange) {
        self.entries
            .retain(|entry| entry.account == account || entry.name != name);
        let before = self.rights(account);
        let rights = match change {
            AclChange::Replace(rights) => *rights,
            AclChange::Add(rights) => before | *rights,
            AclChange::Remove(rights) => Rights(before.0 & !rights.0),
        };
        let entry = self.entries.iter_mut().find(|one| one.account == account);
        match entry {
            Some(entry) => {
                entry.rights = rights;
                name.clone_into(&mut entry.name);
            }
            None => self.entries.push(AclEntry {
                account,
                name: name.to_owned(),
                rights,
            }),
        }
        self.entries
            .retain(|entry| entry.rights != Rights::default());
    }

    /// What it takes in a row.
    pub(super) fn octets(&self) -> usize {
        let entries = self.entries.iter().map(|entry| 16 + entry.name.len());
        8 + self.owner.len() + entries.sum::<usize>()
    }

    /// Whether a reader of rows and items can hold it.
    pub(super) fn is_valid(&self) -> bool {
        let entries = &self.entries;
        let once = |entry: &AclEntry| {
            let same = |one: &&AclEntry| one.account == entry.account || one.name == entry.name;
            entries.iter().filter(same).count() == 1
        };
        entries.len() <= ACL_ENTRIES_MAX
            && is_name(&self.owner)
            && entries.iter().all(|entry| {
                entry.rights != Rights::default()
                    && Rights::ALL.has(entry.rights)
                    && is_name(&entry.name)
                    && once(entry)
            })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_string(self.owner.as_bytes());
        out.put_count(self.entries.len());
        for entry in &self.entries {
            out.put_u64(entry.account.0);
            out.put_u32(entry.rights.0);
            out.put_string(entry.name.as_bytes());
        }
    }

    pub(super) fn take(take: &mut Take) -> Result<Self, Malformed> {
        Ok(Self {
            owner: take.text()?,
            entries: take.list(16, |take| {
                Ok(AclEntry {
                    account: AccountId(take.u64()?),
                    rights: Rights(take.u32()?),
                    name: take.text()?,
                })
            })?,
        })
    }
}

/// A level of a mailbox's name, and what a list can hold.
pub(super) fn is_name(name: &str) -> bool {
    (1..=ACL_NAME_MAX_BYTES).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_control())
}

impl Volume {
    /// Changes what `account`, called `name`, may do with a mailbox of `owner`. `owner_name` says what the owner is called;
    /// it is left out by somebody else whom the list lets administer it.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed. [`Refusal::NotAllowed`]: the owner's rights do not change, or the list has no
    /// name of the owner yet; [`Refusal::BadName`]; [`Refusal::Full`]: too many entries.
    #[allow(clippy::too_many_arguments, reason = "each is a part of one sentence")]
    pub async fn set_acl(
        &self,
        owner: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        owner_name: Option<&str>,
        account: AccountId,
        name: &str,
        change: AclChange,
    ) -> Result<(), Refusal> {
        let by = by.into();
        let command = Command::SetAcl {
            account: owner,
            epoch: by.epoch,
            mailbox,
            owner_name: owner_name.map(str::to_owned),
            grantee: (account, name.to_owned()),
            change,
        };
        self.inner.submit_by(by.user, command).await.done()
    }

    /// Who besides the owner may do what; nobody when there is no such mailbox.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn acl(&self, owner: AccountId, mailbox: MailboxId) -> Result<Acl, ReadError> {
        self.query(owner, move |shared, txn| {
            let row = shared.index.mailbox(txn, owner, mailbox)?;
            Ok(row.map(|row| row.acl).unwrap_or_default())
        })
        .await
    }

    /// The mailboxes of others that an account may see here: of one owner, or of all of them. It costs what is shared with
    /// the account; [`SHARES_MAX`] are looked at. Of two owners of one name the later account bears it now. Lists of rights
    /// are as they were answered; counts of messages may be a moment older, see [`Volume::shared_still`].
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn shared_with(
        &self,
        account: AccountId,
        owner_name: Option<String>,
    ) -> Result<Vec<Shared>, ReadError> {
        self.query(account, move |shared, txn| {
            shared_by(&shared.index, txn, account, owner_name.as_deref())
        })
        .await
    }

    /// One of them, by the name it has at its owner's.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn shared_named(
        &self,
        account: AccountId,
        owner_name: &str,
        name: &str,
    ) -> Result<Option<Shared>, ReadError> {
        // No mailbox has a name that is none.
        let Ok(name) = canonical(name) else {
            return Ok(None);
        };
        let all = self
            .shared_with(account, Some(owner_name.to_owned()))
            .await?;
        let found = all.into_iter().find(|one| one.mailbox.name == name);
        let Some(found) = found else {
            return Ok(None);
        };
        let still = self.shared_still(account, found.owner, found.mailbox.mailbox);
        Ok(still.await?.filter(|one| one.mailbox.name == name))
    }

    /// One of them that was found before, as it is now, with all that was answered for its owner's account.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn shared_still(
        &self,
        account: AccountId,
        owner: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<Shared>, ReadError> {
        self.query(owner, move |shared, txn| {
            Ok(shared_mailbox(&shared.index, txn, owner, mailbox, account)?)
        })
        .await
    }
}

/// What [`Volume::shared_with`] gives.
pub(super) fn shared_by(
    index: &Index,
    txn: &RoTxn<'_>,
    account: AccountId,
    owner_name: Option<&str>,
) -> Result<Vec<Shared>, ReadError> {
    let mut bearers: BTreeMap<String, AccountId> = BTreeMap::new();
    let mut found = Vec::new();
    let rows = index.shares.prefix_iter(txn, &account.0.to_be_bytes())?;
    for row in rows.take(SHARES_MAX) {
        let (key, value) = row?;
        let (owner, mailbox) = share_of(key).ok_or(IndexError::Contradiction("a key of shares"))?;
        let name = decode_share(value)?;
        if owner_name.is_some_and(|wanted| wanted != name) {
            continue;
        }
        if let Some(one) = shared_mailbox(index, txn, owner, mailbox, account)? {
            // Growing.
            bearers.insert(one.owner_name.clone(), owner);
            found.push(one);
        }
    }
    found.retain(|one| bearers.get(&one.owner_name) == Some(&one.owner));
    Ok(found)
}

/// The mailbox, if the account may see it and its owner lives here.
fn shared_mailbox(
    index: &Index,
    txn: &RoTxn<'_>,
    owner: AccountId,
    mailbox: MailboxId,
    account: AccountId,
) -> Result<Option<Shared>, IndexError> {
    let Some(owner_row) = index.account(txn, owner)? else {
        return Ok(None);
    };
    let is_away = match owner_row.state {
        State::Active => false,
        State::Frozen => true,
        State::Importing | State::Moved => return Ok(None),
    };
    let Some(row) = index.mailbox(txn, owner, mailbox)? else {
        return Ok(None);
    };
    let rights = row.acl.rights(account);
    if !rights.has(Rights::LOOKUP) {
        return Ok(None);
    }
    Ok(Some(Shared {
        owner,
        owner_name: row.acl.owner.clone(),
        epoch: owner_row.epoch,
        is_away,
        mailbox: row.info(mailbox),
        rights,
    }))
}

/// Entries of one mailbox's list.
pub const ACL_ENTRIES_MAX: usize = 100;
/// Octets of a name in it: a login name's (DESIGN §13).
pub const ACL_NAME_MAX_BYTES: usize = 512;
/// Mailboxes of others that are looked at for one account: as many as it may have itself.
const SHARES_MAX: usize = 10_000;
