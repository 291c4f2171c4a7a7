//! Random commands, several at a time so that they meet in flight, against a plain model of an account.

pub(super) mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;

use super::moves::{MOVE, copy, items_of, name};
use super::*;
use random::Random;

const BODIES: u64 = 9;
const KEYWORDS: [&str; 5] = ["$Forwarded", "$Junk", "a", "b", "Todo"];
const NAMES: [&str; 8] = [
    "a",
    "a/b",
    "a/b/c",
    "b",
    "b/c",
    "INBOX/x",
    "INBOX/x/y",
    "Ärger",
];

const ENTRIES: [&str; 3] = ["/private/comment", "/shared/comment", "/shared/vendor/x"];

const GRANTEES: [AccountId; 2] = [BOB, AccountId(8)];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    flags: Flags,
    keywords: BTreeSet<String>,
    modseq: u64,
    date_ms: i64,
    body: u64,
    delivered: bool,
}

impl Message {
    fn text(&self) -> Vec<u8> {
        if self.delivered {
            expected(ANN, &body(self.body))
        } else {
            body(self.body)
        }
    }
}

fn body(number: u64) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\n{}", "x".repeat(number as usize)).into_bytes()
}

#[derive(Clone, Debug, Default)]
struct Mailbox {
    id: u32,
    uidnext: u32,
    modseq: u64,
    special_use: SpecialUse,
    messages: BTreeMap<u32, Message>,
    expunged: Vec<(u64, u32)>,
    annotations: BTreeMap<String, Bytes>,
    rights: BTreeMap<AccountId, u32>,
}

impl Mailbox {
    fn new(id: u32) -> Self {
        Self {
            id,
            uidnext: 1,
            modseq: 1,
            ..Self::default()
        }
    }

    fn add(&mut self, message: Message) -> u32 {
        self.uidnext += 1;
        self.messages.insert(self.uidnext - 1, message);
        self.uidnext - 1
    }

    fn remove(&mut self, uids: &[u32]) -> Vec<u32> {
        let mut gone = uids.to_vec();
        gone.retain(|uid| self.messages.contains_key(uid));
        if !gone.is_empty() {
            self.modseq += 1;
        }
        for uid in &gone {
            self.messages.remove(uid);
            self.expunged.push((self.modseq, *uid));
        }
        gone
    }
}

#[derive(Default)]
struct Model {
    mailboxes: BTreeMap<String, Mailbox>,
    subscriptions: BTreeSet<String>,
    annotations: BTreeMap<String, Bytes>,
    next: u32,
    deliveries: u64,
    uidvalidities: BTreeMap<u32, u32>,
}

/// UID, flags, names of keywords, MODSEQ after and before.
type NowOf = (u32, Flags, BTreeSet<String>, (u64, u64));

/// What a command is expected to answer, or has answered; UIDVALIDITY apart, which depends on the time.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Delivered(u32),
    Appended(u64, Vec<u32>),
    Copied(u64, u64, Vec<(u32, u32)>),
    Stored(Stored, Vec<NowOf>),
    Expunged(Expunged),
    Created(MailboxId),
    Done,
    Refused(Refusal),
}

/// A command under way.
pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

fn answer<T>(result: Result<T, Refusal>, make: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(Answer::Refused, make)
}

impl Model {
    fn create_parents(&mut self, name: &str) {
        for (place, _) in name.match_indices('/') {
            if !self.mailboxes.contains_key(&name[..place]) {
                self.create(&name[..place]);
            }
        }
    }

    fn create(&mut self, name: &str) -> MailboxId {
        self.next += 1;
        let above = name.rfind('/').map(|place| &name[..place]);
        let above = above.and_then(|above| self.mailboxes.get(above));
        let new = Mailbox {
            rights: above.map(|one| one.rights.clone()).unwrap_or_default(),
            ..Mailbox::new(self.next - 1)
        };
        self.mailboxes.insert(name.to_owned(), new);
        MailboxId(self.next - 1)
    }

