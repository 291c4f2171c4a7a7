//! SEARCH: each query with the messages it must find, by number.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::imap_client::Imap;
use crate::imap_dialogue::imap;
use crate::imap_messages::site;
use crate::site::{Dialogue, Site, until_listed};

const MAILS: [&str; 9] = [
    // 1: encoded words, plain text.
    "Date: Sat, 1 Jan 2022 23:30:00 -0500\r\nFrom: =?utf-8?Q?J=C3=BCrgen_M=C3=BCller?= <jm@x.test>\r\n\
     To: Anna <anna@y.test>\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?= =?utf-8?B?IGF1cyBLw7Zsbg==?=\r\n\r\nplain hello\r\nworld\r\n",
    // 2: base64 in UTF-8.
    "Subject: two\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
     WsOkcnRsaWNoZSBHcsO8w59lIGF1cyBkZW0gV2FsZGUsCm1pdCB2aWVsZW4gQsOkdW1lbi4K\r\n",
    // 3: quoted-printable in latin-1, a soft line break in a word.
    "Subject: three\r\nCc: z@z.test\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
     M=E4nner st=\r\nehen im Wald=E9\r\n",
    // 4: HTML beside a picture whose name is no text of the body.
    "Subject: four\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
     <html><style>p { hidden }</style><p title=\"attribute\">Sch&ouml;ne <b>Gr</b>&uuml;&szlig;e</p></html>\r\n\
     --b\r\nContent-Type: image/png; name=picture\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8gd29ybGQ=\r\n--b--\r\n",
    // 5: another message inside.
    "Subject: five\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
     Subject: =?utf-8?Q?inner_=C3=BCbel?=\r\n\r\ninnermost\r\n--b--\r\n",
    // 6: Russian in koi8-r, Japanese in a header.
    "Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\r\nContent-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: base64\r\n\r\n\
     8NLJ18XULCDNydIh\r\n",
    // 7: UTF-8 that says it is ASCII; no Date.
    "Subject: seven\r\nX-Empty:\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nnaïve café\r\n",
    // 8: nothing is what it says.
    "Subject: eight\r\n folded   subject\r\nDate: gibberish\r\nContent-Type: text/plain; charset=x-none\r\nContent-Transfer-Encoding: x-uu\r\n\r\nhello again\r\n",
    // 9: white space first, no header.
    "\r\nbare body\r\n",
];

