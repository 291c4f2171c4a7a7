//! Reads RFC 5322 §3.3 dates, obsolete forms included.

/// A date as a mail states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub epoch_seconds: i64,
    /// The zone the mail names, in minutes east of UTC. With it SEARCH SENTON
    /// finds the day as written, RFC 9051 §6.4.4.
    pub zone_minutes: i32,
}

impl DateTime {
    /// The day as written, in days since 1970-01-01.
    pub fn written_day(&self) -> i64 {
        (self.epoch_seconds + i64::from(self.zone_minutes) * 60).div_euclid(86_400)
    }
}

/// Reads the value of a Date field. Day names are passed, comments too;
/// a missing time is midnight, a missing or unknown zone UTC (RFC 5322 §4.3).
/// `None` if day, month and year cannot be made out or are out of range.
pub fn parse_date(value: &[u8]) -> Option<DateTime> {
    let mut words = Words { rest: value };
    let mut word = words.next()?;
    if word[0].is_ascii_alphabetic() && month(word).is_none() {
        word = words.next()?;
    }
    // `Nov 22 2026` is seen too.
    let (day, month) = match month(word) {
        Some(month) => (digits(words.next()?)?, month),
        None => (digits(word)?, month(words.next()?)?),
    };
    let mut word = words.next()?;
    // asctime writes the time before the year.
    let mut clock = None;
    if word.contains(&b':') {
        clock = Some(time(word)?);
        word = words.next()?;
    }
    let year = match (digits(word)?, word.len()) {
        (year, 1..=2) => year + if year < 50 { 2000 } else { 1900 },
        (year, 3) => year + 1900,
        (year, _) => year,
    };
    let word = words.next();
    let (clock, zone_word) = match (clock, word) {
        (None, Some(word)) if word.contains(&b':') => (time(word)?, words.next()),
        (clock, word) => (clock.unwrap_or(0), word),
    };
    if !(1..=31).contains(&day) || !(1..=9999).contains(&year) || day > month_days(year, month) {
        return None;
    }
    let zone_minutes = zone_word.map_or(0, zone);
    Some(DateTime {
        epoch_seconds: days(year, month, day) * 86_400 + clock - i64::from(zone_minutes) * 60,
        zone_minutes,
    })
}

/// Words between white space, commas and comments.
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut depth = 0usize;
        loop {
            match (self.rest.first()?, depth) {
                (b'(', _) => depth += 1,
                (b')', 1..) => depth -= 1,
                (b' ' | b'\t' | b'\r' | b'\n' | b',' | b')', _) | (_, 1..) => {}
                (_, 0) => break,
            }
            self.rest = &self.rest[1..];
        }
        let is_end = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'(');
        let length = self.rest.iter().position(is_end);
        let (word, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(word)
    }
}

fn digits(word: &[u8]) -> Option<i64> {
    if word.is_empty() || word.len() > 4 || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        word.iter()
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')),
    )
}

fn month(word: &[u8]) -> Option<i64> {
    let word = word.get(..3)?;
    let at = MONTHS
        .iter()
        .position(|name| word.eq_ignore_ascii_case(&name[..]))?;
    Some(at as i64 + 1)
}

/// Seconds since midnight.
fn time(word: &[u8]) -> Option<i64> {
    let mut parts = word.split(|octet| *octet == b':');
    let hour = digits(parts.next()?)?;
    let minute = digits(parts.next()?)?;
    let second = parts.next().map_or(Some(0), digits)?;
    // 60 is a leap second.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Minutes east of UTC. RFC 5322 §4.3: military letters mean nothing, for
/// RFC 822 had their signs wrong.
fn zone(word: &[u8]) -> i32 {
    if let [sign @ (b'+' | b'-'), number @ ..] = word {
        let Some(number) = digits(number).filter(|_| number.len() == 4) else {
            return 0;
        };
        let minutes = (number / 100 * 60 + number % 100) as i32;
        if number % 100 > 59 || minutes >= 24 * 60 {
            return 0;
        }
        return if *sign == b'-' { -minutes } else { minutes };
    }
    ZONES
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(&name[..]))
        .map_or(0, |(_, hours)| hours * 60)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, counted in years
/// that begin in March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - DAYS_TO_1970
}

const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];
const ZONES: [(&[u8; 3], i32); 8] = [
    (b"EST", -5),
    (b"EDT", -4),
    (b"CST", -6),
    (b"CDT", -5),
    (b"MST", -7),
    (b"MDT", -6),
    (b"PST", -8),
    (b"PDT", -7),
];
/// From 1 March of year 0 to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_old_and_new_forms() {
        for (text, expected) in [
            ("Thu, 1 Jan 1970 00:00:00 +0000", Some((0, 0))),
            ("Sun, 22 Nov 2026 15:00:00 +0100", Some((1_795_356_000, 60))),
            ("22 Nov 26 14:00 GMT", Some((1_795_356_000, 0))),
            (
                "Sun, 22 Nov 2026 09:00:00 (a (b)) EST (c)",
                Some((1_795_356_000, -300)),
            ),
            ("Sun Nov 22 14:00:00 2026", Some((1_795_356_000, 0))),
            ("Sunday,22 November 126 14:00 Z", Some((1_795_356_000, 0))),
            ("29 Feb 2024", Some((1_709_164_800, 0))),
            ("1 Mar 2000 00:00:00 +9999", Some((951_868_800, 0))),
            ("31 Dec 1969 23:59:60 -0000", Some((0, 0))),
            ("29 Feb 2023 00:00", None),
            ("31 Feb 2099 25:61:61 +9999", None),
            ("yesterday", None),
            ("", None),
            ("(((((((", None),
            ("1 Jan 99999 00:00", None),
        ] {
            let read = parse_date(text.as_bytes());
            let read = read.map(|date| (date.epoch_seconds, date.zone_minutes));
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn the_written_day_is_the_one_in_the_mail() {
        let late = parse_date(b"1 Jan 1970 23:00 -0500").expect("a date");
        assert_eq!((late.epoch_seconds / 86_400, late.written_day()), (1, 0));
    }
}
