#![allow(clippy::unwrap_used)]

use super::super::command::{DateTime, Keyword, Rights, Section, SectionText, StatusItem};
use super::super::sequence::{Addressing, PartialRange};
use super::*;

fn written(form: NameForm, write: impl FnOnce(&mut Encoder<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out, form));
    String::from_utf8_lossy(&out).into_owned()
}

#[track_caller]
fn writes(expected: &str, write: impl FnOnce(&mut Encoder<'_>)) {
    assert_eq!(written(NameForm::Utf7, write), format!("{expected}\r\n"));
}

fn name(name: &str) -> MailboxName {
    MailboxName::new(name).unwrap()
}

fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    SequenceSet::from_ranges(ranges.iter().copied())
}

#[test]
fn conditions_are_written_and_made_safe() {
    writes("a OK done", |to| {
        to.tagged("a", Condition::Ok, None, "done")
    });
    writes("a NO [TRYCREATE] x", |to| {
        to.tagged("a", Condition::No, Some(&Code::Word("TRYCREATE")), "x");
    });
    writes("* BYE .", |to| to.untagged(Condition::Bye, None, ""));
    writes("* BAD a??b?? [X]", |to| {
        to.untagged(Condition::Bad, None, "a\r\nb\u{fc} [X]");
    });
    writes("+ idling", |to| to.continuation("idling"));
}

#[test]
fn every_code_is_written() {
    let (one, two) = (set(&[(1, 3)]), set(&[(7, 9)]));
    let flags = [Flag::Seen, Flag::Keyword(Keyword::new("$Junk").unwrap())];
    for (code, expected) in [
        (Code::AppendUid(5, &one), "APPENDUID 5 1:3"),
        (Code::CopyUid(5, &one, &two), "COPYUID 5 1:3 7:9"),
        (
            Code::BadCharset(&["UTF-8", "US-ASCII"]),
            "BADCHARSET (UTF-8 US-ASCII)",
        ),
        (Code::BadEvent(&["FlagChange"]), "BADEVENT (FlagChange)"),
        (
            Code::Capability(&["IMAP4rev1", "IDLE"]),
            "CAPABILITY IMAP4rev1 IDLE",
        ),
        (
            Code::HighestModSeq(u64::MAX),
            "HIGHESTMODSEQ 18446744073709551615",
        ),
        (
            Code::InProgress(Some("a\"1"), Some(5), None),
            "INPROGRESS (\"a\\\"1\" 5 NIL)",
        ),
        (
            Code::InProgress(None, None, None),
            "INPROGRESS (NIL NIL NIL)",
        ),
        (Code::MailboxId("M1"), "MAILBOXID (M1)"),
        (Code::MessageLimit(1000, Some(7)), "MESSAGELIMIT 1000 7"),
        (Code::MessageLimit(1000, None), "MESSAGELIMIT 1000"),
        (Code::MetadataLongEntries(9), "METADATA LONGENTRIES 9"),
        (Code::MetadataMaxSize(9), "METADATA MAXSIZE 9"),
        (Code::MetadataTooMany, "METADATA TOOMANY"),
        (Code::MetadataNoPrivate, "METADATA NOPRIVATE"),
        (Code::Modified(&two), "MODIFIED 7:9"),
        (
            Code::PermanentFlags(&flags, true),
            "PERMANENTFLAGS (\\Seen $Junk \\*)",
        ),
        (Code::PermanentFlags(&[], false), "PERMANENTFLAGS ()"),
        (Code::UidNext(1), "UIDNEXT 1"),
        (Code::UidValidity(2), "UIDVALIDITY 2"),
        (Code::Unseen(3), "UNSEEN 3"),
    ] {
        writes(&format!("* OK [{expected}] x"), |to| {
            to.untagged(Condition::Ok, Some(&code), "x");
        });
    }
}

