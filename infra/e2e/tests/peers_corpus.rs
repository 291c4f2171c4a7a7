//! Every message of the shared corpus is served whole: each part that BODYSTRUCTURE names can be fetched by its number
//! with the octets and lines announced, pieces tile the message, and nothing in a message breaks the protocol.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use e2e::imap::{Imap, string};
use e2e::samples::{Sample, corpus};
use e2e::system::System;
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder as _;
use testkit::fetch_grammar::{Announced, Grammar};

const USER: &str = "user00000@example.test";
const REV1: Grammar = Grammar {
    is_extended: true,
    is_utf8: false,
};

#[test]
fn every_message_is_served_whole_and_as_its_structure_says() {
    let system = System::start(&["--seed-accounts", "1"]);
    let samples = corpus();
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(USER, "pass");
    imap.append_all("INBOX", "", samples.iter().map(|sample| &sample.octets[..]));
    imap.command("EXAMINE INBOX");
    let (mut parts, mut decoded, mut judged) = (0, 0, 0);
    for (number, sample) in (1..).zip(&samples) {
        let message = Message::read(&mut imap, number, sample);
        judged += usize::from(message.is_valid_for_imap_codec);
        message.check_pieces(&mut imap);
        parts += message.check_parts(&mut imap);
        decoded += message.check_decoded(&mut imap);
    }
    println!("{parts} parts, {decoded} of them decoded; imap-codec reads {judged} answers");
    assert!(parts > samples.len(), "{parts}");
    assert!(decoded > samples.len() / 2, "{decoded}");
    assert!(
        judged + NESTED_TOO_DEEP_FOR_IMAP_CODEC >= samples.len(),
        "{judged}"
    );
}

#[test]
fn no_message_breaks_an_answer_over_all_of_them() {
    let system = System::start(&["--seed-accounts", "1"]);
    let samples = corpus();
    let count = samples.len();
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(USER, "pass");
    imap.append_all("INBOX", "", samples.iter().map(|sample| &sample.octets[..]));
    for is_utf8 in [false, true] {
        if is_utf8 {
            imap.command("ENABLE IMAP4rev2 UTF8=ACCEPT");
        }
        imap.command("EXAMINE INBOX");
        let answers = imap.command("FETCH 1:* (ENVELOPE BODY BODYSTRUCTURE PREVIEW)");
        assert_eq!(answers.len(), count);
        for (number, answer) in (1..).zip(&answers) {
            let values = answer.items(number);
            for ((name, value), is_extended) in values[1..3].iter().zip([false, true]) {
                let grammar = Grammar {
                    is_extended,
                    is_utf8,
                };
                let shown = value.escape_ascii();
                assert!(grammar.body(value).is_some(), "{number} {name}: {shown}");
            }
            let grammar = Grammar { is_utf8, ..REV1 };
            let envelope = values[0].1;
            assert!(grammar.is_envelope(envelope), "{}", envelope.escape_ascii());
            let preview = string(values[3].1).unwrap_or_default();
            assert!(String::from_utf8(preview).unwrap().chars().count() <= 200);
        }
        for command in [
            "SORT (SUBJECT FROM REVERSE DATE) UTF-8 ALL",
            "THREAD REFERENCES UTF-8 ALL",
            "SEARCH OR HEADER Subject e TEXT content",
        ] {
            let answers = imap.command(command);
            assert_eq!(answers.len(), 1, "{command}");
        }
    }
}

/// What one message was said to be.
struct Message {
    number: usize,
    whole: Vec<u8>,
    parts: Vec<Announced>,
    is_valid_for_imap_codec: bool,
}

impl Message {
    fn read(imap: &mut Imap, number: usize, sample: &Sample) -> Self {
        let name = &sample.name;
        let answers = imap.command(&format!(
            "FETCH {number} (RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] RFC822.HEADER)"
        ));
        let [answer] = &answers[..] else {
            panic!("{name}: {answers:?}")
        };
        let values = answer.items(number);
        let [size, envelope, body, structure, whole, header, text, rfc822] = &values[..] else {
            panic!("{name}: {values:?}")
        };
        let text_of = |value: &(String, &[u8])| string(value.1).unwrap();
        let whole = text_of(whole);
        assert!(whole == sample.octets, "{name}: came out changed");
        assert_eq!(size.1, whole.len().to_string().as_bytes(), "{name}");
        assert!([text_of(header), text_of(text)].concat() == whole, "{name}");
        assert_eq!(header.1, rfc822.1, "{name}");
        assert!(REV1.is_envelope(envelope.1), "{name}");
        let short = Grammar {
            is_extended: false,
            ..REV1
        };
        let parts = REV1.body(structure.1);
        let parts = parts.unwrap_or_else(|| panic!("{name}: {}", structure.1.escape_ascii()));
        assert_eq!(short.body(body.1).as_ref(), Some(&parts), "{name}");
        Self {
            number,
            whole,
            parts,
            is_valid_for_imap_codec: is_valid_for_imap_codec(envelope.1, Some(structure.1), name),
        }
    }

    /// One FETCH of this message, of which only the values matter.
    fn fetch(&self, imap: &mut Imap, items: &[String]) -> Vec<Option<Vec<u8>>> {
        let mut values = Vec::new();
        for items in items.chunks(ITEMS_MAX) {
            let answers = imap.command(&format!("FETCH {} ({})", self.number, items.join(" ")));
            assert_eq!(answers.len(), 1, "{answers:?}");
            let found = answers[0].items(self.number);
            assert_eq!(found.len(), items.len());
            values.extend(found.into_iter().map(|(_, value)| match value {
                digits if digits[0].is_ascii_digit() => Some(digits.to_vec()),
                value => string(value),
            }));
        }
        values
    }

