//! Backups: a folder that holds accounts as they were at some instants, taken over the link, and what is put back from it.
//!
//! The folder's bytes are described in `infra/docs/FORMAT-backup.md`. Here each part has its file; the command line is in
//! [`crate::verbs::backup`] and [`crate::verbs::restore`].

mod check;
mod error;
mod folder;
mod manifest;
mod moment;
mod progress;
mod restore;
mod snapshot;
mod take;

pub(crate) use check::{list, prune, verify};
pub(crate) use error::BackupError;
pub(crate) use folder::Folder;
pub(crate) use moment::Moment;
pub(crate) use progress::octets;
pub(crate) use restore::{Wanted, restore_mailboxes, restore_volume};
pub(crate) use take::{Taking, take};
