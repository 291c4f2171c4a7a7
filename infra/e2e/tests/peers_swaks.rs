//! swaks walks through SMTP and LMTP dialogues as other people's mail programs do. TLS is curl's part.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Command;

use e2e::pop3::Pop3;
use e2e::system::System;

/// Runs swaks; gives its exit code and the whole dialogue.
fn swaks(server: SocketAddr, to: &str, more: &[&str]) -> (i32, String) {
    let output = Command::new("swaks")
        .args([
            "--server",
            &server.ip().to_string(),
            "--port",
            &server.port().to_string(),
            "--timeout",
            "20",
        ])
        .args([
            "--ehlo",
            "client.example.test",
            "--from",
            "carla@elsewhere.test",
            "--to",
            to,
        ])
        .args(more)
        .output()
        .unwrap();
    let dialogue = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&dialogue).into_owned(),
    )
}

#[test]
fn swaks_delivers_in_every_way_we_offer_and_is_told_no_where_due() {
    let system = System::start(&["--seed-accounts", "2"]);
    let mx = system.endpoints.mx.smtp;
    let user = "user00000@example.test";
    let mut accepted = 0;
    let ways: [&[&str]; 4] = [
        &[],
        &["--pipeline"],
        &["--protocol", "SMTP"],
        &["--body", ".\n..\n.leading dot\nend"],
    ];
    for way in ways {
        let (code, dialogue) = swaks(mx, user, way);
        assert_eq!(code, 0, "{way:?}\n{dialogue}");
        accepted += 1;
    }
    let (code, dialogue) = swaks(
        system.endpoints.backends[0].lmtp,
        user,
        &["--protocol", "LMTP"],
    );
    assert_eq!(code, 0, "{dialogue}");
    accepted += 1;

    // 24: no recipient was accepted.
    let (code, dialogue) = swaks(mx, "nobody@example.test", &[]);
    assert_eq!(code, 24, "{dialogue}");
    assert!(dialogue.contains("550 5.1.1"), "{dialogue}");
    let (code, dialogue) = swaks(mx, "anna@elsewhere.test", &[]);
    assert_eq!(code, 24, "{dialogue}");
    // 23: MAIL was refused.
    let (code, dialogue) = swaks(mx, user, &["--from", "<not an address"]);
    assert_eq!(code, 23, "{dialogue}");
    // One good recipient is enough for the message.
    let (code, dialogue) = swaks(mx, "user00001@example.test,nobody@example.test", &[]);
    assert_eq!(code, 0, "{dialogue}");

    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(user, "pass");
    let messages = pop3.messages();
    assert_eq!(messages.len(), accepted);
    let dotted = String::from_utf8_lossy(&messages[3]);
    assert!(
        dotted.contains("\r\n.\r\n..\r\n.leading dot\r\nend\r\n"),
        "{dotted}"
    );
    assert_eq!(
        Pop3::connect(system.endpoints.proxy.pop3)
            .login("user00001@example.test", "pass")
            .count(),
        1
    );
}
