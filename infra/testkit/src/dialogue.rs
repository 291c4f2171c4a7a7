//! Protocol dialogues as plain text, run against a pure core.
//!
//! ```text
//! # A comment. The file's name is the claim.
//! @config size=1000        a decision or setting for the adapter
//! C: MAIL FROM:<a@b>       octets from the client, CRLF added
//! C!: NOOP\n               octets as they are; escapes \r \n \t \\ \xHH
//! C!*1000000: x            the same, repeated
//! S: 250 2.1.0 ...         what the server says next; `...` stands for any tail
//! E: mail <a@b>            what the core told its shell since the last S or E
//! E: <nothing>             it told its shell nothing
//! S: <closed>              the core asked to close
//! ```
//!
//! Client lines that follow each other are one pipelined group. All output
//! since the last expectation must be matched. Every dialogue is run with its
//! groups fed whole, octet by octet, and in pieces of seven; all must agree.

use std::fmt::Write;
use std::path::Path;

/// A protocol core with scripted decisions, as the runner sees it.
pub trait Core {
    /// Takes octets, returns how many.
    fn receive(&mut self, octets: &[u8]) -> usize;

    /// Does all steps possible without further input.
    fn settle(&mut self, seen: &mut Seen);

    /// Obeys an `@` line.
    ///
    /// # Errors
    /// When it means nothing to this core.
    fn direct(&mut self, words: &str) -> Result<(), String>;
}

/// What a core did.
#[derive(Debug, Default)]
pub struct Seen {
    /// Octets written.
    pub output: Vec<u8>,
    /// What the shell was told, one line each.
    pub events: Vec<String>,
    /// Whether the core asked to close.
    pub closed: bool,
}

enum Step {
    Feed(Vec<u8>),
    Direct(String),
    Expect {
        output: Vec<String>,
        events: Vec<String>,
    },
}

/// Runs every file of `folder` with this extension; panics with all failures.
///
/// # Panics
/// When a dialogue fails, or there is none.
pub fn check_folder<C: Core>(folder: &Path, extension: &str, make: impl Fn() -> C) {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(
        !files.is_empty(),
        "no .{extension} dialogue in {}",
        folder.display()
    );
    let mut failures = String::new();
    for path in &files {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
        for piece in [usize::MAX, 1, 7] {
            if let Err(failure) = run(&text, piece, &mut make()) {
                let cut = if piece == usize::MAX {
                    "whole".to_owned()
                } else {
                    format!("in pieces of {piece}")
                };
                let _ = writeln!(failures, "{} ({cut}): {failure}", path.display());
                break;
            }
        }
    }
    assert!(failures.is_empty(), "dialogues failed:\n{failures}");
}

/// Runs one dialogue, its groups cut into pieces.
///
/// # Errors
/// Names the line and what was seen instead.
pub fn run(text: &str, piece: usize, core: &mut impl Core) -> Result<(), String> {
    let mut seen = Seen::default();
    let mut is_started = false;
    for (line, step) in parse(text)? {
        let at = |failure: String| format!("line {line}: {failure}");
        match step {
            Step::Feed(octets) => {
                for part in octets.chunks(piece) {
                    feed(core, part, &mut seen).map_err(at)?;
                }
            }
            Step::Direct(words) => {
                core.direct(&words).map_err(at)?;
                // Settings come before the greeting.
                if is_started {
                    core.settle(&mut seen);
                }
                continue;
            }
            Step::Expect { output, events } => {
                core.settle(&mut seen);
                expect(&mut seen, &output, &events).map_err(at)?;
            }
        }
        is_started = true;
    }
    expect(&mut seen, &[], &[]).map_err(|failure| format!("at the end: {failure}"))
}

fn feed(core: &mut impl Core, octets: &[u8], seen: &mut Seen) -> Result<(), String> {
    let mut rest = octets;
    while !rest.is_empty() {
        core.settle(seen);
        if seen.closed {
            return Ok(());
        }
        let taken = core.receive(rest);
        if taken == 0 {
            return Err("the core takes no more octets".to_owned());
        }
        rest = &rest[taken..];
    }
    core.settle(seen);
    Ok(())
}

