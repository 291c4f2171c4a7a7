//! One message and its recipients, from MAIL to the replies after the final dot.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::clock::{now_ms, rfc5322_date};
use daemon::random::token128;
use directory_api::wire::Located;
use directory_api::{AccountId, BackendName};
use mail_proto::Address;
use mail_proto::smtp::{Mail, Reply, ReversePath};
use mail_proto::trace::{Prologue, Received};
use store_api::deliver::{
    CommitRecipient, DeliverCommit, DeliverOpen, DeliverRecipient, DeliverResult, Fanout,
    FanoutLimits, Outcome, Prologue as WirePrologue, Repeats,
};
use store_api::{BlobHash, ContentKey, TxnId};
use tracing::warn;

use crate::backend::Backend;
use crate::delivered::Delivered;
use crate::outcome::to_reply;
use crate::spread::{Envelope, Spread};
use crate::volume::{MailboxId, RECIPIENTS_MAX, Recipient};

/// One recipient as the directory resolved it.
pub(super) struct Found {
    /// As RCPT gave it.
    pub(super) address: Address,
    /// Never empty; several for an alias.
    pub(super) homes: Vec<Located>,
}

/// What the prologue says about the connection.
pub(super) struct Facts<'a> {
    pub(super) client_name: &'a str,
    pub(super) client_address: IpAddr,
    pub(super) protocol: &'static str,
}

/// One transaction.
pub(super) struct Transaction {
    txn: TxnId,
    trace_id: String,
    reverse_path: ReversePath,
    declared_octets: Option<u64>,
    began: Instant,
    recipients: Vec<Found>,
    state: State,
}

enum State {
    /// Before DATA.
    Envelope,
    /// Boxed for the hashers' kilobytes: a connection between two messages is small.
    Body(Box<Body>),
    Answered(Answered),
}

/// A message on its way to all of its homes.
struct Body {
    /// For accounts that live here. None when there are none.
    local: Option<Spread>,
    /// For accounts that live on siblings, and the hash of what they are sent.
    remote: Option<(Fanout, blake3::Hasher)>,
}

/// What remains to be told when the reply is written.
struct Answered {
    octets: u64,
    receive: Duration,
    commit: Duration,
    at: Instant,
    results: Vec<DeliverResult>,
}

/// Every account of the transaction once, with the recipient by which it was named first.
struct Destination<'a> {
    located: &'a Located,
    address: &'a Address,
}

impl Transaction {
    pub(super) fn begin(mail: Mail) -> Self {
        let txn = TxnId(token128());
        Self {
            txn,
            // Half of the transaction's number tells it apart in the logs of a year.
            trace_id: txn.to_string()[..16].to_owned(),
            reverse_path: mail.reverse_path,
            declared_octets: mail.size,
            began: Instant::now(),
            recipients: Vec::new(),
            state: State::Envelope,
        }
    }

    /// Whether the message can still go to all of these accounts too.
    pub(super) fn has_room(&self, found: &Found) -> bool {
        let accounts: usize = self.recipients.iter().map(|found| found.homes.len()).sum();
        accounts + found.homes.len() <= RECIPIENTS_MAX
    }

    /// What MAIL said of the size.
    pub(super) fn declared_octets(&self) -> Option<u64> {
        self.declared_octets
    }

    pub(super) fn add(&mut self, found: Found) {
        self.recipients.push(found);
    }

