//! What a card tells is what the blob tells, whatever the mail.

#![allow(clippy::unwrap_used)]

use mail_proto::mime::{FieldFilter, Message, Ranges};

use super::*;

/// Compares every answer of a blob's card with that of its octets.
fn assert_told(blob: &[u8]) -> Card {
    let mut scanner = Scanner::new();
    scanner.push(blob);
    let Scanned { structure, header } = scanner.finish();
    let card = Card::read(Card::of_blob(blob).into()).unwrap();
    let shown = String::from_utf8_lossy(blob);
    assert_eq!(card.header_octets(), header.len() as u64, "{shown}");
    assert_eq!(
        Message::new(&structure, 0).header().end,
        header.len() as u64
    );
    assert_eq!(card.structure().unwrap().as_bytes(), structure.as_bytes());
    for dialect in [Dialect::Rev1, Dialect::Utf8] {
        let (mut told, mut right) = (Vec::new(), Vec::new());
        if card.write_envelope(dialect, &mut told) {
            Envelope::read(&header).write(dialect, &mut right);
            assert_eq!(told, right, "{dialect:?} {shown}");
        } else {
            assert!(card.fields().is_none());
        }
        for form in [BodyForm::Body, BodyForm::BodyStructure] {
            let (mut told, mut right) = (Vec::new(), Vec::new());
            assert!(card.write_body(form, dialect, &mut told));
            write_body_structure(&structure, form, dialect, &mut right);
            assert_eq!(told, right, "{form:?} {dialect:?} {shown}");
        }
    }
    if let Some(whole) = card.header() {
        assert_eq!(whole, header);
    }
    if let Some(fields) = card.fields() {
        let some = ["FROM", "subject", "List-Id"].map(str::to_owned);
        for names in [&KEPT.map(str::to_owned)[..], &some, &some[1..2]] {
            let filter = FieldFilter::new(names, false);
            let prologue = b"Subject: ours\r\nReceived: here\r\n";
            let told = octets(&filter.ranges(prologue, &fields, 0), prologue, &fields);
            let right = octets(&filter.ranges(prologue, &header, 0), prologue, &header);
            assert_eq!(told, right, "{shown}");
        }
    }
    card
}

fn octets(ranges: &Ranges, prologue: &[u8], block: &[u8]) -> Vec<u8> {
    let all = [prologue, block].concat();
    let at = |octet| usize::try_from(octet).unwrap();
    let piece = |range: std::ops::Range<u64>| all[at(range.start)..at(range.end)].to_vec();
    ranges.iter().flat_map(piece).collect()
}

/// Lines that headers and bodies are made of, good and bad.
const LINES: [&[u8]; 34] = [
    b"From: Joe <joe@x.test>\r\n",
    b"from: a@b, \"c\\\"d\" <e@f>, g: h@i, j@k;\r\n",
    b"To: \xc3\xa9 <x@y>\n",
    b"Cc : late@colon\r\n",
    b"Bcc: =?utf-8?q?=C3=A4?= <a@b>\r\n",
    b"Subject: one\r\n two\r\n\tthree\r\n",
    b"SUBJECT: \xe9\0\"\\ \r\n",
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n",
    b"Message-ID: <1@x>\r\n",
    b"In-Reply-To: <0@x>\n",
    b"References: <a@b>\r\n <c@d>\r\n",
    b"Reply-To:\r\n",
    b"Sender: (comment) s@t\r\n",
    b"Received: from a by b\r\n\tfor c; today\r\n",
    b"X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    b"X-Other: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
    b"List-ID: <l.test>\r\n",
    b"Fr om: nobody\r\n",
    b" begins with white space\r\n",
    b"no colon at all\r\n",
    b": no name\r\n",
    b"Content-Type: text/html; charset=\"utf-8\"\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: multipart/digest; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: message/global\r\n",
    b"Content-Disposition: attachment; filename*=utf-8''%e4; filename=\"\xc3\xa4\"\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Language: de, en\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"\r\n",
    b"\n",
    b"Subject: without an end",
];

#[test]
fn a_card_tells_what_the_blob_tells() {
    for line in LINES {
        assert_told(line);
        assert_told(&[line, b"\r\nbody\r\n"].concat());
    }
    assert_told(b"");
    for seed in 0..3_000_u32 {
        let mut draws = blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof();
        let mut draw = [0; 40];
        draws.fill(&mut draw);
        let (count, draw) = draw.split_first().unwrap();
        let lines = draw.iter().take(usize::from(*count) % draw.len());
        let blob: Vec<u8> = lines
            .flat_map(|at| LINES[usize::from(*at) % LINES.len()])
            .copied()
            .collect();
        println!("seed {seed}");
        assert_told(&blob);
    }
}

#[test]
fn what_is_large_is_left_out_and_told_all_the_same() {
    let usual = b"From: a@b\r\nTo: c@d\r\nSubject: x\r\n\r\nbody\r\n";
    let card = assert_told(usual);
    assert_eq!(card.header().unwrap(), usual[..usual.len() - 6]);
    // Other fields up to the limit are kept with the rest.
    for (others, is_whole) in [(OTHERS_MAX_OCTETS, true), (OTHERS_MAX_OCTETS + 1, false)] {
        let other = format!("X-A: {}\r\n", "a".repeat(others - "X-A: \r\n".len()));
        let card = assert_told(&[other.as_bytes(), usual].concat());
        assert_eq!(card.header().is_some(), is_whole);
        assert!(card.fields().is_some());
    }
    // Many recipients: the list is not ready, then the fields are not there either.
    for count in [100, 1_000, 4_000] {
        let to = format!("To: {}\r\n", "a@b,".repeat(count));
        let card = assert_told(&[to.as_bytes(), usual].concat());
        assert_eq!(card.fields().is_some(), to.len() < FIELDS_MAX_OCTETS);
        assert_eq!(card.piece(0).is_empty(), count > 100);
    }
    let part = b"--b\r\nContent-Type: image/png; name=picture\r\n\r\nx\r\n";
    let mut blob = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    (0..500).for_each(|_| blob.extend_from_slice(part));
    assert!(assert_told(&blob).piece(1).is_empty());
}

#[test]
fn a_card_of_another_build_or_a_damaged_one_is_none() {
    let octets = Card::of_blob(b"From: a@b\r\n\r\nx");
    assert!(Card::read(octets.clone().into()).is_some());
    let mut other = octets.clone();
    other[0] = VERSION + 1;
    assert!(Card::read(other.into()).is_none());
    for end in 0..octets.len() {
        assert!(Card::read(octets[..end].to_vec().into()).is_none());
    }
    let mut longer = octets;
    longer.push(0);
    assert!(Card::read(longer.into()).is_none());
}
