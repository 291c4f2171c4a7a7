//! One transaction to many back-ends at once, as the body arrives.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use daemon::link::Link;
use directory_api::BackendName;
use tokio::task::JoinSet;

use super::{DeliverClient, DeliverCommit, DeliverError, DeliverOpen, DeliverReply};

/// How long a fan-out waits for its targets.
#[derive(Clone, Copy, Debug)]
pub struct FanoutLimits {
    /// A target that takes no octets for this long is dropped.
    pub stall_max: Duration,
    /// From the commit to the last result.
    pub deadline: Duration,
}

impl Default for FanoutLimits {
    /// 10 s without progress; 30 s for the commit (DESIGN §6).
    fn default() -> Self {
        Self {
            stall_max: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
        }
    }
}

/// Streams of one transaction. A target that fails or stalls is dropped and never awaited (P7);
/// its error is told at the commit.
#[derive(Debug)]
pub struct Fanout {
    targets: Vec<(BackendName, State)>,
    limits: FanoutLimits,
}

#[derive(Debug)]
enum State {
    Open(DeliverClient),
    Failed(DeliverError),
}

impl State {
    fn is_live(&self) -> bool {
        matches!(self, Self::Open(client) if !client.is_over())
    }
}

impl Fanout {
    /// Opens one stream to each back-end; each name once.
    pub async fn open(
        targets: impl IntoIterator<Item = (BackendName, Link, DeliverOpen)>,
        limits: FanoutLimits,
    ) -> Self {
        let mut open = Vec::new();
        for (name, link, first) in targets {
            open.push((name, State::Open(DeliverClient::open(&link, &first).await)));
        }
        Self {
            targets: open,
            limits,
        }
    }

    /// Sends octets to every target that still takes them, to all at once. The slowest live target
    /// sets the pace, for at most `stall_max`, however many stall together.
    pub async fn write(&mut self, octets: Bytes) {
        let stall_max = self.limits.stall_max;
        let writes = self.targets.iter_mut().filter_map(|(_, state)| {
            let open = matches!(state, State::Open(_));
            open.then(|| Box::pin(write_to(state, octets.clone(), stall_max)))
        });
        let mut waiting: Vec<_> = writes.collect();
        poll_fn(|context| {
            waiting.retain_mut(|write| write.as_mut().poll(context).is_pending());
            if waiting.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Those that still take octets.
    pub fn live(&self) -> impl Iterator<Item = &BackendName> {
        let live = self.targets.iter().filter(|(_, state)| state.is_live());
        live.map(|(name, _)| name)
    }

    /// Forgets the targets that take no more, and tells why each does not. One that has answered already, before its commit, has
    /// refused.
    pub async fn take_lost(&mut self) -> Vec<(BackendName, DeliverError)> {
        let mut lost = Vec::new();
        for (name, state) in self.targets.extract_if(.., |(_, state)| !state.is_live()) {
            let error = match state {
                State::Failed(error) => error,
                State::Open(mut client) => client.why().await,
            };
            lost.push((name, error));
        }
        lost
    }

    /// Takes the targets of another one in, which have got the same octets.
    pub fn join(&mut self, other: Self) {
        self.targets.extend(other.targets);
    }

    /// Commits on all targets in parallel and gives what each answered, in the order of `open`.
    pub async fn commit(
        self,
        commit: impl Fn(&BackendName) -> DeliverCommit,
    ) -> Vec<(BackendName, Result<DeliverReply, DeliverError>)> {
        let deadline = self.limits.deadline;
        let mut answers = Vec::with_capacity(self.targets.len());
        let mut waiting = JoinSet::new();
        for (position, (name, state)) in self.targets.into_iter().enumerate() {
            match state {
                State::Failed(error) => answers.push((position, name, Err(error))),
                State::Open(client) => {
                    let commit = commit(&name);
                    waiting.spawn(async move {
                        (position, name, client.commit(&commit, deadline).await)
                    });
                }
            }
        }
        while let Some(answer) = waiting.join_next().await {
            answers.push(answer.expect("a commit neither panics nor is cancelled while awaited"));
        }
        answers.sort_by_key(|(position, ..)| *position);
        answers
            .into_iter()
            .map(|(_, name, answer)| (name, answer))
            .collect()
    }
}

async fn write_to(state: &mut State, octets: Bytes, stall_max: Duration) {
    let State::Open(client) = state else { return };
    let failed = match tokio::time::timeout(stall_max, client.write(octets)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => DeliverError::Stalled(stall_max),
    };
    *state = State::Failed(failed);
}
