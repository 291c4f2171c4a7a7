//! Whether every recipient of a transaction is durable: the only source of a `250` to the final dot.
//!
//! ```text
//!              every account kept
//!   answers ──────────────────────────▶ Kept ──▶ 250
//!      └── some are missing ──▶ Missing ──▶ same txn, where it lives now or on a sibling that holds it ──▶ answers …
//!                                  ├── no way left ──▶ 4xx
//!                                  └── a home that never takes it ──▶ 5xx
//! ```

use std::collections::BTreeMap;

use directory_api::AccountId;
use store_api::deliver::{DeliverError, DeliverReply, Outcome};

use crate::recipients::Recipient;

/// Proof that every accepted recipient is in a synced journal (P1). Only [`Settlement::verdict`] makes one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Kept(Vec<Recipient>);

impl Kept {
    /// The recipients, each with who has the message for it.
    pub(crate) fn by(&self) -> &[Recipient] {
        &self.0
    }
}

/// Why a recipient is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// The back-end was lost before the commit, or never reached.
    Away,
    /// The commit was sent and nothing came back that speaks of this recipient.
    Unknown,
    /// The account does not live where we believed.
    Moved,
    /// The account is on its way to another home.
    Frozen,
    /// The back-end refuses to write.
    Unavailable,
    /// Disk or account is full.
    Full,
    /// The time for the whole commit ran out.
    Deadline,
    /// The home never takes a message of that size.
    TooLarge,
    /// The home does not understand us.
    NotUnderstood,
}

impl Short {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Away => "backend_away",
            Self::Unknown => "commit_unknown",
            Self::Moved => "moved",
            Self::Frozen => "frozen",
            Self::Unavailable => "backend_unavailable",
            Self::Full => "full",
            Self::Deadline => "deadline",
            Self::TooLarge => "home_too_large",
            Self::NotUnderstood => "home_malformed",
        }
    }

    /// Whether a sibling may hold the message in this recipient's place: what its home refuses now it would refuse from a sibling,
    /// when the sender is gone.
    pub(crate) fn may_be_held(self) -> bool {
        !matches!(self, Self::TooLarge | Self::NotUnderstood)
    }

    /// A home's verdict on the message, which nobody may hold it against.
    pub(crate) fn not_held(error: &DeliverError) -> Option<Self> {
        match error {
            error if error.is_too_large() => Some(Self::TooLarge),
            error if error.is_malformed() => Some(Self::NotUnderstood),
            _ => None,
        }
    }
}

/// What is to be done about a transaction.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Say `250`.
    Kept(Kept),
    /// These are not kept yet. They may be committed again with the same transaction identifier (P2), elsewhere.
    Missing(Vec<Missing>),
}

/// The answers of the back-ends so far.
#[derive(Debug)]
pub(crate) struct Settlement {
    missing: BTreeMap<AccountId, Missing>,
    kept: Vec<Recipient>,
}

/// A recipient that is not kept.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    /// Where it lives, as the last answer had it.
    pub(crate) recipient: Recipient,
    pub(crate) short: Short,
    /// Whether asking at `recipient.backend` may settle it.
    pub(crate) again: bool,
}

impl Settlement {
    /// Begins with nothing kept.
    pub(crate) fn new(recipients: &[Recipient]) -> Self {
        let missing = |one: &Recipient| Missing {
            recipient: one.clone(),
            short: Short::Away,
            again: false,
        };
        Self {
            missing: recipients
                .iter()
                .map(|one| (one.account, missing(one)))
                .collect(),
            kept: Vec::with_capacity(recipients.len()),
        }
    }

