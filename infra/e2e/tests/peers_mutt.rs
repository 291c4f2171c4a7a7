//! mutt and NeoMutt, driven by keys: what they did to our mailboxes, and that they catch up after others did more.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::imap::{Imap, Message};
use e2e::samples::corpus;
use e2e::system::System;

const USER: &str = "user00000@example.test";

/// Reads INBOX with its header cache in `folder`, which later runs find again, and presses `keys`.
fn read(program: &str, folder: &Path, system: &System, keys: &str) {
    let settings = folder.join("muttrc");
    let text = format!(
        "set spoolfile=\"imaps://localhost:{port}/INBOX\" folder=\"imaps://localhost:{port}/\"\n\
         set imap_user=\"{USER}\" imap_pass=\"pass\" imap_condstore=yes imap_qresync=yes\n\
         set ssl_ca_certificates_file=\"{ca}\"\n\
         set header_cache=\"{folder}/headers\" message_cachedir=\"{folder}/bodies\"\n\
         set quit=yes delete=yes move=no copy=no confirmappend=no confirmcreate=no wait_key=no sleep_time=0\n",
        port = system.endpoints.proxy.imaps.port(),
        ca = system.ca().display(),
        folder = folder.display()
    );
    fs::write(&settings, text).unwrap();
    // They want a terminal; `script` gives one and takes down what is shown.
    let shown = folder.join("shown");
    let line = format!(
        "{program} -n -F '{}' -e 'push \"{keys}\"'",
        settings.display()
    );
    let status = Command::new("timeout")
        .args(["60", "script", "-qefc", &line])
        .arg(&shown)
        .env("TERM", "xterm")
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let shown = fs::read(&shown).unwrap_or_default();
    assert!(
        status.success(),
        "{program} {status}\n{}",
        shown.escape_ascii()
    );
}

fn letter(number: u32) -> String {
    format!(
        "From: a{number}@elsewhere.test\r\nSubject: letter {number}\r\nMessage-ID: <{number}@elsewhere.test>\r\n\
         Date: Mon, {number} Feb 2020 10:00:00 +0000\r\n\r\nLine one of {number}.\r\n.\r\nLine three.\r\n"
    )
}

