//! Back-ends and what they announce.

use std::ops::Bound;

use directory_api::wire::{
    AnnounceReply, AnnounceRequest, Backend, BackendPut, ChangeKind, Changed, FOREIGN_VOLUME,
    Foreign, ForeignService, ListQuery, MoveRecord, MoveState, Page, Volume, VolumePosition, limit,
};
use directory_api::{BackendName, BackendState, VolumeName};
use tracing::warn;

use super::{Answer, EngineError, Table, View, Write, decode, scan};
use crate::engine::record::{BackendRow, VolumeRow};

pub(super) fn name_of(key: &[u8]) -> Answer<BackendName> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|name| BackendName::new(name).ok())
        .ok_or_else(|| EngineError::Storage("a key of the table of back-ends is damaged".into()))
}

fn shown(name: BackendName, row: &BackendRow) -> Backend {
    Backend {
        name,
        address: row.address.clone(),
        state: row.state,
        weight: row.weight,
        accounts: row.accounts,
        foreign: row.foreign.clone(),
        volumes: row
            .volumes
            .iter()
            .map(|volume| Volume {
                name: volume.name.clone(),
                incarnation: volume.incarnation,
                position: volume.position,
            })
            .collect(),
    }
}

impl View<'_> {
    pub(super) fn backend(&self, name: &BackendName) -> Answer<Backend> {
        let row: Option<BackendRow> = self.read(Table::Backends, name.as_str().as_bytes())?;
        Ok(shown(name.clone(), &row.ok_or(EngineError::NotFound)?))
    }

    pub(super) fn list_backends(&self, query: &ListQuery) -> Answer<Page<Backend>> {
        let after = query
            .after
            .as_ref()
            .map(|name| name.to_lowercase().into_bytes());
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let state: Option<BackendState> = scan::status(query)?;
        scan::page(
            self.rows,
            Table::Backends,
            query,
            after.as_deref(),
            text,
            |key, row| {
                let name = name_of(key)?;
                if !scan::passes(query, name.as_str()) {
                    return Ok(None);
                }
                let row: BackendRow = decode(row)?;
                let wanted = state.is_none_or(|state| state == row.state);
                Ok(wanted.then(|| shown(name, &row)))
            },
        )
    }
}

