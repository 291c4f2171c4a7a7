//! IMAP at the back-end where a dialogue in text does not reach: limits, floods, cuts, the end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::imap_dialogue::{deliver, framed, imap};
use crate::site::{Backend, Dialogue, PATIENCE, Site};

async fn site() -> (Site, Backend) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    (site, backend)
}

/// Says a command tagged `x` and gives every line of its answer.
async fn answer(imap: &mut Dialogue, command: &str) -> Vec<String> {
    imap.say(&format!("x {command}")).await;
    let mut lines = Vec::new();
    loop {
        lines.push(imap.line().await);
        let last = &lines[lines.len() - 1];
        if last.starts_with("x ") || last.is_empty() {
            return lines;
        }
    }
}

fn number_in(lines: &[String], before: &str) -> u64 {
    let line = lines
        .iter()
        .find_map(|line| line.split_once(before))
        .unwrap();
    let digits = line.1.find(|c: char| !c.is_ascii_digit()).unwrap();
    line.1[..digits].parse().unwrap()
}

#[tokio::test]
async fn a_reconnect_with_qresync_is_told_what_vanished_meanwhile() {
    let (_site, backend) = site().await;
    let mut first = imap(&backend, "ann").await;
    first
        .say("a APPEND INBOX {1+}\r\n1 (\\Deleted) {1+}\r\n2 {1+}\r\n3")
        .await;
    first.expect("a OK").await;
    let opened = answer(&mut first, "SELECT INBOX").await;
    let uidvalidity = number_in(&opened, "[UIDVALIDITY ");
    let modseq = number_in(&opened, "[HIGHESTMODSEQ ");
    first.ask("b EXPUNGE", "* 2 EXPUNGE").await;
    first.expect("b OK").await;
    deliver(&backend, "ann", "Subject: new").await;
    let mut second = imap(&backend, "ann").await;
    answer(&mut second, "ENABLE QRESYNC").await;
    let select = format!("SELECT INBOX (QRESYNC ({uidvalidity} {modseq} 1:3))");
    let lines = answer(&mut second, &select).await;
    assert!(
        lines.contains(&"* VANISHED (EARLIER) 2".to_owned()),
        "{lines:?}"
    );
    assert!(lines.contains(&"* 3 EXISTS".to_owned()), "{lines:?}");
    let other = format!("SELECT INBOX (QRESYNC ({} {modseq}))", uidvalidity + 1);
    let lines = answer(&mut second, &other).await;
    assert!(
        !lines.iter().any(|line| line.contains("VANISHED")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn limits_hold_at_below_and_above_and_what_is_refused_is_never_read_as_a_command() {
    let (_site, backend) = site().await;
    let mut imap = imap(&backend, "ann").await;
    let padded = |length: usize| format!("a NOOP{}", " ".repeat(length - 6));
    for length in [65_535, 65_536] {
        imap.ask(&padded(length), "a OK").await;
    }
    imap.ask(&padded(65_537), "a BAD command line too long")
        .await;
    // Literals together: 1 MiB.
    let smuggled = "x LOGOUT\r\n".repeat(110_000);
    for (length, answer) in [
        (1_048_575, "b BAD"),
        (1_048_576, "b BAD"),
        (1_048_577, "b BAD literal too long"),
    ] {
        imap.send(format!("b CREATE {{{length}+}}\r\n").as_bytes())
            .await;
        imap.send(&smuggled.as_bytes()[..length]).await;
        imap.say("").await;
        imap.expect(answer).await;
    }
    imap.ask("c CREATE {1048577}", "c BAD literal too long")
        .await;
    imap.ask("d APPEND INBOX {99999999999}", "d NO [TOOBIG]")
        .await;
    imap.ask("e NOOP", "e OK").await;
    imap.ask("f APPEND INBOX {99999999999+}", "f NO [TOOBIG]")
        .await;
    imap.expect("* BYE").await;
    assert_eq!(imap.line().await, "");
}

#[tokio::test]
async fn a_command_cut_anywhere_does_nothing() {
    let (_site, backend) = site().await;
    let whole = b"a APPEND INBOX (\\Seen) {6+}\r\nS: x\r\n {3+}\r\nabc\r\n";
    for cut in 0..whole.len() {
        let mut imap = imap(&backend, "ann").await;
        imap.send(&whole[..cut]).await;
        let mut wire = imap.into_wire();
        wire.shutdown().await.unwrap();
        let mut rest = String::new();
        timeout(PATIENCE, wire.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, "", "cut at {cut}");
    }
    let mut after = imap(&backend, "ann").await;
    let lines = answer(&mut after, "STATUS INBOX (MESSAGES UIDNEXT)").await;
    assert_eq!(lines[0], "* STATUS INBOX (MESSAGES 0 UIDNEXT 1)");
    after.send(whole).await;
    after.expect("a OK [APPENDUID ").await;
}

#[tokio::test]
async fn a_flood_of_idle_costs_nothing_and_is_answered_in_order() {
    let (_site, backend) = site().await;
    let mut imap = imap(&backend, "ann").await;
    answer(&mut imap, "SELECT INBOX").await;
    let before = backend.resident_octets();
    for round in 0..20 {
        let flood: String = (0..500).map(|n| format!("{n} IDLE\r\nDONE\r\n")).collect();
        imap.send(flood.as_bytes()).await;
        for number in 0..500 {
            imap.expect("+ idling").await;
            imap.expect(&format!("{number} OK")).await;
        }
        imap.ask(&format!("r{round} NOOP"), "r").await;
    }
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 8 << 20, "ten thousand IDLEs hold {held} octets");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_and_harms_nobody() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "stall_s = 1");
    backend.ready().await;
    let mut neighbour = imap(&backend, "ann").await;
    let before = backend.resident_octets();
    let mut deaf = TcpStream::connect(backend.imap).await.unwrap();
    let login = b"l LOGIN ann@example.test pass\r\n";
    deaf.write_all(login).await.unwrap();
    let flood = b"x CAPABILITY\r\n".repeat(10_000);
    let flooding = async {
        // Its own writes stop when ours do, and fail when we have cut it.
        while deaf.write_all(&flood).await.is_ok() {}
    };
    timeout(PATIENCE, flooding).await.expect("it is cut");
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 16 << 20, "it holds {held} octets");
    neighbour.ask("a NOOP", "a OK").await;
}

