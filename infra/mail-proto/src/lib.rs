//! The mail protocols as pure cores: bytes in, events out.
//!
//! Nothing here opens a socket, reads a clock, or awaits. A shell in one of
//! the tiers feeds octets with `receive`, asks for the next step with `next`,
//! does what the step says, and answers its questions. Time limits, look-ups
//! and TLS are therefore the shell's; grammar, order of commands, framing and
//! every limit on memory are decided here.
//!
//! How a shell drives any of the cores:
//!
//! ```text
//! loop {
//!     match core.next() {
//!         NeedInput   => read at most core.room() octets, core.receive(them)
//!         Send(bytes) => write them all
//!         a question  => decide (may await), then call the answering method
//!         Close       => close the connection
//!     }
//! }
//! ```

pub mod address;
pub mod imap;
mod input;
pub mod login;
pub mod mime;
mod output;
pub mod password;
pub mod pop3;
mod quirks;
pub mod sasl;
pub mod smtp;
pub mod stuffing;
pub mod trace;

pub use address::{Address, AddressError};
pub use login::{Credentials, LoginDialogue, LoginEvent, LoginStep, Refusal};
pub use password::Password;
