#![allow(clippy::unwrap_used)]

use super::*;

const SMALL: Limits = Limits {
    text_max_bytes: 40,
    literals_max: 3,
    literals_max_bytes: 10,
    swallow_max_bytes: 100,
};

/// Everything that happens, one word each; messages are accepted unless their
/// frame has `refuse`, and given up after their first octets if it has `drop`.
fn story(octets: &[u8], limits: Limits, piece: usize) -> Vec<String> {
    let mut framer = Framer::new(limits);
    let mut seen: Vec<String> = Vec::new();
    let shown = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let mut drops = false;
    for part in octets.chunks(piece) {
        let mut input = part;
        loop {
            match framer.next(&mut input) {
                Step::NeedInput => break,
                Step::Continue => seen.push("+".into()),
                Step::Command(frame) => {
                    if frame.octets().ends_with(b"IDLE") {
                        framer.expect_line();
                    }
                    seen.push(format!("command {}", shown(frame.octets())));
                }
                Step::Line(frame) => seen.push(format!("line {}", shown(frame.octets()))),
                Step::AppendEnd(frame) => seen.push(format!("end {}", shown(frame.octets()))),
                Step::Message { frame, size } => {
                    let text = shown(frame.octets());
                    if text.contains("refuse") {
                        framer.refuse_message();
                    } else {
                        drops = text.contains("drop");
                        framer.accept_message();
                    }
                    seen.push(format!("message of {size} {text}"));
                }
                Step::AwaitAnswer => panic!("answered at once"),
                Step::MessageOctets(octets) => {
                    if drops {
                        framer.refuse_message();
                        seen.push("dropped".into());
                        continue;
                    }
                    match seen.last_mut() {
                        Some(last) if last.starts_with("octets") => last.push_str(&shown(octets)),
                        _ => seen.push(format!("octets {}", shown(octets))),
                    }
                }
                Step::MessageEnd => seen.push("whole".into()),
                Step::Fault(fault) => {
                    seen.push(format!(
                        "{:?} {}",
                        fault.kind,
                        fault.tag.unwrap_or_default()
                    ));
                }
                Step::HangUp(fault) => {
                    seen.push(format!("hang up {}", fault.tag.unwrap_or_default()));
                    return seen;
                }
            }
        }
    }
    seen
}

/// The story, which is the same however the octets are cut.
fn told(octets: &[u8]) -> Vec<String> {
    let whole = story(octets, SMALL, octets.len());
    for piece in 1..octets.len() {
        assert_eq!(story(octets, SMALL, piece), whole, "pieces of {piece}");
    }
    whole
}

#[test]
fn commands_end_where_their_last_line_ends() {
    assert_eq!(
        told(b"a NOOP\r\n\r\n\r\nb NOOP\r\n"),
        ["command a NOOP", "command b NOOP"]
    );
    assert_eq!(
        told(b"a X {3}\r\n\r\n{ {2+}\r\nyz w\r\nb NOOP\r\n"),
        ["+", "command a X {3}\r\n{ {2+}yz w", "command b NOOP"]
    );
    assert_eq!(told(b"a X {0+}\r\n\r\nb"), ["command a X {0+}"]);
    assert_eq!(told(b"a X ~{1+}\r\n\0\r\n"), ["command a X ~{1+}\0"]);
}

#[test]
fn a_line_of_the_limit_is_read_and_one_octet_more_refused() {
    for (length, is_read) in [(39, true), (40, true), (41, false), (400, false)] {
        let mut octets = vec![b'a'; length];
        octets[1] = b' ';
        octets.extend_from_slice(b"\r\nb NOOP\r\n");
        let story = told(&octets);
        assert_eq!(story[0] == "TooLong a", !is_read, "{length}");
        assert_eq!(story[1], "command b NOOP");
    }
    // Announcements count, literals do not.
    let with_literal = |length: usize| {
        let tail = "x".repeat(length - "a X {9+}".len());
        told(format!("a X {{9+}}\r\n123456789{tail}\r\n").as_bytes())
    };
    assert!(with_literal(40)[0].starts_with("command"));
    assert_eq!(with_literal(41), ["TooLong a"]);
}