const QUERIES: &[(&str, &str)] = &[
    ("ALL", "1 2 3 4 5 6 7 8 9"),
    ("2:3,8:*", "2 3 8 9"),
    ("UID 1,5,77", "1 5"),
    ("NOT 2:8", "1 9"),
    ("OR SUBJECT two SUBJECT THREE", "2 3"),
    ("OR (SUBJECT two 2) (SUBJECT three 2)", "2"),
    ("FROM jürgen", "1"),
    ("FROM \"MÜLLER <jm@\"", "1"),
    ("TO anna", "1"),
    ("CC Z.TEST", "3"),
    ("SUBJECT \"grüße aus köln\"", "1"),
    ("SUBJECT GRÜßE", "1"),
    ("SUBJECT 日本", "6"),
    ("SUBJECT \"eight folded subject\"", "8"),
    ("HEADER X-Empty \"\"", "7"),
    ("HEADER Date \"\"", "1 8"),
    ("HEADER Content-Type koi8", "6"),
    ("NOT HEADER Subject e", "2 4 6 9"),
    ("BODY \"hello world\"", "1"),
    ("BODY HELLO", "1 8"),
    ("TEXT \"zärtliche grüße\"", "2"),
    ("BODY \"WALDE, mit\"", "2"),
    ("BODY \"männer stehen im waldé\"", "3"),
    ("BODY \"schöne grüße\"", "4"),
    ("OR BODY hidden OR BODY attribute BODY title", ""),
    ("BODY picture", ""),
    ("TEXT picture", "4"),
    ("BODY \"inner übel\"", "5"),
    ("SUBJECT \"inner übel\"", ""),
    ("BODY innermost", "5"),
    ("BODY preamble", ""),
    ("BODY \"привет, МИР\"", "6"),
    ("BODY \"naïve CAFÉ\"", "7"),
    ("BODY \"bare body\"", "9"),
    ("TEXT \"subject: two\"", "2"),
    ("TEXT \"\"", "1 2 3 4 5 6 7 8 9"),
    ("NOT TEXT e", ""),
    ("BODY two", ""),
    ("SENTON 1-Jan-2022", "1"),
    ("SENTBEFORE 2-Jan-2022", "1"),
    ("SENTSINCE 1-Jan-2000", "1"),
    ("NOT SENTSINCE 1-Jan-2000", "2 3 4 5 6 7 8 9"),
    ("BEFORE 1-Jan-2020", ""),
    (
        "SINCE 1-Jan-2020 SAVEDSINCE 1-Jan-2020",
        "1 2 3 4 5 6 7 8 9",
    ),
    ("YOUNGER 3600", "1 2 3 4 5 6 7 8 9"),
    ("OLDER 3600", ""),
    ("LARGER 10 SMALLER 15", "9"),
    ("NOT LARGER 13", "9"),
    ("LARGER 13 SMALLER 13", ""),
    ("FLAGGED", "2 4"),
    ("UNFLAGGED UNSEEN 1:3", "1 3"),
    ("KEYWORD $junk", "4"),
    ("UNKEYWORD $Junk FLAGGED", "2"),
    ("KEYWORD unknown", ""),
    ("RECENT", "1 2 3 4 5 6 7 8 9"),
    ("NEW 2:3", "2 3"),
    ("OLD", ""),
    ("NOT RECENT FLAGGED", ""),
    ("10:99", ""),
    ("NOT 99 1", "1"),
    ("9:99", "9"),
];

#[tokio::test]
async fn every_query_finds_what_it_names_and_nothing_else() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for mail in MAILS {
        imap.append(mail.as_bytes()).await;
    }
    imap.ok("SELECT INBOX").await;
    imap.ok("STORE 2,4 +FLAGS \\Flagged").await;
    imap.ok("STORE 4 +FLAGS $Junk").await;
    // Twice: the second time all structures are known.
    for _ in 0..2 {
        for (query, expected) in QUERIES {
            let quoted = literals(&format!("SEARCH CHARSET UTF-8 {query}"));
            let answer = imap.command(&quoted).await;
            assert!(answer.tagged.starts_with("OK"), "{query}: {answer:?}");
            let expected = format!("* SEARCH {expected}");
            assert_eq!(answer.lines(), [expected.trim_end()], "{query}");
        }
    }
    let latin = [
        b"SEARCH CHARSET ISO-8859-1 SUBJECT {5+}\r\n",
        &b"Gr\xfc\xdfe"[..],
    ]
    .concat();
    assert_eq!(imap.command(&latin).await.lines(), ["* SEARCH 1"]);
    let unknown = imap.command(b"SEARCH CHARSET x-none ALL").await;
    assert_eq!(unknown.tagged[..27], *"NO [BADCHARSET (US-ASCII UT");
}

/// Words that are not ASCII as literals.
fn literals(command: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, piece) in command.split('"').enumerate() {
        if at % 2 == 1 {
            out.extend(format!("{{{}+}}\r\n{piece}", piece.len()).bytes());
            continue;
        }
        for word in piece.split_inclusive(' ') {
            let text = word.trim_end();
            match text.is_ascii() {
                true => out.extend(word.bytes()),
                false => {
                    out.extend(format!("{{{}+}}\r\n{word}", text.len()).bytes());
                }
            }
        }
    }
    out
}

