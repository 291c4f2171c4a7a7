//! `posthouse drain`: takes a proxy, or a back-end at all proxies, out of service for users.
//!
//! Softly: nobody gets in any more, and it is waited until the last has left. With `--hard` who is still there after a
//! while is told to come back, which at a proxy means at another one.

use std::time::Duration;

use daemon::output::print_line;
use directory_api::BackendName;
use pop_imap_proxy::operate::{Drain, Which};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::proxies::{self, Proxy, reach};
use super::{Output, VerbError, told};
use crate::cli::Source;

/// What is drained, and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A proxy's or a back-end's name
    name: String,
    /// End the sessions that are still open after so many seconds, with a word to the user
    #[arg(long, value_name = "SECONDS", conflicts_with = "undo")]
    hard: Option<u64>,
    /// Do not wait until the last session has ended
    #[arg(long, conflicts_with_all = ["hard", "undo"])]
    no_wait: bool,
    /// Take sessions again
    #[arg(long)]
    undo: bool,
}

/// Asks the proxies, and waits.
pub(crate) fn perform(options: &Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (directory, mut proxies) = reach(source).await?;
        let backend = if proxies.iter().any(|proxy| proxy.name == options.name) {
            proxies.retain(|proxy| proxy.name == options.name);
            None
        } else {
            let name = BackendName::new(options.name.as_str());
            let name = name.map_err(|_| VerbError::NoSuchNode(options.name.clone()))?;
            let known = directory.backend(&name).await;
            let known = known.map_err(|error| told("backend", &options.name, error))?;
            Some(known.name)
        };
        let mut drain = Drain {
            backend,
            on: Some(!options.undo),
        };
        let began = Instant::now();
        let hard_at = options.hard.map(|grace| began + Duration::from_secs(grace));
        let mut told_open = None;
        loop {
            let (open, is_on) = ask(&proxies, &drain).await?;
            // Said once: what somebody else says meanwhile holds.
            drain.on = None;
            if !is_on && !options.undo {
                return Err(VerbError::Undone(options.name.clone()));
            }
            if told_open.replace(open) != Some(open) {
                match output.json {
                    true => print_line(json!({ "open": open })),
                    false => print_line(format_args!("{open} sessions open")),
                }
            }
            if open == 0 || options.undo || options.no_wait {
                return Ok(());
            }
            if hard_at.is_some_and(|at| Instant::now() >= at) {
                let which = Which {
                    backend: drain.backend.clone(),
                    ..Which::default()
                };
                for proxy in &proxies {
                    let kicked = proxy.client.kick(&which).await;
                    kicked.map_err(|error| proxies::told(&proxy.name, error))?;
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    })?
}

/// Says it where there is something to say, counts what is open, and tells whether all of them take no more.
async fn ask(proxies: &[Proxy], drain: &Drain) -> Result<(usize, bool), VerbError> {
    let (mut open, mut is_on) = (0, true);
    for proxy in proxies {
        let told = proxy.client.drain(drain).await;
        let told = told.map_err(|error| proxies::told(&proxy.name, error))?;
        open += told.open;
        is_on &= told.is_on;
    }
    Ok((open, is_on))
}

/// A session that is told to end takes a second or more.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
