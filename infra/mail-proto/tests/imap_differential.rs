//! Our grammar against imap-codec's, on what both know.
//!
//! A command is read by both. Then imap-codec writes what it has understood,
//! which often looks different (quotes, literals, order of spaces), and we read
//! that: the two values of ours must be the same. So the readings agree without
//! a line of code that compares two families of types.
#![allow(clippy::unwrap_used)]

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_codec::encode::{Encoder, Fragment};
use mail_proto::imap::command::{Command, MessageHead};
use mail_proto::imap::framing::{Framer, Limits, Step};
use mail_proto::imap::mailbox::NameForm;
use mail_proto::imap::parse;
use proptest::collection::vec;
use proptest::prelude::*;

/// Our reading of one command, its literals included; or what we expected.
fn read(octets: &[u8]) -> Result<Command, &'static str> {
    let mut framer = Framer::new(Limits::default());
    let mut input = octets;
    loop {
        match framer.next(&mut input) {
            Step::Continue => {}
            Step::Command(frame) => {
                return parse::command(&frame, NameForm::Utf7)
                    .map(|tagged| tagged.command)
                    .map_err(|bad| bad.error.expected);
            }
            Step::Fault(fault) => return Err(fault.kind.text()),
            step => panic!("{step:?}"),
        }
    }
}

fn ours(octets: &[u8]) -> Option<Command> {
    read(octets).ok()
}

/// Where we are stricter on purpose.
const STRICTER: &[&str] = &[
    // Algorithms that we do not have.
    "a threading algorithm",
    "ORDEREDSUBJECT or REFERENCES",
    // RFC 5464 §3.2 says what an entry's name looks like.
    "an entry name such as /private/comment",
    "MAXSIZE or DEPTH",
    // RFC 7162 §3.2.5: what a client knows by itself has no `*`, and its two lists go together.
    "as many UIDs as sequence numbers",
    "a set of numbers without *",
    // RFC 7162 §3.1 keeps them below 2^63, and §3.2.6 has VANISHED with UID FETCH alone.
    "a modification sequence",
    "VANISHED with UID FETCH and CHANGEDSINCE only",
    // They keep names undecoded, control characters included.
    "a mailbox name without control characters",
    "a mailbox name in modified UTF-7 or UTF-8",
];

/// Their reading, written out by them.
fn theirs(octets: &[u8]) -> Option<Vec<u8>> {
    let (rest, command) = CommandCodec::default().decode(octets).ok()?;
    assert!(rest.is_empty());
    let mut written = Vec::new();
    for fragment in CommandCodec::default().encode(&command) {
        match fragment {
            Fragment::Line { data } | Fragment::Literal { data, .. } => written.extend(data),
        }
    }
    Some(written)
}

#[track_caller]
fn agree(text: &str) {
    let octets = format!("a {text}\r\n");
    let read = ours(octets.as_bytes());
    assert!(read.is_some(), "ours refuses {text:?}");
    let written = theirs(octets.as_bytes());
    let Some(written) = written else {
        panic!("theirs refuses {text:?}")
    };
    assert_eq!(
        ours(&written),
        read,
        "{text:?} became {:?}",
        String::from_utf8_lossy(&written)
    );
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::select(words).prop_map(str::to_owned)
}

/// An astring in one of its forms.
fn astring() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        "[a-z][a-z0-9.]{0,8}",
        "\"[a-z (){}%*]{1,9}\"",
        "[a-z (){}%*\"]{1,9}".prop_map(|text| format!("{{{}+}}\r\n{text}", text.len())),
        Just("\"q\\\"\\\\\"".to_owned()),
    ]
}

fn mailbox() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        one_of(&[
            "INBOX",
            "inbox",
            "\"Inbox\"",
            "&APw-",
            "[Gmail]/Sent",
            "\"a b\"",
            "{3+}\r\na b"
        ]),
        "[a-z][a-z0-9./]{0,8}",
    ]
}

fn set() -> impl Strategy<Value = String> + Clone {
    let number = prop_oneof![(1u32..).prop_map(|n| n.to_string()), Just("*".to_owned())];
    let range = prop_oneof![
        number.clone(),
        (number.clone(), number).prop_map(|(one, other)| format!("{one}:{other}")),
    ];
    vec(range, 1..5).prop_map(|ranges| ranges.join(","))
}

fn spaced(
    item: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    vec(item, count).prop_map(|items| items.join(" "))
}

fn fetch_item() -> impl Strategy<Value = String> {
    let section = prop_oneof![
        one_of(&[
            "",
            "HEADER",
            "TEXT",
            "1",
            "1.2",
            "1.MIME",
            "2.3.HEADER",
            "4.TEXT",
            "HEADER.FIELDS (To From)",
            "1.HEADER.FIELDS.NOT (\"Date\")"
        ]),
        spaced("[A-Za-z-]{1,9}".prop_map(|name| name), 1..4)
            .prop_map(|names| format!("HEADER.FIELDS ({names})")),
    ];
    let window = prop_oneof![
        Just(String::new()),
        (0u32.., 1u32..).prop_map(|(first, count)| format!("<{first}.{count}>")),
    ];
    prop_oneof![
        one_of(&[
            "FLAGS",
            "UID",
            "ENVELOPE",
            "INTERNALDATE",
            "RFC822.SIZE",
            "BODY",
            "BODYSTRUCTURE",
            "RFC822",
            "RFC822.HEADER",
            "RFC822.TEXT",
            "MODSEQ",
            "BINARY.SIZE[1.2]",
            "BINARY[1]",
            "BINARY.PEEK[2]<0.5>",
        ]),
        (one_of(&["BODY", "BODY.PEEK", "body.peek"]), section, window)
            .prop_map(|(body, section, window)| format!("{body}[{section}]{window}")),
    ]
}

