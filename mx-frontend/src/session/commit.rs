//! The final dot: every home commits at once, and only their answers make a `250` (P1).

use daemon::clock;
use directory_api::{AccountId, BackendName};
use mail_proto::smtp::Reply;
use store_api::deliver::{CommitRecipient, DeliverCommit, DeliverError, Prologue, Repeats};
use store_api::hold::Hold;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::data::{Delivery, Streams, open};
use super::envelope::Envelope;
use super::rcpt::key;
use super::record::Record;
use super::trace::{Connection, Facts, prologue};
use crate::answered::Unread;
use crate::body::Passed;
use crate::frontend::Shared;
use crate::recipients::{Recipient, by_backend};
use crate::settlement::{Kept, Missing, Settlement, Short, Verdict};
use crate::timeline::Stage;
use crate::{meter, reply};

/// Attempts behind the first one: where it has moved to, or a sibling, and another one when that fails too.
const ATTEMPTS_MORE: usize = 2;

/// Brings one delivery to its end: what the sender is told, what is logged once it was told, and what it may be shown to have read.
pub(super) async fn commit(
    shared: &Shared,
    delivery: Delivery,
    connection: Connection,
) -> (Reply, Record, Option<Unread>) {
    let final_dot = Instant::now();
    let (mut envelope, mut streams, last, passed) = delivery.finish();
    envelope.timeline.charge(Stage::Body, final_dot);
    let accounts = envelope.recipients.list().iter().map(|one| one.account);
    let pending = shared.answers.begin(passed.content_key, accounts.collect());
    let pending = pending.await;
    let settling = async {
        if let Some(last) = last {
            streams.write(last).await;
        }
        let commit = Commit::new(shared, &envelope, &passed, &connection);
        commit.settle(streams).await
    };
    let deadline = final_dot + shared.limits.commit_timeout();
    let settled = timeout_at(deadline, settling)
        .await
        .unwrap_or(Err(Short::Deadline));
    let decided = Instant::now();
    envelope.timeline.charge(Stage::Commit, decided);
    meter::committed(decided - final_dot);
    let (said, short, unread) = match settled {
        Ok(kept) => {
            let unread = Unread::new(&envelope, &kept, pending);
            let kept_by = envelope.recipients.list().iter();
            shared.rooms.forget(kept_by.map(|one| one.account));
            (reply::kept(kept, &envelope.trace_id), None, Some(unread))
        }
        Err(short) => (reply::short(short, &envelope.trace_id), Some(short), None),
    };
    let record = Record::new(envelope, &passed, &connection, said.code, short);
    (said, record, unread)
}

/// What every attempt to commit this message says.
struct Commit<'a> {
    shared: &'a Shared,
    envelope: &'a Envelope,
    passed: &'a Passed,
    connection: &'a Connection,
    received_ms: i64,
    date: String,
    results: Option<String>,
}

impl<'a> Commit<'a> {
    fn new(
        shared: &'a Shared,
        envelope: &'a Envelope,
        passed: &'a Passed,
        connection: &'a Connection,
    ) -> Self {
        let received_ms = clock::now_ms();
        Self {
            shared,
            envelope,
            passed,
            connection,
            received_ms,
            date: clock::rfc5322_date(received_ms),
            results: envelope
                .looked
                .as_ref()
                .and_then(|looked| shared.checks.results(connection.client.ip(), looked)),
        }
    }

    async fn settle(&self, mut streams: Streams) -> Result<Kept, Short> {
        let mut recipients = self.envelope.recipients.list().to_vec();
        let mut failed = Vec::new();
        let lost = streams.take_lost().await;
        if !lost.is_empty() {
            // Before anybody is asked: whoever had committed what the sender then sends again would have it twice.
            self.pass_on(&mut streams, &mut recipients, lost, &mut failed)
                .await?;
        }
        let mut settlement = Settlement::new(&recipients);
        self.ask(&mut settlement, streams, &recipients, &mut failed)
            .await;
        for _ in 0..ATTEMPTS_MORE {
            let missing = match settlement.verdict() {
                Verdict::Kept(kept) => return Ok(kept),
                Verdict::Missing(missing) => missing,
            };
            if let Some(refused) = missing.iter().find(|one| !one.short.may_be_held()) {
                return Err(refused.short);
            }
            let why = missing[0].short;
            // Only while the body is still in memory: there is no spool.
            let Some(pieces) = &self.passed.kept else {
                return Err(why);
            };
            let again = self.elsewhere(missing, &failed).await?;
            info!(
                trace_id = self.envelope.trace_id,
                why = why.code(),
                accounts = again.len(),
                held = again.iter().filter(|one| one.hold).count(),
                "asking again"
            );
            meter::asked_again();
            for one in &again {
                settlement.goes_to(one);
            }
            let mut streams = self.open_again(&again).await?;
            for piece in pieces {
                streams.write(piece.clone()).await;
            }
            self.ask(&mut settlement, streams, &again, &mut failed)
                .await;
        }
        match settlement.verdict() {
            Verdict::Kept(kept) => Ok(kept),
            Verdict::Missing(missing) => {
                let refused = missing.iter().find(|one| !one.short.may_be_held());
                Err(refused.unwrap_or(&missing[0]).short)
            }
        }
    }

