//! Access rights. RFC 4314.

use serde::{Deserialize, Serialize};

/// A set of rights, one letter or digit each. RFC 4314 §2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights(u64);

/// What SETACL does to an identifier's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightsChange {
    /// Exactly these from now on.
    Replace(Rights),
    /// `+`: these too.
    Add(Rights),
    /// `-`: these no more.
    Remove(Rights),
}

impl Rights {
    /// The rights of these letters; none if one of them is no lower-case letter
    /// or digit.
    pub fn new(letters: &str) -> Option<Self> {
        letters.bytes().try_fold(Self(0), |rights, letter| {
            Some(Self(rights.0 | 1 << place(letter)?))
        })
    }

    /// Whether this right is among them.
    pub fn has(self, letter: char) -> bool {
        u8::try_from(letter)
            .ok()
            .and_then(place)
            .is_some_and(|place| self.0 >> place & 1 == 1)
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The rights after a change.
    #[must_use]
    pub fn changed(self, change: RightsChange) -> Self {
        match change {
            RightsChange::Replace(rights) => rights,
            RightsChange::Add(rights) => self.union(rights),
            RightsChange::Remove(rights) => self.without(rights),
        }
    }

    /// Their letters, in one fixed order.
    pub fn letters(self) -> String {
        ('a'..='z')
            .chain('0'..='9')
            .filter(|letter| self.has(*letter))
            .collect()
    }
}

fn place(letter: u8) -> Option<u8> {
    match letter {
        b'a'..=b'z' => Some(letter - b'a'),
        b'0'..=b'9' => Some(letter - b'0' + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rights_change_as_setacl_says() {
        let rights = Rights::new("lrs9").unwrap();
        let more = Rights::new("wr").unwrap();
        assert_eq!(rights.letters(), "lrs9");
        assert_eq!(rights.changed(RightsChange::Add(more)).letters(), "lrsw9");
        assert_eq!(rights.changed(RightsChange::Remove(more)).letters(), "ls9");
        assert_eq!(rights.changed(RightsChange::Replace(more)).letters(), "rw");
        assert_eq!(Rights::new("lR"), None);
        assert!(!rights.has('ü'));
    }
}
