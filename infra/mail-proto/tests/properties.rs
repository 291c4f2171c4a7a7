//! What holds for any octets in any cut: no panic, the same events, bounded
//! memory.
#![allow(clippy::unwrap_used)]

mod support;

use mail_proto::login::{Config, Tls};
use mail_proto::pop3::{Maildrop, Policy, Transaction};
use mail_proto::smtp::{self, Mode, Reply, Server, Step};
use mail_proto::stuffing::DotStuffer;
use mail_proto::{Address, LoginDialogue, LoginStep, imap, pop3};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{Login, Smtp};
use testkit::dialogue::{Core, Seen};

/// What the cores must cope with: pieces that make sense in some state, and
/// pieces that never do.
fn input(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let noise = prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        ".",
        "\r\n.\r\n",
        "\n.\r\n",
        "\0",
        " ",
        "{",
        "\"",
        "\u{e9}",
    ])
    .prop_map(|noise| noise.as_bytes().to_vec());
    let long = (1000usize..9000).prop_map(|length| vec![b'x'; length]);
    vec(
        prop_oneof![12 => word, 4 => noise, 2 => vec(any::<u8>(), 0..20), 1 => long],
        0..40,
    )
    .prop_map(|parts| parts.concat())
}

const SMTP: &[&str] = &[
    "EHLO c.test\r\n",
    "LHLO c.test\r\n",
    "HELO c\r\n",
    "MAIL FROM:<a@b.test>\r\n",
    "MAIL FROM:<> SIZE=10\r\n",
    "RCPT TO:<c@d.test>\r\n",
    "RCPT TO:<@e:c@d.test>\r\n",
    "DATA\r\n",
    "BDAT 3\r\n",
    "BDAT 14 LAST\r\n",
    "Subject: x\r\n\r\n",
    "..\r\n",
    ".\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "VRFY x\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "EHLO c\r\nLHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "EHLO c\r\nLHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\n",
];

const POP3: &[&str] = &[
    "USER joe\r\n",
    "PASS secret\r\n",
    "PASS wrong\r\n",
    "AUTH PLAIN\r\n",
    "AGpvZQBzZWNyZXQ=\r\n",
    "AUTH LOGIN am9l\r\n",
    "*\r\n",
    "CAPA\r\n",
    "STLS\r\n",
    "STAT\r\n",
    "LIST\r\n",
    "UIDL 2\r\n",
    "RETR 1\r\n",
    "TOP 1 1\r\n",
    "DELE 1\r\n",
    "RSET\r\n",
    "QUIT\r\n",
    "USER joe\r\nPASS secret\r\n",
];

const IMAP: &[&str] = &[
    "a CAPABILITY\r\n",
    "b NOOP\r\n",
    "c ID NIL\r\n",
    "d LOGIN joe secret\r\n",
    "e LOGIN {3}\r\n",
    "f LOGIN {3+}\r\njoe",
    " {6+}\r\nsecret",
    "joe",
    " wrong\r\n",
    "g AUTHENTICATE PLAIN\r\n",
    "AGpvZQB3cm9uZw==\r\n",
    "h AUTHENTICATE LOGIN\r\n",
    "i LOGIN {2000+}\r\n",
    "j LOGIN \"joe\" \"x\"\r\n",
    "k STARTTLS\r\n",
    "l LOGOUT\r\n",
];

/// Feeds octets cut at these places (as parts of the whole, in percent).
fn seen(core: &mut impl Core, octets: &[u8], cuts: &[usize]) -> Seen {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut * octets.len() / 100).collect();
    places.push(octets.len());
    places.sort_unstable();
    let mut seen = Seen::default();
    let mut from = 0;
    core.settle(&mut seen);
    for to in places {
        let mut part = &octets[from..to];
        while !part.is_empty() && !seen.closed {
            let taken = core.receive(part);
            part = &part[taken..];
            core.settle(&mut seen);
        }
        from = to;
    }
    seen
}

fn same_for_every_cut<C: Core>(
    make: impl Fn() -> C,
    octets: &[u8],
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let whole = seen(&mut make(), octets, &[]);
    let bytes = seen(&mut make(), octets, &(0..100).collect::<Vec<_>>());
    let cut = seen(&mut make(), octets, cuts);
    for other in [bytes, cut] {
        prop_assert_eq!(
            String::from_utf8_lossy(&whole.output),
            String::from_utf8_lossy(&other.output)
        );
        prop_assert_eq!(&whole.events, &other.events);
        prop_assert_eq!(whole.closed, other.closed);
    }
    Ok(())
}

