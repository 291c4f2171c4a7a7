//! The steps of a move (DESIGN §9). Each may be repeated: a migrator that was killed asks again.
//!
//! ```text
//! source:  Active ─freeze▶ Frozen ─release▶ Moved        Frozen ─thaw▶ Active
//! target:  (none, Moved, unused) ─begin_import▶ Importing ─activate▶ Active      Importing ─discard_import▶ Moved
//! ```
//! A request may arrive after the move was given up, from a migrator that is gone. So undoing leaves the move's number behind,
//! also where nothing was done yet, and the account's next moves leave it there ([`AccountRow::has_ended`]): what comes later of that move is
//! refused, and nothing is frozen that nobody thaws.
//!
//! An account that comes back from a backup is an import without a source. It is refused from the moment on in which an operator
//! adopts the volume ([`super::life`]), which opens what has come so far: so nothing becomes active behind the adoption, with UIDs
//! that were not made to skip ahead (P3).

use directory_api::{AccountId, BackendName, Epoch};

use super::super::intake::Reply;
use super::super::rows::{AccountRow, MailboxRow, State};
use super::super::types::{MailboxId, MoveId, Refusal};
use super::accounts::moved;
use super::{Batch, Decided, Sequencer, Stop, check_epoch};

impl Sequencer {
    pub(super) fn freeze(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    ) -> Result<Decided, Stop> {
        let inbox_uidvalidity = match &self.account(batch, account)?.row {
            // An account that was never used moves like any other.
            None => self.admit(batch, account, epoch)?,
            Some(_) => 0,
        };
        let row = self.row(batch, account)?;
        match row.state {
            State::Active if row.has_ended(&move_id) => return Err(Refusal::WrongState.into()),
            State::Active => {}
            State::Frozen if row.move_id == move_id => return Ok(DONE),
            State::Frozen | State::Importing => return Err(Refusal::OtherMove.into()),
            State::Moved => return Err(moved(row).into()),
        }
        check_epoch(epoch, row.epoch)?;
        row.state = State::Frozen;
        row.set_move(move_id);
        self.push_account(batch, account, inbox_uidvalidity, false)?;
        Ok(DONE)
    }

    pub(super) fn thaw(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
    ) -> Result<Decided, Stop> {
        let row = self.row(batch, account)?;
        match row.state {
            State::Active if row.has_ended(&move_id) => return Ok(DONE),
            State::Active => row.set_move(move_id),
            State::Frozen if row.move_id == move_id => {}
            State::Frozen => return Err(Refusal::OtherMove.into()),
            State::Importing => return Err(Refusal::WrongState.into()),
            State::Moved => return Err(moved(row).into()),
        }
        row.state = State::Active;
        self.push_account(batch, account, 0, false)?;
        Ok(DONE)
    }

    pub(super) fn release(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
        backend: BackendName,
        epoch: Epoch,
    ) -> Result<Decided, Stop> {
        let row = self.row(batch, account)?;
        match row.state {
            State::Frozen if row.move_id == move_id => {}
            State::Moved if row.epoch == epoch && row.elsewhere.as_ref() == Some(&backend) => {
                return Ok(DONE);
            }
            State::Frozen => return Err(Refusal::OtherMove.into()),
            State::Moved => return Err(moved(row).into()),
            State::Active | State::Importing => return Err(Refusal::WrongState.into()),
        }
        if epoch <= row.epoch {
            return Err(Refusal::StaleEpoch { ours: row.epoch }.into());
        }
        (row.state, row.epoch, row.elsewhere) = (State::Moved, epoch, Some(backend));
        self.push_account(batch, account, 0, false)?;
        Ok(DONE)
    }

