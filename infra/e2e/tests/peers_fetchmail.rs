//! fetchmail empties a mailbox by POP3 and by IMAP, over TLS and without.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::samples::{Sample, corpus, own};
use e2e::smtp::{Smtp, ended};
use e2e::system::System;

const USER: &str = "user00000@example.test";

/// Runs fetchmail once in a new folder; gives its exit code, what it printed, and the messages it handed on.
fn fetchmail(protocol: &str, server: SocketAddr, options: &str) -> (i32, String, Vec<Vec<u8>>) {
    fetchmail_in(
        tempfile::tempdir().unwrap().path(),
        protocol,
        server,
        options,
    )
}

/// The same in a folder that remembers what was fetched before.
fn fetchmail_in(
    folder: &Path,
    protocol: &str,
    server: SocketAddr,
    options: &str,
) -> (i32, String, Vec<Vec<u8>>) {
    let (settings, fetched) = (folder.join("fetchmailrc"), folder.join("fetched"));
    _ = fs::remove_dir_all(&fetched);
    fs::create_dir(&fetched).unwrap();
    // The delivery program names files by a number that grows, so that their order is that of arrival.
    let deliver = folder.join("deliver");
    let script = format!(
        "#!/bin/sh\nexec cat > {0}/$(printf %05d $(ls {0} | wc -l))\n",
        fetched.display()
    );
    fs::write(&deliver, script).unwrap();
    fs::set_permissions(&deliver, Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "set invisible\npoll localhost protocol {protocol} port {} user \"{USER}\" password \"pass\" {options} mda \"{}\"\n",
        server.port(),
        deliver.display()
    );
    fs::write(&settings, text).unwrap();
    fs::set_permissions(&settings, Permissions::from_mode(0o600)).unwrap();
    let output = Command::new("fetchmail")
        .env("HOME", folder)
        .env("FETCHMAILHOME", folder)
        .args([
            "--nosyslog",
            "--nodetach",
            "-v",
            "--timeout",
            "30",
            "--pidfile",
        ])
        .arg(folder.join("pid"))
        .arg("-f")
        .arg(&settings)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap(), printed, read_all(&fetched))
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The samples that fetchmail leaves as they are: it mends headers that are none, and drops NUL.
fn samples() -> Vec<Sample> {
    let changed = [
        "no_header",
        "begins_with",
        "nul",
        "bad_mime",
        "header_only",
        "eight_bit",
    ];
    own()
        .into_iter()
        .filter(|sample| changed.iter().all(|name| !sample.name.contains(name)))
        .collect()
}

fn fill(system: &System, samples: &[Sample]) {
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    for sample in samples {
        smtp.send("carla@elsewhere.test", &[USER], &sample.octets)
            .expect(250);
    }
}

#[test]
fn fetchmail_empties_a_mailbox_and_hands_on_what_was_sent() {
    let system = System::start(&["--seed-accounts", "1"]);
    let samples = samples();
    assert!(samples.len() >= 6);
    let proxy = &system.endpoints.proxy;
    let ca = system.ca();
    let tls = format!("sslcertck sslcertfile \"{}\"", ca.display());
    let ways = [
        ("pop3", proxy.pop3s, format!("options ssl {tls} nokeep")),
        (
            "pop3",
            proxy.pop3,
            format!("options sslproto \"TLS1.2+\" {tls} nokeep"),
        ),
        (
            "pop3",
            proxy.pop3,
            "options sslproto \"\" nokeep fetchall".to_owned(),
        ),
        ("imap", proxy.imaps, format!("options ssl {tls} nokeep")),
        (
            "imap",
            proxy.imap,
            format!("options sslproto \"TLS1.2+\" {tls} nokeep expunge 3"),
        ),
    ];
    for (protocol, server, options) in ways {
        fill(&system, &samples);
        let (code, printed, fetched) = fetchmail(protocol, server, &options);
        assert_eq!(code, 0, "{protocol} {options}\n{printed}");
        assert_eq!(
            fetched.len(),
            samples.len(),
            "{protocol} {options}\n{printed}"
        );
        for (message, sample) in fetched.iter().zip(&samples) {
            // fetchmail hands on lines that end in LF, and writes addresses in the header anew.
            let sent = String::from_utf8(ended(&sample.octets))
                .unwrap()
                .replace("\r\n", "\n");
            let (_, body) = sent.split_once("\n\n").unwrap();
            let message = String::from_utf8_lossy(message);
            assert!(
                message.ends_with(&format!("\n\n{body}")),
                "{}: {message:?}",
                sample.name
            );
        }
        assert_eq!(Pop3::connect(proxy.pop3).login(USER, "pass").count(), 0);
    }
    let (code, printed, _) = fetchmail("imap", proxy.imaps, &format!("options ssl {tls}"));
    assert_eq!(code, 1, "{printed}");
    // 1: there was no mail.
    let (code, printed, _) = fetchmail("pop3", proxy.pop3s, &format!("options ssl {tls}"));
    assert_eq!(code, 1, "{printed}");
}

