//! mbsync (isync) keeps Maildir folders and ours the same, in both directions. It knows neither CONDSTORE nor QRESYNC: it
//! catches up by the flags of all messages.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::imap::{Imap, Message};
use e2e::samples::{Sample, corpus, own};
use e2e::system::System;
use tempfile::TempDir;

const USER: &str = "user00000@example.test";

/// The near side: Maildir folders in a folder of their own, with mbsync's settings beside them.
struct Near {
    folder: TempDir,
    system: System,
}

impl Near {
    fn new(settings: impl Fn(&System) -> String) -> Self {
        let near = Self {
            folder: tempfile::tempdir().unwrap(),
            system: System::start(&["--seed-accounts", "1"]),
        };
        fs::create_dir(near.mail()).unwrap();
        near.set(&settings(&near.system));
        near
    }

    fn mail(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    fn set(&self, connection: &str) {
        let mail = self.mail();
        let text = format!(
            "FSync no\n\nIMAPAccount ours\nHost localhost\nUser {USER}\nPass pass\n{connection}\n\
             IMAPStore far\nAccount ours\n\n\
             MaildirStore near\nPath {0}/\nInbox {0}/INBOX\nSubFolders Verbatim\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
            mail.display()
        );
        let settings = self.folder.path().join("mbsyncrc");
        fs::write(&settings, text).unwrap();
        fs::set_permissions(settings, Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self) -> (bool, String) {
        let output = Command::new("timeout")
            .args(["120", "mbsync", "-V", "-c"])
            .arg(self.folder.path().join("mbsyncrc"))
            .arg("all")
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        (output.status.success(), printed)
    }

    /// Runs it; gives its warnings.
    fn sync(&self) -> Vec<String> {
        let (succeeded, printed) = self.run();
        assert!(succeeded, "{printed}");
        let warnings = printed.lines().filter(|line| line.contains("Warning:"));
        warnings.map(str::to_owned).collect()
    }

    fn imap(&self) -> Imap {
        Imap::connect(self.system.endpoints.proxy.imap).login(USER, "pass")
    }

    /// A folder's messages by UID.
    fn read(&self, mailbox: &str) -> BTreeMap<u32, Kept> {
        let files = ["cur", "new"].map(|part| fs::read_dir(self.mail().join(mailbox).join(part)));
        files
            .into_iter()
            .flat_map(Result::unwrap)
            .map(|entry| Kept::read(&entry.unwrap().path()))
            .collect()
    }

    /// Everything there is near, by path and length, mbsync's own notes included.
    fn listing(&self) -> BTreeSet<(PathBuf, u64)> {
        let mut listing = BTreeSet::new();
        let mut folders = vec![self.mail()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                }
                listing.insert((entry.path(), entry.metadata().unwrap().len()));
            }
        }
        listing
    }
}

/// One file of a Maildir.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    path: PathBuf,
    flags: BTreeSet<String>,
    octets: Vec<u8>,
}

impl Kept {
    fn read(path: &Path) -> (u32, Self) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (unique, info) = name.split_once(":2,").unwrap_or((name, ""));
        let (_, uid) = unique.rsplit_once(",U=").unwrap();
        let kept = Self {
            path: path.to_owned(),
            flags: info.chars().map(|letter| flag(letter).to_owned()).collect(),
            octets: without_mark(&fs::read(path).unwrap()),
        };
        (uid.parse().unwrap(), kept)
    }

    /// Gives the file other flags, as a mail reader does.
    fn mark(&self, letters: &str) {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let (unique, _) = name.split_once(":2,").unwrap_or((name, ""));
        let folder = self.path.ancestors().nth(2).unwrap();
        let marked = folder.join("cur").join(format!("{unique}:2,{letters}"));
        fs::rename(&self.path, marked).unwrap();
    }
}

fn flag(letter: char) -> &'static str {
    match letter {
        'D' => "\\Draft",
        'F' => "\\Flagged",
        'P' => "$Forwarded",
        'R' => "\\Answered",
        'S' => "\\Seen",
        'T' => "\\Deleted",
        other => panic!("mark {other}"),
    }
}

