use super::*;

#[test]
fn commands_without_arguments_are_read() {
    for (text, expected) in [
        ("CAPABILITY", Command::Capability),
        ("noop", Command::Noop),
        ("LOGOUT", Command::Logout),
        ("IDLE", Command::Idle),
        ("NAMESPACE", Command::Namespace),
        ("CHECK", Command::Check),
        ("CLOSE ", Command::Close),
        ("Unselect", Command::Unselect),
        ("EXPUNGE", Command::Expunge(None)),
        ("LOGIN joe \"secret", Command::LoginAgain),
        ("COMPRESS deflate", Command::Compress),
    ] {
        reads(text, expected);
    }
    fails("NOOP x", 5, "the end of the command");
    fails("CLOSE(", 5, "the end of the command");
    fails("COMPRESS LZ4", 9, "DEFLATE");
    for text in ["XYZZY", "UID NOOP", "NOO", "UID IDLE"] {
        assert_eq!(parsed(text).unwrap_err().kind, ErrorKind::Unknown, "{text}");
    }
    fails("UID", 3, "a space");
    fails("(", 0, "a command");
}

#[test]
fn a_tag_is_needed() {
    for text in [
        &b" NOOP"[..],
        b"a+ NOOP",
        b"* NOOP",
        b"\xff NOOP",
        b"+ NOOP",
        b"(a) NOOP",
    ] {
        let bad = command(&Frame::line(text), NameForm::Utf7).unwrap_err();
        assert_eq!(bad.tag, None, "{text:?}");
    }
    let bad = command(&Frame::line(b"a"), NameForm::Utf7).unwrap_err();
    assert_eq!(bad.tag.as_deref(), Some("a"));
}

#[test]
fn session_commands_are_read() {
    reads("ID NIL", Command::Id(vec![]));
    reads("ID", Command::Id(vec![]));
    reads("ID ()", Command::Id(vec![]));
    reads(
        "ID (\"name\" \"x\\\"y\" \"os\" NIL)",
        Command::Id(vec![
            ("name".into(), Some("x\"y".into())),
            ("os".into(), None),
        ]),
    );
    fails("ID (name x)", 4, "a field's name");
    fails("ID (\"name\")", 10, "a space");
    for (count, is_read) in [(29, true), (30, true), (31, false)] {
        let text = format!("ID ({})", "\"a\" \"b\" ".repeat(count));
        assert_eq!(parsed(&text).is_ok(), is_read, "{count}");
    }
    reads(
        "ENABLE QRESYNC x-other utf8=accept QRESYNC IMAP4rev2",
        Command::Enable(vec![Enable::Qresync, Enable::Utf8Accept, Enable::Imap4Rev2]),
    );
    fails("ENABLE", 6, "a space");
    fails("ENABLE (", 7, "a capability");
}

#[test]
fn notify_is_read_and_its_rules_kept() {
    reads("NOTIFY NONE", Command::Notify(None));
    reads(
        "NOTIFY SET STATUS (selected (MessageNew (UID FLAGS) MessageExpunge FlagChange)) (subtree (a b) (MailboxName)) (mailboxes x NONE) (inboxes (MessageNew MessageExpunge))",
        Command::Notify(Some(NotifySet {
            status: true,
            groups: vec![
                NotifyGroup {
                    filter: MailboxFilter::Selected,
                    events: vec![
                        NotifyEvent::MessageNew(vec![FetchItem::Uid, FetchItem::Flags]),
                        NotifyEvent::MessageExpunge,
                        NotifyEvent::FlagChange,
                    ],
                },
                NotifyGroup {
                    filter: MailboxFilter::Subtree(vec![mailbox("a"), mailbox("b")]),
                    events: vec![NotifyEvent::MailboxName],
                },
                NotifyGroup {
                    filter: MailboxFilter::Mailboxes(vec![mailbox("x")]),
                    events: vec![],
                },
                NotifyGroup {
                    filter: MailboxFilter::Inboxes,
                    events: vec![NotifyEvent::MessageNew(vec![]), NotifyEvent::MessageExpunge],
                },
            ],
        })),
    );
    fails("NOTIFY SET", 10, "a space");
    fails(
        "NOTIFY SET (personal (MessageNew))",
        21,
        "MessageNew and MessageExpunge together",
    );
    fails(
        "NOTIFY SET (personal (FlagChange))",
        21,
        "FlagChange with MessageNew and MessageExpunge",
    );
    fails(
        "NOTIFY SET (selected (MailboxName))",
        21,
        "message events only for the selected mailbox",
    );
    fails("NOTIFY SET (personal ())", 21, "at least one event or NONE");
    fails(
        "NOTIFY SET (personal (MessageNew (UID) MessageExpunge))",
        33,
        "items to fetch for the selected mailbox only",
    );
    fails(
        "NOTIFY SET (selected NONE) (selected-delayed NONE)",
        27,
        "the selected mailbox only once",
    );
    let error = parsed("NOTIFY SET (personal (MoonRise))").unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadEvent);
}

#[test]
fn only_done_ends_idle() {
    assert!(is_done(&Frame::line(b"DONE")));
    assert!(!is_done(&Frame::line(b"a DONE")) && !is_done(&Frame::line(b"")));
}

#[test]
fn utf8_is_read_where_it_was_enabled() {
    let frame = Frame::line("a SELECT \"A&B ü\"".as_bytes());
    assert!(command(&frame, NameForm::Utf7).is_err());
    let Ok(Tagged {
        command: Command::Select(select),
        ..
    }) = command(&frame, NameForm::Utf8)
    else {
        panic!()
    };
    assert_eq!(select.mailbox.as_str(), "A&B ü");
}

#[test]
fn where_utf8_was_enabled_nothing_else_is_quoted() {
    for text in [
        &b"a SELECT \"\xff\""[..],
        b"a SEARCH SUBJECT \"\xc3\"",
        b"a SETMETADATA \"\" (/private/x \"\xe2\x82\")",
    ] {
        let read = command(&Frame::line(text), NameForm::Utf8);
        let error = read.unwrap_err().error;
        let told = (error.kind, error.expected);
        let expected = (ErrorKind::Syntax, "a quoted string in UTF-8");
        assert_eq!(told, expected, "{}", text.escape_ascii());
    }
    let search = b"a SEARCH SUBJECT \"\xff\"";
    assert!(command(&Frame::line(search), NameForm::Utf7).is_ok());
}

#[test]
fn commands_that_use_sequence_numbers_are_told() {
    for (text, uses) in [
        ("FETCH 1 UID", true),
        ("UID FETCH 1 FLAGS", false),
        ("SEARCH ALL", true),
        ("UID SEARCH ALL", false),
        ("UID SEARCH OR ALL NOT (SEEN 1)", true),
        ("UID SEARCH $", false),
        ("SELECT x (QRESYNC (1 1 1 (1 1)))", true),
        ("SELECT x (QRESYNC (1 1 1))", false),
        ("EXPUNGE", false),
        ("MOVE 1 x", true),
    ] {
        assert_eq!(
            parsed(text).unwrap().uses_sequence_numbers(),
            uses,
            "{text}"
        );
    }
}

#[test]
fn errors_tell_nothing_of_the_input() {
    let error = parsed("FETCH 1 <script>").unwrap_err();
    assert_eq!(error.text(), "expected an item to fetch at octet 10");
    assert_eq!(
        parsed("<script>").unwrap_err().text(),
        "expected a command at octet 2"
    );
    assert_eq!(parsed("SCRIPT").unwrap_err().text(), "unknown command");
}
