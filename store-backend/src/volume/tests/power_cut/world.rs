//! What the accounts hold: a plain model of what commands do, and the same read from a volume.

use std::collections::{BTreeMap, BTreeSet};

use super::super::model::random::Random;
use super::super::*;

pub(super) const EVE: AccountId = AccountId(8);
pub(super) const ACCOUNTS: [AccountId; 3] = [ANN, BOB, EVE];
const NAMES: [&str; 5] = ["a", "a/b", "b", "c", "c/d"];

/// Accounts by number, their mailboxes by name. Equal when a client could not tell them apart.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) accounts: BTreeMap<AccountId, Account>,
    /// Whether what is expunged can be brought back: a setting, and nothing that clients see.
    pub(super) keeps: bool,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.accounts == other.accounts
    }
}

impl Eq for World {}

#[derive(Clone, Default)]
pub(super) struct Account {
    /// The number of the next mailbox, which nobody sees before it is made.
    next: u32,
    mailboxes: BTreeMap<String, Mailbox>,
    subscriptions: BTreeSet<String>,
    /// What was expunged and can be brought back, by the number of its mailbox and its UID there, and what that mailbox was
    /// called then.
    kept: BTreeMap<(u32, u32), (String, Message)>,
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        (&self.mailboxes, &self.subscriptions) == (&other.mailboxes, &other.subscriptions)
            && self.kept_lines() == other.kept_lines()
    }
}

impl Eq for Account {}

#[derive(Clone, PartialEq, Eq)]
struct Mailbox {
    id: u32,
    uidnext: u32,
    modseq: u64,
    messages: BTreeMap<u32, Message>,
    expunged: BTreeSet<u32>,
}

#[derive(Clone, PartialEq, Eq)]
struct Message {
    flags: Flags,
    modseq: u64,
    date_ms: i64,
    /// Of all that a client reads, prologue first.
    text: Hash,
}

/// Octets that their number tells: small ones, large ones in the journal, and ones that go to a file of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body(u64);

impl Body {
    fn draw(random: &mut Random) -> Self {
        // Some come again.
        Self(random.below(96))
    }

    pub(super) fn octets(self) -> Vec<u8> {
        let size = match self.0 % 12 {
            3 | 7 | 10 => 20_000 + 200 * self.0,
            11 => BLOB_INLINE_MAX_BYTES as u64 + 100 * self.0,
            _ => 10 + 23 * self.0,
        };
        let line = format!("Subject: {0}\r\n\r\nbody {0} ", self.0).into_bytes();
        let size = usize::try_from(size).unwrap();
        line.into_iter().cycle().take(size).collect()
    }
}

/// One command. Those with a number are deliveries or dated by it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Deliver(u64, Body, Vec<AccountId>),
    Append(AccountId, String, u64, Vec<Body>, Flags),
    Replace(AccountId, (String, u32), String, u64, Body),
    Flag(AccountId, String, Vec<u32>, bool, Flags),
    Copy(AccountId, String, Vec<u32>, String),
    Move(AccountId, String, Vec<u32>, String),
    Expunge(AccountId, String, Vec<u32>),
    Create(AccountId, String),
    Rename(AccountId, String, String),
    Delete(AccountId, String),
    /// Of the mailbox with this number.
    Undelete(AccountId, u32, Vec<u32>),
    Subscribe(AccountId, String, bool),
}