/// mbsync puts a field of its own, with twelve letters, at the end of each header it copies.
fn without_mark(octets: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"X-TUID: ";
    let begin = octets.windows(MARK.len()).position(|window| window == MARK);
    let Some(begin) = begin else {
        return octets.to_owned();
    };
    let mark = octets[begin..].split_inclusive(|octet| *octet == b'\n');
    let length = mark.map(<[u8]>::len).next().unwrap();
    [&octets[..begin], &octets[begin + length..]].concat()
}

/// What mbsync makes of a message for a Maildir: it drops every CR.
fn as_kept(octets: &[u8]) -> Vec<u8> {
    octets
        .iter()
        .copied()
        .filter(|octet| *octet != b'\r')
        .collect()
}

/// Whether mbsync copies it: it wants an empty line, to put its mark before.
fn is_copied(octets: &[u8]) -> bool {
    let kept = as_kept(octets);
    kept.starts_with(b"\n") || kept.windows(2).any(|window| window == b"\n\n")
}

fn tls(system: &System) -> String {
    format!(
        "Port {}\nSSLType IMAPS\nSystemCertificates no\nCertificateFile {}\n",
        system.endpoints.proxy.imaps.port(),
        system.ca().display()
    )
}

fn octets(samples: &[Sample]) -> impl Iterator<Item = &[u8]> {
    samples.iter().map(|sample| sample.octets.as_slice())
}

/// Both sides have the same messages with the same flags; gives them as we have them.
fn assert_same(near: &Near, mailbox: &str) -> Vec<Message> {
    let ours = near.imap().messages(mailbox);
    let theirs = near.read(mailbox);
    let copied = ours.iter().filter(|message| is_copied(&message.octets));
    let wanted = sorted(copied.map(|message| (as_kept(&message.octets), &message.flags)));
    let found = sorted(
        theirs
            .values()
            .map(|kept| (kept.octets.clone(), &kept.flags)),
    );
    assert_eq!(wanted.len(), found.len(), "{mailbox}");
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!(wanted, found, "{mailbox}: octets or flags differ");
    }
    ours
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items
}

#[test]
fn the_corpus_is_pulled_octet_by_octet_and_a_second_run_moves_nothing() {
    let near = Near::new(tls);
    let corpus = corpus();
    let mut imap = near.imap();
    imap.append_all("INBOX", "", octets(&corpus));
    let warnings = near.sync();
    let skipped: Vec<usize> = (1..)
        .zip(&corpus)
        .filter(|(_, sample)| !is_copied(&sample.octets))
        .map(|(uid, _)| uid)
        .collect();
    assert!(!skipped.is_empty() && skipped.len() < 100);
    let expected: Vec<String> = skipped
        .iter()
        .map(|uid| format!("Warning: message {uid} from far side has incomplete header; skipping."))
        .collect();
    assert_eq!(warnings, expected);
    assert_eq!(assert_same(&near, "INBOX").len(), corpus.len());

    let (position, listing) = (imap.position("INBOX"), near.listing());
    near.sync();
    assert_eq!(imap.position("INBOX"), position);
    assert_eq!(near.listing(), listing);
}

#[test]
fn a_tenth_of_the_corpus_is_pushed_octet_by_octet() {
    let near = Near::new(tls);
    let folder = near.mail().join("pushed");
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let tenth = corpus().into_iter().skip(7).step_by(10);
    let tenth: Vec<Sample> = tenth.filter(|one| is_copied(&one.octets)).collect();
    for (at, sample) in tenth.iter().enumerate() {
        let file = folder.join(format!("cur/{at}.tenth.near:2,FS"));
        fs::write(file, as_kept(&sample.octets)).unwrap();
    }
    assert_eq!(near.sync(), [""; 0]);
    let pushed = near.imap().messages("pushed");
    let found = sorted(pushed.iter().map(|one| as_kept(&without_mark(&one.octets))));
    let wanted = sorted(octets(&tenth).map(as_kept));
    assert!(found == wanted, "{} of {}", found.len(), wanted.len());
    for message in &pushed {
        let flags: Vec<&str> = message.flags.iter().map(String::as_str).collect();
        assert_eq!(flags, ["\\Flagged", "\\Seen"], "{}", message.uid);
        let lines = message.octets.split_inclusive(|octet| *octet == b'\n');
        assert!(
            lines
                .filter(|line| line.ends_with(b"\n"))
                .all(|line| line.ends_with(b"\r\n"))
        );
    }
}