/// What fetchmail makes of a message: it drops every CR, and ends what has no end.
fn as_handed_on(octets: &[u8]) -> Vec<u8> {
    let mut handed_on = octets.to_owned();
    handed_on.retain(|octet| *octet != b'\r');
    if !handed_on.ends_with(b"\n") {
        handed_on.push(b'\n');
    }
    if !octets.windows(4).any(|four| four == b"\r\n\r\n") {
        handed_on.push(b'\n');
    }
    handed_on
}

#[test]
fn a_tenth_of_the_corpus_comes_octet_by_octet_and_is_marked_as_read() {
    let system = System::start(&["--seed-accounts", "1"]);
    let proxy = &system.endpoints.proxy;
    // fetchmail gives a header to a message that has none.
    let tenth = corpus().into_iter().skip(3).step_by(10);
    let tenth: Vec<Sample> = tenth
        .filter(|one| !one.name.ends_with("only-crlfs.eml"))
        .collect();
    let mut imap = Imap::connect(proxy.imap).login(USER, "pass");
    imap.append_all("INBOX", "", tenth.iter().map(|one| one.octets.as_slice()));
    let options = "options sslproto \"\" keep no rewrite pass8bits";
    let folder = tempfile::tempdir().unwrap();
    for (protocol, server) in [("pop3", proxy.pop3), ("imap", proxy.imap)] {
        let (code, printed, fetched) = fetchmail_in(folder.path(), protocol, server, options);
        assert_eq!(
            (code, fetched.len()),
            (0, tenth.len()),
            "{protocol}\n{printed}"
        );
        for (message, sample) in fetched.iter().zip(&tenth) {
            let wanted = as_handed_on(&sample.octets);
            assert!(*message == wanted, "{} by {protocol}", sample.name);
        }
    }
    // By IMAP it marks what it has fetched. Another session makes one unread and removes one; a new one comes. It knows
    // neither CONDSTORE nor QRESYNC: it asks for what is unread.
    let read = |imap: &mut Imap| {
        imap.messages("INBOX")
            .iter()
            .filter(|one| one.flags.contains("\\Seen"))
            .count()
    };
    assert_eq!(read(&mut imap), tenth.len());
    imap.command("SELECT INBOX");
    imap.command("UID STORE 7 -FLAGS.SILENT (\\Seen)");
    imap.command("UID STORE 9 +FLAGS.SILENT (\\Deleted)");
    imap.command("UID EXPUNGE 9");
    let new = b"From: a@elsewhere.test\r\nSubject: new\r\n\r\nnew\r\n";
    imap.append("INBOX", "", new);
    let (code, printed, fetched) = fetchmail_in(folder.path(), "imap", proxy.imap, options);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(fetched, [as_handed_on(&tenth[6].octets), as_handed_on(new)]);
    assert_eq!(read(&mut imap), tenth.len());
}

#[test]
fn mail_that_is_kept_is_fetched_once() {
    let system = System::start(&["--seed-accounts", "1"]);
    let samples = samples();
    fill(&system, &samples);
    let folder = tempfile::tempdir().unwrap();
    let options = "options sslproto \"\" keep";
    let pop3 = system.endpoints.proxy.pop3;
    let (code, printed, fetched) = fetchmail_in(folder.path(), "pop3 uidl", pop3, options);
    assert_eq!((code, fetched.len()), (0, samples.len()), "{printed}");
    assert_eq!(
        Pop3::connect(pop3).login(USER, "pass").count(),
        samples.len()
    );
    // The identifiers are the same in the next session, and after the system was started again.
    let (code, printed, fetched) = fetchmail_in(folder.path(), "pop3 uidl", pop3, options);
    assert_eq!((code, fetched.len()), (1, 0), "{printed}");
    let system = system.restarted(&["--seed-accounts", "1"]);
    let (code, printed, fetched) = fetchmail_in(
        folder.path(),
        "pop3 uidl",
        system.endpoints.proxy.pop3,
        options,
    );
    assert_eq!((code, fetched.len()), (1, 0), "{printed}");
}
