//! The migrator as a process of its own: finishes the moves that nobody finishes.

use std::sync::Arc;

use daemon::clock;
use daemon::health::{Health, serve_observability};
use daemon::identity::{Identity, IdentityError};
use daemon::listener::{self, BindError};
use daemon::log::causes;
use daemon::shutdown::Shutdown;
use directory_api::client::{ClientOptions, DirectoryClient};
use directory_api::wire::MoveRecord;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use store_api::Backends;
use store_api::transfer::PullProgress;
use tokio::task::JoinSet;

use crate::Config;
use crate::perform::{Mover, Watch};
use crate::step::Step;

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Runs until `shutdown`. Starts whether or not the directory is there.
///
/// # Errors
/// [`RunError`], before anything is done.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let identity = Arc::new(Identity::load(&config.identity)?);
    let observed = listener::bind(config.metrics_listen, "migrator metrics")?;
    let directory = DirectoryClient::new(&config.directory, &identity, &ClientOptions::default());
    let backends = Backends::new(Arc::clone(&identity), directory.clone());
    let mover = Mover::new(directory, backends).within(config.limits());
    let health = Health::new("migrator");
    describe();
    shutdown.spawn(serve_observability(
        observed,
        health.clone(),
        shutdown.clone(),
    ));
    let waits_for = format!("directory at {}", config.directory);
    health.set_waiting(waits_for.clone());
    loop {
        match mover.unfinished().await {
            Ok(moves) => {
                health.arrived(&waits_for);
                health.set_ready();
                gauge!("posthouse_migrator_moves_unfinished").set(moves.len() as f64);
                take_up(&mover, &config, moves, &shutdown).await;
            }
            Err(error) => {
                health.set_waiting(waits_for.clone());
                tracing::debug!(error = causes(&error), "directory gave no moves");
            }
        }
        let pause = if health.is_ready() {
            config.interval()
        } else {
            RETRY
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

/// Between attempts to reach the directory.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Several at once, in their order: one that hangs must not keep the users of the others waiting.
async fn take_up(mover: &Mover, config: &Config, moves: Vec<MoveRecord>, shutdown: &Shutdown) {
    let now_ms = clock::now_ms();
    let abandoned = |record: &MoveRecord| is_abandoned(record, now_ms, config.abandoned_after_s);
    let mut left = moves.into_iter().filter(abandoned);
    let mut running = JoinSet::new();
    loop {
        while running.len() < config.moves_max
            && let Some(record) = left.next()
        {
            running.spawn(finish(mover.clone(), record));
        }
        tokio::select! {
            ended = running.join_next() => if ended.is_none() { return },
            // The moves stay where their records say; the next process goes on.
            () = shutdown.requested() => return,
        }
    }
}

async fn finish(mover: Mover, mut record: MoveRecord) {
    tracing::info!(account = %record.account, move_id = %record.id, state = ?record.state, "taking up a move");
    let finished = mover.finish(&mut record, None, &mut Silent).await;
    let outcome = match finished {
        Ok(()) => "finished",
        Err(error) => {
            tracing::warn!(account = %record.account, move_id = %record.id, error = causes(&error), "move is not finished");
            "failed"
        }
    };
    counter!("posthouse_migrator_moves_total", "outcome" => outcome).increment(1);
}

/// A clock that runs ahead of the one that wrote the record makes a move look older, never younger.
fn is_abandoned(record: &MoveRecord, now_ms: i64, after_s: u64) -> bool {
    let after_ms = i64::try_from(after_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    now_ms.saturating_sub(record.updated_ms) >= after_ms
}

struct Silent;

impl Watch for Silent {
    fn step(&mut self, _: Step) {}

    fn copied(&mut self, _: &PullProgress) {}
}

fn describe() {
    describe_counter!(
        "posthouse_migrator_moves_total",
        "Moves taken up, by outcome."
    );
    describe_gauge!(
        "posthouse_migrator_moves_unfinished",
        "Moves that are neither released nor aborted."
    );
}