    fn check_pieces(&self, imap: &mut Imap) {
        let size = self.whole.len();
        let third = size / 3 + 1;
        for step in [size.max(1), size + 1, third, (size / 40).max(1)] {
            let pieces: Vec<String> = (0..size + step)
                .step_by(step)
                .map(|first| format!("BODY.PEEK[]<{first}.{step}>"))
                .collect();
            let tiles = self.fetch(imap, &pieces);
            let tiled: Vec<u8> = tiles.into_iter().flat_map(Option::unwrap).collect();
            assert!(tiled == self.whole, "{}: by {step}", self.number);
        }
        let mut edges = vec![
            (0, 1),
            (size.saturating_sub(1), 1),
            (size.saturating_sub(1), 5),
            (size, 1),
            (size + 1, 1 << 31),
            (u32::MAX as usize, u32::MAX as usize),
        ];
        // What is asked for twice is answered once: of a message of one octet two are the same.
        edges.dedup();
        let pieces: Vec<String> = edges
            .iter()
            .map(|(first, count)| format!("BODY.PEEK[]<{first}.{count}>"))
            .collect();
        let found = self.fetch(imap, &pieces);
        for ((first, count), piece) in edges.into_iter().zip(found) {
            let end = (first + count).min(size);
            let wanted = self.whole.get(first.min(end)..end).unwrap();
            assert_eq!(piece.as_deref(), Some(wanted), "<{first}.{count}>");
        }
    }

    /// Fetches every part by its number.
    fn check_parts(&self, imap: &mut Imap) -> usize {
        // Of very many parts some, the last among them.
        let step = self.parts.len() / 500 + 1;
        let chosen: Vec<&Announced> = self.parts.iter().rev().step_by(step).collect();
        let mut items = Vec::new();
        for part in &chosen {
            let path = shown(&part.path);
            items.push(format!("BODY.PEEK[{path}]"));
            items.push(format!("BODY.PEEK[{path}.MIME]"));
            if part.is_message {
                items.push(format!("BODY.PEEK[{path}.HEADER]"));
                items.push(format!("BODY.PEEK[{path}.TEXT]"));
            }
        }
        let mut values = self.fetch(imap, &items).into_iter();
        for part in &chosen {
            let place = format!("message {} part {}", self.number, shown(&part.path));
            let octets = values.next().flatten().expect(&place);
            let mime = values.next().flatten().expect(&place);
            assert_eq!(octets.len() as u64, part.octets, "{place}");
            let lines = octets.iter().filter(|octet| **octet == b'\n').count() as u64;
            assert_eq!(part.lines.unwrap_or(lines), lines, "{place}");
            if part.is_message {
                let header = values.next().flatten().expect(&place);
                let text = values.next().flatten().expect(&place);
                assert!([header, text].concat() == octets, "{place}");
            }
            // Header and body of a part stand in the message, one behind the other.
            let together = [mime, octets].concat();
            if chosen.len() < 100 && !together.is_empty() {
                let mut windows = self.whole.windows(together.len());
                assert!(windows.any(|window| window == together), "{place}");
            }
        }
        chosen.len()
    }

    /// Fetches every part whose encoding is known decoded.
    fn check_decoded(&self, imap: &mut Imap) -> usize {
        let known = |part: &&Announced| KNOWN.contains(&&part.encoding.to_ascii_lowercase()[..]);
        let parts: Vec<&Announced> = self.parts.iter().filter(known).take(50).collect();
        let items: Vec<String> = parts
            .iter()
            .flat_map(|part| {
                let path = shown(&part.path);
                ["BINARY.SIZE", "BINARY.PEEK", "BODY.PEEK"].map(|item| format!("{item}[{path}]"))
            })
            .collect();
        let values = self.fetch(imap, &items);
        for (part, values) in parts.iter().zip(values.chunks(3)) {
            let place = format!("message {} part {}", self.number, shown(&part.path));
            let [Some(size), Some(decoded), Some(encoded)] = values else {
                panic!("{place}: {values:?}")
            };
            assert_eq!(*size, decoded.len().to_string().into_bytes(), "{place}");
            let is_plain = part.encoding.to_ascii_lowercase().ends_with(b"bit")
                || part.encoding.eq_ignore_ascii_case(b"binary");
            assert!(decoded.len() <= encoded.len(), "{place}");
            assert!(!is_plain || decoded == encoded, "{place}");
        }
        parts.len()
    }
}

const KNOWN: [&[u8]; 5] = [b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable"];

/// As many as one FETCH may have, with room for the line's limit.
const ITEMS_MAX: usize = 200;

/// imap-codec stops at eight levels.
const NESTED_TOO_DEEP_FOR_IMAP_CODEC: usize = 4;

fn shown(path: &[u32]) -> String {
    let numbers: Vec<String> = path.iter().map(u32::to_string).collect();
    numbers.join(".")
}

/// Asks another reader of the grammar: ENVELOPE must please it, BODYSTRUCTURE as far as it reads so deep.
fn is_valid_for_imap_codec(envelope: &[u8], structure: Option<&[u8]>, name: &str) -> bool {
    let reads = |item: &str, value: &[u8]| {
        let head = format!("* 1 FETCH ({item} ");
        let response = [head.as_bytes(), value, b")\r\n"].concat();
        match ResponseCodec::default().decode(&response) {
            Ok((rest, _)) => rest.is_empty(),
            Err(_) => false,
        }
    };
    assert!(
        reads("ENVELOPE", envelope),
        "{name}: {}",
        envelope.escape_ascii()
    );
    structure.is_none_or(|structure| {
        let valid = reads("BODYSTRUCTURE", structure);
        if !valid {
            println!("imap-codec does not read the structure of {name}");
        }
        valid
    })
}
