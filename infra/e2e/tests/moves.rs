//! A move changes nothing that a user can see, whoever is killed on the way.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::programs::program;
use e2e::samples;
use e2e::smtp::Smtp;
use e2e::system::System;
use rustix::process::Signal;

const SENDER: &str = "carla@elsewhere.test";

/// What a user sees: the UIDL listing and every message.
#[derive(Debug, PartialEq)]
struct Mailbox {
    listing: String,
    messages: Vec<Vec<u8>>,
}

fn mailbox(system: &System, at: usize) -> Mailbox {
    let (user, password) = system.demo(at);
    // The directory may have been killed a moment ago.
    let mut pop3 = eventually("a login succeeds", || {
        let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3);
        pop3.command(&format!("USER {user}"));
        let let_in = pop3.try_command(&format!("PASS {password}"));
        let_in.ok().map(|_| pop3)
    });
    let listing = String::from_utf8(pop3.lines("UIDL")).unwrap();
    Mailbox {
        listing,
        messages: pop3.messages(),
    }
}

/// Runs `migrator`: whether it succeeded, and what it printed.
fn migrator(system: &System, arguments: &[&str]) -> (bool, String) {
    let output = command(system, arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

fn migrate(system: &System, arguments: &[&str]) -> String {
    let (success, printed) = migrator(system, arguments);
    assert!(success, "migrator {arguments:?}: {printed}");
    printed
}

fn command(system: &System, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("migrator"));
    command.args(arguments).arg("--data").arg(&system.data);
    command.stdin(Stdio::null());
    command
}

fn home(system: &System, account: &str) -> String {
    let data = system.data.to_str().unwrap();
    let (success, printed) =
        e2e::system::posthouse(&["account", "show", account, "--json", "--data", data]);
    assert!(success, "{printed}");
    let shown: serde_json::Value = serde_json::from_str(&printed).unwrap();
    shown["home"]["backend"].as_str().unwrap().to_owned()
}

/// Sends a message to both demo accounts; tries again while the answer is "later".
fn send(system: &System, octets: &[u8]) {
    let (anna, ben) = (system.demo(0).0, system.demo(1).0);
    eventually("a message is accepted", || {
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.command(&format!("MAIL FROM:<{SENDER}> BODY=8BITMIME"))
            .expect(250);
        let accepted = [&anna, &ben]
            .iter()
            .all(|to| smtp.command(&format!("RCPT TO:<{to}>")).code == 250);
        accepted.then(|| {
            smtp.command("RSET").expect(250);
            smtp.send(SENDER, &[&anna, &ben], octets).expect(250);
        })
    });
}

/// Inode to the number of its links, of every message file below a folder.
fn links(folder: &Path) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(metadata.ino(), metadata.nlink());
            }
        }
    }
    found
}

fn other<'a>(backend: &str) -> &'a str {
    if backend == "b1" { "b2" } else { "b1" }
}

#[test]
fn a_moved_account_keeps_every_identity_and_shares_bodies_at_its_new_home() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    let sent = samples::own();
    for sample in &sent {
        send(&system, &sample.octets);
    }
    let before = mailbox(&system, 0);
    assert_eq!(before.messages.len(), sent.len());
    let (from, to) = (home(&system, &anna), other(&home(&system, &anna)));

    let said = migrate(&system, &["move", &anna, "--to", to]);
    assert!(said.contains(&format!("from {from} to {to}")), "{said}");
    assert_eq!(home(&system, &anna), to);
    assert_eq!(mailbox(&system, 0), before);
    assert!(migrate(&system, &["status"]).contains("every move is finished"));

    // Ben had the same messages there: one inode, the blob and a link for each of the two.
    eventually("the moved messages share their inodes", || {
        let shared = links(&system.data.join(to).join("mail"));
        let linked = shared.values().filter(|links| **links >= 3).count();
        (linked >= sent.len()).then_some(())
    });

    send(&system, b"Subject: after\r\n\r\nat the new home\r\n");
    let after = mailbox(&system, 0);
    assert!(after.listing.starts_with(&before.listing));
    assert_eq!(after.messages.len(), before.messages.len() + 1);

    // And back again: the home it left takes it over whole.
    migrate(&system, &["move", &anna, "--to", &from]);
    assert_eq!(mailbox(&system, 0), after);
    send(&system, b"Subject: back\r\n\r\nat the old home\r\n");
    let back = mailbox(&system, 0);
    assert!(back.listing.starts_with(&after.listing));
    assert_eq!(back.messages.len(), after.messages.len() + 1);
}

