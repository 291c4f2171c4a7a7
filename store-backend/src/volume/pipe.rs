//! A queue between two threads, bounded by memory; a slow taker makes the giver wait.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Pipe<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    bytes_max: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
    woken: bool,
    /// How many items the taker waits for, so that it is not woken for each of them.
    wanted: usize,
}

impl<T> Pipe<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            closed: false,
            woken: false,
            wanted: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether less than half of the memory is in use.
    pub(super) fn is_roomy(&self) -> bool {
        self.lock().bytes < self.bytes_max / 2
    }

    /// Appends; waits for room. A closed pipe swallows.
    pub(super) fn push(&self, item: T, cost_bytes: usize) {
        let mut state = self.lock();
        while state.bytes > 0 && state.bytes + cost_bytes > self.bytes_max && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        state.bytes += cost_bytes;
        state.items.push_back((item, cost_bytes));
        if state.items.len() >= state.wanted || state.bytes >= self.bytes_max / 2 {
            self.changed.notify_all();
        }
    }

    /// Lets items gather until there are `count`, half of the memory is in use, or somebody wakes; not longer than
    /// the timeout.
    pub(super) fn linger(&self, count: usize, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        state.wanted = count;
        while state.items.len() < count
            && state.bytes < self.bytes_max / 2
            && !state.closed
            && !state.woken
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.wanted = 0;
    }

    /// All there is, up to some hundred; nothing after the timeout or a wake-up. `None`: closed and empty.
    pub(super) fn take(&self, timeout: Duration) -> Option<Vec<T>> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.closed && !state.woken {
            state = self
                .changed
                .wait_timeout(state, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.woken = false;
        if state.items.is_empty() && state.closed {
            return None;
        }
        let count = state.items.len().min(TAKE_MAX);
        let mut taken = Vec::with_capacity(count);
        for (item, cost) in state.items.drain(..count).collect::<Vec<_>>() {
            state.bytes -= cost;
            taken.push(item);
        }
        self.changed.notify_all();
        Some(taken)
    }

    /// Makes the next take return at once.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    /// Takes no more; what is there can be taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes no more and forgets what is there.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        let forgotten = std::mem::take(&mut state.items);
        drop(state);
        self.changed.notify_all();
        // Dropped without the lock: it may answer waiters.
        drop(forgotten);
    }
}

/// One LMDB transaction's worth: long enough to be efficient, short enough to be answered soon.
const TAKE_MAX: usize = 512;
