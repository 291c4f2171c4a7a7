//! A volume as an earlier build left it, in `golden/`: every later build opens it and finds in it what that build had
//! answered. The file is never changed. A build whose format grew adds another one, beside.
//!
//! ```sh
//! POSTHOUSE_WRITE_GOLDEN=volume-2 cargo test -p store-backend --lib tests::golden
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use bytes::Bytes;
use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use super::recovery::busy;
use super::*;

const VOLUMES: [(&str, &[u8]); 2] = [
    ("volume-1", include_bytes!("golden/volume-1")),
    // Prologues in bundles, records of the kept log packed.
    ("volume-2", include_bytes!("golden/volume-2")),
];

fn config(path: &Path) -> VolumeConfig {
    VolumeConfig {
        // What was expunged in the golden volume is kept for longer than anybody will run this.
        expunge_grace: Duration::from_secs(1_000_000_000 * 3),
        ..config_without_checkpoints(path)
    }
}

/// Some of everything; the second half is in the journal alone.
async fn make(dir: &TempDir) -> String {
    let volume = Volume::open(config(dir.path()), Arc::new(RealDisk)).unwrap();
    busy(&volume).await;
    settle_checkpoint(&volume);
    deliver(&volume, 300, b"Subject: late\r\n\r\nlate\r\n", &[ANN]).await;
    deliver(&volume, 301, &vec![b'y'; 150_000], &[ANN]).await;
    // A long record before the checkpoint and one behind it.
    deliver_with_lines(&volume, 302).await;
    settle_checkpoint(&volume);
    deliver_with_lines(&volume, 303).await;
    let (inbox, add) = (MailboxId::INBOX, |flags| FlagChange::Add(flags));
    let work = volume.create_mailbox(ANN, E1, "Arbeit/Über", SpecialUse::default());
    let work = work.await.unwrap();
    let gone = volume.create_mailbox(ANN, E1, "gone", SpecialUse::default());
    let gone = gone.await.unwrap();
    volume
        .rename_mailbox(ANN, E1, "Sent", "Gesendet")
        .await
        .unwrap();
    volume.subscribe(ANN, E1, "Gesendet", true).await.unwrap();
    let flags = FlagSet {
        system: Flags::FLAGGED,
        keywords: vec!["$Forwarded".to_owned(), "todo".to_owned()],
    };
    let some = vec![3, 5, 6];
    volume
        .store_flags(ANN, E1, inbox, some, add(flags), None)
        .await
        .unwrap();
    volume
        .copy_messages(ANN, E1, inbox, vec![3, 42], work)
        .await
        .unwrap();
    volume
        .copy_messages(ANN, E1, inbox, vec![4], gone)
        .await
        .unwrap();
    volume
        .move_messages(ANN, E1, inbox, vec![5, 7, 9], work)
        .await
        .unwrap();
    volume.expunge(ANN, E1, inbox, vec![10, 11]).await.unwrap();
    volume.delete_mailbox(ANN, E1, "gone").await.unwrap();
    let change = AclChange::Replace(Rights::ALL);
    let name = "bob@example.test";
    volume
        .set_acl(ANN, E1, work, Some("ann@example.test"), BOB, name, change)
        .await
        .unwrap();
    let note = (
        "/private/comment".to_owned(),
        Some(Bytes::from_static(b"mine")),
    );
    volume
        .annotate(ANN, E1, Some(work), vec![note])
        .await
        .unwrap();
    let message = AppendMessage {
        body: AppendBody::Finished(blob(&volume, b"Subject: kept\r\n\r\n").await),
        flags: FlagSet::default(),
        internal_date_ms: 1_600_000_000_000,
    };
    volume.append(ANN, E1, work, vec![message]).await.unwrap();
    settle(&volume);
    let told = tell(&volume).await;
    volume.inner.crash();
    told
}

/// To three, with trace lines that are mostly the same.
async fn deliver_with_lines(volume: &Volume, number: u64) {
    let lines = |account: AccountId| {
        let by = "by mx.example.test with ESMTPS id 0123456789abcdef".repeat(8);
        format!("Delivered-To: {account}\r\nReceived: {by}\r\n\tfor {account}\r\n")
    };
    let one = |account| Recipient {
        prologue: lines(account).into_bytes(),
        ..to(account)
    };
    let recipients = [ANN, BOB, AccountId(8)].map(one).to_vec();
    deliver_to(volume, number, b"Subject: three\r\n\r\n", recipients).await;
}

/// What the volume has, in words that do not change with the code.
async fn tell(volume: &Volume) -> String {
    let mut text = String::new();
    for account in [ANN, BOB] {
        let now = volume.account(account).await.unwrap().unwrap();
        let (messages, octets) = (now.message_count, now.size_octets);
        writeln!(text, "account {account} {} {messages} {octets}", now.epoch).unwrap();
        for mailbox in volume.mailboxes(account).await.unwrap() {
            tell_mailbox(volume, account, &mailbox, &mut text).await;
        }
        for name in volume.listing(account).await.unwrap().subscriptions {
            writeln!(text, "subscribed {name}").unwrap();
        }
        for kept in volume.kept(account, None, 1000, 0).await.unwrap() {
            let (name, octets) = (kept.name, kept.size_octets);
            writeln!(text, "kept {}:{} {name} {octets}", kept.mailbox.0, kept.uid).unwrap();
        }
    }
    text
}

