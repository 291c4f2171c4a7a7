//! Which transactions an account has had (P2), and by what it knows their messages when they are sent again.

use std::ops::Bound;

use directory_api::AccountId;
use zerocopy::IntoBytes as _;

use super::super::error::IndexError;
use super::super::record::Answered;
use super::super::rows::{TransactionRow, transaction_key};
use super::super::types::{MailboxId, TransactionId};
use super::Apply;

/// How long a delivery is known again, from its commit. Who lost an answer asks again within minutes of being able to; only
/// one who was away himself for two weeks would be taken for new.
const KEPT_MS: i64 = 14 * 24 * 3600 * 1000;
/// Rows that a new one looks at: a quarter of an account's rows are past their time then. With one their share would grow
/// without end.
const LOOKED_AT: usize = 4;

impl Apply<'_, '_> {
    pub(super) fn put_transaction(
        &mut self,
        account: AccountId,
        txn: &TransactionId,
        (mailbox, uid): (MailboxId, u32),
        committed_ms: i64,
    ) -> Result<(), IndexError> {
        let row = TransactionRow {
            version: 1,
            reserved: [0; 3],
            mailbox: mailbox.0.into(),
            uid: uid.into(),
            is_answered: 0.into(),
            committed_ms: committed_ms.into(),
        };
        let table = self.index.transactions;
        let key = transaction_key(account, txn);
        if uid == 0 {
            // The source of an import has forgotten it.
            table.delete(self.txn, &key)?;
            return Ok(());
        }
        Ok(table.put(self.txn, &key, row.as_bytes())?)
    }

    /// Marks messages whose senders have read the answer.
    pub(super) fn answered(&mut self, record: &Answered) -> Result<(), IndexError> {
        let table = self.index.transactions;
        for (account, key) in &record.messages {
            let key = transaction_key(*account, key);
            // It may be forgotten, with its account.
            let Some(row) = table.get(self.txn, &key)? else {
                continue;
            };
            let row = TransactionRow {
                is_answered: 1.into(),
                ..TransactionRow::decode(row)?
            };
            table.put(self.txn, &key, row.as_bytes())?;
        }
        Ok(())
    }

    /// Removes some of an account's transactions whose time is over: those behind a new one, whose name is random, and so any.
    /// Each delivery does so little that no thread has to go through them all.
    pub(super) fn forget_transactions(
        &mut self,
        account: AccountId,
        behind: &TransactionId,
        now_ms: i64,
    ) -> Result<(), IndexError> {
        let table = self.index.transactions;
        let key = transaction_key(account, behind);
        let (first, last) = (
            transaction_key(account, &[0; 16]),
            transaction_key(account, &[0xff; 16]),
        );
        let after = (Bound::Excluded(&key[..]), Bound::Included(&last[..]));
        let from_first = (Bound::Included(&first[..]), Bound::Excluded(&key[..]));
        let mut over = Vec::new();
        let rows = table.range(self.txn, &after)?;
        for row in rows
            .chain(table.range(self.txn, &from_first)?)
            .take(LOOKED_AT)
        {
            let (key, row) = row?;
            if TransactionRow::decode(row)?.committed_ms.get() < now_ms - KEPT_MS {
                over.push(key.to_vec());
            }
        }
        for key in over {
            table.delete(self.txn, &key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use durable::{Lsn, Place};
    use tempfile::TempDir;

    use super::super::super::index::Index;
    use super::*;

    const ANN: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(2);
    const NOW_MS: i64 = 1_800_000_000_000;

    fn name(number: u64) -> TransactionId {
        let hash = blake3::hash(&number.to_le_bytes());
        hash.as_bytes()[..16].try_into().unwrap()
    }

    fn deliver(index: &Index, account: AccountId, numbers: std::ops::Range<u64>, now_ms: i64) {
        let written: Result<(), IndexError> = index.write(|txn| {
            let mut apply = Apply {
                index,
                txn,
                lsn: Lsn(1),
                place: Place {
                    segment: 0,
                    offset: 0,
                    len: 0,
                },
            };
            for number in numbers {
                let at = (MailboxId::INBOX, 1);
                apply.put_transaction(account, &name(number), at, now_ms)?;
                apply.forget_transactions(account, &name(number), now_ms)?;
            }
            Ok(())
        });
        written.unwrap();
    }

    fn known(index: &Index, account: AccountId, numbers: std::ops::Range<u64>) -> usize {
        let known: Result<usize, IndexError> = index.read(|txn| {
            let mut known = 0;
            for number in numbers {
                known += usize::from(index.has_transaction(txn, account, &name(number))?);
            }
            Ok(known)
        });
        known.unwrap()
    }

    #[test]
    fn what_is_past_its_time_goes_with_what_comes_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let index = Index::open(dir.path(), 1 << 30).unwrap();
        deliver(&index, ANN, 0..1000, NOW_MS - KEPT_MS - 1);
        deliver(&index, BOB, 0..1000, NOW_MS - KEPT_MS - 1);
        deliver(&index, ANN, 1000..2000, NOW_MS - KEPT_MS);
        assert_eq!(known(&index, ANN, 0..2000), 2000);
        deliver(&index, ANN, 2000..3000, NOW_MS);
        assert_eq!(known(&index, ANN, 1000..3000), 2000);
        let left = known(&index, ANN, 0..1000);
        assert!(left < 500, "{left}");
        deliver(&index, ANN, 3000..8000, NOW_MS);
        assert_eq!(known(&index, ANN, 0..1000), 0);
        assert_eq!(known(&index, ANN, 1000..8000), 7000);
        assert_eq!(known(&index, BOB, 0..1000), 1000);
    }
}
