//! Capabilities by name, and those a client switches on. RFC 5161.

use serde::{Deserialize, Serialize};

/// What ENABLE can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enable {
    /// RFC 9051.
    Imap4Rev2,
    /// RFC 7162 §3.1.
    Condstore,
    /// RFC 7162 §3.2; implies CONDSTORE.
    Qresync,
    /// RFC 6855.
    Utf8Accept,
    /// RFC 9586.
    UidOnly,
}

/// What a session has switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Enabled {
    /// RFC 9051.
    pub imap4rev2: bool,
    /// By ENABLE, or by any command that uses it.
    pub condstore: bool,
    /// RFC 7162 §3.2.
    pub qresync: bool,
    /// RFC 6855.
    pub utf8_accept: bool,
    /// RFC 9586.
    pub uid_only: bool,
}

impl Enable {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Imap4Rev2,
        Self::Condstore,
        Self::Qresync,
        Self::Utf8Accept,
        Self::UidOnly,
    ];

    /// As in CAPABILITY and ENABLED.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imap4Rev2 => "IMAP4rev2",
            Self::Condstore => "CONDSTORE",
            Self::Qresync => "QRESYNC",
            Self::Utf8Accept => "UTF8=ACCEPT",
            Self::UidOnly => "UIDONLY",
        }
    }

    /// The one of this name, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Enabled {
    /// Switches one on; whether it was off before, and so belongs into ENABLED.
    pub fn enable(&mut self, what: Enable) -> bool {
        let switch = match what {
            Enable::Imap4Rev2 => &mut self.imap4rev2,
            Enable::Condstore => &mut self.condstore,
            Enable::Qresync => &mut self.qresync,
            Enable::Utf8Accept => &mut self.utf8_accept,
            Enable::UidOnly => &mut self.uid_only,
        };
        let was_off = !std::mem::replace(switch, true);
        // RFC 7162 §3.2.3.
        self.condstore |= self.qresync;
        was_off
    }

    /// Whether names and quoted strings may be UTF-8. RFC 9051 §5.1, RFC 6855 §3.
    pub fn utf8(&self) -> bool {
        self.imap4rev2 || self.utf8_accept
    }
}

/// All that the grammar and encoders here can carry after login. What a server
/// advertises is its own choice among these, with values (`APPENDLIMIT=…`,
/// `MESSAGELIMIT=…`) of its own.
pub const KNOWN: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "ACL",
    "APPENDLIMIT",
    "BINARY",
    "CHILDREN",
    "COMPRESS=DEFLATE",
    "CONDSTORE",
    "CREATE-SPECIAL-USE",
    "ENABLE",
    "ESEARCH",
    "ESORT",
    "ID",
    "IDLE",
    "INPROGRESS",
    "LIST-EXTENDED",
    "LIST-MYRIGHTS",
    "LIST-STATUS",
    "LITERAL+",
    "MESSAGELIMIT",
    "METADATA",
    "MOVE",
    "MULTIAPPEND",
    "NAMESPACE",
    "NOTIFY",
    "OBJECTID",
    "PARTIAL",
    "PREVIEW",
    "QRESYNC",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
    "QUOTASET",
    "REPLACE",
    "RIGHTS=kxte",
    "SASL-IR",
    "SAVEDATE",
    "SEARCHRES",
    "SORT",
    "SORT=DISPLAY",
    "SPECIAL-USE",
    "STATUS=SIZE",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "UIDONLY",
    "UIDPLUS",
    "UNSELECT",
    "UTF8=ACCEPT",
    "WITHIN",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qresync_brings_condstore() {
        let mut enabled = Enabled::default();
        assert!(enabled.enable(Enable::Qresync));
        assert!(!enabled.enable(Enable::Condstore));
        assert!(!enabled.utf8());
        assert!(enabled.enable(Enable::Imap4Rev2) && enabled.utf8());
    }

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Enable::from_name(b"imap4REV2"), Some(Enable::Imap4Rev2));
        assert_eq!(Enable::from_name(b"X-NEW"), None);
        for one in Enable::ALL {
            assert_eq!(Enable::from_name(one.name().as_bytes()), Some(one));
            assert!(KNOWN.contains(&one.name()));
        }
    }
}
