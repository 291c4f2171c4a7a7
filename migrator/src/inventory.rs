//! What is to be balanced: back-ends, accounts, and what each costs by hour of the week, as recorded at one time.
//!
//! It is gathered from the directory and the back-ends ([`gather`]), and can be kept in a file, so that a plan can be made again, or a
//! policy tried, without them. The file has one JSON object a line: [`Head`] first, then one [`Account`] each.

mod gather;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read as _, Write};

use directory_api::{AccountId, BackendName, BackendState, Epoch};
use serde::{Deserialize, Serialize};
use store_api::load::{Packed, Week};

use crate::balance::{self, HOURS, Snapshot, Unusable};

pub use gather::{GatherError, gather};

/// The first line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The version of the form: 1.
    posthouse_load: u32,
    taken_ms: i64,
    backends: Vec<Backend>,
}

/// One back-end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// How it takes part.
    pub state: BackendState,
    /// How much it carries against the others.
    pub weight: u32,
    /// Octets that may still be placed there.
    pub free_octets: u64,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its number.
    pub account: AccountId,
    /// Where it lives.
    pub home: BackendName,
    /// Its epoch there.
    pub epoch: Epoch,
    /// What it stores.
    pub octets: u64,
    /// When a move brought it to its home, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_ms: Option<i64>,
    /// What it costs in each hour of the week, in microseconds; none: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Week>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory {
    /// When it was taken, Unix milliseconds.
    pub taken_ms: i64,
    /// The back-ends.
    pub backends: Vec<Backend>,
    /// The accounts, by number.
    pub accounts: Vec<Account>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {source}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A line is too long to be one.
    #[error("line {0} is longer than any can be")]
    Long(usize),
    /// Of another version.
    #[error("form {0} of recorded load is not known; this build reads form 1")]
    Version(u32),
    /// It has no first line.
    #[error("it is empty")]
    Empty,
    /// More than a plan is made for.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Inventory {
    /// Writes it down.
    ///
    /// # Errors
    /// [`io::Error`]; some of it may be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = Head {
            posthouse_load: VERSION,
            taken_ms: self.taken_ms,
            backends: self.backends.clone(),
        };
        serde_json::to_writer(&mut *out, &head)?;
        out.write_all(b"\n")?;
        for account in &self.accounts {
            serde_json::to_writer(&mut *out, account)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Reads what [`write`](Self::write) has written. Nothing is kept of more than a plan can be made of.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(input: &mut dyn BufRead) -> Result<Self, ReadError> {
        let mut lines = Lines {
            input,
            line: Vec::new(),
            number: 0,
        };
        let head: Head = lines.next(HEAD_MAX_OCTETS)?.ok_or(ReadError::Empty)?;
        if head.posthouse_load != VERSION {
            return Err(ReadError::Version(head.posthouse_load));
        }
        let mut inventory = Self {
            taken_ms: head.taken_ms,
            backends: head.backends,
            accounts: Vec::new(),
        };
        while let Some(account) = lines.next(LINE_MAX_OCTETS)? {
            if inventory.accounts.len() == balance::limit::ACCOUNTS_MAX {
                return Err(Unusable::Accounts.into());
            }
            inventory.accounts.push(account);
        }
        Ok(inventory)
    }

    /// What a planner is told. The accounts have the same places in it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn snapshot(&self, pinned: &HashSet<AccountId>) -> Result<Snapshot, Unusable> {
        let backend = |one: &Backend| balance::Backend {
            name: one.name.clone(),
            state: one.state,
            weight: one.weight,
            free: one.free_octets,
        };
        let backends: Vec<_> = self.backends.iter().map(backend).collect();
        let mut snapshot = Snapshot::new(self.taken_ms, backends)?;
        let numbers: HashMap<&BackendName, u32> =
            self.backends.iter().map(|one| &one.name).zip(0..).collect();
        for one in &self.accounts {
            let home = numbers.get(&one.home);
            let account = balance::Account {
                id: one.account,
                home: *home.ok_or(Unusable::Home(one.account))?,
                octets: one.octets,
                pinned: pinned.contains(&one.account),
                group: None,
                moved_ms: one.moved_ms,
            };
            let hours = match &one.hours {
                Some(week) => week.0.map(Packed::load),
                None => [0.0; HOURS],
            };
            snapshot.push(account, &hours)?;
        }
        Ok(snapshot)
    }
}