fn search_key() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        one_of(&[
            "ALL",
            "ANSWERED",
            "DELETED",
            "DRAFT",
            "FLAGGED",
            "NEW",
            "OLD",
            "RECENT",
            "SEEN",
            "UNANSWERED",
            "UNDELETED",
            "UNDRAFT",
            "UNFLAGGED",
            "UNSEEN",
            "KEYWORD $Junk",
            "UNKEYWORD x",
            "LARGER 5",
            "SMALLER 4294967295",
            "OLDER 60",
            "YOUNGER 5",
            "BEFORE 1-Jan-2026",
            "ON 29-Feb-2024",
            "SINCE \"01-Dec-1999\"",
            "SENTBEFORE 1-Jan-2026",
            "SENTON 2-Jan-2026",
            "SENTSINCE 31-Dec-2025",
            "MODSEQ 5",
        ]),
        set(),
        set().prop_map(|set| format!("UID {set}")),
        (
            one_of(&[
                "BCC",
                "BODY",
                "CC",
                "FROM",
                "SUBJECT",
                "TEXT",
                "TO",
                "HEADER x-y"
            ]),
            astring()
        )
            .prop_map(|(key, text)| format!("{key} {text}")),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|key| format!("NOT {key}")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("OR {one} {other}")),
            spaced(inner, 1..4).prop_map(|keys| format!("({keys})")),
        ]
    })
}

fn command() -> impl Strategy<Value = String> {
    let uid = one_of(&["", "UID "]);
    let flags = spaced(
        one_of(&[
            "\\Seen",
            "\\Deleted",
            "\\Draft",
            "\\Answered",
            "\\Flagged",
            "$Junk",
            "key",
        ]),
        0..4,
    );
    let status = spaced(
        one_of(&[
            "MESSAGES",
            "RECENT",
            "UIDNEXT",
            "UIDVALIDITY",
            "UNSEEN",
            "SIZE",
            "HIGHESTMODSEQ",
        ]),
        1..5,
    );
    let pattern = prop_oneof![one_of(&["*", "%", "\"*\"", "a%", "\"\""]), mailbox()];
    prop_oneof![
        one_of(&[
            "NOOP",
            "CAPABILITY",
            "LOGOUT",
            "CHECK",
            "CLOSE",
            "UNSELECT",
            "EXPUNGE",
            "NAMESPACE",
            "IDLE",
            "ID NIL",
            "ID (\"name\" \"x\" \"os\" NIL)",
            "ENABLE CONDSTORE UTF8=ACCEPT",
            "COMPRESS DEFLATE",
            "GETQUOTA \"\"",
            "SETQUOTA \"\" (STORAGE 5)",
        ]),
        (
            one_of(&[
                "CREATE",
                "DELETE",
                "SUBSCRIBE",
                "UNSUBSCRIBE",
                "GETQUOTAROOT"
            ]),
            mailbox()
        )
            .prop_map(|(verb, name)| format!("{verb} {name}")),
        (
            one_of(&["SELECT", "EXAMINE"]),
            mailbox(),
            one_of(&[
                "",
                " (CONDSTORE)",
                " (QRESYNC (67890007 20050715194045000))",
                " (QRESYNC (1 2 1:9,11))",
                " (QRESYNC (1 2 1:9,11 (1,3 5,7)))",
                " (CONDSTORE QRESYNC (4294967295 9223372036854775807))",
            ])
        )
            .prop_map(|(verb, name, options)| format!("{verb} {name}{options}")),
        (mailbox(), mailbox()).prop_map(|(one, other)| format!("RENAME {one} {other}")),
        (one_of(&["LIST", "LSUB"]), mailbox(), pattern)
            .prop_map(|(verb, name, pattern)| format!("{verb} {name} {pattern}")),
        (mailbox(), status).prop_map(|(name, items)| format!("STATUS {name} ({items})")),
        (uid.clone(), set(), spaced(fetch_item(), 1..5))
            .prop_map(|(uid, set, items)| format!("{uid}FETCH {set} ({items})")),
        (
            uid.clone(),
            set(),
            one_of(&["ALL", "FAST", "FULL", "FLAGS"])
        )
            .prop_map(|(uid, set, name)| format!("{uid}FETCH {set} {name}")),
        (
            uid.clone(),
            set(),
            one_of(&["", "+", "-"]),
            one_of(&["FLAGS", "FLAGS.SILENT"]),
            flags
        )
            .prop_map(|(uid, set, sign, what, flags)| format!(
                "{uid}STORE {set} {sign}{what} ({flags})"
            )),
        (uid.clone(), set(), one_of(&["FLAGS", "FLAGS.SILENT"])).prop_map(
            |(uid, set, what)| format!("{uid}STORE {set} (UNCHANGEDSINCE 5) +{what} (key)")
        ),
        (set(), fetch_item(), one_of(&["", " VANISHED"])).prop_map(
            |(set, item, vanished)| format!(
                "UID FETCH {set} ({item}) (CHANGEDSINCE 9223372036854775807{vanished})"
            )
        ),
        (uid.clone(), one_of(&["COPY", "MOVE"]), set(), mailbox())
            .prop_map(|(uid, verb, set, name)| format!("{uid}{verb} {set} {name}")),
        set().prop_map(|set| format!("UID EXPUNGE {set}")),
        (
            uid.clone(),
            one_of(&["", "CHARSET UTF-8 "]),
            spaced(search_key(), 1..4)
        )
            .prop_map(|(uid, charset, keys)| format!("{uid}SEARCH {charset}{keys}")),
        (
            uid.clone(),
            spaced(
                one_of(&[
                    "ARRIVAL",
                    "CC",
                    "DATE",
                    "REVERSE FROM",
                    "SIZE",
                    "SUBJECT",
                    "TO"
                ]),
                1..3
            ),
            search_key()
        )
            .prop_map(|(uid, by, keys)| format!("{uid}SORT ({by}) UTF-8 {keys}")),
        (uid, one_of(&["REFERENCES", "ORDEREDSUBJECT"]), search_key())
            .prop_map(|(uid, how, keys)| format!("{uid}THREAD {how} UTF-8 {keys}")),
        (
            mailbox(),
            one_of(&["/shared/comment", "(/shared/a /private/b)"])
        )
            .prop_map(|(name, entries)| format!("GETMETADATA {name} {entries}")),
        (
            mailbox(),
            one_of(&["NIL", "\"a b\"", "\"\"", "{3+}\r\n(\")", "{0+}\r\n"])
        )
            .prop_map(|(name, value)| format!(
                "SETMETADATA {name} (/private/comment {value} /shared/x NIL)"
            )),
    ]
}

