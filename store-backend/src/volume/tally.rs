//! Sums over the parts of an account: what tells two back-ends, without sending it, in which parts their copies differ.
//!
//! An account's items ([`super::item`]) fall into blocks: the account, each mailbox, all subscriptions, the annotations and the
//! history of a mailbox, each 64 UIDs of its messages, and transactions by their first octet. A tally has the sum of each. It is
//! counted once, item by item; from then on only blocks in which something has changed are counted again: MODSEQ and the history
//! of what was expunged tell which. So a move compares a hundred thousand messages while nobody may write, and reads some dozen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use directory_api::AccountId;

use super::Volume;
use super::error::{IndexError, ReadError};
use super::index::{Index, RoTxn};
use super::item::{Content, MessageItem, SetHash};
use super::read::{Prologues, blocking};
use super::rows::{
    MailboxRow, MessageRow, TransactionRow, annotation_of, decode_annotation, decode_ranges,
    expunged_key, expunged_of, mailbox_key, message_key, message_of, transaction_key,
};
use super::transfer::Cursor;
use super::types::{Hash, Item, MailboxId};

/// A part of an account's items, small enough to be sent whole. In the order of an export, so that what comes first can be
/// taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    kind: u8,
    mailbox: u32,
    number: u32,
}

impl Block {
    /// Octets of its name: kind, mailbox, number, both big-endian.
    pub const OCTETS: usize = 9;
    const ACCOUNT: Self = Self::new(1, 0, 0);
    const SUBSCRIPTIONS: Self = Self::new(3, 0, 0);

    const fn new(kind: u8, mailbox: u32, number: u32) -> Self {
        Self {
            kind,
            mailbox,
            number,
        }
    }

    fn mailbox(mailbox: MailboxId) -> Self {
        Self::new(2, mailbox.0, 0)
    }

    fn annotations(mailbox: MailboxId) -> Self {
        Self::new(4, mailbox.0, 0)
    }

    fn expunged(mailbox: MailboxId) -> Self {
        Self::new(5, mailbox.0, 0)
    }

    fn messages(mailbox: MailboxId, uid: u32) -> Self {
        Self::new(6, mailbox.0, uid / UIDS)
    }

    fn transactions(first: u8) -> Self {
        Self::new(7, 0, first.into())
    }

    /// Its name.
    #[must_use]
    pub fn octets(self) -> [u8; Self::OCTETS] {
        let mut out = [0; Self::OCTETS];
        out[0] = self.kind;
        out[1..5].copy_from_slice(&self.mailbox.to_be_bytes());
        out[5..].copy_from_slice(&self.number.to_be_bytes());
        out
    }

    /// The block of a name; `None` if this build knows none.
    #[must_use]
    pub fn of_octets(octets: [u8; Self::OCTETS]) -> Option<Self> {
        let [kind, m0, m1, m2, m3, n0, n1, n2, n3] = octets;
        let block = Self::new(
            kind,
            u32::from_be_bytes([m0, m1, m2, m3]),
            u32::from_be_bytes([n0, n1, n2, n3]),
        );
        (1..=7).contains(&kind).then_some(block)
    }

    /// Whether it has the account itself or a mailbox: what all others rest on.
    #[must_use]
    pub fn is_frame(self) -> bool {
        self.kind <= 2
    }

    /// The first octet of what is in it, if that is transactions.
    fn transactions_first(self) -> Option<u8> {
        (self.kind == 7)
            .then(|| u8::try_from(self.number).ok())
            .flatten()
    }

    fn of_content(content: &Content) -> Self {
        match content {
            Content::Account { .. } => Self::ACCOUNT,
            Content::Mailbox(mailbox) => Self::mailbox(mailbox.mailbox),
            Content::Subscription { .. } => Self::SUBSCRIPTIONS,
            Content::Annotation { mailbox, .. } => Self::annotations(*mailbox),
            Content::Expunged { mailbox, .. } => Self::expunged(*mailbox),
            Content::Message(message) => Self::messages(message.mailbox, message.uid),
            Content::Transaction { txn, .. } => Self::transactions(txn[0]),
        }
    }
}

impl Item {
    /// The block that it belongs to; `None` for what is no item of a version that this build knows.
    #[must_use]
    pub fn block(&self) -> Option<Block> {
        let content = Content::decode(&self.0).ok()?;
        Some(Block::of_content(&content))
    }

