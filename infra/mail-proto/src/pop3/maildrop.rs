//! The maildrop as one session sees it: a snapshot. RFC 1939 §3.

/// One message of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// IMAP UID in the INBOX.
    pub uid: u32,
    /// Octets as sent by RETR before dot-stuffing: prologue and blob.
    pub size: u64,
    /// Marked by DELE.
    pub deleted: bool,
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

    /// Takes all marks away.
    pub fn unmark_all(&mut self) {
        self.entries
            .iter_mut()
            .for_each(|entry| entry.deleted = false);
        self.count = self.entries.len();
        self.octets = self.entries.iter().map(|entry| entry.size).sum();
    }

    /// UIDs of the marked messages, in order.
    pub fn deleted(&self) -> Vec<u32> {
        self.entries
            .iter()
            .filter(|entry| entry.deleted)
            .map(|entry| entry.uid)
            .collect()
    }

    /// The unique id: UIDVALIDITY and UID, so that it holds for ever (P3) and
    /// needs no room of its own.
    pub fn unique_id(&self, entry: &Entry) -> String {
        format!("{:08x}{:08x}", self.uidvalidity, entry.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_follow_the_marks() {
        let entry = |uid, size| Entry {
            uid,
            size,
            deleted: false,
        };
        let mut maildrop = Maildrop::new(7, vec![entry(3, 10), entry(5, 20), entry(9, 30)]);
        maildrop.mark(1);
        maildrop.mark(1);
        maildrop.mark(99);
        assert_eq!(
            (maildrop.count(), maildrop.octets(), maildrop.deleted()),
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
            (maildrop.count(), maildrop.octets(), maildrop.deleted()),
            (3, 60, vec![])
        );
    }

    #[test]
    fn a_unique_id_is_made_of_what_never_changes() {
        let maildrop = Maildrop::new(0x1234, Vec::new());
        assert_eq!(
            maildrop.unique_id(&Entry {
                uid: 255,
                size: 1,
                deleted: false
            }),
            "00001234000000ff"
        );
    }
}
