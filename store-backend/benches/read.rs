//! Reading the index of a mailbox of 10,000 messages: rows alone, with cards as FETCH of ENVELOPE does, with cards and
//! prologues as a search in headers does.

mod volume;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use directory_api::AccountId;
use divan::Bencher;
use divan::counter::ItemsCount;
use store_backend::volume::{MailboxId, Volume, Want};
use tokio::task::JoinSet;
use volume::deliver;

fn main() {
    divan::main();
    FIXTURE.volume.close();
    let _ = std::fs::remove_dir_all(&FIXTURE.path);
}

const COUNT: u32 = 10_000;
const ANN: AccountId = AccountId(1);

/// A volume in a folder of its own, filled once.
struct Fixture {
    volume: Volume,
    path: PathBuf,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("posthouse-bench-read-{}", std::process::id()));
    let volume = volume::open(&path);
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..COUNT {
            if tasks.len() == 64 {
                tasks.join_next().await;
            }
            tasks.spawn(fill(volume.clone(), number));
        }
        tasks.join_all().await;
        while volume.status().applied < volume.status().position {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    Fixture { volume, path }
});

async fn fill(volume: Volume, number: u32) {
    let body = format!(
        "Received: from client.example.org (client.example.org [198.51.100.7])\r\n\
         \tby mx.example.net with ESMTPSA id {number}; Mon, 02 Nov 2026 10:00:00 +0000\r\n\
         From: \"Sender Number {number}\" <sender{number}@example.org>\r\n\
         To: \"A Customer\" <user@example.test>\r\nSubject: a message with number {number:08}\r\n\
         Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{number}@example.org>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n",
        "x".repeat(4_000)
    );
    let prologue = b"Return-Path: <sender@example.org>\r\nDelivered-To: user@example.test\r\n\
        Received: from mx by b1; Mon, 02 Nov 2026 10:00:00 +0000\r\n";
    deliver(&volume, number.into(), body.as_bytes(), [ANN], prologue).await;
}

#[divan::bench(args = ["rows", "cards", "headers"])]
fn read_10000(bencher: Bencher<'_, '_>, what: &str) {
    let want = match what {
        "rows" => Want::ROWS,
        "cards" => Want {
            card: true,
            ..Want::ROWS
        },
        _ => Want::HEADER,
    };
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let reader = runtime.block_on(FIXTURE.volume.mailbox_reader(ANN, MailboxId::INBOX));
    let uids: Vec<u32> = (1..=COUNT).collect();
    bencher.counter(ItemsCount::new(COUNT)).bench(|| {
        let mut rest = &uids[..];
        while !rest.is_empty() {
            let next = &rest[..rest.len().min(1_000)];
            let batch = reader.messages(next, want).expect("the index can be read");
            let batch = batch.expect("there is an INBOX");
            rest = &rest[batch.done_count..];
            divan::black_box(batch);
        }
    });
}
