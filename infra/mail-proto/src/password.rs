//! A password on its way from the peer to whoever verifies it.

use std::fmt;

/// Octets that never print and are overwritten when dropped.
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the octets over.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(octets)
    }

    /// The octets, for the one who verifies them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites octets that held a secret. `black_box` keeps the compiler from
/// leaving out writes that nobody reads.
pub(crate) fn wipe(octets: &mut [u8]) {
    octets.fill(0);
    std::hint::black_box(octets);
}
