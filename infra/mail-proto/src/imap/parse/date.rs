//! Days and times. RFC 9051 §9 `date`, `date-time`.

use super::super::command::{Date, DateTime, MONTHS};
use super::cursor::Cursor;
use super::error::ParseError;

const DATE: &str = "a date such as 1-Jan-2026";
const DATE_TIME: &str = "a date such as \"01-Jan-2026 00:00:00 +0000\"";

/// A day, bare or quoted.
pub(super) fn date(cursor: &mut Cursor<'_>) -> Result<Date, ParseError> {
    let is_quoted = cursor.take(b'"');
    if is_quoted {
        cursor.optional_spaces();
    }
    let date = day_month_year(cursor, DATE)?;
    if is_quoted {
        if cursor.peek() == Some(b' ') {
            cursor.pass_clock();
        }
        cursor.require(b'"', "a closing quote")?;
    }
    Ok(date)
}

/// A quoted day and time.
pub(super) fn date_time(cursor: &mut Cursor<'_>) -> Result<DateTime, ParseError> {
    let start = cursor.at();
    cursor.require(b'"', DATE_TIME)?;
    cursor.optional_spaces();
    let date = day_month_year(cursor, DATE_TIME)?;
    cursor.require(b' ', DATE_TIME)?;
    let hour = digits(cursor, 2..=2, DATE_TIME)?;
    cursor.require(b':', DATE_TIME)?;
    let minute = digits(cursor, 2..=2, DATE_TIME)?;
    cursor.require(b':', DATE_TIME)?;
    let second = digits(cursor, 2..=2, DATE_TIME)?;
    cursor.require(b' ', DATE_TIME)?;
    let is_west = match cursor.peek() {
        Some(b'+') => false,
        Some(b'-') => true,
        _ => return Err(cursor.expected(DATE_TIME)),
    };
    cursor.take(if is_west { b'-' } else { b'+' });
    let zone = i16::try_from(digits(cursor, 4..=4, DATE_TIME)?).unwrap_or_default();
    cursor.require(b'"', DATE_TIME)?;
    let minutes = zone / 100 * 60 + zone % 100;
    let small = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
    let time = (small(hour), small(minute), small(second));
    Some(if is_west { -minutes } else { minutes })
        .filter(|_| zone % 100 < 60)
        .and_then(|offset| DateTime::new(date, time, offset))
        .ok_or_else(|| cursor.expected_from(start, DATE_TIME))
}

fn day_month_year(cursor: &mut Cursor<'_>, expected: &'static str) -> Result<Date, ParseError> {
    let start = cursor.at();
    let day = digits(cursor, 1..=2, expected)?;
    cursor.require(b'-', expected)?;
    let month_at = cursor.at();
    let name = cursor.letters();
    let month = MONTHS
        .iter()
        .position(|month| month.as_bytes().eq_ignore_ascii_case(name))
        .ok_or_else(|| cursor.expected_from(month_at, expected))?;
    cursor.require(b'-', expected)?;
    let year = digits(cursor, 4..=4, expected)?;
    let small = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Date::new(year, small(month + 1), small(usize::from(day)))
        .ok_or_else(|| cursor.expected_from(start, "a day that exists"))
}

fn digits(
    cursor: &mut Cursor<'_>,
    count: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<u16, ParseError> {
    let start = cursor.at();
    let digits = cursor.digits();
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| count.contains(&digits.len()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| cursor.expected_from(start, expected))
}
