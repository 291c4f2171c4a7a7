//! Fixed-width identifiers, written as lower-case hexadecimal in JSON and logs.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// The text is not the hexadecimal form of an identifier of this width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {octets} octets in lower-case hexadecimal")]
pub struct NotHex {
    /// The width expected.
    pub octets: usize,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $octets:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $octets]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let wrong = NotHex { octets: $octets };
                let octets = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong)?;
                octets.try_into().map(Self).map_err(|_| wrong)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotHex;

            fn try_from(text: String) -> Result<Self, NotHex> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

identifier! {
    /// One transaction of a front-end. Recorded with the commit, so that a retry inside the system shows one message (P2).
    TxnId, 16
}
identifier! {
    /// Names a message for ever (RFC 8474), whichever mailboxes it is in.
    EmailId, 16
}
identifier! {
    /// BLAKE3-256 of a blob: the message as accepted, without the prologue.
    BlobHash, 32
}
identifier! {
    /// BLAKE3-256 of the DATA octets exactly as received, dots unstuffed: recognises a resend (P2).
    ContentKey, 32
}
identifier! {
    /// A block of an account's items: kind (1), mailbox (4), number (4), big-endian; FORMAT-store.md has them.
    BlockName, 9
}
identifier! {
    /// Sum modulo 2^256 of BLAKE3-256 over every canonical item of an account.
    SetHash, 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_reads_back_what_it_wrote_and_nothing_else() {
        let id = TxnId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("ab".parse::<TxnId>(), Err(NotHex { octets: 16 }));
        assert_eq!("AB".repeat(16).parse::<TxnId>(), Err(NotHex { octets: 16 }));
    }
}
