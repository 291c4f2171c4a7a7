//! The five programs, each by itself, from settings files of its own.
#![allow(clippy::unwrap_used)]

use e2e::eventually;
use e2e::pop3::Pop3;
use e2e::provider::Provider;
use e2e::samples::{assert_delivered, own};
use e2e::smtp::Smtp;
use posthouse::health::Condition;
use posthouse::nodes::Node;
use posthouse::ports::Port;
use rustix::process::Signal;

const SENDER: &str = "carla@elsewhere.test";

#[test]
fn five_programs_started_in_an_odd_order_do_the_whole_journey() {
    let provider = Provider::new();
    let mut running = Vec::new();
    for node in [Node::Proxy, Node::Mx, Node::Backend(1), Node::Backend(0)] {
        running.push(provider.start(node));
    }
    for node in [Node::Proxy, Node::Mx, Node::Backend(0)] {
        eventually(
            "each says that it waits for the directory",
            || match provider.condition(node) {
                Condition::Waiting(what) => what
                    .iter()
                    .any(|what| what.contains("directory"))
                    .then_some(()),
                Condition::Ready => panic!("{node} is ready without a directory"),
                Condition::Away => None,
            },
        );
    }
    running.push(provider.start(Node::Directory));
    for node in Node::ALL {
        eventually("each is ready", || {
            (provider.condition(node) == Condition::Ready).then_some(())
        });
    }

    _ = provider.operator(&["domain", "add", "example.test"], "");
    let users = [("dora@example.test", "b1"), ("emil@example.test", "b2")];
    // The password, and what another server keeps of it.
    let hashed = "{SHA512-CRYPT}$6$98mAjSofbwT4CaM4$AUusUR/JQjMSqUDO4InUJU0y35oKT1TGSrso3l2IKCxvJiFFrXAGvYYGmgiW/Cu9c7i8KcynjtZX1zSJJSvhT1";
    let secrets = [(None, "open sesame"), (Some("--hashed"), hashed)];
    for ((user, backend), (read_as, secret)) in users.into_iter().zip(secrets) {
        let mut verb = vec!["account", "add", user, "--backend", backend, "--json"];
        verb.extend(read_as);
        let added = provider.operator(&verb, &format!("{secret}\n"));
        assert!(
            added.contains(user) && added.contains(backend) && !added.contains("sesame"),
            "{added}"
        );
    }
    _ = provider.operator(
        &[
            "address",
            "add",
            "both@example.test",
            "dora@example.test",
            "=emil@example.test",
        ],
        "",
    );

    let samples = own();
    let mut smtp = Smtp::connect(provider.at(Port::Smtp)).start_tls(&provider.ca());
    for sample in &samples {
        smtp.send(SENDER, &["both@example.test"], &sample.octets)
            .expect(250);
    }
    for (user, _) in users {
        let mut pop3 =
            Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca()).login(user, "open sesame");
        let messages = pop3.messages();
        assert_eq!(messages.len(), samples.len(), "{user}");
        for (message, sample) in messages.iter().zip(&samples) {
            assert_delivered(message, sample, SENDER);
        }
        pop3.command("QUIT");
    }
    for program in &running {
        program.signal(Signal::TERM);
    }
    for program in &mut running {
        assert!(program.ended().success(), "{}", program.printed());
    }
}

#[test]
fn a_settings_file_with_mistakes_is_refused_with_all_of_them_by_name() {
    let provider = Provider::new();
    let file = provider.settings(Node::Mx);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("recipents = 7\n{text}\n[limits]\nrecipients_max = \"25\"\n"),
    )
    .unwrap();
    let mut program = provider.start(Node::Mx);
    assert_eq!(program.ended().code(), Some(2));
    let said = program.printed();
    for expected in ["mx.toml", "recipents", "limits.recipients_max"] {
        assert!(said.contains(expected), "{expected} is not in: {said}");
    }
}

