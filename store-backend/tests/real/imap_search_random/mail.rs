//! Mail whose text is known because it was made from it: encoded, cut and folded in every way, by chance.

use encoding_rs::Encoding;

/// Numbers of a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % u64::try_from(limit.max(1)).unwrap()) as usize
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(super) fn chance(&mut self, in_so_many: usize) -> bool {
        self.below(in_so_many) == 0
    }
}

/// A message and what a reader sees of it.
pub(super) struct Mail {
    pub(super) octets: Vec<u8>,
    /// Its header: names and decoded values.
    pub(super) fields: Vec<(String, String)>,
    /// Every other text, and whether it is body (a part's own header is not).
    pub(super) texts: Vec<(String, bool)>,
}

const ASCII: &[&str] = &[
    "invoice", "Report", "meeting", "the", "a", "of", "Quarter", "hello", "world", "x=y", "AT&T",
    "1<2", "so", "end.",
];
const LATIN: &[&str] = &["Grüße", "CAFÉ", "naïve", "Straße", "Ärger", "señor", "©"];
const RUSSIAN: &[&str] = &["Привет", "МИР", "почта", "Ёлка", "длинное"];
const JAPANESE: &[&str] = &["日本", "こんにちは", "メール", "東京"];
const ANY: &[&str] = &["😀", "Σίσυφος", "ẞ", "ﬁne", "\u{1e9e}"];

/// Labels, and the words that they can write.
const CHARSETS: &[(&str, &[&str])] = &[
    ("us-ascii", &[]),
    ("utf-8", ANY),
    ("UTF-8", RUSSIAN),
    ("iso-8859-1", LATIN),
    ("windows-1252", LATIN),
    ("koi8-r", RUSSIAN),
    ("iso-2022-jp", JAPANESE),
    ("shift_jis", JAPANESE),
    ("utf-16", ANY),
    ("utf-16be", RUSSIAN),
];

