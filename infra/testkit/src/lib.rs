//! Tools for tests only: addresses nobody uses, a disk that fails on demand, one that is recorded, protocol dialogues as text, IMAP's answers read strictly, a client of SCRAM, an issuer of tokens, one of certificates of users, a PostgreSQL server, an LDAP server.

pub mod address;
pub mod block_disk;
pub mod dialogue;
pub mod fault_disk;
pub mod fetch_grammar;
pub mod issuer;
pub mod postgres;
pub mod scram;
pub mod slapd;
pub mod user_certificate;