/// Our reading of the head of an APPEND, and the octets of its message.
fn read_append(octets: &[u8]) -> Option<(MessageHead, Vec<u8>)> {
    let mut framer = Framer::new(Limits::default());
    let mut input = octets;
    let (mut head, mut message) = (None, Vec::new());
    loop {
        match framer.next(&mut input) {
            Step::Continue | Step::MessageEnd => {}
            Step::Message { frame, .. } => {
                let read = parse::message_head(&frame, NameForm::Utf7).ok()?;
                head = Some(read.command);
                framer.accept_message();
            }
            Step::MessageOctets(octets) => message.extend_from_slice(octets),
            Step::AppendEnd(_) => return head.map(|head| (head, message)),
            step => panic!("{step:?}"),
        }
    }
}

fn append() -> impl Strategy<Value = String> {
    let flags = one_of(&["", " ()", " (\\Seen)", " (\\Draft $Junk key)"]);
    let date = one_of(&[
        "",
        " \"17-Jul-1996 02:44:25 -0700\"",
        " \" 1-Feb-2024 23:59:59 +1400\"",
    ]);
    (mailbox(), flags, date, "[ -~]{1,30}").prop_map(|(name, flags, date, text)| {
        format!("APPEND {name}{flags}{date} {{{}+}}\r\n{text}", text.len())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn both_read_the_same(text in command()) {
        agree(&text);
    }

    #[test]
    fn both_read_the_same_message(text in append()) {
        let octets = format!("a {text}\r\n");
        let read = read_append(octets.as_bytes());
        prop_assert!(read.is_some(), "ours refuses {}", text);
        let written = theirs(octets.as_bytes());
        prop_assert!(written.is_some(), "theirs refuses {}", text);
        prop_assert_eq!(read_append(&written.unwrap()), read, "{}", text);
    }

    /// A command damaged in one place: what they still accept, we accept, and
    /// in the same sense.
    #[test]
    fn what_they_forgive_we_forgive(
        text in command(),
        place in 0usize..100,
        octet in prop::sample::select(b" ()\"{}\\*%:,.1a[]<>+-\r\n\0".to_vec()),
        is_added in any::<bool>(),
    ) {
        let mut octets = format!("a {text}").into_bytes();
        let place = place * octets.len() / 100;
        match is_added {
            true => octets.insert(place, octet),
            false => octets[place] = octet,
        }
        octets.extend_from_slice(b"\r\n");
        let Ok((rest, _)) = CommandCodec::default().decode(&octets) else { return Ok(()) };
        if !rest.is_empty() {
            // A line break was added: two commands.
            return Ok(());
        }
        match read(&octets) {
            Err(expected) => prop_assert!(
                STRICTER.contains(&expected),
                "we expect {} in {:?}",
                expected,
                String::from_utf8_lossy(&octets)
            ),
            Ok(read) => prop_assert_eq!(ours(&theirs(&octets).unwrap()), Some(read)),
        }
    }
}
