//! Shows a person how long work goes on.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// A line on a terminal that is written over; elsewhere a line now and then. On standard error.
pub(super) struct Progress {
    is_terminal: bool,
    shown: Option<Instant>,
    is_open: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            shown: None,
            is_open: false,
        }
    }

    /// Tells how far it is, seldom enough.
    pub(super) fn show(&mut self, line: impl FnOnce() -> String) {
        let every = if self.is_terminal { OFTEN } else { SELDOM };
        let now = Instant::now();
        let since = *self.shown.get_or_insert(now);
        if now - since < every {
            return;
        }
        self.shown = Some(now);
        if self.is_terminal {
            self.is_open = true;
            eprint!("\r\x1b[K{}", line());
            // What is not shown is shown a moment later.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{}", line());
        }
    }

    /// Tells something that is to stay.
    pub(super) fn say(&mut self, line: &str) {
        self.clear();
        eprintln!("{line}");
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_open) {
            eprint!("\r\x1b[K");
        }
    }
}

/// Octets for people.
pub(crate) fn octets(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_told_in_the_unit_that_fits() {
        let all = [0, 1023, 1024, 1536, 3_000_000_000, 5 << 60].map(octets);
        let wanted = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "2.8 GiB"];
        assert_eq!(all[..5], wanted);
        assert!(all[5].ends_with(" TiB"));
    }
}