    pub(super) fn begin_import(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
        source: Option<BackendName>,
    ) -> Result<Decided, Stop> {
        if source.is_none() {
            self.check_restored()?;
        }
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        let known_epoch = match &entry.row {
            None => Epoch(0),
            Some(row) => match row.state {
                State::Importing if row.move_id == move_id => return Ok(DONE),
                // What it would take the place of is not finished, on a volume that takes part in no move.
                State::Importing if source.is_none() => row.epoch,
                State::Frozen | State::Importing => return Err(Refusal::OtherMove.into()),
                // A pull that comes late must not take the account from its home. Messages do not tell: a home may have
                // none and still be bound to its UIDs (P3).
                State::Active if entry.was_used() => return Err(Refusal::WrongState.into()),
                // It was discarded.
                State::Active | State::Moved if row.has_ended(&move_id) => {
                    return Err(Refusal::WrongState.into());
                }
                // What was left here from an earlier stay is old; what comes replaces it.
                State::Active | State::Moved => row.epoch,
            },
        };
        entry.wipe(lsn);
        let before = entry.row.take();
        let mut row = AccountRow {
            state: State::Importing,
            elsewhere: source,
            ..AccountRow::new(known_epoch)
        };
        if let Some(before) = before {
            (row.move_id, row.moves_before) = (before.move_id, before.moves_before);
        }
        row.set_move(move_id);
        entry.row = Some(row);
        // Replaced by the item when it comes.
        let inbox = MailboxRow::new(account, MailboxId::INBOX, "INBOX", UIDVALIDITY_TO_COME);
        entry.mailboxes.insert(MailboxId::INBOX, Box::new(inbox));
        self.push_account(batch, account, UIDVALIDITY_TO_COME, true)?;
        Ok(DONE)
    }

    pub(super) fn activate(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    ) -> Result<Decided, Stop> {
        self.check_import(batch, account)?;
        let row = self.row(batch, account)?;
        match row.state {
            State::Importing if row.move_id == move_id => {}
            State::Active if row.move_id == move_id && row.epoch == epoch => return Ok(DONE),
            State::Importing | State::Frozen => return Err(Refusal::OtherMove.into()),
            State::Active => return Err(Refusal::WrongState.into()),
            State::Moved => return Err(moved(row).into()),
        }
        if epoch <= row.epoch {
            return Err(Refusal::StaleEpoch { ours: row.epoch }.into());
        }
        (row.state, row.epoch, row.elsewhere) = (State::Active, epoch, None);
        self.push_account(batch, account, 0, false)?;
        Ok(DONE)
    }

    pub(super) fn discard_import(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
        source: Option<BackendName>,
    ) -> Result<Decided, Stop> {
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        let row = match (&mut entry.row, source) {
            (Some(row), _) => row,
            (None, None) => return Ok(DONE),
            (row @ None, source) => row.insert(AccountRow {
                state: State::Importing,
                move_id,
                elsewhere: source,
                ..AccountRow::new(Epoch(0))
            }),
        };
        match row.state {
            // What comes from a backup has no other home to answer for it.
            State::Importing if row.elsewhere.is_none() => return Err(Refusal::WrongState.into()),
            State::Importing if row.move_id == move_id => {}
            State::Moved if row.has_ended(&move_id) => return Ok(DONE),
            State::Moved => {}
            State::Importing | State::Frozen => return Err(Refusal::OtherMove.into()),
            State::Active => return Err(Refusal::WrongState.into()),
        }
        if row.state == State::Moved {
            // What it has left when it lived here stays for its grace.
            row.set_move(move_id);
            self.push_account(batch, account, 0, false)?;
            return Ok(DONE);
        }
        // The row stays: without it a sender with an old epoch could make the account anew (P4).
        *row = AccountRow {
            state: State::Moved,
            move_id,
            moves_before: std::mem::take(&mut row.moves_before),
            elsewhere: row.elsewhere.take(),
            ..AccountRow::new(row.epoch)
        };
        entry.wipe(lsn);
        self.push_account(batch, account, 0, true)?;
        Ok(DONE)
    }

    fn row(&mut self, batch: &Batch<'_>, account: AccountId) -> Result<&mut AccountRow, Stop> {
        Ok(self
            .account(batch, account)?
            .row
            .as_mut()
            .ok_or(Refusal::NoAccount)?)
    }
}

/// A step of a move is answered when the index has it, so that what is read next is after it.
const DONE: Decided = Decided::AfterApply(Reply::Done);
/// Of an INBOX whose item has not come.
pub(super) const UIDVALIDITY_TO_COME: u32 = 1;
