//! A target follows an account that is served: whatever is done at the source, in each round the blocks that differ are enough.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::item::Content;
use super::fsck::{REPAIR, check};
use super::moves::{MOVE, items_of, name};
use super::*;

/// Both sides of a move, with what each has counted.
struct Followed {
    source: Volume,
    target: Volume,
    here: Tally,
    there: Tally,
}

impl Followed {
    async fn new(source: Volume, target: Volume) -> Self {
        let begun = target.begin_import(ANN, MOVE, Some(name("b1")));
        begun.await.unwrap();
        Self {
            here: source.tally(ANN).await.unwrap(),
            there: target.tally(ANN).await.unwrap(),
            source,
            target,
        }
    }

    /// One round, as a pull does it: how many items were written.
    async fn round(&mut self) -> usize {
        self.here = self.source.refresh(self.here.clone()).await.unwrap();
        let theirs: BTreeMap<_, _> = self.here.sums().collect();
        let ours: BTreeMap<_, _> = self.there.sums().collect();
        let all: BTreeSet<Block> = theirs.keys().chain(ours.keys()).copied().collect();
        let differs = |block: &Block| theirs.get(block) != ours.get(block);
        let blocks: Vec<Block> = all.into_iter().filter(differs).collect();
        // The account and its mailboxes come first: what follows rests on them.
        let (frame, rest): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.is_frame());
        let mut written = 0;
        for some in [frame, rest] {
            let theirs = self.source.items_of(ANN, some.clone()).await.unwrap();
            let ours = self.target.items_of(ANN, some).await.unwrap();
            let names: HashSet<_> = theirs.iter().map(|item| item.name().unwrap()).collect();
            let mut gone = ours.clone();
            gone.retain(|item| !names.contains(&item.name().unwrap()));
            let mut new = theirs;
            new.retain(|item| !ours.contains(item));
            written += gone.len() + new.len();
            for some in gone.chunks(100) {
                let gone = self.target.import_gone(ANN, MOVE, some.to_vec());
                gone.await.unwrap();
            }
            for some in new.chunks(100) {
                self.import(some).await;
            }
        }
        self.there = self
            .target
            .recount(self.there.clone(), blocks)
            .await
            .unwrap();
        written
    }

    async fn import(&self, items: &[Item]) {
        for message in items.iter().filter_map(Item::message) {
            if self.target.has_blobs(vec![message.hash]).await.unwrap() == [false] {
                let found = self
                    .source
                    .read_message(ANN, message.mailbox, message.uid)
                    .await
                    .unwrap()
                    .unwrap();
                let body = found.blob.read_all().await.unwrap();
                let finished = blob(&self.target, &body).await;
                drop(self.target.put_blob(finished).await.unwrap());
            }
        }
        let imported = self.target.import_items(ANN, MOVE, items.to_vec());
        imported.await.unwrap();
    }

    /// What was counted block by block is what is there, on both sides.
    async fn check(&self, what: &str) {
        let sums = [
            self.here.set_hash(),
            self.source.set_hash(ANN).await.unwrap(),
            self.there.set_hash(),
            self.target.set_hash(ANN).await.unwrap(),
        ];
        if sums[1] != sums[3] {
            let [one, other] = [
                items_of(&self.source, ANN).await,
                items_of(&self.target, ANN).await,
            ];
            assert_eq!(one, other, "{what}");
        }
        assert_eq!(sums, [sums[1]; 4], "{what}");
        let [one, other] = [&self.source, &self.target].map(|volume| volume.account(ANN));
        let (one, other) = (one.await.unwrap().unwrap(), other.await.unwrap().unwrap());
        assert_eq!(
            (one.message_count, one.size_octets),
            (other.message_count, other.size_octets),
            "{what}"
        );
        let mailboxes = [&self.source, &self.target].map(|volume| volume.mailboxes(ANN));
        let [one, other] = mailboxes;
        assert_eq!(one.await.unwrap(), other.await.unwrap(), "{what}");
    }
}