impl Op {
    /// One that does something to this world.
    pub(super) fn draw(random: &mut Random, world: &World, number: u64) -> Self {
        loop {
            let account = *random.one(&ACCOUNTS);
            let Some(one) = world.accounts.get(&account) else {
                return Self::deliver(random, number);
            };
            let mailboxes = &one.mailboxes;
            let names: Vec<String> = mailboxes.keys().cloned().collect();
            let (at, to) = (random.one(&names).clone(), random.one(&names).clone());
            let new = (*random.one(&NAMES)).to_owned();
            let all: Vec<u32> = mailboxes[&at].messages.keys().copied().collect();
            let mut uids = all.clone();
            uids.retain(|_| random.below(3) == 0);
            let is_free = !mailboxes.contains_key(&new);
            match random.below(22) {
                0..6 => return Self::deliver(random, number),
                6..9 => {
                    let bodies = (0..1 + random.below(3)).map(|_| Body::draw(random));
                    let bodies = bodies.collect();
                    return Self::Append(account, at, number, bodies, Flags::DRAFT);
                }
                9 if !all.is_empty() => {
                    let replaced = (at, *random.one(&all));
                    return Self::Replace(account, replaced, to, number, Body::draw(random));
                }
                10..13 if !uids.is_empty() => {
                    let flags = Flags(1 << random.below(5));
                    return Self::Flag(account, at, uids, random.below(3) > 0, flags);
                }
                13 if !uids.is_empty() => return Self::Copy(account, at, uids, to),
                14 if !uids.is_empty() => return Self::Move(account, at, uids, to),
                15 | 16 if !uids.is_empty() => return Self::Expunge(account, at, uids),
                17 if is_free => return Self::Create(account, new),
                18 if is_free && at != "INBOX" && !new.starts_with(&format!("{at}/")) => {
                    let inside = format!("{at}/");
                    let renamed = |name: &String| format!("{new}{}", &name[at.len()..]);
                    let mut below = names.iter().filter(|name| name.starts_with(&inside));
                    if below.all(|name| !mailboxes.contains_key(&renamed(name))) {
                        return Self::Rename(account, at, new);
                    }
                }
                19 if at != "INBOX" => return Self::Delete(account, at),
                20 | 21 if !one.kept.is_empty() => {
                    let places: Vec<_> = one.kept.keys().copied().collect();
                    let (of, first) = *random.one(&places);
                    // Of several names that a mailbox had, the last one counts, which this model does not know.
                    let name = &one.kept[&(of, first)].0;
                    let alike = one
                        .kept
                        .iter()
                        .filter(|((id, _), (at, _))| *id == of && at == name);
                    let mut uids: Vec<u32> = alike.map(|((_, uid), _)| *uid).collect();
                    uids.retain(|uid| *uid == first || random.below(2) == 0);
                    return Self::Undelete(account, of, uids);
                }
                _ if random.below(10) == 0 => {
                    return Self::Subscribe(account, new, random.below(3) > 0);
                }
                _ => {}
            }
        }
    }

    fn deliver(random: &mut Random, number: u64) -> Self {
        let mut to = ACCOUNTS.to_vec();
        let first = random.below(3);
        to.rotate_left(usize::try_from(first).unwrap());
        to.truncate(1 + usize::try_from(random.below(3)).unwrap());
        Self::Deliver(number, Body::draw(random), to)
    }

    /// One that no story has, to everybody.
    pub(super) fn new_delivery() -> Self {
        Self::Deliver(1 << 40, Body(0), ACCOUNTS.to_vec())
    }

    /// Whether it needs what came before it to be answered.
    pub(super) fn comes_alone(&self) -> bool {
        matches!(self, Self::Undelete(..))
    }

    /// The part of a delivery that was not there before, from what [`Op::run`] answered.
    pub(super) fn only(self, records: &[u64]) -> Self {
        let Self::Deliver(number, body, to) = self else {
            return self;
        };
        let new = to.into_iter().zip(records).filter(|(_, one)| **one != 0);
        Self::Deliver(number, body, new.map(|(account, _)| account).collect())
    }

