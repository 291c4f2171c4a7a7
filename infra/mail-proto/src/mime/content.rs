//! Reads the Content-* fields of a part's header.

use super::BOUNDARY_MAX_OCTETS;
use super::header::{Fields, unfold};
use super::parameter::{Parameter, read_parameters, token};
use super::structure::put_string;
use super::token::{Lexer, Token};

/// The strings of a part that a structure keeps, in the order of their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Type,
    Subtype,
    Parameters,
    Id,
    Description,
    Encoding,
    Disposition,
    DispositionParameters,
    Language,
    Location,
    Md5,
    Envelope,
}

/// The strings present, written as the structure keeps them.
#[derive(Debug, Default)]
pub(super) struct Strings {
    present: u64,
    octets: Vec<u8>,
}

impl Strings {
    /// Adds a string; those of lower slots come before.
    pub(super) fn push(&mut self, slot: Slot, text: &[u8]) {
        let bit = 1 << slot as u32;
        debug_assert!(self.present < bit, "strings come in order");
        self.present |= bit;
        put_string(text, &mut self.octets);
    }

    fn push_some(&mut self, slot: Slot, text: Option<impl AsRef<[u8]>>) {
        if let Some(text) = text {
            self.push(slot, text.as_ref());
        }
    }

    pub(super) fn present(&self) -> u64 {
        self.present
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }
}

/// What the fields say a part is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Leaf,
    /// With its boundary.
    Multipart(Vec<u8>),
    /// With its boundary. Its parts are messages unless they say otherwise.
    Digest(Vec<u8>),
    Message,
    /// A field is over a limit.
    Opaque,
}

/// The Content-* fields of one header.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) nature: Nature,
    pub(super) strings: Strings,
}

impl Content {
    /// Reads the fields of `block`. Of fields that come twice the first valid
    /// one counts, for all readers must see the same part. `in_digest`: what
    /// does not say its type is a message, RFC 2046 §5.1.5.
    pub(super) fn read(block: &[u8], in_digest: bool) -> Self {
        let mut found = Found::default();
        for field in Fields::new(block) {
            let is_content = field
                .name
                .get(..8)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
            if !is_content {
                continue;
            }
            let name = field.name[8..].to_ascii_lowercase();
            let value = unfold(field.value);
            match &name[..] {
                b"type" => found.media_type.read(|| media_type(&value)),
                b"id" => found.id.read(|| Some(value.into_owned())),
                b"description" => found.description.read(|| Some(value.into_owned())),
                b"transfer-encoding" => found.encoding.read(|| encoding(&value)),
                b"disposition" => found.disposition.read(|| disposition(&value)),
                b"language" => found.language.read(|| languages(&value)),
                b"location" => found.location.read(|| Some(value.into_owned())),
                b"md5" => found.md5.read(|| Some(value.into_owned())),
                _ => {}
            }
        }
        found.into_content(in_digest)
    }
}

trait FirstValid<T> {
    fn read(&mut self, reader: impl FnOnce() -> Option<T>);
}

impl<T> FirstValid<T> for Option<T> {
    fn read(&mut self, reader: impl FnOnce() -> Option<T>) {
        if self.is_none() {
            *self = reader();
        }
    }
}

#[derive(Default)]
struct Found {
    media_type: Option<MediaType>,
    id: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    disposition: Option<Valued>,
    language: Option<Vec<u8>>,
    location: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
}

struct MediaType {
    main: Vec<u8>,
    sub: Vec<u8>,
    /// None if there are too many.
    parameters: Option<Vec<Parameter>>,
}

struct Valued {
    value: Vec<u8>,
    /// None if there are too many.
    parameters: Option<Vec<Parameter>>,
}

