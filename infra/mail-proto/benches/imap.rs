//! What it costs to frame and parse the commands that clients send most, and
//! the largest ones they may.

use divan::{Bencher, black_box};
use mail_proto::imap::encode::FetchWriter;
use mail_proto::imap::framing::{Frame, Framer, Limits, Step};
use mail_proto::imap::mailbox::NameForm;
use mail_proto::imap::parse;

fn main() {
    divan::main();
}

const FETCH: &str = "a1 UID FETCH 1:* (FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE \
    BODY.PEEK[HEADER.FIELDS (DATE FROM SUBJECT TO CC MESSAGE-ID REFERENCES)] BODYSTRUCTURE)";
const SEARCH: &str = "a2 UID SEARCH RETURN (MIN MAX COUNT) CHARSET UTF-8 OR (FROM \"joe\" UNSEEN) \
    (NOT DELETED SINCE 1-Jan-2026) HEADER Message-ID \"<x@example.test>\" LARGER 4096";

fn parse_line(bencher: Bencher<'_, '_>, line: &str) {
    let frame = Frame::line(line.as_bytes());
    bencher.bench(|| parse::command(black_box(&frame), NameForm::Utf7).is_ok());
}

#[divan::bench]
fn parse_fetch(bencher: Bencher<'_, '_>) {
    parse_line(bencher, FETCH);
}

#[divan::bench]
fn parse_search(bencher: Bencher<'_, '_>) {
    parse_line(bencher, SEARCH);
}

#[divan::bench]
fn parse_1000_uids(bencher: Bencher<'_, '_>) {
    let uids: Vec<String> = (1..=1000).map(|uid| (uid * 7).to_string()).collect();
    parse_line(bencher, &format!("a3 UID FETCH {} (FLAGS)", uids.join(",")));
}

#[divan::bench]
fn parse_or_chain_of_1000(bencher: Bencher<'_, '_>) {
    parse_line(bencher, &format!("a4 SEARCH {}ALL", "OR SEEN ".repeat(999)));
}

#[divan::bench]
fn frame_and_parse_fetch(bencher: Bencher<'_, '_>) {
    let octets = format!("{FETCH}\r\n");
    let mut framer = Framer::new(Limits::default());
    bencher.bench_local(|| {
        let mut input = black_box(octets.as_bytes());
        match framer.next(&mut input) {
            Step::Command(frame) => parse::command(&frame, NameForm::Utf7).is_ok(),
            _ => false,
        }
    });
}

#[divan::bench]
fn encode_fetch_of_uid_and_flags(bencher: Bencher<'_, '_>) {
    let flags = [mail_proto::imap::command::Flag::Seen];
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        let mut fetch = FetchWriter::begin(&mut out, black_box(12_345), NameForm::Utf7);
        fetch.uid(&mut out, 678_901);
        fetch.flags(&mut out, &flags, false);
        fetch.end(&mut out);
        out.len()
    });
}
