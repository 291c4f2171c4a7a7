//! SORT and THREAD. RFC 5256, RFC 5267, RFC 5957.

use super::super::command::{Sort, SortCriterion, SortKey, Thread, ThreadAlgorithm};
use super::super::sequence::Addressing;
use super::cursor::Cursor;
use super::error::ParseError;
use super::search;

/// The arguments of SORT.
pub(super) fn sort(by: Addressing, cursor: &mut Cursor<'_>) -> Result<Sort, ParseError> {
    cursor.spaces_or_open()?;
    let returns = search::returns(cursor)?;
    let mut criteria = Vec::new();
    let start = cursor.at();
    cursor.list(|cursor| {
        let reverse = cursor.take_word("REVERSE");
        if reverse {
            cursor.spaces()?;
        }
        let start = cursor.at();
        let key = match cursor.name("a sort key")?.as_ref() {
            "ARRIVAL" => SortKey::Arrival,
            "CC" => SortKey::Cc,
            "DATE" => SortKey::Date,
            "FROM" => SortKey::From,
            "SIZE" => SortKey::Size,
            "SUBJECT" => SortKey::Subject,
            "TO" => SortKey::To,
            "DISPLAYFROM" => SortKey::DisplayFrom,
            "DISPLAYTO" => SortKey::DisplayTo,
            _ => return Err(cursor.expected_from(start, "a sort key")),
        };
        // A key that was there before cannot decide anything any more.
        if criteria
            .iter()
            .all(|criterion: &SortCriterion| criterion.key != key)
        {
            criteria.push(SortCriterion { key, reverse });
        }
        Ok(())
    })?;
    if criteria.is_empty() {
        return Err(cursor.expected_from(start, "at least one sort key"));
    }
    cursor.spaces()?;
    let charset = cursor.astring_text("a charset")?;
    cursor.spaces_or_open()?;
    Ok(Sort {
        by,
        returns,
        criteria,
        charset,
        keys: search::keys(cursor)?,
    })
}

/// The arguments of THREAD.
pub(super) fn thread(by: Addressing, cursor: &mut Cursor<'_>) -> Result<Thread, ParseError> {
    cursor.spaces()?;
    let start = cursor.at();
    let name = cursor.atom("a threading algorithm")?.to_ascii_uppercase();
    let algorithm = match name.as_str() {
        "ORDEREDSUBJECT" => ThreadAlgorithm::OrderedSubject,
        "REFERENCES" => ThreadAlgorithm::References,
        _ => return Err(cursor.expected_from(start, "ORDEREDSUBJECT or REFERENCES")),
    };
    cursor.spaces()?;
    let charset = cursor.astring_text("a charset")?;
    cursor.spaces_or_open()?;
    Ok(Thread {
        by,
        algorithm,
        charset,
        keys: search::keys(cursor)?,
    })
}
