//! What others do while a command is between two of its steps.

use std::collections::BTreeSet;

use crate::imap_access::{WORK, all, grant, shared, tagged, two};
use crate::imap_client::Imap;
use crate::imap_dialogue::imap;
use crate::imap_messages::site;
use crate::site::{Backend, Site};

#[tokio::test]
async fn a_copy_from_a_mailbox_that_goes_does_not_ask_for_its_target_to_be_made() {
    let (_site, backend) = site().await;
    let mut ann = imap(&backend, "ann").await;
    for verb in ["UID COPY", "UID MOVE"] {
        for round in 0..20 {
            ann.ask("c CREATE box", "c OK").await;
            ann.ask("p APPEND box {1+}\r\nx", "p OK").await;
            let mut other = imap(&backend, "ann").await;
            assert!(tagged(&mut other, "SELECT box").await.starts_with("t OK"));
            let command = format!("{verb} 1 INBOX");
            let (copied, deleted) =
                tokio::join!(all(&mut other, &command), tagged(&mut ann, "DELETE box"));
            assert_eq!(deleted, "t OK done");
            let asks = copied.iter().any(|line| line.contains("TRYCREATE"));
            assert!(!asks, "{verb}, round {round}: {copied:?}");
        }
    }
}

#[tokio::test]
async fn a_message_moved_to_another_owner_has_the_flags_it_was_given_meanwhile() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lrswite").await;
    let message = format!("Subject: x\r\n\r\n{}", "0123456789abcde\r\n".repeat(10_000));
    for _ in 0..20 {
        let append = format!("p APPEND INBOX {{{}+}}\r\n{message}", message.len());
        bob.ask(&append, "p OK").await;
    }
    let mut other = Imap::inbox(&backend, "bob").await;
    tagged(&mut bob, "SELECT INBOX").await;
    bob.say(&format!("m MOVE 1:20 {WORK}")).await;
    other.ok("NOOP").await;
    // It reads and writes three megabytes before it adds any of them.
    let stored = other.ok("UID STORE 20 +FLAGS.SILENT (\\Flagged)").await;
    assert!(stored.untagged.is_empty(), "not moved yet: {stored:?}");
    bob.expect("* OK [COPYUID ").await;
    tagged(&mut ann, "SELECT Work").await;
    assert_eq!(all(&mut ann, "SEARCH FLAGGED").await[0], "* SEARCH 23");
}

#[tokio::test]
async fn a_move_that_did_nothing_does_not_say_how_much_of_it_was_done() {
    let site = Site::new().await;
    let backend = site.backend_starting("b1", "imap_message_limit_is_kept = true");
    backend.ready().await;
    for (local, account) in [("ann", 1), ("bob", 2)] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let (mut ann, mut bob) = shared(&backend, "lrswite").await;
    for _ in 0..2 {
        let messages = " {1+}\r\nx".repeat(600);
        bob.ask(&format!("p APPEND INBOX{messages}"), "p OK").await;
    }
    tagged(&mut bob, "SELECT INBOX").await;
    bob.say(&format!("t UID MOVE 1:* {WORK}")).await;
    ann.ask("n NOOP", "n OK").await;
    // While the messages are written once more.
    grant(&mut ann, "Work", "").await;
    assert_eq!(
        bob.line().await,
        "t NO [TRYCREATE] there is no such mailbox"
    );
}

/// Ann's client that had her INBOX open when its MODSEQ was 1, and how it opens it again.
async fn coming_back(backend: &Backend) -> (Imap, String) {
    let mut back = Imap::login(backend, "ann").await;
    back.ok("ENABLE QRESYNC").await;
    let status = back.ok("STATUS INBOX (UIDVALIDITY)").await.lines();
    let uidvalidity = status.iter().find_map(|line| line.split_once("VALIDITY "));
    let uidvalidity = uidvalidity.unwrap().1.trim_end_matches(')');
    let select = format!("SELECT INBOX (QRESYNC ({uidvalidity} 1))");
    (back, select)
}

#[tokio::test]
async fn a_change_while_a_client_comes_back_is_told_once() {
    let (_site, backend) = site().await;
    let mut ann = Imap::login(&backend, "ann").await;
    ann.append(b"x").await;
    ann.ok("SELECT INBOX").await;
    let (mut back, select) = coming_back(&backend).await;
    for round in 0..60 {
        let changing = async {
            for sign in ['+', '-'].repeat(4) {
                let store = format!("STORE 1 {sign}FLAGS.SILENT (\\Flagged)");
                ann.ok(&store).await;
            }
        };
        let (answer, ()) = tokio::join!(back.ok(&select), changing);
        let lines = answer.lines();
        let told: Vec<_> = lines
            .iter()
            .filter(|line| line.contains(" FETCH "))
            .collect();
        let distinct: BTreeSet<_> = told.iter().collect();
        assert_eq!(told.len(), distinct.len(), "round {round}: {lines:?}");
    }
}

/// A client that comes back takes EXISTS for the count behind VANISHED (EARLIER): were one that goes meanwhile told before the
/// answer, it would count one that is not there, and number all behind it wrongly.
#[tokio::test]
async fn what_select_tells_is_the_mailbox_at_one_moment() {
    let (_site, backend) = site().await;
    let mut ann = Imap::login(&backend, "ann").await;
    for _ in 0..10 {
        ann.append(b"x").await;
    }
    ann.ok("SELECT INBOX").await;
    let (mut back, select) = coming_back(&backend).await;
    let mut told_later = 0;
    for round in 0..60 {
        let changing = async {
            for _ in 0..4 {
                ann.append(b"x").await;
                ann.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
                ann.ok("EXPUNGE").await;
            }
        };
        let (answer, ()) = tokio::join!(back.ok(&select), changing);
        let lines = answer.lines();
        let counts = lines.iter().filter(|line| line.ends_with(" EXISTS"));
        assert_eq!(counts.count(), 1, "round {round}: {lines:?}");
        let is_gone =
            |line: &String| line.starts_with("* VANISHED ") && !line.contains("(EARLIER)");
        assert!(!lines.iter().any(is_gone), "round {round}: {lines:?}");
        let news = back.ok("NOOP").await.lines();
        told_later += usize::from(news.iter().any(is_gone));
    }
    assert!(told_later > 0, "nothing went while the mailbox was opened");
}