impl Found {
    fn into_content(self, in_digest: bool) -> Content {
        let mut strings = Strings::default();
        let mut nature = if in_digest {
            Nature::Message
        } else {
            Nature::Leaf
        };
        let opaque = Content {
            nature: Nature::Opaque,
            strings: Strings::default(),
        };
        if let Some(media_type) = self.media_type {
            let Some(parameters) = &media_type.parameters else {
                return opaque;
            };
            // A multipart that cannot be cut is shown as text, so that people
            // can read it, like any other invalid type (RFC 2045 §5.2).
            if let Some(known) = media_type.nature(parameters) {
                nature = known;
                strings.push(Slot::Type, &media_type.main);
                strings.push(Slot::Subtype, &media_type.sub);
                push_list(&mut strings, Slot::Parameters, parameters);
            }
        }
        strings.push_some(Slot::Id, self.id);
        strings.push_some(Slot::Description, self.description);
        strings.push_some(Slot::Encoding, self.encoding);
        if let Some(disposition) = self.disposition {
            let Some(parameters) = &disposition.parameters else {
                return opaque;
            };
            strings.push(Slot::Disposition, &disposition.value);
            push_list(&mut strings, Slot::DispositionParameters, parameters);
        }
        strings.push_some(Slot::Language, self.language);
        strings.push_some(Slot::Location, self.location);
        strings.push_some(Slot::Md5, self.md5);
        Content { nature, strings }
    }
}

impl MediaType {
    fn is(&self, main: &str, sub: &str) -> bool {
        self.main.eq_ignore_ascii_case(main.as_bytes())
            && self.sub.eq_ignore_ascii_case(sub.as_bytes())
    }

    /// `None` for a multipart without a usable boundary.
    fn nature(&self, parameters: &[Parameter]) -> Option<Nature> {
        if self.is("message", "rfc822") || self.is("message", "global") {
            return Some(Nature::Message);
        }
        if !self.main.eq_ignore_ascii_case(b"multipart") {
            return Some(Nature::Leaf);
        }
        let (_, boundary) = parameters
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(b"boundary"))?;
        // RFC 2046 §5.1.1: no boundary ends with white space; what a gateway
        // added there is not in the delimiter lines.
        let boundary = boundary.trim_ascii_end();
        if boundary.len() > BOUNDARY_MAX_OCTETS {
            return None;
        }
        let boundary = boundary.to_vec();
        Some(if self.is("multipart", "digest") {
            Nature::Digest(boundary)
        } else {
            Nature::Multipart(boundary)
        })
    }
}

fn push_list(strings: &mut Strings, slot: Slot, parameters: &[Parameter]) {
    if parameters.is_empty() {
        return;
    }
    let mut list = Vec::new();
    for (name, value) in parameters {
        put_string(name, &mut list);
        put_string(value, &mut list);
    }
    strings.push(slot, &list);
}

/// `None` if there is no valid type: RFC 2045 §5.2 then takes the default.
fn media_type(value: &[u8]) -> Option<MediaType> {
    let value = skip_comments(value);
    let main = token(value);
    let rest = skip_comments(&value[main.len()..]).strip_prefix(b"/")?;
    let rest = skip_comments(rest);
    let sub = token(rest);
    if main.is_empty() || sub.is_empty() {
        return None;
    }
    Some(MediaType {
        main: main.to_vec(),
        sub: sub.to_vec(),
        parameters: read_parameters(&rest[sub.len()..]),
    })
}

/// RFC 2183 §2.8: an unreadable disposition means attachment.
fn disposition(value: &[u8]) -> Option<Valued> {
    let value = skip_comments(value);
    let kind = token(value);
    if value.is_empty() {
        return None;
    }
    let is_value = !skip_comments(&value[kind.len()..]).starts_with(b"=");
    let (kind, rest) = match kind {
        b"" => (&b"attachment"[..], value),
        // `Content-Disposition: filename=x`
        kind if is_value => (kind, &value[kind.len()..]),
        _ => (&b"attachment"[..], value),
    };
    Some(Valued {
        value: kind.to_vec(),
        parameters: read_parameters(rest),
    })
}

fn languages(value: &[u8]) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    for token in Lexer::new(value) {
        if let Token::Atom(tag) = token {
            put_string(tag, &mut list);
        }
    }
    (!list.is_empty()).then_some(list)
}

/// `None`, which means 7bit, for what is not one token. A semicolon behind it
/// is passed, for some mailers write one.
fn encoding(value: &[u8]) -> Option<Vec<u8>> {
    let value = skip_comments(value);
    let encoding = token(value);
    let rest = skip_comments(&value[encoding.len()..]);
    let lone = rest.is_empty() || rest.starts_with(b";");
    (lone && !encoding.is_empty()).then(|| encoding.to_vec())
}

fn skip_comments(mut value: &[u8]) -> &[u8] {
    loop {
        value = value.trim_ascii_start();
        if !value.starts_with(b"(") {
            return value;
        }
        value = &value[super::token::comment_end(value, 0)..];
    }
}