#[test]
fn a_literal_over_the_limit_is_refused_before_it_is_sent() {
    for size in [9, 10] {
        assert_eq!(told(format!("a X {{{size}}}\r\n").as_bytes()), ["+"]);
    }
    assert_eq!(
        told(b"a X {11}\r\nb NOOP\r\n"),
        ["LiteralTooLong a", "command b NOOP"]
    );
    // Their sum counts.
    assert_eq!(
        told(b"a X {6+}\r\n123456 {4}\r\n1234\r\nb X {6+}\r\n123456 {5}\r\nc NOOP\r\n"),
        [
            "+",
            "command a X {6+}123456 {4}1234",
            "LiteralTooLong b",
            "command c NOOP"
        ]
    );
    assert_eq!(
        told(b"a X {18446744073709551616}\r\nb NOOP\r\n"),
        ["LiteralTooLong a", "command b NOOP"]
    );
}

#[test]
fn the_number_of_literals_is_limited() {
    let with = |count: usize| format!("a X{}\r\nb NOOP\r\n", " {1+}\r\nx".repeat(count));
    assert!(told(with(2).as_bytes())[0].starts_with("command a"));
    assert!(told(with(3).as_bytes())[0].starts_with("command a"));
    assert_eq!(
        told(with(4).as_bytes()),
        ["TooManyLiterals a", "command b NOOP"]
    );
}

#[test]
fn a_refused_literal_is_never_read_as_a_command() {
    // Too long by itself.
    assert_eq!(
        told(b"a X {13+}\r\nx DELETE me\r\n\r\nb NOOP\r\n"),
        ["LiteralTooLong a", "command b NOOP"]
    );
    // Announced by a line that is too long.
    let long = [&[b'y'; 60][..], b"{13+}\r\nx DELETE me\r\n\r\nb NOOP\r\n"].concat();
    assert_eq!(
        told(&long),
        ["TooLong ", "command b NOOP"],
        "no tag was ended"
    );
    // Cut where the limit is, within the announcement.
    for pad in 20..45 {
        let line = [
            b"a ",
            &vec![b'y'; pad][..],
            b"{13+}\r\nx DELETE me\r\n\r\nb NOOP\r\n",
        ]
        .concat();
        assert_eq!(told(&line).last().unwrap(), "command b NOOP", "{pad}");
        assert_eq!(told(&line).len(), 2);
    }
    // Behind another refused one, and behind a bare CR or LF.
    assert_eq!(
        told(b"a X {11+}\r\n01234567890 {5+}\r\nx\r\ny\r\r\nb NOOP\r\n"),
        ["LiteralTooLong a", "command b NOOP"]
    );
    assert_eq!(
        told(b"a X\ry {5+}\r\nx\r\ny\r\r\nb NOOP\r\n"),
        ["BareCr a", "command b NOOP"]
    );
    // One that waits for a go-ahead does not come.
    assert_eq!(
        told(b"a X {11+}\r\n01234567890 {5}\r\nb NOOP\r\n"),
        ["LiteralTooLong a", "command b NOOP"]
    );
}

#[test]
fn what_is_too_much_to_swallow_ends_the_session() {
    assert_eq!(told(b"a X {100+}\r\n"), ["LiteralTooLong a"]);
    assert_eq!(told(b"a X {101+}\r\n"), ["hang up a"]);
    assert_eq!(told(b"a X {4294967296+}\r\n"), ["hang up a"]);
    assert_eq!(told(b"a X {99999999999999999999999+}\r\n"), ["hang up a"]);
    let sum = [&b"a X {60+}\r\n"[..], &[b'x'; 60], b" {41+}\r\n"].concat();
    assert_eq!(told(&sum), ["LiteralTooLong a", "hang up "]);
    assert_eq!(
        told(b"a APPEND refuse {101+}\r\n").last().unwrap(),
        "hang up a"
    );
}

#[test]
fn bare_line_ends_are_refused_with_their_line() {
    assert_eq!(
        told(b"a NOOP\nb NOOP\r\nc NOOP\r\n"),
        ["BareLf a", "command c NOOP"]
    );
    assert_eq!(
        told(b"a NOOP\rb NOOP\r\nc NOOP\r\n"),
        ["BareCr a", "command c NOOP"]
    );
    assert_eq!(
        told(b"a NOOP\r\r\nc NOOP\r\n"),
        ["BareCr a", "command c NOOP"]
    );
}

