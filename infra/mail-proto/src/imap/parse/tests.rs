#![allow(clippy::unwrap_used)]

mod access;
mod fetch;
mod mailbox;
mod message;
mod search;
mod session;

use super::super::capability::Enable;
use super::super::command::*;
use super::super::framing::{Framer, Limits, Step};
use super::super::mailbox::MailboxName;
use super::super::sequence::{MessageSet, PartialRange, SequenceSet};
use super::*;

/// A command with its literals written `{n+}` and CRLF between.
fn framed(octets: &[u8]) -> Frame {
    let octets = [octets, b"\r\n"].concat();
    let mut input = &octets[..];
    match Framer::new(Limits::default()).next(&mut input) {
        Step::Command(frame) | Step::Message { frame, .. } => frame,
        step => panic!("{step:?}"),
    }
}

fn parsed(text: impl AsRef<[u8]>) -> Result<Command, ParseError> {
    let frame = framed(&[b"a ", text.as_ref()].concat());
    let tagged = command(&frame, NameForm::Utf7).map_err(|bad| {
        assert_eq!(bad.tag.as_deref(), Some("a"));
        bad.error
    })?;
    assert_eq!(tagged.tag, "a");
    Ok(tagged.command)
}

#[track_caller]
fn reads(text: &str, expected: Command) {
    assert_eq!(parsed(text), Ok(expected), "{text}");
}

/// What is expected, and where counted from behind the tag.
#[track_caller]
fn fails(text: &str, at: usize, expected: &str) {
    let error = parsed(text).unwrap_err();
    assert_eq!((error.at - 2, error.expected), (at, expected), "{text}");
}

fn mailbox(name: &str) -> MailboxName {
    MailboxName::new(name).unwrap()
}

fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    SequenceSet::from_ranges(ranges.iter().copied())
}

fn numbers(ranges: &[(u32, u32)]) -> MessageSet {
    MessageSet::Numbers(set(ranges))
}

fn keyword(word: &str) -> Flag {
    Flag::Keyword(Keyword::new(word).unwrap())
}

fn fetch(items: Vec<FetchItem>) -> Fetch {
    Fetch {
        by: Addressing::Sequence,
        set: numbers(&[(1, 1)]),
        items,
        changed_since: None,
        vanished: false,
        partial: None,
    }
}