    /// What it is the state of: of two items of an account with the same name one takes the place of the other.
    #[must_use]
    pub fn name(&self) -> Option<Bytes> {
        let octets = match Content::decode(&self.0).ok()? {
            Content::Account { .. } => 2,
            Content::Mailbox(_) => 2 + 4,
            Content::Message(_) => 2 + 4 + 4,
            Content::Transaction { .. } => 2 + 16,
            Content::Expunged { .. } => 2 + 4 + 8,
            Content::Subscription { .. } => self.0.len(),
            Content::Annotation { value, .. } => self.0.len() - value.len(),
        };
        Some(self.0.slice(..octets))
    }
}

/// The sums of an account's blocks, as they were when it was last brought up to date.
#[derive(Clone, Debug)]
pub struct Tally {
    account: AccountId,
    sums: BTreeMap<Block, SetHash>,
    seen: BTreeMap<MailboxId, Seen>,
    /// How many transactions are in each of their blocks: they go without a trace when their time is over.
    transactions: BTreeMap<u8, u64>,
}

/// Up to where a mailbox was looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    uidvalidity: u32,
    uidnext: u32,
    modseq: u64,
    floor: u64,
}

impl Seen {
    fn of(row: &MailboxRow) -> Self {
        Self {
            uidvalidity: row.uidvalidity,
            uidnext: row.uidnext,
            modseq: row.highestmodseq,
            floor: row.expunged_floor,
        }
    }
}

impl Tally {
    fn new(account: AccountId) -> Self {
        Self {
            account,
            sums: BTreeMap::new(),
            seen: BTreeMap::new(),
            transactions: BTreeMap::new(),
        }
    }

    /// Over all items, as [`Volume::set_hash`].
    #[must_use]
    pub fn set_hash(&self) -> Hash {
        let mut all = SetHash::default();
        self.sums.values().for_each(|sum| all.join(*sum));
        all.bytes()
    }

    /// Its blocks that have items, growing, with their sums.
    pub fn sums(&self) -> impl Iterator<Item = (Block, Hash)> {
        self.sums.iter().map(|(block, sum)| (*block, sum.bytes()))
    }

    /// The sum of a block; `None`: nothing is in it.
    #[must_use]
    pub fn sum(&self, block: Block) -> Option<Hash> {
        self.sums.get(&block).map(|sum| sum.bytes())
    }

    fn add(&mut self, item: &Item) -> Result<(), IndexError> {
        let block = item.block().ok_or(IndexError::Contradiction("an item"))?;
        self.sums.entry(block).or_default().add(item);
        if let Some(first) = block.transactions_first() {
            *self.transactions.entry(first).or_default() += 1;
        }
        Ok(())
    }

    /// Counts blocks anew.
    fn recount(
        &mut self,
        index: &Index,
        txn: &RoTxn<'_>,
        blocks: impl IntoIterator<Item = Block>,
    ) -> Result<(), IndexError> {
        let mut prologues = Prologues::new(index, txn);
        for block in blocks {
            let mut sum = SetHash::default();
            let items = items_of(index, txn, &mut prologues, self.account, block)?;
            items.iter().for_each(|item| sum.add(item));
            match items.is_empty() {
                true => self.sums.remove(&block),
                false => self.sums.insert(block, sum),
            };
            if let Some(first) = block.transactions_first() {
                self.transactions.insert(first, items.len() as u64);
            }
        }
        Ok(())
    }