#[test]
fn mailbox_data_is_written() {
    writes("* 3 EXISTS", |to| to.exists(3));
    writes("* 0 RECENT", |to| to.recent(0));
    writes("* 4294967295 EXPUNGE", |to| to.expunge(u32::MAX));
    writes("* VANISHED (EARLIER) 1:3", |to| {
        to.vanished(true, &set(&[(1, 3)]))
    });
    assert_eq!(
        written(NameForm::Utf7, |to| to.vanished(false, &set(&[]))),
        ""
    );
    writes(
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
        |to| {
            to.flags(&Flag::SYSTEM);
        },
    );
    writes("* CAPABILITY IMAP4rev1 IDLE", |to| {
        to.capability(["IMAP4rev1", "IDLE"])
    });
    writes("* ENABLED", |to| to.enabled([]));
    writes(
        "* STATUS \"a b\" (MESSAGES 5 MAILBOXID (M1) APPENDLIMIT NIL)",
        |to| {
            to.status(
                &name("a b"),
                &[
                    (StatusItem::Messages, StatusValue::Number(5)),
                    (StatusItem::MailboxId, StatusValue::Id("M1")),
                    (StatusItem::AppendLimit, StatusValue::Absent),
                ],
            );
        },
    );
    let personal = [Namespace {
        prefix: "",
        delimiter: Some('/'),
    }];
    let shared = [Namespace {
        prefix: "Sharéd/",
        delimiter: None,
    }];
    writes(
        "* NAMESPACE ((\"\" \"/\")) NIL ((\"Shar&AOk-d/\" NIL))",
        |to| {
            to.namespace([&personal, &[], &shared]);
        },
    );
}

#[test]
fn list_is_written_with_its_extended_data() {
    let (inbox, odd, old) = (name("INBOX"), name("Entwürfe \"1\""), name("old"));
    let response = |name| ListResponse {
        attributes: &["\\HasNoChildren", "\\Drafts"],
        delimiter: Some('/'),
        name,
        child_info: &[],
        old_name: None,
    };
    writes("* LIST (\\HasNoChildren \\Drafts) \"/\" INBOX", |to| {
        to.list(&response(&inbox))
    });
    writes("* LSUB (\\HasNoChildren \\Drafts) \"/\" INBOX", |to| {
        to.lsub(&response(&inbox))
    });
    writes(
        "* LIST (\\HasNoChildren \\Drafts) \"/\" \"Entw&APw-rfe \\\"1\\\"\"",
        |to| {
            to.list(&response(&odd));
        },
    );
    assert_eq!(
        written(NameForm::Utf8, |to| to.list(&response(&odd))),
        "* LIST (\\HasNoChildren \\Drafts) \"/\" \"Entwürfe \\\"1\\\"\"\r\n"
    );
    writes(
        "* LIST () \"\\\\\" INBOX (\"CHILDINFO\" (\"SUBSCRIBED\") \"OLDNAME\" (old))",
        |to| {
            to.list(&ListResponse {
                attributes: &[],
                delimiter: Some('\\'),
                name: &inbox,
                child_info: &["SUBSCRIBED"],
                old_name: Some(&old),
            });
        },
    );
    writes("* LIST (\\Noselect) \"/\" \"\"", |to| {
        to.list_root(Some('/'), "")
    });
}

#[test]
fn results_of_searches_are_written() {
    writes("* SEARCH", |to| to.search([], None));
    writes("* SEARCH 1 5 (MODSEQ 9)", |to| to.search([1, 5], Some(9)));
    writes("* SORT 5 1", |to| to.sort([5, 1], None));
    let found = set(&[(1, 3), (8, 8)]);
    let nothing = SearchResult {
        tag: Some("a1"),
        by: Addressing::Sequence,
        min: None,
        max: None,
        all: None,
        count: None,
        partial: None,
        modseq: None,
    };
    writes("* ESEARCH (TAG \"a1\")", |to| to.esearch(&nothing));
    writes(
        "* ESEARCH (TAG \"a1\") UID MIN 1 MAX 8 COUNT 4 ALL 1:3,8 MODSEQ 7",
        |to| {
            to.esearch(&SearchResult {
                by: Addressing::Uid,
                min: Some(1),
                max: Some(8),
                all: Some(Numbers::Set(&found)),
                count: Some(4),
                modseq: Some(7),
                ..nothing
            });
        },
    );
    writes("* ESEARCH (TAG \"a1\") COUNT 0", |to| {
        let empty = SequenceSet::default();
        to.esearch(&SearchResult {
            count: Some(0),
            all: Some(Numbers::Set(&empty)),
            ..nothing
        });
    });
    let window = PartialRange {
        first: 1,
        last: 100,
        from_end: true,
    };
    writes("* ESEARCH (TAG \"a1\") PARTIAL (-1:-100 9,5:7,3,2)", |to| {
        let partial = Some((window, Numbers::Ordered(&[9, 5, 6, 7, 3, 2])));
        to.esearch(&SearchResult { partial, ..nothing });
    });
    writes("* ESEARCH (TAG \"a1\") PARTIAL (-1:-100 NIL)", |to| {
        to.esearch(&SearchResult {
            partial: Some((window, Numbers::Ordered(&[]))),
            ..nothing
        });
    });
}

