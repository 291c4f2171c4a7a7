//! Every process can be killed at any moment: it comes back, and what was acknowledged is there, once.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use e2e::pop3::Pop3;
use e2e::smtp::Smtp;
use e2e::system::System;
use e2e::{eventually, system};
use rustix::process::{Pid, Signal, test_kill_process};

const SENDER: &str = "carla@elsewhere.test";

fn body(number: u32) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\nletter {number}\r\n").into_bytes()
}

/// How often each letter is in a mailbox.
fn letters(system: &System, at: usize) -> BTreeMap<String, usize> {
    let (user, password) = system.demo(at);
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(&user, &password);
    let mut found = BTreeMap::new();
    for message in pop3.messages() {
        let text = String::from_utf8(message).unwrap();
        let letter = text.trim_end().lines().next_back().unwrap().to_owned();
        *found.entry(letter).or_default() += 1;
    }
    found
}

#[test]
fn each_process_that_is_killed_comes_back_and_nothing_is_lost_or_doubled() {
    let mut system = System::start(&["--processes", "--seed-accounts", "1"]);
    let pids: Vec<u32> = system.endpoints.pids.values().copied().collect();
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().all(|pid| *pid != system.endpoints.pid));
    let to = [system.demo(0).0, system.demo(1).0];
    let to = to.each_ref().map(String::as_str);

    let mut sent = 0;
    let mut send = |system: &System| {
        sent += 1;
        // After a restart the first answer may be "later": the links inside are found anew.
        eventually("a message is accepted", || {
            let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
            let accepted = smtp.command(&format!("MAIL FROM:<{SENDER}>")).code == 250
                && to
                    .iter()
                    .all(|to| smtp.command(&format!("RCPT TO:<{to}>")).code == 250);
            // Once the body is sent a refusal could have been stored all the same, so it is no second try.
            accepted.then(|| {
                smtp.command("RSET").expect(250);
                smtp.send(SENDER, &to, &body(sent)).expect(250);
            })
        });
        sent
    };
    for node in ["b1", "mx", "b2", "proxy", "directory"] {
        send(&system);
        system.kill_and_wait(node);
    }
    let sent = send(&system);
    let expected: BTreeMap<String, usize> = (1..=sent)
        .map(|number| (format!("letter {number}"), 1))
        .collect();
    for at in [0, 1] {
        // A sibling may have held some of them.
        eventually("all have come", || {
            (letters(&system, at).len() >= expected.len()).then_some(())
        });
        assert_eq!(letters(&system, at), expected);
    }
}

#[test]
fn a_message_sent_again_by_who_did_not_read_the_answer_is_there_once() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (user, _) = system.demo(0);
    let times = |number: u32| {
        letters(&system, 0)
            .get(&format!("letter {number}"))
            .copied()
    };
    // The connection is cut with the answer unread, or before it.
    for cut_at_once in [false, true] {
        let number = u32::from(cut_at_once);
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.begin(SENDER, &[&user], &body(number));
        if cut_at_once {
            drop(smtp);
        } else {
            eventually("it has come", || times(number));
            drop(smtp);
        }
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.send(SENDER, &[&user], &body(number)).expect(250);
        assert_eq!(times(number), Some(1));
        // These answers are read: whoever sends it again means it, in this session and in others, however they end.
        smtp.send(SENDER, &[&user], &body(number)).expect(250);
        drop(smtp);
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.send(SENDER, &[&user], &body(number)).expect(250);
        smtp.command("QUIT").expect(221);
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.send(SENDER, &[&user], &body(number)).expect(250);
        assert_eq!(times(number), Some(4));
    }
}

#[test]
fn a_message_without_its_answer_is_there_once_or_not_at_all() {
    let mut system = System::start(&["--processes", "--seed-accounts", "1"]);
    let (user, _) = system.demo(0);
    for (number, node) in [(1, "b1"), (2, "mx")] {
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        smtp.begin(SENDER, &[&user], &body(number));
        system.kill_and_wait(node);
        let acknowledged = smtp.reply().code == 250;
        let count = || {
            let letters = letters(&system, 0);
            letters.get(&format!("letter {number}")).copied()
        };
        if acknowledged {
            // A sibling may hold it until its home is back.
            eventually("it has come", count);
        }
        let count = count().unwrap_or(0);
        assert!(
            count == 1 || (count == 0 && !acknowledged),
            "{node}: {count} of letter {number}"
        );
    }
}

#[test]
fn nothing_is_left_behind_when_the_supervisor_is_killed() {
    let mut system = System::start(&["--processes"]);
    let pids = system.endpoints.pids.clone();
    system.up.signal(Signal::KILL);
    system.up.ended();
    for (node, pid) in pids {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        eventually(&format!("{node} ends too"), || {
            test_kill_process(pid).is_err().then_some(())
        });
    }
    // The data folder is free again.
    let (success, said) = system::posthouse(&["down", "--data", system.data.to_str().unwrap()]);
    assert!(success && said.contains("nothing runs"), "{said}");
}

#[test]
fn a_terminal_signal_drains_the_processes() {
    let mut system = System::start(&["--processes"]);
    system.up.signal(Signal::INT);
    assert!(system.up.ended().success(), "{}", system.up.printed());
    assert!(
        system.up.printed().ends_with("done\n"),
        "{}",
        system.up.printed()
    );
}
