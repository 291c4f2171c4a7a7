//! What holds for every message: the same structure however it is cut, parts
//! inside their parents, valid grammar, sections as announced, linear time.
#![allow(clippy::unwrap_used)]

mod limits;
mod sections;

use proptest::collection::vec;
use proptest::prelude::*;
use testkit::fetch_grammar::{Announced, Grammar};

use super::*;
use crate::imap::command::{Section, SectionText};

pub(super) fn scan(blob: &[u8]) -> Scanned {
    let mut scanner = Scanner::new();
    scanner.push(blob);
    scanner.finish()
}

/// Pieces that make structure, and pieces that break it.
fn blob() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let noise = vec(any::<u8>(), 0..12);
    vec(prop_oneof![12 => piece, 1 => noise], 0..40).prop_map(|pieces| pieces.concat())
}

const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\0",
    "é",
    "--",
    "--a",
    "--a--",
    "--ab",
    "--ab--",
    "\r\n--a\r\n",
    "\r\n--a--\r\n",
    "\n--ab\n",
    "--ab \t\r\n",
    "--a--\n\n",
    "\r\n\r\n",
    "text\r\n",
    "Content-Type: multipart/mixed; boundary=a\r\n",
    "Content-Type: multipart/digest; boundary=\"ab \"\n",
    "Content-Type: multipart/alternative; boundary=ab\r\n\r\n",
    "Content-Type: multipart/x; boundary=\"\"\r\n",
    "Content-Type: multipart/x\r\n",
    "Content-Type: message/rfc822\r\n",
    "Content-Type: message/rfc822\r\n\r\n",
    "Content-Type: message/global\n\n",
    "Content-Type: text/html; charset=\"é\\\"\"; n*0=a; n*1*=%41\r\n",
    "Content-Type: image/\0; a=b\r\n",
    "Content-Type: image/x; a\r\n b=\"\0\\\r\n",
    "Content-ID: <\r>\r\n",
    "Content-Description: é {3}\r\n",
    "Content-Disposition: inline; filename=a b\r\n",
    "Content-Disposition: =\r\n",
    "Content-Language: de, \"x\", (\r\n",
    "Content-MD5: \"\\\n",
    "Content-Location: http://x/ (y\r\n",
    "Content-Transfer-Encoding: base64\r\n",
    "Date: 1 Jan 1970\r\n",
    "Subject: =?utf-8?q?=C3?=\r\n =?utf-8?q?=A9?= é\"\r\n",
    "From: a@b, \"c\\\" <@d,@e:f@g>, h: i@[j];\r\n",
    "To: x: y\r\n",
    "Sender: <>\r\n",
    "Cc: \"(((\r\n",
    "Bcc: :;:;\r\n",
    "In-Reply-To: <a@b\r\n",
    "Message-ID: \r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_structure_is_the_same_for_every_cut(blob in blob(), cuts in vec(1usize..40, 1..20)) {
        let whole = scan(&blob);
        let mut cut = Scanner::new();
        let mut rest = &blob[..];
        for length in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cut.push(piece);
            rest = after;
        }
        let cut = cut.finish();
        prop_assert_eq!(&cut.structure, &whole.structure);
        prop_assert_eq!(&cut.header, &whole.header);
        prop_assert_eq!(&blob[..cut.header.len()], &cut.header[..]);
        let read = Structure::from_bytes(whole.structure.as_bytes().to_vec());
        prop_assert_eq!(read, Ok(whole.structure));
    }

    #[test]
    fn parts_lie_in_their_parents_in_order(blob in blob()) {
        let scanned = scan(&blob);
        let root = scanned.structure.root();
        prop_assert_eq!(root.octets(), 0..blob.len() as u64);
        prop_assert_eq!(root.header().end, scanned.header.len() as u64);
        nested_in_order(&root, &blob)?;
    }

    #[test]
    fn sections_are_as_announced(blob in blob(), prologue in 0u64..9) {
        sections_agree(&blob, prologue)?;
    }

    #[test]
    fn envelopes_are_valid_grammar(blob in blob()) {
        for dialect in [Dialect::Rev1, Dialect::Utf8] {
            let mut wire = Vec::new();
            Envelope::read(&blob).write(dialect, &mut wire);
            let grammar = grammar(BodyForm::Body, dialect);
            prop_assert!(grammar.is_envelope(&wire), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn decoders_take_anything(octets in vec(any::<u8>(), 0..300), blob in blob()) {
        for value in [&octets, &blob] {
            let text = decode_words(value);
            base_subject(&text);
            parse_date(value);
            message_ids(value).count();
            Addresses::new(value).count();
            let _ = Structure::from_bytes(&value[..]);
        }
    }
}

fn nested_in_order(part: &Part<'_>, blob: &[u8]) -> Result<(), TestCaseError> {
    let body = part.body();
    let octets = &blob[body.start as usize..body.end as usize];
    let lines = octets.iter().filter(|octet| **octet == b'\n').count();
    prop_assert_eq!(part.lines(), lines as u64);
    let mut at = body.start;
    for child in part.children() {
        prop_assert!(child.octets().start >= at);
        prop_assert!(child.octets().end <= body.end);
        if part.kind() == Kind::Message {
            prop_assert_eq!(child.octets(), body.clone());
        }
        at = child.octets().end;
        nested_in_order(&child, blob)?;
    }
    Ok(())
}

fn grammar(form: BodyForm, dialect: Dialect) -> Grammar {
    Grammar {
        is_extended: form == BodyForm::BodyStructure,
        is_utf8: dialect == Dialect::Utf8,
    }
}

/// Fetches every part that BODYSTRUCTURE announces.
pub(super) fn sections_agree(blob: &[u8], prologue: u64) -> Result<(), TestCaseError> {
    let structure = scan(blob).structure;
    let message = Message::new(&structure, prologue);
    prop_assert_eq!(message.size(), prologue + blob.len() as u64);
    for (form, dialect) in [
        (BodyForm::Body, Dialect::Rev1),
        (BodyForm::BodyStructure, Dialect::Rev1),
        (BodyForm::BodyStructure, Dialect::Utf8),
    ] {
        let mut wire = Vec::new();
        write_body_structure(&structure, form, dialect, &mut wire);
        let Some(announced) = grammar(form, dialect).body(&wire) else {
            return Err(TestCaseError::fail(wire.escape_ascii().to_string()));
        };
        // Of very many parts some, the last among them.
        let step = announced.len() / 200 + 1;
        for Announced {
            path,
            octets,
            lines,
            ..
        } in announced.into_iter().rev().step_by(step)
        {
            let section = Section {
                part: path.clone(),
                text: SectionText::All,
            };
            let range = message.range(&section);
            prop_assert!(range.is_some(), "{:?}", path);
            let range = range.unwrap();
            prop_assert_eq!(range.end - range.start, octets, "{:?}", &path);
            let start = (range.start - prologue) as usize;
            let found = &blob[start..start + octets as usize];
            let counted = found.iter().filter(|octet| **octet == b'\n').count();
            prop_assert_eq!(
                counted as u64,
                lines.unwrap_or(counted as u64),
                "{:?}",
                &path
            );
            let mime = Section {
                text: SectionText::Mime,
                ..section
            };
            let mime = message.range(&mime).unwrap();
            prop_assert!(mime.start <= mime.end && mime.end <= range.start);
        }
    }
    Ok(())
}
