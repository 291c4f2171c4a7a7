//! The store back-end as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::tier::main("store-backend", "STORE_BACKEND", store_backend::run)
}
