//! The back-end's contract for the other tiers, and the client that speaks it.
//!
//! Nine conversations, each over HTTP/2 streams of [`daemon::link`]: a delivery ([`deliver`]) and
//! the question before it ([`room`]), word of what its sender has read ([`answered`]), a user's session ([`session`]), a move ([`transfer`]), a backup ([`backup`]),
//! what was expunged coming back ([`undelete`]), what accounts cost ([`load`]) and what is held for others ([`hold`]). Bodies with mail in them are framed
//! ([`frame`]), so that an end is always said and never guessed from a closed stream.
//! This package never stores mail and never parses it.

pub mod answered;
pub mod away;
pub mod backends;
pub mod backup;
pub mod deliver;
pub mod frame;
pub mod hold;
pub mod load;
pub mod room;
pub mod session;
pub mod transfer;
pub mod undelete;

mod hex;

pub use backends::Backends;
pub use directory_api::wire::MoveId;
pub use hex::{BlobHash, ContentKey, EmailId, SetHash, TxnId};
