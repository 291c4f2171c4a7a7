//! The directory as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::tier::main("directory", "DIRECTORY", directory::run)
}