#[test]
fn a_move_left_at_any_step_and_its_back_ends_killed_is_finished_by_resume() {
    let mut system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    let mut expected = Vec::new();
    for (number, until) in ["planned", "copying", "frozen", "verified", "switched"]
        .iter()
        .enumerate()
    {
        let body = format!("Subject: {until}\r\n\r\nletter {number}\r\n");
        send(&system, body.as_bytes());
        expected.push(body);
        // Its home was killed a moment ago: a sibling may have taken it.
        let before = eventually("the message has come", || {
            let before = mailbox(&system, 0);
            (before.messages.len() == expected.len()).then_some(before)
        });
        let from = home(&system, &anna);
        let to = other(&from);
        migrate(&system, &["move", &anna, "--to", to, "--until", until]);
        assert!(!migrate(&system, &["status"]).contains("every move is finished"));
        for process in ["b1", "b2", "directory"] {
            system.kill_and_wait(process);
        }
        eventually("the move is resumed", || {
            migrator(&system, &["resume"]).0.then_some(())
        });
        assert_eq!(home(&system, &anna), to, "{until}");
        assert_eq!(mailbox(&system, 0), before, "{until}");
    }
    send(&system, b"Subject: last\r\n\r\nletter last\r\n");
    for at in [0, 1] {
        eventually("the last message has come", || {
            (mailbox(&system, at).messages.len() > expected.len()).then_some(())
        });
        assert_eq!(mailbox(&system, at).messages.len(), expected.len() + 1);
    }
}

#[test]
fn a_migrator_killed_at_any_moment_leaves_exactly_one_complete_home() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    for number in 0..20 {
        send(
            &system,
            format!("Subject: {number}\r\n\r\nletter {number}\r\n").as_bytes(),
        );
    }
    let before = mailbox(&system, 0);
    // A whole move takes some tens of milliseconds: every kill falls somewhere within.
    for milliseconds in (0..120).step_by(8) {
        let to = other(&home(&system, &anna));
        let mut child = spawn(&system, &["move", &anna, "--to", to]);
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        migrate(&system, &["resume"]);
        assert_eq!(
            mailbox(&system, 0),
            before,
            "killed after {milliseconds} ms"
        );
    }
}

fn spawn<A: AsRef<OsStr>>(system: &System, arguments: &[A]) -> Child {
    let mut command = Command::new(program("migrator"));
    command.args(arguments).arg("--data").arg(&system.data);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_session_open_when_its_account_is_frozen_ends_with_a_temporary_answer() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, password) = system.demo(0);
    send(&system, b"Subject: one\r\n\r\nletter\r\n");
    let before = mailbox(&system, 0);
    let mut open = Imap::connect(system.endpoints.proxy.imap).login(&anna, &password);
    open.command("SELECT INBOX");
    let to = other(&home(&system, &anna));
    migrate(&system, &["move", &anna, "--to", to, "--until", "frozen"]);

    let bye = open.response().text;
    assert!(bye.contains("BYE [UNAVAILABLE]"), "{bye}");
    let mut late = Pop3::connect(system.endpoints.proxy.pop3);
    late.command(&format!("USER {anna}"));
    let refused = late.try_command(&format!("PASS {password}")).unwrap_err();
    assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    // Its home holds it until the account lives somewhere again.
    smtp.send(SENDER, &[&anna], b"Subject: late\r\n\r\nlater\r\n")
        .expect(250);

    migrate(&system, &["resume"]);
    let after = eventually("what was held has followed", || {
        let after = mailbox(&system, 0);
        (after.messages.len() > before.messages.len()).then_some(after)
    });
    // The session ended without QUIT: nothing was deleted.
    assert!(after.listing.starts_with(&before.listing));
    assert_eq!(after.messages.len(), before.messages.len() + 1);
}