    pub(super) fn in_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered(_))
    }

    /// Opens the message at every home. A sibling that cannot be reached shows at the commit.
    pub(super) async fn open(&mut self, backend: &Backend) {
        let mut opens: HashMap<&BackendName, Vec<DeliverRecipient>> = HashMap::new();
        for Destination { located, .. } in self.destinations() {
            opens
                .entry(&located.home.backend)
                .or_default()
                .push(DeliverRecipient {
                    account: located.account,
                    epoch: located.home.epoch,
                    hold: false,
                });
        }
        let local = match opens.remove(&backend.name) {
            Some(here) => {
                let accounts = here.into_iter().map(|recipient| recipient.account);
                Some(Spread::begin(&backend.volumes, accounts).await)
            }
            None => None,
        };
        let mut targets = Vec::with_capacity(opens.len());
        for (name, recipients) in opens {
            match backend.backends.link(name).await {
                Ok(link) => {
                    let open = DeliverOpen {
                        txn: self.txn,
                        trace_id: self.trace_id.clone(),
                        reverse_path: self.sender(),
                        declared_octets: self.declared_octets,
                        recipients,
                    };
                    targets.push((name.clone(), link, open));
                }
                Err(error) => {
                    warn!(backend = %name, %error, trace_id = self.trace_id, "home cannot be found")
                }
            }
        }
        let limits = FanoutLimits {
            deadline: Duration::from_secs(backend.config.limits.commit_s),
            ..FanoutLimits::default()
        };
        let remote = if targets.is_empty() {
            None
        } else {
            Some((Fanout::open(targets, limits).await, blake3::Hasher::new()))
        };
        self.state = State::Body(Box::new(Body { local, remote }));
    }

    /// Hands on a piece of the message.
    pub(super) async fn write(&mut self, octets: &[u8]) {
        let State::Body(body) = &mut self.state else {
            return;
        };
        if let Some(local) = &mut body.local {
            // When it fails, the other homes may still take it; the recipients here are told to try again.
            local.write(octets, &self.trace_id).await;
        }
        if let Some((fanout, hasher)) = &mut body.remote {
            hasher.update(octets);
            fanout.write(Bytes::copy_from_slice(octets)).await;
        }
    }

    /// Commits at every home at once and answers one reply for each recipient, in their order.
    pub(super) async fn commit(
        &mut self,
        backend: &Backend,
        octets: u64,
        facts: &Facts<'_>,
    ) -> Vec<Reply> {
        let State::Body(body) = std::mem::replace(&mut self.state, State::Envelope) else {
            return Vec::new();
        };
        let receive = self.began.elapsed();
        let committing = Instant::now();
        let received_ms = now_ms();
        let date = rfc5322_date(received_ms);
        let destinations = self.destinations();
        let message = Message {
            transaction: self,
            backend,
            facts,
            octets,
            received_ms,
            date: &date,
        };
        let (local, remote) = tokio::join!(
            Box::pin(message.commit_here(body.local, &destinations)),
            Box::pin(message.commit_elsewhere(body.remote, &destinations)),
        );
        let outcomes: HashMap<AccountId, Outcome> = local.into_iter().chain(remote).collect();
        let replies = self
            .recipients
            .iter()
            .map(|found| reply(found, &outcomes))
            .collect();
        let results = destinations
            .iter()
            .map(|destination| {
                let account = destination.located.account;
                let outcome = outcomes
                    .get(&account)
                    .cloned()
                    .unwrap_or(Outcome::Unavailable);
                DeliverResult { account, outcome }
            })
            .collect();
        let (commit, at) = (committing.elapsed(), Instant::now());
        self.state = State::Answered(Answered {
            octets,
            receive,
            commit,
            at,
            results,
        });
        replies
    }

    /// Logs and counts. After the reply went out.
    pub(super) fn report(self) {
        let sender = self.sender();
        let State::Answered(Answered {
            octets,
            receive,
            commit,
            at,
            results,
        }) = self.state
        else {
            return;
        };
        Delivered {
            via: "lmtp",
            trace_id: &self.trace_id,
            txn: self.txn,
            sender: &sender,
            octets,
            receive,
            commit,
            reply: Some(at.elapsed()),
        }
        .report(&results);
    }

    fn sender(&self) -> String {
        self.reverse_path
            .address()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    fn destinations(&self) -> Vec<Destination<'_>> {
        let mut seen = std::collections::HashSet::with_capacity(self.recipients.len());
        let mut destinations = Vec::with_capacity(self.recipients.len());
        for Found { address, homes } in &self.recipients {
            for located in homes {
                if seen.insert(located.account) {
                    destinations.push(Destination { located, address });
                }
            }
        }
        destinations
    }
}

/// A message whose last octet has come.
struct Message<'a> {
    transaction: &'a Transaction,
    backend: &'a Backend,
    facts: &'a Facts<'a>,
    octets: u64,
    received_ms: i64,
    date: &'a str,
}

