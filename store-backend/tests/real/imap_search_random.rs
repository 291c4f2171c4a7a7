//! SEARCH against a plain reading of its definition: random keys over random mail whose text is known.

mod mail;

use std::fmt::Write as _;

use crate::imap_client::Imap;
use crate::imap_messages::site;
use mail::{Mail, NAMES, Random, encoded, lines_of};

/// A message as a search sees it.
struct Known {
    mail: Mail,
    /// Its header, folded.
    header: String,
    /// The other texts, folded, and whether they are body.
    texts: Vec<(String, bool)>,
    flags: Vec<&'static str>,
    /// Days of 2020, from 1.
    arrived: usize,
    modseq: u64,
    email_id: String,
    thread_id: String,
}

/// Folded: capitals, then small letters, where each is one; white space made one; what is not seen left out.
fn folded(text: &str) -> String {
    let one = |c: char| {
        let mut upper = c.to_uppercase();
        let upper = if upper.len() == 1 {
            upper.next().unwrap()
        } else {
            c
        };
        let mut lower = upper.to_lowercase();
        if lower.len() == 1 {
            lower.next().unwrap()
        } else {
            upper
        }
    };
    let seen = text
        .chars()
        .filter(|c| !['\u{ad}', '\u{200b}', '\u{feff}'].contains(c));
    let mut out = String::new();
    for c in seen {
        match c.is_whitespace() {
            true if out.ends_with(' ') => {}
            true => out.push(' '),
            false => out.push(one(c)),
        }
    }
    out
}

fn holds(text: &str, needle: &str) -> bool {
    folded(text).contains(&folded(needle))
}

/// A key as it is written, and what it says of each message.
struct Key {
    written: Vec<u8>,
    is_of: Vec<bool>,
}

impl Key {
    fn new(written: impl Into<Vec<u8>>, all: &[Known], is: impl Fn(usize, &Known) -> bool) -> Self {
        let is_of = all
            .iter()
            .enumerate()
            .map(|(at, one)| is(at, one))
            .collect();
        Self {
            written: written.into(),
            is_of,
        }
    }

    fn with(
        word: &str,
        argument: &[u8],
        all: &[Known],
        is: impl Fn(usize, &Known) -> bool,
    ) -> Self {
        let head = format!("{word} {{{}+}}\r\n", argument.len());
        Self::new([head.as_bytes(), argument].concat(), all, is)
    }

    fn random(random: &mut Random, all: &[Known], charset: &str, depth: usize) -> Self {
        if depth < 4 && random.chance(3) {
            let below = |random: &mut Random| Self::random(random, all, charset, depth + 1);
            let (one, other) = (below(random), below(random));
            let (written, is): (Vec<u8>, fn(bool, bool) -> bool) = match random.below(3) {
                0 => (
                    [b"OR ", &one.written[..], b" ", &other.written[..]].concat(),
                    |a, b| a || b,
                ),
                1 => (
                    [b"(", &one.written[..], b" ", &other.written[..], b")"].concat(),
                    |a, b| a && b,
                ),
                _ => (
                    [
                        b"NOT (",
                        &one.written[..],
                        b" NOT ",
                        &other.written[..],
                        b")",
                    ]
                    .concat(),
                    |a, b| !a || b,
                ),
            };
            let pairs = one.is_of.into_iter().zip(other.is_of);
            return Self {
                written,
                is_of: pairs.map(|(a, b)| is(a, b)).collect(),
            };
        }
        match random.below(3) {
            0 => Self::of_row(random, all),
            1 => Self::of_field(random, all, charset),
            _ => {
                let needle = needle(random, all, charset);
                let octets = encoded(&needle, charset, false);
                let is_body = random.chance(2);
                let word = if is_body { "BODY" } else { "TEXT" };
                let needle = folded(&needle);
                Self::with(word, &octets, all, |_, one| {
                    let mut texts = one.texts.iter().filter(|(_, is)| *is || !is_body);
                    needle.is_empty()
                        || texts.any(|(text, _)| text.contains(&needle))
                        || (!is_body && one.header.contains(&needle))
                })
            }
        }
    }

