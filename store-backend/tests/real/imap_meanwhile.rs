//! What others do while a command is between two of its steps.

use crate::imap_access::{WORK, all, grant, shared, tagged};
use crate::imap_dialogue::imap;
use crate::imap_messages::site;
use crate::site::Site;

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
