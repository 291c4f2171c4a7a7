//! An operator brings back what users have deleted, by whichever protocol, with the real command.
#![allow(clippy::unwrap_used)]

use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::samples::own;
use e2e::smtp::Smtp;
use e2e::system::{System, posthouse};

const SENDER: &str = "carla@elsewhere.test";

fn undelete(system: &System, arguments: &[&str]) -> String {
    let data = system.data.to_str().unwrap();
    let (user, _) = system.demo(0);
    let all = [&["undelete", &user, "--data", data], arguments].concat();
    let (success, printed) = posthouse(&all);
    assert!(success, "{arguments:?}: {printed}");
    printed
}

#[test]
fn what_was_deleted_by_pop3_by_imap_and_with_its_mailbox_comes_back_byte_for_byte() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (user, password) = system.demo(0);
    let samples = own();
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    for sample in &samples {
        smtp.send(SENDER, &[&user], &sample.octets).expect(250);
    }
    let pop3 = || Pop3::connect(system.endpoints.proxy.pop3).login(&user, &password);
    let mut session = pop3();
    let before = session.messages();
    for number in 1..=before.len() {
        session.command(&format!("DELE {number}"));
    }
    session.command("QUIT");
    assert_eq!(pop3().count(), 0);

    let listed = undelete(&system, &["--list", "--last", "1h"]);
    assert_eq!(listed.lines().count(), 1 + before.len(), "{listed}");
    assert!(listed.contains("INBOX"), "{listed}");
    assert_eq!(
        undelete(&system, &["--since", "2100-01-01"]).trim(),
        "nothing to bring back"
    );
    undelete(&system, &["--last", "1h"]);
    assert_eq!(pop3().messages(), before);
    assert_eq!(undelete(&system, &[]).trim(), "nothing to bring back");

    // A session that is open is told.
    let mut watching = Imap::connect(system.endpoints.backends[0].imap).login(&user, &password);
    watching.command("SELECT INBOX");
    let mut imap = Imap::connect(system.endpoints.backends[0].imap).login(&user, &password);
    imap.command("CREATE Work/Old");
    imap.command("SELECT INBOX");
    imap.command("MOVE 1:2 Work/Old");
    imap.command("STORE 1:* +FLAGS (\\Deleted \\Flagged work)");
    imap.command("EXPUNGE");
    imap.command("DELETE Work/Old");
    watching.command("NOOP");
    // What was mistyped is no mailbox from which nothing has gone.
    let data = system.data.to_str().unwrap();
    for (wrong, told) in [
        (
            ["--mailbox", "Wrok/Old"],
            "there are some of: INBOX, Work/Old",
        ),
        (["--message", "99:1"], "no message 99:1 is kept"),
    ] {
        let line = [&["undelete", &user, "--data", data], &wrong[..]].concat();
        let (success, printed) = posthouse(&line);
        assert!(!success && printed.contains(told), "{printed}");
    }
    let listed = undelete(&system, &["--mailbox", "inbox", "--list"]);
    assert_eq!(listed.lines().count(), 1 + before.len() - 2, "{listed}");
    let printed = undelete(&system, &["--mailbox", "Work/Old"]);
    assert!(printed.contains("Work/Old"), "{printed}");
    let back: Vec<_> = imap.messages("Work/Old");
    assert_eq!(back.len(), 2);
    assert_eq!([&back[0].octets, &back[1].octets], [&before[0], &before[1]]);
    // One of the others by its name, into another mailbox, and then the rest.
    let listed = undelete(&system, &["--list", "--json"]);
    let first: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let name = format!("{}:{}", first["place"]["mailbox"], first["place"]["uid"]);
    undelete(&system, &["--message", &name, "--to", "Restored"]);
    let restored = imap.messages("Restored");
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].octets, before[2]);
    assert!(restored[0].flags.contains("work") && !restored[0].flags.contains("\\Deleted"));
    undelete(&system, &[]);
    let told = watching.command("NOOP");
    assert!(
        told.iter().any(|one| one.text.ends_with(" EXISTS")),
        "{told:?}"
    );
    let inbox: Vec<_> = imap
        .messages("INBOX")
        .into_iter()
        .map(|one| one.octets)
        .collect();
    assert_eq!(inbox, before[3..]);

    let (success, printed) = posthouse(&["undelete", "nobody@example.test", "--data", data]);
    assert!(
        !success && printed.contains("nobody@example.test"),
        "{printed}"
    );
}