async fn tell_mailbox(
    volume: &Volume,
    account: AccountId,
    mailbox: &MailboxInfo,
    text: &mut String,
) {
    let hex = data_encoding::HEXLOWER;
    let id = mailbox.mailbox;
    let identity = hex.encode(&mailbox.identity);
    writeln!(
        text,
        "mailbox {} {} {identity} {} {} {} {}",
        id.0,
        mailbox.name,
        mailbox.special_use.0,
        mailbox.uidvalidity,
        mailbox.uidnext,
        mailbox.highestmodseq
    )
    .unwrap();
    let snapshot = volume.snapshot(account, id).await.unwrap().unwrap();
    for message in &snapshot.messages {
        let keywords: Vec<&str> = snapshot.keywords_of(message).collect();
        let read = volume.read_message(account, id, message.uid).await;
        let read = read.unwrap().unwrap();
        let (identity, prologue) = (hex.encode(&read.info.identity), read.prologue.clone());
        let octets = [&prologue[..], &read.blob.read_all().await.unwrap()].concat();
        assert_eq!(octets.len() as u64, message.size_octets);
        writeln!(
            text,
            "message {} {} {} {identity} {} {} {} {}",
            message.uid,
            message.flags.0,
            keywords.join(","),
            message.modseq,
            message.internal_date_ms,
            message.save_date_ms,
            blake3::hash(&octets)
        )
        .unwrap();
    }
    for entry in volume.acl(account, id).await.unwrap().entries {
        writeln!(text, "right {} {}", entry.account, entry.rights.0).unwrap();
    }
    for (entry, value) in volume.annotations(account, Some(id), "").await.unwrap() {
        writeln!(text, "annotation {entry} {}", value.escape_ascii()).unwrap();
    }
}

/// Files, each inode once with all its names, and what the volume told.
fn pack(dir: &TempDir, told: &str) -> Vec<u8> {
    let mut inodes: BTreeMap<u64, (Vec<String>, String)> = BTreeMap::new();
    for path in files_below(dir.path()) {
        let name = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
        let octets = std::fs::read(&path).unwrap();
        let (inode, _) = inode(&path);
        let (names, _) = inodes
            .entry(inode)
            .or_insert_with(|| (Vec::new(), BASE64.encode(&octets)));
        names.push(name.to_owned());
    }
    let file = |(names, octets): (Vec<String>, String)| json!({"names": names, "octets": octets});
    let files: Vec<Value> = inodes.into_values().map(file).collect();
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    let all = json!({"files": files, "told": told});
    packed.write_all(all.to_string().as_bytes()).unwrap();
    packed.finish().unwrap()
}

fn unpack(packed: &[u8], dir: &TempDir) -> String {
    let mut text = String::new();
    ZlibDecoder::new(packed).read_to_string(&mut text).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    for file in all["files"].as_array().unwrap() {
        let names = file["names"].as_array().unwrap().iter();
        let paths: Vec<PathBuf> = names
            .map(|name| dir.path().join(name.as_str().unwrap()))
            .collect();
        for path in &paths {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if *path == paths[0] {
                let octets = BASE64.decode(file["octets"].as_str().unwrap().as_bytes());
                std::fs::write(path, octets.unwrap()).unwrap();
            } else {
                std::fs::hard_link(&paths[0], path).unwrap();
            }
        }
    }
    all["told"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_builds_left_is_opened_and_whole_and_goes_on() {
    if let Ok(name) = std::env::var("POSTHOUSE_WRITE_GOLDEN") {
        let dir = TempDir::new().unwrap();
        let packed = pack(&dir, &make(&dir).await);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/volume/tests/golden");
        std::fs::write(folder.join(name), packed).unwrap();
        return;
    }
    for (name, packed) in VOLUMES {
        let dir = TempDir::new().unwrap();
        let told = unpack(packed, &dir);
        let volume = Volume::open(config(dir.path()), Arc::new(RealDisk)).unwrap();
        assert_eq!(tell(&volume).await, told, "{name}");
        let known = deliver(&volume, 300, b"Subject: late\r\n\r\nlate\r\n", &[ANN]).await;
        assert_eq!(known, [Outcome::Duplicate], "{name}");
        let next = volume.mailbox_status(ANN, MailboxId::INBOX).await.unwrap();
        let outcomes = deliver(&volume, 900, b"Subject: new\r\n\r\n", &[ANN]).await;
        assert_eq!(uid(&outcomes[0]), next.unwrap().uidnext, "{name}");
        let now = tell(&volume).await;
        settle(&volume);
        volume.close();
        drop(volume);
        let options = FsckOptions {
            repair: false,
            hashes: true,
            new_uidvalidity: false,
        };
        let mut found = Vec::new();
        let mut listen = |event: Event<'_>| {
            if let Event::Found(finding) = event {
                found.push(finding.clone());
            }
        };
        fsck(dir.path(), Arc::new(RealDisk), options, &mut listen).unwrap();
        assert_eq!(found, [], "{name}");
        let volume = Volume::open(config(dir.path()), Arc::new(RealDisk)).unwrap();
        assert_eq!(tell(&volume).await, now, "{name}");
        volume.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_builds_kept_beside_the_index_makes_it_anew() {
    for (name, packed) in VOLUMES {
        let dir = TempDir::new().unwrap();
        let told = unpack(packed, &dir);
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        let volume = Volume::open(config(dir.path()), Arc::new(RealDisk)).unwrap();
        assert_eq!(tell(&volume).await, told, "{name}");
        volume.close();
    }
}
