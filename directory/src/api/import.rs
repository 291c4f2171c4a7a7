//! Many things at once.

use axum::extract::State;
use axum::{Extension, Json};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::wire::{Credential, Import, ImportOutcome, ImportReply, ImportRow, code, limit};

use super::extract::Body;
use super::reply::{refused, too_many};
use super::{App, Reply, Shared, report, verbs};
use crate::engine::{Brought, Engine, ImportDraft, RowDraft};

pub(super) async fn import<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(import): Body<Import>,
) -> Reply<ImportReply> {
    require(&peer, &[Role::Operator])?;
    if import.rows.len() > limit::IMPORT_ROWS_MAX {
        return Err(too_many("rows in one import", limit::IMPORT_ROWS_MAX));
    }
    // What cannot be kept as a password is refused here, in its place among the others.
    let mut outcomes = Vec::with_capacity(import.rows.len());
    let mut rows = Vec::with_capacity(import.rows.len());
    for row in import.rows {
        match draft(&app, row).await {
            Ok(row) => {
                rows.push(row);
                outcomes.push(None);
            }
            Err(problem) => outcomes.push(Some(told(problem)?)),
        }
    }
    let on_trial = import.on_trial;
    let import = ImportDraft {
        rows,
        update: import.update,
        update_passwords: import.update_passwords,
        on_trial,
    };
    let brought = app.engine.import(import, now_ms()).await.map_err(refused)?;
    let mut rest = brought.now.into_iter();
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
        *outcome = Some(match rest.next() {
            Some(Ok(Brought::Created)) => ImportOutcome::Created,
            Some(Ok(Brought::Equal)) => ImportOutcome::Equal,
            Some(Ok(Brought::Updated)) => ImportOutcome::Updated,
            Some(Err(error)) => told(refused(error))?,
            None => return Err(Problem::internal()),
        });
    }
    if !on_trial {
        report(&peer, brought.change, "import", &outcomes.len().to_string());
    }
    Ok(Json(ImportReply {
        change: brought.change,
        outcomes: outcomes.into_iter().flatten().collect(),
    }))
}

async fn draft<E: Engine>(app: &App<E>, row: ImportRow) -> Result<RowDraft, Problem> {
    Ok(match row {
        ImportRow::Domain(domain) => RowDraft::Domain(domain),
        ImportRow::Address(address) => RowDraft::Address(address),
        ImportRow::Account(mut account) => {
            let credential = match account.credential.take() {
                None => None,
                Some(Credential::Password(_)) => {
                    return Err(Problem::bad_request(
                        "a clear password is given as {PLAIN} and kept slowly hashed by the next login",
                    ));
                }
                Some(hashed) => Some(verbs::stored(app, &account.login_name, hashed).await?),
            };
            RowDraft::Account(account, credential)
        }
    })
}

/// A refusal of one row; what is wrong with the directory itself ends the whole.
fn told(problem: Problem) -> Result<ImportOutcome, Problem> {
    if problem.code == code::STORAGE || problem.status.is_server_error() {
        return Err(problem);
    }
    Ok(ImportOutcome::Refused {
        code: problem.code.into_owned(),
        message: problem.message,
    })
}
