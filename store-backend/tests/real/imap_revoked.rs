//! Rights to another user's mailbox that go while they are used, and names and accounts that are given again.

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::imap_access::{WORK, all, append, grant, shared, tagged, two};
use crate::imap_dialogue::imap;
use crate::site::{Dialogue, PATIENCE};

const GONE: &str = "* BYE the selected mailbox was deleted";

/// All that still comes, to the end of the connection.
async fn to_the_end(imap: Dialogue) -> Vec<u8> {
    let (mut octets, mut wire) = imap.into_unread();
    let reading = timeout(PATIENCE, wire.read_to_end(&mut octets));
    // Cut off is an end too.
    let _ = reading.await.expect("an end in time");
    octets
}

#[tokio::test]
async fn a_long_fetch_ends_when_the_right_to_read_goes() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    let line = format!("{}\r\n", "x".repeat(998));
    let body = format!("Subject: large\r\n\r\n{}", line.repeat(1000));
    append(&mut ann, "Work", &body).await;
    tagged(&mut ann, "SELECT Work").await;
    tagged(&mut ann, "COPY 4 Work").await;
    for _ in 0..5 {
        tagged(&mut ann, "COPY 4:* Work").await;
    }
    let count = all(&mut ann, "STATUS Work (MESSAGES)").await;
    assert!(
        count.iter().any(|one| one.ends_with("(MESSAGES 67)")),
        "{count:?}"
    );
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    bob.say("f FETCH 4:* BODY.PEEK[]").await;
    bob.expect("* 4 FETCH ").await;
    // What is under way to a client that does not read is some megabytes of these 64.
    grant(&mut ann, "Work", "l").await;
    let octets = to_the_end(bob).await;
    assert!(octets.len() < 40_000_000, "{} came after it", octets.len());
    let is_done = octets.ends_with(b"f OK done\r\n");
    assert!(!is_done, "the command was done");
}

#[tokio::test]
async fn a_client_that_asked_to_hear_nothing_is_ended_all_the_same() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    assert_eq!(tagged(&mut bob, "NOTIFY NONE").await, "t OK done");
    bob.ask("i IDLE", "+ ").await;
    grant(&mut ann, "Work", "l").await;
    bob.expect(GONE).await;
    assert_eq!(bob.line().await, "");
}

#[tokio::test]
async fn a_client_that_hears_always_is_told_nothing_more_and_ended() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    let notify = "NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[]) MessageExpunge FlagChange))";
    assert_eq!(tagged(&mut bob, notify).await, "t OK done");
    ann.ask("d DELETEACL Work bob@example.test", "d OK done")
        .await;
    append(&mut ann, "Work", "Subject: secret\r\n\r\n").await;
    bob.expect(GONE).await;
    assert_eq!(bob.line().await, "");
}

#[tokio::test]
async fn close_without_the_right_to_expunge_only_closes() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lrste").await;
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    grant(&mut ann, "Work", "lrst").await;
    assert_eq!(tagged(&mut bob, "CLOSE").await, "t OK done");
    let count = all(&mut ann, "STATUS Work (MESSAGES)").await;
    assert_eq!(count[0], "* STATUS Work (MESSAGES 3)");
}

#[tokio::test]
async fn nothing_is_made_or_renamed_below_what_is_hidden() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lrswipkxtea").await;
    ann.ask("b CREATE Work/hidden", "b OK").await;
    grant(&mut ann, "Work/hidden", "").await;
    let name = |end: &str| format!("\"Other Users/ann@example.test/Work{end}\"");
    let refused = "t NO [NOPERM] you have not the right to do this";
    for command in [
        format!("CREATE {}", name("/hidden/new")),
        // It would be renamed too.
        format!("RENAME {} {}", name(""), name("/x")),
        format!(
            "RENAME {} {}",
            name(""),
            "\"Other Users/ann@example.test/y\""
        ),
    ] {
        assert_eq!(tagged(&mut bob, &command).await, refused, "{command}");
    }
    let made = tagged(&mut bob, &format!("CREATE {} (USE (\\Sent))", name("/new"))).await;
    assert_eq!(made, "t NO [USEATTR] the mailbox is of another user");
    let mut names = all(&mut ann, "LIST \"\" *").await;
    names.retain(|line| line.contains("Work") || line.contains("\\Sent"));
    assert_eq!(
        names,
        [
            "* LIST (\\HasChildren) \"/\" Work",
            "* LIST (\\HasNoChildren) \"/\" Work/hidden"
        ]
    );
}

#[tokio::test]
async fn an_address_that_is_given_again_opens_nothing_of_its_last_bearer() {
    let (site, backend) = two().await;
    let (mut ann, _bob) = shared(&backend, "lrswipkxtea").await;
    // The account of that name is another one now.
    site.directory.address("bob", &[3]);
    site.directory.home(3, "b1", 1);
    let mut bob = imap(&backend, "bob").await;
    assert_eq!(
        all(&mut bob, "LIST \"\" \"Other Users*\"").await,
        ["t OK done"]
    );
    let absent = "t NO [NONEXISTENT] there is no such mailbox";
    for command in [
        format!("SELECT {WORK}"),
        format!("MYRIGHTS {WORK}"),
        format!("DELETE {WORK}"),
    ] {
        assert_eq!(tagged(&mut bob, &command).await, absent, "{command}");
    }
    assert!(
        append(&mut bob, WORK, "x: y\r\n\r\n")
            .await
            .starts_with("p NO [TRYCREATE]")
    );
    // Who had the name before loses the right with the name.
    ann.ask("e DELETEACL Work bob@example.test", "e OK done")
        .await;
    let acl = all(&mut ann, "GETACL Work").await;
    assert_eq!(acl[0], "* ACL Work ann@example.test acdeiklprstwx");
}

#[tokio::test]
async fn what_comes_to_a_shared_mailbox_counts_against_its_owners_quota() {
    let (site, backend) = two().await;
    site.directory.quota(1, None, Some(4));
    site.directory.quota(2, None, Some(2));
    let (mut ann, mut bob) = shared(&backend, "lri").await;
    let added = append(&mut bob, WORK, "Subject: 4\r\n\r\n").await;
    assert!(added.starts_with("p OK [APPENDUID "), "{added}");
    let refused = append(&mut bob, WORK, "Subject: 5\r\n\r\n").await;
    assert_eq!(refused, "p NO [OVERQUOTA] the account's quota is used up");
    // His own has room for two, and none of hers is counted there.
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    let copied = tagged(&mut bob, "COPY 1:2 INBOX").await;
    assert!(copied.starts_with("t OK [COPYUID "), "{copied}");
    let refused = tagged(&mut bob, "COPY 3 INBOX").await;
    assert_eq!(refused, "t NO [OVERQUOTA] the account's quota is used up");
    let count = all(&mut ann, "STATUS Work (MESSAGES)").await;
    assert_eq!(count[0], "* STATUS Work (MESSAGES 4)");
}
