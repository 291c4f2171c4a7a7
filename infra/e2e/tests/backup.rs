//! A volume is lost and comes back from a backup: as it was, and no UID that a client has seen names another message.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::smtp::Smtp;
use e2e::system::{System, posthouse, send as signal};
use rustix::process::Signal;

const SENDER: &str = "carla@elsewhere.test";

fn deliver(system: &System, to: &str, letter: &str) {
    let text = format!("Subject: {letter}\r\n\r\nletter {letter}\r\n");
    eventually("a message is accepted", || {
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.command(&format!("MAIL FROM:<{SENDER}>")).expect(250);
        let accepted = smtp.command(&format!("RCPT TO:<{to}>")).code == 250;
        accepted.then(|| {
            smtp.command("RSET").expect(250);
            smtp.send(SENDER, &[to], text.as_bytes()).expect(250);
        })
    });
}

/// Unique-id, which is UIDVALIDITY and UID, to the message.
fn mailbox(system: &System, at: usize) -> BTreeMap<String, Vec<u8>> {
    let (user, password) = system.demo(at);
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(&user, &password);
    let listing = String::from_utf8(pop3.lines("UIDL")).unwrap();
    let ids = listing
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap().to_owned());
    ids.zip(pop3.messages()).collect()
}

fn until_it_has(system: &System, at: usize, count: usize) -> BTreeMap<String, Vec<u8>> {
    eventually("all messages are listed", || {
        Some(mailbox(system, at)).filter(|found| found.len() == count)
    })
}

/// Runs `posthouse`; what it printed, if it ended as it should.
fn run(system: &System, success: bool, arguments: &[&str]) -> String {
    let data = system.data.to_str().unwrap();
    let arguments = [arguments, &["--data", data]].concat();
    let (succeeded, printed) = posthouse(&arguments);
    assert_eq!(succeeded, success, "{arguments:?}: {printed}");
    printed
}

