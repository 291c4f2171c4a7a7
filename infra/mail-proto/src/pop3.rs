//! The server's side of POP3. RFC 1939, 2449, 2595, 3206, 5034, 6856.
//!
//! In two cores, because a proxy parses only up to the login and then copies:
//! [`Login`] for AUTHORIZATION, [`Transaction`] for TRANSACTION and UPDATE.

mod command;
mod login;
mod maildrop;
mod policy;
mod retrieve;
mod transaction;

use crate::login::Shut;

pub use command::{Command, CommandError};
pub use login::Login;
pub use maildrop::{Entry, Maildrop, Update};
pub use policy::{Expiry, Policy};
pub use retrieve::MessageEncoder;
pub use transaction::{Retrieve, RetrieveError, Step, Transaction};

/// RFC 2449 §4: a command is at most 255 octets with its CRLF.
const LINE_MAX: usize = 253;

fn shut_line(why: Shut) -> &'static str {
    match why {
        Shut::TimedOut => "-ERR idle for too long",
        Shut::GoingDown => "-ERR [SYS/TEMP] come back in a moment",
        Shut::Overloaded => "-ERR [SYS/TEMP] too many connections",
    }
}
