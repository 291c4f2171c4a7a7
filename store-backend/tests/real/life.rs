//! Start, drain, and starts that are refused.

use std::path::Path;
use std::time::{Duration, Instant};

use daemon::identity::Role;
use daemon::link::Link;
use directory_api::{AccountId, Epoch};
use store_api::MoveId;
use store_api::deliver::Outcome;
use store_api::transfer::{Freeze, Pull, TransferClient, TransferError};

use crate::deliver::{commit, deliver, open};
use crate::site::{Dialogue, PATIENCE, Site, until_listed};

#[tokio::test]
async fn a_drain_ends_sessions_with_a_word_and_keeps_everything() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: kept\r\n\r\n").await[0].starts_with("250 "));
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    assert_eq!(backend.terminate().await, Some(0));
    pop3.expect("-ERR [SYS/TEMP]").await;
    lmtp.expect("421 4.3.2").await;
    backend.restart().await;
    drop(until_listed(&backend, "ann", 1).await);
}

#[tokio::test]
async fn a_start_that_cannot_be_is_one_clear_line() {
    let site = Site::new().await;
    let mut backend = site.backend("b1").await;
    let (code, said) = backend.twin(str::to_owned);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {} for store link", backend.link)),
        "{said}"
    );
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    backend.kill();

    let foreign = backend.data.with_extension("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let (code, said) = backend
        .twin(|config| config.replace(backend.data.to_str().unwrap(), foreign.to_str().unwrap()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("give an empty folder"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert_eq!(
        std::fs::read_dir(&foreign).unwrap().count(),
        1,
        "nothing was touched"
    );

    let (code, said) =
        backend.twin(|config| config.replace("plaintext_login = true", "plaintext_login = tru"));
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = backend.twin(|config| config.replace("name = \"b1\"", "name = \"b9\""));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("correct one of them"), "{said}");
    let (code, said) = backend
        .twin(|config| config.replace("[limits]", "[limits]\nrecipients_max = 5\nstall = 3"));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("limits.recipients_max") && said.contains("limits.stall"),
        "both are told: {said}"
    );
}

#[tokio::test]
async fn a_volume_restored_from_an_old_copy_is_read_and_not_written() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: old\r\n\r\n").await[0].starts_with("250 "));
    drop(until_listed(&backend, "ann", 1).await);
    backend.kill();
    site.directory.claim_position(1000);
    backend.start();
    backend.fails("older than the directory knows").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: new\r\n\r\n").await[0].starts_with("451 4.3.0"));
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    pop3.retrieve(1).await;
    pop3.ask("DELE 1", "+OK").await;
    pop3.ask("QUIT", "-ERR").await;
    drop(until_listed(&backend, "ann", 1).await);
    // Nor is the old copy moved to where it would be taken for the account.
    let migrator = TransferClient::new(site.link(Role::Migrator, &backend));
    let (account, move_id) = (AccountId(1), MoveId::from_octets([7; 16]));
    let freeze = Freeze {
        account,
        epoch: Epoch(1),
        move_id,
        force: true,
        target: None,
    };
    let pull = Pull {
        account: AccountId(2),
        move_id,
        source: backend.name.clone(),
        source_address: backend.link.to_string(),
        source_epoch: Epoch(1),
        volume: None,
        is_last: true,
        octets_per_s: None,
    };
    for refused in [
        migrator.freeze(&freeze).await.err(),
        migrator.pull(&pull).await.err(),
    ] {
        assert!(
            matches!(&refused, Some(TransferError::Refused(problem)) if problem.code == "unavailable"),
            "{refused:?}"
        );
    }
    // An account that only the real volume has is not shown as an empty one.
    site.directory.address("ben", &[2]);
    site.directory.home(2, "b1", 1);
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("USER ben@example.test", "+OK").await;
    pop3.ask("PASS pass", "-ERR").await;
}