#[tokio::test]
async fn a_drain_says_bye_to_idle_sessions_and_to_those_within_a_command() {
    let (site, mut backend) = site().await;
    let mut idling = imap(&backend, "ann").await;
    idling.ask("a IDLE", "+ idling").await;
    let mut between = framed(&site, &backend, 1).await;
    let mut within = imap(&backend, "ann").await;
    within.send(b"a APPEND INBOX {10+}\r\nhalf").await;
    // All three are where they shall be.
    between.ask("a NOOP", "a OK").await;
    assert_eq!(backend.terminate().await, Some(0));
    for session in [&mut idling, &mut between, &mut within] {
        session.expect("* BYE [UNAVAILABLE]").await;
        assert_eq!(session.line().await, "");
    }
}

#[tokio::test]
async fn a_silent_client_is_told_bye_after_the_idle_time_also_in_idle() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "imap_idle_s = 1");
    backend.ready().await;
    let mut between = imap(&backend, "ann").await;
    let mut idling = imap(&backend, "ann").await;
    idling.ask("a IDLE", "+ idling").await;
    for session in [&mut between, &mut idling] {
        session.expect("* BYE idle for too long").await;
        assert_eq!(session.line().await, "");
    }
}

#[tokio::test]
async fn a_large_message_is_taken_as_it_comes_and_kept_octet_by_octet() {
    let (_site, backend) = site().await;
    let mut imap = imap(&backend, "ann").await;
    let before = backend.resident_octets();
    let message: Vec<u8> = (0..20 << 20).map(|n: u32| b'a' + (n % 26) as u8).collect();
    imap.ask(
        &format!("a APPEND INBOX {{{}}}", message.len()),
        "+ go ahead",
    )
    .await;
    imap.send(&message).await;
    imap.say("").await;
    imap.expect("a OK [APPENDUID ").await;
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 12 << 20, "20 MiB in flight hold {held} octets");
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    assert_eq!(pop3.retrieve(1).await, [&message[..], b"\r\n"].concat());
}

#[tokio::test]
async fn a_thousand_messages_of_one_append_are_added_together_and_one_more_is_refused() {
    let (_site, backend) = site().await;
    let mut imap = imap(&backend, "ann").await;
    let many = |count: usize| format!("a APPEND INBOX{}\r\n", " {1+}\r\nx".repeat(count));
    imap.send(many(1001).as_bytes()).await;
    imap.expect("a NO [MESSAGELIMIT 1000] ").await;
    imap.ask("b NOOP", "b OK").await;
    imap.send(many(1000).as_bytes()).await;
    imap.expect("a OK [APPENDUID ").await;
    let lines = answer(&mut imap, "STATUS INBOX (MESSAGES)").await;
    assert_eq!(lines[0], "* STATUS INBOX (MESSAGES 1000)");
}