struct Lines<'a> {
    input: &'a mut dyn BufRead,
    line: Vec<u8>,
    number: usize,
}

impl Lines<'_> {
    fn next<T: serde::de::DeserializeOwned>(
        &mut self,
        max_octets: u64,
    ) -> Result<Option<T>, ReadError> {
        self.line.clear();
        let mut bounded = (&mut *self.input).take(max_octets);
        if bounded.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() as u64 == max_octets {
            return Err(ReadError::Long(self.number));
        }
        let read = serde_json::from_slice(&self.line);
        read.map(Some).map_err(|source| ReadError::Line {
            line: self.number,
            source,
        })
    }
}

const VERSION: u32 = 1;
/// A week is 448 octets of it.
const LINE_MAX_OCTETS: u64 = 4 << 10;
/// A thousand back-ends.
const HEAD_MAX_OCTETS: u64 = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// Two back-ends, the first with all of the accounts.
    pub(crate) fn inventory(accounts: u64) -> Inventory {
        let backend = |name: &str| Backend {
            name: name.parse().unwrap(),
            state: BackendState::Active,
            weight: 1,
            free_octets: 1 << 40,
        };
        let account = |number| Account {
            account: AccountId(number),
            home: "b1".parse().unwrap(),
            epoch: Epoch(3),
            octets: 1_000 * number,
            moved_ms: None,
            hours: Some(Week::of(&[7.0; HOURS])),
        };
        Inventory {
            taken_ms: 1_764_547_200_000,
            backends: vec![backend("b1"), backend("b2")],
            accounts: (1..=accounts).map(account).collect(),
        }
    }

    #[test]
    fn what_was_recorded_reads_back() {
        let mut wanted = inventory(5);
        wanted.accounts[2].hours = None;
        wanted.accounts[3].moved_ms = Some(5);
        let mut file = Vec::new();
        wanted.write(&mut file).unwrap();
        assert_eq!(Inventory::read(&mut &file[..]).unwrap(), wanted);
        let snapshot = wanted.snapshot(&HashSet::from([AccountId(2)])).unwrap();
        assert_eq!(snapshot.accounts().len(), 5);
        assert!(snapshot.accounts()[1].pinned && !snapshot.accounts()[0].pinned);
        assert_eq!(snapshot.hours(0), [7.0; HOURS]);
        assert_eq!(snapshot.hours(2), [0.0; HOURS]);
    }

    #[test]
    fn a_file_that_is_cut_or_of_something_else_is_refused_with_its_line() {
        let mut file = Vec::new();
        inventory(3).write(&mut file).unwrap();
        let read = |octets: &[u8]| Inventory::read(&mut &octets[..]);
        assert!(matches!(read(b""), Err(ReadError::Empty)));
        let cut = &file[..file.len() - 9];
        assert!(matches!(read(cut), Err(ReadError::Line { line: 4, .. })));
        assert!(matches!(
            read(b"[]\n"),
            Err(ReadError::Line { line: 1, .. })
        ));
        let text = String::from_utf8(file).unwrap();
        let other = text.replace("\"posthouse_load\":1", "\"posthouse_load\":2");
        assert!(matches!(read(other.as_bytes()), Err(ReadError::Version(2))));
        let head = text.lines().next().unwrap();
        let long = format!("{head}\n{}\n", " ".repeat(5_000));
        assert!(matches!(read(long.as_bytes()), Err(ReadError::Long(2))));
        let elsewhere = text.replace("\"home\":\"b1\"", "\"home\":\"b9\"");
        let elsewhere = read(elsewhere.as_bytes()).unwrap();
        let refused = elsewhere.snapshot(&HashSet::new());
        assert!(matches!(refused, Err(Unusable::Home(AccountId(1)))));
    }
}
