//! Finds the MIME structure of a blob as it streams by.
//!
//! ```text
//!           empty line                   "--" at line start
//! Header ───────────────▶ Body ─────────▶ Candidate ──no──▶ Body
//!   ▲  ◀── message/rfc822 ─┘  ◀── LF ──      │
//!   └──────── LF ──── Delimiter ◀────────────┘ yes
//! ```
//!
//! Only header blocks and the beginnings of lines that may be delimiters are
//! kept. Bodies are searched for line ends and delimiters and let go.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};

use super::content::{Content, Nature, Slot, Strings};
use super::envelope::Envelope;
use super::structure::{FoundPart, Kind, Structure};
use super::{
    BOUNDARY_MAX_OCTETS, DEPTH_MAX, FIELD_MAX_OCTETS, FIELDS_MAX, HEADER_MAX_OCTETS, PARTS_MAX,
    STRUCTURE_TEXT_MAX_OCTETS,
};

/// What a scan found.
#[derive(Debug)]
pub struct Scanned {
    /// The structure, for the index.
    pub structure: Structure,
    /// The header block of the blob: its first octets, empty line included.
    /// At most [`HEADER_MAX_OCTETS`].
    pub header: Vec<u8>,
}

/// A streaming scanner of one blob. How the blob is cut into pieces makes no
/// difference.
///
/// It holds two header blocks at most, the field values and numbers of the
/// parts found, and less than a line of body: some 3 MiB for the worst blob,
/// a few KiB for a usual one.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    /// All octets before this are accounted for; the others are in `block` or
    /// `candidate`.
    position: Position,
    /// Behind the last line whose end is no part of a delimiter behind it: the
    /// last of a header, or a delimiter.
    owned_end: u64,
    /// The last two octets before `position`.
    tail: [u8; 2],
    parts: Vec<FoundPart>,
    /// The parts that are open, outermost first, and where their bodies begin.
    open: Vec<(usize, Position)>,
    /// The boundaries looked for, outermost first.
    boundaries: Vec<Boundary>,
    /// The header block being read, the line at hand included.
    block: Vec<u8>,
    header: HeaderLimits,
    candidate: Vec<u8>,
    root_header: Vec<u8>,
    text_left_octets: usize,
    /// Octets looked at so far: how tests see that time is linear.
    #[cfg(test)]
    pub(super) work: u64,
}

/// What the scanner awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The rest of a line of the last part's header.
    Header,
    /// The beginning of a body line that could be a delimiter.
    Candidate,
    /// A line end with two dashes behind it.
    Body,
    /// The end of a delimiter line; a part begins behind it, or not.
    Delimiter { parent: usize, opens: bool },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    octets: u64,
    lines: u64,
}

#[derive(Debug, Default)]
struct HeaderLimits {
    field_start: usize,
    line_start: usize,
    fields: usize,
}

#[derive(Debug)]
struct Boundary {
    part: usize,
    /// Without the dashes before it.
    text: Vec<u8>,
    in_digest: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// One for the beginning of a blob.
    pub fn new() -> Self {
        let mut scanner = Self {
            at: At::Header,
            position: Position::default(),
            owned_end: 0,
            tail: [0; 2],
            parts: Vec::new(),
            open: Vec::new(),
            boundaries: Vec::new(),
            block: Vec::new(),
            header: HeaderLimits::default(),
            candidate: Vec::new(),
            root_header: Vec::new(),
            text_left_octets: STRUCTURE_TEXT_MAX_OCTETS,
            #[cfg(test)]
            work: 0,
        };
        scanner.open_part(None);
        scanner
    }

