//! Tools for tests only: a disk that fails on demand, protocol dialogues as text, IMAP's answers read strictly.

pub mod dialogue;
pub mod fault_disk;
pub mod fetch_grammar;
