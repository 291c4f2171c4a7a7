//! The text of a message as a reader sees it: transfer encoding, charset and HTML undone.
//!
//! It streams: a body of any size passes in pieces, and the work is linear in its octets.

pub(super) mod fold;
mod html;

use std::ops::{ControlFlow, Range};

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16LE, WINDOWS_1252};
use mail_proto::mime::{Fields, Kind, Part, decode_words, unfold};

use super::message::{Message, Unreadable};
use super::transfer::Transfer;
use crate::volume::MailboxReader;
use html::Html;

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The header of a part: for TEXT, not for BODY.
    PartHeader,
    /// A body; the header of a message inside of the message is body of that.
    Body,
}

/// One text of a message.
struct Source {
    place: Place,
    /// In the blob.
    range: Range<u64>,
    form: Form,
}

enum Form {
    Header,
    Text {
        transfer: Transfer,
        charset: Charset,
        html: Option<Html>,
    },
}

/// Gives every text behind the header, in order: pieces of it, `None` at the end of each. The sink may stop it.
///
/// Bodies that are no text (pictures, archives) have none.
pub(super) fn each_text(
    message: &mut Message,
    reader: &MailboxReader,
    mut sink: impl FnMut(Place, Option<&str>) -> ControlFlow<()>,
) -> Result<(), Unreadable> {
    let structure = message.structure(reader)?;
    let mut sources = Vec::new();
    collect(&structure.root(), Owner::Message, &mut sources);
    let ours = message.prologue_octets();
    let mut raw = Vec::new();
    for source in sources {
        let range = source.range.start + ours..source.range.end + ours;
        let flow = match source.form {
            Form::Header => {
                raw.clear();
                message.read(reader, range, &mut raw)?;
                sink(source.place, Some(&header_text(&raw)))
            }
            Form::Text {
                transfer,
                charset,
                html,
            } => {
                let mut body = BodyText::new(transfer, charset, html);
                let mut left = range;
                loop {
                    let piece = left.start..left.end.min(left.start + PIECE_OCTETS);
                    raw.clear();
                    message.read(reader, piece.clone(), &mut raw)?;
                    left.start = piece.end;
                    let flow = sink(source.place, Some(body.push(&raw, left.is_empty())));
                    if flow.is_break() || left.is_empty() {
                        break flow;
                    }
                }
            }
        };
        if flow.is_break() || sink(source.place, None).is_break() {
            break;
        }
    }
    Ok(())
}