    /// Reads the next octets of the blob.
    pub fn push(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let read = match self.at {
                At::Header => self.in_header(octets),
                At::Candidate => self.in_candidate(octets),
                At::Body => self.in_body(octets),
                At::Delimiter { parent, opens } => self.in_delimiter(octets, parent, opens),
            };
            #[cfg(test)]
            {
                self.work += read as u64;
            }
            octets = &octets[read..];
        }
    }

    /// Ends the blob.
    pub fn finish(mut self) -> Scanned {
        loop {
            match self.at {
                At::Header if self.block.len() > self.header.line_start => self.header_line(),
                At::Header => self.end_header(),
                At::Candidate if !self.candidate.is_empty() => self.candidate_line(),
                // A delimiter may be the very last line, even without an end.
                At::Delimiter {
                    parent,
                    opens: true,
                } => self.open_part(Some(parent)),
                _ => break,
            }
        }
        self.close_down_to(0, self.position);
        let structure = Structure::from_parts(&self.parts, self.position.octets);
        Scanned {
            structure,
            header: self.root_header,
        }
    }

    // Header.

    fn in_header(&mut self, octets: &[u8]) -> usize {
        let header = &mut self.header;
        if self.block.len() == header.line_start {
            // The first octet of a line says which field it belongs to.
            let continues = matches!(octets[0], b' ' | b'\t') && header.fields > 0;
            if !continues {
                header.field_start = header.line_start;
                header.fields += 1;
            }
        }
        let most = HEADER_MAX_OCTETS.min(header.field_start + FIELD_MAX_OCTETS);
        // An empty line is no field, so it may stand behind the last.
        let over = header.fields > FIELDS_MAX && !matches!(octets[0], b'\r' | b'\n');
        let over = over && self.block.len() == header.line_start;
        let line = memchr(b'\n', octets).map_or(octets.len(), |end| end + 1);
        let room = (most + 1).saturating_sub(self.block.len());
        let read = if over { 0 } else { line.min(room) };
        self.block.extend_from_slice(&octets[..read]);
        if over || self.block.len() > most {
            self.end_header_over_limit();
        } else if self.block.ends_with(b"\n") {
            self.header_line();
        }
        read
    }

    /// The line at hand is over a limit: it and the rest count as body.
    fn end_header_over_limit(&mut self) {
        let rest = self.block.split_off(self.header.line_start);
        self.end_header();
        // Once more at most: the rest may begin a nested message, which has
        // no type of its own yet.
        self.push(&rest);
    }

    /// A line of the header is whole.
    fn header_line(&mut self) {
        let line = &self.block[self.header.line_start..];
        if let Some(delimiter) = self.delimiter(line) {
            let line = self.block.split_off(self.header.line_start);
            self.end_header();
            // A nested message begins and ends here.
            while self.at == At::Header {
                self.end_header();
            }
            self.at_delimiter(delimiter, &line);
            return;
        }
        let is_empty = matches!(line, b"\n" | b"\r\n");
        // A CR may begin a line of a field over the limit; it is one then.
        if self.header.fields > FIELDS_MAX && !is_empty {
            self.end_header_over_limit();
            return;
        }
        let line = self.header.line_start..self.block.len();
        self.advance_block(line);
        self.header.line_start = self.block.len();
        if is_empty {
            self.end_header();
        }
    }

    fn advance_block(&mut self, range: Range<usize>) {
        let block = std::mem::take(&mut self.block);
        self.advance(&block[range]);
        self.block = block;
    }

    /// The header of the last part ends at `position`.
    fn end_header(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.header = HeaderLimits::default();
        self.owned_end = self.position.octets;
        let at = self.parts.len() - 1;
        let parent = self.parts[at].parent;
        let in_digest = self
            .boundaries
            .last()
            .is_some_and(|boundary| boundary.in_digest && Some(boundary.part) == parent);
        let Content {
            mut nature,
            mut strings,
        } = Content::read(&block, in_digest);
        let envelope = parent
            .filter(|parent| self.parts[*parent].kind == Kind::Message)
            .map(|_| Envelope::read(&block).to_bytes());
        let deepest = self.open.len() >= DEPTH_MAX;
        let no_room = strings.octets().len() > self.text_left_octets
            || (nature == Nature::Message && self.parts.len() >= PARTS_MAX);
        if no_room || (deepest && nature != Nature::Leaf) {
            nature = Nature::Opaque;
        }
        let part = &mut self.parts[at];
        part.body_start = self.position.octets;
        if let Some((_, body)) = self.open.last_mut() {
            *body = self.position;
        }
        self.at = At::Candidate;
        match nature {
            Nature::Leaf => {}
            Nature::Opaque => {
                part.opaque = true;
                strings = Strings::default();
            }
            Nature::Multipart(boundary) => self.open_multipart(at, boundary, false),
            Nature::Digest(boundary) => self.open_multipart(at, boundary, true),
            Nature::Message => {
                part.kind = Kind::Message;
                self.open_part(Some(at));
            }
        }
        self.text_left_octets -= strings.octets().len();
        if let Some(envelope) = envelope.filter(|octets| octets.len() <= self.text_left_octets) {
            self.text_left_octets -= envelope.len();
            strings.push(Slot::Envelope, &envelope);
        }
        self.parts[at].strings = strings;
        if at == 0 {
            self.root_header = block;
        } else if self.at == At::Header {
            // Keep the memory for the next block.
            self.block = block;
            self.block.clear();
        }
    }

    fn open_multipart(&mut self, part: usize, text: Vec<u8>, in_digest: bool) {
        self.parts[part].kind = Kind::Multipart;
        self.boundaries.push(Boundary {
            part,
            text,
            in_digest,
        });
    }

    // Body.

    fn in_body(&mut self, octets: &[u8]) -> usize {
        // Nothing to look for: only line ends count.
        let read = if self.boundaries.is_empty() {
            octets.len()
        } else if let Some(end) = memmem::find(octets, b"\n--") {
            end + 1
        } else if octets.ends_with(b"\n-") {
            octets.len() - 1
        } else {
            octets.len()
        };
        self.advance(&octets[..read]);
        if octets[read - 1] == b'\n' && !self.boundaries.is_empty() {
            self.at = At::Candidate;
        }
        read
    }

    fn in_candidate(&mut self, octets: &[u8]) -> usize {
        let needed = b"--".get(self.candidate.len());
        if self.boundaries.is_empty() || needed.is_some_and(|dash| *dash != octets[0]) {
            self.end_candidate();
            return 0;
        }
        if needed.is_some() {
            self.candidate.push(octets[0]);
            return 1;
        }
        let room = CANDIDATE_MAX_OCTETS - self.candidate.len();
        let line = memchr(b'\n', octets).map_or(octets.len(), |end| end + 1);
        let read = line.min(room);
        self.candidate.extend_from_slice(&octets[..read]);
        if read == room || octets[read - 1] == b'\n' {
            self.candidate_line();
        }
        read
    }

    /// The line at hand, or as much of it as can matter, is there.
    fn candidate_line(&mut self) {
        match self.delimiter(&self.candidate) {
            Some(delimiter) => {
                let line = std::mem::take(&mut self.candidate);
                self.at_delimiter(delimiter, &line);
            }
            None => self.end_candidate(),
        }
    }

    /// The line at hand is text.
    fn end_candidate(&mut self) {
        let line = std::mem::take(&mut self.candidate);
        self.advance(&line);
        self.at = if line.ends_with(b"\n") {
            At::Candidate
        } else {
            At::Body
        };
        self.candidate = line;
        self.candidate.clear();
    }

    // Delimiters.

    /// Finds which boundary makes `line` a delimiter, and whether it closes.
    ///
    /// A line that is a boundary and nothing more but white space counts
    /// first, innermost to outermost. If there is none, RFC 2046 §5.1.1 lets a
    /// line be a delimiter that only begins with a boundary; then the longest
    /// counts, so that `b` does not end what `bb` delimits.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line.strip_prefix(b"--")?.trim_ascii_end();
        let mut longest: Option<(usize, bool)> = None;
        for (at, boundary) in self.boundaries.iter().enumerate().rev() {
            let Some(behind) = text.strip_prefix(&boundary.text[..]) else {
                continue;
            };
            if behind.is_empty() || behind == b"--" {
                return Some((at, !behind.is_empty()));
            }
            let length = |at: usize| self.boundaries[at].text.len();
            // An empty boundary begins every line with two dashes.
            if boundary.text.is_empty()
                || longest.is_some_and(|(best, _)| length(best) >= length(at))
            {
                continue;
            }
            longest = Some((at, behind.starts_with(b"--")));
        }
        longest
    }

    /// `line`, the beginning of a delimiter line at `position`, is read.
    fn at_delimiter(&mut self, (boundary, closes): (usize, bool), line: &[u8]) {
        let parent = self.boundaries[boundary].part;
        if !closes && self.parts.len() >= PARTS_MAX {
            self.stop_looking();
        } else {
            // The line end before a delimiter belongs to it. Not that of a
            // header line, nor of another delimiter: so other servers cut a
            // multipart that ends where its parent goes on.
            let ending = match self.tail {
                _ if self.position.octets == self.owned_end => 0,
                [b'\r', b'\n'] if self.position.octets > 1 => 2,
                [_, b'\n'] => 1,
                _ => 0,
            };
            let end = Position {
                octets: self.position.octets - ending,
                lines: self.position.lines - u64::from(ending > 0),
            };
            let depth = self
                .open
                .iter()
                .position(|(part, _)| *part == parent)
                .map_or(self.open.len(), |at| at + 1);
            self.close_down_to(depth, end);
            // In the epilogue its own boundary means nothing.
            self.boundaries.truncate(boundary + usize::from(!closes));
            self.at = At::Delimiter {
                parent,
                opens: !closes,
            };
        }
        self.push(line);
    }

    /// There is no room for more parts: the last one is opaque and, with all
    /// that are open, takes the rest of the blob.
    fn stop_looking(&mut self) {
        let last = self.parts.len() - 1;
        if self.open.last().is_some_and(|(part, _)| *part == last) {
            let part = &mut self.parts[last];
            part.kind = Kind::Leaf;
            part.opaque = true;
            part.strings = Strings::default();
        }
        self.boundaries.clear();
        self.at = At::Body;
    }

    fn in_delimiter(&mut self, octets: &[u8], parent: usize, opens: bool) -> usize {
        let line = memchr(b'\n', octets);
        let read = line.map_or(octets.len(), |end| end + 1);
        self.advance(&octets[..read]);
        if line.is_some() {
            self.owned_end = self.position.octets;
            if opens {
                self.open_part(Some(parent));
            } else {
                self.at = At::Candidate;
            }
        }
        read
    }

    // Parts.

    /// A part begins at `position`, header first.
    fn open_part(&mut self, parent: Option<usize>) {
        self.parts.push(FoundPart {
            kind: Kind::Leaf,
            opaque: false,
            parent,
            header_start: self.position.octets,
            body_start: self.position.octets,
            end: self.position.octets,
            lines: 0,
            strings: Strings::default(),
        });
        self.open.push((self.parts.len() - 1, self.position));
        self.at = At::Header;
    }

    /// Ends all open parts but the outermost `depth` at `end`. Headers are
    /// whole: where one runs into `end`, the part ends behind it.
    fn close_down_to(&mut self, depth: usize, end: Position) {
        let mut outer_end = u64::MAX;
        for (at, body) in self.open.drain(depth..) {
            let part = &mut self.parts[at];
            part.end = end.octets.max(part.body_start).min(outer_end);
            part.header_start = part.header_start.min(part.end);
            part.body_start = part.body_start.min(part.end);
            part.lines = if part.end > part.body_start {
                end.lines - body.lines
            } else {
                0
            };
            outer_end = part.end;
        }
    }

    /// Accounts for octets.
    fn advance(&mut self, octets: &[u8]) {
        self.position.octets += octets.len() as u64;
        self.position.lines += memchr_iter(b'\n', octets).count() as u64;
        match octets {
            [.., one, two] => self.tail = [*one, *two],
            [one] => self.tail = [self.tail[1], *one],
            [] => {}
        }
    }
}

/// As much of a line as decides whether it is a delimiter: dashes, the longest
/// boundary, closing dashes, some white space and the line end. Of white space
/// beyond that the boundary is a mere prefix, which is enough.
const CANDIDATE_MAX_OCTETS: usize = BOUNDARY_MAX_OCTETS + 26;
