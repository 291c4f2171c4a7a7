//! Reads a password: never from the command line, where every user of the machine could see it.

use std::io::{self, BufRead, IsTerminal, Read, Write, stdin};

use directory_api::wire::{Credential, Secret, limit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::VerbError;

/// Reads a password, or another server's hash of one, which the directory checks itself.
pub(super) fn credential(plain: bool, hashed: bool) -> Result<Credential, VerbError> {
    if !hashed {
        return read(plain).map(Credential::Password);
    }
    let line = typed(plain, "Hashed password, as {SCHEME}…: ").map_err(VerbError::Password)?;
    Ok(Credential::Hashed(Secret::new(line)))
}

/// Asks at a terminal without showing what is typed; otherwise, or when `plain`, takes one line from standard input.
fn read(plain: bool) -> Result<Secret, VerbError> {
    let line = typed(plain, "Password: ").map_err(VerbError::Password)?;
    match line.len() {
        0 => Err(VerbError::PasswordLength(
            "is empty; --no-password makes an account without one",
        )),
        octets if octets > limit::PASSWORD_MAX_OCTETS => {
            Err(VerbError::PasswordLength("is longer than 1024 octets"))
        }
        _ => Ok(Secret::new(line)),
    }
}

fn typed(plain: bool, prompt: &str) -> io::Result<String> {
    if plain || !stdin().is_terminal() {
        line(&mut stdin().lock())
    } else {
        asked(prompt)
    }
}

fn asked(prompt: &str) -> io::Result<String> {
    eprint!("{prompt}");
    io::stderr().flush()?;
    let hidden = Hidden::begin()?;
    let line = line(&mut stdin().lock());
    drop(hidden);
    eprintln!();
    line
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(LINE_MAX_OCTETS).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal does not show what is typed while this lives.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

/// More than any password or stored form, so that one that is too long is seen as such.
const LINE_MAX_OCTETS: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_password_with_or_without_its_end() {
        for text in ["a b\n", "a b\r\n", "a b", "a b\nmore\n"] {
            assert_eq!(line(&mut text.as_bytes()).unwrap(), "a b");
        }
    }
}
