//! The final dot: every home commits at once, and only their answers make a `250` (P1).

use daemon::clock;
use directory_api::AccountId;
use mail_proto::smtp::Reply;
use store_api::deliver::{CommitRecipient, DeliverCommit, Prologue};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::data::{Delivery, Streams, open};
use super::envelope::Envelope;
use super::rcpt::key;
use super::record::Record;
use super::trace::{Connection, Facts, prologue};
use crate::body::Passed;
use crate::frontend::Shared;
use crate::recipients::{Recipient, by_backend};
use crate::settlement::{Kept, Settlement, Short, Verdict};
use crate::timeline::Stage;
use crate::{meter, reply};

/// Brings one delivery to its end: what the sender is told, and what is logged once it was told.
pub(super) async fn commit(
    shared: &Shared,
    delivery: Delivery,
    connection: Connection,
) -> (Reply, Record) {
    let final_dot = Instant::now();
    let (mut envelope, mut streams, last, passed) = delivery.finish();
    envelope.timeline.charge(Stage::Body, final_dot);
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
    let (said, short) = match settled {
        Ok(kept) => {
            let kept_by = envelope.recipients.list().iter();
            shared.rooms.forget(kept_by.map(|one| one.account));
            (reply::kept(kept, &envelope.trace_id), None)
        }
        Err(short) => (reply::short(short, &envelope.trace_id), Some(short)),
    };
    let record = Record::new(envelope, &passed, &connection, said.code, short);
    (said, record)
}

/// What every attempt to commit this message says.
struct Commit<'a> {
    shared: &'a Shared,
    envelope: &'a Envelope,
    passed: &'a Passed,
    connection: &'a Connection,
    received_ms: i64,
    date: String,
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
        }
    }

    async fn settle(&self, streams: Streams) -> Result<Kept, Short> {
        let all = self.envelope.recipients.list();
        let mut settlement = Settlement::new(all);
        self.ask(&mut settlement, streams, all).await?;
        let (again, why) = match settlement.verdict() {
            Verdict::Kept(kept) => return Ok(kept),
            Verdict::Short(short) => return Err(short),
            Verdict::Again(again, why) => (again, why),
        };
        // Once, and only while the body is still in memory: there is no spool.
        let Some(pieces) = &self.passed.kept else {
            return Err(why);
        };
        info!(
            trace_id = self.envelope.trace_id,
            why = why.code(),
            accounts = again.len(),
            "asking again"
        );
        meter::asked_again();
        let mut streams = self.open_again(&again).await?;
        for piece in pieces {
            streams.write(piece.clone()).await;
        }
        self.ask(&mut settlement, streams, &again).await?;
        match settlement.verdict() {
            Verdict::Kept(kept) => Ok(kept),
            Verdict::Short(short) | Verdict::Again(_, short) => Err(short),
        }
    }

    /// Commits to the homes of these recipients and notes what they answer.
    async fn ask(
        &self,
        settlement: &mut Settlement,
        streams: Streams,
        recipients: &[Recipient],
    ) -> Result<(), Short> {
        let groups = by_backend(recipients);
        let answers = streams.commit(|backend| {
            let here = groups.get(backend).map(Vec::as_slice).unwrap_or_default();
            self.frame(here)
        });
        for (backend, answer) in answers.await? {
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
        Ok(())
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
        Ok(Streams::open(self.shared, targets).await)
    }

    /// The last frame of the stream to one back-end.
    fn frame(&self, here: &[&Recipient]) -> DeliverCommit {
        let facts = Facts {
            connection: self.connection,
            reverse_path: &self.envelope.mail.reverse_path,
            hostname: &self.shared.hostname,
            trace_id: &self.envelope.trace_id,
            date: &self.date,
        };
        DeliverCommit {
            blob_hash: self.passed.hash,
            content_key: self.passed.content_key,
            octets: self.passed.octets,
            received_ms: self.received_ms,
            recipients: here
                .iter()
                .map(|one| CommitRecipient {
                    account: one.account,
                    epoch: one.epoch,
                    prologue: Prologue(prologue(&facts, &one.address)),
                    detail: one.detail.clone(),
                })
                .collect(),
        }
    }
}
