//! A home is killed while mail arrives: a sibling holds it, is killed, too, and in the end each message is there once.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use e2e::eventually;
use e2e::pop3::Pop3;
use e2e::provider::Provider;
use e2e::smtp::Smtp;
use e2e::system::Running;
use posthouse::health::Condition;
use posthouse::nodes::Node;
use posthouse::ports::Port;
use rustix::process::Signal;

const ANN: &str = "ann@example.test";
const BOB: &str = "bob@example.test";
const PASSWORD: &str = "open sesame";
const SENDER: &str = "carla@elsewhere.test";
const HOME: Node = Node::Backend(0);
const SIBLING: Node = Node::Backend(1);

/// Ann lives on the first back-end, Bob on the second.
struct Site {
    provider: Provider,
    running: BTreeMap<&'static str, Running>,
}

impl Site {
    fn new() -> Self {
        let provider = Provider::new();
        for (node, port) in [
            (HOME, Port::BackendPop3(0)),
            (SIBLING, Port::BackendPop3(1)),
        ] {
            let text = std::fs::read_to_string(provider.settings(node)).unwrap();
            let at = format!("pop3 = \"{}\"", provider.at(port));
            let clear = format!("plaintext_login = true\n{at}");
            std::fs::write(provider.settings(node), text.replace(&at, &clear)).unwrap();
        }
        let mut site = Self {
            provider,
            running: BTreeMap::new(),
        };
        for node in [Node::Directory, HOME, SIBLING, Node::Mx] {
            site.start(node);
        }
        _ = site
            .provider
            .operator(&["domain", "add", "example.test"], "");
        for (user, home) in [(ANN, "b1"), (BOB, "b2")] {
            let add = ["account", "add", user, "--backend", home];
            _ = site.provider.operator(&add, &format!("{PASSWORD}\n"));
        }
        site
    }

    fn start(&mut self, node: Node) {
        let started = self.provider.start(node);
        self.running.insert(node.name(), started);
        eventually(&format!("{node} is ready"), || {
            (self.provider.condition(node) == Condition::Ready).then_some(())
        });
    }

    fn kill(&mut self, node: Node) {
        let mut running = self.running.remove(node.name()).unwrap();
        running.signal(Signal::KILL);
        _ = running.ended();
    }

    fn smtp(&self) -> Smtp {
        Smtp::connect(self.provider.at(Port::Smtp))
    }

    fn held(&self) -> u64 {
        let listed = self.provider.operator(&["hold", "list", "--json"], "");
        let count = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            row["total"].as_u64().unwrap()
        };
        listed.lines().map(count).sum()
    }

    fn pop3(&self, user: &str) -> SocketAddr {
        self.provider
            .at(Port::BackendPop3(usize::from(user == BOB)))
    }

    /// The subjects in a mailbox, and how often each is there.
    fn subjects(&self, user: &str) -> BTreeMap<String, usize> {
        let mut pop3 = Pop3::connect(self.pop3(user)).login(user, PASSWORD);
        let mut found = BTreeMap::new();
        for message in pop3.messages() {
            let text = String::from_utf8(message).unwrap();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
            *found.entry(subject.unwrap().to_owned()).or_default() += 1;
        }
        found
    }

    /// Waits until all of these are there, and looks whether one is there twice.
    fn once_each(&self, user: &str, subjects: &[String]) {
        eventually(&format!("{} messages for {user}", subjects.len()), || {
            (self.subjects(user).len() >= subjects.len()).then_some(())
        });
        eventually("nothing is held any more", || {
            (self.held() == 0).then_some(())
        });
        let found = self.subjects(user);
        let wanted: BTreeMap<_, _> = subjects.iter().map(|one| (one.clone(), 1)).collect();
        assert_eq!(found, wanted);
    }
}

fn message(subject: &str) -> Vec<u8> {
    format!("Subject: {subject}\r\n\r\nbody\r\n").into_bytes()
}