impl Write<'_> {
    pub(super) fn put_backend(
        &mut self,
        name: &BackendName,
        put: BackendPut,
    ) -> Answer<Changed<Backend>> {
        let key = name.as_str().as_bytes();
        let before: Option<BackendRow> = self.view().read(Table::Backends, key)?;
        let mut row = match (&before, &put.address, &put.foreign) {
            (Some(row), _, _) => row.clone(),
            (None, Some(address), None) => new_row(address),
            (None, _, Some(_)) => new_row(""),
            (None, None, None) => {
                return Err(EngineError::Invalid(
                    "a new back-end needs an address (host:port)",
                ));
            }
        };
        let is_foreign = put.foreign.is_some() || row.foreign.is_some();
        match (put.address, is_foreign) {
            (Some(_), true) => {
                return Err(EngineError::Invalid(
                    "a foreign back-end has addresses of its IMAP and POP3, and no other",
                ));
            }
            (Some(address), false) => row.address = address,
            (None, _) => {}
        }
        if let Some(foreign) = put.foreign {
            make_foreign(&mut row, foreign)?;
        }
        row.state = put.state.unwrap_or(row.state);
        row.weight = put.weight.unwrap_or(row.weight);
        if row.weight == 0 {
            return Err(EngineError::Invalid(
                "a weight is at least 1; drain the back-end instead",
            ));
        }
        if let Some(adopted) = put.adopt_volume {
            let volume = row.volumes.iter_mut().find(|volume| volume.name == adopted);
            let volume = volume.ok_or_else(|| EngineError::UnknownPlace(name.clone()))?;
            volume.incarnation = None;
            volume.position = 0;
        }
        if before.as_ref() != Some(&row) {
            self.put(Table::Backends, key, &row)?;
            self.changed(ChangeKind::Backend, name.as_str())?;
        }
        Ok(self.reply(shown(name.clone(), &row)))
    }

    pub(super) fn delete_backend(&mut self, name: &BackendName) -> Answer<Changed<Backend>> {
        let key = name.as_str().as_bytes();
        let row: BackendRow = self
            .view()
            .read(Table::Backends, key)?
            .ok_or(EngineError::NotFound)?;
        if row.accounts > 0 {
            return Err(EngineError::InUse("accounts still live on the back-end"));
        }
        let moves = self.view().rows.walk(Table::Moves, Bound::Unbounded)?;
        for row in moves {
            let moving: MoveRecord = decode(&row?.1)?;
            // One that is being given up only waits for this back-end to let its copy go.
            if moving.to.backend == *name
                && !moving.state.is_final()
                && moving.state != MoveState::Aborting
            {
                return Err(EngineError::InUse(
                    "an account is being moved to the back-end: finish the move or give it up",
                ));
            }
        }
        self.rows.delete(Table::Backends, key)?;
        self.changed(ChangeKind::Backend, name.as_str())?;
        Ok(self.reply(shown(name.clone(), &row)))
    }

    /// Takes over address, new volumes and later positions. Positions alone are no change: nobody
    /// caches them, and every back-end sends them every few seconds.
    pub(super) fn announce(&mut self, request: AnnounceRequest) -> Answer<AnnounceReply> {
        if request.volumes.len() > limit::VOLUMES_MAX {
            return Err(EngineError::Invalid("a back-end has at most 256 volumes"));
        }
        let key = request.backend.as_str().as_bytes();
        let before: Option<BackendRow> = self.view().read(Table::Backends, key)?;
        let mut row = before.clone().unwrap_or_else(|| new_row(&request.address));
        if row.foreign.is_some() {
            return Err(EngineError::Invalid(
                "a foreign back-end has that name; give this one another",
            ));
        }
        let mut news = before.is_none() || row.address != request.address;
        row.address = request.address;
        let known = row.volumes.iter().filter_map(known).collect();
        for announced in request.volumes {
            let Some(volume) = row
                .volumes
                .iter_mut()
                .find(|volume| volume.name == announced.name)
            else {
                news = true;
                row.volumes.push(VolumeRow {
                    name: announced.name,
                    incarnation: Some(announced.incarnation),
                    position: announced.position,
                });
                continue;
            };
            match volume.incarnation {
                None => {
                    news = true;
                    volume.incarnation = Some(announced.incarnation);
                    volume.position = announced.position;
                }
                Some(life)
                    if life == announced.incarnation && volume.position <= announced.position =>
                {
                    volume.position = announced.position;
                }
                Some(life) => warn!(
                    backend = %request.backend,
                    volume = %volume.name,
                    known_incarnation = %life,
                    known_position = volume.position,
                    incarnation = %announced.incarnation,
                    position = announced.position,
                    "volume was restored from an old copy; it refuses writes until it is adopted"
                ),
            }
        }
        if before.as_ref() != Some(&row) {
            self.put(Table::Backends, key, &row)?;
        }
        if news {
            self.changed(ChangeKind::Backend, request.backend.as_str())?;
        }
        Ok(AnnounceReply {
            change: self.last,
            state: row.state,
            known,
        })
    }
}

fn new_row(address: &str) -> BackendRow {
    BackendRow {
        address: address.to_owned(),
        state: BackendState::Active,
        weight: 1,
        volumes: Vec::new(),
        accounts: 0,
        foreign: None,
    }
}

/// Says where a foreign back-end is. One of ours stays one: its accounts would be looked for elsewhere.
fn make_foreign(row: &mut BackendRow, foreign: Foreign) -> Answer<()> {
    if row.foreign.is_none() && !(row.address.is_empty() && row.volumes.is_empty()) {
        return Err(EngineError::Invalid(
            "a back-end of ours does not become a foreign one; add one of another name",
        ));
    }
    let services = [&foreign.imap, &foreign.pop3];
    let services: Vec<&ForeignService> = services.into_iter().flatten().collect();
    let Some(first) = services.first() else {
        return Err(EngineError::Invalid(
            "a foreign back-end needs the address of its IMAP, its POP3, or both",
        ));
    };
    if !services.iter().all(|service| service.is_sensible()) {
        return Err(EngineError::Invalid(
            "the address of a foreign service is host:port",
        ));
    }
    // Whoever does not know of foreign ones meets a program there that does not speak with it, which is temporary.
    row.address = first.address.clone();
    if row.volumes.is_empty() {
        row.volumes.push(VolumeRow {
            name: VolumeName::new(FOREIGN_VOLUME).map_err(|_| EngineError::Invalid("no volume"))?,
            incarnation: None,
            position: 0,
        });
    }
    row.foreign = Some(foreign);
    Ok(())
}

fn known(volume: &VolumeRow) -> Option<VolumePosition> {
    Some(VolumePosition {
        name: volume.name.clone(),
        incarnation: volume.incarnation?,
        position: volume.position,
    })
}