#[tokio::test]
async fn results_come_in_the_form_asked_for() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for number in 1..=9 {
        imap.append(format!("Subject: {number}\r\n\r\nx").as_bytes())
            .await;
    }
    imap.ok("SELECT INBOX").await;
    imap.ok("STORE 1 +FLAGS \\Deleted").await;
    imap.ok("EXPUNGE").await;
    for (query, expected) in [
        ("SEARCH RETURN () 1:3", "ALL 1:3"),
        (
            "UID SEARCH RETURN (MIN MAX COUNT) 2:4",
            "UID MIN 3 MAX 5 COUNT 3",
        ),
        ("SEARCH RETURN (ALL COUNT) SUBJECT none", "COUNT 0"),
        ("SEARCH RETURN (MIN) SUBJECT none", ""),
        (
            "UID SEARCH RETURN (PARTIAL 2:3) ALL",
            "UID PARTIAL (2:3 3:4)",
        ),
        (
            "UID SEARCH RETURN (PARTIAL -1:-2) ALL",
            "UID PARTIAL (-1:-2 8:9)",
        ),
        (
            "UID SEARCH RETURN (PARTIAL 20:30) ALL",
            "UID PARTIAL (20:30 NIL)",
        ),
        ("SEARCH RETURN (SAVE COUNT) 2:4", "COUNT 3"),
        ("SEARCH RETURN (ALL) $ NOT 3", "ALL 2,4"),
        ("UID SEARCH RETURN (ALL) UID $", "UID ALL 3:5"),
        ("SEARCH RETURN (SAVE MIN MAX) 5:7", "MIN 5 MAX 7"),
        ("SEARCH RETURN () $", "ALL 5,7"),
    ] {
        let answer = imap.ok(query).await;
        let line = answer.lines().remove(0);
        let tail = line.split_once(')').unwrap().1;
        assert_eq!(tail.trim_start(), expected, "{query}: {line}");
    }
    let silent = imap.ok("SEARCH RETURN (SAVE) 6:8").await;
    assert_eq!(silent.untagged.len(), 0);
    let fetched = imap.ok("FETCH $ UID").await.lines();
    assert_eq!(
        fetched,
        [6, 7, 8].map(|n| format!("* {n} FETCH (UID {})", n + 1))
    );
    let beyond = imap.command(b"SEARCH RETURN (SAVE) x").await;
    assert!(beyond.tagged.starts_with("BAD"), "{beyond:?}");
    let kept = imap.ok("SEARCH RETURN (COUNT) $").await.lines();
    assert!(kept[0].ends_with("COUNT 3"), "{kept:?}");
    imap.command(b"SEARCH RETURN (SAVE) CHARSET x-none ALL")
        .await;
    assert_eq!(
        imap.ok("SEARCH RETURN (ALL COUNT) $").await.lines()[0]
            .split_once(')')
            .unwrap()
            .1,
        " COUNT 0"
    );
    let modseq = imap.ok("FETCH 3 MODSEQ").await.lines().remove(1);
    let modseq: u64 = modseq.split(['(', ')']).nth(2).unwrap().parse().unwrap();
    let answer = imap
        .ok(&format!("SEARCH MODSEQ {modseq} 1:4"))
        .await
        .lines();
    assert_eq!(answer, [format!("* SEARCH 3 4 (MODSEQ {})", modseq + 1)]);
    let answer = imap
        .ok(&format!("SEARCH RETURN (MIN) MODSEQ {modseq} 1:4"))
        .await
        .lines();
    assert!(
        answer[0].ends_with(&format!("MIN 3 MODSEQ {modseq}")),
        "{answer:?}"
    );
    let ids = imap
        .ok("FETCH 2 (EMAILID THREADID SAVEDATE)")
        .await
        .lines()
        .remove(0);
    let id = ids.split(['(', ')']).nth(2).unwrap().to_owned();
    assert_eq!(
        imap.ok(&format!("SEARCH EMAILID {id}")).await.lines(),
        ["* SEARCH 2"]
    );
}

#[tokio::test]
async fn a_preview_is_the_first_text_as_it_is_read() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for mail in MAILS {
        imap.append(mail.as_bytes()).await;
    }
    imap.append(format!("\r\n{}", "ä word ".repeat(100)).as_bytes())
        .await;
    imap.ok("SELECT INBOX").await;
    for (message, expected) in [
        (1, "plain hello world"),
        (2, "Zärtliche Grüße aus dem Walde, mit vielen Bäumen."),
        (4, "Schöne Grüße"),
        (9, "bare body"),
    ] {
        let preview = imap.item(message, "PREVIEW").await.unwrap();
        assert_eq!(String::from_utf8(preview).unwrap(), expected);
    }
    let long = imap.item(10, "PREVIEW (LAZY)").await.unwrap();
    assert_eq!(String::from_utf8(long).unwrap().chars().count(), 200);
}

