//! One message on its way to the volumes that its recipients live on, as a rule one.
//!
//! Each volume gets a body, an inode and a journal record of its own (P1, P2 hold per volume). One that fails leaves the
//! others: its recipients are told to try again.

use std::sync::Arc;
use std::time::Duration;

use directory_api::AccountId;
use store_api::deliver::{Outcome, Repeats};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::error;

use crate::outcome::to_wire;
use crate::volume::{
    BlobWriter, Delivery, FinishedBlob, Hash, Recipient, TransactionId, WriteError, held_for,
};
use crate::volumes::{Mounted, Volumes};

/// A message that is arriving.
pub(crate) struct Spread {
    parts: Vec<Part<BlobWriter>>,
}

/// A message that has come whole.
pub(crate) struct Whole {
    parts: Vec<Part<FinishedBlob>>,
}

struct Part<B> {
    /// None: the recipients' volume is not open.
    to: Option<Arc<Mounted>>,
    accounts: Vec<AccountId>,
    /// Or what its recipients are answered.
    body: Result<B, Outcome>,
}

/// What is the same for all recipients.
pub(crate) struct Envelope {
    pub(crate) txn: TransactionId,
    pub(crate) sender: Vec<u8>,
    pub(crate) content_key: Hash,
    pub(crate) repeats: Repeats,
    pub(crate) trace: String,
    pub(crate) received_ms: i64,
}

impl Spread {
    /// Begins a body on each volume that takes writes.
    pub(crate) async fn begin(
        volumes: &Volumes,
        accounts: impl IntoIterator<Item = AccountId>,
    ) -> Self {
        let mut parts: Vec<Part<BlobWriter>> = Vec::new();
        let mut is_silent = false;
        for account in accounts {
            let to = volumes.of_one_of_many(account, &mut is_silent).await.ok();
            let name = to.as_ref().map(|to| &to.name);
            let part = parts
                .iter_mut()
                .find(|part| part.to.as_ref().map(|to| &to.name) == name);
            match part {
                Some(part) => part.accounts.push(account),
                None => parts.push(Part {
                    body: match to.as_ref().filter(|to| to.may_write()) {
                        Some(to) => Ok(to.volume.begin_blob()),
                        None => Err(Outcome::Unavailable),
                    },
                    accounts: vec![account],
                    to,
                }),
            }
        }
        Self { parts }
    }

    /// Writes to all that have not failed.
    pub(crate) async fn write(&mut self, octets: &[u8], trace_id: &str) {
        for part in &mut self.parts {
            if let Ok(writer) = &mut part.body
                && let Err(error) = writer.write(octets).await
            {
                part.body = Err(unwritten(&error, trace_id));
            }
        }
    }

    /// What everybody is answered, when nobody can be given the message any more.
    pub(crate) fn failed(&self) -> Option<&Outcome> {
        failed(&self.parts)
    }

    /// The message has come whole.
    pub(crate) async fn finish(self, trace_id: &str) -> Whole {
        let mut parts = Vec::with_capacity(self.parts.len());
        for Part { to, accounts, body } in self.parts {
            let body = match body {
                Ok(writer) => writer
                    .finish()
                    .await
                    .map_err(|error| unwritten(&error, trace_id)),
                Err(outcome) => Err(outcome),
            };
            parts.push(Part { to, accounts, body });
        }
        Whole { parts }
    }
}

impl Whole {
    /// See [`Spread::failed`].
    pub(crate) fn failed(&self) -> Option<&Outcome> {
        failed(&self.parts)
    }

    /// Size and hash of what came; none where it was written nowhere.
    pub(crate) fn identity(&self) -> Option<(u64, Hash)> {
        let mut written = self.parts.iter().filter_map(|part| part.body.as_ref().ok());
        written.next().map(|blob| (blob.size(), blob.hash()))
    }

