//! The directory is killed: who is in stays in, who was in comes in again, mail for who is known arrives, and nobody hears
//! that somebody does not exist.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::provider::Provider;
use e2e::smtp::Smtp;
use posthouse::health::Condition;
use posthouse::nodes::Node;
use posthouse::ports::Port;
use rustix::process::Signal;

const DORA: &str = "dora@example.test";
const EMIL: &str = "emil@example.test";
const SENDER: &str = "carla@elsewhere.test";
const PASSWORD: &str = "open sesame";
const OTHER: &str = "open saysame";

fn settle(provider: &Provider, node: Node, change: impl Fn(&str) -> String) {
    let file = provider.settings(node);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, change(&text)).unwrap();
}

fn is_ready(provider: &Provider, node: Node) {
    eventually(&format!("{node} is ready"), || {
        (provider.condition(node) == Condition::Ready).then_some(())
    });
}

fn try_pop3(at: SocketAddr, user: &str, password: &str) -> Result<Pop3, String> {
    let mut pop3 = Pop3::connect(at);
    pop3.command(&format!("USER {user}"));
    pop3.try_command(&format!("PASS {password}"))?;
    Ok(pop3)
}

fn in_by_pop3(at: SocketAddr, user: &str) -> usize {
    let mut pop3 = eventually("the user gets in", || try_pop3(at, user, PASSWORD).ok());
    let count = pop3.count();
    pop3.command("QUIT");
    count
}

/// Whatever is refused, is refused for now. It takes its time, so all are asked at once.
fn are_temporary(logins: &[(SocketAddr, &str, &str)]) {
    std::thread::scope(|scope| {
        for (at, user, password) in logins {
            scope.spawn(move || {
                let refused = try_pop3(*at, user, password);
                let refused = refused.err().expect("a refusal");
                assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
            });
        }
    });
}

fn send(provider: &Provider, to: &str, subject: &str) {
    let mut smtp = Smtp::connect(provider.at(Port::Smtp));
    let octets = format!("Subject: {subject}\r\n\r\nbody\r\n");
    smtp.send(SENDER, &[to], octets.as_bytes()).expect(250);
}

/// Reads what comes until there are so many messages.
fn idle_until(imap: &mut Imap, exists: usize) {
    while imap.response().text != format!("* {exists} EXISTS") {}
}

