//! One FETCH response, item by item. RFC 9051 §7.5.2.

use super::super::command::{DateTime, Flag, Section, SectionText};
use super::super::mailbox::NameForm;
use super::string::{astring, flag_list, literal_head, nstring};
use crate::output::number;

/// A FETCH response that has begun. It holds no buffer, so that a literal can
/// be streamed between two of its items, and the shell can await meanwhile.
#[derive(Debug)]
#[must_use = "a response that does not end breaks the stream"]
pub struct FetchWriter {
    form: NameForm,
    has_items: bool,
}

impl FetchWriter {
    /// `* n FETCH (`.
    pub fn begin(out: &mut Vec<u8>, sequence: u32, form: NameForm) -> Self {
        Self::begin_with(out, sequence, b" FETCH (", form)
    }

    /// `* uid UIDFETCH (`, of UIDONLY. RFC 9586.
    pub fn begin_uid(out: &mut Vec<u8>, uid: u32, form: NameForm) -> Self {
        Self::begin_with(out, uid, b" UIDFETCH (", form)
    }

    fn begin_with(out: &mut Vec<u8>, message: u32, what: &[u8], form: NameForm) -> Self {
        out.extend_from_slice(b"* ");
        number(out, message.into());
        out.extend_from_slice(what);
        Self {
            form,
            has_items: false,
        }
    }

    /// FLAGS. `\Recent` is the mailbox's, not the message's, so it is said here.
    pub fn flags<'f>(
        &mut self,
        out: &mut Vec<u8>,
        flags: impl IntoIterator<Item = &'f Flag>,
        recent: bool,
    ) {
        self.name(out, "FLAGS");
        let start = out.len();
        flag_list(out, flags, false);
        if recent {
            let is_only = out.len() == start + 2;
            out.pop();
            out.extend_from_slice(if is_only { b"\\Recent)" } else { b" \\Recent)" });
        }
    }

    /// UID.
    pub fn uid(&mut self, out: &mut Vec<u8>, uid: u32) {
        self.name(out, "UID");
        number(out, uid.into());
    }

    /// MODSEQ.
    pub fn modseq(&mut self, out: &mut Vec<u8>, modseq: u64) {
        self.name(out, "MODSEQ");
        out.push(b'(');
        number(out, modseq);
        out.push(b')');
    }

    /// RFC822.SIZE.
    pub fn size(&mut self, out: &mut Vec<u8>, size: u64) {
        self.name(out, "RFC822.SIZE");
        number(out, size);
    }

    /// INTERNALDATE.
    pub fn internal_date(&mut self, out: &mut Vec<u8>, date: DateTime) {
        self.name(out, "INTERNALDATE");
        date.encode(out);
    }

    /// SAVEDATE.
    pub fn save_date(&mut self, out: &mut Vec<u8>, date: Option<DateTime>) {
        self.name(out, "SAVEDATE");
        match date {
            Some(date) => date.encode(out),
            None => out.extend_from_slice(b"NIL"),
        }
    }

    /// EMAILID.
    pub fn email_id(&mut self, out: &mut Vec<u8>, id: &str) {
        self.name(out, "EMAILID");
        out.push(b'(');
        out.extend_from_slice(id.as_bytes());
        out.push(b')');
    }

    /// THREADID.
    pub fn thread_id(&mut self, out: &mut Vec<u8>, id: Option<&str>) {
        self.name(out, "THREADID");
        match id {
            None => out.extend_from_slice(b"NIL"),
            Some(id) => {
                out.push(b'(');
                out.extend_from_slice(id.as_bytes());
                out.push(b')');
            }
        }
    }

    /// PREVIEW: text in UTF-8, at most 200 characters.
    pub fn preview(&mut self, out: &mut Vec<u8>, text: Option<&str>) {
        self.name(out, "PREVIEW");
        nstring(out, text.map(str::as_bytes), self.form);
    }

    /// ENVELOPE, BODY, BODYSTRUCTURE: octets that were encoded before.
    pub fn encoded(&mut self, out: &mut Vec<u8>, name: &'static str, octets: &[u8]) {
        self.name(out, name);
        out.extend_from_slice(octets);
    }

    /// `BODY[…]<origin> {size}`; exactly `size` octets must follow, then the
    /// next item. They are the message's own: NUL in it stays.
    pub fn section(
        &mut self,
        out: &mut Vec<u8>,
        section: &Section,
        origin: Option<u64>,
        size: u64,
    ) {
        self.section_name(out, section, origin);
        literal_head(out, size, false);
    }

    /// `BODY[…] NIL`: there is no such part.
    pub fn no_section(&mut self, out: &mut Vec<u8>, section: &Section) {
        self.section_name(out, section, None);
        out.extend_from_slice(b"NIL");
    }

    /// RFC822, RFC822.HEADER, RFC822.TEXT; exactly `size` octets must follow.
    pub fn rfc822(&mut self, out: &mut Vec<u8>, name: &'static str, size: u64) {
        self.name(out, name);
        literal_head(out, size, false);
    }

    /// `BINARY[…]<origin> {size}`, as literal8 where the part has NUL; exactly
    /// `size` octets must follow. NIL where there is no such part.
    pub fn binary(
        &mut self,
        out: &mut Vec<u8>,
        part: &[u32],
        origin: Option<u64>,
        size: Option<u64>,
        has_nul: bool,
    ) {
        self.begin_item(out);
        out.extend_from_slice(b"BINARY[");
        path(out, part);
        close(out, origin);
        match size {
            Some(size) => literal_head(out, size, has_nul),
            None => out.extend_from_slice(b"NIL"),
        }
    }

    /// `BINARY.SIZE[…]`.
    pub fn binary_size(&mut self, out: &mut Vec<u8>, part: &[u32], size: u64) {
        self.begin_item(out);
        out.extend_from_slice(b"BINARY.SIZE[");
        path(out, part);
        close(out, None);
        number(out, size);
    }

    /// The end of the response.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b")\r\n");
    }

    fn begin_item(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_items, true) {
            out.push(b' ');
        }
    }

    fn name(&mut self, out: &mut Vec<u8>, name: &str) {
        self.begin_item(out);
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
    }

    fn section_name(&mut self, out: &mut Vec<u8>, section: &Section, origin: Option<u64>) {
        self.begin_item(out);
        out.extend_from_slice(b"BODY[");
        path(out, &section.part);
        let word = match &section.text {
            SectionText::All => "",
            SectionText::Header => "HEADER",
            SectionText::HeaderFields { not: false, .. } => "HEADER.FIELDS",
            SectionText::HeaderFields { not: true, .. } => "HEADER.FIELDS.NOT",
            SectionText::Text => "TEXT",
            SectionText::Mime => "MIME",
        };
        if !section.part.is_empty() && !word.is_empty() {
            out.push(b'.');
        }
        out.extend_from_slice(word.as_bytes());
        if let SectionText::HeaderFields { names, .. } = &section.text {
            for (index, name) in names.iter().enumerate() {
                out.extend_from_slice(if index == 0 { b" (" } else { b" " });
                astring(out, name.as_bytes(), self.form);
            }
            out.push(b')');
        }
        close(out, origin);
    }
}

fn path(out: &mut Vec<u8>, part: &[u32]) {
    for (index, one) in part.iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(out, (*one).into());
    }
}

fn close(out: &mut Vec<u8>, origin: Option<u64>) {
    out.push(b']');
    if let Some(origin) = origin {
        out.push(b'<');
        number(out, origin);
        out.push(b'>');
    }
    out.push(b' ');
}