    fn of_row(random: &mut Random, all: &[Known]) -> Self {
        let day = 1 + random.below(28);
        let some = &all[random.below(all.len())];
        let size = some.mail.octets.len();
        let has = |flag: &'static str| move |_: usize, one: &Known| one.flags.contains(&flag);
        let hasnt = |flag: &'static str| move |_: usize, one: &Known| !one.flags.contains(&flag);
        let (first, last) = (random.below(all.len()), random.below(all.len()));
        match random.below(28) {
            0 => Self::new("ALL", all, |_, _| true),
            1 => Self::new("FLAGGED", all, has("\\Flagged")),
            2 => Self::new("UNFLAGGED", all, hasnt("\\Flagged")),
            3 => Self::new("SEEN", all, has("\\Seen")),
            4 => Self::new("UNSEEN", all, hasnt("\\Seen")),
            5 => Self::new("KEYWORD $forwarded", all, has("$Forwarded")),
            6 => Self::new("UNKEYWORD $Forwarded", all, hasnt("$Forwarded")),
            7 => Self::new("DRAFT", all, has("\\Draft")),
            8 => Self::new("ANSWERED", all, has("\\Answered")),
            9 => Self::new("DELETED", all, has("\\Deleted")),
            10 => Self::new("NEW", all, hasnt("\\Seen")),
            11 => Self::new("OLD", all, |_, _| false),
            12 => Self::new(format!("BEFORE {day}-Jan-2020"), all, |_, one| {
                one.arrived < day
            }),
            13 => Self::new(format!("ON {day}-Jan-2020"), all, |_, one| {
                one.arrived == day
            }),
            14 => Self::new(format!("SINCE \"{day}-Jan-2020\""), all, |_, one| {
                one.arrived >= day
            }),
            15 => Self::new(format!("LARGER {size}"), all, |_, one| {
                one.mail.octets.len() > size
            }),
            16 => Self::new(format!("SMALLER {size}"), all, |_, one| {
                one.mail.octets.len() < size
            }),
            17 => Self::new("OLDER 86400", all, |_, _| true),
            18 => Self::new("YOUNGER 86400", all, |_, _| false),
            19 => Self::new("SAVEDSINCE 1-Jan-2021", all, |_, _| true),
            20 => Self::new("SAVEDBEFORE 1-Jan-2021", all, |_, _| false),
            21 => Self::new("SAVEDATESUPPORTED", all, |_, _| true),
            22 => Self::new(format!("EMAILID {}", some.email_id), all, |_, one| {
                one.email_id == some.email_id
            }),
            23 if some.thread_id != "NIL" => {
                Self::new(format!("THREADID {}", some.thread_id), all, |_, one| {
                    one.thread_id == some.thread_id
                })
            }
            24 => Self::new(format!("MODSEQ {}", some.modseq), all, |_, one| {
                one.modseq >= some.modseq
            }),
            25 => Self::new(format!("UID {}:{}", first + 1, last + 1), all, |at, _| {
                (first.min(last)..=first.max(last)).contains(&at)
            }),
            26 => Self::new(format!("{},{}:*", first + 1, last + 1), all, |at, _| {
                at == first || at >= last
            }),
            _ => {
                let (word, is) = random.one(SENT);
                Self::new(format!("{word} {day}-Jan-2022"), all, |_, one| {
                    let mut fields = one.mail.fields.iter();
                    let date = fields.find(|(name, _)| name == "Date");
                    let sent =
                        date.map(|(_, date)| date.split(' ').next().unwrap().parse().unwrap());
                    sent.is_some_and(|sent| is(sent, day))
                })
            }
        }
    }