/// Numbers below a limit, from a seed.
struct Random(blake3::OutputReader);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        let mut octets = [0; 4];
        self.0.fill(&mut octets);
        usize::try_from(u32::from_le_bytes(octets)).unwrap() % limit
    }
}

/// Does something that an owner, a sender or a sharer may do.
async fn something(volume: &Volume, random: &mut Random, number: u64) {
    let mailboxes = volume.mailboxes(ANN).await.unwrap();
    let any = |random: &mut Random| mailboxes[random.below(mailboxes.len())].clone();
    let uids = async |random: &mut Random, mailbox: MailboxId| {
        let all = volume.messages(ANN, mailbox).await.unwrap();
        let from = random.below(all.len().max(1));
        let count = 1 + random.below(90);
        let some = all.iter().skip(from).take(count);
        let every = 1 + random.below(3);
        some.step_by(every)
            .map(|message| message.uid)
            .collect::<Vec<u32>>()
    };
    match random.below(12) {
        0..=3 => {
            for extra in 0..1 + random.below(40) as u64 {
                let body = format!("n: {}\r\n\r\n", random.below(60));
                deliver(volume, number * 100 + extra, body.as_bytes(), &[ANN]).await;
            }
        }
        4 => {
            let mailbox = any(random).mailbox;
            let uids = uids(random, mailbox).await;
            let set = FlagSet {
                system: [Flags::SEEN, Flags::DELETED, Flags::default()][random.below(3)],
                keywords: vec![format!("k{}", random.below(5))],
            };
            let change = match random.below(2) {
                0 => FlagChange::Add(set),
                _ => FlagChange::Remove(set),
            };
            let stored = volume.store_flags(ANN, E1, mailbox, uids, change, None);
            stored.await.unwrap();
        }
        5 => {
            let mailbox = any(random).mailbox;
            let uids = uids(random, mailbox).await;
            volume.expunge(ANN, E1, mailbox, uids).await.unwrap();
        }
        6 => {
            let (from, to) = (any(random).mailbox, any(random).mailbox);
            let uids = uids(random, from).await;
            match random.below(2) {
                0 => volume.move_messages(ANN, E1, from, uids, to).await.unwrap(),
                _ => volume.copy_messages(ANN, E1, from, uids, to).await.unwrap(),
            };
        }
        7 => {
            let new = format!("m{number}");
            let made = volume.create_mailbox(ANN, E1, &new, SpecialUse::default());
            let made = made.await.unwrap();
            let inbox = MailboxId::INBOX;
            let uids = uids(random, inbox).await;
            let copied = volume.copy_messages(ANN, E1, inbox, uids, made);
            copied.await.unwrap();
        }
        8 => {
            let old = any(random);
            if old.mailbox != MailboxId::INBOX {
                match random.below(2) {
                    0 => volume.delete_mailbox(ANN, E1, &*old.name).await.unwrap(),
                    _ => {
                        let new = format!("renamed{number}");
                        let renamed = volume.rename_mailbox(ANN, E1, &*old.name, &new);
                        renamed.await.unwrap();
                    }
                }
            }
        }
        9 => {
            let (one, is_new) = (format!("m{}", random.below(9)), random.below(2) == 0);
            volume.subscribe(ANN, E1, &one, is_new).await.unwrap();
        }
        10 => {
            let mailbox = Some(any(random).mailbox).filter(|_| random.below(3) > 0);
            let value = (random.below(3) > 0).then(|| format!("{number}").into_bytes().into());
            let entry = format!("/shared/e{}", random.below(3));
            let set = volume.annotate(ANN, E1, mailbox, vec![(entry, value)]);
            set.await.unwrap();
        }
        _ => {
            let rights = [Rights::READ, Rights::ALL, Rights::default()][random.below(3)];
            let (mailbox, change) = (any(random).mailbox, AclChange::Replace(rights));
            let (owner, bob) = (Some("ann@example.test"), "bob@example.test");
            let set = volume.set_acl(ANN, E1, mailbox, owner, BOB, bob, change);
            set.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_at_the_source_a_round_makes_the_target_the_same() {
    for seed in 0..6u64 {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (source, target) = (open(&here), open(&there));
        let mut random = Random(blake3::Hasher::new_keyed(&[seed as u8; 32]).finalize_xof());
        deliver(&source, 0, b"first\r\n", &[ANN]).await;
        for number in 1..4 {
            something(&source, &mut random, number).await;
        }
        let mut followed = Followed::new(source, target).await;
        for step in 0..14 {
            for number in 0..1 + random.below(4) as u64 {
                something(&followed.source, &mut random, 1000 * (step + 1) + number).await;
            }
            followed.round().await;
            if step == 6 {
                // Killed, with all that it had counted.
                followed.target.inner.crash();
                drop(followed.target);
                followed.target = open(&there);
                followed.there = followed.target.tally(ANN).await.unwrap();
                followed.round().await;
            }
            // What an expunge has left of a long history comes in the round behind it.
            followed.round().await;
            followed.check(&format!("seed {seed}, step {step}")).await;
        }
        followed.source.freeze(ANN, E1, MOVE).await.unwrap();
        assert_eq!(followed.round().await, 0, "a freeze changes no item");
        let target = &followed.target;
        target.activate(ANN, Epoch(2), MOVE).await.unwrap();
        settle(target);
        followed.source.close();
        target.close();
        drop(followed);
        let found = check(&there, REPAIR);
        assert_eq!(found, [], "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_of_many_messages_is_one_item_of_one_block() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    for number in 0..300 {
        deliver(&source, number, b"same\r\n", &[ANN]).await;
    }
    let inbox = MailboxId::INBOX;
    for count in [300, 600, 1200] {
        let copied = source.copy_messages(ANN, E1, inbox, (1..=count).collect(), inbox);
        copied.await.unwrap();
    }
    let mut followed = Followed::new(source, target).await;
    assert!(followed.round().await > 2700, "messages and transactions");
    assert_eq!(followed.round().await, 0);
    let seen = FlagChange::Add(Flags::SEEN.into());
    let source = &followed.source;
    let stored = source.store_flags(ANN, E1, inbox, vec![150], seen, None);
    stored.await.unwrap();
    assert_eq!(followed.round().await, 2, "the message and its mailbox");
    followed.check("one flag").await;
    // A history that is longer than what is kept of one: every other message goes.
    let every_other: Vec<u32> = (1..=2400).step_by(2).collect();
    let gone = followed.source.expunge(ANN, E1, inbox, every_other);
    gone.await.unwrap();
    // Taking them back writes no history of its own, which would push out some of the source's.
    followed.round().await;
    followed.check("many gone").await;
    followed.source.close();
    followed.target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_body_under_a_known_uid_is_refused() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    deliver(&source, 1, b"one\r\n", &[ANN]).await;
    deliver(&source, 2, b"two\r\n", &[ANN]).await;
    let mut followed = Followed::new(source, target).await;
    followed.round().await;
    let mut items = items_of(&followed.source, ANN).await;
    items.retain(|item| item.message().is_some());
    // The second message's item under the UID of the first one.
    let (first, second) = (items[0].0.to_vec(), items[1].0.to_vec());
    let mut forged = second;
    forged[..10].copy_from_slice(&first[..10]);
    let (target, forged) = (&followed.target, Item(forged.into()));
    let taken = target.import_items(ANN, MOVE, vec![forged]).await;
    assert_eq!(taken, Err(Refusal::BadItem));
    // Nor is anything taken back but by the move that brought it, and never the account or its INBOX.
    let account = items_of(&followed.source, ANN).await;
    for item in &account[..2] {
        let gone = target.import_gone(ANN, MOVE, vec![item.clone()]).await;
        assert_eq!(gone, Err(Refusal::BadItem));
    }
    let other = target.import_gone(ANN, [8; 16], vec![items[0].clone()]);
    assert_eq!(other.await, Err(Refusal::OtherMove));
    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    let late = target.import_gone(ANN, MOVE, vec![items[0].clone()]);
    assert_eq!(late.await, Err(Refusal::WrongState));
    followed.source.close();
    followed.target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_with_the_end_of_the_move_does_not_wait_for_more() {
    let dir = TempDir::new().unwrap();
    let patient = VolumeConfig {
        move_wait: Duration::from_secs(600),
        ..config(dir.path())
    };
    let volume = Volume::open(patient, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, b"one\r\n", &[ANN]).await;
    let began = Instant::now();
    for number in 2..60 {
        let id = [number as u8; 16];
        volume.freeze(ANN, E1, id).await.unwrap();
        // Often both are in one batch, in this order.
        let (delivered, thawed) = tokio::join!(
            deliver(&volume, number, b"two\r\n", &[ANN]),
            volume.thaw(ANN, id)
        );
        thawed.unwrap();
        assert!(matches!(delivered[..], [Outcome::Committed { .. }]));
    }
    // It is looked for what may go after a minute, which would wake it.
    assert!(began.elapsed() < Duration::from_secs(50));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_to_an_account_in_a_move_waits_for_its_end_and_for_nobody_else() {
    let dir = TempDir::new().unwrap();
    let patient = VolumeConfig {
        move_wait: Duration::from_secs(600),
        ..config(dir.path())
    };
    let volume = Volume::open(patient, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, b"one\r\n", &[ANN]).await;
    for (number, ends) in [(2, "thaw"), (3, "release")] {
        let id = [number as u8; 16];
        volume.freeze(ANN, E1, id).await.unwrap();
        let waiting = {
            let volume = volume.clone();
            tokio::spawn(async move { deliver(&volume, number, b"two\r\n", &[ANN]).await })
        };
        // Others are served, also what comes behind it.
        let other = deliver(&volume, 100 + number, b"other\r\n", &[BOB]).await;
        assert!(matches!(other[..], [Outcome::Committed { .. }]));
        assert!(!waiting.is_finished());
        match ends {
            "thaw" => volume.thaw(ANN, id).await.unwrap(),
            _ => volume.release(ANN, id, name("b2"), Epoch(2)).await.unwrap(),
        }
        let outcome = waiting.await.unwrap();
        match ends {
            "thaw" => assert!(matches!(outcome[..], [Outcome::Committed { uid: 2, .. }])),
            _ => assert!(matches!(outcome[..], [Outcome::Moved { .. }])),
        }
    }
    volume.close();
    // One that is not over in time is answered.
    drop(volume);
    let short = VolumeConfig {
        move_wait: Duration::from_millis(50),
        ..config(dir.path())
    };
    let volume = Volume::open(short, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 200, b"one\r\n", &[BOB]).await;
    volume.freeze(BOB, E1, MOVE).await.unwrap();
    let waited = deliver(&volume, 201, b"two\r\n", &[BOB]).await;
    assert_eq!(waited, [Outcome::Frozen]);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_forgotten_while_an_account_is_followed_are_gone_at_both() {
    const DAYS_15_MS: i64 = 15 * 24 * 3600 * 1000;
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    // It came to its home with what it had been delivered long ago.
    let begun = source.begin_import(ANN, [1; 16], Some(name("b0")));
    begun.await.unwrap();
    let old = |first: u8| {
        let content = Content::Transaction {
            txn: [first; 16],
            mailbox: MailboxId::INBOX,
            uid: 1,
            committed_ms: commit::now_ms() - DAYS_15_MS,
        };
        Item(content.encode().0)
    };
    let items = (0..=u8::MAX).map(old).collect();
    source.import_items(ANN, [1; 16], items).await.unwrap();
    source.activate(ANN, E1, [1; 16]).await.unwrap();
    deliver(&source, 1, b"one\r\n", &[ANN]).await;
    let mut followed = Followed::new(source, target).await;
    followed.round().await;
    for number in 2..12 {
        // Each forgets some that are past their time, wherever they are.
        deliver(&followed.source, number, b"one\r\n", &[ANN]).await;
    }
    followed.round().await;
    let transactions = items_of(&followed.source, ANN).await;
    let of = |item: &&Item| item.block().unwrap().octets()[0] == 7;
    assert!(transactions.iter().filter(of).count() < 250);
    followed.check("some were forgotten").await;
    followed.source.close();
    followed.target.close();
}
