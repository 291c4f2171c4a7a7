//! An instant, as people write it and as it sorts in names of files.

use std::fmt;
use std::str::FromStr;

use daemon::clock::parse_utc;
use time::OffsetDateTime;

/// Milliseconds since 1970, written as `2026-11-29T22:15:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    pub(super) fn now() -> Self {
        Self(daemon::clock::now_ms())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

/// The text is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "give a time as `posthouse backup list` shows it, as \"2026-11-29 22:15\", or a day as 2026-11-29, which means its end; UTC unless an offset stands behind"
)]
pub(crate) struct NoMoment;

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let at = parse_utc(text).ok_or(NoMoment)?;
        let is_day = !text.contains([' ', 'T']);
        Ok(Self(if is_day { at + DAY_MS - 1 } else { at }))
    }
}

const DAY_MS: i64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_and_sorts_as_its_text_does() {
        let at = Moment(1_795_356_672_999);
        assert_eq!(at.to_string(), "2026-11-22T14:11:12.999Z");
        assert_eq!(at.to_string().parse(), Ok(at));
        assert_eq!(
            "2026-11-22T14:11:13Z".parse(),
            Ok(Moment(1_795_356_673_000))
        );
        let end: Moment = "2026-11-22".parse().unwrap();
        assert_eq!(end.to_string(), "2026-11-22T23:59:59.999Z");
        assert_eq!("2026-11-22 14:11".parse(), Ok(Moment(1_795_356_660_000)));
        assert_eq!(
            "2026-11-22T15:11:13+01:00".parse(),
            Ok(Moment(1_795_356_673_000))
        );
        assert_eq!("yesterday".parse::<Moment>(), Err(NoMoment));
        assert!(Moment(5).to_string() < at.to_string());
    }
}
