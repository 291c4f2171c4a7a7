//! Sections by number, as ranges, and in pieces.

use std::ops::Range;

use super::super::*;
use super::scan;
use crate::imap::command::{Section, SectionText};

fn section(part: &[u32], text: SectionText) -> Section {
    Section {
        part: part.to_vec(),
        text,
    }
}

fn fields(not: bool, names: &[&str]) -> SectionText {
    SectionText::HeaderFields {
        not,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// What a client gets for a section of a prologue followed by a blob.
fn fetch(prologue: &str, blob: &str, section: &Section) -> Option<String> {
    let message = format!("{prologue}{blob}");
    let octets = |range: Range<u64>| &message[range.start as usize..range.end as usize];
    let structure = scan(blob.as_bytes()).structure;
    let shown = Message::new(&structure, prologue.len() as u64);
    let header = octets(shown.range(section)?);
    let ranges = shown.ranges(section, header.as_bytes())?;
    let text: String = ranges.iter().map(octets).collect();
    assert_eq!(ranges.octets(), text.len() as u64);
    // Pieces of any size tile it.
    for size in [1, 3, 1000] {
        let pieces: String = (0..text.len() as u64 + 2)
            .step_by(size)
            .flat_map(|origin| {
                let piece = ranges.partial(origin, size as u64);
                piece.iter().map(octets).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(pieces, text);
    }
    assert_eq!(ranges.partial(u64::MAX, u64::MAX).octets(), 0);
    assert_eq!(ranges.partial(0, u64::MAX), ranges);
    Some(text)
}

const NESTED: &str = "Subject: outer\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n\
    pre\r\n--o\r\nX: one\r\n\r\nfirst\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n\
    Subject: inner\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n\
    --i\r\n\r\ndeep\r\n--i--\r\nepi\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n\
    Subject: plain\r\n\r\nbody\r\n--o--\r\nepilogue";

#[test]
fn parts_are_found_by_number() {
    use SectionText::{All, Header, Mime, Text};
    let inner = "Subject: inner\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n";
    let inner_text = "--i\r\n\r\ndeep\r\n--i--\r\nepi";
    let whole_inner = format!("{inner}{inner_text}");
    for (path, text, expected) in [
        (&[1][..], All, Some("first")),
        (&[1], Mime, Some("X: one\r\n\r\n")),
        (&[1], Text, None),
        (&[1], Header, None),
        (&[1, 1], All, None),
        (&[2], All, Some(&*whole_inner)),
        (&[2], Mime, Some("Content-Type: message/rfc822\r\n\r\n")),
        (&[2], Header, Some(inner)),
        (&[2], Text, Some(inner_text)),
        (
            &[2],
            fields(false, &["subject"]),
            Some("Subject: inner\r\n\r\n"),
        ),
        (&[2, 1], All, Some("deep")),
        (&[2, 1], Mime, Some("\r\n")),
        (&[2, 2], All, None),
        (&[3, 1], All, Some("body")),
        (&[3, 1], Mime, Some("Subject: plain\r\n\r\n")),
        (&[3, 2], All, None),
        (&[4], All, None),
        (&[0], All, None),
        (&[u32::MAX], All, None),
        (&[], Mime, None),
    ] {
        let found = fetch("R: x\r\n", NESTED, &section(path, text.clone()));
        assert_eq!(found.as_deref(), expected, "{path:?} {text:?}");
    }
    assert_eq!(
        fetch("R: x\r\n", "A: b\r\n\r\nc", &section(&[1], Mime)).as_deref(),
        Some("R: x\r\nA: b\r\n\r\n")
    );
}

#[test]
fn the_prologue_belongs_to_the_header_and_ends_where_it_ends() {
    use SectionText::{All, Header, Text};
    let ours = "Return-Path: <>\r\nReceived: by x;\r\n\ttoday\r\n";
    for (blob, header) in [
        ("Subject: a\r\n\r\nb", "Subject: a\r\n\r\n"),
        (
            " folded\r\nSubject: a\r\n\r\nb",
            " folded\r\nSubject: a\r\n\r\n",
        ),
        ("\r\nb", "\r\n"),
        ("\nb", "\n"),
        ("no header\r\nb", "no header\r\nb"),
        ("", ""),
    ] {
        let get = |text| fetch(ours, blob, &section(&[], text)).unwrap();
        assert_eq!(get(All), format!("{ours}{blob}"));
        assert_eq!(get(Header), format!("{ours}{header}"));
        assert_eq!(get(Text), blob[header.len()..]);
        let empty_line = &header[header.trim_end_matches(['\r', '\n']).len()..];
        let empty_line = if header.len() > 2 && !empty_line.is_empty() {
            "\r\n"
        } else {
            empty_line
        };
        // Nothing of the blob is taken for a part of Received.
        assert_eq!(
            get(fields(false, &["RECEIVED"])),
            format!("Received: by x;\r\n\ttoday\r\n{empty_line}")
        );
        assert_eq!(
            get(fields(true, &["Received"])),
            format!("Return-Path: <>\r\n{header}")
        );
    }
}

#[test]
fn the_envelope_is_of_the_blob_alone() {
    let scanned = scan(b" From: a@b\r\nSubject: c\r\n\r\n");
    let mut wire = Vec::new();
    Envelope::read(&scanned.header).write(Dialect::Rev1, &mut wire);
    assert_eq!(wire, b"(NIL \"c\" NIL NIL NIL NIL NIL NIL NIL NIL)");
}
