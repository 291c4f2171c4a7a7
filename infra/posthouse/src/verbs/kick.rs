//! `posthouse kick`: ends sessions at the proxies, with a word to the user.

use daemon::output::print_line;
use directory_api::{BackendName, LoginName};
use pop_imap_proxy::operate::Which;
use serde_json::json;

use super::proxies::{self, reach};
use super::{Output, VerbError};
use crate::cli::Source;

/// Whose sessions end.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// All sessions of the user with this login name
    #[arg(required_unless_present = "session", conflicts_with = "session")]
    user: Option<LoginName>,
    /// One session, as `posthouse connections` and the logs of every tier name it
    #[arg(long, value_name = "TRACE")]
    session: Option<String>,
    /// Only sessions at this back-end
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
}

/// Asks the proxies.
pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (_, proxies) = reach(source).await?;
        let which = Which {
            trace_id: options.session,
            user: options.user,
            backend: options.backend,
        };
        let mut ended = 0;
        for proxy in proxies {
            let kicked = proxy.client.kick(&which).await;
            ended += kicked
                .map_err(|error| proxies::told(&proxy.name, error))?
                .ended;
        }
        if ended == 0 {
            return Err(VerbError::NoSuchSession);
        }
        match output.json {
            true => print_line(json!({ "ended": ended })),
            false if ended == 1 => print_line("1 session ends"),
            false => print_line(format_args!("{ended} sessions end")),
        }
        Ok(())
    })?
}
