//! Replies gathered until they are written together.

/// Octets to write. Given to the shell by reference, emptied at its next step.
#[derive(Debug, Default)]
pub(crate) struct Output {
    octets: Vec<u8>,
    given: bool,
    has_begun: bool,
}

impl Output {
    /// Forgets what the shell has written meanwhile.
    pub(crate) fn begin_step(&mut self) {
        if self.given {
            self.octets.clear();
            self.octets.shrink_to(KEPT_MAX);
            self.given = false;
        }
    }

    /// Whether anything was ever given to be written.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Whether to write before more is gathered, even though more commands
    /// wait: a flood of short commands must not grow memory.
    pub(crate) fn is_full(&self) -> bool {
        self.octets.len() >= FULL
    }

    /// Adds a line, ending it.
    pub(crate) fn line(&mut self, text: &str) {
        self.octets.extend_from_slice(text.as_bytes());
        self.octets.extend_from_slice(b"\r\n");
    }

    /// Where raw octets go.
    pub(crate) fn octets_mut(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    pub(crate) fn give(&mut self) -> &[u8] {
        self.given = true;
        self.has_begun = true;
        &self.octets
    }
}

/// Appends a number in decimal. A formatter takes several times as long, and answers are made of numbers.
pub fn number(out: &mut Vec<u8>, number: u64) {
    let mut text = [0; 20];
    let count = number.checked_ilog10().unwrap_or(0) as usize + 1;
    digits(&mut text[..count], number);
    out.extend_from_slice(&text[..count]);
}

/// Fills `out` with the last digits of a number.
pub(crate) fn digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

const FULL: usize = 4096;
/// Capacity an idle connection may keep.
const KEPT_MAX: usize = 512;