    fn of_field(random: &mut Random, all: &[Known], charset: &str) -> Self {
        let needle = needle(random, all, charset);
        let octets = encoded(&needle, charset, false);
        let (word, name) = match random.below(6) {
            0 => ("SUBJECT".to_owned(), "Subject"),
            1 => ("FROM".to_owned(), "From"),
            2 => ("TO".to_owned(), "To"),
            3 => ("CC".to_owned(), "Cc"),
            4 => ("HEADER X-EMPTY".to_owned(), "X-Empty"),
            _ => {
                let name = random.one(NAMES);
                (format!("HEADER {}", name.to_lowercase()), name)
            }
        };
        Self::with(&word, &octets, all, |_, one| {
            let named = one.mail.fields.iter().filter(|(field, _)| field == name);
            named
                .into_iter()
                .any(|(_, value)| holds(value.trim(), &needle))
        })
    }
}

/// Something to look for: mostly a piece of a text, in another case; rarely nothing, or what is nowhere, or all of a text.
fn needle(random: &mut Random, all: &[Known], charset: &str) -> String {
    let mail = &all[random.below(all.len())].mail;
    let text = match mail.texts.is_empty() || random.chance(2) {
        true => mail.fields[random.below(mail.fields.len())]
            .1
            .trim()
            .to_owned(),
        false => mail.texts[random.below(mail.texts.len())].0.clone(),
    };
    let chars: Vec<char> = text.chars().collect();
    let length = match random.below(40) {
        0 => 0,
        1 => return "decoy".to_owned(),
        2 => chars.len().min(50_000),
        _ => 1 + random.below(20),
    };
    let start = random.below(chars.len());
    let piece = chars
        .into_iter()
        .skip(if length > 20 { 0 } else { start })
        .take(length);
    let piece: String = match random.below(3) {
        0 => piece.collect(),
        1 => piece.flat_map(char::to_lowercase).collect(),
        _ => piece.flat_map(char::to_uppercase).collect(),
    };
    let encoding = encoding_rs::Encoding::for_label(charset.as_bytes()).unwrap();
    match encoding.encode(&piece) {
        (_, _, false) => piece,
        // It cannot be asked for in this charset.
        (_, _, true) => "invoice".to_owned(),
    }
}

async fn fill(imap: &mut Imap, random: &mut Random) -> Vec<Known> {
    let mut all = Vec::new();
    for _ in 0..MAILS {
        let mail = Mail::random(random, 0);
        let flags = [
            "\\Seen",
            "\\Flagged",
            "\\Draft",
            "\\Answered",
            "\\Deleted",
            "$Forwarded",
        ];
        let flags: Vec<_> = flags.into_iter().filter(|_| random.chance(3)).collect();
        let arrived = 1 + random.below(28);
        let head = format!(
            "APPEND INBOX ({}) \"{arrived:2}-Jan-2020 12:00:00 +0000\" {{{}+}}\r\n",
            flags.join(" "),
            mail.octets.len()
        );
        let answer = imap
            .command(&[head.as_bytes(), &mail.octets[..]].concat())
            .await;
        assert!(answer.tagged.starts_with("OK"), "{answer:?}");
        let texts = mail.texts.iter();
        let texts = texts.map(|(text, is_body)| (folded(text), *is_body));
        all.push(Known {
            header: folded(&lines_of(&mail.fields)),
            texts: texts.collect(),
            mail,
            flags,
            arrived,
            modseq: 0,
            email_id: String::new(),
            thread_id: String::new(),
        });
    }
    imap.ok("SELECT INBOX").await;
    let answer = imap.ok("FETCH 1:* (MODSEQ EMAILID THREADID)").await;
    let told = answer
        .untagged
        .iter()
        .map(|line| String::from_utf8(line.clone()).unwrap());
    let told: Vec<String> = told.filter(|line| line.contains(" FETCH (")).collect();
    assert_eq!(told.len(), all.len());
    for (known, line) in all.iter_mut().zip(told) {
        let value = |name: &str| {
            let behind = line.split_once(&format!("{name} ")).unwrap().1;
            let value = behind.trim_start_matches('(').split([' ', ')']).next();
            value.unwrap().to_owned()
        };
        known.modseq = value("MODSEQ").parse().unwrap();
        known.email_id = value("EMAILID");
        known.thread_id = value("THREADID");
    }
    all
}

