//! Makes refusals take the same, whatever scheme the account has that somebody guesses at, and wherever its password is.
//!
//! While every slow credential is an Argon2id of today's cost, a refusal costs exactly one of them
//! and no more is done here. An imported one costs what its owner's last server chose: a
//! wrong password for it would take another time than an unknown user, and so tell that the user
//! exists. Doing for every stranger what the slowest account costs would make each guess that dear
//! for us; so the *time* is made equal instead, not the work. As soon as there is one
//! such credential, every refusal is answered three times the time after its turn began that the
//! slowest check takes here, a quarter of a second at least, and when it took longer, for the
//! machine is busy, at the next multiple: the time says nothing finer. It waits without a turn, so others are served meanwhile. When
//! the last of them is upgraded, refusals are quick again from the next look on.
//!
//! How slow the slowest is, is known from a look through all credentials at the start and daily
//! (`survey.rs`), from each that is imported and each that is met at a login. Until the first look
//! has ended, a refusal takes a second.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::form::{Form, Function, Work};

/// The time of the slowest check, as far as it is known.
#[derive(Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Default)]
struct State {
    /// No look through all credentials has ended yet.
    unknown: bool,
    slowest: Cost,
    /// Met since the last look began, and since the one before: what is stored only now, the look
    /// that is under way may have passed by.
    met: Cost,
    met_before: Cost,
    /// How slow LDAP is, in seconds, where it is asked.
    ldap_s: Option<f64>,
}

/// The time that a check takes here. Zero: nothing slow but Argon2id of today's cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    s: f64,
    s_per_octet: f64,
}

impl Cost {
    /// What the credentials of one account cost together when none matches; zero when it is what
    /// an unknown user costs.
    pub(super) fn of<'a>(forms: impl Iterator<Item = &'a Form>) -> Self {
        let slow: Vec<(&Form, Work)> = forms
            .filter_map(|form| Some((form, form.work()?)))
            .collect();
        if let [] | [_] = slow[..]
            && slow.iter().all(|(form, _)| form.is_current())
        {
            return Self::default();
        }
        let mut sum = Self::default();
        for (_, work) in slow {
            let step = seconds_per_step(work.function);
            sum.s += work.steps * step;
            sum.s_per_octet += work.steps_per_octet * step;
        }
        sum
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            s: self.s.max(other.s),
            s_per_octet: self.s_per_octet.max(other.s_per_octet),
        }
    }
}

impl Pace {
    /// Measures what checks take on this machine. Blocking.
    pub(super) fn measured() -> Self {
        seconds_per_step(Function::Argon2);
        Self::default()
    }

    /// Learns of an account's credentials.
    pub(super) fn met(&self, cost: Cost) {
        if cost == Cost::default() {
            return;
        }
        let mut state = self.state();
        state.slowest = state.slowest.max(cost);
        state.met = state.met.max(cost);
    }

    /// LDAP has said whether a password is right. The slowest answer counts, and is forgotten with a hundred
    /// others.
    pub(super) fn asked(&self, took: Duration) {
        let mut state = self.state();
        let before = state.ldap_s.unwrap_or_default();
        state.ldap_s = Some(took.as_secs_f64().max(before * LDAP_FADES));
    }

    /// A look through all credentials begins; the first one of a process with `first`.
    pub(super) fn look_begins(&self, first: bool) {
        let mut state = self.state();
        state.unknown |= first;
        state.met_before = std::mem::take(&mut state.met);
    }

    /// It has ended and found this.
    pub(super) fn look_ended(&self, found: Cost) {
        let mut state = self.state();
        state.unknown = false;
        state.slowest = found.max(state.met).max(state.met_before);
    }

    /// When a refusal may be answered that took `elapsed` from its turn's beginning, for a password
    /// of so many octets: counted from that beginning.
    pub(super) fn answer_after(&self, elapsed: Duration, octets: usize) -> Duration {
        let state = self.state();
        let mut unit_s = if state.unknown { UNKNOWN_S } else { 0.0 };
        if state.slowest != Cost::default() || state.ldap_s.is_some() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a password has at most 1,024 octets"
            )]
            let slowest = state.slowest.s + state.slowest.s_per_octet * octets as f64;
            let usual = seconds_per_step(Function::Argon2) * Form::current_work().steps;
            let slowest = slowest + state.ldap_s.unwrap_or_default();
            let own = ((slowest + usual) * MARGIN).clamp(UNIT_MIN_S, UNIT_MAX_S);
            unit_s = own.max(unit_s);
        }
        if unit_s == 0.0 {
            return elapsed;
        }
        let units = (elapsed.as_secs_f64() / unit_s).ceil().max(1.0);
        Duration::from_secs_f64(units * unit_s)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one step takes on this machine, measured once for the process: some 40 ms in all.
