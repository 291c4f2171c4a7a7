//! What IMAP does with messages: FETCH, STORE, COPY, MOVE.

use crate::imap_client::{Imap, Value};
use crate::imap_dialogue::deliver;
use crate::site::{Backend, Dialogue, Site, until_listed};

pub(crate) async fn site() -> (Site, Backend) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    (site, backend)
}

/// Mail of every kind of structure, whole and broken.
const SAMPLES: &[&str] = &[
    "Subject: plain\r\n\r\nhello\r\nworld\r\n",
    "no header at all",
    "\r\nempty header\r\n",
    " begins with white space\r\nSubject: x\r\n\r\nbody\r\n",
    "Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none\r\n\r\n--b\r\n\
     Content-Type: multipart/alternative; boundary=\"c d\"\r\n\r\n--c d\r\nContent-Type: text/plain\r\n\r\np\r\n\
     --c d\r\nContent-Type: text/html\r\n\r\n<p>h</p>\r\n--c d--\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
     Subject: inner\r\nContent-Type: multipart/mixed; boundary=e\r\n\r\n--e\r\n\r\ninner one\r\n--e\r\n\
     Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--e--\r\n--b--\r\nepilogue\r\n",
    "Content-Type: multipart/mixed; boundary=b\r\n\r\nno part at all\r\n",
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n--b\r\n\r\nx",
    "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nline\r\nline\r\n",
    "Subject: unix\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\na\nb\n\n--b\nContent-Type: x\n\nc\n",
    "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: 1\r\n\r\na\r\n--b\r\n\r\nSubject: 2\r\n\r\nb\r\n--b--",
    "Subject: nul and 8-bit \u{e9}\r\n\r\na\u{0}b\u{e9}) FETCH {10}\r\n* BYE\r\n",
];

/// Checks every part below `part`, named by `path`.
async fn check_parts(imap: &mut Imap, message: u32, structure: &Value, path: &str) -> usize {
    let items = structure.list();
    let below = |number: usize| match path {
        "" => number.to_string(),
        path => format!("{path}.{number}"),
    };
    if let Value::List(_) = items[0] {
        let mut count = 0;
        for (at, part) in items
            .iter()
            .take_while(|item| matches!(item, Value::List(_)))
            .enumerate()
        {
            count += Box::pin(check_parts(imap, message, part, &below(at + 1))).await;
        }
        return count;
    }
    let path = if path.is_empty() { "1" } else { path };
    let octets = imap
        .item(message, &format!("BODY.PEEK[{path}]"))
        .await
        .unwrap();
    assert_eq!(octets.len(), items[6].number(), "{message} {path}");
    let lines = octets.iter().filter(|octet| **octet == b'\n').count();
    let kind = items[0].text().to_lowercase() + "/" + &items[1].text().to_lowercase();
    if kind.starts_with("text/") {
        assert_eq!(lines, items[7].number(), "{message} {path}");
    }
    assert!(
        imap.item(message, &format!("BODY.PEEK[{path}.MIME]"))
            .await
            .is_some()
    );
    if kind == "message/rfc822" {
        assert_eq!(lines, items[9].number(), "{message} {path}");
        let header = imap
            .item(message, &format!("BODY.PEEK[{path}.HEADER]"))
            .await
            .unwrap();
        let text = imap
            .item(message, &format!("BODY.PEEK[{path}.TEXT]"))
            .await
            .unwrap();
        assert_eq!([header, text].concat(), octets);
        // The only part of a message that is no multipart is its first.
        let inside = match items[8].list()[0] {
            Value::List(_) => path.to_owned(),
            _ => format!("{path}.1"),
        };
        return 1 + Box::pin(check_parts(imap, message, &items[8], &inside)).await;
    }
    1
}

