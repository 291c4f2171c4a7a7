//! What holds of IMAP's framing and grammar for any octets in any cut: no
//! panic, the same commands, bounded memory, and what is written reads the same.
#![allow(clippy::unwrap_used)]

use mail_proto::imap::command::{
    Command, FetchItem, Flag, Keyword, MessageOptions, Section, SectionText,
};
use mail_proto::imap::encode::{Encoder, FetchWriter, ListResponse, astring, nstring8, string};
use mail_proto::imap::framing::{Frame, Framer, Limits, Step};
use mail_proto::imap::mailbox::{MailboxName, NameForm};
use mail_proto::imap::parse;
use mail_proto::imap::sequence::{MessageSet, SequenceSet};
use proptest::collection::vec;
use proptest::prelude::*;

const WORDS: &[&str] = &[
    "a ",
    "FETCH ",
    "UID ",
    "SEARCH ",
    "STORE ",
    "SORT ",
    "THREAD ",
    "LIST ",
    "STATUS ",
    "SELECT ",
    "CREATE ",
    "RENAME ",
    "APPEND ",
    "REPLACE ",
    "NOTIFY ",
    "GETMETADATA ",
    "SETMETADATA ",
    "SETACL ",
    "SETQUOTA ",
    "ID ",
    "ENABLE ",
    "COPY ",
    "1:*",
    "1,2,3 ",
    "$ ",
    "4294967295 ",
    "*",
    "(",
    ")",
    " (",
    ") ",
    "OR ",
    "NOT ",
    "ALL ",
    "UNSEEN ",
    "RETURN ",
    "PARTIAL ",
    "-1:-2",
    "FLAGS ",
    "BODY[",
    "BODY.PEEK[",
    "HEADER.FIELDS ",
    "]",
    "<0.5>",
    "BINARY[1.2]",
    "PREVIEW ",
    "CHANGEDSINCE ",
    "VANISHED ",
    "QRESYNC ",
    "\"x\" ",
    "\"",
    "\\Seen ",
    "\\",
    "INBOX ",
    "&APw- ",
    "{3}",
    "{3+}",
    "~{3+}",
    "{3+}\r\nabc",
    "{0+}\r\n",
    "{99999}",
    "{30+}",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    " ",
    "  ",
    "\0",
    "\u{fc}",
    "SET ",
    "SELECTED ",
    "MessageNew ",
    "MessageExpunge ",
    "1-Jan-2026 ",
    "\" 1-Jan-2026 00:00:00 +0000\" ",
    "UTF8 (",
    "/shared/x ",
    "NIL ",
    "MODSEQ ",
    "CHARSET ",
    "UTF-8 ",
    "DATE ",
    "REFERENCES ",
    "DONE",
    "SUBSCRIBED ",
    "USE ",
    "STATUS ",
];

fn input() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec());
    let long = (100usize..400).prop_map(|length| vec![b'x'; length]);
    vec(
        prop_oneof![30 => word, 2 => vec(any::<u8>(), 0..9), 1 => long],
        0..60,
    )
    .prop_map(|parts| parts.concat())
}

const LIMITS: Limits = Limits {
    text_max_bytes: 300,
    literals_max: 5,
    literals_max_bytes: 40,
    swallow_max_bytes: 60,
};

