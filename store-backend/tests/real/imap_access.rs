//! What stands beside the messages: annotations.

use crate::imap_dialogue::imap;
use crate::site::{Backend, Dialogue, Site};

/// Sends a value of so many octets for an entry, and gives the answer.
async fn annotate(imap: &mut Dialogue, mailbox: &str, entry: &str, octets: usize) -> String {
    imap.say(&format!("s SETMETADATA {mailbox} ({entry} {{{octets}+}}"))
        .await;
    imap.send("v".repeat(octets).as_bytes()).await;
    imap.say(")").await;
    imap.line().await
}

#[tokio::test]
async fn annotations_at_their_limits_are_taken_and_beyond_refused_with_the_limit() {
    let site = Site::new().await;
    let about =
        "[about]\ncomment = \"Mail of the town\"\nadmin = \"mailto:postmaster@example.test\"";
    let backend = site.backend_starting("b1", about);
    backend.ready().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut ann = imap(&backend, "ann").await;
    ann.ask(
        "a GETMETADATA (DEPTH infinity) \"\" /shared",
        "* METADATA \"\" (/shared/admin \"mailto:postmaster@example.test\" /shared/comment \"Mail of the town\")",
    )
    .await;
    ann.expect("a OK").await;
    for octets in [65_535, 65_536] {
        let answer = annotate(&mut ann, "INBOX", "/shared/large", octets).await;
        assert_eq!(answer, "s OK done");
    }
    let answer = annotate(&mut ann, "INBOX", "/shared/larger", 65_537).await;
    assert_eq!(answer, "s NO [METADATA MAXSIZE 65536] value is too long");
    ann.ask(
        "b GETMETADATA (MAXSIZE 65535) INBOX /shared/large",
        "b OK [METADATA LONGENTRIES 65536]",
    )
    .await;
    ann.say("c GETMETADATA (MAXSIZE 65536) INBOX /shared/large")
        .await;
    ann.expect("* METADATA INBOX (/shared/large ").await;
    let mut line = ann.line().await;
    while !line.starts_with("c ") {
        line = ann.line().await;
    }
    assert_eq!(line, "c OK done");
    for number in 1..100 {
        let answer = annotate(&mut ann, "INBOX", &format!("/private/{number}"), 1).await;
        assert_eq!(answer, "s OK done");
    }
    let answer = annotate(&mut ann, "INBOX", "/private/100", 1).await;
    assert_eq!(answer, "s NO [METADATA TOOMANY] too many entries");
    let long = |octets: usize| format!("/private/{}", "x".repeat(octets - 9));
    assert_eq!(annotate(&mut ann, "\"\"", &long(255), 1).await, "s OK done");
    let answer = annotate(&mut ann, "\"\"", &long(256), 1).await;
    assert_eq!(answer, "s NO [LIMIT] name of the entry is too long");
    ann.ask("d NOOP", "d OK").await;
}

/// Two users on one back-end: ann is account 1, bob 2.
pub(crate) async fn two() -> (Site, Backend) {
    let site = Site::new().await;
    let backend = site.backend("b1").await;
    for (local, account) in [("ann", 1), ("bob", 2)] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    (site, backend)
}

pub(crate) const WORK: &str = "\"Other Users/ann@example.test/Work\"";

/// ann's mailbox with three messages, and what bob may do there.
pub(crate) async fn shared(backend: &Backend, rights: &str) -> (Dialogue, Dialogue) {
    let mut ann = imap(backend, "ann").await;
    ann.ask("a CREATE Work", "a OK").await;
    for number in 1..=3 {
        append(
            &mut ann,
            "Work",
            &format!("Subject: {number}\r\n\r\nbody {number}\r\n"),
        )
        .await;
    }
    grant(&mut ann, "Work", rights).await;
    (ann, imap(backend, "bob").await)
}

pub(crate) async fn grant(ann: &mut Dialogue, mailbox: &str, rights: &str) {
    let line = format!("s SETACL {mailbox} bob@example.test \"{rights}\"");
    ann.ask(&line, "s OK done").await;
}

pub(crate) async fn append(imap: &mut Dialogue, mailbox: &str, text: &str) -> String {
    imap.say(&format!(
        "p APPEND {mailbox} (\\Seen \\Deleted $Junk) {{{}+}}",
        text.len()
    ))
    .await;
    imap.say(text).await;
    imap.line().await
}

