//! The `mx-frontend` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::tier::main("mx-frontend", "MX_FRONTEND", mx_frontend::run)
}
