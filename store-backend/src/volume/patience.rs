//! How long deliveries to an account that is being moved wait for the end of the move.
//!
//! A freeze lasts a moment, as a rule, and who comes in it is better answered behind it. One that lasts longer than that may last for
//! hours: whoever comes then is answered at once, for the first has waited for all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use directory_api::AccountId;

use super::types::MoveId;

/// Until when deliveries wait, by account and move.
pub(super) struct Patience {
    wait: Duration,
    until: HashMap<(AccountId, MoveId), Instant>,
}

impl Patience {
    pub(super) fn new(wait: Duration) -> Self {
        Self {
            wait,
            until: HashMap::new(),
        }
    }

    /// Until when a delivery that came at `now` waits for the end of these moves.
    pub(super) fn until(&mut self, moving: &[(AccountId, MoveId)], now: Instant) -> Instant {
        if self.until.len() + moving.len() > MOVES_MAX {
            self.until.retain(|_, until| *until > now);
        }
        let end = now + self.wait;
        let all = moving.iter();
        let untils = all.map(|one| *self.until.entry(*one).or_insert(end));
        untils.max().unwrap_or(now)
    }
}

/// Beyond it moves are forgotten that nobody waits for: who comes then waits once more.
const MOVES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_waits_for_all_and_each_move_anew() {
        let (wait, began) = (Duration::from_secs(2), Instant::now());
        let mut patience = Patience::new(wait);
        let (ann, bob) = (AccountId(1), AccountId(2));
        let (one, other) = ((ann, [1; 16]), (bob, [1; 16]));
        assert_eq!(patience.until(&[], began), began);
        assert_eq!(patience.until(&[one], began), began + wait);
        let later = began + wait / 2;
        assert_eq!(patience.until(&[one], later), began + wait);
        assert_eq!(patience.until(&[one, other], later), later + wait);
        let late = began + 10 * wait;
        assert!(patience.until(&[one, other], late) < late);
        assert_eq!(patience.until(&[(ann, [2; 16])], late), late + wait);
        for number in 0..3 * MOVES_MAX as u64 {
            patience.until(&[(AccountId(number), [3; 16])], late + wait * number as u32);
        }
        assert!(patience.until.len() <= MOVES_MAX);
    }
}