#[test]
fn a_message_is_asked_for_and_streamed() {
    assert_eq!(
        told(b"a APPEND x {20}\r\n01234567890123456789\r\nb NOOP\r\n"),
        [
            "message of 20 a APPEND x {20}",
            "+",
            "octets 01234567890123456789",
            "whole",
            "end ",
            "command b NOOP"
        ]
    );
    assert_eq!(
        told(b"a append {1}\r\nx (\\Seen) {2+}\r\nab () {1+}\r\nc\r\n"),
        [
            "+",
            "message of 2 a append {1}x (\\Seen) {2+}",
            "octets ab",
            "whole",
            "message of 1  () {1+}",
            "octets c",
            "whole",
            "end "
        ]
    );
    assert_eq!(
        told(b"a UID REPLACE 4 {1+}\r\nx {3+}\r\nabc\r\n"),
        [
            "message of 3 a UID REPLACE 4 {1+}x {3+}",
            "octets abc",
            "whole",
            "end "
        ]
    );
    assert_eq!(
        told(b"a APPEND x {0+}\r\n\r\n"),
        ["message of 0 a APPEND x {0+}", "whole", "end "]
    );
    assert_eq!(
        told(b"a APPEND x {9223372036854775807}\r\n")[0],
        "message of 9223372036854775807 a APPEND x {9223372036854775807}"
    );
}

#[test]
fn a_refused_message_is_swallowed_or_does_not_come() {
    assert_eq!(
        told(b"a APPEND refuse {20}\r\nb NOOP\r\n"),
        ["message of 20 a APPEND refuse {20}", "command b NOOP"]
    );
    assert_eq!(
        told(b"a APPEND refuse {12+}\r\nx DELETE y\r\n () {4+}\r\nz\r\n\r\r\nb NOOP\r\n"),
        ["message of 12 a APPEND refuse {12+}", "command b NOOP"]
    );
    assert_eq!(
        told(b"a APPEND drop {12+}\r\nx DELETE y\r\n\r\nb NOOP\r\n"),
        [
            "message of 12 a APPEND drop {12+}",
            "dropped",
            "command b NOOP"
        ]
    );
    // The second of two.
    assert_eq!(
        told(b"a APPEND x {1+}\r\ny (refuse) {3+}\r\nabc\r\nb NOOP\r\n")
            .last()
            .unwrap(),
        "command b NOOP"
    );
}

#[test]
fn a_fault_behind_a_message_has_its_commands_tag() {
    let rest = "z".repeat(41);
    assert_eq!(
        told(format!("a APPEND x {{1+}}\r\ny{rest}\r\nb NOOP\r\n").as_bytes())[3..],
        ["TooLong a", "command b NOOP"]
    );
}

#[test]
fn the_line_that_ends_idle_is_not_a_command() {
    assert_eq!(
        told(b"a IDLE\r\nDONE\r\nb NOOP\r\n"),
        ["command a IDLE", "line DONE", "command b NOOP"]
    );
    assert_eq!(
        told(b"a IDLE\r\nx {5}\r\nb NOOP\r\n")[1..],
        ["line x {5}", "command b NOOP"]
    );
    assert_eq!(
        told(b"a IDLE\r\nx {5+}\r\ny\r\nzz\r\nb NOOP\r\n")[1..],
        ["line x {5+}", "command b NOOP"]
    );
}

#[test]
fn the_designs_limits_hold_at_their_size() {
    let limits = Limits::default();
    let text = |length: usize| [&vec![b'a'; length][..], b"\r\n"].concat();
    for (length, is_read) in [(65_535, true), (65_536, true), (65_537, false)] {
        let story = story(&text(length), limits, 4096);
        assert_eq!(story[0].starts_with("command"), is_read, "{length}");
    }
    for (size, is_read) in [(1_048_575, true), (1_048_576, true), (1_048_577, false)] {
        let story = story(format!("a X {{{size}}}\r\n").as_bytes(), limits, 4096);
        assert_eq!(story[0] == "+", is_read, "{size}");
    }
    for (count, is_read) in [(999, true), (1000, true), (1001, false)] {
        let octets = format!("a X{}\r\n", " {1+}\r\nx".repeat(count));
        let story = story(octets.as_bytes(), limits, 4096);
        assert_eq!(story[0].starts_with("command"), is_read, "{count}");
    }
}

#[test]
fn nothing_is_held_of_what_is_skipped() {
    let mut framer = Framer::new(Limits::default());
    for _ in 0..10_000 {
        let mut input = &[b'x'; 1000][..];
        while !matches!(framer.next(&mut input), Step::NeedInput) {}
    }
    assert!(framer.frame.octets().is_empty());
    assert!(!framer.is_between_commands());
    let mut input = &b"\r\n"[..];
    assert!(matches!(framer.next(&mut input), Step::NeedInput));
    assert!(framer.is_between_commands());
}
