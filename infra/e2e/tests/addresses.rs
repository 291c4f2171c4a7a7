//! Addresses that are not an account's own: subaddresses, catch-all, postmaster, and what is not ours.
#![allow(clippy::unwrap_used)]

use e2e::eventually;
use e2e::imap::Imap;
use e2e::provider::Provider;
use e2e::smtp::Smtp;
use posthouse::health::Condition;
use posthouse::nodes::Node;
use posthouse::ports::Port;

const ANN: &str = "ann@example.test";
const BOB: &str = "bob@example.test";
const PASSWORD: &str = "open sesame";

fn send(smtp: &mut Smtp, to: &str) {
    let octets = format!("Subject: to {to}\r\n\r\nbody\r\n");
    let from = "carla@elsewhere.test";
    smtp.send(from, &[to], octets.as_bytes()).expect(250);
}

#[test]
fn mail_finds_its_mailbox_by_subaddress_catch_all_and_postmaster() {
    let provider = Provider::new();
    let imap = provider.at(Port::BackendImap(0));
    let change = |node, change: &dyn Fn(&str) -> String| {
        let text = std::fs::read_to_string(provider.settings(node)).unwrap();
        std::fs::write(provider.settings(node), change(&text)).unwrap();
    };
    change(Node::Backend(0), &|text| {
        let listen = format!("[listen]\nplaintext_login = true\nimap = \"{imap}\"\n");
        text.replace("[listen]\n", &listen)
    });
    change(Node::Mx, &|text| format!("postmaster = \"{BOB}\"\n{text}"));
    let nodes = [Node::Directory, Node::Backend(0), Node::Mx];
    let _running = nodes.map(|node| provider.start(node));
    for node in nodes {
        eventually("each is ready", || {
            (provider.condition(node) == Condition::Ready).then_some(())
        });
    }
    _ = provider.operator(&["domain", "add", "example.test"], "");
    for user in [ANN, BOB] {
        let add = ["account", "add", user, "--backend", "b1"];
        _ = provider.operator(&add, &format!("{PASSWORD}\n"));
    }
    let mut ann = Imap::connect(imap).login(ANN, PASSWORD);
    for mailbox in ["Lists", "Lists/Rust", "Trash"] {
        ann.command(&format!("CREATE {mailbox}"));
    }
    ann.command("CREATE Old (USE (\\Trash))");

    let mut smtp = Smtp::connect(provider.at(Port::Smtp));
    let mut lmtp = Smtp::connect_lmtp(provider.at(Port::Lmtp(0)));
    send(&mut smtp, "ann+lists@example.test");
    send(&mut smtp, "Ann+LISTS/rust@example.test");
    // Neither among what she has thrown away, nor in a mailbox that a stranger names.
    send(&mut smtp, "ann+old@example.test");
    send(&mut smtp, "ann+trash@example.test");
    send(&mut smtp, "ann+new@example.test");
    send(&mut lmtp, "ann+lists@example.test");
    send(&mut smtp, "Postmaster");
    send(&mut smtp, "postmaster@example.test");
    smtp.command("MAIL FROM:<carla@elsewhere.test>").expect(250);
    smtp.command("RCPT TO:<nobody@example.test>").expect(550);
    smtp.command("RSET").expect(250);

    let count = |user: &str, mailbox: &str| {
        let mut imap = Imap::connect(imap).login(user, PASSWORD);
        imap.messages(mailbox).len()
    };
    for (mailbox, wanted) in [
        ("Lists", 2),
        ("Lists/Rust", 1),
        ("Old", 0),
        ("Trash", 0),
        ("INBOX", 3),
    ] {
        eventually(&format!("{wanted} in {mailbox}"), || {
            (count(ANN, mailbox) == wanted).then_some(())
        });
    }
    assert!(!ann.mailboxes().contains("new"));
    eventually("postmaster's mail is Bob's", || {
        (count(BOB, "INBOX") == 2).then_some(())
    });

    // An address that is known goes over to another one at once: known ones are kept for longer than anything is waited for here,
    // so nothing but the directory's word makes it so.
    _ = provider.operator(&["address", "add", "sales@example.test", ANN], "");
    let known = count(ANN, "INBOX");
    send(&mut smtp, "sales@example.test");
    eventually("sales is Ann's", || {
        (count(ANN, "INBOX") == known + 1).then_some(())
    });
    _ = provider.operator(&["address", "set", "sales@example.test", BOB], "");
    eventually("sales is Bob's", || {
        send(&mut smtp, "sales@example.test");
        (count(BOB, "INBOX") > 2).then_some(())
    });
    let bobs = count(BOB, "INBOX");
    send(&mut smtp, "sales@example.test");
    eventually("and stays it", || {
        (count(BOB, "INBOX") == bobs + 1).then_some(())
    });
    let bobs = bobs + 1;

    _ = provider.operator(&["address", "add", "*@example.test", BOB], "");
    let both = [
        "address",
        "add",
        "both@example.test",
        ANN,
        "=dora@elsewhere.test",
    ];
    let (_, warned) = provider.operator_warned(&both);
    assert!(
        warned.contains("dora@elsewhere.test, which is not ours"),
        "{warned}"
    );
    let gone = ["address", "add", "gone@example.test", "=left@example.test"];
    let (_, warned) = provider.operator_warned(&gone);
    assert!(
        warned.contains("left@example.test, which is nobody's"),
        "{warned}"
    );
    let fine = ["address", "add", "fine@example.test", "=sales@example.test"];
    assert_eq!(provider.operator_warned(&fine).1, "");
    eventually("the front-end knows the catch-all", || {
        smtp.command("MAIL FROM:<carla@elsewhere.test>").expect(250);
        let known = smtp.command("RCPT TO:<nobody@example.test>").code == 250;
        smtp.command("RSET").expect(250);
        known.then_some(())
    });
    send(&mut smtp, "nobody@example.test");
    eventually("so it gets it", || {
        (count(BOB, "INBOX") == bobs + 1).then_some(())
    });
    // Not one of the two alone.
    smtp.command("MAIL FROM:<carla@elsewhere.test>").expect(250);
    let refused = smtp.command("RCPT TO:<both@example.test>");
    refused.expect(451);
    assert!(refused.text.contains("4.3.2"), "{}", refused.text);
    let why = provider.operator(&["why", "nobody+x@example.test"], "");
    assert!(why.contains("*@example.test gets its mail"), "{why}");
    let why = provider.operator(&["why", "ann+x@example.test"], "");
    assert!(why.contains("subaddress of ann@example.test"), "{why}");
}