    /// Commits on all volumes at once; one outcome for each recipient that was named at the beginning, in no order. A volume
    /// that does not answer `within` the time leaves its recipients to the sender's next try, which finds the message if it
    /// was taken after all (P2).
    pub(crate) async fn deliver(
        mut self,
        envelope: Envelope,
        mut recipients: Vec<Recipient>,
        within: Duration,
    ) -> Vec<(AccountId, Outcome)> {
        let envelope = Arc::new(envelope);
        self.place_holders(&recipients);
        let parts = self.parts.into_iter().map(|part| {
            let mine = |recipient: &mut Recipient| part.accounts.contains(&recipient.account);
            let mine: Vec<Recipient> = recipients.extract_if(.., mine).collect();
            part.deliver(Arc::clone(&envelope), mine, within)
        });
        let mut parts: Vec<_> = parts.collect();
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return only.await;
        }
        let mut delivering: JoinSet<_> = parts.into_iter().collect();
        let mut outcomes = Vec::new();
        while let Some(done) = delivering.join_next().await {
            // What a process that is stopping does not say is taken for no.
            outcomes.extend(done.into_iter().flatten());
        }
        outcomes
    }
}

impl Whole {
    /// A holder that was not announced is on the volume of the account it holds for, as long as that has the body, else on any that has.
    fn place_holders(&mut self, recipients: &[Recipient]) {
        for Recipient { account, .. } in recipients {
            let Some(user) = held_for(*account) else {
                continue;
            };
            let parts = &mut self.parts;
            if parts.iter().any(|part| part.accounts.contains(account)) {
                continue;
            }
            let body = |part: &Part<FinishedBlob>| {
                part.body.is_ok() && part.to.as_ref().is_some_and(|to| to.takes_held())
            };
            let at = parts
                .iter()
                .position(|part| body(part) && part.accounts.contains(&user))
                .or_else(|| parts.iter().position(body));
            if let Some(at) = at {
                parts[at].accounts.push(*account);
            }
        }
    }
}

impl Part<FinishedBlob> {
    async fn deliver(
        self,
        envelope: Arc<Envelope>,
        recipients: Vec<Recipient>,
        within: Duration,
    ) -> Vec<(AccountId, Outcome)> {
        let accounts: Vec<AccountId> = recipients.iter().map(|one| one.account).collect();
        let all = |outcome: Outcome| {
            let accounts = accounts.iter();
            accounts
                .map(|account| (*account, outcome.clone()))
                .collect()
        };
        // A volume may have been found to be an old copy while the message came.
        let to = self.to.filter(|to| to.may_write());
        let (to, blob) = match (to, self.body) {
            (Some(to), Ok(blob)) => (to, blob),
            (_, Err(outcome)) => return all(outcome),
            (None, _) => return all(Outcome::Unavailable),
        };
        if accounts.is_empty() {
            return Vec::new();
        }
        let delivery = Delivery {
            txn: envelope.txn,
            sender: envelope.sender.clone(),
            content_key: envelope.content_key,
            repeats: envelope.repeats,
            blob,
            trace: envelope.trace.clone(),
            received_ms: envelope.received_ms,
            recipients,
        };
        let Ok(outcomes) = timeout(within, to.volume.deliver(delivery)).await else {
            error!(trace_id = envelope.trace, volume = %to.name, "volume gave no answer in time");
            return all(Outcome::Unavailable);
        };
        let outcomes = outcomes.into_iter().map(to_wire);
        accounts.iter().copied().zip(outcomes).collect()
    }
}

fn failed<B>(parts: &[Part<B>]) -> Option<&Outcome> {
    let mut outcomes = parts.iter().map(|part| part.body.as_ref().err());
    let first = outcomes.next().flatten()?;
    outcomes.all(|outcome| outcome.is_some()).then_some(first)
}

/// What recipients are answered whose message could not be written.
fn unwritten(error: &WriteError, trace_id: &str) -> Outcome {
    if !error.is_known() {
        error!(%error, trace_id, "message cannot be written");
    }
    match error.is_no_room() {
        true => Outcome::Full,
        false => Outcome::Unavailable,
    }
}
