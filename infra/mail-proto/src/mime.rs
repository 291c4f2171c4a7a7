//! MIME as IMAP shows it: the structure of a message, its ENVELOPE, its
//! sections.
//!
//! A blob is scanned once, as it streams by: [`Scanner`] gives a
//! [`Structure`], a compact form for the index, and the header block. From
//! these come, without the body, the ready-to-send values of ENVELOPE
//! ([`Envelope`]), BODY and BODYSTRUCTURE ([`write_body_structure`]) and the
//! octet ranges of every section ([`Message`]). Mail is served as it is,
//! however broken: nothing here fails, it only finds less structure.
//!
//! A message is a prologue followed by a blob. Offsets in a [`Structure`] are
//! of the blob; [`Message`] adds the prologue where a client sees it. The two
//! headers are read apart, so that a blob that begins with white space does not
//! continue the last line of the prologue.
//!
//! Work is linear in the input, and memory bounded by the limits below; what
//! lies beyond them is body or an opaque part, never an error.

mod address;
mod body_structure;
mod content;
mod date;
mod envelope;
mod header;
mod message_id;
mod parameter;
mod scan;
mod section;
mod string;
mod structure;
mod subject;
#[cfg(test)]
mod tests;
mod token;
mod word;

pub use address::{AddressEntry, Addresses, Mailbox};
pub use body_structure::{BodyForm, write_body_structure};
pub use date::{DateTime, parse_date};
pub use envelope::Envelope;
pub use header::{Field, Fields, unfold, values_of};
pub use message_id::message_ids;
pub use parameter::decode_parameter;
pub use scan::{Scanned, Scanner};
pub use section::{FieldFilter, Message, Ranges};
pub use string::Dialect;
pub use structure::{Children, Kind, Pairs, Part, Structure, StructureError};
pub use subject::{BaseSubject, base_subject};
pub use word::{decode_charset, decode_words};

/// The longest header block of a message or part, its empty line included.
pub const HEADER_MAX_OCTETS: usize = 256 * 1024;
/// The most fields in a header block.
pub const FIELDS_MAX: usize = 2_000;
/// The longest field, folded lines and line ends included.
pub const FIELD_MAX_OCTETS: usize = 64 * 1024;
/// The most addresses, group marks included, listed in one ENVELOPE.
pub const ADDRESSES_MAX: usize = 10_000;
/// The deepest part; the message itself has depth 1.
pub const DEPTH_MAX: usize = 100;
/// The most parts in a message, itself and nested messages included.
pub const PARTS_MAX: usize = 10_000;
/// The most parameters in one Content-Type or Content-Disposition.
pub const PARAMETERS_MAX: usize = 100;
/// The most octets of field values kept in one [`Structure`]: 10,000 usual
/// parts take less. Parts beyond are opaque.
pub const STRUCTURE_TEXT_MAX_OCTETS: usize = 1024 * 1024;
/// The longest boundary looked for. RFC 2046 §5.1.1 allows 70; one longer
/// than any line may be (RFC 5322 §2.1.1) cannot be met.
pub const BOUNDARY_MAX_OCTETS: usize = 998;
