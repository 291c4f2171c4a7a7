//! Commands of the TRANSACTION state. RFC 1939 §5, §7.

/// One command. Message numbers are as sent, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Count and size.
    Stat,
    /// Sizes of one or all.
    List(Option<u64>),
    /// Unique ids of one or all.
    Uidl(Option<u64>),
    /// The whole message.
    Retr(u64),
    /// Header and the first lines of the body.
    Top {
        /// Message number.
        number: u64,
        /// Lines of the body.
        lines: u64,
    },
    /// Marks for deletion.
    Dele(u64),
    /// Takes the marks away.
    Rset,
    /// Nothing.
    Noop,
    /// Capabilities, RFC 2449.
    Capa,
    /// Ends the session; the deletions happen.
    Quit,
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// No such command in this state.
    Unknown,
    /// Arguments missing, too many, or not numbers.
    Arguments,
}

impl Command {
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::Unknown)?;
        // The word alone decides first, so that a known command with wrong
        // arguments is called that.
        let mut words = line.trim_end_matches(' ').split(' ');
        let word = words.next().unwrap_or_default();
        let (first, second, third) = (words.next(), words.next(), words.next());
        let none = |command| {
            if first.is_none() {
                Ok(command)
            } else {
                Err(CommandError::Arguments)
            }
        };
        let one = || {
            if second.is_none() {
                first.map(number).transpose()
            } else {
                Err(CommandError::Arguments)
            }
        };
        let required = || one()?.ok_or(CommandError::Arguments);
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        match () {
            () if is("STAT") => none(Self::Stat),
            () if is("LIST") => Ok(Self::List(one()?)),
            () if is("UIDL") => Ok(Self::Uidl(one()?)),
            () if is("RETR") => Ok(Self::Retr(required()?)),
            () if is("DELE") => Ok(Self::Dele(required()?)),
            () if is("RSET") => none(Self::Rset),
            () if is("NOOP") => none(Self::Noop),
            () if is("CAPA") => none(Self::Capa),
            () if is("QUIT") => none(Self::Quit),
            () if is("TOP") => match (first, second, third) {
                (Some(first), Some(second), None) => Ok(Self::Top {
                    number: number(first)?,
                    lines: number(second)?,
                }),
                _ => Err(CommandError::Arguments),
            },
            () => Err(CommandError::Unknown),
        }
    }
}

fn number(word: &str) -> Result<u64, CommandError> {
    // `parse` alone would let a plus sign pass.
    let is_number = !word.is_empty() && word.bytes().all(|digit| digit.is_ascii_digit());
    if is_number {
        word.parse().map_err(|_| CommandError::Arguments)
    } else {
        Err(CommandError::Arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_one_command_or_one_mistake() {
        use CommandError::{Arguments, Unknown};
        for (line, expected) in [
            ("STAT", Ok(Command::Stat)),
            ("stat ", Ok(Command::Stat)),
            ("LIST", Ok(Command::List(None))),
            ("LIST 3", Ok(Command::List(Some(3)))),
            (
                "UIDL 18446744073709551615",
                Ok(Command::Uidl(Some(u64::MAX))),
            ),
            (
                "Top 1 0",
                Ok(Command::Top {
                    number: 1,
                    lines: 0,
                }),
            ),
            ("STAT 1", Err(Arguments)),
            ("RETR", Err(Arguments)),
            ("RETR x", Err(Arguments)),
            ("RETR +1", Err(Arguments)),
            ("RETR -1", Err(Arguments)),
            ("RETR 1 2", Err(Arguments)),
            ("RETR  1", Err(Arguments)),
            ("RETR 18446744073709551616", Err(Arguments)),
            ("TOP 1", Err(Arguments)),
            ("TOP 1 2 3", Err(Arguments)),
            ("", Err(Unknown)),
            ("USER joe", Err(Unknown)),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(Command::parse(b"STAT\xff"), Err(Unknown));
    }
}
