//! A private Postfix feeds us the public corpus, by SMTP at the MX and by LMTP at a back-end: what it
//! hands to another of its own transports is what our users read, each message once.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::eventually;
use e2e::pop3::Pop3;
use e2e::ports::PortBlock;
use e2e::samples::{Sample, corpus};
use e2e::smtp::Smtp;
use e2e::system::System;
use posthouse::ports::Port;
use tempfile::TempDir;

/// A Postfix of our own: its settings, queue and data in one folder, one port on loopback.
struct Postfix {
    folder: TempDir,
    ports: PortBlock,
}

impl Postfix {
    /// Starts one that sends `@example.test` to us by `transport`, and `@copy.test` to a Maildir.
    fn start(transport: &str) -> Self {
        let postfix = Self {
            folder: tempfile::tempdir().unwrap(),
            ports: PortBlock::take(),
        };
        let path = postfix.folder.path();
        // Postfix's own user walks through it.
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "queue", "data", "copy"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        chown("postfix:postfix", &path.join("data"));
        chown("nobody:nogroup", &path.join("copy"));
        fs::write(path.join("etc/main.cf"), postfix.main_cf(transport)).unwrap();
        fs::write(path.join("etc/master.cf"), postfix.master_cf()).unwrap();
        postfix.command("start");
        postfix
    }