#[tokio::test]
async fn an_old_copy_of_the_folder_gives_no_uid_again_once_it_is_adopted() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    for adopted_before_the_start in [false, true] {
        let name = if adopted_before_the_start { "b3" } else { "b2" };
        site.directory.home(1, name, 1);
        let mut backend = site.backend(name).await;
        let mut lmtp = Dialogue::lmtp(&backend).await;
        assert!(lmtp.deliver(&["ann"], b"Subject: old\r\n\r\n").await[0].starts_with("250 "));
        drop(until_listed(&backend, "ann", 1).await);
        assert_eq!(backend.terminate().await, Some(0));
        let copy = backend.data.with_extension("copy");
        copy_folder(&backend.data, &copy);
        backend.restart().await;
        let mut lmtp = Dialogue::lmtp(&backend).await;
        assert!(lmtp.deliver(&["ann"], b"Subject: lost\r\n\r\n").await[0].starts_with("250 "));
        let mut pop3 = until_listed(&backend, "ann", 2).await;
        let kept = pop3.ask("UIDL 1", "+OK").await;
        let lost = pop3.ask("UIDL 2", "+OK").await;
        assert_eq!(backend.terminate().await, Some(0));

        std::fs::remove_dir_all(&backend.data).unwrap();
        std::fs::rename(&copy, &backend.data).unwrap();
        if adopted_before_the_start {
            site.directory.adopt();
        }
        backend.start();
        if !adopted_before_the_start {
            backend.fails("older than the directory knows").await;
            assert!(backend.data.join("RESTORED").exists());
            site.directory.adopt();
        }
        backend.ready().await;
        assert!(!backend.data.join("RESTORED").exists());
        let mut lmtp = Dialogue::lmtp(&backend).await;
        assert!(lmtp.deliver(&["ann"], b"Subject: new\r\n\r\n").await[0].starts_with("250 "));
        let mut pop3 = until_listed(&backend, "ann", 2).await;
        assert_eq!(pop3.ask("UIDL 1", "+OK").await, kept);
        assert_ne!(pop3.ask("UIDL 2", "+OK").await, lost, "{name}");
        // The next start is one as any other.
        assert_eq!(backend.terminate().await, Some(0));
        backend.restart().await;
        let mut lmtp = Dialogue::lmtp(&backend).await;
        assert!(lmtp.deliver(&["ann"], b"Subject: next\r\n\r\n").await[0].starts_with("250 "));
        let mut pop3 = until_listed(&backend, "ann", 3).await;
        let new = uid_of(&pop3.ask("UIDL 2", "+OK").await);
        assert_eq!(uid_of(&pop3.ask("UIDL 3", "+OK").await), new + 1);
    }
}

/// The second half of a unique-id is the UID.
fn uid_of(listed: &str) -> u32 {
    let id = listed.rsplit(' ').next().unwrap();
    u32::from_str_radix(&id[id.len() - 8..], 16).unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_restored_volume_is_found_out_although_it_took_mail_while_the_directory_was_away() {
    let mut site = Site::new().await;
    site.directory.home(1, "b1", 1);
    let mut backend = site.backend("b1").await;
    let take = async |link: &Link, number: u8| {
        let message = [b'0' + number];
        deliver(link, &open(number, &[1]), &message, &commit(&message, &[1]))
            .await
            .is_ok_and(|reply| matches!(reply.results[0].outcome, Outcome::Committed { .. }))
    };
    let link = site.link(Role::MxFrontend, &backend);
    assert!(take(&link, 1).await);
    // One record is here; the directory knows of three.
    backend.kill();
    site.directory.claim_position(3);
    site.stop_directory().await;
    backend.start();
    let began = Instant::now();
    let mut number = 1;
    while number < 9 {
        assert!(began.elapsed() < PATIENCE, "nothing is taken");
        if take(&link, number + 1).await {
            number += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    site.start_directory().await;
    while backend
        .get("/health")
        .await
        .is_none_or(|answer| !answer.contains("older than the directory knows"))
    {
        assert!(began.elapsed() < PATIENCE, "it is not found out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!take(&link, 10).await, "it takes no more");
}
