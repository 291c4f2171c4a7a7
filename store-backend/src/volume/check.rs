//! What blobs and links should be, and what is wrong with one of them: for the scrub and for fsck.

use std::io;

use directory_api::AccountId;
use durable::Disk;

use super::index::Index;
use super::keeper::{FileState, state_of};
use super::layout::{INCOMING_DIR, Layout};
use super::rows::BlobRow;
use super::types::MailboxId;

/// Where things are looked for.
pub(super) struct Ground<'g> {
    pub(super) layout: &'g Layout,
    pub(super) disk: &'g dyn Disk,
    pub(super) index: &'g Index,
}

/// What is wrong with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobFault {
    /// It has no file.
    Missing,
    /// Its file has other octets, or another number of them.
    Wrong,
    /// Its file has another number of names than the blob has messages, and one.
    Links { found: u64, wanted: u64 },
}

/// What is wrong with the name of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkFault {
    Missing,
    /// It is a name of another file than its blob's.
    Other,
}

impl Ground<'_> {
    /// Looks at one blob; with `reads` at its octets too.
    pub(super) fn blob(
        &self,
        number: u64,
        row: &BlobRow,
        reads: bool,
    ) -> io::Result<Option<BlobFault>> {
        let path = self.layout.blob(number, &row.hash);
        let facts = match self.disk.metadata(&path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(BlobFault::Missing));
            }
            Err(error) => return Err(error),
        };
        if facts.len != row.octets.get() {
            return Ok(Some(BlobFault::Wrong));
        }
        if reads {
            match state_of(self.disk, &path, row)? {
                FileState::Right => {}
                FileState::Missing => return Ok(Some(BlobFault::Missing)),
                FileState::Wrong => return Ok(Some(BlobFault::Wrong)),
            }
        }
        let wanted = row.link_count.get() + 1;
        if facts.links == wanted {
            return Ok(None);
        }
        // A large body keeps the name that it came by until the next checkpoint.
        let found = facts.links - self.names_in_incoming(facts.inode)?.min(facts.links);
        Ok((found != wanted).then_some(BlobFault::Links { found, wanted }))
    }

    fn names_in_incoming(&self, inode: u64) -> io::Result<u64> {
        let folder = self.layout.file(INCOMING_DIR);
        let mut count = 0;
        for name in self.disk.read_dir(&folder)? {
            match self.disk.metadata(&folder.join(name)) {
                Ok(facts) => count += u64::from(facts.inode == inode),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Looks at the name of one message. A blob without a file is told elsewhere.
    pub(super) fn link(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
        number: u64,
        row: &BlobRow,
    ) -> io::Result<Option<LinkFault>> {
        let inode = |path: &std::path::Path| match self.disk.metadata(path) {
            Ok(facts) => Ok(Some(facts.inode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let Some(wanted) = inode(&self.layout.blob(number, &row.hash))? else {
            return Ok(None);
        };
        Ok(match inode(&self.layout.message(account, mailbox, uid))? {
            Some(found) if found == wanted => None,
            Some(_) => Some(LinkFault::Other),
            None => Some(LinkFault::Missing),
        })
    }
}
