//! Reads the wall clock. Protocol cores never call this: they are given the time.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

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
}
