//! Every limit of a session one below, at, and one above, as a client meets it. What is above is refused and the
//! session goes on.

use tokio::time::Instant;

use crate::imap_client::Imap;
use crate::imap_dialogue::imap;
use crate::imap_messages::site;
use crate::site::{Dialogue, Site};

/// A command that must succeed or not, and nothing else may follow.
async fn decide(imap: &mut Imap, command: &str, is_taken: bool) {
    let answer = imap.command(command.as_bytes()).await;
    let shown: String = command.chars().take(60).collect();
    let refused = answer.tagged.starts_with("NO") || answer.tagged.starts_with("BAD");
    assert_eq!(refused, !is_taken, "{shown}: {}", answer.tagged);
    assert!(answer.untagged.is_empty() || is_taken, "{shown}");
    imap.ok("NOOP").await;
}

#[tokio::test]
async fn names_of_mailboxes() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for (length, is_taken) in [(1023, true), (1024, true), (1025, false)] {
        let name = "x".repeat(length);
        for command in [
            format!("CREATE {name}"),
            format!("STATUS {name} (MESSAGES)"),
            format!("CREATE {{{length}+}}\r\n{}", "y".repeat(length)),
            format!("RENAME {name} \"{}\"", "z".repeat(length)),
            format!("SUBSCRIBE {}", "z".repeat(length)),
        ] {
            decide(&mut imap, &command, is_taken).await;
        }
    }
    for (depth, is_taken) in [(63, true), (64, true), (65, false)] {
        let name = vec![format!("d{depth}"); depth].join("/");
        decide(&mut imap, &format!("CREATE {name}"), is_taken).await;
        decide(&mut imap, &format!("STATUS {name} (MESSAGES)"), is_taken).await;
    }
    // A patient search for names does not become a long one.
    let deep = "LIST \"\" \"%/%/%/%/%/*/*/*/*/*/*/*/*d*d*d*d*d*x\"";
    assert!(imap.ok(deep).await.untagged.is_empty());
}

#[tokio::test]
async fn mailboxes_that_notify_watches() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let mut beside = Imap::login(&backend, "ann").await;
    // With INBOX 999.
    for number in 2..1000 {
        beside.ok(&format!("CREATE m{number}")).await;
    }
    let watch = "NOTIFY SET (PERSONAL (MessageNew MessageExpunge))";
    for number in [1000, 1001] {
        decide(&mut imap, watch, true).await;
        beside.ok(&format!("CREATE m{number}")).await;
        beside.ok(&format!("APPEND m{number} {{1+}}\r\nx")).await;
        let told = imap.response().await;
        // RFC 5465 §5.8: one more, and from then on nothing is told.
        let expected: &[u8] = match number {
            1000 => b"* STATUS m1000 ",
            _ => b"* OK [NOTIFICATIONOVERFLOW]",
        };
        assert!(told.starts_with(expected), "{}", told.escape_ascii());
    }
    decide(&mut imap, watch, false).await;
    beside.append(b"x").await;
    decide(&mut imap, "NOOP", true).await;
    assert!(imap.ok("NOOP").await.untagged.is_empty());
    beside.ok("DELETE m1001").await;
    decide(&mut imap, watch, true).await;
    beside.append(b"x").await;
    assert!(imap.response().await.starts_with(b"* STATUS INBOX "));
}

#[tokio::test]
async fn keywords_of_a_message_and_of_a_mailbox() {
    let (_site, backend) = site().await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    imap.ok(&format!("APPEND INBOX{}", " {1+}\r\nx".repeat(6)))
        .await;
    let keywords = |from: usize, count: usize| {
        let words: Vec<String> = (from..from + count).map(|at| format!("k{at}")).collect();
        words.join(" ")
    };
    for (count, is_taken) in [(129, false), (127, true), (128, true)] {
        let words = keywords(0, count);
        decide(&mut imap, &format!("STORE 1 FLAGS ({words})"), is_taken).await;
        decide(
            &mut imap,
            &format!("STORE 2 FLAGS (\\Seen {words})"),
            is_taken,
        )
        .await;
        decide(
            &mut imap,
            &format!("APPEND INBOX ({words}) {{1+}}\r\nx"),
            is_taken,
        )
        .await;
    }
    decide(&mut imap, "STORE 1 +FLAGS (k128)", false).await;
    for message in [3, 4] {
        let words = keywords(128 * (message - 2), 128);
        decide(&mut imap, &format!("STORE {message} FLAGS ({words})"), true).await;
    }
    // 384 so far.
    let (most, last) = (keywords(384, 127), keywords(511, 1));
    decide(
        &mut imap,
        &format!("STORE 5 FLAGS ({most} {last} k512)"),
        false,
    )
    .await;
    decide(&mut imap, &format!("STORE 5 FLAGS ({most})"), true).await;
    decide(&mut imap, &format!("STORE 5 +FLAGS ({last})"), true).await;
    decide(&mut imap, "STORE 6 FLAGS (k512)", false).await;
    decide(&mut imap, "STORE 6 FLAGS (k511 K0)", true).await;
    let mut other = Imap::login(&backend, "ann").await;
    let told = other.ok("SELECT INBOX").await.lines();
    let flags = told
        .iter()
        .find(|line| line.starts_with("* FLAGS "))
        .unwrap();
    assert_eq!(flags.matches(" k").count(), 512);
}

