//! Tools for tests only: a disk that fails on demand, protocol dialogues as text.

pub mod dialogue;
pub mod fault_disk;