#[tokio::test]
async fn the_lines_of_a_delivery_are_searched_as_header() {
    let (_site, backend) = site().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.deliver(
        &["ann"],
        b" starts white\r\nSubject: delivered\r\n\r\nx\r\n",
    )
    .await;
    until_listed(&backend, "ann", 1).await;
    let mut imap = Imap::inbox(&backend, "ann").await;
    for (query, found) in [
        ("HEADER Return-Path sender@elsewhere", true),
        ("HEADER Received white", false),
        ("TEXT elsewhere.test", true),
        ("BODY elsewhere.test", false),
    ] {
        let lines = imap.ok(&format!("SEARCH {query}")).await.lines();
        assert_eq!(lines[0].ends_with(" 1"), found, "{query} {lines:?}");
    }
}

#[tokio::test]
async fn messages_are_sorted_and_threaded_as_asked() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for (from, subject, date, more) in [
        (
            "\"Zoe\" <b@x.test>",
            "Re: apple",
            "3 Jan 2022",
            "In-Reply-To: <1@x>",
        ),
        (
            "=?utf-8?Q?=C3=84nne?= <c@x.test>",
            "banana",
            "1 Jan 2022",
            "Message-ID: <2@x>",
        ),
        ("a@x.test", "APPLE", "2 Jan 2022", "Message-ID: <1@x>"),
        ("group: ;", "", "nonsense", "References: <2@x>"),
    ] {
        let mail = format!("From: {from}\r\nSubject: {subject}\r\nDate: {date}\r\n{more}\r\n\r\nx");
        imap.append(mail.as_bytes()).await;
    }
    imap.ok("SELECT INBOX").await;
    for (command, expected) in [
        ("SORT (SUBJECT) UTF-8 ALL", "SORT 4 1 3 2"),
        ("SORT (SUBJECT REVERSE DATE) UTF-8 ALL", "SORT 4 1 3 2"),
        ("SORT (SUBJECT DATE) UTF-8 ALL", "SORT 4 3 1 2"),
        ("SORT (DATE) UTF-8 ALL", "SORT 2 3 1 4"),
        ("SORT (REVERSE DATE) UTF-8 1:3", "SORT 1 3 2"),
        ("SORT (FROM) US-ASCII ALL", "SORT 3 1 2 4"),
        ("SORT (DISPLAYFROM) UTF-8 ALL", "SORT 3 4 1 2"),
        ("UID SORT (ARRIVAL) UTF-8 NOT SUBJECT banana", "SORT 1 3 4"),
        ("SORT (SIZE) UTF-8 SUBJECT none", "SORT"),
        ("THREAD REFERENCES UTF-8 ALL", "THREAD (2 4)(3 1)"),
        ("UID THREAD ORDEREDSUBJECT UTF-8 1:3", "THREAD (2)(3 1)"),
    ] {
        let answer = imap.ok(command).await;
        assert_eq!(answer.lines(), [format!("* {expected}")], "{command}");
    }
    let answer = imap
        .ok("SORT RETURN (MIN MAX COUNT ALL) (DATE) UTF-8 ALL")
        .await
        .lines();
    assert!(
        answer[0].ends_with("MIN 2 MAX 4 COUNT 4 ALL 2:3,1,4"),
        "{answer:?}"
    );
    let answer = imap
        .ok("UID SORT RETURN (PARTIAL 2:3 SAVE) (DATE) UTF-8 ALL")
        .await
        .lines();
    assert!(answer[0].ends_with("UID PARTIAL (2:3 3,1)"), "{answer:?}");
    let unknown = imap.command(b"SORT (DATE) x-none ALL").await;
    assert!(unknown.tagged.starts_with("NO [BADCHARSET"), "{unknown:?}");
}

