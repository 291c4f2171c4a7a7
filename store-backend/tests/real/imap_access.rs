//! What stands beside the messages: annotations.

use crate::imap_dialogue::imap;
use crate::site::{Dialogue, Site};

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