    fn transfer(&mut self, source: &str, target: &str, uids: &[u32], leave: bool) -> Answer {
        let mut wanted = uids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let from = &self.mailboxes[source];
        let found: Vec<_> = wanted
            .iter()
            .filter_map(|uid| Some((*uid, from.messages.get(uid)?.clone())))
            .collect();
        if found.is_empty() {
            return Answer::Copied(0, 0, Vec::new());
        }
        let to = self.mailboxes.get_mut(target).unwrap();
        to.modseq += 1;
        let modseq = to.modseq;
        let mut pairs = Vec::new();
        for (uid, message) in found {
            pairs.push((uid, to.add(Message { modseq, ..message })));
        }
        let mut source_modseq = 0;
        if leave {
            let from = self.mailboxes.get_mut(source).unwrap();
            from.remove(&pairs.iter().map(|(uid, _)| *uid).collect::<Vec<_>>());
            source_modseq = from.modseq;
        }
        Answer::Copied(modseq, source_modseq, pairs)
    }

    fn rename(&mut self, from: &str, to: &str) -> Answer {
        if self.mailboxes.contains_key(to) {
            return Answer::Refused(Refusal::MailboxExists);
        }
        if from == "INBOX" {
            self.create_parents(to);
            self.create(to);
            let uids: Vec<u32> = self.mailboxes["INBOX"].messages.keys().copied().collect();
            self.transfer("INBOX", to, &uids, true);
            return Answer::Done;
        }
        let inside = |name: &str| name == from || name.starts_with(&format!("{from}/"));
        if inside(to) {
            return Answer::Refused(Refusal::NotAllowed);
        }
        let moved: Vec<_> = self
            .mailboxes
            .keys()
            .filter(|name| inside(name))
            .cloned()
            .collect();
        if moved.is_empty() {
            return Answer::Refused(Refusal::NoMailbox);
        }
        let renamed = |name: &String| format!("{to}{}", &name[from.len()..]);
        let taken = |name: &String| !inside(name) && self.mailboxes.contains_key(name);
        if moved.iter().map(renamed).any(|name| taken(&name)) {
            return Answer::Refused(Refusal::MailboxExists);
        }
        self.create_parents(to);
        let all: Vec<_> = moved
            .iter()
            .map(|name| (renamed(name), self.mailboxes.remove(name).unwrap()))
            .collect();
        self.mailboxes.extend(all);
        Answer::Done
    }

