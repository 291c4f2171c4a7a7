//! Rot on a back-end's disk, as users and mail programs see it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::imap_client::Imap;
use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

/// Three messages of Ann's; the second one is `large` or not.
async fn site(large: bool) -> (Site, Backend) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    for number in 1..=3 {
        let lines = if large && number == 2 { 20_000 } else { 3 };
        let body = "one more line of it\r\n".repeat(lines);
        let message = format!("Subject: {number}\r\n\r\n{body}");
        assert!(lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 "));
    }
    drop(until_listed(&backend, "ann", 3).await);
    (site, backend)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

/// Inverts a bit in the blob that begins so.
pub(crate) async fn rot_of(backend: &Backend, begin: &[u8]) {
    let began = std::time::Instant::now();
    loop {
        for blob in files_below(&backend.data.join("blobs")) {
            let mut octets = fs::read(&blob).unwrap();
            if octets.starts_with(begin) {
                *octets.last_mut().unwrap() ^= 1;
                return fs::write(&blob, octets).unwrap();
            }
        }
        assert!(began.elapsed() < PATIENCE, "no file was made");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The same in that of the second message.
async fn rot(backend: &Backend) {
    rot_of(backend, b"Subject: 2").await;
}

async fn until_quarantined(backend: &Backend) {
    let began = std::time::Instant::now();
    while files_below(&backend.data.join("quarantine")).is_empty() {
        assert!(began.elapsed() < PATIENCE, "nothing is put aside");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_rotten_message_is_refused_and_not_marked_as_read_and_the_session_goes_on() {
    let (_site, backend) = site(false).await;
    rot(&backend).await;
    let mut ann = Imap::inbox(&backend, "ann").await;
    for _ in 0..2 {
        let fetched = ann.command(b"FETCH 1:3 (UID BODY[])").await;
        assert!(fetched.tagged.contains("NO [SERVERBUG]"), "{fetched:?}");
        let told = |number: u32| {
            let begin = format!("* {number} FETCH ");
            let lines = fetched.lines();
            lines
                .iter()
                .any(|line| line.starts_with(&begin) && line.contains("BODY[]"))
        };
        assert_eq!([1, 2, 3].map(told), [true, false, true], "{fetched:?}");
        until_quarantined(&backend).await;
    }
    let unseen = ann.ok("SEARCH UNSEEN").await;
    assert_eq!(unseen.lines(), ["* SEARCH 2"]);
    // What the index knows of it is told as before.
    let known = ann.ok("FETCH 2 (ENVELOPE RFC822.SIZE)").await;
    assert!(known.lines()[0].contains("(NIL \"2\" "), "{known:?}");
}

#[tokio::test]
async fn pop3_refuses_a_rotten_message_and_serves_the_others() {
    let (_site, backend) = site(false).await;
    rot(&backend).await;
    let mut ann = Dialogue::pop3(&backend, "ann").await;
    for _ in 0..2 {
        assert!(!ann.retrieve(1).await.is_empty());
        ann.ask("RETR 2", "-ERR [SYS/").await;
        ann.ask("TOP 2 0", "-ERR [SYS/").await;
        assert!(!ann.retrieve(3).await.is_empty());
        until_quarantined(&backend).await;
    }
    ann.ask("QUIT", "+OK").await;
}

#[tokio::test]
async fn a_large_rotten_message_breaks_off_once_and_is_refused_from_then_on() {
    let (_site, backend) = site(true).await;
    rot(&backend).await;
    // What is announced cannot be taken back: the connection ends, short of the last octets.
    let mut first = Imap::inbox(&backend, "ann").await;
    first.command_until_cut(b"FETCH 2 (BODY.PEEK[])").await;
    until_quarantined(&backend).await;
    let mut ann = Dialogue::pop3(&backend, "ann").await;
    ann.ask("RETR 2", "-ERR [SYS/").await;
    assert!(!ann.retrieve(3).await.is_empty());
    let mut ann = Imap::inbox(&backend, "ann").await;
    let fetched = ann.command(b"FETCH 2 BODY[]").await;
    assert!(fetched.tagged.contains("NO [SERVERBUG]"), "{fetched:?}");
    ann.ok("NOOP").await;
}
