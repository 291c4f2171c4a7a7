//! An operator brings back what a user has expunged: who may, and until when.

use std::path::Path;
use std::time::Instant;

use daemon::identity::Role;
use daemon::link::CallError;
use directory_api::{AccountId, Epoch};
use store_api::undelete::{List, Undelete, UndeleteClient};

use crate::imap_dialogue::imap;
use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

const MESSAGE: &[u8] =
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.test>\r\nSubject: x\r\n\r\nhello\r\n";

fn all(epoch: u64) -> List {
    List {
        account: AccountId(1),
        epoch: Epoch(epoch),
        after: None,
    }
}

fn files(folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        count += if path.is_dir() { files(&path) } else { 1 };
    }
    count
}

async fn one_expunged(site: &Site, backend: &Backend) {
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut lmtp = Dialogue::lmtp(backend).await;
    assert!(lmtp.deliver(&["ann"], MESSAGE).await[0].starts_with("250 "));
    let mut pop3 = until_listed(backend, "ann", 1).await;
    pop3.ask("DELE 1", "+OK").await;
    pop3.ask("QUIT", "+OK").await;
}

#[tokio::test]
async fn an_operator_and_nobody_else_brings_back_what_was_expunged() {
    let site = Site::new().await;
    let backend = site.backend("b1").await;
    one_expunged(&site, &backend).await;
    let request = Undelete {
        account: AccountId(1),
        epoch: Epoch(1),
        mailbox: 1,
        uids: vec![1],
        to: None,
    };
    for role in [
        Role::Migrator,
        Role::MxFrontend,
        Role::PopImapProxy,
        Role::StoreBackend,
        Role::Directory,
    ] {
        let client = UndeleteClient::new(site.link(role, &backend));
        let code = |error| match error {
            CallError::Refused(problem) => problem.code.into_owned(),
            other => panic!("{role}: {other}"),
        };
        let listed = client.list(&all(1)).await.map_err(code);
        assert_eq!(listed.unwrap_err(), "role_forbidden", "{role}");
        let back = client.undelete(&request).await.map_err(code);
        assert_eq!(back.unwrap_err(), "role_forbidden", "{role}");
    }
    let client = UndeleteClient::new(site.link(Role::Operator, &backend));
    assert!(matches!(
        client.list(&all(2)).await,
        Err(CallError::Refused(problem)) if problem.code == "stale_epoch"
    ));
    let listed = client.list(&all(1)).await.unwrap();
    let [one] = &listed.messages[..] else {
        panic!("{listed:?}");
    };
    assert!(!listed.has_more);
    assert_eq!(one.from.as_deref(), Some("Jürgen <j@example.test>"));
    assert_eq!(one.subject.as_deref(), Some("x"));
    let day_ms = 24 * 60 * 60 * 1000;
    assert_eq!(one.until_ms - one.expunged_ms, day_ms, "the default");
    // Who waits for mail is told at once.
    let mut idle = imap(&backend, "ann").await;
    idle.say("a SELECT INBOX").await;
    while !idle.line().await.starts_with("a OK") {}
    idle.ask("b IDLE", "+").await;
    let back = client.undelete(&request).await.unwrap();
    assert_eq!((&back.mailbox[..], back.messages), ("INBOX", 1));
    idle.expect("* 1 EXISTS").await;
    // Said again it does nothing.
    assert_eq!(client.undelete(&request).await.unwrap().messages, 0);
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    assert!(pop3.retrieve(1).await.ends_with(MESSAGE));
}

#[tokio::test]
async fn when_the_grace_is_over_the_message_and_its_file_are_gone() {
    let site = Site::new().await;
    let backend = site.backend_starting("b1", "expunge_grace_s = 1");
    backend.ready().await;
    one_expunged(&site, &backend).await;
    let client = UndeleteClient::new(site.link(Role::Operator, &backend));
    let blobs = backend.data.join("blobs");
    let began = Instant::now();
    while files(&blobs) > 0 || !client.list(&all(1)).await.unwrap().messages.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let request = Undelete {
        account: AccountId(1),
        epoch: Epoch(1),
        mailbox: 1,
        uids: vec![1],
        to: None,
    };
    assert_eq!(client.undelete(&request).await.unwrap().messages, 0);
}
