//! A few chunks between a body and its feeder.
//!
//! Ours, because a channel of tokio's holds room for 32 chunks from its first one on: 1.5 KiB, and each idle user
//! session has such a channel in each process. Here an empty queue holds nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::body::Gone;

/// The end that feeds. Dropped, it ends the queue as cut.
#[derive(Debug)]
pub(super) struct Feeder(Arc<Queue>);

/// The end that takes. Dropped, feeding fails.
#[derive(Debug)]
pub(super) struct Taker(Arc<Queue>);

/// How a queue ended, once its chunks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The feeder said so.
    Finished,
    /// The feeder went away.
    Cut,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    capacity: usize,
    /// Rings when a chunk was taken, or nobody takes any more.
    room: Notify,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    end: Option<End>,
    is_taken: bool,
    taker: Option<Waker>,
}

/// A queue of at most `capacity` chunks.
pub(super) fn queue(capacity: usize) -> (Feeder, Taker) {
    let queue = Arc::new(Queue {
        state: Mutex::new(State {
            chunks: VecDeque::new(),
            end: None,
            is_taken: true,
            taker: None,
        }),
        capacity,
        room: Notify::new(),
    });
    (Feeder(Arc::clone(&queue)), Taker(queue))
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the chunk in if there is room; `Gone` when nobody would take it out.
    fn put(&self, chunk: &mut Option<Bytes>) -> Result<bool, Gone> {
        let mut state = self.state();
        if !state.is_taken {
            return Err(Gone);
        }
        if state.chunks.len() >= self.capacity {
            return Ok(false);
        }
        state.chunks.extend(chunk.take());
        let taker = state.taker.take();
        drop(state);
        if let Some(taker) = taker {
            taker.wake();
        }
        Ok(true)
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        let taker = state.taker.take();
        drop(state);
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}

impl Feeder {
    /// Hands over a chunk once there is room. Dropped while it waits, nothing is handed over.
    pub(super) async fn feed(&self, chunk: Bytes) -> Result<(), Gone> {
        let mut chunk = Some(chunk);
        while !self.0.put(&mut chunk)? {
            // A ring between the question and the wait must not be missed.
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            if self.0.put(&mut chunk)? {
                break;
            }
            room.await;
        }
        Ok(())
    }

    /// Ends the queue in order: what is in it is still taken.
    pub(super) fn finish(self) {
        self.0.end(End::Finished);
    }

    /// Waits until nobody takes any more. Safe in `select!`.
    pub(super) async fn gone(&self) {
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            if !self.0.state().is_taken {
                return;
            }
            room.await;
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.0.end(End::Cut);
    }
}

impl Taker {
    /// The next chunk, or how the queue ended.
    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        let mut state = self.0.state();
        let Some(chunk) = state.chunks.pop_front() else {
            if let Some(end) = state.end {
                return Poll::Ready(Err(end));
            }
            match &mut state.taker {
                Some(taker) => taker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        if state.chunks.is_empty() {
            state.chunks = VecDeque::new();
        }
        drop(state);
        self.0.room.notify_waiters();
        Poll::Ready(Ok(chunk))
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_taken = false;
        let chunks = std::mem::take(&mut state.chunks);
        state.taker = None;
        drop(state);
        drop(chunks);
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    async fn take(taker: &mut Taker) -> Result<Bytes, End> {
        poll_fn(|cx| taker.poll_take(cx)).await
    }

    #[tokio::test]
    async fn a_feeder_waits_for_room_and_a_wait_given_up_hands_over_nothing() {
        let (feeder, mut taker) = queue(1);
        feeder.feed(Bytes::from_static(b"1")).await.unwrap();
        assert!(
            timeout(SOON, feeder.feed(Bytes::from_static(b"2")))
                .await
                .is_err()
        );
        let feeding = tokio::spawn(async move {
            feeder.feed(Bytes::from_static(b"3")).await.unwrap();
            feeder.finish();
        });
        assert_eq!(take(&mut taker).await.unwrap(), "1");
        assert_eq!(take(&mut taker).await.unwrap(), "3");
        assert_eq!(take(&mut taker).await, Err(End::Finished));
        feeding.await.unwrap();
    }

    #[tokio::test]
    async fn a_feeder_that_goes_away_is_a_cut_behind_what_it_fed() {
        let (feeder, mut taker) = queue(2);
        feeder.feed(Bytes::from_static(b"1")).await.unwrap();
        drop(feeder);
        assert_eq!(take(&mut taker).await.unwrap(), "1");
        assert_eq!(take(&mut taker).await, Err(End::Cut));
    }

    #[tokio::test]
    async fn a_taker_that_goes_away_wakes_whoever_feeds_or_watches() {
        let (feeder, taker) = queue(1);
        feeder.feed(Bytes::from_static(b"1")).await.unwrap();
        assert!(timeout(SOON, feeder.gone()).await.is_err());
        let waiting = tokio::spawn(async move {
            let fed = feeder.feed(Bytes::from_static(b"2")).await;
            feeder.gone().await;
            fed
        });
        tokio::task::yield_now().await;
        drop(taker);
        assert_eq!(waiting.await.unwrap(), Err(Gone));
    }

    #[test]
    fn a_queue_that_waits_holds_no_room_for_chunks() {
        assert!(size_of::<Queue>() <= 160, "{}", size_of::<Queue>());
        let (feeder, mut taker) = queue(2);
        let mut waits = Context::from_waker(Waker::noop());
        assert!(feeder.0.put(&mut Some(Bytes::from_static(b"1"))).unwrap());
        assert!(taker.poll_take(&mut waits).is_ready());
        assert!(taker.poll_take(&mut waits).is_pending());
        assert_eq!(feeder.0.state().chunks.capacity(), 0);
    }
}