#[test]
fn mail_for_a_home_that_is_down_is_held_by_a_sibling_and_comes_once_when_it_is_back() {
    let mut site = Site::new();
    let mut smtp = site.smtp();
    smtp.send(SENDER, &[ANN], &message("before")).expect(250);
    // In the middle of a body.
    smtp.command(&format!("MAIL FROM:<{SENDER}>")).expect(250);
    for user in [ANN, BOB] {
        smtp.command(&format!("RCPT TO:<{user}>")).expect(250);
    }
    smtp.command("DATA").expect(354);
    site.kill(HOME);
    let middle = message("in the middle");
    smtp.command(
        &String::from_utf8(middle)
            .unwrap()
            .replace("body\r\n", "body\r\n."),
    )
    .expect(250);
    // While it is down: for it alone, and with others; a body that is larger than what a front-end keeps.
    smtp.send(SENDER, &[ANN], &message("to nobody else"))
        .expect(250);
    smtp.send("", &[ANN, BOB], &message("to both")).expect(250);
    let large = [message("large"), b"0123456789abcdef\r\n".repeat(60_000)].concat();
    smtp.send(SENDER, &[ANN], &large).expect(250);
    assert_eq!(site.held(), 4);
    let listed = site.provider.operator(&["hold", "list", "--accounts"], "");
    assert!(listed.contains("b2"), "{listed}");

    site.start(HOME);
    let ann = [
        "before",
        "in the middle",
        "to nobody else",
        "to both",
        "large",
    ];
    site.once_each(ANN, &ann.map(str::to_owned));
    let bob = ["in the middle", "to both"].map(str::to_owned);
    site.once_each(BOB, &bob);
    smtp.send(SENDER, &[ANN], &message("after")).expect(250);
}

#[test]
fn what_a_home_never_takes_is_refused_to_its_sender_or_set_aside_when_it_was_held() {
    let mut site = Site::new();
    site.kill(HOME);
    let settings = site.provider.settings(HOME);
    let text = std::fs::read_to_string(&settings).unwrap();
    let small = "[limits]\nmessage_size_max_bytes = 1000000\n[listen]\n";
    std::fs::write(&settings, text.replace("[listen]\n", small)).unwrap();
    let large = [message("large"), b"0123456789abcdef\r\n".repeat(60_000)].concat();
    let mut smtp = site.smtp();
    // Nobody can know what the home will say of it.
    smtp.send(SENDER, &[ANN], &large).expect(250);
    smtp.send(SENDER, &[ANN], &message("small")).expect(250);
    assert_eq!(site.held(), 2);
    site.start(HOME);
    eventually("the message behind it has come", || {
        site.subjects(ANN).contains_key("small").then_some(())
    });
    eventually("it is set aside", || {
        let listed = site.provider.operator(&["hold", "list", "--accounts"], "");
        listed.contains("1 set aside (too_large)").then_some(())
    });
    smtp.send(SENDER, &[ANN], &large).expect(552);
    assert_eq!(site.held(), 1);
    let drop = ["hold", "drop", ANN, "--set-aside"];
    _ = site.provider.operator(&drop, "");
    site.once_each(ANN, &["small".to_owned()]);
}

#[test]
fn what_is_held_survives_kills_of_holder_home_and_directory_and_is_fed_once() {
    let mut site = Site::new();
    site.kill(HOME);
    site.kill(SIBLING);
    // Slowly, so that there is time to kill.
    let slowly = "[hold]\nfeed_share_percent = 20\n[listen]\n";
    let settings = site.provider.settings(SIBLING);
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("[listen]\n", slowly)).unwrap();
    site.start(SIBLING);
    let mut smtp = site.smtp();
    let mut subjects = Vec::new();
    for number in 0..150 {
        let subject = format!("number {number}");
        smtp.send(SENDER, &[ANN], &message(&subject)).expect(250);
        subjects.push(subject);
    }
    // The holder is killed with the answer hardly out.
    site.kill(SIBLING);
    site.start(SIBLING);
    assert_eq!(site.held(), 150);

    // Both are killed while it feeds, and again.
    for _ in 0..2 {
        site.start(HOME);
        let before = site.held();
        eventually("some of it is fed", || (site.held() < before).then_some(()));
        site.kill(HOME);
        site.kill(SIBLING);
        site.start(SIBLING);
    }
    for number in 150..160 {
        let subject = format!("number {number}");
        smtp.send(SENDER, &[ANN], &message(&subject)).expect(250);
        subjects.push(subject);
    }
    assert!(site.held() >= 10);
    // The holder has not heard where the account lives since it was started, and nobody tells it.
    site.kill(Node::Directory);
    site.start_without_directory(HOME);
    let mut smtp = site.smtp();
    smtp.send(SENDER, &[ANN], &message("without directory"))
        .expect(250);
    subjects.push("without directory".to_owned());
    site.start(Node::Directory);
    site.once_each(ANN, &subjects);
}

impl Site {
    fn start_without_directory(&mut self, node: Node) {
        let started = self.provider.start(node);
        self.running.insert(node.name(), started);
    }
}
