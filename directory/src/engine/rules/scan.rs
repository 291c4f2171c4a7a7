//! Pages of a table: a bounded walk from a key on.

use std::ops::Bound;

use directory_api::wire::{ListQuery, Page, limit};

use serde::de::DeserializeOwned;

use super::{Answer, EngineError, Rows, Table};
use crate::engine::ROWS_SCANNED_MAX;

/// Walks a table behind `after` and gathers what `pick` makes of its rows; `name` gives a row's
/// key as text, for the next page.
pub(super) fn page<T>(
    rows: &dyn Rows,
    table: Table,
    query: &ListQuery,
    after: Option<&[u8]>,
    name: impl Fn(&[u8]) -> String,
    mut pick: impl FnMut(&[u8], &[u8]) -> Answer<Option<T>>,
) -> Answer<Page<T>> {
    let rows_max = query
        .limit
        .unwrap_or(limit::PAGE_ROWS_MAX)
        .clamp(1, limit::PAGE_ROWS_MAX);
    // Nothing stands before the empty key, which LMDB refuses to look for.
    let after = after.filter(|after| !after.is_empty());
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = rows.walk(table, start)?;
    let mut items = Vec::new();
    let mut last = None;
    for _ in 0..ROWS_SCANNED_MAX {
        if items.len() == rows_max {
            break;
        }
        let Some(row) = rows.next() else {
            return Ok(Page { items, next: None });
        };
        let (key, row) = row?;
        if let Some(item) = pick(&key, &row)? {
            items.push(item);
        }
        last = Some(key);
    }
    let next = match rows.next().transpose()? {
        Some(_) => last.map(|key| name(&key)),
        None => None,
    };
    Ok(Page { items, next })
}

/// The status that a query wants, if it wants one.
pub(super) fn status<T: DeserializeOwned>(query: &ListQuery) -> Answer<Option<T>> {
    let read = |word: &String| serde_json::from_value(word.as_str().into());
    let wanted = query.status.as_ref().map(read).transpose();
    wanted.map_err(|_| EngineError::Invalid("there is no such status"))
}

/// Whether a name passes the filter of a query.
pub(super) fn passes(query: &ListQuery, name: &str) -> bool {
    query
        .filter
        .as_deref()
        .is_none_or(|part| name.contains(&part.to_lowercase()))
}
