//! The proxy between real tiers: back-ends that stop answering, and what an operator does to sessions.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::programs::program;
use e2e::system::{self, System};
use rustix::process::Signal;

/// Runs `posthouse` on the system; what it printed.
fn posthouse(system: &System, arguments: &[&str]) -> String {
    let data = system.data.to_str().unwrap();
    let (success, printed) = system::posthouse(&[arguments, &["--data", data]].concat());
    assert!(success, "{arguments:?}: {printed}");
    printed
}

fn home(system: &System, account: &str) -> String {
    let shown = posthouse(system, &["account", "show", account, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown["home"]["backend"].as_str().unwrap().to_owned()
}

/// Sees to it that the two demo accounts live on different back-ends; where.
fn apart(system: &System) -> [String; 2] {
    let [first, second] = [0, 1].map(|at| system.demo(at).0);
    let at = home(system, &first);
    let other = if at == "b1" { "b2" } else { "b1" };
    if home(system, &second) == at {
        let output = Command::new(program("migrator"))
            .args(["move", &second, "--to", other, "--data"])
            .arg(&system.data)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    [at.clone(), other.to_owned()]
}

/// One login: the answer, and how long it took.
fn try_login(system: &System, at: usize) -> (Result<String, String>, Duration) {
    let (user, password) = system.demo(at);
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3);
    pop3.command(&format!("USER {user}"));
    let began = Instant::now();
    (
        pop3.try_command(&format!("PASS {password}")),
        began.elapsed(),
    )
}

fn logged_in(system: &System, at: usize) -> Pop3 {
    let (user, password) = system.demo(at);
    Pop3::connect(system.endpoints.proxy.pop3).login(&user, &password)
}

#[test]
fn a_back_end_that_stops_or_dies_is_told_and_users_of_the_other_notice_nothing() {
    let system = System::start(&["--processes", "--seed-accounts", "1"]);
    let [stopped, _] = apart(&system);
    let mut open = logged_in(&system, 1);
    drop(logged_in(&system, 0));

    let pid = system.endpoints_now().pids[&stopped];
    system::send(pid, Signal::STOP);
    // Nobody knows yet that it will not answer.
    let (first, _) = try_login(&system, 0);
    assert!(first.unwrap_err().starts_with("-ERR [SYS/TEMP]"));
    for _ in 0..3 {
        let (next, took) = try_login(&system, 0);
        assert!(next.unwrap_err().starts_with("-ERR [SYS/TEMP]"));
        // Ten seconds is what it was waited for the first time.
        assert!(took < Duration::from_secs(7), "{took:?}");
    }
    open.command("NOOP");
    drop(logged_in(&system, 1));
    system::send(pid, Signal::CONT);
    eventually("users of the stopped back-end are let in again", || {
        try_login(&system, 0).0.ok()
    });

    system::send(pid, Signal::KILL);
    // It is started again at once: whichever answer comes, it comes soon.
    let (answer, took) = try_login(&system, 0);
    if let Err(refused) = answer {
        assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    }
    assert!(took < Duration::from_secs(7), "{took:?}");
    open.command("NOOP");
    drop(logged_in(&system, 1));
    eventually("users of the killed back-end are let in again", || {
        try_login(&system, 0).0.ok()
    });
    open.command("NOOP");
}

#[test]
fn an_operator_lists_sessions_ends_some_and_drains_back_end_and_proxy() {
    let system = System::start(&["--seed-accounts", "1"]);
    let [b, _] = apart(&system);
    let (anna, ben) = (system.demo(0).0, system.demo(1).0);
    let mut annas = logged_in(&system, 0);
    let mut bens = logged_in(&system, 1);
    let listed = posthouse(&system, &["connections", "--json"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let of_anna = posthouse(&system, &["connections", "--user", &anna, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&of_anna).unwrap();
    assert_eq!(shown["user"], anna);
    assert_eq!(shown["backend"], b);
    assert_eq!(shown["service"], "pop3");

    assert_eq!(
        posthouse(&system, &["kick", &anna]).trim(),
        "1 session ends"
    );
    assert!(annas.answer().unwrap_err().starts_with("-ERR [SYS/TEMP]"));
    bens.command("NOOP");

    // One session, in the middle of IDLE.
    let mut idle = Imap::connect(system.endpoints.proxy.imap).login(&ben, &system.demo(1).1);
    idle.command("SELECT INBOX");
    idle.idle();
    let listed = posthouse(&system, &["connections", "--user", &ben, "--json"]);
    let listed = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let of_imap = |shown: &serde_json::Value| shown["service"] == "imap";
    let shown: serde_json::Value = listed.into_iter().find(of_imap).unwrap();
    let session = shown["trace_id"].as_str().unwrap();
    let kick = ["kick", "--session", session];
    assert_eq!(posthouse(&system, &kick).trim(), "1 session ends");
    let last = idle.response().text;
    assert!(last.starts_with("* BYE [UNAVAILABLE]"), "{last}");
    bens.command("NOOP");

    // The back-end of one: the other's is not concerned.
    posthouse(&system, &["drain", &b]);
    let refused = try_login(&system, 0).0.unwrap_err();
    assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    drop(logged_in(&system, 1));
    posthouse(&system, &["drain", &b, "--undo"]);
    drop(logged_in(&system, 0));

    // The proxy: whoever is left is told to go, and waited for.
    let said = posthouse(&system, &["drain", "proxy", "--hard", "0"]);
    assert_eq!(said.lines().last(), Some("0 sessions open"));
    assert!(bens.answer().unwrap_err().starts_with("-ERR [SYS/TEMP]"));
    assert!(!system.status());
    posthouse(&system, &["drain", "proxy", "--undo"]);
    let listed = posthouse(&system, &["connections", "--user", &ben, "--json"]);
    assert_eq!(listed, "");
    drop(logged_in(&system, 1));

    let gone = [&kick[..], &["--data", system.data.to_str().unwrap()]].concat();
    let (success, printed) = system::posthouse(&gone);
    assert!(!success && printed.contains("no such session"), "{printed}");
    let unknown = ["drain", "nobody", "--data", system.data.to_str().unwrap()];
    let (success, printed) = system::posthouse(&unknown);
    assert!(!success && printed.contains("nobody"), "{printed}");
}