#[test]
fn threads_are_written_as_they_branch() {
    let entries = |list: &[(u32, u32)]| -> Vec<ThreadEntry> {
        let number = |number: u32| Some(number).filter(|number| *number > 0);
        list.iter()
            .map(|(depth, n)| ThreadEntry {
                depth: *depth,
                number: number(*n),
            })
            .collect()
    };
    for (list, expected) in [
        // RFC 5256 §4, the two figures there.
        (
            &[
                (0, 2),
                (0, 3),
                (1, 6),
                (2, 4),
                (3, 23),
                (2, 44),
                (3, 7),
                (4, 96),
            ][..],
            "* THREAD (2)(3 6 (4 23)(44 7 96))",
        ),
        (&[(0, 0), (1, 3), (1, 5)], "* THREAD ((3)(5))"),
        (&[(0, 1), (1, 2), (2, 3)], "* THREAD (1 2 3)"),
        (&[(0, 1), (1, 2), (1, 3), (0, 4)], "* THREAD (1 (2)(3))(4)"),
        (&[], "* THREAD"),
    ] {
        writes(expected, |to| to.thread(&entries(list)));
    }
    let deep: Vec<_> = (0..100_000).map(|depth| (depth, 1)).collect();
    written(NameForm::Utf7, |to| to.thread(&entries(&deep)));
}

#[test]
fn quota_acl_metadata_and_id_are_written() {
    let rights = |letters| Rights::new(letters).unwrap();
    writes("* QUOTA \"\" (STORAGE 10 512 MESSAGE 1 2)", |to| {
        to.quota("", &[("STORAGE", 10, 512), ("MESSAGE", 1, 2)]);
    });
    writes("* QUOTAROOT INBOX \"\" other", |to| {
        to.quota_root(&name("INBOX"), &["", "other"])
    });
    writes("* ACL x joe lrs \"-a b\" \"\"", |to| {
        to.acl(&name("x"), &[("joe", rights("lrs")), ("-a b", rights(""))]);
    });
    writes("* LISTRIGHTS x joe \"\" ir kx", |to| {
        to.list_rights(&name("x"), "joe", rights(""), &[rights("ri"), rights("xk")]);
    });
    writes("* MYRIGHTS x ilr", |to| {
        to.my_rights(&name("x"), rights("lri"))
    });
    writes(
        "* METADATA \"\" (/shared/a \"v\" /shared/b NIL /shared/c ~{1}\r\n\0 /shared/d {2}\r\n\r\n)",
        |to| {
            to.metadata(
                None,
                &[
                    ("/shared/a", Some(b"v")),
                    ("/shared/b", None),
                    ("/shared/c", Some(b"\0")),
                    ("/shared/d", Some(b"\r\n")),
                ],
            );
        },
    );
    writes("* METADATA x /shared/a", |to| {
        to.metadata_changed(Some(&name("x")), &["/shared/a"])
    });
    writes("* ID NIL", |to| to.id(&[]));
    writes("* ID (\"name\" \"Posthouse\" \"x\" NIL)", |to| {
        to.id(&[("name", Some("Posthouse")), ("x", None)]);
    });
}