fn small(mode: Mode) -> Smtp {
    let mut config = smtp::Config::new(mode, "mx.test");
    config.starttls = true;
    config.size_max_bytes = 3000;
    config.recipients_max = 3;
    Smtp::with_config(config)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn smtp_does_the_same_for_every_cut(octets in input(SMTP), cuts in vec(0usize..100, 0..20)) {
        same_for_every_cut(|| small(Mode::Smtp), &octets, &cuts)?;
    }

    #[test]
    fn lmtp_does_the_same_for_every_cut(octets in input(SMTP), cuts in vec(0usize..100, 0..20)) {
        same_for_every_cut(|| small(Mode::Lmtp), &octets, &cuts)?;
    }

    #[test]
    fn pop3_does_the_same_for_every_cut(octets in input(POP3), cuts in vec(0usize..100, 0..20)) {
        same_for_every_cut(|| Login::new(false), &octets, &cuts)?;
    }

    #[test]
    fn imap_login_does_the_same_for_every_cut(octets in input(IMAP), cuts in vec(0usize..100, 0..20)) {
        same_for_every_cut(|| Login::new(true), &octets, &cuts)?;
    }

    #[test]
    fn any_octets_sent_stuffed_arrive_as_they_were(lines in vec("[a.]{0,5}", 0..20), cuts in vec(0usize..100, 0..9)) {
        let message = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut * message.len() / 100).collect();
        places.extend([0, message.len()]);
        places.sort_unstable();
        let mut wire = b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n".to_vec();
        let mut stuffer = DotStuffer::default();
        places.windows(2).for_each(|pair| stuffer.encode(&message[pair[0]..pair[1]], &mut wire));
        stuffer.finish(&mut wire);
        let told = seen(&mut Smtp::new(Mode::Smtp), &wire, &[]).events;
        prop_assert_eq!(told.last().unwrap(), &format!("body {:?}", String::from_utf8_lossy(&message)));
    }

    #[test]
    fn any_address_read_is_shown_as_one_that_reads_the_same(text in "[ -~]{0,12}@[a-z0-9.-]{1,9}|\"[ -~]{1,9}\"@d") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }
}

/// Feeds a flood without ever answering; returns how much was taken.
fn flood(mut receive: impl FnMut(&[u8]) -> usize) -> usize {
    (0..10_000).map(|_| receive(b"NOOP\r\nRETR 1\r\n")).sum()
}

#[test]
fn a_flood_behind_an_unanswered_question_takes_bounded_memory() {
    let mut server = Server::new(smtp::Config::new(Mode::Smtp, "mx.test"));
    server.receive(b"HELO c\r\nMAIL FROM:<>\r\n");
    while !matches!(server.next(), Step::Mail(_)) {}
    assert!(flood(|octets| server.receive(octets)) <= 64 * 1024);
    assert!(matches!(server.next(), Step::AwaitAnswer));
    server.refuse(Reply::new(451, (4, 3, 0), "later"));
    assert!(matches!(server.next(), Step::Send(_)));

    for mut login in [
        Box::new(pop3::Login::new(Config::new("mail.test", Tls::Active))) as Box<dyn LoginDialogue>,
        Box::new(imap::Login::new(Config::new("mail.test", Tls::Active))),
    ] {
        login.receive(b"AUTH PLAIN AGEAYg==\r\n");
        login.receive(b"a AUTHENTICATE PLAIN AGEAYg==\r\n");
        while !matches!(login.next(), LoginStep::Ask(_)) {}
        assert!(flood(|octets| login.receive(octets)) <= 64 * 1024);
    }

    let mut transaction = Transaction::new(Maildrop::new(1, Vec::new()), Policy::default(), b"");
    assert!(flood(|octets| transaction.receive(octets)) <= 64 * 1024);
}

