//! The maildrop as one session sees it: a snapshot. RFC 1939 §3.

use data_encoding::HEXLOWER;

use super::policy::Expiry;

/// One message of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// IMAP UID in the INBOX.
    pub uid: u32,
    /// Octets as sent by RETR before dot-stuffing: prologue and blob.
    pub size: u64,
    /// When it came into the INBOX, in milliseconds since 1970.
    pub saved_ms: i64,
    /// Had `\Seen` when the snapshot was taken.
    pub seen: bool,
    /// Sent whole by RETR in this session.
    pub retrieved: bool,
    /// Marked by DELE.
    pub deleted: bool,
}

impl Entry {
    /// A message as the session finds it.
    pub fn new(uid: u32, size: u64, saved_ms: i64, seen: bool) -> Self {
        Self {
            uid,
            size,
            saved_ms,
            seen,
            retrieved: false,
            deleted: false,
        }
    }
}

/// What QUIT is to do, in this order. UIDs ascend as in the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Marked by DELE: all of them are removed or none.
    pub deleted: Vec<u32>,
    /// Get `\Seen`, which remembers for later sessions that they were retrieved.
    pub seen: Vec<u32>,
    /// Have stayed their days: removed if they have `\Seen` still, for another session may have taken it away to keep them.
    pub expired: Vec<u32>,
}

/// A plain value: all there is to know about a POP3 session besides its
/// octets under way, so that it can be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maildrop {
    uidvalidity: u32,
    entries: Vec<Entry>,
    count: usize,
    octets: u64,
}

impl Maildrop {
    /// Takes the INBOX's UIDVALIDITY and its messages, oldest first.
    pub fn new(uidvalidity: u32, entries: Vec<Entry>) -> Self {
        let live = entries.iter().filter(|entry| !entry.deleted);
        let (count, octets) = live.fold((0, 0), |(count, octets), entry| {
            (count + 1, octets + entry.size)
        });
        Self {
            uidvalidity,
            entries,
            count,
            octets,
        }
    }

    /// The UIDVALIDITY the snapshot was taken under.
    pub fn uidvalidity(&self) -> u32 {
        self.uidvalidity
    }

    /// All messages, marked ones included.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Messages not marked.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Octets of the messages not marked.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The place of an unmarked message by its number from 1.
    pub fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.entries
            .get(index)
            .filter(|entry| !entry.deleted)
            .map(|_| index)
    }

    /// Marks an unmarked message.
    pub fn mark(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index).filter(|entry| !entry.deleted) {
            entry.deleted = true;
            self.count -= 1;
            self.octets -= entry.size;
        }
    }

    /// Notes that a message was sent whole.
    pub fn note_retrieved(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.retrieved = true;
        }
    }

    /// Takes all marks away. What was retrieved stays so: the client has it.
    pub fn unmark_all(&mut self) {
        self.entries
            .iter_mut()
            .for_each(|entry| entry.deleted = false);
        self.count = self.entries.len();
        self.octets = self.entries.iter().map(|entry| entry.size).sum();
    }

    /// What QUIT is to do.
    ///
    /// Without a retention rule RETR leaves `\Seen` alone: nobody needs to remember it then, a program that collects in
    /// the background would make mail look read in IMAP that nobody has read, and QUIT costs no write.
    pub fn update(&self, expiry: Expiry, now_ms: i64) -> Update {
        let mut update = Update::default();
        for entry in &self.entries {
            if entry.deleted {
                update.deleted.push(entry.uid);
                continue;
            }
            if expiry == Expiry::Never {
                continue;
            }
            if entry.retrieved && !entry.seen {
                update.seen.push(entry.uid);
            }
            if (entry.retrieved || entry.seen) && expiry.is_over(entry.saved_ms, now_ms) {
                update.expired.push(entry.uid);
            }
        }
        update
    }

    /// The unique id: UIDVALIDITY and UID, so that it holds for ever (P3) and
    /// needs no room of its own.
    pub fn unique_id(&self, entry: &Entry) -> [u8; 16] {
        let numbers = [self.uidvalidity.to_be_bytes(), entry.uid.to_be_bytes()];
        let mut id = [0; 16];
        HEXLOWER.encode_mut(numbers.as_flattened(), &mut id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_follow_the_marks() {
        let entry = |uid, size| Entry::new(uid, size, 0, false);
        let deleted = |maildrop: &Maildrop| maildrop.update(Expiry::Never, 0).deleted;
        let mut maildrop = Maildrop::new(7, vec![entry(3, 10), entry(5, 20), entry(9, 30)]);
        maildrop.mark(1);
        maildrop.mark(1);
        maildrop.mark(99);
        assert_eq!(
            (maildrop.count(), maildrop.octets(), deleted(&maildrop)),
            (2, 40, vec![5])
        );
        assert_eq!(
            (
                maildrop.index(0),
                maildrop.index(1),
                maildrop.index(2),
                maildrop.index(4)
            ),
            (None, Some(0), None, None)
        );
        assert_eq!(
            Maildrop::new(7, maildrop.entries().to_vec()),
            maildrop,
            "a handed-over session is the same"
        );
        maildrop.unmark_all();
        assert_eq!(
            (maildrop.count(), maildrop.octets(), deleted(&maildrop)),
            (3, 60, vec![])
        );
    }

    #[test]
    fn a_unique_id_is_made_of_what_never_changes() {
        let maildrop = Maildrop::new(0x1234, Vec::new());
        assert_eq!(
            maildrop.unique_id(&Entry::new(255, 1, 0, false)),
            *b"00001234000000ff"
        );
    }
}