/// All lines of an answer, the tagged one last.
pub(crate) async fn all(imap: &mut Dialogue, command: &str) -> Vec<String> {
    imap.say(&format!("t {command}")).await;
    let mut lines = Vec::new();
    loop {
        let line = imap.line().await;
        let is_end = line.is_empty() || line.starts_with("t ");
        lines.push(line);
        if is_end {
            return lines;
        }
    }
}

/// The tagged line alone.
pub(crate) async fn tagged(imap: &mut Dialogue, command: &str) -> String {
    all(imap, command).await.pop().unwrap()
}

#[tokio::test]
async fn a_shared_mailbox_is_seen_read_and_changed_as_far_as_its_owner_lets() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    assert_eq!(
        all(&mut bob, "LIST \"\" *").await,
        [
            "* LIST (\\HasNoChildren) \"/\" INBOX",
            "* LIST (\\Noselect \\HasChildren) \"/\" \"Other Users\"",
            "* LIST (\\Noselect \\HasChildren) \"/\" \"Other Users/ann@example.test\"",
            &format!("* LIST (\\HasNoChildren) \"/\" {WORK}"),
            "t OK done",
        ]
    );
    let status = all(&mut bob, &format!("STATUS {WORK} (MESSAGES)")).await;
    assert_eq!(status[0], format!("* STATUS {WORK} (MESSAGES 3)"));
    let opened = all(&mut bob, &format!("SELECT {WORK}")).await;
    assert!(
        opened
            .iter()
            .any(|line| line.starts_with("* OK [PERMANENTFLAGS ()]"))
    );
    assert_eq!(opened.last().unwrap(), "t OK [READ-ONLY] mailbox is open");
    let body = all(&mut bob, "FETCH 2 BODY[TEXT]").await;
    assert_eq!(body[1], "body 2");
    for refused in ["STORE 1 +FLAGS (\\Seen)", "EXPUNGE", "MOVE 1 INBOX"] {
        let answer = tagged(&mut bob, refused).await;
        assert_eq!(answer, "t NO mailbox was opened read-only", "{refused}");
    }
    // To a mailbox of his own he may copy what he may read.
    let ids = all(&mut bob, "FETCH 1:2 EMAILID").await;
    let copied = tagged(&mut bob, "COPY 1:2 INBOX").await;
    assert!(copied.starts_with("t OK [COPYUID "), "{copied}");
    // RFC 8474 §5.1: in whose account it may be, it is the same message.
    let mut beside = imap(&backend, "bob").await;
    tagged(&mut beside, "SELECT INBOX").await;
    assert_eq!(all(&mut beside, "FETCH 1:2 EMAILID").await, ids);
    let inbox = all(&mut bob, "STATUS INBOX (MESSAGES)").await;
    assert_eq!(inbox[0], "* STATUS INBOX (MESSAGES 2)");

    // With more rights the same mailbox is more.
    grant(&mut ann, "Work", "lrsi").await;
    let opened = all(&mut bob, &format!("SELECT {WORK}")).await;
    assert!(
        opened
            .iter()
            .any(|line| line.starts_with("* OK [PERMANENTFLAGS (\\Seen)]"))
    );
    assert_eq!(opened.last().unwrap(), "t OK [READ-WRITE] mailbox is open");
    let stored = all(&mut bob, "STORE 1 FLAGS (\\Flagged)").await;
    // Nothing of what he names is permitted.
    assert_eq!(stored, ["t NO [NOPERM] you have not the right to do this"]);
    // \Seen goes, for he may change it and has not named it; the others stay.
    let stored = all(&mut bob, "STORE 1 FLAGS ()").await;
    assert_eq!(
        stored,
        ["* 1 FETCH (FLAGS (\\Deleted $Junk \\Recent))", "t OK done"]
    );
    let stored = all(&mut bob, "STORE 1:2 +FLAGS (\\Seen \\Answered new)").await;
    assert_eq!(
        stored[0],
        "* 1 FETCH (FLAGS (\\Deleted \\Seen $Junk \\Recent))"
    );
    for refused in [
        "EXPUNGE",
        "MOVE 1 INBOX",
        "STORE 1 +FLAGS (\\Deleted)",
        &format!("REPLACE 1 {WORK} {{1}}"),
    ] {
        let answer = tagged(&mut bob, refused).await;
        assert_eq!(
            answer, "t NO [NOPERM] you have not the right to do this",
            "{refused}"
        );
    }
    assert_eq!(tagged(&mut bob, "CLOSE").await, "t OK done");
    let count = all(&mut ann, "STATUS Work (MESSAGES DELETED)").await;
    assert_eq!(count[0], "* STATUS Work (MESSAGES 3 DELETED 3)");
    // Flags that he may not set are left out of what he brings.
    assert!(
        append(&mut bob, WORK, "Subject: 4\r\n\r\n")
            .await
            .starts_with("p OK [APPENDUID ")
    );
    tagged(&mut ann, "SELECT Work").await;
    let fetched = all(&mut ann, "FETCH 4 (FLAGS)").await;
    assert!(
        fetched[0].starts_with("* 4 FETCH (FLAGS (\\Seen"),
        "{fetched:?}"
    );
    assert!(!fetched[0].contains("Deleted") && !fetched[0].contains("Junk"));

    // Everything: expunge, move out and in, mailboxes below, another name, the end.
    grant(&mut ann, "Work", "lrswipkxtea").await;
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    // Within the account that it is in, for one record cannot change two.
    let answer = tagged(&mut bob, "REPLACE 1 INBOX {1}").await;
    assert_eq!(answer, "t NO [CANNOT] the mailbox is of another account");
    let replaced = all(&mut bob, &format!("REPLACE 4 {WORK} {{3+}}\r\nnew")).await;
    assert!(
        replaced[0].starts_with("* OK [APPENDUID ") && replaced[0].contains(" 5] "),
        "{replaced:?}"
    );
    assert_eq!(
        replaced[1..],
        ["* 4 EXPUNGE", "* 4 EXISTS", "* 1 RECENT", "t OK replaced"]
    );
    let moved = all(&mut bob, "MOVE 1 INBOX").await;
    assert!(moved[0].starts_with("* OK [COPYUID "), "{moved:?}");
    assert_eq!(moved[1..], ["* 1 EXPUNGE", "t OK done"]);
    let removed = all(&mut bob, "EXPUNGE").await;
    assert_eq!(removed, ["* 2 EXPUNGE", "* 1 EXPUNGE", "t OK done"]);
    let inbox = all(&mut bob, "STATUS INBOX (MESSAGES)").await;
    assert_eq!(inbox[0], "* STATUS INBOX (MESSAGES 3)");
    let below = "\"Other Users/ann@example.test/Work/new\"";
    assert!(
        tagged(&mut bob, &format!("CREATE {below}"))
            .await
            .starts_with("t OK")
    );
    let copied = tagged(&mut bob, &format!("COPY 1 {below}")).await;
    assert!(copied.starts_with("t OK [COPYUID "), "{copied}");
    let mine = all(&mut bob, &format!("MYRIGHTS {below}")).await;
    assert_eq!(mine[0], format!("* MYRIGHTS {below} acdeiklprstwx"));
    let acl = all(&mut bob, &format!("GETACL {below}")).await;
    let all_rights = "acdeiklprstwx";
    let entries = format!("ann@example.test {all_rights} bob@example.test {all_rights}");
    assert_eq!(acl[0], format!("* ACL {below} {entries}"));
    let renamed = "\"Other Users/ann@example.test/Work/old\"";
    assert_eq!(
        tagged(&mut bob, &format!("RENAME {below} {renamed}")).await,
        "t OK done"
    );
    assert_eq!(
        tagged(&mut bob, &format!("RENAME {renamed} mine")).await,
        "t NO [CANNOT] a mailbox stays with its owner"
    );
    assert_eq!(
        tagged(&mut bob, &format!("DELETE {renamed}")).await,
        "t OK done"
    );
    let mut left = all(&mut ann, "LIST \"\" Work*").await;
    // She has it open, and hears what bob has done.
    left.retain(|line| !line.ends_with("EXPUNGE") && !line.ends_with("EXISTS"));
    assert_eq!(left, ["* LIST (\\HasNoChildren) \"/\" Work", "t OK done"]);
    // Subscriptions are each user's own.
    assert_eq!(
        tagged(&mut bob, &format!("SUBSCRIBE {WORK}")).await,
        "t OK done"
    );
    let subscribed = all(&mut bob, "LSUB \"\" *").await;
    assert_eq!(subscribed[0], format!("* LSUB () \"/\" {WORK}"));
    assert_eq!(all(&mut ann, "LSUB \"\" *").await, ["t OK done"]);
}