fn expect(seen: &mut Seen, output: &[String], events: &[String]) -> Result<(), String> {
    let said = String::from_utf8_lossy(&std::mem::take(&mut seen.output)).into_owned();
    let mut lines: Vec<&str> = said.split_terminator("\r\n").collect();
    if seen.closed {
        lines.push("<closed>");
    }
    seen.closed = false;
    let is_same = lines.len() == output.len()
        && lines
            .iter()
            .zip(output)
            .all(|(line, pattern)| is_match(line, pattern));
    if !is_same || (!said.is_empty() && !said.ends_with("\r\n")) {
        return Err(format!("expected {output:#?}, seen {lines:#?}"));
    }
    let mut told = std::mem::take(&mut seen.events);
    if told.is_empty() {
        told.push("<nothing>".to_owned());
    }
    let is_told = told.len() == events.len()
        && told
            .iter()
            .zip(events)
            .all(|(event, pattern)| is_match(event, pattern));
    if !events.is_empty() && !is_told {
        return Err(format!("expected events {events:#?}, seen {told:#?}"));
    }
    Ok(())
}

fn is_match(line: &str, pattern: &str) -> bool {
    match pattern.strip_suffix("...") {
        Some(front) => line.starts_with(front),
        None => line == pattern,
    }
}

fn parse(text: &str) -> Result<Vec<(usize, Step)>, String> {
    let mut steps: Vec<(usize, Step)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(words) = line.strip_prefix('@') {
            steps.push((number, Step::Direct(words.trim().to_owned())));
            continue;
        }
        let (mark, rest) = line
            .split_once(':')
            .ok_or(format!("line {number}: no mark"))?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let last = steps.last_mut().map(|(_, step)| step);
        match (mark, last) {
            ("S", Some(Step::Expect { output, .. })) => output.push(rest.to_owned()),
            ("E", Some(Step::Expect { events, .. })) => events.push(rest.to_owned()),
            ("S", _) => steps.push((
                number,
                Step::Expect {
                    output: vec![rest.to_owned()],
                    events: Vec::new(),
                },
            )),
            ("E", _) => steps.push((
                number,
                Step::Expect {
                    output: Vec::new(),
                    events: vec![rest.to_owned()],
                },
            )),
            (mark, last) => {
                let octets = client_octets(mark, rest)
                    .ok_or(format!("line {number}: bad mark or escape"))?;
                match last {
                    Some(Step::Feed(group)) => group.extend_from_slice(&octets),
                    _ => steps.push((number, Step::Feed(octets))),
                }
            }
        }
    }
    Ok(steps)
}

fn client_octets(mark: &str, rest: &str) -> Option<Vec<u8>> {
    if mark == "C" {
        return Some(format!("{rest}\r\n").into_bytes());
    }
    let count = match mark.strip_prefix("C!")? {
        "" => 1,
        repeated => repeated.strip_prefix('*')?.parse().ok()?,
    };
    Some(unescape(rest)?.repeat(count))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        octets.push(match rest.next()? {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Says each whole line back; `@shout` makes it upper case.
    #[derive(Default)]
    struct Echo {
        held: Vec<u8>,
        shouts: bool,
    }

    impl Core for Echo {
        fn receive(&mut self, octets: &[u8]) -> usize {
            self.held.extend_from_slice(octets);
            octets.len()
        }

        fn settle(&mut self, seen: &mut Seen) {
            while let Some(end) = self.held.iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.held.drain(..=end).collect();
                seen.events.push(format!("line of {}", line.len()));
                if self.shouts {
                    line.make_ascii_uppercase();
                }
                seen.closed |= line.starts_with(b"QUIT");
                seen.output.extend_from_slice(&line);
            }
        }

        fn direct(&mut self, words: &str) -> Result<(), String> {
            self.shouts = words == "shout";
            if self.shouts {
                Ok(())
            } else {
                Err("unknown".to_owned())
            }
        }
    }

    #[test]
    fn a_dialogue_that_is_kept_passes_for_every_cut() {
        let text = "# claim\nC: hello\nS: hello\nE: line of 7\n@shout\nC!*2: a\\x62\\r\\n\nS: A...\nS: AB\nC: quit\nS: QUIT\nS: <closed>\n";
        for piece in [1, 2, 7, usize::MAX] {
            run(text, piece, &mut Echo::default()).unwrap();
        }
    }

    #[test]
    fn every_difference_is_found_with_its_line() {
        for (text, line) in [
            ("C: a\nS: b\n", "line 2"),
            ("C: a\nS: a\nS: b\n", "line 2"),
            ("C: a\n", "at the end"),
            ("C: a\nS: a\nE: line of 4\n", "line 2"),
            ("C: QUIT\nS: QUIT\n", "line 2"),
            ("@whisper\n", "line 1"),
            ("C!: \\q\n", "line 1"),
            ("X: a\n", "line 1"),
        ] {
            let failure = run(text, usize::MAX, &mut Echo::default()).unwrap_err();
            assert!(failure.starts_with(line), "{text:?}: {failure}");
        }
    }
}
