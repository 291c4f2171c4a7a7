//! Tells back-ends whose senders have read the answer, so that the same message again is a new one (P2).
//!
//! Who loses the answer sends the message again, to any front-end, and a front-end keeps nothing. So back-ends take it for a repeat until
//! they hear from here. Word may be lost, when this process ends or a back-end does not answer: nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::{AccountId, BackendName};
use http::Method;
use store_api::answered::{Answered, AnsweredMessage, AnsweredRecipient, PATH, RECIPIENTS_MAX};
use store_api::{Backends, ContentKey};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::meter;
use crate::session::Envelope;
use crate::settlement::Kept;

/// A message from its commit on, until back-ends were told that the answer was read, or nobody will ever know. The same octets for one of its
/// accounts wait that long: what a client sends twice, one behind the other, is two messages.
#[derive(Debug)]
pub(crate) struct Pending {
    content_key: ContentKey,
    accounts: Vec<AccountId>,
    all: Arc<AllPending>,
}

#[derive(Debug, Default)]
struct AllPending {
    messages: Mutex<HashMap<(ContentKey, AccountId), usize>>,
    fewer: Notify,
}

impl AllPending {
    fn lock(&self) -> MutexGuard<'_, HashMap<(ContentKey, AccountId), usize>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut messages = self.all.lock();
        for account in &self.accounts {
            let of = (self.content_key, *account);
            if let Some(count) = messages.get_mut(&of) {
                *count -= 1;
                if *count == 0 {
                    messages.remove(&of);
                }
            }
        }
        drop(messages);
        self.all.fewer.notify_waiters();
    }
}

/// A message that was kept, and whose sender is not known to have read so.
#[derive(Debug)]
pub(crate) struct Unread {
    by: Vec<(BackendName, AnsweredMessage)>,
    pending: Pending,
}

impl Unread {
    pub(crate) fn new(envelope: &Envelope, kept: &Kept, pending: Pending) -> Self {
        let mut by_backend: BTreeMap<&BackendName, Vec<AnsweredRecipient>> = BTreeMap::new();
        for one in kept.by() {
            let of_this = by_backend.entry(&one.backend).or_default();
            of_this.push(AnsweredRecipient {
                account: one.account,
                detail: one.detail.clone(),
            });
        }
        let mut by = Vec::with_capacity(by_backend.len());
        let reverse_path = envelope.mail.reverse_path.address();
        let reverse_path = reverse_path.map(ToString::to_string).unwrap_or_default();
        for (backend, recipients) in by_backend {
            for some in recipients.chunks(RECIPIENTS_MAX) {
                let message = AnsweredMessage {
                    reverse_path: reverse_path.clone(),
                    content_key: pending.content_key,
                    recipients: some.to_vec(),
                };
                by.push((backend.clone(), message));
            }
        }
        Self { by, pending }
    }
}

/// Where sessions put what their clients have read.
#[derive(Debug)]
pub(crate) struct Answers {
    queue: mpsc::Sender<Unread>,
    pending: Arc<AllPending>,
}

/// What is waiting to be told.
pub(crate) struct Waiting(mpsc::Receiver<Unread>);

/// Both ends of one queue.
pub(crate) fn queue() -> (Answers, Waiting) {
    let (queue, receiver) = mpsc::channel(WAITING_MAX);
    let pending = Arc::default();
    (Answers { queue, pending }, Waiting(receiver))
}

impl Answers {
    /// To be called before a message is committed. Waits as a rule for nothing, and for the same message at most [`SAME_WITHIN`]: then it is
    /// left to the back-ends.
    pub(crate) async fn begin(&self, content_key: ContentKey, accounts: Vec<AccountId>) -> Pending {
        let is_one_pending = || {
            let messages = self.pending.lock();
            let mut of = accounts.iter().map(|account| (content_key, *account));
            !messages.is_empty() && of.any(|of| messages.contains_key(&of))
        };
        let others = async {
            loop {
                let fewer = self.pending.fewer.notified();
                if !is_one_pending() {
                    return;
                }
                fewer.await;
            }
        };
        _ = timeout(SAME_WITHIN, others).await;
        let mut messages = self.pending.lock();
        for account in &accounts {
            *messages.entry((content_key, *account)).or_default() += 1;
        }
        drop(messages);
        Pending {
            content_key,
            accounts,
            all: Arc::clone(&self.pending),
        }
    }

    /// The sender has read that it was kept. Never waits.
    pub(crate) fn was_read(&self, message: Unread) {
        if self.queue.try_send(message).is_err() {
            meter::answers_untold();
        }
    }
}

