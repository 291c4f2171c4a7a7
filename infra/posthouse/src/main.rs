//! The `posthouse` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    posthouse::main()
}
