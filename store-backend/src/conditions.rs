//! How each volume is, told as the health of the whole back-end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use daemon::health::Health;
use directory_api::VolumeName;

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is being opened, which takes long after a crash and longest when its index is made anew.
    Opening,
    /// Somebody must act. Says which volume.
    Failing(String),
    /// It is open.
    Open,
}

/// Of all volumes.
pub(crate) struct Conditions {
    health: Health,
    directory: String,
    of: Mutex<BTreeMap<VolumeName, Known>>,
}

struct Known {
    condition: Condition,
    /// Whether the directory has not answered the last announcement, or none was made.
    waits: bool,
}

impl Conditions {
    /// All volumes are being opened. `directory` is where the directory is.
    pub(crate) fn new(
        health: Health,
        directory: &str,
        names: impl IntoIterator<Item = VolumeName>,
    ) -> Self {
        let opening = |name| {
            let known = Known {
                condition: Condition::Opening,
                waits: true,
            };
            (name, known)
        };
        let conditions = Self {
            health,
            directory: format!("directory at {directory}"),
            of: Mutex::new(names.into_iter().map(opening).collect()),
        };
        conditions.change(|_| {});
        conditions
    }

    /// From now on a volume is so, as the directory knows too.
    pub(crate) fn set(&self, volume: &VolumeName, condition: Condition) {
        self.change(|of| {
            let known = Known {
                condition,
                waits: false,
            };
            of.insert(volume.clone(), known);
        });
    }

    /// It is open; the directory does not know yet.
    pub(crate) fn opened(&self, volume: &VolumeName) {
        self.change(|of| {
            let known = Known {
                condition: Condition::Open,
                waits: true,
            };
            of.insert(volume.clone(), known);
        });
    }

    /// The directory does not answer. What is wrong besides stays wrong.
    pub(crate) fn waits(&self, volume: &VolumeName) {
        self.change(|of| {
            if let Some(known) = of.get_mut(volume) {
                known.waits = true;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<VolumeName, Known>)) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut of);
        let mut failing = Vec::new();
        let mut is_opening = false;
        for (name, known) in &*of {
            let recovery = match of.len() {
                1 => "recovery of the volume".to_owned(),
                _ => format!("recovery of the volume {name}"),
            };
            if known.condition == Condition::Opening {
                is_opening = true;
                self.health.set_waiting(recovery);
                continue;
            }
            self.health.arrived(&recovery);
            if let Condition::Failing(why) = &known.condition {
                failing.push(why.as_str());
            }
        }
        // One that is being recovered has asked for nothing, whereas with none open the directory may be what is waited for.
        let is_open = |known: &Known| known.condition != Condition::Opening;
        let is_one_open = of.values().any(is_open);
        let mut asking = of.values().filter(|known| is_open(known) || !is_one_open);
        let waits = asking.any(|known| known.waits);
        match waits {
            true => self.health.set_waiting(&self.directory),
            false => self.health.arrived(&self.directory),
        }
        match failing.is_empty() {
            false => self.health.set_failing(failing.join("; ")),
            true if waits || is_opening => self.health.clear_failing(),
            true => self.health.set_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_is_recovered_does_not_wait_for_a_directory_that_answers() {
        let health = Health::new("test");
        let names = ["d1", "d2"].map(|name| VolumeName::new(name).unwrap());
        let conditions = Conditions::new(health.clone(), "here", names.clone());
        let waits = || format!("{health:?}").contains("directory at here");
        assert!(waits());
        conditions.opened(&names[0]);
        assert!(waits());
        conditions.set(&names[0], Condition::Open);
        assert!(!waits() && !health.is_ready());
        conditions.opened(&names[1]);
        assert!(waits());
        conditions.set(&names[1], Condition::Open);
        assert!(health.is_ready());
        conditions.waits(&names[0]);
        assert!(waits());
    }
}