    /// Brings it up to what the index has.
    fn refresh(&mut self, index: &Index, txn: &RoTxn<'_>) -> Result<(), IndexError> {
        let mailboxes = index.mailboxes_of(txn, self.account)?;
        let mut dirty = BTreeSet::from([
            Block::ACCOUNT,
            Block::SUBSCRIPTIONS,
            Block::annotations(MailboxId(0)),
        ]);
        let mut seen = BTreeMap::new();
        for (mailbox, row) in &mailboxes {
            // Names, rights and uses change without a MODSEQ.
            dirty.insert(Block::mailbox(*mailbox));
            let before = self.seen.remove(mailbox);
            let now = Seen::of(row);
            match before.filter(|before| before.uidvalidity == now.uidvalidity) {
                Some(before) if before.modseq == now.modseq && before.floor == now.floor => {}
                Some(before) if now.floor <= before.modseq => {
                    self.changed_since(index, txn, *mailbox, row, before.modseq, &mut dirty)?;
                    dirty.extend([Block::annotations(*mailbox), Block::expunged(*mailbox)]);
                }
                // New, or its history does not reach back.
                _ => {
                    let ours = self.sums.keys().filter(|block| {
                        block.kind > Block::SUBSCRIPTIONS.kind && block.mailbox == mailbox.0
                    });
                    dirty.extend(ours);
                    dirty.extend([Block::annotations(*mailbox), Block::expunged(*mailbox)]);
                    let prefix = mailbox_key(self.account, *mailbox);
                    index.each_message::<IndexError>(txn, &prefix, |_, uid, _, _| {
                        dirty.insert(Block::messages(*mailbox, uid));
                        Ok(())
                    })?;
                }
            }
            seen.insert(*mailbox, (before.map(|before| before.uidnext), now));
        }
        let gone = std::mem::take(&mut self.seen);
        self.sums
            .retain(|block, _| block.mailbox == 0 || !gone.contains_key(&MailboxId(block.mailbox)));
        let mut transactions: BTreeMap<u8, u64> = BTreeMap::new();
        for row in index
            .transactions
            .prefix_iter(txn, &self.account.0.to_be_bytes())?
        {
            let (key, value) = row?;
            let row = TransactionRow::decode(value)?;
            if !row.moves_along() {
                continue;
            }
            let before = seen.get(&MailboxId(row.mailbox.get()));
            let before = before.and_then(|(uidnext, _)| *uidnext);
            let first = txn_of(key)?[0];
            *transactions.entry(first).or_default() += 1;
            if before.is_none_or(|uidnext| row.uid.get() >= uidnext) {
                dirty.insert(Block::transactions(first));
            }
        }
        // Where some have come they were noted; where some have gone there are fewer.
        let count = |counts: &BTreeMap<u8, u64>, first| counts.get(&first).copied().unwrap_or(0);
        let other = (0..=u8::MAX)
            .filter(|first| count(&transactions, *first) != count(&self.transactions, *first));
        dirty.extend(other.map(Block::transactions));
        self.recount(index, txn, dirty)?;
        self.seen = seen
            .into_iter()
            .map(|(mailbox, (_, now))| (mailbox, now))
            .collect();
        Ok(())
    }

    /// The blocks of messages of a mailbox that have come, changed or gone since a MODSEQ to which its history reaches back.
    fn changed_since(
        &self,
        index: &Index,
        txn: &RoTxn<'_>,
        mailbox: MailboxId,
        row: &MailboxRow,
        modseq: u64,
        dirty: &mut BTreeSet<Block>,
    ) -> Result<(), IndexError> {
        let all = mailbox_key(self.account, mailbox);
        // Since the last change of flags only new ones have come, and they are the last.
        let only_new = row.stored_modseq <= modseq;
        let mut note = |key: &[u8], value: &[u8]| {
            let (_, uid) = message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
            let (row, _) = MessageRow::decode(value)?;
            let is_changed = row.modseq.get() > modseq;
            if is_changed {
                dirty.insert(Block::messages(mailbox, uid));
            }
            Ok::<_, IndexError>(is_changed)
        };
        if only_new {
            for row in index.messages.rev_prefix_iter(txn, &all)? {
                let (key, value) = row?;
                if !note(key, value)? {
                    break;
                }
            }
        } else {
            for row in index.messages.prefix_iter(txn, &all)? {
                let (key, value) = row?;
                note(key, value)?;
            }
        }
        let first = expunged_key(self.account, mailbox, modseq.saturating_add(1));
        let last = expunged_key(self.account, mailbox, u64::MAX);
        let since = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        for row in index.expunged.range(txn, &since)? {
            for (first, last) in decode_ranges(row?.1)? {
                let blocks = first / UIDS..=last / UIDS;
                dirty.extend(blocks.map(|number| Block::new(6, mailbox.0, number)));
            }
        }
        Ok(())
    }
}

