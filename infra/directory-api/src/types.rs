//! The words of the directory as types: accounts, addresses, back-ends, homes.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number! {
    /// One user's whole mail store. Given once by the directory, from 1 to [`AccountId::MAX`]; never reused, never renamed.
    AccountId
}
number! {
    #[derive(Deserialize)]
    /// Grows by one at every move of an account. A writer with an older epoch is refused (P4). From 1.
    Epoch
}
number! {
    #[derive(Deserialize)]
    /// The position of one change of the directory. From 1; 0 means "before the first change".
    ChangeNumber
}

impl AccountId {
    /// The largest that the directory ever gives. A store has numbers above it of its own, for what is no user's.
    pub const MAX: Self = Self((1 << 39) - 1);
}

/// Whatever speaks to us, and whatever it wants, it can name no account above [`AccountId::MAX`]: none is read from the wire.
impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Self(u64::deserialize(deserializer)?) {
            account if account <= Self::MAX => Ok(account),
            _ => Err(D::Error::custom("no account has such a number")),
        }
    }
}

impl Epoch {
    /// The epoch of an account that has never moved.
    pub const FIRST: Self = Self(1);

    /// The epoch after one more move.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no character.
    #[error("name is empty")]
    Empty,
    /// The name has more octets than its kind allows.
    #[error("name is longer than {octets_max} octets")]
    TooLong {
        /// The most octets allowed.
        octets_max: usize,
    },
    /// The name holds a character outside its kind's set.
    #[error("name holds the character {0:?}, which is not allowed there")]
    Character(char),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the length and every character.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong; nothing is repaired but ASCII case.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let mut text = text.into();
                if text.is_empty() {
                    return Err(NameError::Empty);
                }
                if text.len() > $max {
                    return Err(NameError::TooLong { octets_max: $max });
                }
                let allowed: fn(char) -> bool = $allowed;
                if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
                    return Err(NameError::Character(bad));
                }
                text.make_ascii_lowercase();
                Ok(Self(text))
            }

            /// The name as text, ASCII lower case.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name! {
    /// A back-end's name: one DNS label, because it stands in the back-end's certificate.
    BackendName, 63, |c| c.is_ascii_alphanumeric() || c == '-'
}
name! {
    /// The name of a volume on its back-end.
    VolumeName, 63, |c| c.is_ascii_alphanumeric() || c == '-'
}
name! {
    /// A mail domain, lower case. U-labels are kept as UTF-8 (RFC 6531). RFC 1035 §2.3.4 limits it.
    DomainName, 255, |c| c.is_alphanumeric() || c == '-' || c == '.' || c == '_'
}
name! {
    /// What a user logs in with: usually the address. DESIGN §13 limits it to 512 octets.
    LoginName, 512, |c| !c.is_control() && !c.is_whitespace()
}