    /// Takes one back-end's answer about the accounts it was asked for.
    ///
    /// An account that the answer leaves out is not kept; one that was not asked for is not believed.
    pub(crate) fn answered(
        &mut self,
        asked: &[AccountId],
        answer: &Result<DeliverReply, DeliverError>,
    ) {
        for account in asked {
            let Some(missing) = self.missing.get_mut(account) else {
                continue;
            };
            let kept = match answer {
                Ok(reply) => {
                    let result = reply
                        .results
                        .iter()
                        .find(|result| result.account == *account);
                    match result {
                        Some(result) => missing.take(&result.outcome),
                        None => missing.unknown(),
                    }
                }
                Err(DeliverError::CommitUnknown(_)) => missing.unknown(),
                Err(DeliverError::Away(_) | DeliverError::Stalled(_)) => missing.stays(Short::Away),
                // A sibling that does not hold it says nothing of the home.
                Err(error @ DeliverError::Refused(_)) if !missing.recipient.hold => {
                    missing.stays(Short::not_held(error).unwrap_or(Short::Unavailable))
                }
                Err(DeliverError::Refused(_)) => missing.stays(Short::Unavailable),
            };
            if kept && let Some(missing) = self.missing.remove(account) {
                self.kept.push(missing.recipient);
            }
        }
    }

    /// Whether the last answer about an account said that it lives elsewhere, or at another epoch.
    pub(crate) fn is_elsewhere(&self, account: AccountId) -> bool {
        let missing = self.missing.get(&account);
        missing.is_some_and(|missing| missing.short == Short::Moved)
    }

    /// A recipient is asked for elsewhere now.
    pub(crate) fn goes_to(&mut self, recipient: &Recipient) {
        if let Some(missing) = self.missing.get_mut(&recipient.account) {
            missing.recipient = recipient.clone();
        }
    }

    /// What the answers come to.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.missing.is_empty() {
            true => Verdict::Kept(Kept(self.kept.clone())),
            false => Verdict::Missing(self.missing.values().cloned().collect()),
        }
    }
}

impl Missing {
    /// Notes an outcome; true when the message is durable for this recipient.
    fn take(&mut self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Committed { .. } | Outcome::Duplicate | Outcome::Held => true,
            Outcome::Moved { backend, epoch } => {
                // Epochs only grow. An older one comes from a back-end that is behind the
                // directory; to follow it would be to write where the account no longer lives (P4).
                self.again = *epoch > self.recipient.epoch;
                self.recipient.backend = backend.clone();
                self.recipient.epoch = *epoch;
                self.recipient.hold = false;
                self.short = Short::Moved;
                false
            }
            Outcome::StaleEpoch { epoch } => {
                self.again = *epoch > self.recipient.epoch;
                self.recipient.epoch = *epoch;
                self.short = Short::Moved;
                false
            }
            Outcome::Frozen => self.stays(Short::Frozen),
            Outcome::Unavailable => self.stays(Short::Unavailable),
            Outcome::Full => self.stays(Short::Full),
        }
    }

    fn unknown(&mut self) -> bool {
        self.again = true;
        self.short = Short::Unknown;
        false
    }

    fn stays(&mut self, short: Short) -> bool {
        self.again = false;
        self.short = short;
        false
    }
}

#[cfg(test)]
mod tests {
    use directory_api::Epoch;
    use http::StatusCode;
    use store_api::deliver::DeliverResult;

    use super::*;
    use crate::made_up::{backend, recipient};

    fn reply(results: Vec<(u64, Outcome)>) -> Result<DeliverReply, DeliverError> {
        let results = results.into_iter().map(|(account, outcome)| DeliverResult {
            account: AccountId(account),
            outcome,
        });
        Ok(DeliverReply {
            results: results.collect(),
        })
    }

    fn settled(answers: Vec<(&[u64], Result<DeliverReply, DeliverError>)>) -> Verdict {
        let two = [recipient(1, "b1", 5), recipient(2, "b2", 5)];
        let mut settlement = Settlement::new(&two);
        for (asked, answer) in answers {
            let asked: Vec<_> = asked.iter().map(|number| AccountId(*number)).collect();
            settlement.answered(&asked, &answer);
        }
        settlement.verdict()
    }