#[tokio::test]
async fn deliveries_and_appends_to_an_idling_session_are_all_told_once() {
    let (_site, backend) = site().await;
    let mut idling = imap(&backend, "ann").await;
    answer(&mut idling, "SELECT INBOX").await;
    idling.ask("a IDLE", "+ idling").await;
    let append = async {
        let mut beside = imap(&backend, "ann").await;
        for _ in 0..50 {
            beside.say("a APPEND INBOX {1+}\r\nx").await;
            beside.expect("a OK").await;
        }
    };
    let arrive = async {
        let mut lmtp = Dialogue::lmtp(&backend).await;
        for number in 0..50 {
            let message = format!("Subject: {number}\r\n\r\n");
            lmtp.deliver(&["ann"], message.as_bytes()).await;
        }
    };
    tokio::join!(append, arrive);
    let mut last = 0;
    while last < 100 {
        let line = idling.expect("* ").await;
        if line.ends_with(" RECENT") {
            continue;
        }
        let count: u32 = line[2..].strip_suffix(" EXISTS").unwrap().parse().unwrap();
        assert!(count > last, "{line} after {last}");
        last = count;
    }
    idling.say("DONE").await;
    assert_eq!(idling.expect("* ").await, "* 100 RECENT");
    idling.expect("a OK").await;
}

/// A client that keeps nothing but the count of messages.
struct Counting {
    imap: Dialogue,
    count: u32,
}

impl Counting {
    async fn open(backend: &Backend) -> Self {
        let mut imap = imap(backend, "ann").await;
        let lines = answer(&mut imap, "SELECT INBOX").await;
        let count = lines.iter().find_map(|line| line.strip_suffix(" EXISTS"));
        let count = count.unwrap()[2..].parse().unwrap();
        Self { imap, count }
    }

    /// Says a command and follows what is told.
    async fn command(&mut self, command: &str, may_expunge: bool) -> Vec<String> {
        let lines = answer(&mut self.imap, command).await;
        for line in &lines {
            if let Some(count) = line.strip_suffix(" EXISTS") {
                let count = count[2..].parse().unwrap();
                assert!(count > self.count, "{lines:?}");
                self.count = count;
            }
            if let Some(number) = line.strip_suffix(" EXPUNGE") {
                assert!(may_expunge, "{lines:?}");
                let number: u32 = number[2..].parse().unwrap();
                assert!((1..=self.count).contains(&number), "{lines:?}");
                self.count -= 1;
            }
        }
        lines
    }
}

#[tokio::test]
async fn sessions_that_append_and_expunge_at_once_agree_in_the_end() {
    let (_site, backend) = site().await;
    let work = |seed: u64| {
        let backend = &backend;
        async move {
            let mut session = Counting::open(backend).await;
            let mut random = seed;
            for _ in 0..150 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(seed);
                match random >> 60 {
                    0..=5 => {
                        session
                            .command("APPEND INBOX (\\Deleted) {1+}\r\nx", true)
                            .await
                    }
                    6..=9 => {
                        session
                            .command("APPEND INBOX {1+}\r\nx (\\Deleted) {1+}\r\ny", true)
                            .await
                    }
                    10 => session.command("EXPUNGE", true).await,
                    11 => {
                        session
                            .command(&format!("UID EXPUNGE {}:*", random % 97 + 1), true)
                            .await
                    }
                    12 | 13 => session.command("SEARCH ALL", false).await,
                    _ => session.command("NOOP", true).await,
                };
            }
            session
        }
    };
    let (one, two, three) = tokio::join!(work(1), work(7), work(11));
    for mut session in [one, two, three] {
        session.command("NOOP", true).await;
        let status = session.command("STATUS INBOX (MESSAGES)", true).await;
        let wanted = format!("* STATUS INBOX (MESSAGES {})", session.count);
        assert_eq!(status[0], wanted);
    }
}

#[tokio::test]
async fn a_sender_slower_than_a_hundred_octets_a_second_is_cut() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "stall_s = 1");
    backend.ready().await;
    let mut slow = imap(&backend, "ann").await;
    slow.send(b"a APPEND INBOX {1000+}\r\n").await;
    let dripping = async {
        // Each comes well within the limit for silence.
        loop {
            slow.send(b"x").await;
            tokio::select! {
                line = slow.line() => break line,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
        }
    };
    let line = timeout(PATIENCE, dripping).await.unwrap();
    assert_eq!(line, "* BYE idle for too long");
}