/// What happened, with everything parsed that can be. Every third message is
/// refused. Panics when memory is not bounded.
fn story(octets: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut * octets.len() / 100).collect();
    places.push(octets.len());
    places.sort_unstable();
    let mut framer = Framer::new(LIMITS);
    let mut seen = Vec::new();
    let (mut from, mut messages, mut message) = (0, 0, Vec::new());
    let bounded = |frame: &Frame| {
        assert!(frame.octets().len() <= LIMITS.text_max_bytes + LIMITS.literals_max_bytes);
    };
    for to in places {
        let mut input = &octets[from..to];
        from = to;
        loop {
            match framer.next(&mut input) {
                Step::NeedInput => {
                    assert!(input.is_empty());
                    break;
                }
                Step::AwaitAnswer => unreachable!("answered at once"),
                Step::Continue => seen.push("+".to_owned()),
                Step::Command(frame) => {
                    bounded(&frame);
                    assert!(framer.is_between_commands());
                    let command = parse::command(&frame, NameForm::Utf7);
                    if let Ok(tagged) = &command
                        && tagged.command == Command::Idle
                    {
                        framer.expect_line();
                    }
                    seen.push(format!("{command:?}"));
                }
                Step::Line(frame) => seen.push(format!("{}", parse::is_done(&frame))),
                Step::Message { frame, size } => {
                    bounded(&frame);
                    let head = parse::message_head(&frame, NameForm::Utf8);
                    let next = parse::message_next(&frame, &MessageOptions::default());
                    seen.push(format!("{size} {head:?} {next:?}"));
                    messages += 1;
                    match messages % 3 {
                        0 => framer.refuse_message(),
                        _ => framer.accept_message(),
                    }
                }
                Step::MessageOctets(octets) => message.extend_from_slice(octets),
                Step::MessageEnd => seen.push(format!("{:?}", std::mem::take(&mut message))),
                Step::AppendEnd(frame) => {
                    let end = parse::message_end(&frame, &MessageOptions::default());
                    seen.push(format!("{end:?}"));
                }
                Step::Fault(fault) => seen.push(format!("{fault:?}")),
                Step::HangUp(fault) => {
                    seen.push(format!("hang up {fault:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

/// The one command that these octets are.
fn command(octets: &[u8], form: NameForm) -> Result<Command, parse::BadCommand> {
    let mut framer = Framer::new(Limits::default());
    let mut input = octets;
    loop {
        match framer.next(&mut input) {
            Step::Continue => {}
            Step::Command(frame) => {
                assert!(input.is_empty(), "{:?}", String::from_utf8_lossy(input));
                return parse::command(&frame, form).map(|tagged| tagged.command);
            }
            step => panic!("{step:?}"),
        }
    }
}

fn form() -> impl Strategy<Value = NameForm> {
    prop_oneof![Just(NameForm::Utf7), Just(NameForm::Utf8)]
}

/// Octets as a client may search for: those that need each form of string.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(1u8.., 0..40),
        "[a-z\"\\\\ {}0-9()\r\n]{0,30}".prop_map(String::into_bytes),
        Just(vec![b'x'; 2000]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn commands_are_the_same_for_every_cut(octets in input(), cuts in vec(0usize..100, 0..20)) {
        let whole = story(&octets, &[]);
        prop_assert_eq!(&story(&octets, &cuts), &whole);
        prop_assert_eq!(&story(&octets, &(0..100).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn any_line_is_parsed_or_refused_within_itself(line in input()) {
        for form in [NameForm::Utf7, NameForm::Utf8] {
            if let Err(bad) = parse::command(&Frame::line(&line), form) {
                prop_assert!(bad.error.at <= line.len());
                prop_assert!(bad.error.text().is_ascii());
            }
        }
    }

    #[test]
    fn any_line_behind_a_verb_is_parsed_or_refused(
        verb in prop::sample::select(WORDS),
        rest in vec(prop::sample::select(WORDS), 0..12),
    ) {
        let line = format!("a {verb}{}", rest.concat());
        if let Err(bad) = parse::command(&Frame::line(line.as_bytes()), NameForm::Utf7) {
            prop_assert!(bad.error.at <= line.len());
        }
    }

    #[test]
    fn a_string_written_is_read_the_same(text in text(), form in form()) {
        let mut octets = b"a SEARCH SUBJECT ".to_vec();
        string(&mut octets, &text, form);
        octets.extend_from_slice(b" BODY ");
        astring(&mut octets, &text, form);
        octets.extend_from_slice(b"\r\n");
        let Command::Search(search) = command(&octets, form).unwrap() else { panic!() };
        let shown = format!("{:?}", search.keys);
        prop_assert_eq!(shown.matches(&format!("{text:?}")).count(), 2);
    }

    #[test]
    fn a_value_written_is_read_the_same(value in proptest::option::of(vec(any::<u8>(), 0..40)), form in form()) {
        let mut octets = b"a SETMETADATA \"\" (/shared/x ".to_vec();
        nstring8(&mut octets, value.as_deref(), form);
        octets.extend_from_slice(b")\r\n");
        let Command::SetMetadata(set) = command(&octets, form).unwrap() else { panic!() };
        prop_assert_eq!(&set.entries[0].1, &value);
    }

    #[test]
    fn a_mailbox_listed_can_be_selected(name in "[ -~äß台😀]{1,30}", form in form()) {
        let name = MailboxName::new(&name).unwrap();
        let mut listed = Vec::new();
        Encoder::new(&mut listed, form).list(&ListResponse {
            attributes: &[],
            delimiter: Some('/'),
            name: &name,
            child_info: &[],
            old_name: None,
        });
        let shown = listed.strip_prefix(b"* LIST () \"/\" ").unwrap();
        let octets = [b"a SELECT ", shown].concat();
        let Command::Select(select) = command(&octets, form).unwrap() else { panic!() };
        prop_assert_eq!(select.mailbox, name);
    }

    #[test]
    fn a_set_written_is_read_the_same(ranges in vec((1u32.., 1u32..50), 1..30), star in any::<bool>()) {
        let ranges = ranges.into_iter().map(|(first, count)| (first, first.saturating_add(count)));
        let set = SequenceSet::from_ranges(ranges);
        let mut octets = b"a FETCH ".to_vec();
        set.encode(&mut octets);
        octets.extend_from_slice(if star { b",7:* UID\r\n" } else { b" UID\r\n" });
        let Command::Fetch(fetch) = command(&octets, NameForm::Utf7).unwrap() else { panic!() };
        let MessageSet::Numbers(read) = fetch.set else { panic!() };
        prop_assert_eq!(read.ranges(), set.ranges());
        prop_assert_eq!(read.has_star(), star);
    }

    #[test]
    fn a_section_written_is_read_the_same(
        part in vec(1u32.., 0..5),
        names in vec("[!-9;-~]{1,12}", 1..4),
        kind in 0..6,
        form in form(),
    ) {
        let text = match kind {
            0 => SectionText::Header,
            1 => SectionText::Text,
            2 if !part.is_empty() => SectionText::Mime,
            3 => SectionText::HeaderFields { not: false, names },
            4 => SectionText::HeaderFields { not: true, names },
            _ => SectionText::All,
        };
        let section = Section { part, text };
        let mut out = Vec::new();
        let mut fetch = FetchWriter::begin(&mut out, 1, form);
        fetch.no_section(&mut out, &section);
        fetch.end(&mut out);
        let shown = out.strip_prefix(b"* 1 FETCH (").unwrap().strip_suffix(b" NIL)\r\n").unwrap();
        let octets = [b"a FETCH 1 ", shown, b"\r\n"].concat();
        let Command::Fetch(fetch) = command(&octets, form).unwrap() else { panic!() };
        let [FetchItem::Section { section: read, .. }] = &fetch.items[..] else { panic!() };
        prop_assert_eq!(read, &section);
    }

    #[test]
    fn flags_written_are_read_the_same(words in vec("[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~-]{1,12}", 0..10)) {
        let mut flags: Vec<Flag> = words.iter().map(|word| Flag::Keyword(Keyword::new(word).unwrap())).collect();
        flags.push(Flag::Seen);
        let mut out = Vec::new();
        Encoder::new(&mut out, NameForm::Utf7).flags(&flags);
        let shown = out.strip_prefix(b"* FLAGS ").unwrap();
        let octets = [b"a STORE 1 FLAGS ", shown].concat();
        let Command::Store(store) = command(&octets, NameForm::Utf7).unwrap() else { panic!() };
        flags.dedup();
        prop_assert!(store.flags.iter().all(|flag| flags.contains(flag)));
        prop_assert!(flags.iter().all(|flag| store.flags.contains(flag)));
    }

    #[test]
    fn nothing_written_holds_a_line_break_outside_a_literal(text in "\\PC{0,20}[\r\n\0]{0,3}\\PC{0,9}", form in form()) {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out, form);
        to.tagged(&text, mail_proto::imap::encode::Condition::No, None, &text);
        to.continuation(&text);
        to.capability([text.as_str()]);
        prop_assert_eq!(out.iter().filter(|octet| **octet == b'\n').count(), 3);
        prop_assert!(!out.contains(&0));
    }
}

/// Everything that a session keeps can be written out and read back; here by
/// the bounds that make it so.
#[test]
fn what_a_session_keeps_can_be_serialised() {
    fn kept<T: serde::Serialize + for<'de> serde::Deserialize<'de> + Clone + Send + 'static>() {}
    kept::<SequenceSet>();
    kept::<MailboxName>();
    kept::<mail_proto::imap::capability::Enabled>();
    kept::<mail_proto::imap::command::NotifySet>();
    kept::<FetchItem>();
    kept::<Flag>();
}