#[tokio::test]
async fn each_part_fetched_by_its_number_has_the_octets_and_lines_announced() {
    let (_site, backend) = site().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    let mut imap = Imap::login(&backend, "ann").await;
    for sample in SAMPLES {
        imap.append(sample.as_bytes()).await;
    }
    // Delivered too: the prologue shifts everything.
    let delivered: Vec<&&str> = SAMPLES
        .iter()
        .filter(|sample| sample.ends_with("\r\n"))
        .collect();
    for sample in &delivered {
        assert!(lmtp.deliver(&["ann"], sample.as_bytes()).await[0].starts_with("250"));
    }
    until_listed(&backend, "ann", SAMPLES.len() + delivered.len()).await;
    imap.ok("SELECT INBOX").await;
    let mut parts = 0;
    for (message, sample) in (1..).zip(SAMPLES.iter().chain(delivered)) {
        let command = format!("FETCH {message} (RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE)");
        let answer = imap.ok(&command).await;
        let items = answer.fetch(message);
        let whole = imap.item(message, "BODY.PEEK[]").await.unwrap();
        assert_eq!(whole.len(), items[1].number());
        assert!(whole.ends_with(sample.as_bytes()), "{sample:?}");
        assert_eq!(items[3].list().len(), 10);
        let header = imap.item(message, "BODY.PEEK[HEADER]").await.unwrap();
        let text = imap.item(message, "BODY.PEEK[TEXT]").await.unwrap();
        assert_eq!([header, text].concat(), whole);
        parts += check_parts(&mut imap, message, &items[7], "").await;
        assert!(imap.item(message, "BODY.PEEK[9.9]").await.is_none());
    }
    assert!(parts > 30, "{parts}");
    // A multipart without a part has an empty one, decoded too.
    for (item, value) in [("BINARY.PEEK[1]", ""), ("BINARY.SIZE[1]", "0")] {
        let items = imap.ok(&format!("FETCH 6 ({item})")).await.fetch(6);
        assert_eq!(items[1].text(), value);
    }
    // Nothing of this set a flag.
    let answer = imap.ok("SEARCH SEEN").await;
    assert_eq!(answer.lines(), ["* SEARCH"]);
}