#[tokio::test]
async fn random_keys_find_in_random_mail_what_a_plain_reading_finds() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = Random(seed);
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let all = fill(&mut imap, &mut random).await;
    let mut found_count = 0;
    for number in 0..QUERIES {
        let charset = random.one(&[
            "utf-8",
            "utf-8",
            "utf-8",
            "iso-8859-1",
            "koi8-r",
            "iso-2022-jp",
            "shift_jis",
        ]);
        let key = Key::random(&mut random, &all, charset, 0);
        let command = [
            b"SEARCH CHARSET ",
            charset.as_bytes(),
            b" ",
            &key.written[..],
        ]
        .concat();
        let answer = imap.command(&command).await;
        let shown = command.escape_ascii();
        assert!(
            answer.tagged.starts_with("OK"),
            "{number}: {shown}: {answer:?}"
        );
        let mut expected = "* SEARCH".to_owned();
        for (at, _) in key.is_of.iter().enumerate().filter(|(_, is)| **is) {
            write!(expected, " {}", at + 1).unwrap();
            found_count += 1;
        }
        let lines = answer.lines();
        let line = lines
            .iter()
            .find(|line| line.starts_with("* SEARCH"))
            .unwrap();
        let line = line.split(" (").next().unwrap();
        assert_eq!(line, expected, "query {number}: {shown}");
    }
    // Neither nothing nor all.
    assert!(
        (QUERIES..QUERIES * (MAILS - 1)).contains(&found_count),
        "{found_count}"
    );
}

#[tokio::test]
async fn a_string_longer_than_what_is_read_at_once_is_found() {
    let (_site, backend) = site().await;
    let mut imap = Imap::login(&backend, "ann").await;
    let mut random = Random(7);
    let word = |random: &mut Random| format!("{:x} ", random.below(1 << 40));
    let long: String = std::iter::repeat_with(|| word(&mut random))
        .take(30_000)
        .collect();
    let encoded = data_encoding::BASE64.encode(long.as_bytes());
    let lines: Vec<&str> = (0..encoded.len())
        .step_by(75)
        .map(|at| &encoded[at..encoded.len().min(at + 75)])
        .collect();
    let head = "Subject: long\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    imap.append(format!("{head}{}\r\n", lines.join("\r\n")).as_bytes())
        .await;
    imap.append(b"Subject: short\r\n\r\nshort\r\n").await;
    imap.ok("SELECT INBOX").await;
    // The whole text is some 330 KB, and is read in pieces of 64 KiB.
    for (range, is_found) in [
        (0..200_000, true),
        (100_000..300_000, true),
        (65_000..66_000, true),
    ] {
        for (needle, is_found) in [
            (long[range.clone()].to_uppercase(), is_found),
            (format!("{}!", &long[range]), false),
        ] {
            let head = format!("SEARCH BODY {{{}+}}\r\n", needle.len());
            let answer = imap.command(format!("{head}{needle}").as_bytes()).await;
            let expected = if is_found { "* SEARCH 1" } else { "* SEARCH" };
            assert_eq!(answer.lines().last().unwrap(), expected);
        }
    }
}

/// Keys of the Date field.
type SentKey = (&'static str, fn(usize, usize) -> bool);
const SENT: &[SentKey] = &[
    ("SENTBEFORE", |sent, day| sent < day),
    ("SENTON", |sent, day| sent == day),
    ("SENTSINCE", |sent, day| sent >= day),
];
const MAILS: usize = 60;
const QUERIES: usize = 300;