    /// One random command: what it should answer, and the work.
    async fn command(&mut self, random: &mut Random, volume: &Volume) -> (Answer, Work<Answer>) {
        let names: Vec<String> = self.mailboxes.keys().cloned().collect();
        let at = random.one(&names).clone();
        let to = random.one(&names).clone();
        let (id, to_id) = (
            MailboxId(self.mailboxes[&at].id),
            MailboxId(self.mailboxes[&to].id),
        );
        let uidnext = u64::from(self.mailboxes[&at].uidnext);
        let uids: Vec<u32> = (0..1 + random.below(6))
            .map(|_| u32::try_from(1 + random.below(uidnext)).unwrap())
            .collect();
        let sorted: Vec<u32> = BTreeSet::from_iter(uids.clone()).into_iter().collect();
        let volume = volume.clone();
        match random.below(25) {
            0..4 => {
                self.deliveries += 1;
                let (number, body_number) = (self.deliveries, random.below(BODIES));
                let inbox = self.mailboxes.get_mut("INBOX").unwrap();
                inbox.modseq += 1;
                let uid = inbox.add(Message {
                    flags: Flags::default(),
                    keywords: BTreeSet::new(),
                    modseq: inbox.modseq,
                    date_ms: 1_700_000_000_000 + i64::try_from(number).unwrap(),
                    body: body_number,
                    delivered: true,
                });
                let work = async move {
                    let outcomes = deliver(&volume, number, &body(body_number), &[ANN]).await;
                    Answer::Delivered(super::uid(&outcomes[0]))
                };
                (Answer::Delivered(uid), Box::pin(work))
            }
            4..7 => {
                let mailbox = self.mailboxes.get_mut(&at).unwrap();
                mailbox.modseq += 1;
                let (mut messages, mut added) = (Vec::new(), Vec::new());
                for _ in 0..1 + random.below(4) {
                    let (number, flags) = (random.below(BODIES), random.flags());
                    let date_ms = i64::try_from(random.below(1 << 40)).unwrap();
                    let message = Message {
                        flags: flags.system,
                        keywords: flags.keywords.iter().cloned().collect(),
                        modseq: mailbox.modseq,
                        date_ms,
                        body: number,
                        delivered: false,
                    };
                    added.push(mailbox.add(message));
                    messages.push(AppendMessage {
                        body: AppendBody::Finished(blob(&volume, &body(number)).await),
                        flags,
                        internal_date_ms: date_ms,
                    });
                }
                let work = async move {
                    let appended = volume.append(ANN, E1, id, messages).await;
                    answer(appended, |done| Answer::Appended(done.modseq, done.uids))
                };
                (Answer::Appended(mailbox.modseq, added), Box::pin(work))
            }
            22 | 23 => {
                let (number, flags) = (random.below(BODIES), random.flags());
                let replaced = uids[0];
                let message = AppendMessage {
                    body: AppendBody::Finished(blob(&volume, &body(number)).await),
                    flags: flags.clone(),
                    internal_date_ms: 7,
                };
                let expected = if self.mailboxes[&at].messages.contains_key(&replaced) {
                    let target = self.mailboxes.get_mut(&to).unwrap();
                    target.modseq += 1;
                    let modseq = target.modseq;
                    let added = target.add(Message {
                        flags: flags.system,
                        keywords: flags.keywords.into_iter().collect(),
                        modseq,
                        date_ms: 7,
                        body: number,
                        delivered: false,
                    });
                    let source = self.mailboxes.get_mut(&at).unwrap();
                    source.remove(&[replaced]);
                    Answer::Copied(modseq, source.modseq, vec![(replaced, added)])
                } else {
                    Answer::Refused(Refusal::NoMessage)
                };
                let work = async move {
                    let done = volume
                        .replace(ANN, E1, (id, replaced), to_id, message)
                        .await;
                    answer(done, |done| {
                        let pair = (replaced, done.uids[0]);
                        Answer::Copied(done.modseq, done.replaced_modseq, vec![pair])
                    })
                };
                (expected, Box::pin(work))
            }
            7..10 => {
                let leave = random.below(2) == 0;
                let expected = self.transfer(&at, &to, &uids, leave);
                let work = async move {
                    let copied = if leave {
                        volume.move_messages(ANN, E1, id, uids, to_id).await
                    } else {
                        volume.copy_messages(ANN, E1, id, uids, to_id).await
                    };
                    answer(copied, |done| {
                        Answer::Copied(done.modseq, done.source_modseq, done.uids)
                    })
                };
                (expected, Box::pin(work))
            }
            10..14 => {
                let named = random.flags();
                let mailbox = self.mailboxes.get_mut(&at).unwrap();
                let since = (random.below(2) == 0).then(|| random.below(mailbox.modseq + 1));
                let change = match random.below(4) {
                    0 => FlagChange::Add(named.clone()),
                    1 => FlagChange::Remove(named.clone()),
                    2 => FlagChange::ReplaceWithin {
                        set: named.clone(),
                        system: Flags(u32::try_from(random.below(32)).unwrap()),
                        keywords: random.below(2) == 0,
                    },
                    _ => FlagChange::Replace(named.clone()),
                };
                let keywords: BTreeSet<String> = named.keywords.iter().cloned().collect();
                let mut stored = Stored::default();
                let mut now = Vec::new();
                for uid in &sorted {
                    let Some(message) = mailbox.messages.get_mut(uid) else {
                        continue;
                    };
                    if since.is_some_and(|since| message.modseq > since) {
                        stored.failed.push(*uid);
                        continue;
                    }
                    let (mut after, modseq_before) = (message.clone(), message.modseq);
                    match &change {
                        FlagChange::Add(_) => {
                            after.flags = after.flags | named.system;
                            after.keywords.extend(keywords.iter().cloned());
                        }
                        FlagChange::Remove(_) => {
                            after.flags = Flags(after.flags.0 & !named.system.0);
                            after.keywords.retain(|one| !keywords.contains(one));
                        }
                        FlagChange::ReplaceWithin {
                            system,
                            keywords: may,
                            ..
                        } => {
                            let (kept, set) = (after.flags.0 & !system.0, named.system.0);
                            after.flags = Flags(kept | set & system.0);
                            if *may {
                                after.keywords.clone_from(&keywords);
                            }
                        }
                        FlagChange::Replace(_) => {
                            (after.flags, after.keywords) = (named.system, keywords.clone());
                        }
                    }
                    if after != *message {
                        stored.modseq = mailbox.modseq + 1;
                        after.modseq = stored.modseq;
                        stored.changed.push(*uid);
                        *message = after;
                    }
                    let names = message.keywords.clone();
                    let modseqs = (message.modseq, modseq_before);
                    now.push((*uid, message.flags, names, modseqs));
                }
                mailbox.modseq = mailbox.modseq.max(stored.modseq);
                let work = async move {
                    let stored = volume.store_flags(ANN, E1, id, uids, change, since).await;
                    answer(stored, |mut stored| {
                        let now = std::mem::take(&mut stored.now).into_iter().map(|one| {
                            let word = |number: &u16| stored.keywords[usize::from(*number)].clone();
                            let names = one.keywords.iter().map(word).collect();
                            (one.uid, one.flags, names, (one.modseq, one.modseq_before))
                        });
                        let now = now.collect();
                        stored.keywords.clear();
                        Answer::Stored(stored, now)
                    })
                };
                (Answer::Stored(stored, now), Box::pin(work))
            }
            14..16 => {
                let only_deleted = random.below(2) == 0;
                let mailbox = self.mailboxes.get_mut(&at).unwrap();
                let sorted_uids = sorted.clone();
                let mut wanted = sorted;
                wanted.retain(|uid| {
                    let deleted = |message: &Message| message.flags.contains(Flags::DELETED);
                    !only_deleted || mailbox.messages.get(uid).is_some_and(deleted)
                });
                let gone = mailbox.remove(&wanted);
                let modseq = if gone.is_empty() { 0 } else { mailbox.modseq };
                let among = sorted_uids.iter().map(|uid| (*uid, *uid)).collect();
                let work = async move {
                    let expunged = if only_deleted {
                        volume.expunge_deleted(ANN, E1, id, among).await
                    } else {
                        volume.expunge(ANN, E1, id, uids).await
                    };
                    answer(expunged, Answer::Expunged)
                };
                let expected = Expunged {
                    modseq,
                    uids: gone,
                    has_more: false,
                };
                (Answer::Expunged(expected), Box::pin(work))
            }
            16 => {
                let new = *random.one(&NAMES);
                let special_use = SpecialUse(1 << random.below(8));
                let expected = if self.mailboxes.contains_key(new) {
                    Answer::Refused(Refusal::MailboxExists)
                } else {
                    self.create_parents(new);
                    let created = self.create(new);
                    self.mailboxes.get_mut(new).unwrap().special_use = special_use;
                    Answer::Created(created)
                };
                let work = async move {
                    let typed = new.replace("INBOX", "inBox");
                    let made = volume.create_mailbox(ANN, E1, &typed, special_use).await;
                    answer(made, Answer::Created)
                };
                (expected, Box::pin(work))
            }
            17 => {
                let expected = if at == "INBOX" {
                    Answer::Refused(Refusal::NotAllowed)
                } else {
                    self.mailboxes.remove(&at);
                    Answer::Done
                };
                let work = async move {
                    let deleted = volume.delete_mailbox(ANN, E1, at.as_str()).await;
                    answer(deleted, |()| Answer::Done)
                };
                (expected, Box::pin(work))
            }
            18 => {
                let new = *random.one(&NAMES);
                // INBOX is read before it is renamed: that is done alone, below.
                let from = if at == "INBOX" { "a".to_owned() } else { at };
                let expected = self.rename(&from, new);
                let work = async move {
                    let renamed = volume.rename_mailbox(ANN, E1, from.as_str(), new).await;
                    answer(renamed, |()| Answer::Done)
                };
                (expected, Box::pin(work))
            }
            19 => {
                let (named, subscribed) = (*random.one(&NAMES), random.below(2) == 0);
                if subscribed {
                    self.subscriptions.insert(named.to_owned());
                } else {
                    self.subscriptions.remove(named);
                }
                let work = async move {
                    let done = volume.subscribe(ANN, E1, named, subscribed).await;
                    answer(done, |()| Answer::Done)
                };
                (Answer::Done, Box::pin(work))
            }
            20 => {
                let (mut none, mailbox) = (0, self.mailboxes.get_mut(&at).unwrap());
                let (of, annotations, modseq) = match random.below(3) {
                    0 => (None, &mut self.annotations, &mut none),
                    _ => (Some(id), &mut mailbox.annotations, &mut mailbox.modseq),
                };
                let before = annotations.clone();
                let mut changes = Vec::new();
                for _ in 0..1 + random.below(3) {
                    let entry = (*random.one(&ENTRIES)).to_owned();
                    let value = (random.below(3) > 0).then(|| body(random.below(BODIES)).into());
                    match &value {
                        Some(value) => annotations.insert(entry.clone(), Bytes::clone(value)),
                        None => annotations.remove(&entry),
                    };
                    changes.push((entry, value));
                }
                let is_there = |(entry, _): &AnnotationChange| {
                    annotations.contains_key(entry) || before.contains_key(entry)
                };
                let is_change = changes.iter().any(is_there);
                *modseq += u64::from(is_change);
                let work = async move {
                    let done = volume.annotate(ANN, E1, of, changes).await;
                    answer(done, |()| Answer::Done)
                };
                (Answer::Done, Box::pin(work))
            }
            24 => {
                let grantee = *random.one(&GRANTEES);
                let named = u32::try_from(random.below(2048) & random.below(2048)).unwrap();
                let rights = &mut self.mailboxes.get_mut(&at).unwrap().rights;
                let before = rights.remove(&grantee).unwrap_or_default();
                let (change, after) = match random.below(3) {
                    0 => (AclChange::Add(Rights(named)), before | named),
                    1 => (AclChange::Remove(Rights(named)), before & !named),
                    _ => (AclChange::Replace(Rights(named)), named),
                };
                if after != 0 {
                    rights.insert(grantee, after);
                }
                let work = async move {
                    let name = format!("u{grantee}");
                    let done = volume
                        .set_acl(ANN, E1, id, Some("ann"), grantee, &name, change)
                        .await;
                    answer(done, |()| Answer::Done)
                };
                (Answer::Done, Box::pin(work))
            }
            _ => {
                let special_use = SpecialUse(1 << random.below(8));
                self.mailboxes.get_mut(&at).unwrap().special_use = special_use;
                let work = async move {
                    let done = volume.set_special_use(ANN, E1, id, special_use).await;
                    answer(done, |()| Answer::Done)
                };
                (Answer::Done, Box::pin(work))
            }
        }
    }