    /// The worlds after each of its records, at most: the last one is the world after it.
    pub(super) fn apply(&self, world: &World) -> Vec<World> {
        let mut after = world.clone();
        match self.clone() {
            Self::Deliver(number, body, to) => {
                let octets = body.octets();
                let mut steps = Vec::new();
                for account in to {
                    let text = *blake3::hash(&expected(account, &octets)).as_bytes();
                    let account = after.accounts.entry(account);
                    let account = account.or_insert_with(Account::with_inbox);
                    account.at("INBOX").add(vec![Message {
                        flags: Flags::default(),
                        modseq: 0,
                        date_ms: date_ms(number),
                        text,
                    }]);
                    steps.push(after.clone());
                }
                return steps;
            }
            Self::Append(account, at, number, bodies, flags) => {
                let messages = bodies.iter().map(|body| appended(*body, number, flags));
                after.mailbox(account, &at).add(messages.collect());
            }
            Self::Replace(account, (at, uid), to, number, body) => {
                let message = appended(body, number, Flags::DRAFT);
                after.mailbox(account, &to).add(vec![message]);
                after.expunge(account, &at, &[uid]);
            }
            Self::Flag(account, at, uids, set, flags) => {
                let mailbox = after.mailbox(account, &at);
                let modseq = mailbox.modseq + 1;
                for uid in uids {
                    let message = mailbox.messages.get_mut(&uid).unwrap();
                    let changed = if set {
                        message.flags | flags
                    } else {
                        Flags(message.flags.0 & !flags.0)
                    };
                    if changed != message.flags {
                        (message.flags, message.modseq) = (changed, modseq);
                        mailbox.modseq = modseq;
                    }
                }
            }
            Self::Copy(account, at, uids, to) => after.transfer(account, &at, &uids, &to),
            Self::Move(account, at, uids, to) => {
                after.transfer(account, &at, &uids, &to);
                after.mailbox(account, &at).remove(&uids);
            }
            Self::Expunge(account, at, uids) => after.expunge(account, &at, &uids),
            Self::Undelete(id, of, uids) => {
                let account = after.account(id);
                let back = uids
                    .iter()
                    .map(|uid| account.kept.remove(&(of, *uid)).unwrap());
                let (names, messages): (Vec<String>, Vec<Message>) = back.unzip();
                let mut there = account.mailboxes.iter();
                let there = there.find(|(_, mailbox)| mailbox.id == of);
                let name = there.map_or(&names[0], |(name, _)| name).clone();
                let mut steps = Vec::new();
                if !account.mailboxes.contains_key(&name) {
                    account.create(&name);
                    // Made by a record of its own, after which nothing is back yet.
                    let mut made = world.clone();
                    made.account(id).create(&name);
                    steps.push(made);
                }
                let messages = messages.into_iter().map(|message| Message {
                    flags: Flags(message.flags.0 & !Flags::DELETED.0),
                    ..message
                });
                account.at(&name).add(messages.collect());
                steps.push(after);
                return steps;
            }
            Self::Create(account, name) => after.account(account).create(&name),
            Self::Rename(account, from, to) => after.account(account).rename(&from, &to),
            Self::Delete(account, name) => {
                let mailbox = after.mailbox(account, &name);
                let uids: Vec<u32> = mailbox.messages.keys().copied().collect();
                after.expunge(account, &name, &uids);
                after.account(account).mailboxes.remove(&name);
            }
            Self::Subscribe(account, name, true) => {
                after.account(account).subscriptions.insert(name);
            }
            Self::Subscribe(account, name, false) => {
                after.account(account).subscriptions.remove(&name);
            }
        }
        vec![after]
    }

    /// The bodies it brings, taken in by the volume.
    pub(super) async fn bodies(&self, volume: &Volume) -> Vec<FinishedBlob> {
        let bodies = match self {
            Self::Deliver(_, body, _) | Self::Replace(.., body) => std::slice::from_ref(body),
            Self::Append(_, _, _, bodies, _) => bodies,
            _ => &[],
        };
        let mut finished = Vec::new();
        for body in bodies {
            finished.push(blob(volume, &body.octets()).await);
        }
        finished
    }