#[tokio::test]
async fn partials_tile_the_message_and_end_with_it() {
    let (_site, backend) = site().await;
    deliver(&backend, "ann", "Subject: tiles").await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    for section in [
        "BODY.PEEK[]",
        "BODY.PEEK[TEXT]",
        "BODY.PEEK[HEADER.FIELDS (Subject Received)]",
        "BINARY.PEEK[1]",
    ] {
        let whole = imap.item(1, section).await.unwrap();
        for size in [1, 7, whole.len() - 1, whole.len(), whole.len() + 1] {
            let mut tiled = Vec::new();
            for first in (0..).step_by(size) {
                let tile = imap
                    .item(1, &format!("{section}<{first}.{size}>"))
                    .await
                    .unwrap();
                if tile.is_empty() {
                    break;
                }
                tiled.extend(tile);
            }
            assert_eq!(tiled, whole, "{section} by {size}");
        }
        let beyond = format!("{section}<18446744073709551615.5>");
        let answer = imap.command(format!("FETCH 1 {beyond}").as_bytes()).await;
        assert!(
            answer.tagged.starts_with("OK") || answer.tagged.starts_with("BAD"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn header_fields_are_those_asked_for_in_any_case() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    imap.append(b"To: a\r\nSUBJECT: b\r\n c\r\nX: d\r\nTo: e\r\n\r\nbody")
        .await;
    imap.ok("SELECT INBOX").await;
    for (section, expected) in [
        ("HEADER.FIELDS (to)", "To: a\r\nTo: e\r\n\r\n"),
        ("HEADER.FIELDS.NOT (TO x)", "SUBJECT: b\r\n c\r\n\r\n"),
        ("HEADER.FIELDS (none)", "\r\n"),
    ] {
        let octets = imap
            .item(1, &format!("BODY.PEEK[{section}]"))
            .await
            .unwrap();
        assert_eq!(String::from_utf8(octets).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_body_that_is_read_is_seen_and_one_that_is_peeked_at_is_not() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for _ in 0..5 {
        imap.append(b"Subject: x\r\n\r\nbody").await;
    }
    imap.ok("EXAMINE INBOX").await;
    imap.ok("FETCH 1 BODY[]").await;
    imap.ok("SELECT INBOX").await;
    let mut other = Imap::inbox(&backend, "ann").await;
    for (command, tells) in [
        ("FETCH 1 (BODY.PEEK[] RFC822.HEADER BINARY.PEEK[1])", false),
        ("FETCH 1 BODY[TEXT]", true),
        ("FETCH 1 BODY[TEXT]", false),
        ("FETCH 2 RFC822", true),
        ("FETCH 3 (RFC822.TEXT)", true),
        ("FETCH 4 BINARY[1]", true),
        ("UID FETCH 5 (BODY[HEADER])", true),
    ] {
        let answer = imap.ok(command).await;
        assert_eq!(answer.untagged.len(), 1, "{command}: {answer:?}");
        let line = answer.lines().remove(0);
        assert_eq!(
            line.contains("FLAGS (\\Seen \\Recent)"),
            tells,
            "{command}: {line}"
        );
    }
    let told = other.ok("NOOP").await;
    assert_eq!(told.untagged.len(), 5, "{told:?}");
    let missing = imap.command(b"FETCH 6 FLAGS").await;
    assert!(missing.tagged.starts_with("BAD"), "{missing:?}");
}

#[tokio::test]
async fn a_large_body_is_streamed_and_costs_one_buffer() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let line = b"0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\r\n";
    let message = [b"Subject: large\r\n\r\n", &line.repeat(300_000)[..]].concat();
    imap.append(&message).await;
    imap.ok("SELECT INBOX").await;
    let before = backend.resident_octets();
    assert!(imap.item(1, "BODY.PEEK[]").await.unwrap() == message);
    assert!(imap.item(1, "BINARY.PEEK[1]").await.unwrap() == message[18..]);
    let items = imap.ok("FETCH 1 (BODY)").await.fetch(1);
    assert_eq!(items[1].list()[7].number(), 300_000);
    let search = imap.ok("SEARCH BODY \"wxyz 0123\" NOT TEXT absent").await;
    assert_eq!(search.lines(), ["* SEARCH 1"]);
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 12 << 20, "22 MiB hold {held} octets");
}

#[tokio::test]
async fn a_store_is_told_to_who_made_it_and_to_others() {
    let (_site, backend) = site().await;
    let mut one = Imap::login(&backend, "ann").await;
    for _ in 0..3 {
        one.append(b"x").await;
    }
    one.ok("SELECT INBOX").await;
    let mut two = Imap::inbox(&backend, "ann").await;
    let told = one.ok("STORE 1:2 +FLAGS (\\Flagged $Junk)").await;
    let flags = |line: &String| line.contains("FETCH (FLAGS (\\Flagged $Junk \\Recent))");
    assert_eq!(
        told.lines().iter().filter(|line| flags(line)).count(),
        2,
        "{told:?}"
    );
    // Silent is silent, but not of what the other one did.
    let silent = two.ok("STORE 1,3 +FLAGS.SILENT \\Seen").await.lines();
    let fetched: Vec<_> = silent
        .iter()
        .filter(|line| line.contains("FETCH"))
        .collect();
    assert_eq!(fetched.len(), 2, "{silent:?}");
    assert!(
        fetched[0].contains("1 FETCH (FLAGS (\\Flagged \\Seen $Junk)"),
        "{silent:?}"
    );
    assert!(fetched[1].contains("2 FETCH"), "{silent:?}");
    let later = two.ok("STORE 1 -FLAGS.SILENT (\\Seen $junk)").await;
    assert_eq!(later.untagged.len(), 0, "{later:?}");
    one.ok("NOOP").await;
    let flags = one.ok("UID FETCH 1 FLAGS").await.lines();
    assert_eq!(flags, ["* 1 FETCH (UID 1 FLAGS (\\Flagged \\Recent))"]);
    one.ok("EXAMINE INBOX").await;
    let refused = one.command(b"STORE 1 FLAGS ()").await;
    assert!(refused.tagged.starts_with("NO"), "{refused:?}");
}

#[tokio::test]
async fn a_conditional_store_leaves_what_others_have_changed() {
    let (_site, backend) = site().await;
    let mut one = Imap::login(&backend, "ann").await;
    for _ in 0..3 {
        one.append(b"x").await;
    }
    let mut two = Imap::inbox(&backend, "ann").await;
    one.ok("SELECT INBOX (CONDSTORE)").await;
    let modseq = modseq_of(&mut one, 3).await;
    two.ok("STORE 2 +FLAGS \\Deleted").await;
    let answer = one
        .ok(&format!(
            "UID STORE 1:3 (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT \\Answered"
        ))
        .await;
    assert!(answer.tagged.starts_with("OK [MODIFIED 2]"), "{answer:?}");
    let now = modseq_of(&mut one, 1).await;
    assert!(now > modseq);
    for message in [1, 3] {
        let wanted = format!("* {message} FETCH (UID {message} MODSEQ ({now}))");
        assert!(answer.lines().contains(&wanted), "{answer:?}");
    }
    let since = one
        .ok(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})"))
        .await;
    assert_eq!(since.untagged.len(), 3, "{since:?}");
    let none = one
        .ok(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {now})"))
        .await;
    assert_eq!(none.untagged.len(), 0, "{none:?}");
    let zero = one.ok("STORE 1 (UNCHANGEDSINCE 0) +FLAGS \\Seen").await;
    assert!(zero.tagged.starts_with("OK [MODIFIED 1]"), "{zero:?}");
}

async fn modseq_of(imap: &mut Imap, message: u32) -> u64 {
    let items = imap
        .ok(&format!("FETCH {message} MODSEQ"))
        .await
        .fetch(message);
    let modseq = items.last().unwrap();
    modseq.list()[0].text().parse().unwrap()
}

#[tokio::test]
async fn messages_expunged_meanwhile_are_never_answered_with_another_one() {
    let (_site, backend) = site().await;
    let mut one = Imap::login(&backend, "ann").await;
    for number in 1..=4 {
        one.append(format!("Subject: {number}\r\n\r\nbody {number}").as_bytes())
            .await;
    }
    one.ok("SELECT INBOX").await;
    let mut two = Imap::inbox(&backend, "ann").await;
    two.ok("STORE 2:3 +FLAGS.SILENT \\Deleted").await;
    two.ok("EXPUNGE").await;
    for (command, condition) in [
        ("FETCH 1:4 (BODY.PEEK[TEXT])", "OK"),
        ("FETCH 1:4 (FLAGS)", "OK"),
        ("STORE 1:4 +FLAGS \\Flagged", "OK"),
    ] {
        let answer = one.command(command.as_bytes()).await;
        let told = format!("{condition} [EXPUNGEISSUED]");
        assert!(answer.tagged.starts_with(&told), "{answer:?}");
        let lines = answer.lines();
        assert!(
            !lines.iter().any(|line| line.contains("EXPUNGE")),
            "{lines:?}"
        );
        assert!(
            !lines
                .iter()
                .any(|line| line.starts_with("* 2 F") || line.starts_with("* 3 F"))
        );
        assert!(
            lines.iter().any(|line| line.starts_with("* 4 F")),
            "{lines:?}"
        );
    }
    // Who asks for no answer misses none.
    let silent = one.ok("STORE 1:4 +FLAGS.SILENT \\Answered").await;
    assert!(
        silent.untagged.is_empty() && silent.tagged.starts_with("OK [EXPUNGEISSUED]"),
        "{silent:?}"
    );
    assert_eq!(one.item(4, "BODY.PEEK[TEXT]").await.unwrap(), b"body 4");
    let search = one.ok("SEARCH ALL").await;
    assert!(
        search.lines().contains(&"* SEARCH 1 4".to_owned()),
        "{search:?}"
    );
    let copy = one.command(b"COPY 1:4 INBOX").await;
    assert!(copy.tagged.starts_with("NO [EXPUNGEISSUED]"), "{copy:?}");
    assert_eq!(copy.lines(), ["* 3 EXPUNGE", "* 2 EXPUNGE"]);
    two.ok("STORE 2 +FLAGS.SILENT \\Deleted").await;
    two.ok("EXPUNGE").await;
    let moved = one.command(b"MOVE 1:2 INBOX").await;
    assert!(moved.tagged.starts_with("NO [EXPUNGEISSUED]"), "{moved:?}");
    assert_eq!(moved.lines(), ["* 2 EXPUNGE"]);
}

#[tokio::test]
async fn copies_and_moves_tell_their_uids_and_share_the_octets() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    imap.ok("CREATE box").await;
    for number in 1..=4 {
        imap.append(format!("Subject: {number}\r\n\r\nbody {number}").as_bytes())
            .await;
    }
    imap.ok("SELECT INBOX").await;
    imap.ok("STORE 2 FLAGS (\\Flagged key)").await;
    let date = imap.item(2, "INTERNALDATE EMAILID").await;
    let copied = imap.ok("COPY 2,4 box").await;
    assert!(copied.tagged.contains(" 2,4 1:2] "), "{copied:?}");
    let moved = imap.ok("UID MOVE 1,3,99 box").await;
    assert!(
        moved.lines()[0].contains("[COPYUID ") && moved.lines()[0].contains(" 1,3 3:4]"),
        "{moved:?}"
    );
    assert_eq!(moved.lines()[1..], ["* 3 EXPUNGE", "* 1 EXPUNGE"]);
    let missing = imap.command(b"COPY 1 nowhere").await;
    assert!(missing.tagged.starts_with("NO [TRYCREATE]"), "{missing:?}");
    let none = imap.ok("UID COPY 99 box").await;
    assert!(!none.tagged.contains("COPYUID"), "{none:?}");
    let id = imap.ok("FETCH 1 EMAILID").await.fetch(1);
    imap.ok("SELECT box").await;
    assert_eq!(imap.item(1, "INTERNALDATE EMAILID").await, date);
    assert_eq!(imap.ok("FETCH 1 EMAILID").await.fetch(1), id);
    let flags = imap.ok("FETCH 1 FLAGS").await.lines();
    assert_eq!(flags, ["* 1 FETCH (FLAGS (\\Flagged key \\Recent))"]);
    for (message, body) in [(1, "2"), (2, "4"), (3, "1"), (4, "3")] {
        let text = imap.item(message, "BODY.PEEK[TEXT]").await.unwrap();
        assert_eq!(text, format!("body {body}").as_bytes());
    }
}

#[tokio::test]
async fn uid_fetch_with_vanished_tells_what_went_of_the_set() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for _ in 0..6 {
        imap.append(b"x").await;
    }
    imap.ok("SELECT INBOX").await;
    let refused = imap
        .command(b"UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)")
        .await;
    assert!(refused.tagged.starts_with("BAD"), "{refused:?}");
    imap.ok("ENABLE QRESYNC").await;
    let modseq = modseq_of(&mut imap, 6).await;
    imap.ok("STORE 2,3,5 +FLAGS.SILENT \\Deleted").await;
    imap.ok("EXPUNGE").await;
    let command = format!("UID FETCH 1:4 (UID) (CHANGEDSINCE {modseq} VANISHED)");
    assert_eq!(
        imap.ok(&command).await.lines(),
        ["* VANISHED (EARLIER) 2:3"]
    );
    let command = format!("UID FETCH 1:* (UID) (CHANGEDSINCE {modseq} VANISHED)");
    assert_eq!(
        imap.ok(&command).await.lines(),
        ["* VANISHED (EARLIER) 2:3,5"]
    );
}

