//! Every limit one below, at, and one above, and time by counted work.

use super::super::*;
use super::{scan, sections_agree};

fn header_length(blob: &str) -> usize {
    scan(blob.as_bytes()).header.len()
}

#[test]
fn a_header_block_of_256_kib_is_read_and_the_rest_is_body() {
    let field = format!("X: {}\r\n", "x".repeat(1019));
    assert_eq!(field.len(), 1024);
    let fields = field.repeat(255);
    for (last, whole) in [(1023, true), (1024, true), (1025, false)] {
        // The empty line belongs to the block.
        let last_field = format!("Y: {}\r\n", "y".repeat(last - 7));
        let blob = format!("{fields}{last_field}\r\nbody");
        let expected = if whole {
            blob.len() - 4
        } else {
            blob.len() - 6
        };
        assert_eq!(header_length(&blob), expected, "{last}");
    }
    // What is over begins with a whole line, which is body.
    let blob = format!("{fields}{field}{field}\r\n");
    assert_eq!(header_length(&blob), HEADER_MAX_OCTETS);
}

#[test]
fn two_thousand_fields_are_read_and_the_rest_is_body() {
    for (count, read) in [(1_999, 1_999), (2_000, 2_000), (2_001, 2_000)] {
        for end in ["\r\n", "\n"] {
            let field = format!("X: y{end}");
            let blob = format!("{}{end}body", field.repeat(count));
            let empty = if count == read { end.len() } else { 0 };
            assert_eq!(header_length(&blob), read * field.len() + empty, "{count}");
        }
    }
}

#[test]
fn a_field_of_64_kib_is_read_and_the_rest_is_body() {
    for (length, read) in [(65_535, true), (65_536, true), (65_537, false)] {
        let line = format!("X: {}\r\n", "x".repeat(length - 5));
        let blob = format!("A: b\r\n{line}\r\nbody");
        let expected = if read { blob.len() - 4 } else { 6 };
        assert_eq!(header_length(&blob), expected, "one line of {length}");
        let folded = format!("X:\r\n {}\r\n", "x".repeat(length - 7));
        let blob = format!("{folded}\r\nbody");
        let expected = if read { blob.len() - 4 } else { 4 };
        assert_eq!(header_length(&blob), expected, "two lines of {length}");
    }
}

fn nested_multiparts(depth: usize) -> String {
    let open: String = (1..depth)
        .map(|at| format!("Content-Type: multipart/mixed; boundary=b{at}\n\n--b{at}\n"))
        .collect();
    format!("{open}Content-Type: text/plain\n\nx\n")
}

fn nested_messages(depth: usize) -> String {
    format!(
        "{}\nx\n",
        "Content-Type: message/rfc822\n\n".repeat(depth - 1)
    )
}

/// The innermost part, and its depth.
fn innermost(structure: &Structure) -> (usize, bool) {
    let mut part = structure.root();
    let mut depth = 1;
    while let Some(child) = part.children().next() {
        part = child;
        depth += 1;
    }
    (depth, part.is_opaque())
}

#[test]
fn parts_nest_a_hundred_deep_and_the_next_is_opaque() {
    for (depth, shown, opaque) in [
        (99, 99, false),
        (100, 100, false),
        (101, 100, true),
        (150, 100, true),
    ] {
        for blob in [nested_multiparts(depth), nested_messages(depth)] {
            let structure = scan(blob.as_bytes()).structure;
            assert_eq!(innermost(&structure), (shown, opaque), "{depth}");
            sections_agree(blob.as_bytes(), 0).unwrap();
        }
    }
}