    /// Asks a volume for it; `world` is the one before it. Answers in which record each recipient of a delivery stands:
    /// 0 for one that had it before.
    pub(super) async fn run(
        self,
        volume: &Volume,
        world: &World,
        bodies: Vec<FinishedBlob>,
    ) -> Vec<u64> {
        let id = |account, name: &str| world.id(account, name);
        let mut bodies = bodies.into_iter();
        match self {
            Self::Deliver(number, _, accounts) => {
                let delivery = Delivery {
                    txn: txn(number),
                    sender: b"sender@example.test".to_vec(),
                    content_key: [0; 32],
                    repeats: Repeats::Deliver,
                    blob: bodies.next().unwrap(),
                    trace: format!("t{number}"),
                    received_ms: date_ms(number),
                    recipients: accounts.iter().map(|account| to(*account)).collect(),
                };
                let outcomes = volume.deliver(delivery).await;
                return outcomes.iter().map(record_of).collect();
            }
            Self::Append(account, at, number, _, flags) => {
                let messages = bodies.map(|body| message(body, number, flags)).collect();
                let appended = volume.append(account, E1, id(account, &at), messages);
                let uids = appended.await.unwrap().uids;
                assert_eq!(uids[0], world.accounts[&account].mailboxes[&at].uidnext);
            }
            Self::Replace(account, (at, uid), to, number, _) => {
                let message = message(bodies.next().unwrap(), number, Flags::DRAFT);
                let (at, to) = (id(account, &at), id(account, &to));
                let done = volume.replace(account, E1, (at, uid), to, message).await;
                done.unwrap();
            }
            Self::Flag(account, at, uids, set, flags) => {
                let change = if set {
                    FlagChange::Add(flags.into())
                } else {
                    FlagChange::Remove(flags.into())
                };
                let done = volume.store_flags(account, E1, id(account, &at), uids, change, None);
                assert!(done.await.unwrap().failed.is_empty());
            }
            Self::Copy(account, at, uids, to) => {
                let (count, at, to) = (uids.len(), id(account, &at), id(account, &to));
                let copied = volume.copy_messages(account, E1, at, uids, to).await;
                assert_eq!(copied.unwrap().uids.len(), count);
            }
            Self::Move(account, at, uids, to) => {
                let (count, at, to) = (uids.len(), id(account, &at), id(account, &to));
                let moved = volume.move_messages(account, E1, at, uids, to).await;
                assert_eq!(moved.unwrap().uids.len(), count);
            }
            Self::Expunge(account, at, uids) => {
                let gone = volume.expunge(account, E1, id(account, &at), uids.clone());
                assert_eq!(gone.await.unwrap().uids, uids);
            }
            Self::Create(account, name) => {
                let use_none = SpecialUse::default();
                let made = volume.create_mailbox(account, E1, &name, use_none).await;
                made.unwrap();
            }
            Self::Rename(account, from, to) => {
                let renamed = volume.rename_mailbox(account, E1, from.as_str(), &to);
                renamed.await.unwrap();
            }
            Self::Delete(account, name) => {
                let deleted = volume.delete_mailbox(account, E1, name.as_str()).await;
                deleted.unwrap();
            }
            Self::Undelete(account, of, uids) => {
                let is_there = |mailbox: &Mailbox| mailbox.id == of;
                let account_before = &world.accounts[&account];
                let name = &account_before.kept[&(of, uids[0])].0;
                let is_made = !account_before.mailboxes.values().any(is_there)
                    && !account_before.mailboxes.contains_key(name);
                let count = uids.len();
                let back = volume.undelete(account, E1, MailboxId(of), uids, None);
                assert_eq!(back.await.unwrap().uids.len(), count);
                return if is_made { vec![1, 2] } else { vec![0] };
            }
            Self::Subscribe(account, name, subscribed) => {
                let done = volume.subscribe(account, E1, &name, subscribed).await;
                done.unwrap();
            }
        }
        vec![0]
    }
}

fn record_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Committed { lsn, .. } => lsn.0,
        Outcome::Duplicate => 0,
        other => panic!("{other:?}"),
    }
}

fn date_ms(number: u64) -> i64 {
    1_700_000_000_000 + i64::try_from(number).unwrap()
}

fn appended(body: Body, number: u64, flags: Flags) -> Message {
    Message {
        flags,
        modseq: 0,
        date_ms: date_ms(number),
        text: *blake3::hash(&body.octets()).as_bytes(),
    }
}

fn message(body: FinishedBlob, number: u64, flags: Flags) -> AppendMessage {
    AppendMessage {
        body: AppendBody::Finished(body),
        flags: flags.into(),
        internal_date_ms: date_ms(number),
    }
}

impl World {
    fn account(&mut self, account: AccountId) -> &mut Account {
        self.accounts.get_mut(&account).unwrap()
    }

    /// Removes messages that can be brought back, if the setting says so.
    fn expunge(&mut self, account: AccountId, at: &str, uids: &[u32]) {
        let keeps = self.keeps;
        let account = self.account(account);
        let mailbox = account.mailboxes.get_mut(at).unwrap();
        for uid in uids.iter().filter(|_| keeps) {
            let message = mailbox.messages[uid].clone();
            let place = (mailbox.id, *uid);
            account.kept.insert(place, (at.to_owned(), message));
        }
        mailbox.remove(uids);
    }