#[test]
fn who_sends_on_before_it_may_is_known_and_who_may_is_not() {
    let cases: [(&[&str], bool); 12] = [
        (&["EHLO c.test\r\n"], false),
        (&["EHLO c.test\r\nMAIL FROM:<>\r\n"], true),
        (&["EHLO c.test\r\nMA"], true),
        (&["HELO c.test\r\nMAIL FROM:<>\r\n"], true),
        (&["NOOP\r\nNOOP\r\n"], true),
        (&["HELO c.test\r\n", "MAIL FROM:<>\r\nRSET\r\n"], true),
        (&["HELO c.test\r\n", "MAIL FROM:<>\r\n"], false),
        (
            &[
                "EHLO c.test\r\n",
                "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n",
            ],
            false,
        ),
        (
            &[
                "EHLO c.test\r\n",
                "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nx",
            ],
            true,
        ),
        (
            &[
                "EHLO c.test\r\n",
                "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nBDAT 1\r\nx",
            ],
            false,
        ),
        (&["EHLO c.test\r\n", "RSET\r\nRSET\r\nQUIT\r\nx"], false),
        (&["EHLO c.test\r\n", "RSET\r\nSTARTTLS\r\nRSET\r\n"], true),
    ];
    for (pieces, expected) in cases {
        let mut config = smtp::Config::new(Mode::Smtp, "mx.test");
        config.starttls = true;
        let mut server = Server::new(config);
        for piece in pieces {
            server.receive(piece.as_bytes());
            loop {
                match server.next() {
                    Step::NeedInput | Step::Close(_) | Step::StartTls | Step::BodyChunk(_) => break,
                    Step::Mail(_) | Step::Recipient(_) | Step::BodyStart | Step::StartTlsAsked => {
                        server.accept();
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(server.is_out_of_turn(), expected, "{pieces:?}");
    }
}

#[test]
fn what_is_said_to_who_is_not_greeted_is_said_instead_of_the_greeting() {
    let mut server = Server::new(smtp::Config::new(Mode::Smtp, "mx.test"));
    server.receive(b"EHLO c.test\r\n");
    server.shut(Reply::new(554, (5, 5, 0), "no"));
    let Step::Send(said) = server.next() else {
        panic!("nothing is said")
    };
    assert_eq!(said, b"554 5.5.0 no\r\n");
    assert!(matches!(server.next(), Step::Close(_)));
}

#[test]
fn plain_text_behind_starttls_is_dropped_however_much_it_is() {
    let mut config = smtp::Config::new(Mode::Smtp, "mx.test");
    config.starttls = true;
    let mut server = Server::new(config);
    server.receive(b"EHLO c\r\nSTARTTLS\r\nNOOP\r\n");
    while !matches!(server.next(), Step::StartTlsAsked) {}
    server.accept();
    while !matches!(server.next(), Step::StartTls) {}
    assert_eq!(
        flood(|octets| server.receive(octets)),
        140_000,
        "a shell keeps nothing it could feed later"
    );
    server.tls_started();
    assert!(matches!(server.next(), Step::NeedInput));

    let config = Config::new("mail.test", Tls::Offered);
    for (mut login, command) in [
        (
            Box::new(pop3::Login::new(config.clone())) as Box<dyn LoginDialogue>,
            &b"STLS\r\nQUIT\r\n"[..],
        ),
        (
            Box::new(imap::Login::new(config)),
            b"a STARTTLS\r\nb LOGOUT\r\n",
        ),
    ] {
        login.receive(command);
        while !matches!(login.next(), LoginStep::Ask(_)) {}
        assert_eq!(flood(|octets| login.receive(octets)), 140_000);
        login.tls_started(true);
        assert!(matches!(login.next(), LoginStep::NeedInput));
    }
}

#[test]
fn a_flood_of_short_commands_gathers_bounded_replies() {
    let mut config = smtp::Config::new(Mode::Smtp, "mx.test");
    config.errors.junk = u32::MAX;
    config.errors.hard = u32::MAX;
    config.errors.soft = u32::MAX;
    let mut server = Server::new(config);
    while server.room() >= 2 {
        server.receive(b"\r\n");
    }
    loop {
        match server.next() {
            Step::Send(octets) => assert!(octets.len() <= 8 * 1024),
            Step::NeedInput => break,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn a_pipelined_group_is_answered_in_one_write() {
    let mut server = Server::new(smtp::Config::new(Mode::Smtp, "mx.test"));
    assert!(matches!(server.next(), Step::Send(_)));
    server.receive(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    for _ in 0..4 {
        assert!(matches!(
            server.next(),
            Step::Mail(_) | Step::Recipient(_) | Step::BodyStart
        ));
        server.accept();
    }
    let Step::Send(octets) = server.next() else {
        panic!("no reply")
    };
    assert_eq!(String::from_utf8_lossy(octets).matches("\r\n").count(), 5);
    assert!(matches!(server.next(), Step::NeedInput));
}

#[test]
fn a_body_is_given_on_as_it_arrives() {
    let mut server = Server::new(smtp::Config::new(Mode::Smtp, "mx.test"));
    server.receive(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
    loop {
        match server.next() {
            Step::Mail(_) | Step::Recipient(_) | Step::BodyStart => server.accept(),
            Step::NeedInput => break,
            _ => {}
        }
    }
    server.receive(b"..one\r\n..two\r\nthr");
    let Step::BodyChunk(octets) = server.next() else {
        panic!("no chunk")
    };
    assert_eq!(
        octets, b".one\r\n.two\r\nthr",
        "one chunk for one read, however many dots"
    );
    assert!(matches!(server.next(), Step::NeedInput));
    server.receive(b"ee\r\n.\r\nNOOP\r\n");
    assert!(matches!(server.next(), Step::BodyChunk(b"ee\r\n")));
    assert!(matches!(server.next(), Step::BodyEnd { size: 19 }));
    assert!(
        server.has_unread_input(),
        "the client pipelines past its message"
    );
}
