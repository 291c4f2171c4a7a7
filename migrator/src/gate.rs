//! Moves wait while a back-end is slow: its users come first.
//!
//! Each few seconds every back-end is asked for the load of its volumes, for which it looks at each of their disks. How long that
//! takes, on the way of every other request, is its latency; one that gives no answer is slow, too. A copy under way is broken off then,
//! and goes on where it was when both its sides are well again: what has come is not copied twice.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use directory_api::BackendName;
use directory_api::wire::MoveRecord;
use store_api::Backends;
use store_api::load::{LoadClient, LoadRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Tells which back-ends are slow now.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<HashSet<BackendName>>);

impl Gate {
    /// Looks at these back-ends, until the last copy of the gate is gone.
    #[must_use]
    pub fn watching(
        backends: Backends,
        names: BTreeSet<BackendName>,
        latency_max: Duration,
    ) -> Self {
        let (sender, receiver) = watch::channel(HashSet::new());
        tokio::spawn(async move {
            loop {
                let before = sender.borrow().clone();
                let mut looks = JoinSet::new();
                for name in &names {
                    looks.spawn(look(backends.clone(), name.clone()));
                }
                let mut slow = HashSet::new();
                while let Some(looked) = looks.join_next().await {
                    let Ok((name, took)) = looked else {
                        continue;
                    };
                    let was_slow = before.contains(&name);
                    let is_slow = is_slow(was_slow, took, latency_max);
                    if is_slow != was_slow {
                        tracing::info!(backend = %name, ?took, is_slow, "moves from and to it wait while it is slow");
                    }
                    if is_slow {
                        slow.insert(name);
                    }
                }
                if sender.send(slow).is_err() {
                    return;
                }
                sleep(LOOK_INTERVAL).await;
            }
        });
        Self(receiver)
    }

    /// Whether neither side is slow.
    #[must_use]
    pub fn is_open(&self, record: &MoveRecord) -> bool {
        !is_one_slow(&self.0.borrow(), record)
    }

    /// Waits until neither side is slow.
    pub async fn opens(&mut self, record: &MoveRecord) {
        let open = self.0.wait_for(|slow| !is_one_slow(slow, record)).await;
        // Nobody looks any more: nothing is held up.
        drop(open);
    }

    /// Waits until one of the sides is slow.
    pub async fn closes(&mut self, record: &MoveRecord) {
        if self
            .0
            .wait_for(|slow| is_one_slow(slow, record))
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }
}

fn is_one_slow(slow: &HashSet<BackendName>, record: &MoveRecord) -> bool {
    slow.contains(&record.from.backend) || slow.contains(&record.to.backend)
}

async fn look(backends: Backends, name: BackendName) -> (BackendName, Option<Duration>) {
    let asked = async {
        let link = backends.link(&name).await.ok()?;
        let began = Instant::now();
        LoadClient::new(link)
            .ask(&LoadRequest::Volumes)
            .await
            .ok()?;
        Some(began.elapsed())
    };
    let took = timeout(LOOK_MAX, asked).await.ok().flatten();
    (name, took)
}

/// One that was slow must be well by some margin, or moves would begin and stop at each look.
fn is_slow(was_slow: bool, took: Option<Duration>, latency_max: Duration) -> bool {
    let most = match was_slow {
        true => latency_max.mul_f64(0.7),
        false => latency_max,
    };
    took.is_none_or(|took| took > most)
}

const LOOK_INTERVAL: Duration = Duration::from_secs(3);
const LOOK_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use directory_api::wire::{MoveId, MoveState, Place};
    use directory_api::{AccountId, Epoch, Home};

    use super::*;

    fn record() -> MoveRecord {
        MoveRecord {
            account: AccountId(1),
            id: MoveId::from_octets([1; 16]),
            from: Home {
                backend: "b1".parse().unwrap(),
                volume: "v1".parse().unwrap(),
                epoch: Epoch(1),
            },
            to: Place {
                backend: "b2".parse().unwrap(),
                volume: "v1".parse().unwrap(),
            },
            state: MoveState::Copying,
            started_ms: 1,
            updated_ms: 1,
        }
    }

    #[test]
    fn who_does_not_answer_is_slow_and_who_was_slow_must_be_well_by_some_margin() {
        let (most, ms) = (Duration::from_millis(100), Duration::from_millis);
        assert!(is_slow(false, None, most));
        assert!(!is_slow(false, Some(most), most) && is_slow(false, Some(ms(101)), most));
        assert!(is_slow(true, Some(ms(80)), most) && !is_slow(true, Some(ms(70)), most));
    }

    #[tokio::test]
    async fn a_move_waits_while_either_side_is_slow_and_for_no_other() {
        let (sender, receiver) = watch::channel(HashSet::new());
        let (mut gate, record) = (Gate(receiver), record());
        gate.opens(&record).await;
        for (name, is_open) in [("b1", false), ("b3", true), ("b2", false)] {
            sender.send(HashSet::from([name.parse().unwrap()])).unwrap();
            assert_eq!(gate.is_open(&record), is_open, "{name}");
            match is_open {
                true => gate.opens(&record).await,
                false => gate.closes(&record).await,
            }
        }
        drop(sender);
        gate.opens(&record).await;
    }
}