impl Waiting {
    /// Tells all of it, until no session is left. What comes while back-ends are told goes together.
    pub(crate) async fn tell(mut self, backends: Backends) {
        let mut some = Vec::new();
        while self.0.recv_many(&mut some, TOGETHER_MAX).await > 0 {
            let mut told: Vec<Pending> = Vec::with_capacity(some.len());
            let by = some.drain(..).flat_map(|unread| {
                told.push(unread.pending);
                unread.by
            });
            let mut telling = JoinSet::new();
            for (backend, answered) in requests(by) {
                let backends = backends.clone();
                telling.spawn(async move { tell(&backends, &backend, &answered).await });
            }
            telling.join_all().await;
            drop(told);
        }
    }
}

/// What goes to each back-end, in requests that it takes.
fn requests(
    some: impl Iterator<Item = (BackendName, AnsweredMessage)>,
) -> Vec<(BackendName, Answered)> {
    let mut done = Vec::new();
    let mut open: BTreeMap<BackendName, Answered> = BTreeMap::new();
    for (backend, message) in some {
        let answered = open.entry(backend.clone()).or_default();
        let named = answered.messages.iter().map(|one| one.recipients.len());
        if named.sum::<usize>() + message.recipients.len() > RECIPIENTS_MAX {
            done.push((backend, std::mem::take(answered)));
        }
        answered.messages.push(message);
    }
    done.extend(open);
    done
}

async fn tell(backends: &Backends, backend: &BackendName, answered: &Answered) {
    let told = match backends.link(backend).await {
        Ok(link) => {
            let told = link
                .json::<_, ()>(Method::POST, PATH, answered, TELL_WITHIN)
                .await;
            told.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = told {
        meter::answers_untold();
        debug!(%backend, error, "back-end was not told which answers were read");
    }
}

/// Messages whose word waits: some hundred octets each.
const WAITING_MAX: usize = 10_000;
/// Messages told at once.
const TOGETHER_MAX: usize = 256;
/// How long a message waits for word of the same: a client that has read an answer says something soon, or closes.
const SAME_WITHIN: Duration = Duration::from_secs(2);
/// A back-end writes it with the mail that comes.
const TELL_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(recipients: u64) -> AnsweredMessage {
        AnsweredMessage {
            reverse_path: "a@x.test".into(),
            content_key: ContentKey([1; 32]),
            recipients: (0..recipients)
                .map(|number| AnsweredRecipient {
                    account: AccountId(number),
                    detail: None,
                })
                .collect(),
        }
    }

    #[tokio::test]
    async fn only_the_same_octets_for_the_same_account_wait() {
        let (answers, mut waiting) = queue();
        let (same, other) = (ContentKey([1; 32]), ContentKey([2; 32]));
        let [ann, bob, cid] = [1, 2, 3].map(AccountId);
        let pending = answers.begin(same, vec![ann, bob]).await;
        drop(answers.begin(other, vec![ann, bob]).await);
        drop(answers.begin(same, vec![cid]).await);
        let again = answers.begin(same, vec![cid, bob]);
        tokio::pin!(again);
        let soon = Duration::from_millis(10);
        assert!(timeout(soon, &mut again).await.is_err());
        answers.was_read(Unread {
            by: Vec::new(),
            pending,
        });
        assert!(timeout(soon, &mut again).await.is_err(), "it is not told");
        drop(waiting.0.recv().await);
        drop(again.await);
        assert!(answers.pending.lock().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (answers, _waiting) = queue();
        let key = ContentKey([1; 32]);
        let first = answers.begin(key, vec![AccountId(1)]).await;
        let second = answers.begin(key, vec![AccountId(1)]).await;
        drop(first);
        assert!(!answers.pending.lock().is_empty());
        drop(second);
        assert!(answers.pending.lock().is_empty());
    }

    #[test]
    fn what_is_told_together_is_never_more_than_a_back_end_takes() {
        let [one, two]: [BackendName; 2] = ["b1", "b2"].map(|name| name.parse().unwrap());
        let some = (0..250).flat_map(|_| [(one.clone(), message(1)), (two.clone(), message(1))]);
        let some = some.chain([(one.clone(), message(RECIPIENTS_MAX as u64))]);
        let mut told: BTreeMap<BackendName, usize> = BTreeMap::new();
        for (backend, answered) in requests(some) {
            let named = answered.messages.iter().map(|one| one.recipients.len());
            let named = named.sum::<usize>();
            assert!((1..=RECIPIENTS_MAX).contains(&named), "{named}");
            *told.entry(backend).or_default() += named;
        }
        assert_eq!(told[&one], 250 + RECIPIENTS_MAX);
        assert_eq!(told[&two], 250);
    }
}