fn words(random: &mut Random, more: &[&'static str], count: usize) -> Vec<&'static str> {
    let one = |_| match !more.is_empty() && random.chance(2) {
        true => random.one(more),
        false => random.one(ASCII),
    };
    (0..count).map(one).collect()
}

/// A text with line ends, of so many words.
fn text(random: &mut Random, more: &[&'static str], count: usize) -> String {
    let mut out = String::new();
    for word in words(random, more, count) {
        out.push_str(word);
        out.push_str(random.one(&[" ", " ", " ", "\r\n", "  ", "\r\n\r\n", "\t"]));
    }
    out
}

/// As octets of a charset. For the Unicode ones that the library does not write: by hand.
pub(super) fn encoded(text: &str, charset: &str, mark: bool) -> Vec<u8> {
    let units = |to_octets: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_octets).collect();
    match (charset, mark) {
        ("utf-16", true) => [&[0xfe, 0xff][..], &encoded(text, "utf-16be", false)[..]].concat(),
        ("utf-16", false) => units(u16::to_le_bytes),
        ("utf-16be", _) => units(u16::to_be_bytes),
        _ => {
            let encoding = Encoding::for_label(charset.as_bytes()).unwrap();
            let (octets, _, has_failed) = encoding.encode(text);
            assert!(!has_failed, "{charset} {text}");
            octets.into_owned()
        }
    }
}

fn base64(octets: &[u8]) -> String {
    data_encoding::BASE64.encode(octets)
}

/// Lines of any length: a needle's octets lie on both sides of their ends.
fn base64_lines(random: &mut Random, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = base64(octets).into_bytes();
    while !rest.is_empty() {
        let length = (1 + random.below(76)).min(rest.len());
        out.extend(rest.drain(..length));
        out.extend_from_slice(random.one(&["\r\n", "\r\n", "\n", " \r\n"]).as_bytes());
        if rest.len() > 4000 {
            // The rest of a long one in usual lines.
            for line in rest.chunks(76) {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            rest.clear();
        }
    }
    out
}

/// Soft line breaks anywhere, more escaped than must be.
fn quoted(random: &mut Random, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut column = 0;
    let mut at = 0;
    while at < octets.len() {
        if octets[at..].starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            (column, at) = (0, at + 2);
            continue;
        }
        let octet = octets[at];
        let is_at_end = octets
            .get(at + 1)
            .is_none_or(|next| matches!(next, b'\r' | b'\n'));
        let is_plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~')
            || (matches!(octet, b' ' | b'\t') && !is_at_end);
        let piece = match is_plain && !random.chance(12) {
            true => vec![octet],
            false if random.chance(2) => format!("={octet:02X}").into_bytes(),
            false => format!("={octet:02x}").into_bytes(),
        };
        column += piece.len();
        at += 1;
        out.extend(piece);
        if column > 70 || random.chance(15) {
            out.extend_from_slice(random.one(&["=\r\n", "= \r\n", "=\n"]).as_bytes());
            column = 0;
        }
    }
    out
}

/// A page, and its text.
fn html(random: &mut Random, more: &[&'static str], count: usize) -> (String, String) {
    let mut page = String::from("<html><head><style>p { hidden }</style></head>");
    // Tags that are not within a line part words.
    let mut seen = String::from("   ");
    for word in words(random, more, count) {
        for c in word.chars() {
            match c {
                '&' => page.push_str("&amp;"),
                '<' => page.push_str("&lt;"),
                'ü' => page.push_str(random.one(&["&uuml;", "ü", "&#252;", "&#xFC;"])),
                'é' => page.push_str(random.one(&["&eacute;", "é"])),
                c if random.chance(9) => page.push_str(&format!("&#{};", u32::from(c))),
                c => page.push(c),
            }
            seen.push(c);
            if random.chance(6) {
                let tag = random.one(&[
                    "<b>",
                    "</b>",
                    "<a href=\"decoy>\">",
                    "<!-- decoy -->",
                    "</SPAN>",
                ]);
                page.push_str(tag);
            }
        }
        let (tag, space) = random.one(&[
            (" ", " "),
            ("<p>", " "),
            ("<br/>", " "),
            ("&nbsp;", "\u{a0}"),
            ("\r\n", "\n"),
        ]);
        page.push_str(tag);
        seen.push_str(space);
    }
    page.push_str("<script>if (a < b) decoy();</script>");
    (page, seen)
}

/// A header field as it is written, and its value as it is read.
fn field(random: &mut Random, name: &str) -> (Vec<u8>, (String, String)) {
    let mut raw = format!("{name}:").into_bytes();
    let mut value = String::new();
    // Whether an encoded word was the last thing, so that white space before another one is none.
    let mut is_behind_word = false;
    for _ in 0..1 + random.below(4) {
        let space = random.one(&[" ", " ", "\r\n ", "\r\n\t", "  "]);
        let (charset, more) = random.one(CHARSETS);
        let count = 1 + random.below(3);
        let text = words(random, more, count).join(" ");
        if charset == "us-ascii" || (charset == "utf-8" && random.chance(3)) {
            raw.extend_from_slice(space.as_bytes());
            raw.extend_from_slice(text.as_bytes());
            value.push(' ');
            value.push_str(&text);
            is_behind_word = false;
            continue;
        }
        if !is_behind_word {
            value.push(' ');
        }
        value.push_str(&text);
        is_behind_word = true;
        let words = encoded_words(random, &text, charset);
        let mut space = space;
        for word in words {
            raw.extend_from_slice(space.as_bytes());
            raw.extend_from_slice(word.as_bytes());
            space = random.one(&[" ", "\r\n ", " \r\n\t"]);
        }
    }
    raw.extend_from_slice(b"\r\n");
    (raw, (name.to_owned(), value))
}

/// One text as encoded words, characters of more octets cut in two.
fn encoded_words(random: &mut Random, text: &str, charset: &str) -> Vec<String> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    if charset == "iso-2022-jp" {
        // It has states: each word begins and ends in ASCII.
        let chars: Vec<char> = text.chars().collect();
        let pieces_of = chars
            .chunks(1 + random.below(8))
            .map(|piece| piece.iter().collect::<String>());
        pieces.extend(pieces_of.map(|piece| encoded(&piece, charset, false)));
    } else {
        let mut rest = encoded(text, charset, false);
        while !rest.is_empty() {
            let most = (1 + random.below(9)).min(rest.len());
            pieces.push(rest.drain(..most).collect());
        }
    }
    let mut words = Vec::new();
    for some in pieces {
        words.push(match random.chance(2) {
            true => format!(
                "=?{charset}?{}?{}?=",
                random.one(&["B", "b"]),
                base64(&some)
            ),
            false => {
                let one = |octet: &u8| match octet {
                    b' ' => "_".to_owned(),
                    octet if octet.is_ascii_alphanumeric() => char::from(*octet).to_string(),
                    octet => format!("={octet:02X}"),
                };
                let text: String = some.iter().map(one).collect();
                format!("=?{charset}*en?{}?{text}?=", random.one(&["Q", "q"]))
            }
        });
    }
    words
}

/// Octets behind the header's own fields, and texts.
struct Part {
    /// Fields of the content, with their values.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    texts: Vec<(String, bool)>,
}

impl Part {
    fn new(content_type: &str, encoding: &str, body: Vec<u8>) -> Self {
        let mut fields = vec![("Content-Type".to_owned(), content_type.to_owned())];
        if !encoding.is_empty() {
            fields.push(("Content-Transfer-Encoding".to_owned(), encoding.to_owned()));
        }
        Self {
            fields,
            body,
            texts: Vec::new(),
        }
    }

    fn of_text(random: &mut Random, count: usize) -> Self {
        let (charset, more) = random.one(CHARSETS);
        let is_html = random.chance(3);
        let (written, seen) = match is_html {
            true => html(random, more, count),
            false => {
                let text = text(random, more, count);
                (text.clone(), text)
            }
        };
        // A charset that has no such letter takes the page as it is, in references.
        let charset = match (is_html, charset) {
            (true, "iso-8859-1" | "windows-1252" | "utf-8" | "UTF-8") | (false, _) => charset,
            (true, _) => "utf-8",
        };
        let octets = encoded(&written, charset, random.chance(2));
        let sub = if is_html { "html" } else { "plain" };
        let label = match (charset, random.chance(4)) {
            // Undeclared, but UTF-8.
            ("utf-8", true) => String::new(),
            (charset, true) => format!("; CharSet=\"{charset}\""),
            (charset, false) => format!("; charset={charset}"),
        };
        let content_type = format!("text/{sub}{label}");
        let (encoding, body) = match (charset.starts_with("utf-16"), random.below(3)) {
            (false, 0) => ("8bit", octets),
            (false, 1) => ("Quoted-Printable", quoted(random, &octets)),
            _ => ("base64", base64_lines(random, &octets)),
        };
        let mut part = Self::new(&content_type, encoding, body);
        part.texts.push((seen, true));
        part
    }

    fn of_others(random: &mut Random, depth: usize) -> Self {
        let boundary = format!("b{depth}-{}", random.below(1000));
        let sub = random.one(&["mixed", "alternative", "related"]);
        let content_type = format!("multipart/{sub}; boundary=\"{boundary}\"");
        let mut whole = Self::new(&content_type, "", b"decoy in front\r\n".to_vec());
        for _ in 0..1 + random.below(3) {
            let part = Self::any(random, depth + 1);
            let (mut header, mut fields) = (Vec::new(), Vec::new());
            if random.chance(2) {
                let (raw, field) = field(random, "Content-Description");
                header.extend(raw);
                fields.push(field);
            }
            for (name, value) in &part.fields {
                header.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            fields.extend(part.fields);
            whole
                .body
                .extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
            whole.body.extend(header);
            whole.body.extend_from_slice(b"\r\n");
            whole.body.extend(part.body);
            whole.texts.push((lines_of(&fields), false));
            whole.texts.extend(part.texts);
        }
        let end = format!("\r\n--{boundary}--\r\ndecoy behind\r\n");
        whole.body.extend_from_slice(end.as_bytes());
        whole
    }

    fn any(random: &mut Random, depth: usize) -> Self {
        match random.below(8) {
            0 | 1 if depth < 4 => Self::of_others(random, depth),
            2 if depth < 4 => {
                let mail = Mail::random(random, depth + 1);
                let mut part = Self::new("message/rfc822", "", mail.octets);
                part.texts.push((lines_of(&mail.fields), true));
                part.texts.extend(mail.texts);
                part
            }
            3 if depth > 0 => {
                let body = base64_lines(random, b"decoy picture invoice");
                Self::new("image/png; name=picture.png", "base64", body)
            }
            _ => {
                // Some beyond the pieces that a body is read in.
                let count = match random.chance(40) {
                    true => 30_000,
                    false => random.below(60),
                };
                Self::of_text(random, count)
            }
        }
    }
}

/// A header as a text.
pub(super) fn lines_of(fields: &[(String, String)]) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.trim()));
    lines.collect()
}

pub(super) const NAMES: &[&str] = &[
    "Subject", "Comments", "Keywords", "X-Label", "X-Custom", "List-ID", "Received",
];

impl Mail {
    pub(super) fn random(random: &mut Random, depth: usize) -> Self {
        let mut octets = Vec::new();
        let mut fields = Vec::new();
        for name in NAMES {
            for _ in 0..random.below(3) {
                let (raw, field) = field(random, name);
                octets.extend(raw);
                fields.push(field);
            }
        }
        for (name, value) in [
            ("X-Empty", ""),
            ("From", "Anna <anna@a.test>"),
            ("To", "b@b.test, C <c@c.test>"),
        ] {
            if random.chance(2) {
                octets.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
        if random.chance(2) {
            let day = 1 + random.below(28);
            let date = format!(
                "{day} Jan 2022 23:30:00 {}",
                random.one(&["-0500", "+0000", "+0900"])
            );
            octets.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
            fields.push(("Date".to_owned(), date));
        }
        let part = Part::any(random, depth);
        for (name, value) in &part.fields {
            octets.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        fields.extend(part.fields);
        octets.extend_from_slice(b"\r\n");
        octets.extend(part.body);
        Self {
            octets,
            fields,
            texts: part.texts,
        }
    }
}
