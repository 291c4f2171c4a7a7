//! What a delivery costs on the disk beside the message itself.
//!
//! ```sh
//! POSTHOUSE_TEST_OCTETS=30000 cargo test -p store-backend --lib tests::octets -- --nocapture
//! ```
//! makes that many deliveries and tells the octets of each part; of the index then those of its file, with its free pages.

use super::*;

/// The trace lines of the front-end, of the usual length.
fn lines(recipient: u64, number: u64) -> Vec<u8> {
    let address = format!("user{recipient:06}@example.test");
    format!(
        "Return-Path: <sender@sender.example>\r\nDelivered-To: {address}\r\nReceived: from client.sender.example ([192.0.2.7])\r\n\tby mx.example.test with ESMTPS id {:016x}\r\n\tfor <{address}>; Sun, 22 Nov 2026 14:{:02}:{:02} +0000\r\n",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        number / 60 % 60,
        number % 60,
    )
    .into_bytes()
}

/// Octets that its files and folders take. What has another name is not its own: of hard links, the folders count.
fn taken(path: &Path) -> u64 {
    let below = std::fs::read_dir(path).into_iter().flatten();
    let own = path.metadata().unwrap();
    let own = match own.nlink() {
        // Some file systems take no blocks for a folder, and say what its names take.
        _ if own.is_dir() => own.len(),
        1 => own.blocks() * 512,
        _ => 0,
    };
    own + below
        .map(|entry| taken(&entry.unwrap().path()))
        .sum::<u64>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_to_ten_costs_each_at_most_700_octets_beside_the_body() {
    let count = std::env::var("POSTHOUSE_TEST_OCTETS").map_or(600, |count| count.parse().unwrap());
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        checkpoint_interval: Duration::from_secs(1),
        checkpoint_bytes: 64 << 20,
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    // Ten accounts of two hundred, others each time.
    let recipients = |number: u64| -> Vec<Recipient> {
        let first = number.wrapping_mul(7919) % 200;
        let accounts = (0..10).map(|i| (first + i * 17) % 200);
        let one = |account| Recipient {
            prologue: lines(account, number),
            ..to(AccountId(1 + account))
        };
        accounts.map(one).collect()
    };
    let deliver_one = |number: u64| {
        let mut body = vec![b'x'; 4_700];
        body[..8].copy_from_slice(&number.to_le_bytes());
        let (volume, to) = (volume.clone(), recipients(number));
        async move { deliver_to(&volume, number, &body, to).await }
    };
    // The accounts are there, and their folders.
    for number in 0..200 {
        deliver_one(number).await;
    }
    settle_checkpoint(&volume);
    let parts = ["index", "mail", "kept"];
    let octets = || -> [u64; 3] {
        let [mail, kept] = ["mail", "kept"].map(|part| taken(&dir.path().join(part)));
        let index = volume.inner.shared().index.usage().unwrap();
        // Of a small index much is free pages, and how many depends on the machine's speed.
        let free = if count < 10_000 { index.free_bytes } else { 0 };
        [index.file_bytes - free, mail, kept]
    };
    let before = octets();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 200..200 + count {
        if tasks.len() >= 32 {
            tasks.join_next().await;
        }
        tasks.spawn(deliver_one(number));
    }
    tasks.join_all().await;
    // A long run leaves the files more to do than the others wait for.
    while volume.status().unreleased_bytes > 16 << 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settle_checkpoint(&volume);
    let after = octets();
    let each: Vec<u64> = std::iter::zip(before, after)
        .map(|(before, after)| (after - before) / (count * 10))
        .collect();
    let sum: u64 = each.iter().sum();
    println!("octets a delivery: {parts:?} {each:?}, together {sum}");
    for recipient in recipients(3) {
        let (inbox, account) = (MailboxId::INBOX, recipient.account);
        let mut found = false;
        for message in volume
            .snapshot(account, inbox)
            .await
            .unwrap()
            .unwrap()
            .messages
        {
            let read = volume.read_message(account, inbox, message.uid).await;
            found |= read.unwrap().unwrap().prologue == recipient.prologue;
        }
        assert!(found, "account {account}");
    }
    assert!(sum <= 700, "{each:?}");
    volume.close();
}
