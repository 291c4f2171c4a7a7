//! What a command prints for a person or a program.

use std::{
    fmt::Display,
    io::{self, Write},
    process,
};

/// Writes a line to standard output.
///
/// A reader that has gone (`posthouse account list | head`) ends the program at once, with the exit code that a shell
/// shows for other commands then. Any other failure of standard output leaves nobody to tell.
pub fn print_line(line: impl Display) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        process::exit(BROKEN_PIPE_EXIT_CODE);
    }
}

/// 128 + SIGPIPE.
const BROKEN_PIPE_EXIT_CODE: i32 = 141;