/// The beginning of the first text, white space made one, as PREVIEW shows it. RFC 8970.
pub(super) fn preview(message: &mut Message, reader: &MailboxReader) -> Result<String, Unreadable> {
    let mut text = String::new();
    let mut count = 0;
    each_text(message, reader, |place, piece| {
        if place == Place::PartHeader {
            return ControlFlow::Continue(());
        }
        for c in piece.unwrap_or("\n").chars() {
            if c.is_whitespace() || c.is_control() {
                if count > 0 && !text.ends_with(' ') {
                    text.push(' ');
                    count += 1;
                }
            } else if count < PREVIEW_MAX_CHARS {
                text.push(c);
                count += 1;
            }
        }
        match piece {
            Some(_) if count < PREVIEW_MAX_CHARS => ControlFlow::Continue(()),
            None if count == 0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    Ok(text.trim_end().chars().take(PREVIEW_MAX_CHARS).collect())
}

/// All fields of a header block, decoded, a line each.
pub(super) fn header_text(block: &[u8]) -> String {
    let mut text = String::with_capacity(block.len());
    for field in Fields::new(block) {
        text.push_str(&String::from_utf8_lossy(field.name));
        text.push_str(": ");
        text.push_str(&decode_words(&unfold(field.value)));
        text.push('\n');
    }
    text
}

/// Whose header a part's is.
#[derive(Clone, Copy)]
enum Owner {
    /// The message's: looked at elsewhere.
    Message,
    Part,
    /// That of a message inside.
    Inner,
}

/// Recursion is bounded by the depth that a structure can have.
fn collect(part: &Part<'_>, owner: Owner, sources: &mut Vec<Source>) {
    let place = match owner {
        Owner::Message => None,
        Owner::Part => Some(Place::PartHeader),
        Owner::Inner => Some(Place::Body),
    };
    if let Some(place) = place {
        sources.push(Source {
            place,
            range: part.header(),
            form: Form::Header,
        });
    }
    match part.kind() {
        Kind::Multipart => {
            for child in part.children() {
                collect(&child, Owner::Part, sources);
            }
        }
        Kind::Message => {
            for child in part.children() {
                collect(&child, Owner::Inner, sources);
            }
        }
        Kind::Leaf => {
            let (main, sub) = part.media_type();
            let is_text =
                main.eq_ignore_ascii_case(b"text") || main.eq_ignore_ascii_case(b"message");
            if is_text {
                let is_html = sub.eq_ignore_ascii_case(b"html");
                sources.push(Source {
                    place: Place::Body,
                    range: part.body(),
                    form: Form::Text {
                        // What cannot be decoded may still be read as it is.
                        transfer: Transfer::of(part.encoding()).unwrap_or(Transfer::Identity),
                        charset: Charset::of(part),
                        html: is_html.then(Html::default),
                    },
                });
            }
        }
    }
}

/// How octets become characters.
enum Charset {
    /// Declared and known.
    Known(Decoder),
    /// Not declared, or declared as what senders write who do not know: UTF-8 if the first octets above
    /// ASCII are that.
    Unknown,
}

impl Charset {
    fn of(part: &Part<'_>) -> Self {
        let mut parameters = part.parameters();
        let named = parameters.find(|(name, _)| name.eq_ignore_ascii_case(b"charset"));
        let encoding = named
            .filter(|(_, label)| !label.eq_ignore_ascii_case(b"us-ascii"))
            .and_then(|(_, label)| Encoding::for_label(label));
        match encoding {
            // UTF-16 tells its order of octets by its first character. RFC 2781 §3.3.
            Some(encoding) if encoding == UTF_16LE => Self::Known(encoding.new_decoder()),
            Some(encoding) => Self::Known(encoding.new_decoder_with_bom_removal()),
            None => Self::Unknown,
        }
    }

    fn push(&mut self, octets: &[u8], is_last: bool, text: &mut String) {
        let mut rest = octets;
        if let Self::Unknown = self {
            let ascii = Encoding::ascii_valid_up_to(rest);
            let (plain, beyond) = rest.split_at(ascii);
            text.push_str(std::str::from_utf8(plain).unwrap_or_default());
            rest = beyond;
            if rest.is_empty() {
                return;
            }
            let is_utf8 = match std::str::from_utf8(rest) {
                Ok(_) => true,
                // Cut in the middle of a character.
                Err(error) => error.error_len().is_none() && !is_last,
            };
            let encoding = if is_utf8 { UTF_8 } else { WINDOWS_1252 };
            *self = Self::Known(encoding.new_decoder_without_bom_handling());
        }
        if let Self::Known(decoder) = self {
            let most = decoder.max_utf8_buffer_length(rest.len());
            text.reserve(most.unwrap_or(rest.len() * 3 + 16));
            // There is room for all of it.
            let _ = decoder.decode_to_string(rest, text, is_last);
        }
    }
}

/// Decodes one body. Its buffers are used again for each piece.
struct BodyText {
    transfer: Transfer,
    charset: Charset,
    html: Option<Html>,
    octets: Vec<u8>,
    decoded: String,
    text: String,
}

impl BodyText {
    fn new(transfer: Transfer, charset: Charset, html: Option<Html>) -> Self {
        Self {
            transfer,
            charset,
            html,
            octets: Vec::new(),
            decoded: String::new(),
            text: String::new(),
        }
    }

    fn push(&mut self, raw: &[u8], is_last: bool) -> &str {
        self.octets.clear();
        self.transfer.push(raw, &mut self.octets);
        if is_last {
            self.transfer.finish(&mut self.octets);
        }
        self.decoded.clear();
        self.charset.push(&self.octets, is_last, &mut self.decoded);
        let Some(html) = &mut self.html else {
            return &self.decoded;
        };
        self.text.clear();
        html.push(&self.decoded, &mut self.text);
        if is_last {
            html.finish(&mut self.text);
        }
        &self.text
    }
}

const PIECE_OCTETS: u64 = 64 << 10;
/// RFC 8970 §3.1.
const PREVIEW_MAX_CHARS: usize = 200;
