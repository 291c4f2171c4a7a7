//! Whether every recipient of a transaction is durable: the only source of a `250` to the final dot.
//!
//! ```text
//!              every account kept
//!   answers ──────────────────────────▶ Kept ──▶ 250
//!      │    each missing one may be
//!      ├──── settled by asking again ──▶ Again ──▶ same txn, where it lives now ──▶ answers …
//!      └──── anything else ───────────▶ Short ──▶ 4xx
//! ```

use std::collections::BTreeMap;

use directory_api::AccountId;
use store_api::deliver::{DeliverError, DeliverReply, Outcome};

use crate::recipients::Recipient;

/// Proof that every accepted recipient is in a synced journal (P1). Only [`Settlement::verdict`] makes one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Kept(());

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
        }
    }
}

/// What is to be done about a transaction.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Say `250`.
    Kept(Kept),
    /// Commit these once more with the same transaction identifier, where they stand now (P2).
    Again(Vec<Recipient>, Short),
    /// Refuse for now, for this reason.
    Short(Short),
}

/// The answers of the back-ends so far.
#[derive(Debug)]
pub(crate) struct Settlement {
    missing: BTreeMap<AccountId, Missing>,
}

#[derive(Debug)]
struct Missing {
    recipient: Recipient,
    short: Short,
    /// Whether asking at `recipient.backend` may settle it.
    again: bool,
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
                Err(DeliverError::Refused(_)) => missing.stays(Short::Unavailable),
            };
            if kept {
                self.missing.remove(account);
            }
        }
    }

    /// Whether the last answer about an account said that it lives elsewhere, or at another epoch.
    pub(crate) fn is_elsewhere(&self, account: AccountId) -> bool {
        let missing = self.missing.get(&account);
        missing.is_some_and(|missing| missing.short == Short::Moved)
    }

    /// What the answers come to. One recipient that cannot be helped refuses the message whole:
    /// asking again for the others would only make more of it doubled when the sender tries again.
    pub(crate) fn verdict(&self) -> Verdict {
        let hopeless = self.missing.values().find(|missing| !missing.again);
        match (hopeless, self.missing.values().next()) {
            (Some(missing), _) => Verdict::Short(missing.short),
            (None, Some(first)) => {
                let again = self
                    .missing
                    .values()
                    .map(|missing| missing.recipient.clone());
                Verdict::Again(again.collect(), first.short)
            }
            (None, None) => Verdict::Kept(Kept(())),
        }
    }
}

impl Missing {
    /// Notes an outcome; true when the message is durable for this recipient.
    fn take(&mut self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Committed { .. } | Outcome::Duplicate => true,
            Outcome::Moved { backend, epoch } => {
                // Epochs only grow. An older one comes from a back-end that is behind the
                // directory; to follow it would be to write where the account no longer lives (P4).
                self.again = *epoch > self.recipient.epoch;
                self.recipient.backend = backend.clone();
                self.recipient.epoch = *epoch;
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

    const COMMITTED: Outcome = Outcome::Committed { uid: 1 };

    #[test]
    fn only_committed_and_duplicate_for_every_recipient_are_proof() {
        let verdict = settled(vec![
            (&[1], reply(vec![(1, COMMITTED)])),
            (&[2], reply(vec![(2, Outcome::Duplicate)])),
        ]);
        assert!(matches!(verdict, Verdict::Kept(_)));
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
            assert!(
                matches!(verdict, Verdict::Short(is) if is == short),
                "{short:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn a_recipient_nobody_answered_for_is_not_kept() {
        assert!(matches!(settled(vec![]), Verdict::Short(Short::Away)));
        let half = settled(vec![(&[1], reply(vec![(1, COMMITTED)]))]);
        assert!(matches!(half, Verdict::Short(Short::Away)));
    }

    #[test]
    fn an_answer_about_an_account_not_asked_for_is_not_believed() {
        let verdict = settled(vec![
            (&[1], reply(vec![(1, COMMITTED), (2, COMMITTED)])),
            (&[2], reply(vec![(2, Outcome::Full)])),
        ]);
        assert!(matches!(verdict, Verdict::Short(Short::Full)));
    }

    #[test]
    fn an_answer_that_leaves_an_account_out_is_asked_again_at_the_same_place() {
        let verdict = settled(vec![
            (&[1], reply(vec![(1, COMMITTED)])),
            (&[2], reply(vec![])),
        ]);
        let Verdict::Again(again, Short::Unknown) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            (again.len(), again[0].account, &again[0].backend),
            (1, AccountId(2), &backend("b2"))
        );
    }

    #[test]
    fn a_move_is_followed_forward_and_never_back() {
        let moved = |epoch| {
            let outcome = Outcome::Moved {
                backend: backend("b3"),
                epoch: Epoch(epoch),
            };
            settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], reply(vec![(2, outcome)])),
            ])
        };
        let Verdict::Again(again, Short::Moved) = moved(6) else {
            panic!("not followed");
        };
        assert_eq!(
            (&again[0].backend, again[0].epoch),
            (&backend("b3"), Epoch(6))
        );
        for old in [4, 5] {
            assert!(matches!(moved(old), Verdict::Short(Short::Moved)));
        }
        let stale = |epoch| {
            let outcome = Outcome::StaleEpoch {
                epoch: Epoch(epoch),
            };
            settled(vec![
                (&[1], reply(vec![(1, COMMITTED)])),
                (&[2], reply(vec![(2, outcome)])),
            ])
        };
        assert!(matches!(stale(7), Verdict::Again(again, _) if again[0].epoch == Epoch(7)));
        assert!(matches!(stale(3), Verdict::Short(Short::Moved)));
    }

    #[test]
    fn one_hopeless_recipient_stops_asking_again_for_the_others() {
        let verdict = settled(vec![
            (&[1], reply(vec![])),
            (&[2], reply(vec![(2, Outcome::Full)])),
        ]);
        assert!(matches!(verdict, Verdict::Short(Short::Full)));
    }
}
