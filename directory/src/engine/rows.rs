//! What the rules ask of a database: rows of octets in a few tables, in the order of their keys.
//!
//! Rows are JSON, so that a later version can add fields; keys are made for order:
//!
//! ```text
//! table        key                              row
//! meta         "next_account"                   number, 8 octets big-endian
//! meta         "ldap"                           who takes users from LDAP, until when
//! domains      name                             DomainRow
//! addresses    domain NUL local                 [target, …]
//! deliveries   account (8, BE) domain NUL local (empty): the addresses that name an account
//! accounts     account (8, BE)                  AccountRow, home included
//! logins       SHA-256 of the login name        account (8, BE); a name may be longer than a key
//! logins       SHA-256 of NUL "ldap" NUL id     account (8, BE), by the id of its entry; no login name has a NUL
//! links        account (8, BE)                  LinkRow: the entry in LDAP that an account is of
//! uses         account (8, BE) name             last use of that credential, Unix milliseconds (8, BE)
//! backends     name                             BackendRow
//! moves        account (8, BE)                  MoveRecord
//! changes      number (8, BE)                   Change; the last CHANGES_KEPT of them
//! ```

use std::borrow::Cow;
use std::ops::Bound;

use directory_api::AccountId;
use serde::de::DeserializeOwned;

use super::{Answer, EngineError};

/// A table; every engine has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Meta,
    Domains,
    Addresses,
    Deliveries,
    Accounts,
    Logins,
    Links,
    Uses,
    Backends,
    Moves,
    Changes,
}

impl Table {
    pub(super) const ALL: [Self; 11] = [
        Self::Meta,
        Self::Domains,
        Self::Addresses,
        Self::Deliveries,
        Self::Accounts,
        Self::Logins,
        Self::Links,
        Self::Uses,
        Self::Backends,
        Self::Moves,
        Self::Changes,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Domains => "domains",
            Self::Addresses => "addresses",
            Self::Deliveries => "deliveries",
            Self::Accounts => "accounts",
            Self::Logins => "logins",
            Self::Links => "links",
            Self::Uses => "uses",
            Self::Backends => "backends",
            Self::Moves => "moves",
            Self::Changes => "changes",
        }
    }
}

/// A key or a row. LMDB lends its own; who got it over a wire gives it away.
pub(super) type Octets<'a> = Cow<'a, [u8]>;

/// Rows of a walk, with their keys.
pub(super) type Walk<'a> = Box<dyn Iterator<Item = Answer<(Octets<'a>, Octets<'a>)>> + 'a>;

/// One state of the tables. Blocking.
pub(super) trait Rows {
    fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>>;

    /// As many answers as keys, in their order. One round trip, where there are any.
    fn get_all(&self, table: Table, keys: &[Vec<u8>]) -> Answer<Vec<Option<Octets<'_>>>> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    /// The same, and the last key of another table, in one round trip too.
    fn get_all_and_last_key(
        &self,
        table: Table,
        keys: &[Vec<u8>],
        last_of: Table,
    ) -> Answer<(Vec<Option<Octets<'_>>>, Option<Octets<'_>>)> {
        Ok((self.get_all(table, keys)?, self.last_key(last_of)?))
    }

    /// Rows in the order of their keys, read as they are asked for.
    fn walk(&self, table: Table, from: Bound<&[u8]>) -> Answer<Walk<'_>>;

    fn last_key(&self, table: Table) -> Answer<Option<Octets<'_>>>;
}

/// The tables as one transaction leaves them. Nobody else writes meanwhile, and its own writes are read.
pub(super) trait RowsMut: Rows {
    fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Answer<()>;

    fn delete(&mut self, table: Table, key: &[u8]) -> Answer<()>;

    /// Says what will be asked for soon, for who has a reason to fetch it at once.
    fn fetch(&self, _table: Table, _keys: &[Vec<u8>]) -> Answer<()> {
        Ok(())
    }

    /// Nothing of what was written is asked for again: it need not be kept in mind.
    fn relieve(&mut self) -> Answer<()> {
        Ok(())
    }

    fn as_rows(&self) -> &dyn Rows;
}

/// The rows whose keys begin so.
pub(super) fn beginning_with<'a>(
    rows: &'a dyn Rows,
    table: Table,
    prefix: &'a [u8],
) -> Answer<impl Iterator<Item = Answer<(Octets<'a>, Octets<'a>)>>> {
    let walk = rows.walk(table, Bound::Included(prefix))?;
    Ok(walk.take_while(move |row| !matches!(row, Ok((key, _)) if !key.starts_with(prefix))))
}

pub(super) fn decode<T: DeserializeOwned>(row: &[u8]) -> Answer<T> {
    serde_json::from_slice(row).map_err(|error| EngineError::Storage(Box::new(error)))
}

/// Reads a key or row of 8 octets; anything else is damage and reads as 0, which no number is.
pub(super) fn number(octets: &[u8]) -> u64 {
    octets
        .get(..8)
        .and_then(|octets| octets.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

pub(super) fn account_key(account: AccountId) -> [u8; 8] {
    account.0.to_be_bytes()
}