#[tokio::test]
async fn keys_and_levels_of_a_search() {
    let (_site, backend) = site().await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    imap.append(b"Subject: x\r\n\r\ny").await;
    for (count, is_taken) in [(999, true), (1000, true), (1001, false)] {
        let pieces: Vec<String> = (0..count)
            .map(|at| format!("BODY.PEEK[1]<{at}.1>"))
            .collect();
        for command in [
            format!("SEARCH{}", " ALL".repeat(count)),
            format!("SEARCH {}ALL", "OR UNSEEN ".repeat(count - 1)),
            format!(
                "SEARCH {}ALL{}",
                "OR ".repeat(count - 1),
                " UNSEEN".repeat(count - 1)
            ),
            format!("UID SORT (DATE) UTF-8{}", " ALL".repeat(count)),
            format!("THREAD REFERENCES UTF-8{}", " ALL".repeat(count)),
            format!("FETCH 1 ({})", pieces.join(" ")),
        ] {
            decide(&mut imap, &command, is_taken).await;
        }
    }
    for (depth, is_taken) in [(31, true), (32, true), (33, false)] {
        let nested = format!(
            "SEARCH {}ALL UNSEEN{}",
            "(".repeat(depth),
            ")".repeat(depth)
        );
        decide(&mut imap, &nested, is_taken).await;
    }
    for (count, is_taken) in [(999, true), (1000, true), (1001, false)] {
        let keys = " SUBJECT {1+}\r\nx".repeat(count);
        decide(&mut imap, &format!("SEARCH{keys}"), is_taken).await;
    }
}

#[tokio::test]
async fn octets_of_a_message() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "message_size_max_bytes = 65536");
    backend.ready().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let mut asked = self::imap(&backend, "ann").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    for (size, is_taken) in [(65_535, true), (65_536, true), (65_537, false)] {
        let line = "0123456789abcde\r\n";
        let mut message = line.repeat(size / line.len());
        message.insert_str(0, &"x".repeat(size - message.len()));
        let head = format!("APPEND INBOX {{{size}+}}");
        if is_taken {
            decide(&mut imap, &format!("{head}\r\n{message}"), true).await;
            let two = format!("APPEND INBOX {{1+}}\r\nx {{{size}+}}\r\n{message}");
            decide(&mut imap, &two, true).await;
        } else {
            // What comes by itself is swallowed no further than a message may be.
            let mut unasked = self::imap(&backend, "ann").await;
            unasked.ask(&format!("a {head}"), "a NO [TOOBIG]").await;
            unasked.expect("* BYE").await;
        }
        let answer = if is_taken { "+ " } else { "a NO [TOOBIG]" };
        asked
            .ask(&format!("a APPEND INBOX {{{size}}}"), answer)
            .await;
        if is_taken {
            asked.send(message.as_bytes()).await;
            asked.say("").await;
            asked.expect("a OK").await;
        }
        let replies = lmtp.deliver(&["ann"], message.as_bytes()).await;
        assert_eq!(replies[0].starts_with("250 "), is_taken, "{replies:?}");
        let declared = format!("MAIL FROM:<> SIZE={size}");
        let answer = if is_taken { "250 " } else { "552 " };
        lmtp.ask(&declared, answer).await;
        lmtp.ask("RSET", "250 ").await;
    }
}

#[tokio::test]
async fn octets_of_a_login() {
    let (_site, backend) = site().await;
    for (user, password, is_read) in [
        (511, 1023, true),
        (512, 1024, true),
        (513, 1024, false),
        (512, 1025, false),
    ] {
        let mut outside = Dialogue::open(backend.imap).await;
        outside.expect("* OK").await;
        let (user, password) = ("u".repeat(user), "p".repeat(password));
        let answer = if is_read {
            "a NO [AUTHENTICATIONFAILED]"
        } else {
            "a "
        };
        let login = format!("a LOGIN {user} \"{password}\"");
        let quoted = outside.ask(&login, answer).await;
        let plain = format!("\0{user}\0{password}");
        let plain = data_encoding::BASE64.encode(plain.as_bytes());
        let sasl = outside
            .ask(&format!("a AUTHENTICATE PLAIN {plain}"), answer)
            .await;
        for told in [quoted, sasl] {
            assert!(!told.starts_with("a OK"), "{told}");
            assert_eq!(told.contains("AUTHENTICATIONFAILED"), is_read, "{told}");
        }
        outside.ask("b LOGIN ann@example.test pass", "b OK").await;
    }
}

#[tokio::test]
async fn time_for_a_login_and_between_commands() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let limits = "login_s = 1\npop3_idle_s = 1\nimap_idle_s = 1";
    let backend = site.backend_starting("b1", limits);
    backend.ready().await;
    for (what, address) in [("imap", backend.imap), ("pop3", backend.pop3)] {
        let began = Instant::now();
        let mut outside = Dialogue::open(address).await;
        outside.line().await;
        // What is said meanwhile does not make the time for the login longer.
        outside.say("NOOP").await;
        let mut lines = Vec::new();
        while let line @ 1.. = outside.line().await.len() {
            lines.push(line);
        }
        assert!(!lines.is_empty(), "{what} is told why");
        assert!(began.elapsed().as_millis() >= 1_000, "{what}");
        let mut inside = match what {
            "imap" => imap(&backend, "ann").await,
            _ => Dialogue::pop3(&backend, "ann").await,
        };
        let said = Instant::now();
        inside
            .ask("x NOOP", if what == "imap" { "x OK" } else { "-ERR" })
            .await;
        while !inside.line().await.is_empty() {}
        assert!(said.elapsed().as_millis() >= 1_000, "{what}");
    }
}
