//! Gives random octets nobody can guess, from the one cryptographic provider in the process.

use std::sync::LazyLock;

use rustls::crypto::{SecureRandom, aws_lc_rs};

static SOURCE: LazyLock<&'static dyn SecureRandom> =
    LazyLock::new(|| aws_lc_rs::default_provider().secure_random);

/// Fills a buffer with random octets.
///
/// # Panics
/// When the system has no randomness: nothing that needs it may go on without.
pub fn fill(buffer: &mut [u8]) {
    SOURCE.fill(buffer).expect("the system gives random octets");
}

/// Gives 128 random bits, enough that two never meet.
#[must_use]
pub fn token128() -> [u8; 16] {
    let mut token = [0; 16];
    fill(&mut token);
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_differ() {
        assert_ne!(token128(), token128());
    }
}
