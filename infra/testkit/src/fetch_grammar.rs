//! A strict reader of what RFC 3501 §9 and RFC 9051 §9 let a server send as ENVELOPE, BODY and BODYSTRUCTURE. It shares
//! nothing with the writers.

/// A part as a client learns of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Its number: `[2, 1]` for `BODY[2.1]`.
    pub path: Vec<u32>,
    /// Its transfer encoding as announced.
    pub encoding: Vec<u8>,
    /// Its size in octets.
    pub octets: u64,
    /// Its lines, where the grammar has them.
    pub lines: Option<u64>,
    /// Whether it holds a message: it has a HEADER and a TEXT.
    pub is_message: bool,
}

/// Which grammar is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grammar {
    /// BODYSTRUCTURE, with its extension data, rather than BODY.
    pub is_extended: bool,
    /// With UTF8=ACCEPT or IMAP4rev2: UTF-8 in quoted strings, and the inside of message/global.
    pub is_utf8: bool,
}

impl Grammar {
    /// Reads the value of BODY or BODYSTRUCTURE: the parts that have a number, those inside before the one that holds
    /// them. `None` if it is no valid one.
    #[must_use]
    pub fn body(self, wire: &[u8]) -> Option<Vec<Announced>> {
        let mut reader = self.reader(wire);
        reader.message_body(&[])?;
        reader.rest.is_empty().then_some(reader.announced)
    }

    /// Whether this is a valid value of ENVELOPE.
    #[must_use]
    pub fn is_envelope(self, wire: &[u8]) -> bool {
        let mut reader = self.reader(wire);
        reader.envelope().is_some() && reader.rest.is_empty()
    }

