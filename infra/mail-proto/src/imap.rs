//! The server's side of IMAP. RFC 3501, RFC 9051.

mod login;
mod syntax;

pub use login::Login;
