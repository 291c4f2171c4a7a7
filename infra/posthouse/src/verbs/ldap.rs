//! `posthouse ldap …`: how the users who come from LDAP are kept up.

use daemon::output::print_line;
use directory_api::DirectoryClient;
use directory_api::wire::{LdapState, LdapSync};

use super::{Output, VerbError, told};
use crate::backup::Moment;

const NOUN: &str = "LDAP";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// When it was looked last, how many users there are, and what of them was not taken
    Status,
    /// Look at everything in LDAP now
    Sync {
        /// Let so many users lose their account, an address or their login: after the alarm that too many would
        #[arg(long, value_name = "USERS")]
        losses_max: Option<usize>,
    },
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        let state = match self {
            Self::Status => directory.ldap().await,
            Self::Sync { losses_max } => directory.ldap_sync(&LdapSync { losses_max }).await,
        };
        let state = state.map_err(|error| told(NOUN, "", error))?;
        if output.json {
            print_line(serde_json::to_string(&state).unwrap_or_default());
        } else {
            print(&state);
        }
        Ok(())
    }
}

fn print(state: &LdapState) {
    if state.off {
        print_line("the directory takes no users from LDAP: its settings name no server");
        return;
    }
    if state.standby {
        print_line("another directory server on the same database looks at LDAP");
    }
    let at = |ms: Option<i64>| ms.map_or("never".to_owned(), |ms| Moment(ms).to_string());
    print_line(format_args!(
        "users: {}; last look {}, at everything {}",
        state.users,
        at(state.looked_ms),
        at(state.looked_at_all_ms)
    ));
    if let Some(failure) = &state.failure {
        print_line(format_args!(
            "the last look failed, users stay as they are: {failure}"
        ));
    }
    if state.held > 0 {
        print_line(format_args!(
            "HELD: {} users would lose their account, an address or their login, which is too many at once. If that is right: \
             posthouse ldap sync --losses-max {}",
            state.held, state.held
        ));
    }
    if state.left_out_count > 0 {
        print_line(format_args!(
            "of {} entries something was not taken:",
            state.left_out_count
        ));
    }
    for one in &state.left_out {
        print_line(format_args!("  {one}"));
    }
}