    /// The recipients of back-ends that were lost on the way go to a sibling that has the body, or is given it while it is still in
    /// memory.
    async fn pass_on(
        &self,
        streams: &mut Streams,
        recipients: &mut [Recipient],
        lost: Vec<(BackendName, DeliverError)>,
        failed: &mut Vec<BackendName>,
    ) -> Result<(), Short> {
        for (backend, error) in &lost {
            info!(trace_id = self.envelope.trace_id, %backend, %error, "back-end takes no more of the message");
            let is_home = |one: &Recipient| one.backend == *backend && !one.hold;
            if let (Some(short), true) = (Short::not_held(error), recipients.iter().any(is_home)) {
                return Err(short);
            }
        }
        let lost: Vec<BackendName> = lost.into_iter().map(|(name, _)| name).collect();
        failed.extend(lost.iter().cloned());
        let mut holder = None;
        for name in streams.live() {
            if let Some(link) = self.envelope.link(&name)
                && self.shared.away.holds(link, &name).await
            {
                holder = Some(name);
                break;
            }
        }
        let has_body = holder.is_some();
        let holder = match holder {
            Some(holder) => holder,
            None if self.passed.kept.is_some() => self.holder(failed).await.ok_or(Short::Away)?,
            None => return Err(Short::Away),
        };
        let moved = recipients
            .iter_mut()
            .filter(|one| lost.contains(&one.backend));
        let mut held = Vec::new();
        for one in moved {
            one.backend = holder.clone();
            one.hold = true;
            held.push(one.clone());
        }
        info!(trace_id = self.envelope.trace_id, ?lost, %holder, accounts = held.len(), "homes were lost, a sibling holds their mail");
        if let (false, Some(pieces)) = (has_body, &self.passed.kept) {
            let mut more = self.open_again(&held).await?;
            for piece in pieces {
                more.write(piece.clone()).await;
            }
            streams.join(more);
        }
        Ok(())
    }

    async fn holder(&self, failed: &[BackendName]) -> Option<BackendName> {
        let Shared {
            holders,
            backends,
            away,
            ..
        } = self.shared;
        let connected = self.envelope.links.iter().map(|(name, _)| name.clone());
        let found = holders.find(backends, away, connected, failed).await;
        found.map(|(name, _)| name)
    }

    /// Where to ask for those that are missing: where an account lives now, a sibling that holds its mail, or once more where
    /// no answer came. One recipient that cannot be helped refuses the message whole: asking again for the others would only make
    /// more of it doubled when the sender tries again.
    async fn elsewhere(
        &self,
        missing: Vec<Missing>,
        failed: &[BackendName],
    ) -> Result<Vec<Recipient>, Short> {
        let mut holder = None;
        let mut again = Vec::with_capacity(missing.len());
        for one in missing {
            let Missing {
                mut recipient,
                short,
                again: may_ask,
            } = one;
            if short != Short::Moved || !may_ask {
                if holder.is_none() {
                    holder = Some(self.holder(failed).await);
                }
                match holder.clone().flatten() {
                    Some(holder) => {
                        recipient.backend = holder;
                        recipient.hold = true;
                    }
                    None if may_ask => {}
                    None => return Err(short),
                }
            }
            again.push(recipient);
        }
        Ok(again)
    }

    /// Commits to these recipients' back-ends and notes what they answer, and which of them failed.
    async fn ask(
        &self,
        settlement: &mut Settlement,
        streams: Streams,
        recipients: &[Recipient],
        failed: &mut Vec<BackendName>,
    ) {
        let groups = by_backend(recipients);
        let answers = streams.commit(|backend| {
            let here = groups.get(backend).map(Vec::as_slice).unwrap_or_default();
            self.frame(here)
        });
        for (backend, answer) in answers.await {
            let asked: Vec<AccountId> = groups
                .get(&backend)
                .into_iter()
                .flatten()
                .map(|one| one.account)
                .collect();
            if let Err(error) = &answer {
                info!(trace_id = self.envelope.trace_id, %backend, %error, "back-end gave no result");
            }
            settlement.answered(&asked, &answer);
            let all_kept = answer
                .as_ref()
                .is_ok_and(|reply| reply.results.iter().all(|one| one.outcome.is_kept()));
            if !all_kept {
                failed.push(backend);
            }
        }
        for recipient in recipients {
            // What was looked up is known to be wrong: the sender's next attempt asks anew, even
            // where the directory's changes have not come through yet.
            if settlement.is_elsewhere(recipient.account)
                && let Ok(key) = key(&recipient.address)
            {
                self.shared.directory.forget(&key).await;
            }
        }
    }

    async fn open_again(&self, recipients: &[Recipient]) -> Result<Streams, Short> {
        let mut targets = Vec::new();
        for (backend, here) in by_backend(recipients) {
            let link = self
                .shared
                .backends
                .link(&backend)
                .await
                .map_err(|_| Short::Away)?;
            targets.push((backend, link, open(self.envelope, &here)));
        }
        // Behind the half of the time that the first attempt had.
        let deadline = self.shared.limits.commit_timeout() / 4;
        Ok(Streams::open(self.shared, targets, deadline).await)
    }

    /// The last frame of the stream to one back-end.
    fn frame(&self, here: &[&Recipient]) -> DeliverCommit {
        let facts = Facts {
            connection: self.connection,
            reverse_path: &self.envelope.mail.reverse_path,
            hostname: &self.shared.hostname,
            trace_id: &self.envelope.trace_id,
            results: self.results.as_deref(),
            date: &self.date,
        };
        DeliverCommit {
            blob_hash: self.passed.hash,
            content_key: self.passed.content_key,
            repeats: Repeats::Suppress,
            octets: self.passed.octets,
            received_ms: self.received_ms,
            recipients: here
                .iter()
                .map(|one| CommitRecipient {
                    account: one.account,
                    epoch: one.epoch,
                    prologue: Prologue(prologue(&facts, &one.address)),
                    detail: one.detail.clone(),
                    hold: Some(Hold {
                        address: one.address.to_string(),
                        only: one.hold,
                    }),
                })
                .collect(),
        }
    }
}