    /// Everything a client can see is what the model says.
    async fn check(&mut self, random: &mut Random, volume: &Volume) {
        settle(volume);
        let infos = volume.mailboxes(ANN).await.unwrap();
        let seen: BTreeSet<_> = infos.iter().map(|info| info.name.clone()).collect();
        assert_eq!(seen, self.mailboxes.keys().cloned().collect());
        assert_eq!(
            volume.listing(ANN).await.unwrap().subscriptions,
            self.subscriptions
        );
        assert_eq!(annotations(volume, None).await, self.annotations);
        // Nobody sees more than the lists say, nor less.
        for grantee in GRANTEES {
            let shared = volume.shared_with(grantee, None).await.unwrap();
            let seen: BTreeMap<_, _> = shared
                .into_iter()
                .map(|one| {
                    assert_eq!((one.owner, one.owner_name.as_str()), (ANN, "ann"));
                    (one.mailbox.name, one.rights.0)
                })
                .collect();
            let visible = self.mailboxes.iter().filter_map(|(name, mailbox)| {
                let rights = *mailbox.rights.get(&grantee)?;
                (rights & Rights::LOOKUP.0 != 0).then(|| (name.clone(), rights))
            });
            assert_eq!(seen, visible.collect());
        }
        for info in infos {
            let wanted = &self.mailboxes[&info.name];
            let annotated = annotations(volume, Some(info.mailbox)).await;
            assert_eq!(annotated, wanted.annotations, "{}", info.name);
            let count = |flag, set| {
                let all = wanted.messages.values();
                all.filter(|one| one.flags.contains(flag) == set).count() as u64
            };
            assert_eq!(
                (info.mailbox.0, info.uidnext, info.highestmodseq),
                (wanted.id, wanted.uidnext, wanted.modseq),
                "{}",
                info.name
            );
            assert_eq!(info.special_use, wanted.special_use);
            assert_eq!(info.message_count, wanted.messages.len() as u64);
            assert_eq!(info.unseen_count, count(Flags::SEEN, false));
            assert_eq!(info.deleted_count, count(Flags::DELETED, true));
            let known = self.uidvalidities.entry(info.mailbox.0);
            assert_eq!(*known.or_insert(info.uidvalidity), info.uidvalidity);
            let snapshot = volume.snapshot(ANN, info.mailbox).await.unwrap().unwrap();
            assert_eq!(snapshot.mailbox, info);
            let seen = view(&snapshot);
            let model = |message: &Message| {
                let size = message.text().len() as u64;
                let keywords = message.keywords.clone();
                (
                    message.flags,
                    keywords,
                    message.modseq,
                    message.date_ms,
                    size,
                )
            };
            let all = wanted.messages.iter();
            let expected: BTreeMap<_, _> = all.map(|(uid, one)| (*uid, model(one))).collect();
            assert_eq!(seen, expected, "{}", info.name);
            let total: u64 = expected.values().map(|one| one.4).sum();
            assert_eq!(info.size_octets, total);
            let since = random.below(wanted.modseq + 1);
            let changes = volume.changes_since(ANN, info.mailbox, since).await;
            let changes = changes.unwrap().unwrap();
            let mut newer = expected;
            newer.retain(|_, one| one.2 > since);
            assert_eq!(view(&changes.now), newer, "{} since {since}", info.name);
            let gone = wanted.expunged.iter().filter(|(modseq, _)| *modseq > since);
            let gone: BTreeSet<u32> = gone.map(|(_, uid)| *uid).collect();
            let ranges = changes.vanished.iter();
            let vanished: Vec<u32> = ranges.flat_map(|(first, last)| *first..=*last).collect();
            assert_eq!(vanished, gone.into_iter().collect::<Vec<_>>());
        }
        let mut in_order: Vec<u32> = self.uidvalidities.values().copied().collect();
        in_order.dedup();
        assert_eq!(in_order.len(), self.uidvalidities.len());
        assert!(in_order.is_sorted(), "later mailboxes have later ones");
    }