#[tokio::test]
async fn text_that_is_broken_everywhere_is_searched_once_through() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let html = "Content-Type: text/html\r\n\r\n";
    let quoted = "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n";
    let base64 = "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    for (head, broken) in [
        (html, "<"),
        (html, "&"),
        (html, "<!--"),
        (html, "<a b='\""),
        (quoted, "="),
        (quoted, " "),
        (quoted, "= "),
        (base64, "="),
        ("", "=?"),
    ] {
        let body = broken.repeat((2 << 20) / broken.len());
        imap.append(format!("{head}{body}").as_bytes()).await;
    }
    imap.ok("SELECT INBOX").await;
    let answer = imap.ok("SEARCH OR BODY needle TEXT \"<  <<<<\"").await;
    // On a busy machine it is long enough for INPROGRESS.
    assert_eq!(answer.lines().last().unwrap(), "* SEARCH");
    let answer = imap.ok("SEARCH BODY <<<<<<<<").await;
    assert_eq!(answer.lines().last().unwrap(), "* SEARCH 1");
    let answer = imap.ok("FETCH 1:* (PREVIEW)").await;
    assert_eq!(answer.untagged.len(), 9);
}

#[tokio::test]
async fn a_search_that_is_long_does_not_keep_others_waiting() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    for number in 0..20 {
        let body = format!("\r\n{number}\r\n{}", "some words\r\n".repeat(100_000));
        imap.append(body.as_bytes()).await;
    }
    imap.ok("SELECT INBOX").await;
    let mut other = Imap::inbox(&backend, "ann").await;
    let searching = async {
        let answer = imap.ok("SEARCH NOT BODY absent").await;
        assert_eq!(answer.lines()[0].split(' ').count(), 22);
    };
    let beside = async {
        let mut count = 0;
        loop {
            other.ok("FETCH 1:* (FLAGS)").await;
            count += 1;
            tokio::task::yield_now().await;
            if count == 5 {
                return;
            }
        }
    };
    // Those are answered first.
    tokio::pin!(searching);
    tokio::select! {
        biased;
        () = beside => {}
        () = &mut searching => panic!("the search was over first"),
    }
    searching.await;
}

#[tokio::test]
async fn a_search_ends_soon_after_its_client_has_gone_and_not_when_it_only_says_no_more() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "stall_s = 1");
    backend.ready().await;
    let mut searching = Imap::login(&backend, "ann").await;
    for _ in 0..20 {
        let body = format!("\r\n{}", "some words\r\n".repeat(100_000));
        searching.append(body.as_bytes()).await;
    }
    searching.ok("SELECT INBOX").await;
    for _ in 0..6 {
        searching.ok("COPY 1:* INBOX").await;
    }
    // This is some seconds.
    let mut waiting = Dialogue::open(backend.imap).await;
    waiting
        .send(b"l LOGIN ann@example.test pass\r\ne EXAMINE INBOX\r\ns SEARCH UID 1:60 BODY absent\r\n")
        .await;
    waiting.expect("* OK").await;
    waiting.expect("l OK").await;
    let (mut answer, mut waiting) = waiting.into_unread();
    waiting.shutdown().await.unwrap();
    waiting.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("* SEARCH\r\ns OK done\r\n"), "{answer}");
    // A command that begins meanwhile has its time when the search is done.
    let mut eager = imap(&backend, "ann").await;
    eager.ask("e EXAMINE INBOX", "* FLAGS").await;
    eager.send(b"s SEARCH UID 1:30 BODY absent\r\nn NO").await;
    while !eager.line().await.starts_with("s OK") {}
    eager.send(b"OP\r\n").await;
    eager.expect("n OK").await;
    // This is a minute.
    searching.send(b"s SEARCH BODY absent\r\n").await;
    let ended = "posthouse_store_sessions_total{service=\"imap\",end=\"cut\"} 1\n";
    assert!(!backend.get("/metrics").await.unwrap().contains(ended));
    drop(searching);
    let gone = Instant::now();
    while !backend.get("/metrics").await.unwrap().contains(ended) {
        assert!(gone.elapsed() < Duration::from_secs(8), "it searches on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
