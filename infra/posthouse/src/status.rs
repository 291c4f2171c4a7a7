//! `posthouse status`: the health of every tier of a running system.

use daemon::output::print_line;
use std::fs;

use directory_api::operator::{DirectorySource, SourceError};
use serde_json::json;

use crate::endpoints::Endpoints;
use crate::health::{self, Condition};
use crate::verbs::{Output, VerbError, table};

/// Prints what each tier says; true when all are ready.
///
/// # Errors
/// When the endpoints cannot be found.
pub(crate) fn run(source: &DirectorySource, output: &Output) -> Result<bool, VerbError> {
    let path = source.endpoints_file();
    let text = fs::read(&path).map_err(|source| SourceError::NotUp {
        path: path.clone(),
        source,
    })?;
    let endpoints: Endpoints = serde_json::from_slice(&text)
        .map_err(|source| SourceError::NoEndpoints { path, source })?;
    let conditions = crate::verbs::block_on(async {
        let mut conditions = Vec::new();
        for (node, address) in &endpoints.metrics {
            let (condition, notes) = health::look(*address).await;
            conditions.push((node, *address, notes.join("; "), condition));
        }
        conditions
    })?;
    let all_ready = conditions
        .iter()
        .all(|(.., condition)| *condition == Condition::Ready);
    let word = |condition: &Condition| match condition {
        Condition::Ready => ("ready", String::new()),
        Condition::Waiting(what) => ("waiting", what.join(", ")),
        Condition::Away => ("away", String::new()),
    };
    if output.json {
        for (node, address, notes, condition) in &conditions {
            let (status, what) = word(condition);
            print_line(format_args!(
                "{}",
                json!({ "tier": node, "status": status, "for": what, "notes": notes, "metrics": address, "pid": endpoints.pids.get(*node) })
            ));
        }
    } else {
        let mut table = table(&[
            "TIER",
            "STATUS",
            "WAITS FOR",
            "TO LOOK AT",
            "HEALTH AND METRICS",
            "PROCESS",
        ]);
        for (node, address, notes, condition) in &conditions {
            let (status, what) = word(condition);
            let pid = endpoints
                .pids
                .get(*node)
                .map(ToString::to_string)
                .unwrap_or_default();
            table.add_row([
                (*node).clone(),
                status.to_owned(),
                what,
                notes.clone(),
                format!("http://{address}"),
                pid,
            ]);
        }
        print_line(&table);
    }
    Ok(all_ready)
}
