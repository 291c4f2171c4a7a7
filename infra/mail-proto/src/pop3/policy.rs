//! The provider's rules for the use of a maildrop, as CAPA tells them. RFC 2449 §6.5, §6.7.

use std::fmt;

/// What the provider asks of clients. The default asks nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Seconds that must lie between two logins; none when there is no such rule.
    pub login_delay_s: Option<u64>,
    /// How long messages are kept that their owner has had.
    pub expiry: Expiry,
}

/// How long a message stays that was retrieved, or read in IMAP. RFC 2449 §6.7.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Until its owner removes it.
    #[default]
    Never,
    /// So many days from its arrival in the INBOX; it goes at the next QUIT. With 0 it goes at the QUIT of the session that
    /// retrieved it.
    Days(u16),
}

impl Expiry {
    /// Whether a message that arrived at one time has stayed its days at the other, both in milliseconds since 1970. One
    /// from the future, as after a clock was set back, has not.
    pub fn is_over(self, saved_ms: i64, now_ms: i64) -> bool {
        match self {
            Self::Never => false,
            Self::Days(days) => now_ms.saturating_sub(saved_ms) >= i64::from(days) * DAY_MS,
        }
    }
}

impl From<Option<u16>> for Expiry {
    fn from(days: Option<u16>) -> Self {
        days.map_or(Self::Never, Self::Days)
    }
}

/// As CAPA says it.
impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("NEVER"),
            Self::Days(days) => days.fmt(f),
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