    fn reader(self, wire: &[u8]) -> Reader<'_> {
        Reader {
            rest: wire,
            grammar: self,
            announced: Vec::new(),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    grammar: Grammar,
    announced: Vec<Announced>,
}

impl Reader<'_> {
    fn eat(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text.as_bytes())?;
        Some(())
    }

    fn sees(&self, text: &str) -> bool {
        self.rest.starts_with(text.as_bytes())
    }

    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let length = self.rest.iter().take_while(|o| o.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        if self.sees("{") {
            self.eat("{")?;
            let length = self.number()? as usize;
            self.eat("}\r\n")?;
            let (octets, rest) = self.rest.split_at_checked(length)?;
            self.rest = rest;
            return (!octets.contains(&0)).then(|| octets.to_vec());
        }
        self.eat("\"")?;
        loop {
            match self.octet()? {
                b'"' => break,
                b'\\' => match self.octet()? {
                    escaped @ (b'"' | b'\\') => text.push(escaped),
                    _ => return None,
                },
                0 | b'\r' | b'\n' => return None,
                128.. if !self.grammar.is_utf8 => return None,
                octet => text.push(octet),
            }
        }
        std::str::from_utf8(&text).is_ok().then_some(text)
    }

    fn nstring(&mut self) -> Option<Option<Vec<u8>>> {
        if self.sees("NIL") {
            self.eat("NIL")?;
            return Some(None);
        }
        Some(Some(self.string()?))
    }

    /// `body-fld-param` and `body-fld-lang` in parentheses.
    fn strings(&mut self, by: usize) -> Option<()> {
        if self.sees("NIL") {
            return self.eat("NIL");
        }
        self.eat("(")?;
        let mut count = 1;
        self.string()?;
        while self.sees(" ") {
            self.eat(" ")?;
            self.string()?;
            count += 1;
        }
        self.eat(")")?;
        (count % by == 0).then_some(())
    }

    fn envelope(&mut self) -> Option<()> {
        self.eat("(")?;
        for at in 0..10 {
            if at > 0 {
                self.eat(" ")?;
            }
            if (2..=7).contains(&at) {
                self.addresses()?;
            } else {
                self.nstring()?;
            }
        }
        self.eat(")")
    }

    fn addresses(&mut self) -> Option<()> {
        if self.sees("NIL") {
            return self.eat("NIL");
        }
        self.eat("(")?;
        let mut in_group = false;
        let mut count = 0;
        while !self.sees(")") {
            self.eat("(")?;
            self.nstring()?;
            self.eat(" ")?;
            self.nstring()?;
            self.eat(" ")?;
            let local = self.nstring()?;
            self.eat(" ")?;
            let domain = self.nstring()?;
            self.eat(")")?;
            count += 1;
            // Groups begin, end, and do not nest.
            if domain.is_none() {
                if local.is_some() == in_group {
                    return None;
                }
                in_group = !in_group;
            } else {
                local?;
            }
        }
        self.eat(")")?;
        (count > 0 && !in_group).then_some(())
    }

    /// The body of a message: if it is no multipart, its part 1.
    fn message_body(&mut self, path: &[u32]) -> Option<()> {
        if self.sees("((") {
            self.body(path)
        } else {
            self.body(&[path, &[1]].concat())
        }
    }

    fn body(&mut self, path: &[u32]) -> Option<()> {
        self.eat("(")?;
        if self.sees("(") {
            let mut number = 0;
            while self.sees("(") {
                number += 1;
                self.body(&[path, &[number]].concat())?;
            }
            self.eat(" ")?;
            self.string()?;
            if self.grammar.is_extended {
                self.eat(" ")?;
                self.strings(2)?;
                self.extension()?;
            }
            return self.eat(")");
        }
        let main = self.string()?.to_ascii_lowercase();
        self.eat(" ")?;
        let sub = self.string()?.to_ascii_lowercase();
        if main.is_empty() || sub.is_empty() || main == b"multipart" {
            return None;
        }
        self.eat(" ")?;
        self.strings(2)?;
        for _ in 0..2 {
            self.eat(" ")?;
            self.nstring()?;
        }
        self.eat(" ")?;
        let encoding = self.string()?;
        self.eat(" ")?;
        let octets = self.number()?;
        let global = self.grammar.is_utf8 && sub == b"global";
        let mut lines = None;
        let is_message = main == b"message" && (sub == b"rfc822" || global);
        if is_message {
            self.eat(" ")?;
            self.envelope()?;
            self.eat(" ")?;
            self.message_body(path)?;
            self.eat(" ")?;
            lines = Some(self.number()?);
        } else if main == b"text" {
            self.eat(" ")?;
            lines = Some(self.number()?);
        }
        self.announced.push(Announced {
            path: path.to_vec(),
            encoding,
            octets,
            lines,
            is_message,
        });
        if self.grammar.is_extended {
            self.eat(" ")?;
            self.nstring()?;
            self.extension()?;
        }
        self.eat(")")
    }

    /// Disposition, language, location.
    fn extension(&mut self) -> Option<()> {
        self.eat(" ")?;
        if self.sees("NIL") {
            self.eat("NIL")?;
        } else {
            self.eat("(")?;
            self.string()?;
            self.eat(" ")?;
            self.strings(2)?;
            self.eat(")")?;
        }
        self.eat(" ")?;
        self.strings(1)?;
        self.eat(" ")?;
        self.nstring()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_is_strict() {
        let plain = r#"("text" "plain" NIL NIL NIL "7bit" 2 0 NIL NIL NIL NIL)"#;
        let grammar = Grammar {
            is_extended: true,
            is_utf8: false,
        };
        let reads = |wire: &str| grammar.body(wire.as_bytes()).is_some();
        assert!(reads(plain));
        for broken in [
            plain.replace("2 0", "2"),
            plain.replace("\"7bit\"", "NIL"),
            plain.replace("\"7bit\"", "\"é\""),
            plain.replace("\"plain\" NIL", "\"plain\" (\"a\")"),
            plain.replace("\"plain\" NIL", "\"plain\" ()"),
            plain.replace("text", "multipart"),
            plain.replace("text\"", "te\rt\""),
            format!("{plain} "),
            format!("({plain} \"mixed\" NIL NIL NIL)"),
        ] {
            assert!(!reads(&broken), "{broken}");
        }
        let nil = "NIL NIL NIL NIL";
        for (addresses, valid) in [
            ("NIL", true),
            ("()", false),
            ("((NIL NIL NIL NIL))", false),
            ("((NIL NIL \"g\" NIL))", false),
            ("((NIL NIL \"g\" NIL)(NIL NIL NIL NIL))", true),
            ("((NIL NIL NIL \"d\"))", false),
        ] {
            let wire = format!("(NIL NIL {nil} {addresses} NIL NIL NIL)");
            assert_eq!(grammar.is_envelope(wire.as_bytes()), valid, "{wire}");
        }
    }
}
