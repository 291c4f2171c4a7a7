//! Days and times as IMAP writes them. RFC 9051 §9, `date` and `date-time`.

use serde::{Deserialize, Serialize};

use crate::output::digits;

/// A day of the Gregorian calendar that exists, in the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// A moment, and the zone it was told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DateTime {
    /// Seconds since 1970 in UTC.
    pub unix_s: i64,
    /// East of UTC, within a day.
    pub offset_minutes: i16,
}

impl Date {
    /// The day, if there is one.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 if year.is_multiple_of(4)
                && (!year.is_multiple_of(100) || year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            _ => 31,
        };
        let is_day =
            (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days).contains(&day);
        is_day.then_some(Self { year, month, day })
    }

    /// Days since 1 January 1970.
    pub fn unix_days(self) -> i64 {
        // Counted in years that begin in March, so that a leap day is the last.
        let (year, month) = match self.month {
            1 | 2 => (i64::from(self.year) - 1, i64::from(self.month) + 9),
            month => (i64::from(self.year), i64::from(month) - 3),
        };
        let day_of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
            - MARCH_TO_1970_DAYS
    }

    /// The day that is this many days from 1 January 1970; the nearest one
    /// there is beyond the years 1 to 9999.
    pub fn from_unix_days(days: i64) -> Self {
        let days = days.clamp(FIRST_DAY, LAST_DAY) + MARCH_TO_1970_DAYS;
        let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let small = |number: i64| u16::try_from(number).unwrap_or_default();
        Self {
            year: small(era * 400 + year_of_era + carry),
            month: small(month) as u8,
            day: small(day) as u8,
        }
    }

    /// `1-Jan-2026`.
    pub fn encode(self, out: &mut Vec<u8>) {
        let month = MONTHS[usize::from(self.month) - 1];
        out.extend_from_slice(format!("{}-{month}-{:04}", self.day, self.year).as_bytes());
    }
}

impl DateTime {
    /// The moment at this time of day in this zone; 23:59:60 is the next second.
    pub(crate) fn new(date: Date, time: (u8, u8, u8), offset_minutes: i16) -> Option<Self> {
        let (hour, minute, second) = time;
        let is_time = hour < 24 && minute < 60 && second <= 60 && offset_minutes.abs() < 24 * 60;
        let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        is_time.then(|| Self {
            unix_s: date.unix_days() * DAY_S + of_day - i64::from(offset_minutes) * 60,
            offset_minutes,
        })
    }

    /// `" 1-Jan-2026 12:00:00 +0100"`, with its quotes.
    pub fn encode(self, out: &mut Vec<u8>) {
        let local = self.unix_s + i64::from(self.offset_minutes) * 60;
        let date = Date::from_unix_days(local.div_euclid(DAY_S));
        let second = local.rem_euclid(DAY_S).unsigned_abs();
        let sign = if self.offset_minutes < 0 { b'-' } else { b'+' };
        let offset = u64::from(self.offset_minutes.unsigned_abs());
        let mut text = *b"\"00-Jan-0000 00:00:00 +0000\"";
        digits(&mut text[1..3], date.day.into());
        if text[1] == b'0' {
            text[1] = b' ';
        }
        text[4..7].copy_from_slice(MONTHS[usize::from(date.month) - 1].as_bytes());
        digits(&mut text[8..12], date.year.into());
        digits(&mut text[13..15], second / 3600);
        digits(&mut text[16..18], second / 60 % 60);
        digits(&mut text[19..21], second % 60);
        text[22] = sign;
        digits(&mut text[23..25], offset / 60);
        digits(&mut text[25..27], offset % 60);
        out.extend_from_slice(&text);
    }
}

/// As in `date-month`.
pub(crate) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY_S: i64 = 86_400;
/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;
/// From 1 March of the year 0 to 1 January 1970.
const MARCH_TO_1970_DAYS: i64 = 719_468;
/// 1 January of the year 1, and 31 December 9999.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_are_counted_both_ways() {
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (2000, 2, 29, 11_016),
            (2026, 11, 22, 20_779),
            (1969, 12, 31, -1),
            (1, 1, 1, FIRST_DAY),
            (9999, 12, 31, LAST_DAY),
        ] {
            let date = Date::new(year, month, day).unwrap();
            assert_eq!(date.unix_days(), days);
            assert_eq!(Date::from_unix_days(days), date);
        }
        for days in (FIRST_DAY..=LAST_DAY).step_by(17) {
            assert_eq!(Date::from_unix_days(days).unix_days(), days);
        }
        assert_eq!(Date::from_unix_days(i64::MAX).unix_days(), LAST_DAY);
    }

    #[test]
    fn days_that_are_none_are_refused() {
        for (year, month, day) in [
            (2025, 2, 29),
            (1900, 2, 29),
            (2025, 13, 1),
            (2025, 0, 1),
            (2025, 4, 31),
            (0, 1, 1),
            (10_000, 1, 1),
            (2025, 1, 0),
        ] {
            assert_eq!(Date::new(year, month, day), None);
        }
    }

    #[test]
    fn a_moment_is_written_in_its_own_zone() {
        let shown = |unix_s, offset_minutes| {
            let mut out = Vec::new();
            DateTime {
                unix_s,
                offset_minutes,
            }
            .encode(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(0, 0), "\" 1-Jan-1970 00:00:00 +0000\"");
        assert_eq!(shown(0, -90), "\"31-Dec-1969 22:30:00 -0130\"");
        assert_eq!(shown(951_782_400, 60), "\"29-Feb-2000 01:00:00 +0100\"");
        assert!(shown(i64::MAX / 2, 0).contains("-9999 "));
    }
}