    async fn check_texts(&self, volume: &Volume) {
        for mailbox in self.mailboxes.values() {
            for (uid, message) in &mailbox.messages {
                let found = volume.read_message(ANN, MailboxId(mailbox.id), *uid).await;
                let found = found.unwrap().unwrap();
                let body = found.blob.read_all().await.unwrap();
                assert_eq!([found.prologue.to_vec(), body].concat(), message.text());
            }
        }
    }
}

async fn annotations(volume: &Volume, of: Option<MailboxId>) -> BTreeMap<String, Bytes> {
    let all = volume.annotations(ANN, of, "").await.unwrap();
    all.into_iter().collect()
}

type View = BTreeMap<u32, (Flags, BTreeSet<String>, u64, i64, u64)>;

fn view(snapshot: &Snapshot) -> View {
    let one = |message: &Summary| {
        let keywords = snapshot.keywords_of(message).map(str::to_owned).collect();
        let (modseq, size) = (message.modseq, message.size_octets);
        (
            message.flags,
            keywords,
            modseq,
            message.internal_date_ms,
            size,
        )
    };
    let all = snapshot.messages.iter();
    all.map(|message| (message.uid, one(message))).collect()
}

/// Begins all in order, so that they are decided in order, most of them in one batch.
pub(super) async fn all<T>(mut work: Vec<Work<T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = work.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (one, answer) in work.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(done) = one.as_mut().poll(context)
            {
                *answer = Some(done);
            }
        }
        if answers.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