/// UIDs with flags; NeoMutt and mutt mark what was seen in the list by a keyword of their own.
fn flags(messages: &[Message]) -> Vec<(u32, String)> {
    let flags = |message: &Message| {
        let flags = message.flags.iter().filter(|flag| *flag != "Old");
        flags.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    messages
        .iter()
        .map(|message| (message.uid, flags(message)))
        .collect()
}

fn letters(messages: &[Message]) -> Vec<String> {
    let octets = messages.iter().map(|message| message.octets.clone());
    octets
        .map(|octets| String::from_utf8(octets).unwrap())
        .collect()
}

fn works_a_mailbox_and_catches_up(program: &str) {
    let system = System::start(&["--seed-accounts", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(USER, "pass");
    for number in 1..=6 {
        imap.append("INBOX", "", letter(number).as_bytes());
    }
    imap.command("CREATE saved");

    let keys = [
        "<copy-message>=saved<enter>",
        "<jump>2<enter><save-message>=saved<enter>",
        "<tag-pattern>~f a3@<enter><tag-pattern>~f a4@<enter><tag-prefix><delete-message>",
        "<jump>5<enter><flag-message>",
        "<sync-mailbox><quit>",
    ];
    read(program, path, &system, &keys.concat());
    let inbox = imap.messages("INBOX");
    assert_eq!(
        flags(&inbox),
        [
            (1, String::new()),
            (5, "\\Flagged".to_owned()),
            (6, String::new())
        ]
    );
    assert_eq!(letters(&imap.messages("saved")), [letter(1), letter(2)]);

    // Others delete what its cache holds, change a flag there, and add a message.
    imap.command("SELECT INBOX");
    imap.command("UID STORE 5 +FLAGS.SILENT (\\Deleted)");
    imap.command("UID EXPUNGE 5");
    imap.command("UID STORE 6 +FLAGS.SILENT (\\Flagged)");
    imap.append("INBOX", "", letter(7).as_bytes());
    // The flagged one is deleted, the new one opened, and what it showed is kept.
    let keys = [
        "<delete-pattern>~F<enter><sync-mailbox>",
        "<last-entry><display-message><exit>",
        &format!("<copy-message>{}<enter>", path.join("kept").display()),
        "<sync-mailbox><quit>",
    ];
    read(program, path, &system, &keys.concat());
    let inbox = imap.messages("INBOX");
    assert_eq!(
        flags(&inbox),
        [(1, String::new()), (7, "\\Seen".to_owned())]
    );
    let kept = fs::read_to_string(path.join("kept")).unwrap();
    let body = "\n\nLine one of 7.\n.\nLine three.";
    assert!(
        kept.contains("Subject: letter 7\n") && kept.trim_end().ends_with(body),
        "{kept}"
    );

    // Nothing was done in between: nothing is changed.
    let before = imap.position("INBOX");
    read(program, path, &system, "<sync-mailbox><quit>");
    assert_eq!(imap.position("INBOX"), before);
}

/// What mutt makes of a message for a Maildir: lines end in LF, a header has an end, and some fields are its own.
fn as_kept(octets: &[u8]) -> Vec<u8> {
    const OWN: [&[u8]; 4] = [b"content-length:", b"lines:", b"status:", b"x-status:"];
    let mut kept = Vec::new();
    let mut is_header = true;
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        is_header &= !text.is_empty();
        let is = |field: &&[u8]| {
            text.len() >= field.len() && text[..field.len()].eq_ignore_ascii_case(field)
        };
        if is_header && OWN.iter().any(is) {
            continue;
        }
        kept.extend_from_slice(text);
        if line.ends_with(b"\n") {
            kept.push(b'\n');
        }
    }
    if is_header {
        kept.push(b'\n');
    }
    kept
}

fn copies_a_tenth_of_the_corpus(program: &str) {
    let system = System::start(&["--seed-accounts", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(USER, "pass");
    // It writes other CRs in its own way, and a header before a message that begins with its body.
    let is_left = |octets: &[u8]| {
        let crs = octets
            .windows(2)
            .filter(|two| two[0] == b'\r' && two[1] != b'\n');
        crs.count() == 0 && !octets.starts_with(b"\r\n")
    };
    let tenth = corpus().into_iter().skip(3).step_by(10);
    let tenth: Vec<_> = tenth.filter(|sample| is_left(&sample.octets)).collect();
    assert!(tenth.len() > 400);
    imap.append_all("INBOX", "", tenth.iter().map(|one| one.octets.as_slice()));
    let copies = path.join("copies");
    let keys = [
        "<enter-command>set mbox_type=Maildir<enter><tag-pattern>~A<enter>",
        &format!(
            "<tag-prefix><copy-message>{}<enter><quit>",
            copies.display()
        ),
    ];
    read(program, path, &system, &keys.concat());
    let files = ["cur", "new"].map(|part| fs::read_dir(copies.join(part)).unwrap());
    let files = files
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<Vec<u8>> = files
        .map(|path| as_kept(&fs::read(path).unwrap()))
        .collect();
    let mut wanted: Vec<Vec<u8>> = tenth.iter().map(|one| as_kept(&one.octets)).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(
            found.escape_ascii().to_string(),
            wanted.escape_ascii().to_string()
        );
    }
}

#[test]
fn mutt_copies_a_tenth_of_the_corpus_octet_by_octet() {
    copies_a_tenth_of_the_corpus("mutt");
}

#[test]
fn neomutt_copies_a_tenth_of_the_corpus_octet_by_octet() {
    copies_a_tenth_of_the_corpus("neomutt");
}

#[test]
fn mutt_works_a_mailbox_and_catches_up() {
    works_a_mailbox_and_catches_up("mutt");
}

#[test]
fn neomutt_works_a_mailbox_and_catches_up() {
    works_a_mailbox_and_catches_up("neomutt");
}
