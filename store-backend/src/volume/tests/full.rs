//! Full disks and failed syncs, at every place where one can be met.
//!
//! A *story* is some commands on a small volume, compared with a plain model. It is told once on a disk that is well, and
//! then again and again: with no room from each allocation on, for a while; and with each sync failing.
//! By default some of these places are tried; `POSTHOUSE_TEST_FULL_DISKS=1` tries all.

mod cases;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use durable::Disk as _;
use testkit::fault_disk::{FaultDisk, Loss, Operation};

use super::super::keeper::make_copy;
use super::*;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const ACCOUNTS: [AccountId; 2] = [ANN, BOB];

/// Segments as small as the bodies allow, few links to an inode, a checkpoint now and then.
fn config(path: &Path) -> VolumeConfig {
    VolumeConfig {
        journal_segment_size_bytes: 512 << 10,
        checkpoint_bytes: 256 << 10,
        checkpoint_interval: Duration::from_secs(3600),
        links_max: 3,
        ..super::config(path)
    }
}

fn open_on(disk: &FaultDisk, root: &Path) -> Result<Volume, OpenError> {
    Volume::open(config(root), Arc::new(disk.clone()))
}

fn body(number: u64) -> Vec<u8> {
    let size = match number % 5 {
        0 => BLOB_INLINE_MAX_BYTES + 1000,
        1 => 60_000,
        _ => 40,
    };
    // Some come again.
    vec![b'a' + (number % 7) as u8; size + (number % 3) as usize]
}

/// What an account should have: of each message in INBOX and in the other mailbox its body and whether it is flagged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<(AccountId, MailboxId), Mailbox>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mailbox {
    uidnext: u32,
    messages: BTreeMap<u32, (u64, bool, bool)>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            uidnext: 1,
            messages: BTreeMap::new(),
        }
    }
}

impl Mailbox {
    fn add(&mut self, body: u64, is_flagged: bool, delivered: bool) -> u32 {
        let uid = self.uidnext;
        self.uidnext += 1;
        self.messages.insert(uid, (body, is_flagged, delivered));
        uid
    }
}

impl Model {
    fn at(&mut self, account: AccountId, mailbox: MailboxId) -> &mut Mailbox {
        self.0.entry((account, mailbox)).or_default()
    }

    /// Compares with what the volume tells.
    async fn check(&self, volume: &Volume, place: &str) {
        for ((account, mailbox), model) in &self.0 {
            let snapshot = volume.snapshot(*account, *mailbox).await.unwrap();
            let Some(snapshot) = snapshot else {
                assert!(model.messages.is_empty(), "{place}: {account} is missing");
                continue;
            };
            let uids: Vec<u32> = snapshot.messages.iter().map(|one| one.uid).collect();
            let wanted: Vec<u32> = model.messages.keys().copied().collect();
            assert_eq!(uids, wanted, "{place}: {account} {mailbox:?}");
            assert_eq!(
                snapshot.mailbox.uidnext, model.uidnext,
                "{place}: {account}"
            );
            for one in &snapshot.messages {
                let (number, is_flagged, delivered) = model.messages[&one.uid];
                assert_eq!(one.flags.contains(Flags::FLAGGED), is_flagged, "{place}");
                let read = volume.read_message(*account, *mailbox, one.uid).await;
                let read = read.unwrap().unwrap();
                assert_eq!(!read.prologue.is_empty(), delivered, "{place}");
                let octets = read.blob.read_all().await;
                let octets = octets.unwrap_or_else(|error| panic!("{place}: {error:?}"));
                assert!(octets == body(number), "{place}: message {number}");
            }
        }
    }
}

/// A story under way.
struct Story {
    volume: Volume,
    model: Model,
    others: BTreeMap<AccountId, MailboxId>,
    number: u64,
    committed: Vec<(u64, AccountId)>,
}

const STEPS: u64 = 40;

impl Story {
    async fn begin(disk: &FaultDisk, root: &Path) -> Self {
        let volume = open_on(disk, root).unwrap();
        let mut others = BTreeMap::new();
        for account in ACCOUNTS {
            volume.ensure_account(account, E1).await.unwrap();
            let other = volume.create_mailbox(account, E1, "Other", SpecialUse::default());
            others.insert(account, other.await.unwrap());
        }
        Self {
            volume,
            model: Model::default(),
            others,
            number: 0,
            committed: Vec::new(),
        }
    }

