#![allow(clippy::unwrap_used)]
use mail_proto::imap::encode::Encoder;
use mail_proto::imap::mailbox::NameForm;

use super::*;

/// Day, Message-ID, References, Subject; UIDs from 1.
fn mails(rows: &[(i64, &str, &[&str], &str)]) -> Vec<Mail> {
    let mails = (1..)
        .zip(rows)
        .map(|(uid, (sent_s, id, references, text))| {
            let header = format!("Subject: {text}\r\n\r\n");
            Mail {
                uid,
                sent_s: *sent_s,
                subject: subject(header.as_bytes()),
                id: (!id.is_empty()).then(|| short(id.as_bytes())),
                references: references.iter().map(|id| short(id.as_bytes())).collect(),
            }
        });
    mails.collect()
}

fn shown(entries: &[ThreadEntry]) -> String {
    let mut out = Vec::new();
    Encoder::new(&mut out, NameForm::Utf7).thread(entries);
    let line = String::from_utf8(out).unwrap();
    line["* THREAD".len()..].trim().to_owned()
}

#[test]
fn answers_stand_below_what_they_answer() {
    for (what, rows, expected) in [
        ("nothing", &[][..], ""),
        (
            "a chain, told backwards",
            &[
                (3, "c", &["a", "b"][..], "x"),
                (2, "b", &["a"], "x"),
                (1, "a", &[], "x"),
            ],
            "(3 2 1)",
        ),
        (
            "two answers, by date",
            &[
                (1, "a", &[], "x"),
                (3, "c", &["a"], "Re: x"),
                (2, "b", &["a"], "Re: x"),
            ],
            "(1 (3)(2))",
        ),
        (
            "the first is not here",
            &[(1, "b", &["a"], "x"), (2, "c", &["a"], "x")],
            "((1)(2))",
        ),
        (
            "what is between is not here",
            &[(1, "a", &[], "x"), (2, "c", &["a", "b"], "y")],
            "(1 2)",
        ),
        (
            "nobody is here but one",
            &[(1, "d", &["a", "b", "c"], "x")],
            "(1)",
        ),
        (
            "they answer each other",
            &[
                (1, "a", &["b"], "x"),
                (2, "b", &["a"], "y"),
                (3, "c", &["c"], "z"),
            ],
            "(2 1)(3)",
        ),
        (
            "one Message-ID twice, and none",
            &[(1, "a", &[], "x"), (2, "a", &[], "y"), (3, "", &["a"], "z")],
            "(1 3)(2)",
        ),
        (
            "an answer that names nobody",
            &[
                (1, "a", &[], "x"),
                (2, "b", &[], "Re: x"),
                (3, "c", &[], "Fwd: RE: X"),
            ],
            "(1 (2)(3))",
        ),
        (
            "equal subjects of no answers",
            &[
                (1, "a", &[], "x"),
                (2, "b", &[], "x"),
                (3, "c", &[], "x"),
                (4, "d", &[], ""),
            ],
            "((1)(2)(3))(4)",
        ),
        (
            "threads without their first, of one subject",
            &[
                (1, "b", &["a"], "x"),
                (2, "c", &["a"], "x"),
                (3, "e", &["d"], "x"),
                (4, "f", &["d"], "x"),
            ],
            "((1)(2)(3)(4))",
        ),
        (
            "later ones first",
            &[(9, "a", &[], "x"), (1, "b", &[], "y")],
            "(2)(1)",
        ),
    ] {
        assert_eq!(
            shown(&references::thread(&mails(rows)).unwrap()),
            expected,
            "{what}"
        );
    }
}

#[test]
fn messages_of_one_subject_are_a_thread_by_date() {
    let mut mails = mails(&[
        (5, "", &[], "b"),
        (4, "", &[], "Re: A"),
        (3, "", &[], "a"),
        (6, "", &[], "Re: b"),
        (7, "", &[], "a (fwd)"),
    ]);
    assert_eq!(shown(&subjects::thread(&mut mails)), "(3 (2)(5))(1 4)");
}

fn mail(at: usize, id: usize, references: &[usize]) -> Mail {
    let id_of = |number: &usize| short(format!("{number}@x").as_bytes());
    Mail {
        uid: u32::try_from(at).unwrap() + 1,
        sent_s: 0,
        subject: subject(b"Subject: x\r\n\r\n"),
        id: Some(id_of(&id)),
        references: references.iter().map(id_of).collect(),
    }
}

/// What would take hours if a thread were walked up for each link.
#[test]
fn whatever_is_named_a_mailbox_is_threaded_in_the_time_of_a_sort() {
    const COUNT: usize = 100_000;
    let before = |at: usize| at.checked_sub(1).into_iter().collect::<Vec<_>>();
    let mut chain: Vec<Mail> = (0..COUNT).map(|at| mail(at, at, &before(at))).collect();
    let entries = references::thread(&chain).unwrap();
    assert_eq!(entries.last().unwrap().depth as usize, COUNT - 1);
    chain.reverse();
    assert_eq!(references::thread(&chain).unwrap(), entries);
    // In steps, so that long pieces are joined late.
    chain.sort_by_key(|mail| (mail.uid % 317, mail.uid));
    assert_eq!(references::thread(&chain).unwrap(), entries);

    // Everybody is named below the end of a chain of those who are not here, and above somebody else.
    let mut mails: Vec<Mail> = Vec::new();
    for at in 0..COUNT / 100 {
        let named: Vec<usize> = (at * 99..=at * 99 + 99).collect();
        mails.push(mail(at, 10 * COUNT + at, &named));
    }
    let end = COUNT / 100 * 99;
    for at in COUNT / 100..COUNT {
        mails.push(mail(
            at,
            20 * COUNT + at,
            &[end, 30 * COUNT + at, 40 * COUNT + at / 2],
        ));
    }
    assert_eq!(
        references::thread(&mails)
            .unwrap()
            .iter()
            .filter(|entry| entry.number.is_some())
            .count(),
        COUNT
    );

    // One Message-ID for all; a ring; each names all the others.
    for mails in [
        (0..COUNT)
            .map(|at| mail(at, 1, &[1, 1, 1]))
            .collect::<Vec<_>>(),
        (0..COUNT)
            .map(|at| mail(at, at, &[(at + 1) % COUNT]))
            .collect(),
        (0..COUNT)
            .map(|at| mail(at, at, &[at / 2, COUNT - at, at / 3, at]))
            .collect(),
    ] {
        let entries = references::thread(&mails).unwrap();
        let mut uids: Vec<u32> = entries.iter().filter_map(|entry| entry.number).collect();
        uids.sort_unstable();
        assert!(uids.into_iter().eq((1..).take(COUNT)));
    }
    let many: Vec<Mail> = (0..12_000)
        .map(|at| mail(at, at, &(at * 100..at * 100 + 100).collect::<Vec<_>>()))
        .collect();
    assert_eq!(references::thread(&many), Err(TooMany));
}