#[tokio::test]
async fn what_is_known_of_ten_thousand_messages_is_read_without_opening_one() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let many = format!(
        "APPEND INBOX{}",
        " {19+}\r\nSubject: x\r\n\r\nbody\n".repeat(1000)
    );
    for _ in 0..10 {
        let answer = imap.command(many.as_bytes()).await;
        assert!(answer.tagged.starts_with("OK"), "{answer:?}");
    }
    imap.ok("SELECT INBOX").await;
    let before = backend.reads();
    let all = imap
        .ok("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ SAVEDATE)")
        .await;
    // The first that asks for MODSEQ is told the highest.
    assert_eq!(all.untagged.len(), 10_001);
    assert!(all.lines()[10_000].starts_with("* 10000 FETCH (UID 10000 FLAGS (\\Recent) MODSEQ ("));
    let found = imap
        .ok("SEARCH RETURN (COUNT MIN MAX) UNSEEN SMALLER 100 SINCE 1-Jan-2020")
        .await;
    assert!(
        found.lines()[0].ends_with("MIN 1 MAX 10000 COUNT 10000"),
        "{found:?}"
    );
    let reads = backend.reads() - before;
    assert!(reads < 1000, "{reads} reads");
    // One body for all of them: scanned once.
    let all = imap.ok("FETCH 1:* (ENVELOPE BODYSTRUCTURE)").await;
    assert_eq!(all.untagged.len(), 10_000);
    let reads = backend.reads() - before;
    assert!(reads < 2000, "{reads} reads");
}