    fn main_cf(&self, transport: &str) -> String {
        let path = self.folder.path().display();
        format!(
            "compatibility_level = 3.6
queue_directory = {path}/queue
data_directory = {path}/data
maillog_file = {path}/log
maillog_file_prefixes = {path}
myhostname = postfix.elsewhere.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
transport_maps = inline:{{ {{ example.test = {transport} }}, {{ copy.test = virtual: }} }}
virtual_mailbox_domains = copy.test
virtual_mailbox_base = {path}/copy
virtual_mailbox_maps = static:Maildir/
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nogroup}
virtual_mailbox_limit = 0
message_size_limit = 52428800
header_size_limit = 2097152
# What is to be compared goes through as it came.
smtpd_forbid_bare_newline = no
disable_mime_output_conversion = yes
hopcount_limit = 10000
smtp_line_length_limit = 0
lmtp_line_length_limit = 0
smtp_tls_security_level = may
# Nothing may wait for a second try in silence.
minimal_backoff_time = 2s
maximal_backoff_time = 5s
queue_run_delay = 2s
virtual_destination_concurrency_limit = 20
",
            nobody = id("-u"),
            nogroup = id("-g"),
        )
    }

    fn master_cf(&self) -> String {
        let listen = self.smtp();
        let mut text = format!("{listen} inet n - n - - smtpd\n");
        for (name, kind, maxproc, program) in [
            ("pickup", "unix", "1", "pickup"),
            ("cleanup", "unix", "0", "cleanup"),
            ("qmgr", "unix", "1", "qmgr"),
            ("rewrite", "unix", "-", "trivial-rewrite"),
            ("bounce", "unix", "0", "bounce"),
            ("defer", "unix", "0", "bounce"),
            ("trace", "unix", "0", "bounce"),
            ("tlsmgr", "unix", "1", "tlsmgr"),
            ("flush", "unix", "0", "flush"),
            ("proxymap", "unix", "-", "proxymap"),
            ("smtp", "unix", "-", "smtp"),
            ("lmtp", "unix", "-", "lmtp"),
            ("error", "unix", "-", "error"),
            ("retry", "unix", "-", "error"),
            ("discard", "unix", "-", "discard"),
            ("virtual", "unix", "-", "virtual"),
            ("anvil", "unix", "1", "anvil"),
            ("scache", "unix", "1", "scache"),
            ("postlog", "unix-dgram", "1", "postlogd"),
        ] {
            let private = if ["pickup", "cleanup", "qmgr", "flush", "postlog"].contains(&name) {
                "n"
            } else {
                "-"
            };
            let wakeup = if ["pickup", "qmgr"].contains(&name) {
                "5"
            } else {
                "-"
            };
            // It writes files as the user that owns the mailbox.
            let unprivileged = if name == "virtual" { "n" } else { "-" };
            _ = writeln!(
                text,
                "{name} {kind} {private} {unprivileged} n {wakeup} {maxproc} {program}"
            );
        }
        text
    }

    fn smtp(&self) -> SocketAddr {
        self.ports.of(Port::Smtp)
    }

    fn etc(&self) -> PathBuf {
        self.folder.path().join("etc")
    }

    fn command(&self, what: &str) {
        let output = Command::new("postfix")
            .arg("-c")
            .arg(self.etc())
            .arg(what)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "postfix {what}: {said}\n{}",
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until nothing is left in the queue.
    fn emptied(&self) {
        let begun = Instant::now();
        loop {
            let output = Command::new("postqueue")
                .arg("-c")
                .arg(self.etc())
                .arg("-j")
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "postqueue: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if output.stdout.is_empty() {
                return;
            }
            let left = String::from_utf8_lossy(&output.stdout);
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "the queue does not empty: {} left, first {}",
                left.lines().count(),
                left.lines().next().unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What Postfix delivered to its own Maildir: by sender, lines ended as they travel.
    fn copies(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = self.folder.path().join("copy/Maildir/new");
        let mut copies = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let octets = fs::read(entry.unwrap().path()).unwrap();
            let mut travelling = Vec::with_capacity(octets.len());
            for line in octets.split_inclusive(|octet| *octet == b'\n') {
                travelling.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                travelling.extend_from_slice(b"\r\n");
            }
            let (sender, message) = without_trace(&travelling, "Delivered-To: ");
            assert!(
                copies.insert(sender, message).is_none(),
                "a copy is there twice"
            );
        }
        copies
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        _ = Command::new("postfix")
            .arg("-c")
            .arg(self.etc())
            .arg("stop")
            .output();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- the end of Postfix's log\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

fn chown(owner: &str, path: &Path) {
    assert!(
        Command::new("chown")
            .arg(owner)
            .arg(path)
            .status()
            .unwrap()
            .success(),
        "this test runs as root"
    );
}

fn id(which: &str) -> String {
    let output = Command::new("id").args([which, "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Takes off the trace lines that the last system put before a message, up to the field that begins with `last`.
/// Gives the sender named there and the rest.
fn without_trace(message: &[u8], last: &str) -> (String, Vec<u8>) {
    let mut sender = None;
    let mut at = 0;
    let mut in_last = false;
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        let folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if in_last && !folded {
            break;
        }
        in_last = in_last || line.starts_with(last.as_bytes());
        if let Some(path) = line.strip_prefix(b"Return-Path: <") {
            sender = path
                .split(|octet| *octet == b'>')
                .next()
                .map(|path| String::from_utf8_lossy(path).into_owned());
        }
        at += line.len();
    }
    (sender.expect("a Return-Path"), message[at..].to_vec())
}

/// Feeds the corpus in, each message under a sender of its own, to one user of ours and to the Maildir.
fn feed(postfix: &Postfix, samples: &[Sample], user: &str) {
    let mut smtp = Smtp::connect(postfix.smtp());
    for (number, sample) in samples.iter().enumerate() {
        let sender = format!("m{number}@elsewhere.test");
        // Many names for one Maildir: to a single one Postfix would deliver one after the other.
        let copy = format!("c{}@copy.test", number % 50);
        let reply = smtp.send(&sender, &[user, &copy], &sample.octets);
        assert_eq!(reply.code, 250, "{}: {}", sample.name, reply.text);
    }
}

fn check(system: &System, postfix: &Postfix, samples: &[Sample], user: &str) {
    postfix.emptied();
    let copies = postfix.copies();
    assert_eq!(copies.len(), samples.len());
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(user, "pass");
    let mut read = BTreeMap::new();
    for message in pop3.messages() {
        // Received stands last in our trace lines.
        let (sender, message) = without_trace(&message, "Received: ");
        assert!(
            read.insert(sender.clone(), message).is_none(),
            "{sender} is there twice"
        );
    }
    assert_eq!(read.len(), samples.len());
    for (number, sample) in samples.iter().enumerate() {
        let sender = format!("m{number}@elsewhere.test");
        let (ours, theirs) = (&read[&sender], &copies[&sender]);
        assert!(
            ours == theirs,
            "{}: changed on the way\n--- Postfix's own copy\n{}\n--- ours\n{}",
            sample.name,
            theirs.escape_ascii(),
            ours.escape_ascii()
        );
    }
    println!("{} messages through Postfix to {user}", samples.len());
}

#[test]
fn postfix_feeds_the_mx_and_a_back_end_and_nothing_changes_is_lost_or_doubled() {
    let system = System::start(&["--seed-accounts", "2"]);
    let samples: Vec<Sample> = corpus().into_iter().filter(Sample::may_travel).collect();
    let lmtp = system.endpoints.backends[1].lmtp;
    let mx = system.endpoints.mx.smtp;
    let ways = [
        (
            format!("smtp:[{}]:{}", mx.ip(), mx.port()),
            "user00000@example.test",
        ),
        (
            format!("lmtp:inet:{}:{}", lmtp.ip(), lmtp.port()),
            "user00001@example.test",
        ),
    ];
    for (transport, user) in ways {
        let postfix = Postfix::start(&transport);
        feed(&postfix, &samples, user);
        check(&system, &postfix, &samples, user);
    }
}

/// How many messages a Postfix that tries again brings while processes are killed.
const LETTERS: usize = 10_000;
const READERS: usize = 20;
const KILLS: u64 = 24;

/// To whom a letter goes: every fifth to two mailboxes, often at two homes.
fn readers(letter: usize) -> Vec<usize> {
    let first = letter % READERS;
    if letter.is_multiple_of(5) {
        vec![
            first,
            (first + 1 + letter / READERS % (READERS - 1)) % READERS,
        ]
    } else {
        vec![first]
    }
}

fn user(reader: usize) -> String {
    format!("user{reader:05}@example.test")
}

/// Feeds a share of the letters to Postfix.
fn feed_letters(postfix: SocketAddr, letters: impl Iterator<Item = usize>) {
    let mut smtp = Smtp::connect(postfix);
    for letter in letters {
        let to: Vec<String> = readers(letter).into_iter().map(user).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let body = format!(
            "Subject: letter {letter}\r\n\r\n{}letter {letter}\r\n",
            "a line of text\r\n".repeat(letter % 400)
        );
        smtp.send("m@elsewhere.test", &to, body.as_bytes())
            .expect(250);
    }
}

/// The letters in a mailbox, each with the trace lines of every time it is there.
fn letters_of(system: &System, reader: usize) -> BTreeMap<usize, Vec<String>> {
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(&user(reader), "pass");
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for message in pop3.messages() {
        let text = String::from_utf8(message).unwrap();
        let last = text.trim_end().rsplit(' ').next().unwrap();
        let trace = text.split("Subject:").next().unwrap();
        let times = found.entry(last.parse().unwrap()).or_default();
        times.push(trace.to_owned());
    }
    found
}

#[test]
fn ten_thousand_letters_are_there_once_whatever_is_killed_while_they_come() {
    let users = READERS.to_string();
    let mut system = System::start(&["--processes", "--seed-accounts", &users]);
    let mx = system.endpoints.mx.smtp;
    let postfix = Postfix::start(&format!("smtp:[{}]:{}", mx.ip(), mx.port()));
    let from = postfix.smtp();
    std::thread::scope(|scope| {
        for share in 0..4 {
            scope.spawn(move || feed_letters(from, (share..LETTERS).step_by(4)));
        }
        for kill in 0..KILLS {
            // Irregular beside the second in which a process comes back.
            std::thread::sleep(Duration::from_millis(100 + kill * 379 % 700));
            system.kill_and_wait(["mx", "b1", "mx", "b2"][(kill % 4) as usize]);
        }
    });
    postfix.emptied();

    let mut expected = vec![BTreeSet::new(); READERS];
    for letter in 0..LETTERS {
        for reader in readers(letter) {
            expected[reader].insert(letter);
        }
    }
    for (reader, expected) in expected.iter().enumerate() {
        // What a sibling held while a home was away follows by itself.
        let found = eventually("every letter has come", || {
            let found = letters_of(&system, reader);
            (found.len() >= expected.len()).then_some(found)
        });
        let doubled: Vec<_> = found.iter().filter(|(_, times)| times.len() > 1).collect();
        assert!(
            doubled.is_empty(),
            "{}: doubled: {doubled:#?}",
            user(reader)
        );
        assert!(found.keys().eq(expected), "{}: {found:?}", user(reader));
    }
    println!("{LETTERS} letters, {KILLS} kills: each there once");
}