    /// One command; what it did is in the model.
    async fn step(&mut self) -> Result<(), Refusal> {
        self.number += 1;
        let number = self.number;
        let volume = self.volume.clone();
        let account = ACCOUNTS[(number % 2) as usize];
        let other = self.others[&account];
        let inbox = MailboxId::INBOX;
        let first = |model: &mut Model| model.at(account, inbox).messages.keys().next().copied();
        match number % 8 {
            0 | 1 | 4 => {
                let blob = written(&volume, number).await?;
                let delivery = Delivery {
                    txn: txn(number),
                    sender: Vec::new(),
                    content_key: [0; 32],
                    repeats: Repeats::Deliver,
                    blob,
                    trace: String::new(),
                    received_ms: 0,
                    recipients: ACCOUNTS.map(to).to_vec(),
                };
                let outcomes = volume.deliver(delivery).await;
                for (account, outcome) in ACCOUNTS.into_iter().zip(&outcomes) {
                    match outcome {
                        Outcome::Committed { uid, .. } => {
                            self.committed.push((number, account));
                            let wanted = self.model.at(account, inbox).add(number, false, true);
                            assert_eq!(*uid, wanted);
                        }
                        Outcome::NoRoom => return Err(Refusal::NoRoom),
                        Outcome::ReadOnly => return Err(Refusal::ReadOnly),
                        other => panic!("{other:?}"),
                    }
                }
            }
            2 => {
                let blob = written(&volume, number).await?;
                let message = AppendMessage {
                    body: AppendBody::Finished(blob),
                    flags: Flags::FLAGGED.into(),
                    internal_date_ms: 0,
                };
                let done = volume.append(account, E1, other, vec![message]).await?;
                assert_eq!(
                    done.uids,
                    [self.model.at(account, other).add(number, true, false)]
                );
            }
            3 | 7 => {
                if let Some(uid) = first(&mut self.model) {
                    let moves = number % 8 == 7;
                    let done = match moves {
                        true => {
                            volume
                                .move_messages(account, E1, inbox, vec![uid], other)
                                .await?
                        }
                        false => {
                            volume
                                .copy_messages(account, E1, inbox, vec![uid], other)
                                .await?
                        }
                    };
                    let (body, flagged, delivered) = self.model.at(account, inbox).messages[&uid];
                    let new = self.model.at(account, other).add(body, flagged, delivered);
                    assert_eq!(done.uids.len(), 1, "{done:?}");
                    assert!(self.model.at(account, other).messages.contains_key(&new));
                    if moves {
                        self.model.at(account, inbox).messages.remove(&uid);
                    }
                }
            }
            5 => {
                if let Some(uid) = first(&mut self.model) {
                    let change = FlagChange::Add(Flags::FLAGGED.into());
                    let done = volume.store_flags(account, E1, inbox, vec![uid], change, None);
                    done.await?;
                    self.model
                        .at(account, inbox)
                        .messages
                        .get_mut(&uid)
                        .unwrap()
                        .1 = true;
                }
            }
            _ => {
                for mailbox in [inbox, other] {
                    let oldest = self
                        .model
                        .at(account, mailbox)
                        .messages
                        .keys()
                        .next()
                        .copied();
                    if let Some(uid) = oldest {
                        volume.expunge(account, E1, mailbox, vec![uid]).await?;
                        self.model.at(account, mailbox).messages.remove(&uid);
                    }
                }
            }
        }
        Ok(())
    }

    /// Steps until all are done; tells how often a command was refused.
    async fn end(&mut self, place: &str) {
        while self.number < STEPS {
            self.step()
                .await
                .unwrap_or_else(|error| panic!("{place}: {error}"));
        }
        settle_unlinked(&self.volume).await;
        settle_checkpoint(&self.volume);
        self.model.check(&self.volume, place).await;
    }

    /// Opens it again, as after a crash, and compares again. A delivery that is tried again is there once.
    async fn check_again(self, disk: &FaultDisk, root: &Path, place: &str) {
        self.volume.inner.crash();
        drop(self.volume);
        // What was refused because a sync failed may be there, unless the power goes too.
        disk.power_on(Loss::Lost);
        let volume = open_on(disk, root).unwrap_or_else(|error| panic!("{place}: {error:?}"));
        settle_checkpoint(&volume);
        self.model.check(&volume, place).await;
        for (number, account) in self.committed {
            let again = deliver(&volume, number, BODY, &[account]).await;
            assert_eq!(again, [Outcome::Duplicate], "{place}: message {number}");
        }
        let model: usize = self.model.0.values().map(|one| one.messages.len()).sum();
        assert_eq!(files(disk, &root.join("mail")), model, "{place}: links");
        assert_eq!(files(disk, &root.join("incoming")), 0, "{place}: incoming");
        volume.close();
        assert_eq!(volume.status().read_only, None, "{place}");
    }
}

