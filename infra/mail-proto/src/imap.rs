//! The server's side of IMAP. RFC 3501, RFC 9051.
//!
//! Two halves, because a proxy parses only up to the login and then copies:
//! [`Login`] before, the modules here after.
//!
//! ```text
//! octets ─▶ framing::Framer ─▶ Frame ─▶ parse::command ─▶ command::Command ─▶ a verb
//!                 └─ message octets, streamed ─▶ the store        │
//!  socket ◀────────────── octets ◀─ encode::Encoder ◀─────────────┘
//! ```
//!
//! | what | signature |
//! |---|---|
//! | [`framing::Framer`] | `new(Limits)`, `next(&mut &[u8]) -> Step`, `accept_message()`, `refuse_message()`, `expect_line()`, `is_between_commands()` |
//! | [`framing::Step`] | `NeedInput`, `Continue`, `Command(Frame)`, `Message { frame, size }`, `MessageOctets`, `MessageEnd`, `AppendEnd(Frame)`, `Line(Frame)`, `Fault`, `HangUp` |
//! | [`parse::command`] | `(&Frame, NameForm) -> Result<Tagged<Command>, BadCommand>` |
//! | [`parse::message_head`] | `(&Frame, NameForm) -> Result<Tagged<MessageHead>, BadCommand>`: APPEND, REPLACE |
//! | [`parse::message_next`], [`parse::message_end`] | `(&Frame, &MessageOptions) -> Result<…>`: between and after messages |
//! | [`parse::is_done`] | `(&Frame) -> bool`: the line that ends IDLE |
//! | [`command::Command`] | one variant a verb, owned, `Send`; arguments in `command::{Fetch, Search, Store, List, …}` |
//! | [`sequence::SequenceSet`] | `resolve(largest) -> ranges`, `contains`, `from_numbers`, `encode` |
//! | [`mailbox::MailboxName`] | `decode(octets, NameForm)`, `encode(NameForm)`, `as_str()` |
//! | [`capability::Enabled`] | what ENABLE switched on; `utf8()` tells the `NameForm` |
//! | [`encode::Encoder`] | `new(&mut Vec<u8>, NameForm)`, then one method a response; [`encode::Code`] for response codes |
//! | [`encode::FetchWriter`] | one FETCH response, item by item; its literals can be streamed between |
//!
//! A message's literal never passes through memory as a whole: `Step::Message`
//! asks before it is read, `MessageOctets` lends what is there.
//!
//! A session's state is its own small values and these, all of them
//! serialisable: [`capability::Enabled`], the saved [`sequence::SequenceSet`],
//! [`command::NotifySet`], [`mailbox::MailboxName`]. A framer between commands
//! is made anew, with `expect_line()` inside IDLE.

pub mod capability;
mod chars;
pub mod command;
pub mod encode;
pub mod framing;
mod login;
pub mod mailbox;
pub mod parse;
pub mod sequence;
mod syntax;

pub use login::{CAPABILITIES_BEFORE_LOGIN, Login};