/// Every verb that takes a mailbox's name.
const ABSENT: [&str; 16] = [
    "SELECT NAME",
    "EXAMINE NAME",
    "STATUS NAME (MESSAGES)",
    "DELETE NAME",
    "CREATE NAME/x",
    "RENAME NAME y",
    "RENAME INBOX NAME/x",
    "GETACL NAME",
    "SETACL NAME bob@example.test lr",
    "MYRIGHTS NAME",
    "DELETEACL NAME bob@example.test",
    "LISTRIGHTS NAME bob@example.test",
    "LIST \"\" NAME",
    "GETMETADATA NAME /shared/comment",
    "SETMETADATA NAME (/shared/comment \"x\")",
    "LSUB \"\" NAME",
];

#[tokio::test]
async fn a_mailbox_without_the_right_to_see_it_answers_as_one_that_is_not_there() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "rswipkxtea").await;
    ann.ask("b CREATE Secret", "b OK").await;
    let absent = "\"Other Users/ann@example.test/Absent\"";
    for name in [
        WORK,
        "\"Other Users/ann@example.test/Secret\"",
        "\"Other Users/ann@example.test/INBOX\"",
        "\"Other Users/ann@example.test\"",
        "\"Other Users/nobody@example.test/INBOX\"",
        "\"Other Users\"",
    ] {
        for command in ABSENT {
            let with = |name: &str| {
                let open = name.trim_end_matches('"');
                let below = command.replace("NAME/x", &format!("{open}/x\""));
                below.replace("NAME", name)
            };
            let (asked, wanted) = (with(name), with(absent));
            let (asked, wanted) = (all(&mut bob, &asked).await, all(&mut bob, &wanted).await);
            assert_eq!(asked, wanted, "{command} {name}");
        }
        let (asked, wanted) = (
            append(&mut bob, name, "x: y\r\n\r\n").await,
            append(&mut bob, absent, "x: y\r\n\r\n").await,
        );
        assert_eq!(asked, wanted);
        assert!(asked.starts_with("p NO [TRYCREATE]"));
    }
}

