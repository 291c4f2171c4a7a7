use super::*;

#[test]
fn mailbox_commands_are_read() {
    let (one, other) = (mailbox("a b"), mailbox("ü"));
    reads("DELETE \"a b\"", Command::Delete(one.clone()));
    reads("SUBSCRIBE {3+}\r\na b", Command::Subscribe(one.clone()));
    reads("UNSUBSCRIBE &APw-", Command::Unsubscribe(other.clone()));
    reads(
        "RENAME \"a b\" &APw-",
        Command::Rename(one.clone(), other.clone()),
    );
    reads(
        "RENAME {3+}\r\na b {5+}\r\n&APw-",
        Command::Rename(one.clone(), other.clone()),
    );
    reads("CREATE inbox", Command::Create(mailbox("INBOX"), vec![]));
    reads(
        "CREATE x (USE (\\sent \\Drafts \\Sent \\New))",
        Command::Create(
            mailbox("x"),
            vec![Some(SpecialUse::Sent), Some(SpecialUse::Drafts), None],
        ),
    );
    reads(
        "MYRIGHTS [Gmail]/Sent",
        Command::MyRights(mailbox("[Gmail]/Sent")),
    );
    fails("DELETE", 6, "a space");
    fails("DELETE \"\"", 7, "a mailbox name that is not empty");
    fails("DELETE a&b", 7, "a mailbox name in modified UTF-7 or UTF-8");
    fails("DELETE \"a", 9, "a closing quote");
    fails("DELETE a*", 8, "the end of the command");
    fails("RENAME a", 8, "a space");
    fails("CREATE x (USE (Sent))", 15, "a special use such as \\Sent");
    fails(
        "CREATE x (USE (\\Sent)",
        21,
        "a space or a closing parenthesis",
    );
    assert_eq!(
        parsed("DELETE {3+}\r\na\0b").unwrap_err().expected,
        "a literal without NUL"
    );
    assert_eq!(
        parsed(format!("DELETE {}", "x".repeat(1025)))
            .unwrap_err()
            .kind,
        ErrorKind::Limit
    );
}

#[test]
fn a_brace_in_quotes_or_in_a_literal_is_no_literal() {
    reads("DELETE {5+}\r\n{1+}x", Command::Delete(mailbox("{1+}x")));
    reads(
        "RENAME \"{1+}\" \"a{2}b\"",
        Command::Rename(mailbox("{1+}"), mailbox("a{2}b")),
    );
    // An unclosed quote does not swallow the literal behind it.
    assert!(parsed("DELETE \"x {3+}\r\na\"b").is_err());
}

#[test]
fn select_is_read_with_what_the_client_knows() {
    let select = |condstore, resync| Select {
        mailbox: mailbox("INBOX"),
        condstore,
        resync,
    };
    reads("SELECT INBOX", Command::Select(select(false, None)));
    reads(
        "EXAMINE Inbox (CONDSTORE)",
        Command::Examine(select(true, None)),
    );
    let resync = |known_uids, known_pairs| {
        Some(QuickResync {
            uid_validity: 67,
            modseq: 90,
            known_uids,
            known_pairs,
        })
    };
    reads(
        "SELECT INBOX (QRESYNC (67 90))",
        Command::Select(select(false, resync(None, None))),
    );
    reads(
        "SELECT INBOX (QRESYNC (67 90 41:50,60) CONDSTORE)",
        Command::Select(select(true, resync(Some(set(&[(41, 50), (60, 60)])), None))),
    );
    let pairs = (set(&[(1, 2), (5, 5)]), set(&[(4, 5), (9, 9)]));
    reads(
        "SELECT INBOX (QRESYNC (67 90 41 (1:2,5 4:5,9)))",
        Command::Select(select(
            false,
            resync(Some(set(&[(41, 41)])), Some(pairs.clone())),
        )),
    );
    reads(
        "SELECT INBOX (QRESYNC (67 90 (1:2,5 4:5,9)))",
        Command::Select(select(false, resync(None, Some(pairs)))),
    );
    fails("SELECT INBOX (QRESYNC (0 90))", 23, "a UIDVALIDITY");
    fails("SELECT INBOX (QRESYNC (67))", 25, "a space");
    fails(
        "SELECT INBOX (QRESYNC (67 90 1:*))",
        29,
        "a set of numbers without *",
    );
    fails(
        "SELECT INBOX (QRESYNC (67 90 1 (1:2 4)))",
        38,
        "as many UIDs as sequence numbers",
    );
    fails(
        "SELECT INBOX (QRESYNC (67 9223372036854775808))",
        26,
        "a modification sequence",
    );
    fails("SELECT INBOX (X)", 14, "CONDSTORE or QRESYNC");
}

#[test]
fn status_is_read() {
    let status = |items| Command::Status(mailbox("a"), items);
    reads(
        "STATUS a (messages UIDNEXT SIZE MESSAGES )",
        status(vec![
            StatusItem::Messages,
            StatusItem::UidNext,
            StatusItem::Size,
        ]),
    );
    let all: Vec<&str> = StatusItem::ALL.iter().map(|item| item.as_str()).collect();
    reads(
        &format!("STATUS a({})", all.join(" ")),
        status(StatusItem::ALL.to_vec()),
    );
    fails("STATUS a ()", 8, "at least one STATUS item");
    fails("STATUS a (X)", 10, "a STATUS item");
}

#[test]
fn list_is_read_in_all_its_forms() {
    let plain = |reference: &str, pattern: &str| List {
        reference: reference.into(),
        patterns: vec![pattern.into()],
        ..List::default()
    };
    reads("LIST \"\" *", Command::List(plain("", "*")));
    reads("LIST \"\" \"\"", Command::List(plain("", "")));
    reads("LIST a/ %/&APw-*", Command::List(plain("a/", "%/ü*")));
    reads("LSUB \"\" \"%\"", Command::Lsub(String::new(), "%".into()));
    reads(
        "LIST (SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE) \"\" (a \"b*\") RETURN (CHILDREN SUBSCRIBED SPECIAL-USE MYRIGHTS STATUS (UNSEEN))",
        Command::List(List {
            selection: ListSelection {
                subscribed: true,
                remote: true,
                recursive_match: true,
                special_use: true,
            },
            reference: String::new(),
            patterns: vec!["a".into(), "b*".into()],
            returns: ListReturn {
                subscribed: true,
                children: true,
                special_use: true,
                status: vec![StatusItem::Unseen],
                my_rights: true,
            },
            extended: true,
        }),
    );
    reads(
        "LIST () \"\" % RETURN ()",
        Command::List(List {
            extended: true,
            ..plain("", "%")
        }),
    );
    fails(
        "LIST (RECURSIVEMATCH) \"\" *",
        5,
        "RECURSIVEMATCH with another option",
    );
    fails(
        "LIST (RECURSIVEMATCH REMOTE) \"\" *",
        5,
        "RECURSIVEMATCH with another option",
    );
    fails("LIST \"\" ()", 8, "at least one pattern");
    fails("LIST \"\"", 7, "a space");
    fails("LIST \"\" * RETURN", 16, "an opening parenthesis");
    fails("LIST \"\" * (CHILDREN)", 10, "RETURN");
    for (count, is_read) in [(99, true), (100, true), (101, false)] {
        assert_eq!(
            parsed(format!("LIST \"\" ({})", "x ".repeat(count))).is_ok(),
            is_read
        );
    }
}