#[test]
fn a_pop3_session_is_waited_for_and_what_it_has_deleted_is_deleted() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, password) = system.demo(0);
    for number in 0..3 {
        send(
            &system,
            format!("Subject: {number}\r\n\r\nletter\r\n").as_bytes(),
        );
    }
    let mut open = Pop3::connect(system.endpoints.proxy.pop3).login(&anna, &password);
    open.command("DELE 1");
    let to = other(&home(&system, &anna));
    let mut moving = spawn(&system, &["move", &anna, "--to", to]);
    eventually("the move copies", || {
        let status = migrate(&system, &["status"]);
        status.contains("Copying").then_some(())
    });
    open.command("STAT");
    open.command("QUIT");
    assert!(moving.wait().unwrap().success());
    assert_eq!(home(&system, &anna), to);
    assert_eq!(mailbox(&system, 0).messages.len(), 2);
}

#[test]
fn mail_that_comes_while_an_account_moves_to_and_fro_is_there_once() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) || sent < 50 {
                // Later is no loss: the sender keeps it, and tries again.
                let body = format!("Subject: {sent}\r\n\r\nletter {sent}\r\n");
                eventually("a message is accepted", || {
                    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
                    let reply = smtp.try_send(SENDER, &[&anna], body.as_bytes());
                    assert!(matches!(reply.code, 250 | 450..=452), "{}", reply.text);
                    (reply.code == 250).then_some(())
                });
                sent += 1;
            }
            sent
        });
        for number in 0..8u64 {
            let to = other(&home(&system, &anna));
            if number % 2 == 0 {
                migrate(&system, &["move", &anna, "--to", to]);
            } else {
                // Whoever is at work is killed, and another goes on.
                let mut child = spawn(&system, &["move", &anna, "--to", to]);
                std::thread::sleep(Duration::from_millis(30 * number));
                child.kill().unwrap();
                child.wait().unwrap();
                migrate(&system, &["resume"]);
            }
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    // What came while nobody could write was held, and follows in its own time.
    let messages = eventually("what was held has followed", || {
        let messages = mailbox(&system, 0).messages;
        (messages.len() >= sent).then_some(messages)
    });
    let mut letters: Vec<usize> = messages
        .iter()
        .map(|message| String::from_utf8_lossy(message).trim_end().to_owned())
        .map(|text| text.lines().next_back().unwrap().to_owned())
        .map(|line| line.strip_prefix("letter ").unwrap().parse().unwrap())
        .collect();
    letters.sort_unstable();
    assert_eq!(letters, (0..sent).collect::<Vec<_>>());
}

#[test]
fn an_old_home_that_was_stopped_takes_nothing_when_it_wakes_up() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    send(&system, b"Subject: one\r\n\r\nbefore\r\n");
    let from = home(&system, &anna);
    let to = other(&from);
    let backend = usize::from(from == "b2");
    let mut waiting = Smtp::connect_lmtp(system.endpoints.backends[backend].lmtp);
    waiting
        .command(&format!("MAIL FROM:<{SENDER}>"))
        .expect(250);
    waiting.command(&format!("RCPT TO:<{anna}>")).expect(250);
    waiting.command("DATA").expect(354);
    migrate(&system, &["move", &anna, "--to", to, "--until", "switched"]);
    let pid = system.endpoints.pids[&*from];
    e2e::system::send(pid, Signal::STOP);
    // It finds this when it wakes up.
    waiting.write(b"Subject: late\r\n\r\nto the old home\r\n");
    let mut resumed = spawn(&system, &["resume"]);
    // The new one serves, whatever the old one does.
    eventually("the new home takes mail", || {
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        let reply = smtp.try_send(SENDER, &[&anna], b"Subject: two\r\n\r\nafter\r\n");
        (reply.code == 250).then_some(())
    });
    e2e::system::send(pid, Signal::CONT);
    let verdict = waiting.reply();
    assert_eq!(verdict.code, 451, "{}", verdict.text);
    resumed.wait().unwrap();
    eventually("the old home is released", || {
        migrator(&system, &["resume"]).0.then_some(())
    });
    let seen = mailbox(&system, 0).messages;
    let last = |message: &Vec<u8>| String::from_utf8_lossy(message).trim_end().to_owned();
    let texts: Vec<String> = seen.iter().map(last).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].ends_with("before") && texts[1].ends_with("after"),
        "{texts:?}"
    );
}