async fn run(seed: u64, rounds: u64) {
    println!("seed {seed}");
    let (dir, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = VolumeConfig {
        links_max: 4,
        ..config_without_checkpoints(dir.path())
    };
    let open = || Volume::open(config.clone(), Arc::new(RealDisk)).unwrap();
    let mut volume = open();
    let mut random = Random(seed);
    let mut model = Model {
        next: 2,
        ..Model::default()
    };
    model.mailboxes.insert("INBOX".into(), Mailbox::new(1));
    volume.ensure_account(ANN, E1).await.unwrap();
    // While it is there, changes of flags are remembered; else they are looked for.
    let mut watch = None;
    for round in 0..rounds {
        if random.below(6) == 0 {
            watch = match watch {
                None => Some(volume.watch(ANN)),
                Some(_) => None,
            };
        }
        let (mut expected, mut work) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(8) {
            let (answer, one) = model.command(&mut random, &volume).await;
            expected.push(answer);
            work.push(one);
        }
        assert_eq!(all(work).await, expected, "round {round}");
        if random.below(12) == 0 {
            settle(&volume);
            let to = *random.one(&NAMES);
            let expected = model.rename("INBOX", to);
            let renamed = volume.rename_mailbox(ANN, E1, "Inbox", to).await;
            assert_eq!(answer(renamed, |()| Answer::Done), expected);
        }
        if random.below(40) == 0 {
            volume.inner.crash();
            watch = None;
            drop(volume);
            volume = open();
        }
        model.check(&mut random, &volume).await;
    }
    drop(watch);
    model.check_texts(&volume).await;

    settle_unlinked(&volume).await;
    let dump = volume.dump_index().await.unwrap();
    let files = files_below(&dir.path().join("mail"));
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = open();
    assert!(volume.dump_index().await.unwrap() == dump, "replay differs");
    model.check(&mut random, &volume).await;
    model.check_texts(&volume).await;
    assert_eq!(files_below(&dir.path().join("mail")), files);

    let target = super::open(&there);
    volume.freeze(ANN, E1, MOVE).await.unwrap();
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    copy(&volume, &target, ANN).await;
    // A resumed import sends everything again.
    copy(&volume, &target, ANN).await;
    assert_eq!(items_of(&volume, ANN).await, items_of(&target, ANN).await);
    assert_eq!(
        volume.set_hash(ANN).await.unwrap(),
        target.set_hash(ANN).await.unwrap()
    );
    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    model.check(&mut random, &target).await;
    model.check_texts(&target).await;
    volume.close();
    target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn random_commands_agree_with_a_plain_model_and_with_replay_and_move() {
    // Another one tries other commands.
    let first = std::env::var("POSTHOUSE_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + 4 {
        run(seed, 60).await;
    }
}