fn home(system: &System, account: &str) -> String {
    let printed = run(system, true, &["account", "show", account, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&printed).unwrap();
    shown["home"]["backend"].as_str().unwrap().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_lost_volume_comes_back_from_a_backup_and_gives_no_uid_again() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, password) = system.demo(0);
    let backend = home(&system, &anna);
    for letter in ["1", "2", "3", "4"] {
        deliver(&system, &anna, letter);
    }
    until_it_has(&system, 0, 4);
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(&anna, &password);
    imap.command("CREATE Work");
    imap.append("Work", "\\Seen $Mine", b"Subject: of mine\r\n\r\nkept\r\n");
    imap.command("SELECT INBOX");
    imap.command("UID STORE 2 +FLAGS (\\Flagged)");
    let status = "STATUS Work (UIDVALIDITY MESSAGES)";
    let work = imap.command(status);

    let folder = system.data.with_file_name("backup");
    let to = folder.to_str().unwrap().to_owned();
    let said = run(&system, true, &["backup", "--to", &to, "--all"]);
    assert!(said.contains("0 failed; 5 bodies fetched"), "{said}");
    let listed = run(&system, true, &["backup", "list", &to, &anna, "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let first = listed["at"].as_str().unwrap();
    imap.command("UID STORE 3 +FLAGS (\\Answered)");
    run(&system, true, &["backup", "--to", &to, "--all"]);
    let mut kept = mailbox(&system, 0);
    let before = files(&folder.join("accounts"));
    let said = run(&system, true, &["backup", "--to", &to, "--all"]);
    assert!(said.starts_with("0 accounts taken"), "{said}");
    assert_eq!(
        files(&folder.join("accounts")),
        before,
        "nothing is written again"
    );

    // What comes after the backup, which clients have seen, is lost with the volume.
    for letter in ["lost 1", "lost 2"] {
        deliver(&system, &anna, letter);
    }
    let seen = until_it_has(&system, 0, 6);
    drop(imap);
    fs::remove_dir_all(system.data.join(&backend)).unwrap();
    signal(system.endpoints_now().pids[&backend], Signal::KILL);
    eventually("the new volume is found out", || {
        let (_, said) = posthouse(&["status", "--data", system.data.to_str().unwrap()]);
        said.contains("restore a backup first, and only then adopt it")
            .then_some(())
    });

    // What only is not there yet is no account without mail.
    let said = run(&system, false, &["backup", "--to", &to, "--all"]);
    assert!(
        said.contains(&format!("{anna}: ")) && said.contains("is not adopted"),
        "{said}"
    );
    // Nor does a run that has rotted keep anything from coming back.
    fs::write(&files(&folder.join("runs"))[2], "").unwrap();
    let said = run(&system, false, &["backup", "list", &to]);
    assert!(
        said.contains(&format!("Z: {anna}: back-end refused")),
        "{said}"
    );

    // The fourth letter has rotted in the backup: the rest comes back without it.
    let is_fourth = |octets: &[u8]| octets.ends_with(b"letter 4\r\n");
    let mut blobs = files(&folder.join("blobs"));
    blobs.retain(|path| is_fourth(&fs::read(path).unwrap()));
    fs::write(&blobs[0], b"rot").unwrap();
    kept.retain(|_, octets| !is_fourth(octets));

    let restore = ["restore", "--from", &to, "--volume", &backend];
    let typo = [&restore[..], &["--only", "mian"]].concat();
    let said = run(&system, false, &typo);
    assert!(said.contains("there are: main"), "{said}");
    let said = run(&system, false, &restore);
    assert!(said.contains("; 1 messages left out"), "{said}");
    assert!(
        said.contains(" 0 failed, 0 are not in the backup"),
        "{said}"
    );
    let adopt = format!("posthouse backend set {backend} --adopt-volume main");
    assert!(said.contains(&adopt), "{said}");
    assert_eq!(
        until_it_has(&system, 0, 3),
        kept,
        "it is read before it is adopted"
    );
    let before = [&restore[..], &["--at", first]].concat();
    let said = run(&system, false, &before);
    assert!(
        said.contains(&format!("{anna}: it is there and is not as")),
        "{said}"
    );
    let said = run(&system, false, &restore);
    assert!(
        said.starts_with("0 accounts restored, 1 were there"),
        "{said}"
    );
    run(
        &system,
        true,
        &["backend", "set", &backend, "--adopt-volume", "main"],
    );
    eventually("it takes mail", || system.status().then_some(()));

    for letter in ["new 1", "new 2", "new 3"] {
        deliver(&system, &anna, letter);
    }
    let now = until_it_has(&system, 0, 6);
    for (id, octets) in &kept {
        assert_eq!(now.get(id), Some(octets), "{id}");
    }
    for (id, octets) in &now {
        assert!(
            seen.get(id).is_none_or(|before| before == octets),
            "{id} names another message"
        );
    }
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(&anna, &password);
    assert_eq!(imap.command(status), work);
    imap.command("SELECT INBOX");
    let flagged = imap.command("UID SEARCH FLAGGED");
    assert!(
        flagged.iter().any(|one| one.text.ends_with("SEARCH 2")),
        "{flagged:?}"
    );
    imap.command("SELECT Work");
    let flags = imap.command("FETCH 1 FLAGS");
    assert!(flags[0].text.contains("$Mine"), "{flags:?}");

    // An account in use is not overwritten.
    let said = run(&system, false, &restore);
    assert!(said.contains("takes mail"), "{said}");

    // One mailbox: what is there is not doubled, what is gone comes back as new messages.
    imap.command("SELECT INBOX");
    imap.command("UID STORE 1:3 +FLAGS (\\Deleted)");
    imap.command("EXPUNGE");
    let mailbox_of = ["restore", "--from", &to, &anna, "--mailbox", "INBOX"];
    let said = run(&system, false, &mailbox_of);
    assert!(
        said.contains("INBOX: 3 messages put back") && said.contains("1 cannot be read"),
        "{said}"
    );
    let again = run(&system, false, &mailbox_of);
    assert!(
        again.contains("0 messages put back") && again.contains("3 were there"),
        "{again}"
    );
    let back = until_it_has(&system, 0, 6);
    let bodies = |of: &BTreeMap<String, Vec<u8>>| {
        let mut bodies: Vec<_> = of.values().cloned().collect();
        bodies.sort();
        bodies
    };
    assert_eq!(bodies(&back), bodies(&now));
    assert!(
        kept.keys().all(|id| !back.contains_key(id)),
        "they have new UIDs"
    );
    let said = run(
        &system,
        true,
        &[
            "restore",
            "--from",
            &to,
            &anna,
            "--mailbox",
            "Work",
            "--into",
            "Work/Then",
        ],
    );
    assert!(said.contains("Work/Then: 1 messages put back"), "{said}");
    let said = run(
        &system,
        false,
        &["restore", "--from", &to, &anna, "--mailbox", "Wurk"],
    );
    assert!(said.contains("it has: INBOX, Work"), "{said}");
}

#[test]
fn a_backup_is_checked_mended_and_thinned_out() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, password) = system.demo(0);
    let folder = system.data.with_file_name("backup");
    let to = folder.to_str().unwrap().to_owned();
    deliver(&system, &anna, "1");
    until_it_has(&system, 0, 1);
    run(&system, true, &["backup", "--to", &to, &anna]);
    let first = files(&folder.join("blobs"));
    deliver(&system, &anna, "2");
    until_it_has(&system, 0, 2);
    run(&system, true, &["backup", "--to", &to, &anna]);
    let listed = run(&system, true, &["backup", "list", &to, &anna, "--json"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let said = run(&system, true, &["backup", "verify", &to]);
    assert!(said.contains("2 snapshots and 2 bodies read"), "{said}");

    // Rot, and a file that is gone: found, and fetched again although the account has not changed.
    let blobs = files(&folder.join("blobs"));
    let second = blobs.iter().find(|path| !first.contains(path)).unwrap();
    fs::write(&first[0], b"rot").unwrap();
    fs::remove_file(second).unwrap();
    let said = run(&system, false, &["backup", "verify", &to]);
    assert!(said.contains("1 damaged, 1 missing"), "{said}");
    let said = run(&system, true, &["backup", "--to", &to, "--all"]);
    assert!(said.contains("2 bodies fetched"), "{said}");
    run(&system, true, &["backup", "verify", &to]);
    assert_eq!(files(&folder.join("blobs")), blobs);

    // A snapshot that is cut is no snapshot.
    let snapshots = files(&folder.join("accounts"));
    let length = fs::metadata(&snapshots[0]).unwrap().len();
    let cut = fs::File::options().write(true).open(&snapshots[0]).unwrap();
    cut.set_len(length - 1).unwrap();
    let said = run(&system, false, &["backup", "verify", &to]);
    assert!(said.contains("1 damaged"), "{said}");
    run(&system, true, &["backup", "--to", &to, "--all"]);

    // The first message goes; with the last snapshot that names it goes its body.
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(&anna, &password);
    imap.command("SELECT INBOX");
    imap.command("UID STORE 1 +FLAGS (\\Deleted)");
    imap.command("EXPUNGE");
    let said = run(&system, true, &["backup", "--to", &to, "--all"]);
    assert!(said.starts_with("1 accounts taken"), "{said}");
    let said = run(&system, true, &["backup", "prune", &to, "--keep", "1"]);
    assert!(said.contains("and 1 bodies removed"), "{said}");
    assert_eq!(files(&folder.join("blobs")), std::slice::from_ref(second));
    run(&system, true, &["backup", "verify", &to]);

    // A run that was killed is not whole, and is gone on with.
    let runs = files(&folder.join("runs"));
    let last = runs.last().unwrap();
    let text = fs::read_to_string(last).unwrap();
    let begun: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(
        last.with_extension("begun"),
        begun[..begun.len() - 1].concat() + "{\"li",
    )
    .unwrap();
    fs::remove_file(last).unwrap();
    let listed = run(&system, true, &["backup", "list", &to]);
    assert!(listed.contains("not finished"), "{listed}");
    let said = run(&system, true, &["backup", "--to", &to, "--resume"]);
    assert!(said.contains("done before"), "{said}");
    let listed = run(&system, true, &["backup", "list", &to]);
    assert!(!listed.contains("not finished"), "{listed}");
    let said = run(&system, false, &["backup", "--to", &to, "--resume"]);
    assert!(said.contains("no unfinished run"), "{said}");
    let said = run(
        &system,
        false,
        &["backup", "verify", system.data.to_str().unwrap()],
    );
    assert!(said.contains("holds no backup"), "{said}");

    // A body that has rotted at its home keeps no other out of the backup, and is missed until it is there.
    deliver(&system, &anna, "3");
    until_it_has(&system, 0, 2);
    let volume = system.data.join(home(&system, &anna));
    let blob = eventually("the message is a file", || {
        let mut blobs = files(&volume.join("blobs"));
        blobs.retain(|path| fs::read(path).is_ok_and(|octets| octets.ends_with(b"letter 3\r\n")));
        blobs.pop()
    });
    let whole = fs::read(&blob).unwrap();
    fs::write(&blob, whole.to_ascii_uppercase()).unwrap();
    for _ in 0..2 {
        let said = run(&system, false, &["backup", "--to", &to, "--all"]);
        assert!(
            said.contains("cannot read 1 of its messages' bodies"),
            "{said}"
        );
        assert!(said.contains("the backup is not whole"), "{said}");
    }
    let said = run(&system, false, &["backup", "verify", &to]);
    assert!(said.contains("0 damaged, 1 missing"), "{said}");
    let said = run(
        &system,
        false,
        &[
            "restore",
            "--from",
            &to,
            &anna,
            "--mailbox",
            "INBOX",
            "--into",
            "Again",
        ],
    );
    assert!(said.contains("Again: 1 messages put back"), "{said}");
    // The same octets come again, and heal it: now the backup has them.
    deliver(&system, &anna, "3");
    eventually("it is whole again", || {
        (fs::read(&blob).ok()? == whole).then_some(())
    });
    let said = run(&system, true, &["backup", "--to", &to, "--all"]);
    // And the one put back into another mailbox, whose trace lines are a part of its body now.
    assert!(said.contains("2 bodies fetched"), "{said}");
    run(&system, true, &["backup", "verify", &to]);
}

/// Makes the last run of a backup one that was killed behind its `accounts`-th account.
fn break_off(folder: &Path, accounts: usize) {
    let last = files(&folder.join("runs")).pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let mut lines: String = text.split_inclusive('\n').take(1 + accounts).collect();
    lines += "{\"li";
    fs::write(last.with_extension("begun"), lines).unwrap();
    fs::remove_file(last).unwrap();
}

#[test]
fn a_broken_off_run_goes_on_with_what_it_was_asked_for_and_a_rotten_one_stops_nothing() {
    let system = System::start(&["--seed-accounts", "1"]);
    let [(anna, _), (bert, _)] = [0, 1].map(|at| system.demo(at));
    let carl = "user00000@example.test";
    for name in [&anna, &bert, carl] {
        deliver(&system, name, "1");
    }
    let folder = system.data.with_file_name("backup");
    let to = folder.to_str().unwrap().to_owned();
    let backup = ["backup", "--to", &to];
    run(&system, true, &[&backup[..], &[&anna, &bert]].concat());
    break_off(&folder, 1);
    let of_bert = ["backup", "list", &to, &bert, "--json"];
    let snapshot: serde_json::Value = serde_json::from_str(&run(&system, true, &of_bert)).unwrap();
    let number = snapshot["account"].as_str().unwrap();
    fs::remove_dir_all(folder.join("accounts/0").join(number)).unwrap();
    let said = run(
        &system,
        false,
        &[&backup[..], &["--resume", &bert]].concat(),
    );
    assert!(said.contains("cannot be used with"), "{said}");
    let said = run(&system, true, &[&backup[..], &["--resume"]].concat());
    assert!(
        said.starts_with("1 accounts taken, 0 unchanged") && said.contains(", 1 done before"),
        "{said}"
    );
    run(&system, true, &of_bert);
    let said = run(&system, false, &["backup", "list", &to, carl]);
    assert!(said.contains("has no account"), "nobody has asked: {said}");

    // What a check has found is not forgotten by a run that looks at nothing again.
    run(&system, true, &[&backup[..], &["--all"]].concat());
    break_off(&folder, 3);
    let bodies = files(&folder.join("blobs"));
    fs::remove_file(&bodies[0]).unwrap();
    run(&system, false, &["backup", "verify", &to]);
    let said = run(&system, true, &[&backup[..], &["--resume"]].concat());
    assert!(said.contains("3 done before; 0 bodies"), "{said}");
    let said = run(&system, true, &[&backup[..], &["--all"]].concat());
    assert!(said.contains("1 bodies fetched"), "{said}");

    // A run of which nothing can be read, and one of which the end is gone.
    let runs = files(&folder.join("runs"));
    fs::write(&runs[0], "").unwrap();
    let text = fs::read(&runs[1]).unwrap();
    fs::write(&runs[1], &text[..text.len() - 2]).unwrap();
    fs::write(folder.join("runs/2026-01-01T00:00:00.000Z.begun"), "").unwrap();
    let said = run(&system, false, &["backup", "list", &to]);
    for path in &runs[..2] {
        assert!(
            said.contains(&format!("{} is damaged: ", path.display())),
            "{said}"
        );
    }
    assert!(
        said.contains(" whole") && !said.contains("not finished"),
        "{said}"
    );
    run(&system, true, &["backup", "prune", &to, "--keep", "1"]);
    assert_eq!(files(&folder.join("runs")).len(), runs.len() + 1);
    let said = run(&system, false, &["backup", "verify", &to]);
    assert!(said.contains("2 damaged, 0 missing"), "{said}");
    run(&system, true, &["backup", "list", &to]);
    run(&system, true, &[&backup[..], &["--all"]].concat());
    run(&system, true, &["backup", "verify", &to]);

    // Who lives on another mail system is no failure: the backup of that is its own.
    let (imap, pop3) = ("plain:127.0.0.1:143", "plain:127.0.0.1:110");
    let add = ["backend", "add", "old", "--foreign-imap", imap];
    run(
        &system,
        true,
        &[&add[..], &["--foreign-pop3", pop3]].concat(),
    );
    let set = ["home", "set", carl, "--backend", "old", "--volume"];
    let set = [&set[..], &["foreign", "--from-epoch", "1"]].concat();
    run(&system, true, &set);
    let said = run(&system, true, &[&backup[..], &["--all"]].concat());
    assert!(
        said.contains("1 live on other mail systems, 0 failed"),
        "{said}"
    );
    let listed = run(&system, true, &["backup", "list", &to, "--json"]);
    assert!(listed.contains("\"abroad\":1"), "{listed}");
}

#[test]
fn mail_comes_back_once_to_whom_it_belongs_and_is_kept() {
    let system = System::start(&["--seed-accounts", "2"]);
    let [(anna, password), (bert, _)] = [0, 1].map(|at| system.demo(at));
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(&anna, &password);
    imap.command("CREATE Work");
    for letter in 0..20 {
        let text = format!("Subject: {letter}\r\n\r\n{letter}\r\n");
        imap.append("Work", "\\Deleted \\Seen", text.as_bytes());
    }
    let folder = system.data.with_file_name("backup");
    let from = folder.to_str().unwrap().to_owned();
    run(&system, true, &["backup", "--to", &from, "--all"]);
    imap.command("SELECT Work");
    imap.command("EXPUNGE");

    // Two people on call at once.
    let data = system.data.to_str().unwrap();
    let restore = |name: &str, more: &[&str]| -> (bool, String) {
        let common = ["restore", "--from", &from, name, "--mailbox", "Work"];
        posthouse(&[&common[..], more, &["--data", data]].concat())
    };
    let said = std::thread::scope(|scope| {
        let both = [0; 2].map(|_| scope.spawn(|| restore(&anna, &[])));
        both.map(|one| one.join().unwrap())
    });
    assert!(said.iter().all(|(success, _)| *success), "{said:?}");
    let status = imap.command("STATUS Work (MESSAGES DELETED)");
    assert!(
        status
            .iter()
            .any(|one| one.text.contains("(MESSAGES 20 DELETED 0)")),
        "{said:?} {status:?}"
    );

    // Into an account of which its home has nothing, as one that it has lost.
    let (success, said) = restore("user00000@example.test", &["--known-as", &anna]);
    assert!(success && said.contains("20 messages put back"), "{said}");

    // All mailboxes at once.
    imap.append("INBOX", "", b"Subject: last\r\n\r\n");
    run(&system, true, &["backup", "--to", &from, "--all"]);
    imap.command("DELETE Work");
    let said = run(&system, true, &["restore", "--from", &from, &anna]);
    assert!(
        said.contains("INBOX: 0 messages put back") && said.contains("Work: 20 messages put back"),
        "{said}"
    );

    // Of somebody who had the number before, nobody else is given anything unless it is said.
    let renamed = "anna.new@example.test";
    run(
        &system,
        true,
        &["account", "set", &anna, "--login-name", renamed],
    );
    run(
        &system,
        true,
        &["account", "set", &bert, "--login-name", &anna],
    );
    let (success, said) = restore(renamed, &[]);
    assert!(
        !success && said.contains(&format!("--known-as {anna}")),
        "{said}"
    );
    let (success, said) = restore(&anna, &[]);
    assert!(!success, "{said}");
    let (success, said) = restore(renamed, &["--known-as", &anna]);
    assert!(success && said.contains("20 were there"), "{said}");
    let (success, said) = restore(renamed, &["--known-as", "nobody@example.test"]);
    assert!(!success && said.contains("has no account nobody"), "{said}");
    // The next backup knows the new name, although nothing else has changed.
    run(&system, true, &["backup", "--to", &from, "--all"]);
    assert!(restore(renamed, &[]).0);
}