#[test]
fn flags_messages_deletions_and_mailboxes_go_both_ways() {
    // STARTTLS here: the other test has TLS from the first octet.
    let near = Near::new(|system| {
        let port = system.endpoints.proxy.imap.port();
        tls(system).replace("IMAPS", "STARTTLS").replace(
            &system.endpoints.proxy.imaps.port().to_string(),
            &port.to_string(),
        )
    });
    let samples: Vec<Sample> = own()
        .into_iter()
        .filter(|sample| is_copied(&sample.octets))
        .collect();
    assert!(samples.len() >= 8);
    let mut imap = near.imap();
    imap.append_all("INBOX", "\\Flagged", octets(&samples));
    imap.command("CREATE \"Lists/a b &AOQ-\"");
    imap.append_all("Lists/a b &AOQ-", "\\Seen \\Answered", octets(&samples));
    assert_eq!(near.sync(), [""; 0]);
    assert_eq!(assert_same(&near, "INBOX").len(), samples.len());
    assert_same(&near, "Lists/a b &AOQ-");

    // Near: flags, a deletion, a new message, a new folder.
    let kept: Vec<Kept> = near.read("INBOX").into_values().collect();
    kept[0].mark("RS");
    kept[1].mark("DFRS");
    fs::remove_file(&kept[2].path).unwrap();
    for folder in ["INBOX", "new here"] {
        let folder = near.mail().join(folder);
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let message = b"Subject: made near\n\n.\nFrom the near side.\n";
        fs::write(folder.join("cur/1.made.near:2,S"), message).unwrap();
    }
    // Far: the same.
    imap.command("SELECT INBOX");
    imap.command("UID STORE 4 FLAGS.SILENT (\\Seen $Forwarded Unknown)");
    imap.command("UID STORE 5 +FLAGS.SILENT (\\Deleted)");
    imap.command("UID EXPUNGE 5");
    imap.append(
        "INBOX",
        "\\Seen",
        b"Subject: made far\r\n\r\nFrom the far side.\r\n",
    );
    assert_eq!(near.sync(), [""; 0]);

    let ours = near.imap().messages("INBOX");
    let of = |uid: u32| ours.iter().find(|message| message.uid == uid);
    let flags = |uid: u32| {
        let flags = &of(uid).unwrap().flags;
        flags.iter().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(flags(1), ["\\Answered", "\\Seen"]);
    assert_eq!(flags(2), ["\\Answered", "\\Draft", "\\Flagged", "\\Seen"]);
    assert_eq!(of(3), None);
    // A keyword that a Maildir has no letter for stays.
    assert_eq!(flags(4), ["$Forwarded", "Unknown", "\\Seen"]);
    assert_eq!(of(5), None);
    assert_eq!(ours.len(), samples.len());
    let made = |at: usize| {
        String::from_utf8_lossy(&without_mark(&ours[ours.len() - at].octets)).into_owned()
    };
    assert_eq!(made(2), "Subject: made far\r\n\r\nFrom the far side.\r\n");
    assert_eq!(
        made(1),
        "Subject: made near\r\n\r\n.\r\nFrom the near side.\r\n"
    );
    let theirs = near.read("INBOX");
    assert_eq!(theirs.len(), samples.len());
    assert_eq!(
        theirs[&4].flags,
        ["$Forwarded", "\\Seen"].map(str::to_owned).into()
    );
    assert!(imap.mailboxes().contains("new here"));
    assert_eq!(imap.messages("new here").len(), 1);

    let positions = |imap: &mut Imap| ["INBOX", "new here"].map(|name| imap.position(name));
    let (before, listing) = (positions(&mut imap), near.listing());
    assert_eq!(near.sync(), [""; 0]);
    assert_eq!(positions(&mut imap), before);
    assert_eq!(near.listing(), listing);
}

#[test]
fn a_stranger_s_certificate_is_not_taken() {
    let near = Near::new(|system| {
        let port = system.endpoints.proxy.imaps.port();
        format!("Port {port}\nSSLType IMAPS\n")
    });
    let (succeeded, printed) = near.run();
    assert!(!succeeded && printed.contains("certificate"), "{printed}");
}