#[tokio::test]
async fn who_loses_the_right_while_the_mailbox_is_open_is_served_nothing_more() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    // At the next command.
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    ann.ask("d DELETEACL Work bob@example.test", "d OK done")
        .await;
    let told = all(&mut bob, "FETCH 1:* (FLAGS BODY[])").await;
    assert_eq!(told, ["* BYE the selected mailbox was deleted", ""]);
    // At once in IDLE; a right more or less that still lets him read is nothing to tell.
    grant(&mut ann, "Work", "lr").await;
    let mut bob = imap(&backend, "bob").await;
    tagged(&mut bob, &format!("SELECT {WORK}")).await;
    bob.ask("i IDLE", "+ ").await;
    grant(&mut ann, "Work", "lrs").await;
    append(&mut ann, "Work", "Subject: 4\r\n\r\n").await;
    bob.expect("* 4 EXISTS").await;
    bob.expect("* 4 RECENT").await;
    grant(&mut ann, "Work", "l").await;
    bob.expect("* BYE the selected mailbox was deleted").await;
    assert_eq!(bob.line().await, "");
    // And with `l` alone it is there, but nothing of it.
    let mut bob = imap(&backend, "bob").await;
    for command in [
        "SELECT @",
        "STATUS @ (MESSAGES)",
        "GETMETADATA @ /shared/comment",
        "GETACL @",
    ] {
        let answer = tagged(&mut bob, &command.replace('@', WORK)).await;
        assert_eq!(
            answer, "t NO [NOPERM] you have not the right to do this",
            "{command}"
        );
    }
}

#[tokio::test]
async fn private_annotations_of_a_shared_mailbox_are_its_owners() {
    let (_site, backend) = two().await;
    let (mut ann, mut bob) = shared(&backend, "lr").await;
    let set = "SETMETADATA Work (/private/comment \"mine\" /shared/comment \"ours\")";
    assert_eq!(tagged(&mut ann, set).await, "t OK done");
    let read = format!("GETMETADATA (DEPTH infinity) {WORK} (/private /shared /private/comment)");
    assert_eq!(
        all(&mut bob, &read).await,
        [
            format!("* METADATA {WORK} (/shared/comment \"ours\")"),
            format!("* METADATA {WORK} (/private/comment NIL)"),
            "t OK done".to_owned()
        ]
    );
    let set = |entry: &str| format!("SETMETADATA {WORK} ({entry} \"x\")");
    let answer = tagged(&mut bob, &set("/shared/comment")).await;
    assert_eq!(answer, "t NO [NOPERM] you have not the right to do this");
    grant(&mut ann, "Work", "lrw").await;
    assert_eq!(tagged(&mut bob, &set("/shared/comment")).await, "t OK done");
    let answer = tagged(&mut bob, &set("/private/comment")).await;
    let wanted = "t NO [METADATA NOPRIVATE] private entries are for mailboxes of your own";
    assert_eq!(answer, wanted);
}
