//! Bodies that a command under way will name. The blob may be one that is there already, so that whoever expunges its last
//! message meanwhile would have it dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::types::Hash;

/// How many hold each.
#[derive(Debug, Default)]
pub(super) struct HeldBodies(Mutex<HashMap<Hash, u32>>);

impl HeldBodies {
    pub(super) fn hold(self: &Arc<Self>, hash: Hash) -> Held {
        *self.counts().entry(hash).or_default() += 1;
        Held {
            bodies: Arc::clone(self),
            hash,
        }
    }

    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.counts().contains_key(hash)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Hash, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that stays for as long as this does, or, without it, for an hour if it is new.
#[derive(Debug)]
#[must_use]
pub struct Held {
    bodies: Arc<HeldBodies>,
    hash: Hash,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.bodies.counts();
        if let Some(count) = counts.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.hash);
            }
        }
    }
}