    fn mailbox(&mut self, account: AccountId, name: &str) -> &mut Mailbox {
        self.account(account).at(name)
    }

    fn id(&self, account: AccountId, name: &str) -> MailboxId {
        MailboxId(self.accounts[&account].mailboxes[name].id)
    }

    fn transfer(&mut self, account: AccountId, at: &str, uids: &[u32], to: &str) {
        let from = &self.mailbox(account, at).messages;
        let messages = uids.iter().map(|uid| from[uid].clone()).collect();
        self.mailbox(account, to).add(messages);
    }

    /// Everything that the clients of a volume can see, every octet read. Fails where the volume contradicts itself.
    pub(super) async fn seen(volume: &Volume, uidvalidities: &mut Uidvalidities) -> Self {
        let mut world = Self::default();
        for account in ACCOUNTS {
            if volume.account(account).await.unwrap().is_none() {
                continue;
            }
            let mut seen = Account {
                subscriptions: volume.listing(account).await.unwrap().subscriptions,
                ..Account::default()
            };
            for one in volume.kept(account, None, usize::MAX, 0).await.unwrap() {
                let message = Message {
                    flags: Flags::default(),
                    modseq: 0,
                    date_ms: one.internal_date_ms,
                    text: [0; 32],
                };
                let place = (one.mailbox.0, one.uid);
                seen.kept.insert(place, (one.name, message));
            }
            for info in volume.mailboxes(account).await.unwrap() {
                uidvalidities.check(account, &info);
                let changes = volume.changes_since(account, info.mailbox, 0).await;
                let changes = changes.unwrap().unwrap();
                let mut mailbox = Mailbox {
                    id: info.mailbox.0,
                    uidnext: info.uidnext,
                    modseq: info.highestmodseq,
                    messages: BTreeMap::new(),
                    expunged: ranges(&changes.vanished),
                };
                let mut octets = 0;
                for summary in &changes.now.messages {
                    let read = volume.read_message(account, info.mailbox, summary.uid);
                    let read = read.await.unwrap().unwrap();
                    let mut text = read.prologue.to_vec();
                    // Verifies the hash (P9).
                    text.extend(read.blob.read_all().await.unwrap());
                    octets += text.len() as u64;
                    assert_eq!(text.len() as u64, summary.size_octets);
                    let message = Message {
                        flags: summary.flags,
                        modseq: summary.modseq,
                        date_ms: summary.internal_date_ms,
                        text: *blake3::hash(&text).as_bytes(),
                    };
                    mailbox.messages.insert(summary.uid, message);
                }
                assert_eq!(info.message_count, mailbox.messages.len() as u64);
                assert_eq!(info.size_octets, octets);
                seen.mailboxes.insert(info.name, mailbox);
            }
            world.accounts.insert(account, seen);
        }
        let count = world.accounts.len() as u64;
        assert_eq!(volume.status().account_count, count);
        world
    }

    /// The files that messages have in a volume, and no others.
    pub(super) fn links(&self, root: &Path) -> BTreeSet<PathBuf> {
        let layout = Layout { root: root.into() };
        let mut links = BTreeSet::new();
        for (account, one) in &self.accounts {
            for mailbox in one.mailboxes.values() {
                let id = MailboxId(mailbox.id);
                let uids = mailbox.messages.keys();
                links.extend(uids.map(|uid| layout.message(*account, id, *uid)));
            }
        }
        links
    }
}

fn ranges(ranges: &[(u32, u32)]) -> BTreeSet<u32> {
    let uids = ranges.iter().flat_map(|(first, last)| *first..=*last);
    uids.collect()
}

impl Account {
    fn with_inbox() -> Self {
        let mut account = Self {
            next: 1,
            ..Self::default()
        };
        account.create("INBOX");
        account
    }

    /// What can be brought back as a list tells it: with what its mailbox is called now, if it is there.
    fn kept_lines(&self) -> BTreeSet<String> {
        let line = |((of, uid), (name, message)): (&(u32, u32), &(String, Message))| {
            let mut there = self.mailboxes.iter();
            let there = there.find(|(_, mailbox)| mailbox.id == *of);
            let name = there.map_or(name, |(name, _)| name);
            format!("kept {of}:{uid} {name} date {}", message.date_ms)
        };
        self.kept.iter().map(line).collect()
    }

