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
    for (user, backend) in users {
        let added = provider.operator(
            &["account", "add", user, "--backend", backend, "--json"],
            "open sesame\n",
        );
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
