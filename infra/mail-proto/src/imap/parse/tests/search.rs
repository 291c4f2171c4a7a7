use super::*;

fn searched(text: &str) -> SearchKey {
    match parsed(format!("SEARCH {text}")) {
        Ok(Command::Search(search)) => search.keys,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_search_key_is_read() {
    use SearchKey::*;
    let not = |key| Not(Box::new(key));
    let header = |name: &str, text: &[u8]| Header(name.into(), text.to_vec());
    let day = crate::imap::command::Date::new(2026, 2, 1).unwrap();
    for (text, expected) in [
        ("ALL", All),
        ("1:3", Sequence(numbers(&[(1, 3)]))),
        ("$", Sequence(MessageSet::Saved)),
        ("UID 5", Uid(numbers(&[(5, 5)]))),
        ("UID $", Uid(MessageSet::Saved)),
        ("UIDAFTER 5", UidAfter(numbers(&[(5, 5)]))),
        ("UIDBEFORE $", UidBefore(MessageSet::Saved)),
        ("ANSWERED", Flag(crate::imap::command::Flag::Answered)),
        ("unseen", not(Flag(crate::imap::command::Flag::Seen))),
        ("NOT UNSEEN", Flag(crate::imap::command::Flag::Seen)),
        ("NOT NOT ALL", All),
        ("UNDRAFT", not(Flag(crate::imap::command::Flag::Draft))),
        ("KEYWORD $Junk", Flag(keyword("$Junk"))),
        ("UNKEYWORD x", not(Flag(keyword("x")))),
        ("RECENT", Recent),
        ("OLD", not(Recent)),
        (
            "NEW",
            And(vec![Recent, not(Flag(crate::imap::command::Flag::Seen))]),
        ),
        ("FROM joe", header("FROM", b"joe")),
        ("to \"a b\"", header("TO", b"a b")),
        ("CC \"\\\\\"", header("CC", b"\\")),
        ("BCC {2+}\r\n\"x", header("BCC", b"\"x")),
        (
            "SUBJECT \"DOMAIN\\user\"",
            header("SUBJECT", b"DOMAIN\\user"),
        ),
        ("SUBJECT \u{fc}", header("SUBJECT", "ü".as_bytes())),
        ("HEADER Message-ID \"<x>\"", header("MESSAGE-ID", b"<x>")),
        ("HEADER List-Id \"\"", header("LIST-ID", b"")),
        ("BODY x", Body(b"x".to_vec())),
        ("TEXT x", Text(b"x".to_vec())),
        (
            "BEFORE 1-Feb-2026",
            Date(DateField::Internal, DateTest::Before, day),
        ),
        (
            "ON \"01-feb-2026\"",
            Date(DateField::Internal, DateTest::On, day),
        ),
        (
            "SENTSINCE 1-FEB-2026",
            Date(DateField::Sent, DateTest::Since, day),
        ),
        (
            "SAVEDON 1-Feb-2026",
            Date(DateField::Saved, DateTest::On, day),
        ),
        ("SAVEDATESUPPORTED", SaveDateSupported),
        ("LARGER 4294967296", Larger(1 << 32)),
        ("SMALLER 0", Smaller(0)),
        ("OLDER 3600", Older(3600)),
        ("YOUNGER 1", Younger(1)),
        ("MODSEQ 5", ModSeq(5)),
        ("MODSEQ \"/flags/\\\\draft\" all 5", ModSeq(5)),
        ("EMAILID M1", EmailId("M1".into())),
        ("THREADID T1", ThreadId("T1".into())),
        ("ALL RECENT", And(vec![All, Recent])),
        ("(ALL RECENT)", And(vec![All, Recent])),
        ("( ALL (RECENT OLD) )", And(vec![All, Recent, not(Recent)])),
        ("NOT (ALL RECENT)", not(And(vec![All, Recent]))),
        ("OR ALL RECENT", Or(vec![All, Recent])),
        (
            "OR (ALL) (RECENT OLD)",
            Or(vec![All, And(vec![Recent, not(Recent)])]),
        ),
        (
            "OR OR ALL RECENT 1",
            Or(vec![All, Recent, Sequence(numbers(&[(1, 1)]))]),
        ),
        ("OR NOT ALL NOT RECENT", Or(vec![not(All), not(Recent)])),
        ("OR(ALL)(RECENT)", Or(vec![All, Recent])),
    ] {
        assert_eq!(searched(text), expected, "{text}");
    }
}

#[test]
fn broken_searches_say_where() {
    for (text, at, expected) in [
        ("", 6, "a space"),
        (" X", 7, "a search key"),
        (" ALL RETURN (MIN)", 11, "a search key"),
        (" OR ALL", 13, "a search key"),
        (" OR ALL)", 13, "a space"),
        (" NOT", 10, "a space"),
        (" (ALL", 11, "a closing parenthesis"),
        (" ALL)", 10, "a space"),
        (" ()", 8, "a search key"),
        (" (OR ALL)", 14, "a space"),
        (" FROM", 11, "a space"),
        (" ON 30-Feb-2026", 10, "a day that exists"),
        (" ON 1-Foo-2026", 12, "a date such as 1-Jan-2026"),
        (" UIDAFTER *", 16, "a UID or $"),
        (" UIDBEFORE 0", 17, "a UID or $"),
        (" OLDER 0", 13, "a positive count of seconds"),
        (" MODSEQ \"x\" none 5", 18, "priv, shared or all"),
        (" KEYWORD \\Seen", 15, "a keyword"),
        (" ALLALL", 7, "a search key"),
        (" RETURN (X) ALL", 15, "a known search return option"),
        (" RETURN (ALL PARTIAL 1:2) ALL", 31, "either ALL or PARTIAL"),
        (
            " RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL",
            27,
            "PARTIAL only once",
        ),
    ] {
        fails(&format!("SEARCH{text}"), at, expected);
    }
}

#[test]
fn search_options_are_read() {
    let Ok(Command::Search(search)) =
        parsed("UID SEARCH RETURN (MIN max COUNT SAVE PARTIAL 1:9) CHARSET \"utf-8\" ALL")
    else {
        panic!()
    };
    assert_eq!(search.by, Addressing::Uid);
    assert_eq!(search.charset.as_deref(), Some("utf-8"));
    let returns = search.returns.unwrap();
    assert!(returns.min && returns.max && returns.count && returns.save && !returns.all);
    assert_eq!(returns.partial.unwrap().last, 9);
    let Ok(Command::Search(search)) = parsed("SEARCH RETURN () ALL") else {
        panic!()
    };
    assert!(search.returns.unwrap().all);
    let Ok(Command::Search(search)) = parsed("SEARCH RETURN (SAVE) ALL") else {
        panic!()
    };
    assert!(!search.returns.unwrap().all);
    let Ok(Command::Search(search)) = parsed("SEARCH ALL") else {
        panic!()
    };
    assert_eq!((search.returns, search.charset), (None, None));
}

#[test]
fn searches_have_their_limits() {
    for (depth, is_read) in [(31, true), (32, true), (33, false)] {
        let text = format!(
            "SEARCH {}ALL RECENT{}",
            "(".repeat(depth),
            ")".repeat(depth)
        );
        assert_eq!(parsed(text).is_ok(), is_read, "{depth}");
    }
    for (count, is_read) in [(999, true), (1000, true), (1001, false)] {
        assert_eq!(
            parsed(format!("SEARCH{}", " SEEN".repeat(count))).is_ok(),
            is_read
        );
        // Chains from either side, flat.
        for chain in [
            format!("SEARCH {}SEEN", "OR SEEN ".repeat(count - 1)),
            format!(
                "SEARCH {}SEEN{}",
                "OR ".repeat(count - 1),
                " SEEN".repeat(count - 1)
            ),
        ] {
            match parsed(chain) {
                Ok(Command::Search(search)) => {
                    assert!(is_read);
                    assert!(matches!(search.keys, SearchKey::Or(keys) if keys.len() == count));
                }
                other => assert!(!is_read, "{count} {other:?}"),
            }
        }
    }
    // Deep without parentheses.
    for (pairs, is_read) in [(50, true), (51, false), (400, false)] {
        let text = format!("SEARCH {}SEEN", "OR SEEN NOT ".repeat(pairs));
        assert_eq!(parsed(text).is_ok(), is_read, "{pairs}");
    }
    assert!(parsed(format!("SEARCH {}SEEN", "NOT ".repeat(16_000))).is_ok());
    assert!(parsed(format!("SEARCH {}SEEN", "OR ".repeat(20_000))).is_err());
}

#[test]
fn sort_and_thread_are_read() {
    let criterion = |key, reverse| SortCriterion { key, reverse };
    let sort = Sort {
        by: Addressing::Uid,
        returns: None,
        criteria: vec![
            criterion(SortKey::Date, true),
            criterion(SortKey::DisplayFrom, false),
        ],
        charset: "UTF-8".into(),
        keys: SearchKey::All,
    };
    reads(
        "UID SORT (REVERSE DATE DISPLAYFROM DATE) UTF-8 ALL",
        Command::Sort(sort.clone()),
    );
    let returns = ReturnOptions {
        count: true,
        ..ReturnOptions::default()
    };
    reads(
        "UID SORT RETURN (COUNT) (REVERSE DATE DISPLAYFROM) \"UTF-8\" (ALL)",
        Command::Sort(Sort {
            returns: Some(returns),
            ..sort
        }),
    );
    reads(
        "THREAD references us-ascii ALL",
        Command::Thread(Thread {
            by: Addressing::Sequence,
            algorithm: ThreadAlgorithm::References,
            charset: "us-ascii".into(),
            keys: SearchKey::All,
        }),
    );
    fails("SORT () UTF-8 ALL", 5, "at least one sort key");
    fails("SORT (REVERSE) UTF-8 ALL", 13, "a space");
    fails("SORT (X) UTF-8 ALL", 6, "a sort key");
    fails("SORT (DATE) ALL", 15, "a space");
    fails("THREAD JWZ UTF-8 ALL", 7, "ORDEREDSUBJECT or REFERENCES");
}

#[test]
fn what_a_command_can_make_us_hold_is_small() {
    assert!(size_of::<SearchKey>() * SEARCH_KEYS_MAX <= 64 * 1024);
    assert!(size_of::<FetchItem>() * FETCH_ITEMS_MAX <= 96 * 1024);
    assert!(size_of::<Command>() <= 256);
}