#[test]
fn a_move_given_up_leaves_the_account_where_it_was() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    send(&system, b"Subject: one\r\n\r\nletter\r\n");
    let before = mailbox(&system, 0);
    let from = home(&system, &anna);
    for until in ["planned", "copying", "frozen", "verified"] {
        migrate(
            &system,
            &["move", &anna, "--to", other(&from), "--until", until],
        );
        let (success, said) = migrator(&system, &["move", &anna, "--to", other(&from)]);
        assert!(!success && said.contains("already being moved"), "{said}");
        migrate(&system, &["abort", &anna]);
        assert_eq!(home(&system, &anna), from);
        assert_eq!(mailbox(&system, 0), before, "{until}");
    }
    migrate(
        &system,
        &["move", &anna, "--to", other(&from), "--until", "switched"],
    );
    let (success, said) = migrator(&system, &["abort", &anna]);
    assert!(!success && said.contains("migrator resume"), "{said}");
    migrate(&system, &["resume"]);
    assert_eq!(mailbox(&system, 0), before);

    let (success, said) = migrator(&system, &["move", &anna, "--to", other(&from)]);
    assert!(!success && said.contains("already lives on"), "{said}");
    let (success, said) = migrator(&system, &["move", "nobody@example.test", "--to", "b1"]);
    assert!(!success && said.contains("there is no account"), "{said}");
    let (success, said) = migrator(&system, &["move", &anna, "--to", "b9"]);
    assert!(!success && !said.trim_end().contains('\n'), "{said}");
}

#[test]
fn two_migrators_at_once_move_an_account_once() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    for number in 0..5 {
        let letter = format!("Subject: {number}\r\n\r\nletter {number}\r\n");
        send(&system, letter.as_bytes());
    }
    let before = mailbox(&system, 0);
    for _ in 0..4 {
        let to = other(&home(&system, &anna));
        let order = ["move", &anna, "--to", to];
        let mut both = [spawn(&system, &order), spawn(&system, &order)];
        let ended = both.each_mut().map(|one| one.wait().unwrap().success());
        assert!(ended.contains(&true), "one of them did it");
        assert_eq!(home(&system, &anna), to);
        assert!(migrate(&system, &["status"]).contains("every move is finished"));
        assert_eq!(mailbox(&system, 0), before);
    }
}

#[test]
fn two_who_take_up_one_move_end_it_in_one_home() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (anna, _) = system.demo(0);
    send(&system, b"Subject: one\r\n\r\nletter\r\n");
    let before = mailbox(&system, 0);
    for until in ["planned", "copying", "frozen", "verified", "switched"] {
        let to = other(&home(&system, &anna));
        migrate(&system, &["move", &anna, "--to", to, "--until", until]);
        let mut both = [spawn(&system, &["resume"]), spawn(&system, &["resume"])];
        for one in &mut both {
            one.wait().unwrap();
        }
        // Where one has given up what the other was about to finish, that is told, and the account stays.
        eventually("the move is over", || {
            migrator(&system, &["resume"]).0.then_some(())
        });
        assert!(migrate(&system, &["status"]).contains("every move is finished"));
        assert_eq!(mailbox(&system, 0), before, "{until}");
    }
}

#[test]
fn an_account_that_is_removed_within_its_move_leaves_no_move_and_no_other_account_behind() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (anna, ben) = (system.demo(0).0, system.demo(1).0);
    send(&system, b"Subject: one\r\n\r\nletter\r\n");
    let before = mailbox(&system, 1);
    let to = other(&home(&system, &anna));
    migrate(&system, &["move", &anna, "--to", to, "--until", "frozen"]);
    let data = system.data.to_str().unwrap();
    let (removed, said) = e2e::system::posthouse(&["account", "remove", &anna, "--data", data]);
    if !removed {
        // Refused: it is said why, and nothing has happened.
        assert!(said.contains("mov"), "{said}");
    }
    let (_, said) = migrator(&system, &["resume"]);
    assert!(!said.contains("panicked"), "{said}");
    let status = migrate(&system, &["status"]);
    assert!(
        status.contains("every move is finished"),
        "{said}\n{status}"
    );
    assert_eq!(mailbox(&system, 1), before, "{ben} is served as ever");
}
