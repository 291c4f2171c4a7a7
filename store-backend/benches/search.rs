//! SEARCH, SORT and THREAD over a mailbox of 10,000 messages, asked of a real back-end as a client asks: what the index alone
//! answers, what fields answer, what needs every body.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

#[path = "../tests/real/imap_client.rs"]
mod imap_client;
#[path = "../tests/real/site.rs"]
mod site;

use std::sync::{Mutex, OnceLock};

use divan::Bencher;
use imap_client::Imap;
use site::{Backend, Dialogue, Site, until_listed};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
    if let Some(fixture) = FIXTURE.get() {
        drop(fixture.site.lock().unwrap().take());
    }
}

const COUNT: usize = 10_000;
const WORDS: [&str; 8] = [
    "please", "find", "the", "invoice", "attached", "regards", "meeting", "Tomorrow",
];

struct Fixture {
    runtime: Runtime,
    client: Mutex<Imap>,
    site: Mutex<Option<(Site, Backend)>>,
}

static FIXTURE: OnceLock<Fixture> = OnceLock::new();

/// A back-end with a mailbox that was filled once.
fn fixture() -> Fixture {
    let runtime = Runtime::new().unwrap();
    let (site, client) = runtime.block_on(async {
        let site = Site::new().await;
        site.directory.address("ann", &[1]);
        site.directory.home(1, "b1", 1);
        let backend = site.backend("b1").await;
        let mut lmtp = Dialogue::lmtp(&backend).await;
        for number in 0..COUNT {
            lmtp.deliver(&["ann"], message(number).as_bytes()).await;
        }
        until_listed(&backend, "ann", COUNT).await;
        let client = Imap::inbox(&backend, "ann").await;
        ((site, backend), client)
    });
    Fixture {
        runtime,
        client: Mutex::new(client),
        site: Mutex::new(Some(site)),
    }
}

fn message(number: usize) -> String {
    let mut body = format!("needle{:02} marks this text.\r\n", number % 64);
    for at in 0..560 {
        body.push_str(WORDS[(number + at * at) % WORDS.len()]);
        body.push_str(if at % 10 == 9 { "\r\n" } else { " " });
    }
    format!(
        "Received: from client.example.org (client.example.org [198.51.100.7])\r\n\
         \tby mx.example.net with ESMTPSA id {number}; Mon, 02 Nov 2026 10:00:00 +0000\r\n\
         From: \"Sender Number {number}\" <sender{number}@example.org>\r\n\
         To: \"A Customer\" <user@example.test>\r\nSubject: a message with number {number:08}\r\n\
         Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{number}@example.org>\r\n\
         References: <{}@example.org>\r\nX-Number: {number}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{body}",
        number / 3
    )
}

#[divan::bench(sample_count = 20, args = [
    "SEARCH UNSEEN",
    "SEARCH HEADER Subject \"number 00001234\"",
    "SEARCH FROM nobody",
    "SEARCH SENTSINCE 3-Nov-2026",
    "SEARCH HEADER X-Number 1234",
    "SEARCH BODY needle07",
    "SEARCH TEXT needle07",
    "SORT (SUBJECT) UTF-8 ALL",
    "THREAD REFERENCES UTF-8 ALL",
])]
fn of_10000(bencher: Bencher<'_, '_>, command: &str) {
    let fixture = FIXTURE.get_or_init(fixture);
    let mut client = fixture.client.lock().unwrap();
    bencher.bench_local(|| fixture.runtime.block_on(client.ok(command)));
}
