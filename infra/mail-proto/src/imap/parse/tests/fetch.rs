use super::*;

#[test]
fn every_item_of_fetch_is_read() {
    let section = |part: &[u32], text| Section {
        part: part.to_vec(),
        text,
    };
    let fields = |not, names: &[&str]| SectionText::HeaderFields {
        not,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let body = |section, peek, window: Option<(u64, u64)>| FetchItem::Section {
        section,
        peek,
        window: window.map(|(first, count)| SectionWindow { first, count }),
    };
    let all = || Section::default();
    for (text, item) in [
        ("FLAGS", FetchItem::Flags),
        ("uid", FetchItem::Uid),
        ("ENVELOPE", FetchItem::Envelope),
        ("INTERNALDATE", FetchItem::InternalDate),
        ("RFC822.SIZE", FetchItem::Rfc822Size),
        ("BODYSTRUCTURE", FetchItem::BodyStructure),
        ("BODY", FetchItem::Body),
        ("RFC822", FetchItem::Rfc822),
        ("RFC822.HEADER", FetchItem::Rfc822Header),
        ("RFC822.TEXT", FetchItem::Rfc822Text),
        ("MODSEQ", FetchItem::ModSeq),
        ("EMAILID", FetchItem::EmailId),
        ("THREADID", FetchItem::ThreadId),
        ("SAVEDATE", FetchItem::SaveDate),
        ("PREVIEW", FetchItem::Preview { lazy: false }),
        ("PREVIEW (LAZY)", FetchItem::Preview { lazy: true }),
        ("BODY[]", body(all(), false, None)),
        ("body.peek[]<0.100>", body(all(), true, Some((0, 100)))),
        (
            "BODY[]<18446744073709551615.1>",
            body(all(), false, Some((u64::MAX, 1))),
        ),
        (
            "BODY[HEADER]",
            body(section(&[], SectionText::Header), false, None),
        ),
        (
            "BODY[TEXT]",
            body(section(&[], SectionText::Text), false, None),
        ),
        (
            "BODY[1]",
            body(section(&[1], SectionText::All), false, None),
        ),
        (
            "BODY[1.2.3.MIME]",
            body(section(&[1, 2, 3], SectionText::Mime), false, None),
        ),
        (
            "BODY[4.TEXT]",
            body(section(&[4], SectionText::Text), false, None),
        ),
        (
            "BODY[HEADER.FIELDS (To \"From\")]",
            body(section(&[], fields(false, &["To", "From"])), false, None),
        ),
        (
            "BODY[HEADER.FIELDS ( To )]",
            body(section(&[], fields(false, &["To"])), false, None),
        ),
        (
            "BODY[2.HEADER.FIELDS.NOT (X)]",
            body(section(&[2], fields(true, &["X"])), false, None),
        ),
        (
            "BODY[HEADER.FIELDS ({4+}\r\nDate)]",
            body(section(&[], fields(false, &["Date"])), false, None),
        ),
        (
            "BINARY[1.2]",
            FetchItem::Binary {
                part: vec![1, 2],
                peek: false,
                window: None,
            },
        ),
        (
            "BINARY.PEEK[]<5.6>",
            FetchItem::Binary {
                part: vec![],
                peek: true,
                window: Some(SectionWindow { first: 5, count: 6 }),
            },
        ),
        ("BINARY.SIZE[1]", FetchItem::BinarySize(vec![1])),
    ] {
        reads(
            &format!("FETCH 1 {text}"),
            Command::Fetch(fetch(vec![item.clone()])),
        );
        reads(
            &format!("FETCH 1 (UID {text} FLAGS)"),
            Command::Fetch(fetch(match item {
                FetchItem::Uid => vec![FetchItem::Uid, FetchItem::Flags],
                FetchItem::Flags => vec![FetchItem::Uid, FetchItem::Flags],
                item => vec![FetchItem::Uid, item, FetchItem::Flags],
            })),
        );
    }
}

#[test]
fn macros_are_written_out() {
    use FetchItem::*;
    let fast = vec![Flags, InternalDate, Rfc822Size];
    let full = vec![Flags, InternalDate, Rfc822Size, Envelope, Body];
    reads("FETCH 1 FAST", Command::Fetch(fetch(fast)));
    reads("FETCH 1 ALL", Command::Fetch(fetch(full[..4].to_vec())));
    reads("FETCH 1 full", Command::Fetch(fetch(full.clone())));
    reads("FETCH 1 (FULL)", Command::Fetch(fetch(full)));
}

#[test]
fn modifiers_of_fetch_are_read() {
    reads(
        "UID FETCH 1 FLAGS (CHANGEDSINCE 9223372036854775807 VANISHED PARTIAL -1:-50)",
        Command::Fetch(Fetch {
            by: Addressing::Uid,
            changed_since: Some(u64::MAX / 2),
            vanished: true,
            partial: Some(PartialRange {
                first: 1,
                last: 50,
                from_end: true,
            }),
            ..fetch(vec![FetchItem::Flags])
        }),
    );
    reads(
        "FETCH 1 PREVIEW (CHANGEDSINCE 5)",
        Command::Fetch(Fetch {
            changed_since: Some(5),
            ..fetch(vec![FetchItem::Preview { lazy: false }])
        }),
    );
    let with_set = |set| Fetch {
        set,
        ..fetch(vec![FetchItem::Uid])
    };
    reads("FETCH $ UID", Command::Fetch(with_set(MessageSet::Saved)));
    reads(
        "FETCH 5:3,1,4 UID",
        Command::Fetch(with_set(numbers(&[(1, 1), (3, 5)]))),
    );
    fails(
        "FETCH 1 FLAGS (VANISHED)",
        24,
        "VANISHED with UID FETCH and CHANGEDSINCE only",
    );
    fails(
        "UID FETCH 1 FLAGS (VANISHED)",
        28,
        "VANISHED with UID FETCH and CHANGEDSINCE only",
    );
    fails(
        "FETCH 1 FLAGS (PARTIAL 1:-2)",
        26,
        "a range such as 1:100 or -1:-100",
    );
    fails(
        "FETCH 1 FLAGS (PARTIAL 0:2)",
        23,
        "a range such as 1:100 or -1:-100",
    );
    fails(
        "UID FETCH 1 FLAGS (PARTIAL 1:2 PARTIAL 3:4)",
        31,
        "PARTIAL only once",
    );
    fails("FETCH 1 PREVIEW (X)", 17, "LAZY");
}

#[test]
fn broken_fetches_say_where() {
    fails("FETCH", 5, "a space");
    fails("FETCH 1", 7, "a space");
    fails("FETCH 0 UID", 6, "a message number or *");
    fails("FETCH 4294967296 UID", 6, "a message number or *");
    fails("FETCH 1: UID", 8, "a message number or *");
    fails("FETCH ,1 UID", 6, "a message number or *");
    fails("FETCH 1,$ UID", 8, "a message number or *");
    fails("FETCH 1 ()", 8, "at least one item");
    fails("FETCH 1 (UID", 12, "a space or a closing parenthesis");
    fails("FETCH 1 UID X", 12, "an item to fetch");
    fails("FETCH 1 X", 8, "an item to fetch");
    fails("FETCH 1 BODY[MIME]", 13, "HEADER, TEXT or MIME");
    fails("FETCH 1 BODY[1.]", 15, "a part number or a word");
    fails("FETCH 1 BODY[0]", 13, "a part number");
    fails("FETCH 1 BODY[1", 14, "a closing bracket");
    fails("FETCH 1 BODY[]<0.0>", 17, "a positive count of octets");
    fails("FETCH 1 BODY[]<0>", 16, "a dot and the count of octets");
    fails(
        "FETCH 1 BODY[HEADER.FIELDS ()]",
        13,
        "at least one header field's name",
    );
    fails(
        "FETCH 1 BODY[HEADER.FIELDS ({3+}\r\na\rb)]",
        28,
        "a header field's name",
    );
    for (depth, is_read) in [(100, true), (101, true), (102, false)] {
        let path = vec!["1"; depth].join(".");
        assert_eq!(parsed(format!("FETCH 1 BODY[{path}]")).is_ok(), is_read);
    }
    for (count, is_read) in [(999, true), (1000, true), (1001, false)] {
        let items: String = (1..=count).map(|part| format!("BODY[{part}] ")).collect();
        assert_eq!(parsed(format!("FETCH 1 ({items})")).is_ok(), is_read);
    }
}

#[test]
fn a_set_of_many_stars_is_one_range() {
    let text = format!("FETCH {} UID", vec!["1:*"; 10_000].join(","));
    let Ok(Command::Fetch(fetch)) = parsed(text) else {
        panic!()
    };
    let MessageSet::Numbers(set) = fetch.set else {
        panic!()
    };
    assert_eq!(set.resolve(7).collect::<Vec<_>>(), [(1, 7)]);
    assert_eq!(set.ranges().len(), 0);
}

#[test]
fn store_copy_move_and_expunge_are_read() {
    let store = |by, unchanged_since, action, silent, flags| {
        Command::Store(Store {
            by,
            set: numbers(&[(1, 2)]),
            unchanged_since,
            action,
            silent,
            flags,
        })
    };
    use Addressing::{Sequence, Uid};
    reads(
        "STORE 1:2 +FLAGS (\\seen \\Deleted $Junk \\Seen)",
        store(
            Sequence,
            None,
            StoreAction::Add,
            false,
            vec![Flag::Seen, Flag::Deleted, keyword("$Junk")],
        ),
    );
    reads(
        "STORE 1:2 FLAGS ()",
        store(Sequence, None, StoreAction::Replace, false, vec![]),
    );
    reads(
        "UID STORE 1:2 (UNCHANGEDSINCE 12) -FLAGS.SILENT \\Draft \\Answered",
        store(
            Uid,
            Some(12),
            StoreAction::Remove,
            true,
            vec![Flag::Draft, Flag::Answered],
        ),
    );
    reads(
        "STORE 1:2 FLAGS(\\Recent \\Flagged)",
        store(
            Sequence,
            None,
            StoreAction::Replace,
            false,
            vec![Flag::Flagged],
        ),
    );
    fails("STORE 1:2 *FLAGS ()", 10, "FLAGS or FLAGS.SILENT");
    fails("STORE 1:2 +-FLAGS ()", 11, "FLAGS or FLAGS.SILENT");
    fails("STORE 1:2 FLAGS (\\ )", 18, "a flag");
    fails("STORE 1:2 FLAGS", 15, "a space");
    fails(
        "STORE 1:2 FLAGS (a]b)",
        18,
        "a space or a closing parenthesis",
    );
    reads(
        "COPY 1:2 x",
        Command::Copy(Sequence, numbers(&[(1, 2)]), mailbox("x")),
    );
    reads(
        "UID COPY $ x",
        Command::Copy(Uid, MessageSet::Saved, mailbox("x")),
    );
    reads(
        "UID MOVE 7 \"x\"",
        Command::Move(Uid, numbers(&[(7, 7)]), mailbox("x")),
    );
    reads("UID EXPUNGE 7", Command::Expunge(Some(numbers(&[(7, 7)]))));
    fails("UID EXPUNGE", 11, "a space");
    fails("COPY 1", 6, "a space");
    for (count, is_read) in [(132, true), (133, true), (134, false)] {
        let flags: String = (0..count).map(|n| format!("k{n} ")).collect();
        assert_eq!(parsed(format!("STORE 1 FLAGS ({flags})")).is_ok(), is_read);
    }
}