impl Message<'_> {
    async fn commit_here(
        &self,
        spread: Option<Spread>,
        destinations: &[Destination<'_>],
    ) -> Vec<(AccountId, Outcome)> {
        let Some(spread) = spread else {
            return Vec::new();
        };
        let whole = spread.finish(&self.transaction.trace_id).await;
        let here = destinations
            .iter()
            .filter(|destination| destination.located.home.backend == self.backend.name);
        let rule = self.backend.config.subaddress_mailbox;
        let recipients = here.map(|Destination { located, address }| Recipient {
            account: located.account,
            epoch: located.home.epoch,
            mailbox: MailboxId::INBOX,
            detail: rule.detail(located.detail.as_deref()),
            prologue: self.prologue(address),
        });
        let recipients = recipients.collect();
        let envelope = Envelope {
            txn: self.transaction.txn.0,
            sender: self.transaction.sender().into_bytes(),
            // Nothing is taken out of a message that comes by LMTP: what was received is what is kept. Where it was written
            // nowhere, it is of no use.
            content_key: whole.identity().map(|(_, hash)| hash).unwrap_or_default(),
            repeats: Repeats::Deliver,
            trace: self.transaction.trace_id.clone(),
            received_ms: self.received_ms,
        };
        let deadline = Duration::from_secs(self.backend.config.limits.commit_s);
        whole.deliver(envelope, recipients, deadline).await
    }

    async fn commit_elsewhere(
        &self,
        remote: Option<(Fanout, blake3::Hasher)>,
        destinations: &[Destination<'_>],
    ) -> Vec<(AccountId, Outcome)> {
        let Some((fanout, hasher)) = remote else {
            return Vec::new();
        };
        let hash = *hasher.finalize().as_bytes();
        let answers = fanout
            .commit(|backend| DeliverCommit {
                blob_hash: BlobHash(hash),
                content_key: ContentKey(hash),
                repeats: Repeats::Deliver,
                octets: self.octets,
                received_ms: self.received_ms,
                recipients: destinations
                    .iter()
                    .filter(|destination| destination.located.home.backend == *backend)
                    .map(|destination| CommitRecipient {
                        account: destination.located.account,
                        epoch: destination.located.home.epoch,
                        prologue: WirePrologue(self.prologue(destination.address)),
                        detail: destination.located.detail.clone(),
                        hold: None,
                    })
                    .collect(),
            })
            .await;
        let accounts = destinations.iter().map(|one| one.located.account);
        self.backend.rooms.forget(accounts);
        let mut outcomes = Vec::with_capacity(destinations.len());
        for (backend, answer) in answers {
            match answer {
                Ok(reply) => {
                    outcomes.extend(
                        reply
                            .results
                            .into_iter()
                            .map(|result| (result.account, result.outcome)),
                    );
                }
                Err(error) => {
                    warn!(%backend, %error, trace_id = self.transaction.trace_id, "home did not take the message");
                }
            }
        }
        outcomes
    }

    fn prologue(&self, address: &Address) -> Vec<u8> {
        let only_one = self.transaction.recipients.len() == 1;
        Prologue::new()
            .return_path(&self.transaction.reverse_path)
            .delivered_to(address)
            .received(&Received {
                client_name: self.facts.client_name,
                client_address: self.facts.client_address,
                client_host: None,
                by: &self.backend.config.hostname,
                protocol: self.facts.protocol,
                tls: None,
                id: &self.transaction.trace_id,
                // Naming one of several would tell the others of a hidden recipient.
                recipient: only_one.then_some(address),
                date: self.date,
            })
    }
}

/// A recipient is kept when all of its accounts keep it; else the first that does not speaks.
fn reply(found: &Found, outcomes: &HashMap<AccountId, Outcome>) -> Reply {
    let outcome = |located: &Located| {
        outcomes
            .get(&located.account)
            .unwrap_or(&Outcome::Unavailable)
    };
    let spoken = found
        .homes
        .iter()
        .map(outcome)
        .find(|outcome| !outcome.is_kept());
    to_reply(
        spoken
            .or_else(|| found.homes.first().map(outcome))
            .unwrap_or(&Outcome::Unavailable),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use directory_api::{Epoch, Home, Quota};
    use mail_proto::smtp::BodyType;

    use super::*;

    #[test]
    fn a_message_goes_to_no_more_accounts_than_a_volume_takes_at_once() {
        let found = |accounts: std::ops::Range<u64>| Found {
            address: "list@example.test".parse().unwrap(),
            homes: accounts.map(located).collect(),
        };
        let mut transaction = Transaction::begin(Mail {
            reverse_path: ReversePath::Null,
            size: None,
            body: BodyType::default(),
            utf8: false,
        });
        assert!(transaction.has_room(&found(0..1000)));
        transaction.add(found(0..600));
        assert!(transaction.has_room(&found(600..1000)));
        assert!(!transaction.has_room(&found(600..1001)));
    }

    fn located(account: u64) -> Located {
        let home = Home {
            backend: "b1".parse().unwrap(),
            volume: "main".parse().unwrap(),
            epoch: Epoch::FIRST,
        };
        Located {
            account: AccountId(account),
            home,
            quota: Quota::NONE,
            detail: None,
            is_caught: false,
        }
    }

    #[test]
    fn a_recipient_is_accepted_only_when_all_of_its_accounts_keep_the_message() {
        let found = Found {
            address: "list@example.test".parse().unwrap(),
            homes: vec![located(1), located(2)],
        };
        let kept = (AccountId(1), Outcome::Committed { uid: 1 });
        let mut outcomes = HashMap::from([kept]);
        assert_eq!(reply(&found, &outcomes).code, 451, "no answer is not a yes");
        outcomes.insert(AccountId(2), Outcome::Full);
        assert_eq!(reply(&found, &outcomes).code, 452);
        outcomes.insert(AccountId(2), Outcome::Duplicate);
        assert_eq!(reply(&found, &outcomes).code, 250);
    }
}