    /// Of one that is missing: the account, why, and where asking again may settle it.
    type Told<'v> = (u64, Short, Option<(&'v str, u64)>);

    fn missing(verdict: &Verdict) -> Vec<Told<'_>> {
        let Verdict::Missing(missing) = verdict else {
            return Vec::new();
        };
        let told = |one: &'_ Missing| (one.recipient.account.0, one.short, one.again);
        missing
            .iter()
            .map(|one| {
                let (account, short, again) = told(one);
                let place = (one.recipient.backend.as_str(), one.recipient.epoch.0);
                (account, short, again.then_some(place))
            })
            .collect()
    }

    const COMMITTED: Outcome = Outcome::Committed { uid: 1 };

    #[test]
    fn only_committed_duplicate_and_held_for_every_recipient_are_proof() {
        for other in [Outcome::Duplicate, Outcome::Held, COMMITTED] {
            let verdict = settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], reply(vec![(2, other)])),
            ]);
            assert!(matches!(verdict, Verdict::Kept(_)));
        }
        let refused: [(Outcome, Short); 3] = [
            (Outcome::Frozen, Short::Frozen),
            (Outcome::Unavailable, Short::Unavailable),
            (Outcome::Full, Short::Full),
        ];
        for (outcome, short) in refused {
            let verdict = settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], reply(vec![(2, outcome)])),
            ]);
            assert_eq!(missing(&verdict), [(2, short, None)]);
        }
    }

    #[test]
    fn a_message_that_its_home_never_takes_is_not_held_and_a_siblings_limit_is_no_verdict() {
        let refused = |status, code| {
            let problem = daemon::link::Problem::new(status, code, "no");
            Err(DeliverError::Refused(problem))
        };
        for (status, short) in [
            (StatusCode::PAYLOAD_TOO_LARGE, Short::TooLarge),
            (StatusCode::BAD_REQUEST, Short::NotUnderstood),
            (StatusCode::INSUFFICIENT_STORAGE, Short::Unavailable),
            (StatusCode::SERVICE_UNAVAILABLE, Short::Unavailable),
            (StatusCode::REQUEST_TIMEOUT, Short::Unavailable),
            (StatusCode::UNPROCESSABLE_ENTITY, Short::Unavailable),
            (StatusCode::FORBIDDEN, Short::Unavailable),
        ] {
            let verdict = settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], refused(status, "code")),
            ]);
            assert_eq!(missing(&verdict), [(2, short, None)], "{status}");
            assert_eq!(short.may_be_held(), short == Short::Unavailable);
            // The same from who shall hold it.
            let mut held = recipient(2, "b2", 5);
            held.hold = true;
            let mut settlement = Settlement::new(&[held]);
            settlement.answered(&[AccountId(2)], &refused(status, "code"));
            assert_eq!(
                missing(&settlement.verdict()),
                [(2, Short::Unavailable, None)]
            );
        }
    }

    #[test]
    fn a_recipient_nobody_answered_for_is_not_kept() {
        let nobody = settled(vec![]);
        let both = [(1, Short::Away, None), (2, Short::Away, None)];
        assert_eq!(missing(&nobody), both);
        let half = settled(vec![(&[1], reply(vec![(1, COMMITTED)]))]);
        assert_eq!(missing(&half), both[1..]);
    }

    #[test]
    fn an_answer_about_an_account_not_asked_for_is_not_believed() {
        let verdict = settled(vec![
            (&[1], reply(vec![(1, COMMITTED), (2, COMMITTED)])),
            (&[2], reply(vec![(2, Outcome::Full)])),
        ]);
        assert_eq!(missing(&verdict), [(2, Short::Full, None)]);
    }

    #[test]
    fn an_answer_that_leaves_an_account_out_may_be_asked_again_at_the_same_place() {
        let verdict = settled(vec![
            (&[1], reply(vec![(1, COMMITTED)])),
            (&[2], reply(vec![])),
        ]);
        assert_eq!(missing(&verdict), [(2, Short::Unknown, Some(("b2", 5)))]);
    }

    #[test]
    fn a_move_is_followed_forward_and_never_back() {
        let answered = |outcome| {
            settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], reply(vec![(2, outcome)])),
            ])
        };
        let moved = |epoch| {
            answered(Outcome::Moved {
                backend: backend("b3"),
                epoch: Epoch(epoch),
            })
        };
        assert_eq!(missing(&moved(6)), [(2, Short::Moved, Some(("b3", 6)))]);
        let stale = |epoch| {
            answered(Outcome::StaleEpoch {
                epoch: Epoch(epoch),
            })
        };
        assert_eq!(missing(&stale(7)), [(2, Short::Moved, Some(("b2", 7)))]);
        for old in [moved(4), moved(5), stale(3)] {
            assert_eq!(missing(&old), [(2, Short::Moved, None)]);
        }
    }
}