#[test]
fn a_back_end_without_one_of_its_disks_serves_the_users_of_the_other() {
    let provider = Provider::new();
    let settings = provider.settings(Node::Backend(0));
    let folder = |name: &str| settings.with_file_name(name);
    let text = std::fs::read_to_string(&settings).unwrap();
    let one = |name: &str| format!("{{ name = {name:?}, folder = {:?} }}", folder(name));
    let lines = text.lines().map(|line| match line.starts_with("data = ") {
        true => format!("volumes = [{}, {}]\n", one("d1"), one("d2")),
        false => format!("{line}\n"),
    });
    std::fs::write(&settings, lines.collect::<String>()).unwrap();
    let tiers = [Node::Directory, Node::Mx, Node::Proxy];
    let mut running = tiers.map(|node| provider.start(node));
    let mut backend = provider.start(Node::Backend(0));
    let is_ready = |node| {
        eventually("it is ready", || {
            (provider.condition(node) == Condition::Ready).then_some(())
        });
    };
    tiers
        .into_iter()
        .chain([Node::Backend(0)])
        .for_each(is_ready);
    _ = provider.operator(&["domain", "add", "example.test"], "");
    for (user, volume) in [("dora@example.test", "d1"), ("emil@example.test", "d2")] {
        let place = ["--backend", "b1", "--volume", volume];
        let verb = [&["account", "add", user][..], &place].concat();
        _ = provider.operator(&verb, "open sesame\n");
    }
    let octets = &own()[0].octets;
    let mut smtp = Smtp::connect(provider.at(Port::Smtp)).start_tls(&provider.ca());
    let users = ["dora@example.test", "emil@example.test"];
    smtp.send(SENDER, &users, octets).expect(250);
    smtp.command("QUIT").expect(221);
    let log_in = || Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca());
    for user in users {
        assert_eq!(log_in().login(user, "open sesame").count(), 1, "{user}");
    }
    // The machine comes up without the second disk: its mount point is empty.
    backend.signal(Signal::TERM);
    assert!(backend.ended().success(), "{}", backend.printed());
    std::fs::rename(folder("d2"), folder("d2.unmounted")).unwrap();
    std::fs::create_dir(folder("d2")).unwrap();
    let mut backend = provider.start(Node::Backend(0));
    eventually("health names the volume", || {
        match provider.condition(Node::Backend(0)) {
            Condition::Waiting(why) => why
                .iter()
                .any(|why| why.contains("volume d2 is not open") && why.contains("mount its disk"))
                .then_some(()),
            _ => None,
        }
    });
    eventually("the user of the disk that is there is served", || {
        let mut dora = log_in();
        dora.command("USER dora@example.test");
        dora.try_command("PASS open sesame").ok()
    });
    let mut smtp = Smtp::connect(provider.at(Port::Smtp)).start_tls(&provider.ca());
    // The disk that is there holds what the other one cannot take: Dora does not get it again at each of the sender's tries.
    let late = b"Subject: to one of two\r\n\r\nbody\r\n";
    smtp.send(SENDER, &users, late).expect(250);
    let mut dora = log_in().login("dora@example.test", "open sesame");
    assert_eq!(dora.count(), 2);
    dora.command("QUIT");
    let mut emil = log_in();
    emil.command("USER emil@example.test");
    let refused = emil.try_command("PASS open sesame").unwrap_err();
    assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    // It is mounted late, and nothing is started again.
    std::fs::remove_dir(folder("d2")).unwrap();
    std::fs::rename(folder("d2.unmounted"), folder("d2")).unwrap();
    is_ready(Node::Backend(0));
    eventually("what was held has followed", || {
        let mut emil = log_in().login("emil@example.test", "open sesame");
        let count = emil.count();
        emil.command("QUIT");
        (count == 2).then_some(())
    });
    let mut smtp = Smtp::connect(provider.at(Port::Smtp)).start_tls(&provider.ca());
    smtp.send(SENDER, &users, octets).expect(250);
    let mut emil = log_in().login("emil@example.test", "open sesame");
    assert_eq!(emil.count(), 3);
    emil.command("QUIT");
    for program in running.iter_mut().chain([&mut backend]) {
        program.signal(Signal::TERM);
    }
    for program in running.iter_mut().chain([&mut backend]) {
        assert!(program.ended().success(), "{}", program.printed());
    }
}