fn seconds_per_step(function: Function) -> f64 {
    static MEASURED: OnceLock<[(Function, f64); 6]> = OnceLock::new();
    let measured = MEASURED.get_or_init(|| {
        REFERENCES.map(|text| {
            let form = Form::parse(text).expect("the references are within the limits");
            let Work {
                function, steps, ..
            } = form.work().expect("the references are slow ones");
            // The least of some: others who use the processor only add to it.
            let least = (0..2).map(|_| {
                let start = Instant::now();
                std::hint::black_box(form.matches("x"));
                start.elapsed().as_secs_f64()
            });
            (function, least.fold(f64::MAX, f64::min) / steps)
        })
    });
    let found = measured.iter().find(|(one, _)| *one == function);
    found.expect("there is a reference for each function").1
}

/// One stored form of each slow function, cheap enough to be tried at a start. What they are the
/// hash of does not matter.
const REFERENCES: [&str; 6] = [
    "{ARGON2ID}$argon2id$v=19$m=9728,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "{BLF-CRYPT}$2y$05$.....................................................",
    "{SHA256-CRYPT}$5$saltsalt$...........................................",
    "{SHA512-CRYPT}$6$saltsalt$......................................................................................",
    "{PBKDF2}$1$saltsalt$5000$0000000000000000000000000000000000000000",
    "{SCRAM-SHA-256}4096,c2FsdHNhbHQ=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

/// So many times what the slowest check takes when it has a processor for itself: room for one that
/// shares it, and for an account with two credentials.
const MARGIN: f64 = 3.0;
/// An Argon2id of 28 ms took 80 to 470 on a machine that compiled beside it, for it needs the memory
/// more than the processor: with a unit of 40 ms unknown users were told apart. Waiting costs nothing.
const UNIT_MIN_S: f64 = 0.25;
/// The limits of the schemes come to less, on a machine half as fast. A client waits 10 s for the answer, 6 of which may be the wait for a turn.
const UNIT_MAX_S: f64 = 3.0;
/// Of a slow answer of LDAP, a hundred answers later, half a percent is left.
const LDAP_FADES: f64 = 0.95;
/// While nobody knows: more than twice what most sites will have.
const UNKNOWN_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        s: 0.000_1,
        s_per_octet: 0.0,
    };
    const DEAR: Cost = Cost {
        s: 0.4,
        s_per_octet: 0.001,
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_refusal_is_held_back_only_while_something_slower_is_known() {
        let pace = Pace::default();
        assert_eq!(pace.answer_after(ms(30), 8), ms(30));
        pace.look_begins(true);
        assert_eq!(pace.answer_after(ms(30), 8), ms(1_000), "nobody knows yet");
        pace.look_ended(CHEAP);
        let cheap = pace.answer_after(ms(30), 8);
        assert!(cheap >= ms(250), "{cheap:?}");
        pace.met(DEAR);
        let dear = pace.answer_after(ms(30), 8);
        assert!(dear >= ms(1_200) && dear >= cheap, "{dear:?}");
        assert!(pace.answer_after(ms(30), 100) > dear, "a long password");
        assert_eq!(pace.answer_after(ms(30), 1_024), ms(3_000), "never longer");

        // What was met before a look began is still there after it, and gone after the next.
        pace.look_begins(false);
        pace.look_ended(Cost::default());
        assert!(pace.answer_after(ms(30), 8) >= ms(1_200));
        pace.look_begins(false);
        pace.look_ended(Cost::default());
        assert_eq!(pace.answer_after(ms(30), 8), ms(30));
    }

    #[test]
    fn a_check_that_took_longer_tells_no_more_than_how_many_times() {
        let pace = Pace::default();
        pace.met(DEAR);
        let unit = pace.answer_after(Duration::ZERO, 8);
        for (took, times) in [(0.1, 1), (0.9, 1), (1.1, 2), (2.5, 3)] {
            let answered = pace.answer_after(unit.mul_f64(took), 8);
            let off = answered.abs_diff(unit * times);
            assert!(off < ms(1), "{took}: {answered:?} of {unit:?}");
        }
    }

    #[test]
    fn what_costs_as_a_new_password_does_is_nothing_to_hide() {
        let current = super::super::hash("x").map(|stored| stored.secret.reveal().to_owned());
        let current = Form::parse(&current.expect("it can be hashed")).expect("it can be read");
        let [argon2id, bcrypt, ..] = REFERENCES.map(|text| Form::parse(text).expect("readable"));
        let cost = |forms: &[&Form]| Cost::of(forms.iter().copied());
        assert_eq!(cost(&[]), Cost::default());
        assert_eq!(cost(&[&current]), Cost::default());
        assert!(cost(&[&argon2id]).s > 0.0, "another cost than today's");
        assert!(cost(&[&current, &current]).s > cost(&[&argon2id]).s);
        assert!(cost(&[&current, &bcrypt]).s > cost(&[&bcrypt]).s);
    }
}