const BODY: &[u8] = b"Subject: x\r\n\r\n";

async fn written(volume: &Volume, number: u64) -> Result<FinishedBlob, Refusal> {
    let mut writer = volume.begin_blob();
    let written = match writer.write(&body(number)).await {
        Ok(()) => writer.finish().await,
        Err(error) => Err(error),
    };
    written.map_err(|error| match error {
        WriteError::ReadOnly => Refusal::ReadOnly,
        _ => Refusal::NoRoom,
    })
}

fn files(disk: &FaultDisk, folder: &Path) -> usize {
    let names = disk.read_dir(folder).unwrap_or_default();
    let paths = names.iter().map(|name| folder.join(name));
    paths
        .map(|path| match disk.metadata(&path) {
            Ok(metadata) if metadata.is_dir => files(disk, &path),
            // One that was listed may have gone since.
            metadata => usize::from(metadata.is_ok()),
        })
        .sum()
}

fn places(all: u64) -> impl Iterator<Item = u64> {
    let every = match std::env::var_os("POSTHOUSE_TEST_FULL_DISKS") {
        Some(_) => 1,
        None => (all / 12).max(1),
    };
    (0..all).filter(move |place| (place * 7) % every == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_anywhere_loses_and_doubles_nothing_and_is_written_again_without_a_restart()
 {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let mut story = Story::begin(&disk, dir.path()).await;
    let before = disk.allocations();
    story.end("a disk with room").await;
    let all = disk.allocations() - before;
    story
        .check_again(&disk, dir.path(), "a disk with room")
        .await;
    assert!(all > 100, "{all}");
    let (mut met, mut refused, mut told) = (0, 0, 0);
    for place in places(all) {
        let name = format!("no room after {place}");
        let dir = TempDir::new().unwrap();
        let disk = FaultDisk::new(place);
        let mut story = Story::begin(&disk, dir.path()).await;
        disk.fill_up_after(place);
        let mut left = 12;
        while story.number < STEPS && left > 0 {
            match story.step().await {
                Ok(()) => {}
                Err(Refusal::NoRoom) => refused += 1,
                Err(other) => panic!("{name}: {other}"),
            }
            story.model.check(&story.volume, &name).await;
            left -= u64::from(disk.refused() > 0);
        }
        met += u64::from(disk.refused() > 0);
        told += u64::from(!story.volume.status().space.short.is_empty());
        assert_eq!(story.volume.status().read_only, None, "{name}");
        disk.give_room();
        let until = Instant::now() + Duration::from_secs(10);
        while story.volume.status().space.refuses {
            assert!(
                Instant::now() < until,
                "{name}: {:?}",
                story.volume.status()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        story.end(&name).await;
        story.check_again(&disk, dir.path(), &name).await;
    }
    println!("{met} places of {all}, {refused} commands refused, {told} times told");
    assert!(
        met > 8 && refused > 30 && told > 5,
        "{met} {refused} {told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sync_that_fails_ends_the_writing_and_not_the_reading_and_is_not_tried_again() {
    let mut met = BTreeMap::<&str, u64>::new();
    let every = if std::env::var_os("POSTHOUSE_TEST_FULL_DISKS").is_some() {
        1
    } else {
        3
    };
    for skip in (0..).step_by(every) {
        let name = format!("sync {skip} fails");
        let dir = TempDir::new().unwrap();
        let disk = FaultDisk::new(skip);
        let mut story = Story::begin(&disk, dir.path()).await;
        disk.fail(Operation::Sync, skip, ErrorKind::Other);
        let mut refusal = None;
        while story.number < STEPS && story.volume.status().read_only.is_none() {
            if story.number % 5 == 4 {
                let shared = story.volume.inner.shared();
                // To its end: it would make durable what a command writes whose own sync fails.
                while shared.checkpoint() < story.volume.status().position
                    && shared.read_only().is_none()
                {
                    shared.wants_checkpoint.store(true, Ordering::Relaxed);
                    shared.files_queue.wake();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            match story.step().await {
                Ok(()) => {}
                // A large body, or the volume since.
                Err(Refusal::NoRoom | Refusal::ReadOnly) => break,
                Err(other) => panic!("{name}: {other}"),
            }
        }
        if !disk.has_failed() {
            assert_eq!(story.volume.status().read_only, None, "{name}");
            break;
        }
        // One beside the commands is noticed by the next.
        let until = Instant::now() + Duration::from_secs(10);
        while story.volume.status().read_only.is_none() {
            assert!(Instant::now() < until, "{name}: nobody noticed");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = story.volume.status();
        *met.entry(status.failed.unwrap()).or_default() += 1;
        let why = status.read_only.unwrap();
        assert!(why.contains(dir.path().to_str().unwrap()), "{why}");
        // One that had begun in another thread is counted with those before.
        std::thread::sleep(Duration::from_millis(20));
        let syncs = disk.syncs();
        for _ in 0..8 {
            let number = story.number;
            match story.step().await {
                Err(error) => refusal = Some(error),
                // Nothing to do in it.
                Ok(()) => assert!(matches!(number % 8 + 1, 3 | 5 | 6 | 7), "{name}: {number}"),
            }
        }
        assert_eq!(refusal, Some(Refusal::ReadOnly), "{name}");
        story.model.check(&story.volume, &name).await;
        story.volume.close();
        assert_eq!(
            disk.syncs(),
            syncs,
            "{name}: a sync after the one that failed"
        );
        story.check_again(&disk, dir.path(), &name).await;
    }
    println!("{met:?}");
    assert!(met.len() > 1 && met.values().sum::<u64>() > 10, "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_room_refuses_changes_and_serves_reads_until_it_has_some() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let mut story = Story::begin(&disk, dir.path()).await;
    for _ in 0..8 {
        story.step().await.unwrap();
    }
    settle_checkpoint(&story.volume);
    let carl = AccountId(99);
    assert_eq!(uid(&deliver(&story.volume, 900, BODY, &[carl]).await[0]), 1);
    settle(&story.volume);
    let refusing = Refusing::of_volume(dir.path());
    for round in 0..3 {
        refusing.begin(ENOSPC, 0);
        // Taken, and answered: it is in the journal.
        let taken = deliver(&story.volume, 1000 + round, BODY, &[BOB]).await;
        assert!(matches!(taken[0], Outcome::Committed { .. }), "{taken:?}");
        story
            .model
            .at(BOB, MailboxId::INBOX)
            .add(1000 + round, false, true);
        let until = Instant::now() + Duration::from_secs(10);
        while story.volume.status().space.short != ["index"] {
            assert!(Instant::now() < until, "{:?}", story.volume.status());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(
            deliver(&story.volume, 2000, BODY, &[ANN]).await,
            [Outcome::NoRoom]
        );
        let carls = story
            .volume
            .expunge(carl, E1, MailboxId::INBOX, vec![1])
            .await;
        assert_eq!(carls, Err(Refusal::NoRoom));
        assert_eq!(text(&story.volume, carl, 1).await, expected(carl, BODY));
        let behind = story.volume.snapshot(BOB, MailboxId::INBOX).await;
        assert!(matches!(behind, Err(ReadError::Behind)), "{behind:?}");
        refusing.end();
        let until = Instant::now() + Duration::from_secs(10);
        while story.volume.status().space.refuses {
            assert!(Instant::now() < until, "{:?}", story.volume.status());
            std::thread::sleep(Duration::from_millis(2));
        }
        let found = story.volume.snapshot(BOB, MailboxId::INBOX).await;
        let wanted = story.model.at(BOB, MailboxId::INBOX).uidnext;
        assert_eq!(found.unwrap().unwrap().mailbox.uidnext, wanted);
    }
    // Closed while it waits, it goes on where it was.
    refusing.begin(ENOSPC, 0);
    assert!(matches!(
        deliver(&story.volume, 3000, BODY, &[carl]).await[0],
        Outcome::Committed { .. }
    ));
    story.volume.close();
    assert_eq!(story.volume.status().read_only, None);
    drop(story.volume);
    refusing.end();
    let volume = open_on(&disk, dir.path()).unwrap();
    assert_eq!(text(&volume, carl, 2).await, expected(carl, BODY));
    // What is no want of room is for good: who has an answer that the index lacks is shown no older state, others read.
    refusing.begin(EIO, 0);
    let taken = deliver(&volume, 4000, BODY, &[BOB]).await;
    assert!(matches!(taken[0], Outcome::Committed { .. }), "{taken:?}");
    let until = Instant::now() + Duration::from_secs(10);
    while volume.status().read_only.is_none() {
        assert!(Instant::now() < until, "{:?}", volume.status());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(volume.status().failed, Some("index_write"));
    assert_eq!(text(&volume, carl, 1).await, expected(carl, BODY));
    let bobs = volume.snapshot(BOB, MailboxId::INBOX);
    let bobs = tokio::time::timeout(Duration::from_secs(20), bobs).await;
    let bobs = bobs.expect("nobody waits for what does not come");
    assert!(matches!(bobs, Err(ReadError::Behind)), "{bobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_mark_what_takes_room_is_refused_and_the_rest_goes_on() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    disk.set_capacity(100 << 20);
    let marked = VolumeConfig {
        free_min_bytes: 20 << 20,
        free_min_percent: 10,
        ..config(dir.path())
    };
    let volume = Volume::open(marked, Arc::new(disk.clone())).unwrap();
    for number in 1..=4 {
        deliver(&volume, number, &body(number), &[ANN]).await;
    }
    let inbox = MailboxId::INBOX;
    let other = volume.create_mailbox(ANN, E1, "Other", SpecialUse::default());
    let other = other.await.unwrap();
    let until = async |low: bool| {
        let until = Instant::now() + Duration::from_secs(10);
        while volume.status().space.refuses != low {
            assert!(Instant::now() < until, "{:?}", volume.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let used = volume.status().space.disk.unwrap();
    let used = used.size_bytes - used.free_bytes;
    disk.set_capacity(used + (20 << 20) - 1);
    until(true).await;
    let status = volume.status().space;
    assert_eq!(status.short, ["disk"]);
    assert_eq!(status.mark_bytes, 20 << 20);
    assert_eq!(deliver(&volume, 5, BODY, &[ANN]).await, [Outcome::NoRoom]);
    assert_eq!(
        deliver(&volume, 4, BODY, &[ANN]).await,
        [Outcome::Duplicate],
        "a retry is told the truth"
    );
    let mut writer = volume.begin_blob();
    let large = writer.write(&vec![0; BLOB_INLINE_MAX_BYTES + 1]).await;
    assert!(matches!(large, Err(WriteError::NoRoom)), "{large:?}");
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], other).await;
    assert_eq!(copied.unwrap_err(), Refusal::NoRoom);
    let message = AppendMessage {
        body: AppendBody::Finished(blob(&volume, BODY).await),
        flags: Flags::default().into(),
        internal_date_ms: 0,
    };
    let appended = volume.append(ANN, E1, inbox, vec![message]).await;
    assert_eq!(appended.unwrap_err(), Refusal::NoRoom);
    let change = FlagChange::Add(Flags::SEEN.into());
    let stored = volume.store_flags(ANN, E1, inbox, vec![1], change, None);
    assert!(stored.await.is_ok());
    let moved = volume.move_messages(ANN, E1, inbox, vec![2], other).await;
    assert_eq!(moved.unwrap().uids, [(2, 1)]);
    assert_eq!(text(&volume, ANN, 3).await, expected(ANN, &body(3)));
    volume.expunge(ANN, E1, inbox, vec![1, 3]).await.unwrap();
    settle_unlinked(&volume).await;
    // A little above the mark it is still refused, so that it does not change each second.
    disk.set_capacity(used + (21 << 20));
    std::thread::sleep(Duration::from_millis(100));
    assert!(volume.status().space.refuses);
    disk.set_capacity(used + (23 << 20));
    until(false).await;
    assert_eq!(uid(&deliver(&volume, 5, BODY, &[ANN]).await[0]), 5);
    // The share of a large disk.
    disk.set_capacity(1 << 30);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(volume.status().space.mark_bytes, (1 << 30) / 10);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_index_takes_no_room_that_mail_needs() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    disk.set_capacity(100 << 20);
    let marked = VolumeConfig {
        free_min_bytes: 20 << 20,
        ..config(dir.path())
    };
    let volume = Volume::open(marked, Arc::new(disk.clone())).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle(&volume);
    let shared = volume.inner.shared();
    let kept = dir.path().join("kept");
    let names = || {
        let names = disk.read_dir(&kept).unwrap().into_iter();
        let names = names.map(|name| name.into_string().unwrap());
        names
            .filter(|name| !name.ends_with(".log"))
            .collect::<Vec<_>>()
    };
    // With it, less than the mark would be free.
    let room = volume.status().space.disk.unwrap();
    disk.set_capacity(room.size_bytes - room.free_bytes + (20 << 20) + 1000);
    shared.look_for_room();
    assert!(!volume.status().space.refuses);
    let refused = make_copy(shared).unwrap_err().to_string();
    assert!(refused.starts_with("no room"), "{refused}");
    assert_eq!(names(), [""; 0]);
    disk.set_capacity(100 << 20);
    shared.look_for_room();
    // What fails leaves nothing behind either.
    disk.fail(Operation::Sync, 0, ErrorKind::Other);
    let failed = make_copy(shared).unwrap_err().to_string();
    assert!(failed.starts_with("sync"), "{failed}");
    assert_eq!(names(), [""; 0]);
    make_copy(shared).unwrap();
    assert_eq!(names(), ["index.copy"]);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_nears_the_end_of_its_map_refuses_before_it_is_full() {
    let dir = TempDir::new().unwrap();
    let small = VolumeConfig {
        index_map_size_bytes: 4 << 20,
        ..config(dir.path())
    };
    let volume = Volume::open(small, Arc::new(RealDisk)).unwrap();
    let mut taken = 0;
    let refused = loop {
        let recipient = Recipient {
            prologue: vec![b'p'; 3000],
            ..to(ANN)
        };
        match &deliver_to(&volume, taken + 1, BODY, vec![recipient]).await[0] {
            Outcome::Committed { .. } => taken += 1,
            other => break other.clone(),
        }
        if taken.is_multiple_of(4) {
            settle(&volume);
            volume.inner.shared().look_for_room();
        }
        assert!(taken < 2000);
    };
    assert_eq!(refused, Outcome::NoRoom);
    settle(&volume);
    let status = volume.status();
    assert_eq!(
        (status.read_only, status.space.short),
        (None, vec!["index_map"])
    );
    let uids = (1..=u32::try_from(taken).unwrap()).collect();
    volume
        .expunge(ANN, E1, MailboxId::INBOX, uids)
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while volume.status().space.refuses {
        assert!(Instant::now() < until, "{:?}", volume.status());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(
        deliver(&volume, 5000, BODY, &[ANN]).await[0],
        Outcome::Committed { .. }
    ));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_long_is_seen_with_its_age() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle(&volume);
    let read = volume.inner.shared().index.read(|_| {
        let shared = volume.inner.shared();
        shared
            .index
            .write(|_| Ok::<_, lmdb::heed::Error>(()))
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        Ok::<_, lmdb::heed::Error>(shared.index.readers())
    });
    let readers = read.unwrap();
    // The volume's own threads may read meanwhile.
    assert!(readers.count >= 1);
    assert!(readers.oldest >= Duration::from_millis(20) && readers.oldest_lag_commits >= 1);
    let after = volume.status().space.readers;
    assert!(after.oldest < readers.oldest, "{after:?}");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_not_synced_lets_nothing_go_and_is_not_made_again() {
    // Want of room too: it is not known which file it was.
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        checkpoint_fails(kind).await;
    }
}

async fn checkpoint_fails(kind: ErrorKind) {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let volume = open_on(&disk, dir.path()).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle(&volume);
    // Nobody else is at work: the only sync is that of the file system.
    std::thread::sleep(Duration::from_millis(200));
    let before = volume.status().checkpoint;
    disk.fail(Operation::Sync, 0, kind);
    let shared = volume.inner.shared();
    let until = Instant::now() + Duration::from_secs(10);
    while volume.status().read_only.is_none() {
        assert!(Instant::now() < until, "{:?}", volume.status());
        shared.wants_checkpoint.store(true, Ordering::Relaxed);
        shared.files_queue.wake();
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = volume.status();
    assert_eq!(
        (status.failed, status.checkpoint),
        (Some("checkpoint"), before)
    );
    assert_eq!(deliver(&volume, 2, BODY, &[ANN]).await, [Outcome::ReadOnly]);
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, BODY));
    let syncs = disk.syncs();
    volume.close();
    assert_eq!(disk.syncs(), syncs);
    drop(volume);
    disk.power_on(Loss::Lost);
    let volume = open_on(&disk, dir.path()).unwrap();
    settle_checkpoint(&volume);
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, BODY));
    volume.close();
}
