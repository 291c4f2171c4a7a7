//! The `pop-imap-proxy` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::tier::main("pop-imap-proxy", "POP_IMAP_PROXY", pop_imap_proxy::run)
}
