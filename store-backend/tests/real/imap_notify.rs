//! NOTIFY of mailboxes of others. RFC 5465 §3.1, §5.4, §5.9.

use crate::imap_access::{WORK, all, append, grant, shared, tagged, two};
use crate::site::Dialogue;

const MESSAGE: &str = "Subject: x\r\n\r\nbody\r\n";

/// What of ann's mailbox bob is told of.
async fn watch(bob: &mut Dialogue, filter: &str, events: &str) -> Vec<String> {
    all(bob, &format!("NOTIFY SET STATUS ({filter} ({events}))")).await
}

/// Nothing is told: what comes first is the answer to NOOP.
async fn hears_nothing(bob: &mut Dialogue) {
    assert_eq!(all(bob, "NOOP").await, ["t OK done"]);
}

/// With the annotation that it has, and once.
async fn comes_into_sight(bob: &mut Dialogue) {
    bob.expect(&format!("* LIST (\\HasNoChildren) \"/\" {WORK}"))
        .await;
    bob.expect(&format!("* METADATA {WORK} /shared/comment"))
        .await;
    hears_nothing(bob).await;
}

#[tokio::test]
async fn a_mailbox_of_another_user_is_watched_as_long_as_it_may_be_read() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lrswi").await;
    let status = format!("* STATUS {WORK} (MESSAGES ");
    let told = watch(
        &mut bob,
        &format!("MAILBOXES {WORK}"),
        "MessageNew MessageExpunge FlagChange MailboxName MailboxMetadataChange",
    )
    .await;
    assert!(
        told[0].starts_with(&format!("{status}3 UIDNEXT 4 ")),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
    append(&mut ann, "Work", MESSAGE).await;
    bob.expect(&format!("{status}4 UIDNEXT 5 ")).await;
    tagged(&mut ann, "SELECT Work").await;
    tagged(&mut ann, "STORE 1 -FLAGS.SILENT (\\Seen)").await;
    bob.expect(&format!("{status}4 UIDNEXT 5 ")).await;
    tagged(&mut ann, "UID EXPUNGE 1").await;
    tagged(&mut ann, "UNSELECT").await;
    bob.expect(&format!("{status}3 UIDNEXT 5 ")).await;
    // What ann keeps for herself is none of bob's.
    tagged(&mut ann, "SETMETADATA Work (/private/comment \"mine\")").await;
    tagged(&mut ann, "SETMETADATA Work (/shared/comment \"ours\")").await;
    bob.expect(&format!("* METADATA {WORK} /shared/comment"))
        .await;
    // Nor is another mailbox of hers, or what he does himself.
    append(&mut ann, "INBOX", MESSAGE).await;
    append(&mut bob, WORK, MESSAGE).await;
    tagged(
        &mut bob,
        &format!("SETMETADATA {WORK} (/shared/comment \"bob's\")"),
    )
    .await;
    hears_nothing(&mut bob).await;
    // Open, it is told of as the selected one: not at all, as was asked.
    tagged(&mut bob, &format!("EXAMINE {WORK}")).await;
    append(&mut ann, "Work", MESSAGE).await;
    hears_nothing(&mut bob).await;
    bob.ask("u UNSELECT", &format!("{status}5 UIDNEXT 7 "))
        .await;
    bob.expect("u OK").await;
    tagged(&mut ann, "RENAME Work Works").await;
    let works = WORK.replace("Work\"", "Works\"");
    bob.expect(&format!(
        "* LIST (\\HasNoChildren) \"/\" {works} (\"OLDNAME\" ({WORK}))"
    ))
    .await;
    tagged(&mut ann, "RENAME Works Work").await;
    comes_into_sight(&mut bob).await;
    // The right to read it goes, and comes again.
    grant(&mut ann, "Work", "l").await;
    bob.expect(&format!("* LIST (\\NoAccess \\HasNoChildren) \"/\" {WORK}"))
        .await;
    append(&mut ann, "Work", MESSAGE).await;
    hears_nothing(&mut bob).await;
    grant(&mut ann, "Work", "lr").await;
    comes_into_sight(&mut bob).await;
    append(&mut ann, "Work", MESSAGE).await;
    bob.expect(&format!("{status}7 UIDNEXT 9 ")).await;
    grant(&mut ann, "Work", "").await;
    bob.expect(&format!(
        "* LIST (\\NonExistent \\HasNoChildren) \"/\" {WORK}"
    ))
    .await;
    append(&mut ann, "Work", MESSAGE).await;
    hears_nothing(&mut bob).await;
    grant(&mut ann, "Work", "lr").await;
    comes_into_sight(&mut bob).await;
    tagged(&mut ann, "DELETE Work").await;
    bob.expect(&format!(
        "* LIST (\\NonExistent \\HasNoChildren) \"/\" {WORK}"
    ))
    .await;
    hears_nothing(&mut bob).await;
}

#[tokio::test]
async fn mailboxes_of_others_are_watched_by_subtree_and_subscription_and_are_not_personal() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    let status = format!("* STATUS {WORK} (MESSAGES ");
    let messages = "MessageNew MessageExpunge";
    for (filter, sees) in [
        ("SUBTREE \"Other Users\"", true),
        ("SUBTREE (nowhere \"Other Users/ann@example.test\")", true),
        ("SUBSCRIBED", false),
        ("MAILBOXES \"Other Users\"", false),
    ] {
        let told = watch(&mut bob, filter, messages).await;
        assert_eq!(told[0].starts_with(&status), sees, "{filter}: {told:?}");
        assert_eq!(told.len() == 2, sees, "{filter}: {told:?}");
    }
    tagged(&mut bob, &format!("SUBSCRIBE {WORK}")).await;
    let told = watch(&mut bob, "SUBSCRIBED", messages).await;
    assert!(told[0].starts_with(&format!("{status}3 ")), "{told:?}");
    append(&mut ann, "Work", MESSAGE).await;
    bob.expect(&format!("{status}4 ")).await;
    // In IDLE the same.
    bob.ask("i IDLE", "+ ").await;
    append(&mut ann, "Work", MESSAGE).await;
    bob.expect(&format!("{status}5 ")).await;
    bob.ask("DONE", "i OK").await;
    let told = watch(&mut bob, "PERSONAL", messages).await;
    assert!(told[0].starts_with("* STATUS INBOX "), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    append(&mut ann, "Work", MESSAGE).await;
    hears_nothing(&mut bob).await;
    // One that may be seen and not be read is told as such.
    grant(&mut ann, "Work", "l").await;
    let told = watch(&mut bob, &format!("MAILBOXES {WORK}"), messages).await;
    let closed = format!("* LIST (\\NoAccess \\Subscribed \\HasNoChildren) \"/\" {WORK}");
    assert_eq!(told, [closed.as_str(), "t OK done"]);
}
