//! Homes and moves.

use directory_api::wire::{
    AccountHome, ChangeKind, Changed, CompareAndSet, CompareAndSetReply, ListQuery, MoveRecord,
    MoveState, Page, Place, Placed, PlacedBy,
};
use directory_api::{AccountId, Home};

use super::accounts::{account_after, account_name};
use super::{Answer, EngineError, Table, View, Write, account_key, decode, number, scan};
use crate::engine::record::{AccountRow, BackendRow, HomeOnly};

impl View<'_> {
    pub(super) fn home(&self, account: AccountId) -> Answer<AccountHome> {
        let row: Option<HomeOnly> = self.read(Table::Accounts, &account_key(account))?;
        Ok(AccountHome {
            account,
            home: row.ok_or(EngineError::NotFound)?.home,
        })
    }

    pub(super) fn list_homes(&self, query: &ListQuery) -> Answer<Page<AccountHome>> {
        let after = account_after(query)?;
        scan::page(
            self.rows,
            Table::Accounts,
            query,
            after.as_deref(),
            account_name,
            |key, row| {
                let HomeOnly { home, .. } = decode(row)?;
                let wanted = query
                    .filter
                    .as_deref()
                    .is_none_or(|backend| backend == home.backend.as_str());
                Ok(wanted.then_some(AccountHome {
                    account: AccountId(number(key)),
                    home,
                }))
            },
        )
    }

    pub(super) fn move_of(&self, account: AccountId) -> Answer<MoveRecord> {
        self.read(Table::Moves, &account_key(account))?
            .ok_or(EngineError::NotFound)
    }

    pub(super) fn list_moves(&self, query: &ListQuery) -> Answer<Page<MoveRecord>> {
        let wanted: Option<MoveState> = query
            .filter
            .as_ref()
            .map(|name| serde_json::from_value(name.as_str().into()))
            .transpose()
            .map_err(|_| EngineError::Invalid("the filter is not a state of a move"))?;
        let after = account_after(query)?;
        scan::page(
            self.rows,
            Table::Moves,
            query,
            after.as_deref(),
            account_name,
            |_, row| {
                let record: MoveRecord = decode(row)?;
                let shown = wanted.is_none_or(|state| state == record.state);
                Ok(shown.then_some(record))
            },
        )
    }
}

impl Write<'_> {
    /// The commit point of a move (P4).
    pub(super) fn compare_and_set(
        &mut self,
        account: AccountId,
        request: CompareAndSet,
    ) -> Answer<CompareAndSetReply> {
        let key = account_key(account);
        let mut row: AccountRow = self
            .view()
            .read(Table::Accounts, &key)?
            .ok_or(EngineError::NotFound)?;
        if row.home.epoch != request.from_epoch {
            return Err(EngineError::StaleEpoch(row.home));
        }
        let record: Option<MoveRecord> = self.view().read(Table::Moves, &key)?;
        match (request.move_id, record) {
            (Some(_), None) => {
                return Err(EngineError::Invalid("no move of this account is recorded"));
            }
            (Some(id), Some(record)) => {
                if record.id != id || record.state != MoveState::Verified {
                    return Err(EngineError::MoveInProgress(Box::new(record)));
                }
                if record.to != request.to {
                    return Err(EngineError::Invalid("the move goes to another place"));
                }
            }
            // It would take the ground from under the move, which could then neither go on nor
            // be given up. One that is being given up needs none.
            (None, Some(record))
                if !record.state.is_final() && record.state != MoveState::Aborting =>
            {
                return Err(EngineError::MoveInProgress(Box::new(record)));
            }
            (None, _) => {}
        }
        self.check_place(&request.to)?;
        let home = Home {
            backend: request.to.backend,
            volume: request.to.volume,
            epoch: row.home.epoch.next(),
        };
        self.count_account(&row.home.backend, -1)?;
        self.count_account(&home.backend, 1)?;
        row.home = home.clone();
        row.placed = Some(Placed {
            at_ms: self.now_ms,
            by: match request.move_id {
                Some(_) => PlacedBy::Move,
                None => PlacedBy::Hand,
            },
        });
        self.put(Table::Accounts, &key, &row)?;
        self.changed(ChangeKind::Home, &account.to_string())?;
        Ok(CompareAndSetReply {
            change: self.last,
            home,
        })
    }

    pub(super) fn put_move(&mut self, record: MoveRecord) -> Answer<Changed<MoveRecord>> {
        let key = account_key(record.account);
        let row: AccountRow = self
            .view()
            .read(Table::Accounts, &key)?
            .ok_or(EngineError::NotFound)?;
        // Later on it must be possible to finish or give up a move, whatever became of the place.
        if record.state == MoveState::Planned {
            self.check_place(&record.to)?;
            for name in [&record.to.backend, &row.home.backend] {
                let backend: Option<BackendRow> = self
                    .view()
                    .read(Table::Backends, name.as_str().as_bytes())?;
                if backend.is_some_and(|backend| backend.foreign.is_some()) {
                    return Err(EngineError::Invalid(
                        "mail is not moved to or from a foreign back-end; `posthouse home set` changes where the account lives, and takes no mail along",
                    ));
                }
            }
        }
        let before: Option<MoveRecord> = self.view().read(Table::Moves, &key)?;
        let follows = match &before {
            Some(before) if before.id == record.id => before.state.can_become(record.state),
            Some(before) if !before.state.is_final() => false,
            Some(_) | None => record.state == MoveState::Planned,
        };
        match before {
            Some(before) if !follows => {
                return Err(EngineError::MoveInProgress(Box::new(before)));
            }
            None if !follows => return Err(EngineError::Invalid("a move begins at planned")),
            Some(_) | None => {}
        }
        let switched = row.home.epoch != record.from.epoch;
        let out_of_step = match record.state {
            MoveState::Switched => !switched,
            MoveState::Released | MoveState::Aborted => false,
            _ => switched,
        };
        if out_of_step {
            return Err(EngineError::StaleEpoch(row.home));
        }
        self.put(Table::Moves, &key, &record)?;
        self.changed(ChangeKind::Move, &record.account.to_string())?;
        Ok(self.reply(record))
    }

    pub(super) fn delete_move(&mut self, account: AccountId) -> Answer<Changed<MoveRecord>> {
        let key = account_key(account);
        let record: MoveRecord = self
            .view()
            .read(Table::Moves, &key)?
            .ok_or(EngineError::NotFound)?;
        if !record.state.is_final() {
            return Err(EngineError::InUse("the move is not finished"));
        }
        self.rows.delete(Table::Moves, &key)?;
        self.changed(ChangeKind::Move, &account.to_string())?;
        Ok(self.reply(record))
    }

    fn check_place(&self, place: &Place) -> Answer<()> {
        let row: Option<BackendRow> = self
            .view()
            .read(Table::Backends, place.backend.as_str().as_bytes())?;
        let there =
            row.is_some_and(|row| row.volumes.iter().any(|volume| volume.name == place.volume));
        if there {
            Ok(())
        } else {
            Err(EngineError::UnknownPlace(place.backend.clone()))
        }
    }
}