#[test]
fn a_fetch_response_is_written_item_by_item() {
    let mut out = Vec::new();
    let mut fetch = FetchWriter::begin(&mut out, 5, NameForm::Utf7);
    fetch.flags(&mut out, &[Flag::Seen], true);
    fetch.uid(&mut out, 7);
    fetch.modseq(&mut out, 9);
    fetch.size(&mut out, 1 << 40);
    fetch.internal_date(
        &mut out,
        DateTime {
            unix_s: 0,
            offset_minutes: 0,
        },
    );
    fetch.save_date(&mut out, None);
    fetch.email_id(&mut out, "M1");
    fetch.thread_id(&mut out, None);
    fetch.preview(&mut out, Some("a \"b\""));
    fetch.encoded(&mut out, "BODY", b"(x)");
    let names = vec!["To".to_owned(), "X\"Y".to_owned()];
    let section = Section {
        part: vec![1, 2],
        text: SectionText::HeaderFields { not: true, names },
    };
    fetch.section(&mut out, &section, Some(3), 2);
    out.extend_from_slice(b"\r\n");
    fetch.no_section(
        &mut out,
        &Section {
            part: vec![4],
            text: SectionText::Mime,
        },
    );
    fetch.rfc822(&mut out, "RFC822.HEADER", 0);
    fetch.binary(&mut out, &[1], None, Some(1), true);
    out.push(0);
    fetch.binary(&mut out, &[2], Some(0), None, false);
    fetch.binary_size(&mut out, &[2, 1], 8);
    fetch.end(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "* 5 FETCH (FLAGS (\\Seen \\Recent) UID 7 MODSEQ (9) RFC822.SIZE 1099511627776 \
         INTERNALDATE \" 1-Jan-1970 00:00:00 +0000\" SAVEDATE NIL EMAILID (M1) THREADID NIL \
         PREVIEW \"a \\\"b\\\"\" BODY (x) BODY[1.2.HEADER.FIELDS.NOT (To \"X\\\"Y\")]<3> {2}\r\n\r\n \
         BODY[4.MIME] NIL RFC822.HEADER {0}\r\n BINARY[1] ~{1}\r\n\0 BINARY[2]<0> NIL BINARY.SIZE[2.1] 8)\r\n"
    );
    let mut out = Vec::new();
    let mut fetch = FetchWriter::begin_uid(&mut out, 9, NameForm::Utf7);
    fetch.flags(&mut out, [], true);
    fetch.section(&mut out, &Section::default(), None, 0);
    fetch.end(&mut out);
    assert_eq!(out, b"* 9 UIDFETCH (FLAGS (\\Recent) BODY[] {0}\r\n)\r\n");
}

#[test]
fn strings_take_the_form_that_holds_them() {
    let shown = |octets: &[u8], form| {
        let mut out = Vec::new();
        string(&mut out, octets, form);
        out
    };
    for (octets, expected) in [
        (&b""[..], &b"\"\""[..]),
        (b"a\"b\\c\t", b"\"a\\\"b\\\\c\t\""),
        (b"a\rb", b"{3}\r\na\rb"),
        (b"a\nb", b"{3}\r\na\nb"),
        (b"a\0b", b"{3}\r\na?b"),
        (b"\xff", b"{1}\r\n\xff"),
    ] {
        assert_eq!(shown(octets, NameForm::Utf7), expected);
        assert_eq!(shown(octets, NameForm::Utf8), expected);
    }
    assert_eq!(shown("ü".as_bytes(), NameForm::Utf7), "{2}\r\nü".as_bytes());
    assert_eq!(shown("ü".as_bytes(), NameForm::Utf8), "\"ü\"".as_bytes());
    for (length, is_quoted) in [(999, true), (1000, true), (1001, false)] {
        assert_eq!(
            shown(&vec![b'x'; length], NameForm::Utf7)[0] == b'"',
            is_quoted
        );
    }
    let mut out = Vec::new();
    for word in ["a]b", "nil", "", "a b", "{1}"] {
        astring(&mut out, word.as_bytes(), NameForm::Utf7);
        out.push(b' ');
    }
    assert_eq!(out, b"a]b \"nil\" \"\" \"a b\" \"{1}\" ");
}