#[test]
fn with_the_directory_killed_everything_goes_on_that_was_known_and_nobody_becomes_unknown() {
    let provider = Provider::new();
    let (imap, own_imap) = (provider.at(Port::Imap), provider.at(Port::BackendImap(0)));
    settle(&provider, Node::Proxy, |text| {
        format!("plaintext_login_on_loopback = true\nimap = \"{imap}\"\n{text}")
    });
    settle(&provider, Node::Backend(0), |text| {
        let listen = format!("[listen]\nplaintext_login = true\nimap = \"{own_imap}\"\n");
        text.replace("[listen]\n", &listen)
    });
    let mut directory = provider.start(Node::Directory);
    let others = [Node::Mx, Node::Proxy, Node::Backend(0), Node::Backend(1)];
    let [_mx, mut proxy, _b1, _b2] = others.map(|node| provider.start(node));
    for node in others.into_iter().chain([Node::Directory]) {
        is_ready(&provider, node);
    }
    _ = provider.operator(&["domain", "add", "example.test"], "");
    for user in [DORA, EMIL] {
        let add = ["account", "add", user, "--backend", "b1"];
        _ = provider.operator(&add, &format!("{PASSWORD}\n"));
    }
    let (pop3, own_pop3) = (provider.at(Port::Pop3), provider.at(Port::BackendPop3(0)));
    send(&provider, DORA, "before");

    let mut idling = Imap::connect(imap).login(DORA, PASSWORD);
    idling.command("SELECT INBOX");
    idling.idle();
    let mut own_imap = Imap::connect(own_imap).login(DORA, PASSWORD);
    own_imap.command("SELECT INBOX");
    own_imap.idle();
    let mut open = [pop3, own_pop3].map(|at| try_pop3(at, DORA, PASSWORD).unwrap());

    directory.signal(Signal::KILL);
    _ = directory.ended();

    // Who is in.
    for session in &mut open {
        assert_eq!(session.count(), 1);
        session.command("QUIT");
    }
    send(&provider, DORA, "while it is away");
    idle_until(&mut idling, 2);
    idle_until(&mut own_imap, 2);
    // Who was in.
    assert_eq!(in_by_pop3(pop3, DORA), 2);
    assert_eq!(in_by_pop3(own_pop3, DORA), 2);
    let mut back = Imap::connect(imap).login(DORA, PASSWORD);
    assert_eq!(back.messages("INBOX").len(), 2);
    // Who was not, who errs, and who is nobody.
    are_temporary(&[
        (pop3, EMIL, PASSWORD),
        (own_pop3, EMIL, PASSWORD),
        (pop3, DORA, "open says me"),
        (own_pop3, DORA, "open says me"),
        (pop3, "nobody@example.test", PASSWORD),
        (own_pop3, "nobody@example.test", PASSWORD),
    ]);
    let mut smtp = Smtp::connect(provider.at(Port::Smtp));
    smtp.command(&format!("MAIL FROM:<{SENDER}>")).expect(250);
    for unknown in [EMIL, "nobody@example.test", "nobody@elsewhere.test"] {
        smtp.command(&format!("RCPT TO:<{unknown}>")).expect(451);
    }

    // It is back: everybody is let in again, by it.
    let mut directory = provider.start(Node::Directory);
    for node in others.into_iter().chain([Node::Directory]) {
        is_ready(&provider, node);
    }
    assert_eq!(in_by_pop3(pop3, EMIL), 0);
    let mut smtp = Smtp::connect(provider.at(Port::Smtp));
    smtp.command(&format!("MAIL FROM:<{SENDER}>")).expect(250);
    eventually("the front-end hears that there is nobody", || {
        let reply = smtp.command("RCPT TO:<nobody@example.test>");
        assert!([451, 550].contains(&reply.code), "{}", reply.text);
        (reply.code == 550).then_some(())
    });
    send(&provider, EMIL, "known again");
    eventually("a wrong password is a wrong one again", || {
        let refused = try_pop3(pop3, DORA, "open says me").err().unwrap();
        refused.starts_with("-ERR [AUTH]").then_some(())
    });

    // With another password, which she has used at her home's listener alone, the old one lets nobody in.
    let change = ["account", "set", DORA, "--password"];
    _ = provider.operator(&change, &format!("{OTHER}\n"));
    eventually("the new password is known", || {
        try_pop3(own_pop3, DORA, OTHER).ok()
    });
    // A proxy that has only just come knows one back-end, of Emil, and finds out that Dora was there lately.
    proxy.signal(Signal::KILL);
    _ = proxy.ended();
    let _proxy = provider.start(Node::Proxy);
    is_ready(&provider, Node::Proxy);
    assert_eq!(in_by_pop3(pop3, EMIL), 1);
    directory.signal(Signal::KILL);
    _ = directory.ended();
    for at in [pop3, own_pop3] {
        eventually("the new password lets in", || {
            try_pop3(at, DORA, OTHER).ok()
        });
    }
    are_temporary(&[
        (pop3, DORA, PASSWORD),
        (own_pop3, DORA, PASSWORD),
        (pop3, "nobody@example.test", PASSWORD),
    ]);
    let mut directory = provider.start(Node::Directory);
    for node in others.into_iter().chain([Node::Directory]) {
        is_ready(&provider, node);
    }

    // It hangs: those who are known get in all the same, and everybody as soon as it goes on.
    directory.signal(Signal::STOP);
    assert_eq!(in_by_pop3(pop3, EMIL), 1);
    are_temporary(&[(pop3, EMIL, OTHER), (pop3, "nobody@example.test", PASSWORD)]);
    directory.signal(Signal::CONT);
    eventually("a wrong password is a wrong one again", || {
        let refused = try_pop3(pop3, EMIL, OTHER).err().unwrap();
        refused.starts_with("-ERR [AUTH]").then_some(())
    });
    let change = ["account", "set", DORA, "--password"];
    _ = provider.operator(&change, &format!("{PASSWORD}\n"));
    let mut again = Imap::connect(imap).login(DORA, PASSWORD);

    // Suspended, Dora is out at once, and stays out when it is away again; Emil does not notice.
    for _ in 0..2 {
        assert_eq!(in_by_pop3(own_pop3, DORA), 2);
    }
    assert_eq!(in_by_pop3(pop3, DORA), 2);
    let suspend = ["account", "set", DORA, "--status", "suspended"];
    _ = provider.operator(&suspend, "");
    let refused = try_pop3(pop3, DORA, PASSWORD).err().unwrap();
    assert!(!refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    // It keeps logins at its own listener until it is told.
    eventually("the back-end has heard of it", || {
        let refused = try_pop3(own_pop3, DORA, PASSWORD).err()?;
        (!refused.starts_with("-ERR [SYS/TEMP]")).then_some(())
    });
    assert_eq!(in_by_pop3(pop3, EMIL), 1);
    directory.signal(Signal::KILL);
    _ = directory.ended();
    are_temporary(&[(pop3, DORA, PASSWORD), (own_pop3, DORA, PASSWORD)]);
    assert_eq!(in_by_pop3(pop3, EMIL), 1);
    again.command("NOOP");
}