name! {
    /// The name of an app password: what its owner calls the program or machine that has it.
    CredentialName, 64, |c| c.is_ascii_alphanumeric() || "-._".contains(c)
}

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@` with text on both sides.
    #[error("address lacks a local part or a domain")]
    Incomplete,
    /// The local part is longer than RFC 5321 §4.5.3.1.1 allows (64 octets).
    #[error("local part is longer than 64 octets")]
    LocalPartTooLong,
    /// The local part holds a control character.
    #[error("local part holds a control character")]
    LocalPartCharacter,
    /// The domain is not a name.
    #[error("domain of the address is not valid")]
    Domain(#[source] NameError),
}

/// `local@domain` as the directory keys it: unquoted local part, lower case throughout.
///
/// RFC 5321 §2.4 leaves the case of the local part to its owner; providers treat it as one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// Builds the key from an unquoted local part and a domain.
    ///
    /// # Errors
    /// [`AddressError`] names the part that is not valid.
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Incomplete);
        }
        // Some characters grow in lower case: the key itself must be an address again.
        let local = local.to_lowercase();
        if local.len() > 64 {
            return Err(AddressError::LocalPartTooLong);
        }
        if local.chars().any(char::is_control) {
            return Err(AddressError::LocalPartCharacter);
        }
        let domain = DomainName::new(domain).map_err(AddressError::Domain)?;
        Ok(Self {
            at: local.len(),
            text: format!("{local}@{domain}"),
        })
    }

    /// The part before the last `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after the last `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address before the detail of a subaddress, and the detail (RFC 5233): `ann` and `lists` of
    /// `ann+lists@x.test`. None when there is no `+`, or nothing on one side of the first one.
    #[must_use]
    pub fn subaddress(&self) -> Option<(Self, &str)> {
        let (user, detail) = self.local().split_once('+')?;
        if user.is_empty() || detail.is_empty() {
            return None;
        }
        let base = Self {
            at: user.len(),
            text: format!("{user}@{}", self.domain()),
        };
        Some((base, detail))
    }

    /// What receives the mail of a domain for whom nobody is there, if the domain has it: `*@domain`.
    #[must_use]
    pub fn catch_all(&self) -> Self {
        Self {
            at: 1,
            text: format!("*@{}", self.domain()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Incomplete)?;
        Self::new(local, domain)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// What a user may open: one grant opens one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// RFC 1939.
    Pop3,
    /// RFC 3501 and 9051.
    Imap,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 2] = [Self::Pop3, Self::Imap];

    /// The name in logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
        }
    }
}

/// Where an account lives. The epoch fences every writer (P4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// The back-end that owns the account.
    pub backend: BackendName,
    /// The volume on that back-end.
    pub volume: VolumeName,
    /// Grows at every move.
    pub epoch: Epoch,
}

/// The most that an account may keep (RFC 9208): none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Octets of all messages as RFC822.SIZE counts them, shared bodies each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// Messages in all mailboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// The change that made it so: who was told of two takes the newer one. 0 when none was ever set.
    pub as_of: ChangeNumber,
}

impl Default for Quota {
    fn default() -> Self {
        Self::NONE
    }
}

impl Quota {
    /// No limit, and none was ever set.
    pub const NONE: Self = Self {
        octets: None,
        messages: None,
        as_of: ChangeNumber(0),
    };

    /// Whether anything is limited.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.octets.is_some() || self.messages.is_some()
    }

    /// Whether an account may hold as much. A limit may be reached, not passed.
    #[must_use]
    pub fn allows(&self, messages: u64, octets: u64) -> bool {
        self.messages.is_none_or(|most| messages <= most)
            && self.octets.is_none_or(|most| octets <= most)
    }

    /// Whether this much is `percent` of a limit or more.
    #[must_use]
    pub fn is_near(&self, percent: u8, messages: u64, octets: u64) -> bool {
        let near = |used: u64, most: Option<u64>| {
            most.is_some_and(|most| {
                u128::from(used) * 100 >= u128::from(most) * u128::from(percent)
            })
        };
        near(messages, self.messages) || near(octets, self.octets)
    }

    /// For leaving it out where it says nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    /// Receives mail and logs in.
    Active,
    /// Receives mail, cannot log in.
    Suspended,
    /// Receives no mail, as if its addresses were not there, and cannot log in. What it holds stays
    /// until the account is removed.
    Closing,
    /// One that a newer program has and this one does not know: cannot log in. Never written.
    #[serde(other)]
    Other,
}

/// How a back-end takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Serves its accounts and takes new ones.
    Active,
    /// Serves its accounts, takes no new ones.
    Draining,
    /// Known to be out of service.
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_newer_program_is_read_as_another() {
        let read = |text: &str| serde_json::from_str::<AccountStatus>(text).ok();
        assert_eq!(read(r#""closing""#), Some(AccountStatus::Closing));
        assert_eq!(read(r#""frozen""#), Some(AccountStatus::Other));
    }

    #[test]
    fn an_account_above_those_that_the_directory_gives_is_not_read() {
        let read = |number: u64| serde_json::from_str::<AccountId>(&number.to_string()).ok();
        let most = AccountId::MAX.0;
        assert_eq!(read(1), Some(AccountId(1)));
        assert_eq!(read(most), Some(AccountId::MAX));
        assert_eq!([read(most + 1), read(u64::MAX)], [None, None]);
    }

    #[test]
    fn an_address_is_one_name_whatever_its_case() {
        let address: Address = "Ann.Lee@Example.TEST".parse().unwrap();
        assert_eq!(address.as_str(), "ann.lee@example.test");
        assert_eq!(
            (address.local(), address.domain()),
            ("ann.lee", "example.test")
        );
        let quoted: Address = "a@b@example.test".parse().unwrap();
        assert_eq!(quoted.local(), "a@b");
    }

    #[test]
    fn a_subaddress_is_split_at_its_first_plus() {
        let split = |text: &str| {
            let address: Address = text.parse().unwrap();
            let split = address.subaddress();
            split.map(|(base, detail)| (String::from(base), detail.to_owned()))
        };
        let told = |base: &str, detail: &str| Some((base.to_owned(), detail.to_owned()));
        assert_eq!(split("Ann+Lists@x.test"), told("ann@x.test", "lists"));
        assert_eq!(split("a+b+c@x.test"), told("a@x.test", "b+c"));
        for whole in ["ann@x.test", "+a@x.test", "a+@x.test", "+@x.test"] {
            assert_eq!(split(whole), None, "{whole}");
        }
        let address: Address = "ann+a@x.test".parse().unwrap();
        let caught = address.catch_all();
        assert_eq!(
            (caught.as_str(), caught.local(), caught.domain()),
            ("*@x.test", "*", "x.test")
        );
    }

    #[test]
    fn an_address_over_a_limit_or_with_control_characters_is_refused() {
        assert_eq!("@x".parse::<Address>(), Err(AddressError::Incomplete));
        assert_eq!("x".parse::<Address>(), Err(AddressError::Incomplete));
        let local = "a".repeat(64);
        assert!(format!("{local}@x").parse::<Address>().is_ok());
        assert_eq!(
            format!("{local}a@x").parse::<Address>(),
            Err(AddressError::LocalPartTooLong)
        );
        assert_eq!(
            "a\0@x".parse::<Address>(),
            Err(AddressError::LocalPartCharacter)
        );
        assert!(matches!(
            "a@x/../y".parse::<Address>(),
            Err(AddressError::Domain(_))
        ));
    }

    #[test]
    fn a_key_is_an_address_again_even_where_lower_case_is_longer() {
        for count in [20, 21, 22, 32] {
            let Ok(address) = Address::new(&"İ".repeat(count), "x.test") else {
                assert!(count > 21, "{count}");
                continue;
            };
            assert_eq!(address.as_str().parse::<Address>().as_ref(), Ok(&address));
        }
    }

    #[test]
    fn a_quota_may_be_reached_and_not_passed() {
        let quota = Quota {
            octets: Some(1000),
            messages: Some(3),
            as_of: ChangeNumber(1),
        };
        assert!(quota.allows(3, 1000));
        assert!(!quota.allows(4, 1000) && !quota.allows(3, 1001));
        assert!(Quota::NONE.allows(u64::MAX, u64::MAX) && !Quota::NONE.is_limited());
        assert!(quota.is_near(90, 0, 900) && quota.is_near(90, 3, 0));
        assert!(!quota.is_near(90, 2, 899) && !Quota::NONE.is_near(1, 9, 9));
    }

    #[test]
    fn a_back_end_is_named_by_one_dns_label() {
        assert!(BackendName::new("b1").is_ok());
        assert_eq!(BackendName::new(""), Err(NameError::Empty));
        assert_eq!(BackendName::new("a.b"), Err(NameError::Character('.')));
        assert!(BackendName::new("a".repeat(63)).is_ok());
        assert_eq!(
            BackendName::new("a".repeat(64)),
            Err(NameError::TooLong { octets_max: 63 })
        );
    }
}