/// The items of a block.
fn items_of<'t>(
    index: &'t Index,
    txn: &'t RoTxn<'t>,
    prologues: &mut Prologues<'t>,
    account: AccountId,
    block: Block,
) -> Result<Vec<Item>, IndexError> {
    let mailbox = MailboxId(block.mailbox);
    let mut items = Vec::new();
    match block.kind {
        1 => items.extend(
            index
                .account(txn, account)?
                .map(|row| Content::account(account, &row).encode()),
        ),
        2 if mailbox.0 != 0 => {
            let row = index.mailbox(txn, account, mailbox)?;
            items.extend(row.map(|row| Content::mailbox(mailbox, row).encode()));
        }
        3 => {
            let names = index.subscriptions_of(txn, account)?;
            items.extend(
                names
                    .into_iter()
                    .map(|name| Content::Subscription { name }.encode()),
            );
        }
        4 => {
            for row in index
                .annotations
                .prefix_iter(txn, &mailbox_key(account, mailbox))?
            {
                let (key, value) = row?;
                let (mailbox, entry) =
                    annotation_of(key).ok_or(IndexError::Contradiction("a key of annotations"))?;
                let content = Content::Annotation {
                    mailbox,
                    entry: entry.to_owned(),
                    value: Bytes::copy_from_slice(decode_annotation(value)?),
                };
                items.push(content.encode());
            }
        }
        5 => {
            for row in index
                .expunged
                .prefix_iter(txn, &mailbox_key(account, mailbox))?
            {
                let (key, value) = row?;
                let (mailbox, modseq) =
                    expunged_of(key).ok_or(IndexError::Contradiction("a key of expunged"))?;
                let content = Content::Expunged {
                    mailbox,
                    modseq,
                    ranges: decode_ranges(value)?,
                };
                items.push(content.encode());
            }
        }
        6 if block.number <= u32::MAX / UIDS => {
            let first = block.number * UIDS;
            let last = message_key(account, mailbox, first + (UIDS - 1));
            let first = message_key(account, mailbox, first);
            let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
            for row in index.messages.range(txn, &range)? {
                let (key, value) = row?;
                let (_, uid) =
                    message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
                let (row, keywords) = MessageRow::decode(value)?;
                let blob = index.blob(txn, row.blob.get())?;
                let blob = blob.ok_or(IndexError::Contradiction("a blob"))?;
                let prologue = Bytes::from(prologues.get(key, uid, &row)?.into_owned());
                let item = MessageItem::new(mailbox, uid, (&row, keywords), &blob, prologue);
                items.push(Content::Message(item).encode());
            }
        }
        7 => {
            let Ok(octet) = u8::try_from(block.number) else {
                return Ok(items);
            };
            let key = transaction_key(account, &[octet; 16]);
            for row in index.transactions.prefix_iter(txn, &key[..9])? {
                let (key, value) = row?;
                let row = TransactionRow::decode(value)?;
                if row.moves_along() {
                    items.push(Content::transaction(txn_of(key)?, &row).encode());
                }
            }
        }
        _ => {}
    }
    Ok(items)
}

fn txn_of(key: &[u8]) -> Result<[u8; 16], IndexError> {
    let txn = key.get(8..24).and_then(|txn| txn.try_into().ok());
    txn.ok_or(IndexError::Contradiction("a transaction's key"))
}

impl Volume {
    /// Counts an account, all of it, while it may be written. What is written meanwhile is in the next [`Volume::refresh`].
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn tally(&self, account: AccountId) -> Result<Tally, ReadError> {
        self.settled(account).await?;
        blocking(self.inner.shared(), move |shared| {
            let mut tally = Tally::new(account);
            let mailboxes = shared
                .index
                .read(|txn| shared.index.mailboxes_of(txn, account))?;
            // Before the items: what comes after is looked at again.
            tally.seen = mailboxes
                .iter()
                .map(|(mailbox, row)| (*mailbox, Seen::of(row)))
                .collect();
            let mut cursor = Some(Cursor::new(account));
            while let Some(mut here) = cursor.take() {
                // A snapshot a page: a long one would pin pages.
                let (items, more) = shared.index.read(|txn| here.page(&shared.index, txn))?;
                items.iter().try_for_each(|item| tally.add(item))?;
                cursor = more.then_some(here);
            }
            Ok(tally)
        })
        .await
    }

    /// Brings a tally up to what has been answered for the account.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn refresh(&self, mut tally: Tally) -> Result<Tally, ReadError> {
        self.settled(tally.account).await?;
        blocking(self.inner.shared(), move |shared| {
            shared.index.read(|txn| tally.refresh(&shared.index, txn))?;
            Ok::<_, ReadError>(tally)
        })
        .await
    }

    /// Counts some blocks anew, and nothing else: for who knows what was written.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn recount(&self, mut tally: Tally, blocks: Vec<Block>) -> Result<Tally, ReadError> {
        self.settled(tally.account).await?;
        blocking(self.inner.shared(), move |shared| {
            shared
                .index
                .read(|txn| tally.recount(&shared.index, txn, blocks))?;
            Ok::<_, ReadError>(tally)
        })
        .await
    }

    /// The items of some blocks of an account, in the order of the blocks, each at one instant.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn items_of(
        &self,
        account: AccountId,
        blocks: Vec<Block>,
    ) -> Result<Vec<Item>, ReadError> {
        self.settled(account).await?;
        blocking(self.inner.shared(), move |shared| {
            let mut items = Vec::new();
            shared.index.read(|txn| {
                let mut prologues = Prologues::new(&shared.index, txn);
                for block in &blocks {
                    let of_block = items_of(&shared.index, txn, &mut prologues, account, *block)?;
                    items.extend(of_block);
                }
                Ok::<_, IndexError>(())
            })?;
            Ok::<_, ReadError>(items)
        })
        .await
    }
}

/// UIDs of one block of messages: one new message costs the hashes of so many at most, and a million messages have sixteen
/// thousand sums.
const UIDS: u32 = 64;
