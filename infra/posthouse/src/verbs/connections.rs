//! `posthouse connections`: the sessions that are open at the proxies.

use directory_api::{BackendName, LoginName};
use pop_imap_proxy::operate::{Connection, ListConnections, Which};
use serde::Serialize;

use super::proxies::{self, reach};
use super::{Output, Row, VerbError};
use crate::cli::Source;

/// Which sessions are shown.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only those of this user
    #[arg(long, value_name = "LOGIN")]
    user: Option<LoginName>,
    /// Only those at this back-end
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
    /// Show so many at most
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Asks every proxy and prints.
pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (_, proxies) = reach(source).await?;
        let which = Which {
            trace_id: None,
            user: options.user,
            backend: options.backend,
        };
        let mut shown = Vec::new();
        let mut is_all = true;
        for proxy in proxies {
            let mut after = None;
            loop {
                let left = options.limit - shown.len();
                if left == 0 {
                    // Whether this proxy has any more of them is not asked.
                    is_all = false;
                    break;
                }
                let asked = ListConnections {
                    which: which.clone(),
                    after,
                    limit: Some(left),
                };
                let page = proxy.client.connections(&asked).await;
                let page = page.map_err(|error| proxies::told(&proxy.name, error))?;
                shown.extend(page.connections.into_iter().map(|connection| Shown {
                    proxy: proxy.name.clone(),
                    connection,
                }));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        output.rows(&shown);
        if !is_all {
            eprintln!(
                "posthouse: {} shown, there may be more; --limit shows them",
                shown.len()
            );
        }
        Ok(())
    })?
}

#[derive(Serialize)]
struct Shown {
    proxy: String,
    #[serde(flatten)]
    connection: Connection,
}

impl Row for Shown {
    const HEADINGS: &'static [&'static str] = &[
        "PROXY",
        "SESSION",
        "USER",
        "SERVICE",
        "CLIENT",
        "BACKEND",
        "AGE",
        "FROM USER",
        "TO USER",
    ];

    fn cells(&self) -> Vec<String> {
        let one = &self.connection;
        vec![
            self.proxy.clone(),
            one.trace_id.clone(),
            one.user.to_string(),
            one.service.clone(),
            one.client.clone(),
            one.backend.to_string(),
            format!("{} s", one.age_s),
            one.octets_from_user.to_string(),
            one.octets_to_user.to_string(),
        ]
    }
}