    fn at(&mut self, name: &str) -> &mut Mailbox {
        self.mailboxes.get_mut(name).unwrap()
    }

    /// With those above it.
    fn create(&mut self, name: &str) {
        let above = name.match_indices('/').map(|(place, _)| &name[..place]);
        for name in above.chain([name]) {
            if self.mailboxes.contains_key(name) {
                continue;
            }
            let new = Mailbox {
                id: self.next,
                uidnext: 1,
                modseq: 1,
                messages: BTreeMap::new(),
                expunged: BTreeSet::new(),
            };
            self.next += 1;
            self.mailboxes.insert(name.to_owned(), new);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some((above, _)) = to.rsplit_once('/') {
            self.create(above);
        }
        let is_inside = |name: &String| name == from || name.starts_with(&format!("{from}/"));
        let names: Vec<String> = self.mailboxes.keys().cloned().collect();
        for name in names.into_iter().filter(is_inside) {
            let moved = self.mailboxes.remove(&name).unwrap();
            let renamed = format!("{to}{}", &name[from.len()..]);
            self.mailboxes.insert(renamed, moved);
        }
    }
}

impl Mailbox {
    /// New messages, all with one new MODSEQ.
    fn add(&mut self, messages: Vec<Message>) {
        self.modseq += 1;
        for message in messages {
            let message = Message {
                modseq: self.modseq,
                ..message
            };
            self.messages.insert(self.uidnext, message);
            self.uidnext += 1;
        }
    }

    fn remove(&mut self, uids: &[u32]) {
        self.modseq += 1;
        for uid in uids {
            self.messages.remove(uid).unwrap();
            self.expunged.insert(*uid);
        }
    }
}

/// UIDVALIDITYs depend on the time and so are in no model: what was told once holds for ever, and none comes again (P3).
#[derive(Clone, Default)]
pub(super) struct Uidvalidities(BTreeMap<(AccountId, u32), u32>);

impl Uidvalidities {
    /// Forgets accounts that are not there yet: they will be made at another time.
    pub(super) fn forget_new(&mut self, world: &World) {
        self.0
            .retain(|(account, _), _| world.accounts.contains_key(account));
    }

    fn check(&mut self, account: AccountId, info: &MailboxInfo) {
        let known = self.0.entry((account, info.mailbox.0));
        let known = *known.or_insert(info.uidvalidity);
        assert_eq!(known, info.uidvalidity, "UIDVALIDITY of {}", info.name);
        let of_account = (account, 0)..=(account, u32::MAX);
        let all: Vec<u32> = self.0.range(of_account).map(|(_, one)| *one).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
    }
}

impl World {
    /// What one has and the other has not, a line each.
    pub(super) fn difference(&self, other: &Self) -> String {
        let (ours, theirs) = (self.lines(), other.lines());
        let less = ours.difference(&theirs).map(|line| format!("  - {line}\n"));
        let more = theirs.difference(&ours).map(|line| format!("  + {line}\n"));
        less.chain(more).collect()
    }

    fn lines(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for (account, one) in &self.accounts {
            lines.insert(format!("{account} subscribes {:?}", one.subscriptions));
            lines.extend(
                one.kept_lines()
                    .iter()
                    .map(|line| format!("{account} {line}")),
            );
            for (name, mailbox) in &one.mailboxes {
                let (id, uidnext, modseq) = (mailbox.id, mailbox.uidnext, mailbox.modseq);
                let gone = &mailbox.expunged;
                let place = format!("{account} {name} ({id})");
                lines.insert(format!(
                    "{place} uidnext {uidnext} modseq {modseq} without {gone:?}"
                ));
                for (uid, message) in &mailbox.messages {
                    let (flags, modseq, date) = (message.flags.0, message.modseq, message.date_ms);
                    let text = data_encoding::HEXLOWER.encode(&message.text[..4]);
                    let what = format!("flags {flags} modseq {modseq} date {date} text {text}");
                    lines.insert(format!("{place} uid {uid} {what}"));
                }
            }
        }
        lines
    }
}
