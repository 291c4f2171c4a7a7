//! Reads the wall clock. Protocol cores never call this: they are given the time.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Gives the wall clock's Unix time in milliseconds; it may step in either direction.
#[must_use]
pub fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// Writes a Unix time in milliseconds as the date-time of RFC 5322 §3.3, in UTC.
///
/// A time that has no four-digit year is written as the Unix epoch: no clock we trust says so.
#[must_use]
pub fn rfc5322_date(unix_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .ok()
        .filter(|at| (1900..=9999).contains(&at.year()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    format!(
        "{}, {} {} {} {:02}:{:02}:{:02} +0000",
        &weekday[..3],
        at.day(),
        &month[..3],
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Writes a Unix time in milliseconds for people, in UTC: `2026-11-29 14:05:09`. Seconds are the least it tells.
///
/// A time that has no four-digit year is written as the Unix epoch.
#[must_use]
pub fn utc(unix_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .ok()
        .filter(|at| (0..=9999).contains(&at.year()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Reads a time that a person wrote as Unix time in milliseconds: a date, or a date and a time of day, as [`utc`] writes
/// them or with `T` between, with or without seconds, in UTC unless an offset (`Z`, `+01:00`) stands behind.
#[must_use]
pub fn parse_utc(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00"),
    };
    let (time, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, "Z"),
    };
    let seconds = if time.len() == 5 { ":00" } else { "" };
    let whole = format!("{date}T{time}{seconds}{offset}");
    let at = OffsetDateTime::parse(&whole, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_5322_says() {
        assert_eq!(rfc5322_date(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(
            rfc5322_date(1_795_356_672_999),
            "Sun, 22 Nov 2026 14:11:12 +0000"
        );
        assert_eq!(rfc5322_date(-1), "Wed, 31 Dec 1969 23:59:59 +0000");
        assert_eq!(rfc5322_date(i64::MAX), rfc5322_date(0));
    }

    #[test]
    fn the_clock_is_past_the_day_this_was_written() {
        assert!(now_ms() > 1_700_000_000_000);
    }

    #[test]
    fn a_time_that_a_person_writes_is_read_as_utc() {
        let at = 1_700_000_000_000;
        assert_eq!(utc(at), "2023-11-14 22:13:20");
        for text in [
            "2023-11-14 22:13:20",
            "2023-11-14T22:13:20Z",
            "2023-11-14T23:13:20+01:00",
        ] {
            assert_eq!(parse_utc(text), Some(at), "{text}");
        }
        assert_eq!(parse_utc("2023-11-14 22:13"), Some(at - 20_000));
        assert_eq!(parse_utc("2023-11-14"), Some(1_699_920_000_000));
        for bad in [
            "",
            "now",
            "2023-13-01",
            "2023-11-14 25:00",
            "14.11.2023",
            "ä",
        ] {
            assert_eq!(parse_utc(bad), None, "{bad}");
        }
    }
}
