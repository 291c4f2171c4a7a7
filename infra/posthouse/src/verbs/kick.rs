//! `posthouse kick`: ends sessions at the proxies, with a word to the user.

use std::str::FromStr;

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
    /// A login name: all sessions of that user. Or one session as `posthouse connections` names it, such as proxy:17
    #[arg(value_name = "USER|SESSION")]
    whose: Whose,
    /// Only sessions at this back-end
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    User(LoginName),
    Session { proxy: String, id: u64 },
}

impl FromStr for Whose {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((proxy, id)) = text.rsplit_once(':')
            && let Ok(id) = id.parse()
        {
            let proxy = proxy.to_owned();
            return Ok(Self::Session { proxy, id });
        }
        let user = LoginName::new(text);
        user.map(Self::User)
            .map_err(|_| "neither a login name nor a session such as proxy:17")
    }
}

/// Asks the proxies.
pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (_, proxies) = reach(source).await?;
        let (at, id, user) = match options.whose {
            Whose::User(user) => (None, None, Some(user)),
            Whose::Session { proxy, id } => (Some(proxy), Some(id), None),
        };
        let which = Which {
            id,
            user,
            backend: options.backend,
        };
        let mut ended = 0;
        for proxy in proxies {
            if at.as_ref().is_none_or(|at| *at == proxy.name) {
                let kicked = proxy.client.kick(&which).await;
                ended += kicked
                    .map_err(|error| proxies::told(&proxy.name, error))?
                    .ended;
            }
        }
        match output.json {
            true => print_line(json!({ "ended": ended })),
            false => print_line(format_args!("{ended} sessions end")),
        }
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_from_a_user() {
        let session = |proxy: &str, id| Whose::Session {
            proxy: proxy.to_owned(),
            id,
        };
        assert_eq!("proxy:17".parse(), Ok(session("proxy", 17)));
        let user = LoginName::new("ann@example.test").unwrap();
        assert_eq!("ann@example.test".parse(), Ok(Whose::User(user)));
        assert!("".parse::<Whose>().is_err());
    }
}