#[test]
fn ten_thousand_parts_are_read_and_the_last_takes_the_rest() {
    for (parts, shown, opaque) in [
        (9_999, 9_999, false),
        (10_000, 10_000, false),
        (10_001, 10_000, true),
    ] {
        let children = "--b\n\nx\n".repeat(parts - 1);
        let blob = format!("Content-Type: multipart/mixed; boundary=b\n\n{children}--b--\n");
        let structure = scan(blob.as_bytes()).structure;
        let root = structure.root();
        assert_eq!(root.children().count() + 1, shown, "{parts}");
        let last = root.children().last().unwrap();
        assert_eq!(last.is_opaque(), opaque, "{parts}");
        assert_eq!(last.octets().end == blob.len() as u64, opaque, "{parts}");
        sections_agree(blob.as_bytes(), 0).unwrap();
        // Nested messages count too.
        let digest = blob.replace("mixed", "digest");
        let structure = scan(digest.as_bytes()).structure;
        assert!(structure.root().children().count() <= PARTS_MAX / 2);
        Structure::from_bytes(structure.as_bytes()).unwrap();
    }
}

#[test]
fn a_hundred_parameters_are_shown_and_with_one_more_the_part_is_opaque() {
    for field in ["Content-Type: text/plain", "Content-Disposition: inline"] {
        for (count, opaque) in [(99, false), (100, false), (101, true)] {
            let parameters: String = (0..count).map(|at| format!(";\n n{at}=v")).collect();
            let structure = scan(format!("{field}{parameters}\n\nx").as_bytes()).structure;
            assert_eq!(structure.root().is_opaque(), opaque, "{field} {count}");
        }
    }
}

#[test]
fn a_boundary_of_998_octets_is_met() {
    for (length, parts) in [(997, 1), (998, 1), (999, 0)] {
        let boundary = "b".repeat(length);
        let blob = format!(
            "Content-Type: multipart/mixed;\n boundary={boundary}\n\n--{boundary}\n\nx\n--{boundary}--\n"
        );
        let structure = scan(blob.as_bytes()).structure;
        assert_eq!(structure.root().children().count(), parts, "{length}");
    }
}

#[test]
fn a_structure_keeps_no_more_than_its_limit() {
    let value = "v".repeat(60_000);
    let part = format!("--b\nContent-Description: {value}\n\nx\n");
    let blob = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n{}--b--\n",
        part.repeat(40)
    );
    let structure = scan(blob.as_bytes()).structure;
    assert!(structure.as_bytes().len() < STRUCTURE_TEXT_MAX_OCTETS + 40 * 32);
    let opaque = structure.root().children().filter(Part::is_opaque).count();
    assert_eq!(opaque, 40 - STRUCTURE_TEXT_MAX_OCTETS / 60_010);
}

/// Octets looked at for each octet of the blob, in pieces and whole.
fn work(blob: &[u8]) -> f64 {
    let most = [usize::MAX, 4096, 1].map(|piece| {
        let mut scanner = Scanner::new();
        blob.chunks(piece.min(blob.len()))
            .for_each(|piece| scanner.push(piece));
        scanner.work
    });
    most.into_iter().max().unwrap() as f64 / blob.len() as f64
}

#[test]
fn work_is_linear_in_the_blob() {
    let over_limit = "x".repeat(100_000);
    for (name, unit) in [
        ("text", "some text\r\n".to_owned()),
        ("dashes", "--".to_owned()),
        ("dash lines", "--\n-\n--b\n".to_owned()),
        ("long dash lines", format!("--b{over_limit}\n")),
        ("cr", "\r".to_owned()),
        ("nested", "Content-Type: message/rfc822\n\n".to_owned()),
        (
            "multiparts",
            "Content-Type: multipart/x; boundary=b\n\n--b\n".to_owned(),
        ),
        (
            "digests",
            "Content-Type: multipart/digest; boundary=b\n\n--b\n".to_owned(),
        ),
        ("delimiters", "--b\n".to_owned()),
        (
            "long fields",
            format!("Content-Type: message/rfc822\nX: {over_limit}\n"),
        ),
        ("long parts", format!("--b\nX: {over_limit}\n")),
        ("many fields", format!("{}\n", "X: y\n".repeat(3_000))),
    ] {
        let start = "Content-Type: multipart/mixed; boundary=b\n\n--b\n";
        let blob = format!("{start}{}", unit.repeat(600_000 / unit.len()));
        assert!(
            work(blob.as_bytes()) < 3.5,
            "{name} {}",
            work(blob.as_bytes())
        );
    }
}