/// The file of a message, once it is there.
fn file_of(backend: &Backend, mailbox: u32, uid: u32) -> std::path::PathBuf {
    backend
        .data
        .join(format!("mail/00/00/00/01/{mailbox}/{uid}"))
}

#[tokio::test]
async fn a_copy_is_one_more_link_of_the_same_inode() {
    use std::os::unix::fs::MetadataExt as _;
    let (_site, mut backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    imap.ok("CREATE box").await;
    imap.append(b"Subject: x\r\n\r\nbody").await;
    imap.ok("SELECT INBOX").await;
    imap.ok("COPY 1 box").await;
    imap.ok("MOVE 1 INBOX").await;
    assert_eq!(backend.terminate().await, Some(0));
    backend.restart().await;
    let inodes = [(1, 2), (2, 1)].map(|(mailbox, uid)| {
        std::fs::metadata(file_of(&backend, mailbox, uid))
            .unwrap()
            .ino()
    });
    assert_eq!(inodes[0], inodes[1]);
}

#[tokio::test]
async fn a_damaged_message_is_left_out_and_the_others_are_served() {
    let (_site, mut backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for number in 1..=3 {
        imap.append(format!("Subject: {number}\r\n\r\nbody {number}").as_bytes())
            .await;
    }
    let large = [&b"Subject: large\r\n\r\n"[..], &b"x".repeat(300_000)].concat();
    imap.append(&large).await;
    assert_eq!(backend.terminate().await, Some(0));
    for (uid, at) in [(2, 3), (4, 290_000)] {
        let file = file_of(&backend, 1, uid);
        let mut octets = std::fs::read(&file).unwrap();
        octets[at] ^= 1;
        std::fs::write(&file, octets).unwrap();
    }
    backend.restart().await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    for command in [
        "FETCH 1:3 (BODY.PEEK[])",
        "FETCH 1:3 (ENVELOPE BODY.PEEK[1])",
    ] {
        let answer = imap.command(command.as_bytes()).await;
        assert!(answer.tagged.starts_with("NO [SERVERBUG]"), "{answer:?}");
        assert_eq!(answer.untagged.len(), 2, "{answer:?}");
    }
    // What the index has of a message needs no file.
    let answer = imap.ok("FETCH 1:3 (ENVELOPE BODYSTRUCTURE)").await;
    assert_eq!(answer.untagged.len(), 3, "{answer:?}");
    assert_eq!(
        imap.ok("SEARCH 1:3 SUBJECT 2").await.lines(),
        ["* SEARCH 2"]
    );
    let search = imap.command(b"SEARCH BODY 3").await;
    assert!(search.tagged.starts_with("NO [SERVERBUG]"), "{search:?}");
    assert_eq!(search.lines(), ["* SEARCH 3"]);
    // Nobody has read it: it does not become `\Seen`.
    let answer = imap.command(b"FETCH 2:3 (BODY[])").await;
    assert!(answer.tagged.starts_with("NO [SERVERBUG]"), "{answer:?}");
    assert_eq!(answer.untagged.len(), 1, "{answer:?}");
    assert_eq!(imap.ok("SEARCH UNSEEN").await.lines(), ["* SEARCH 1 2 4"]);
    imap.ok("FETCH 1:* (FLAGS RFC822.SIZE)").await;
}

#[tokio::test]
async fn an_encoding_that_is_not_known_is_said_to_be_so() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    imap.append(b"Content-Transfer-Encoding: x-uu\r\n\r\nM86%S90")
        .await;
    imap.append(b"Content-Transfer-Encoding: base64\r\n\r\nAGE=\r\n")
        .await;
    imap.ok("SELECT INBOX").await;
    let answer = imap
        .command(b"FETCH 1:2 (BINARY.PEEK[1] BINARY.SIZE[1])")
        .await;
    assert!(answer.tagged.starts_with("NO [UNKNOWN-CTE]"), "{answer:?}");
    let line = "* 2 FETCH (BINARY[1] ~{2}\r\n\0a BINARY.SIZE[1] 2)";
    assert_eq!(answer.lines()[1], line);
}

/// BODY[…] cannot tell of NUL: what a literal8 brings in a binary part is kept as base64, and BINARY[…] is what came.
#[tokio::test]
async fn a_binary_part_with_nul_is_told_as_base64_and_as_it_came() {
    let (_site, backend) = site().await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    // In memory; and so large that it is written to a file on the way, in more than one piece.
    for count in [1, 40_000] {
        let raw = b"\0\x01\r\n\xff\n\0x".repeat(count);
        let text = "Content-Transfer-Encoding: binary\r\n\r\nno NUL here\r\n";
        let head =
            "Subject: x\r\nMime-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
        let binary = "Content-Type: application/octet-stream\r\n\
             content-transfer-encoding:\r\n  binary\r\nContent-Disposition: attachment\r\n\r\n";
        let start = format!("{head}--b\r\n{text}\r\n--b\r\n{binary}");
        let end = format!("\r\n--b\r\n{text}\r\n--b--\r\n");
        let message = [start.as_bytes(), &raw, end.as_bytes()].concat();
        let append = format!("APPEND INBOX ~{{{}+}}\r\n", message.len());
        let appended = imap.command(&[append.as_bytes(), &message].concat()).await;
        assert!(appended.tagged.starts_with("OK "), "{}", appended.tagged);
        let number = if count == 1 { 1 } else { 2 };
        imap.ok("NOOP").await;
        let whole = imap.item(number, "BODY.PEEK[]").await.unwrap();
        assert!(!whole.contains(&0));
        let encoded = imap.item(number, "BODY.PEEK[2]").await.unwrap();
        assert!(
            encoded
                .split(|octet| *octet == b'\n')
                .all(|line| line.len() <= 77)
        );
        let decoded = data_encoding::BASE64_MIME.decode(&encoded).unwrap();
        assert!(decoded == raw, "{} octets", decoded.len());
        assert!(imap.item(number, "BINARY.PEEK[2]").await.unwrap() == raw);
        assert_eq!(
            imap.item(number, "BODY.PEEK[2.MIME]").await.unwrap(),
            b"Content-Type: application/octet-stream\r\n\
            Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n"
        );
        // Nothing else is touched.
        for part in [1, 3] {
            let mime = imap
                .item(number, &format!("BODY.PEEK[{part}.MIME]"))
                .await
                .unwrap();
            let body = imap
                .item(number, &format!("BODY.PEEK[{part}]"))
                .await
                .unwrap();
            assert_eq!([mime, body].concat(), text.as_bytes());
        }
        assert!(whole.starts_with(head.as_bytes()));
        let size = imap
            .ok(&format!("FETCH {number} (BINARY.SIZE[2] RFC822.SIZE)"))
            .await;
        let sizes = format!("BINARY.SIZE[2] {} RFC822.SIZE {})", raw.len(), whole.len());
        assert!(size.lines()[0].ends_with(&sizes), "{:?}", size.lines());
    }
    // One that is its own only part, at its end, and one that does not say that it is binary.
    let own = b"Content-Transfer-Encoding: binary\r\n\r\nx\0";
    let plain = b"Subject: y\r\n\r\nx\0";
    for (number, message, part) in [
        (
            3,
            &own[..],
            &b"Content-Transfer-Encoding: base64\r\n\r\neAA=\r\n"[..],
        ),
        (4, &plain[..], &plain[..]),
    ] {
        let append = format!("APPEND INBOX ~{{{}+}}\r\n", message.len());
        let appended = imap.command(&[append.as_bytes(), message].concat()).await;
        assert!(appended.tagged.starts_with("OK "), "{}", appended.tagged);
        imap.ok("NOOP").await;
        assert_eq!(imap.item(number, "BODY.PEEK[]").await.unwrap(), part);
        assert_eq!(imap.item(number, "BINARY.PEEK[1]").await.unwrap(), b"x\0");
    }
}
