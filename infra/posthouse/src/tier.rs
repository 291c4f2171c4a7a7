//! `posthouse tier`: one tier in this process, for `posthouse up --processes`.

use std::ffi::OsString;
use std::process::ExitCode;

use daemon::tier::main_with;

use crate::nodes::Tier;
use crate::up::end_with;

pub(crate) fn main(tier: Tier, supervisor: Option<u32>, arguments: Vec<OsString>) -> ExitCode {
    if let Some(Err(error)) = supervisor.map(end_with) {
        eprintln!(
            "posthouse tier {tier}: cannot be bound to the process that started it ({error})"
        );
        return ExitCode::FAILURE;
    }
    let (name, prefix) = (tier.to_string(), tier.env_prefix());
    let arguments = arguments.into_iter();
    match tier {
        Tier::Directory => main_with(arguments, &name, prefix, directory::run),
        Tier::StoreBackend => main_with(arguments, &name, prefix, store_backend::run),
        Tier::MxFrontend => main_with(arguments, &name, prefix, mx_frontend::run),
        Tier::PopImapProxy => main_with(arguments, &name, prefix, pop_imap_proxy::run),
    }
}
