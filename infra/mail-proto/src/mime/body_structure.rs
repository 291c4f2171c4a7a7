//! BODY and BODYSTRUCTURE. RFC 9051 §7.5.2.

use super::string::Dialect;
use super::structure::{Kind, Pairs, Part, Structure};
use crate::output::number;

/// Which of the two FETCH items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// `BODY`: without extension data.
    Body,
    /// `BODYSTRUCTURE`: with it.
    BodyStructure,
}

/// Appends the value of BODY or BODYSTRUCTURE, ready to send. It is valid
/// grammar whatever the mail holds, and every part it names can be fetched
/// with the octets and lines it announces.
pub fn write_body_structure<B: AsRef<[u8]>>(
    structure: &Structure<B>,
    form: BodyForm,
    dialect: Dialect,
    out: &mut Vec<u8>,
) {
    Writer { form, dialect, out }.part(&structure.root());
}

struct Writer<'a> {
    form: BodyForm,
    dialect: Dialect,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Recursion is bounded by `DEPTH_MAX`.
    fn part(&mut self, part: &Part<'_>) {
        self.out.push(b'(');
        match part.kind() {
            Kind::Multipart => self.multipart(part),
            Kind::Message => self.message(part),
            Kind::Leaf => self.leaf(part),
        }
        self.out.push(b')');
    }

    fn multipart(&mut self, part: &Part<'_>) {
        let start = self.out.len();
        part.children().for_each(|child| self.part(&child));
        if self.out.len() == start {
            // The grammar wants a part: an empty one, which can be fetched.
            self.out.extend_from_slice(EMPTY_PART);
            if self.form == BodyForm::BodyStructure {
                self.out.extend_from_slice(b" NIL NIL NIL NIL");
            }
            self.out.push(b')');
        }
        self.space();
        self.string(part.media_type().1);
        if self.form == BodyForm::BodyStructure {
            self.space();
            self.pairs(part.parameters());
            self.extension(part);
        }
    }

    fn message(&mut self, part: &Part<'_>) {
        self.basic(part);
        // RFC 3501 has message/global as any other type; RFC 9051 shows its
        // inside.
        let shown =
            self.dialect == Dialect::Utf8 || part.media_type().1.eq_ignore_ascii_case(b"rfc822");
        if let Some(message) = part.children().next().filter(|_| shown) {
            self.space();
            message.envelope().write(self.dialect, self.out);
            self.space();
            self.part(&message);
            self.space();
            number(self.out, part.lines());
        }
        self.leaf_extension(part);
    }

    fn leaf(&mut self, part: &Part<'_>) {
        self.basic(part);
        if part.media_type().0.eq_ignore_ascii_case(b"text") {
            self.space();
            number(self.out, part.lines());
        }
        self.leaf_extension(part);
    }

    /// Type, subtype and the `body-fields`.
    fn basic(&mut self, part: &Part<'_>) {
        let (main, sub) = part.media_type();
        self.string(main);
        self.space();
        self.string(sub);
        self.space();
        self.pairs(part.parameters());
        for value in [part.id(), part.description()] {
            self.space();
            self.dialect.nstring(value, self.out);
        }
        self.space();
        self.string(part.encoding());
        self.space();
        let body = part.body();
        number(self.out, body.end - body.start);
    }

    fn leaf_extension(&mut self, part: &Part<'_>) {
        if self.form == BodyForm::BodyStructure {
            self.space();
            self.dialect.nstring(part.md5(), self.out);
            self.extension(part);
        }
    }

    /// Disposition, language, location.
    fn extension(&mut self, part: &Part<'_>) {
        self.space();
        match part.disposition() {
            Some(disposition) => {
                self.out.push(b'(');
                self.string(disposition);
                self.space();
                self.pairs(part.disposition_parameters());
                self.out.push(b')');
            }
            None => self.nil(),
        }
        self.space();
        let mut languages = part.languages().peekable();
        if languages.peek().is_none() {
            self.nil();
        } else {
            self.list(languages);
        }
        self.space();
        self.dialect.nstring(part.location(), self.out);
    }

    fn pairs(&mut self, mut pairs: Pairs<'_>) {
        match pairs.next() {
            None => self.nil(),
            Some((name, value)) => {
                let rest = pairs.flat_map(|(name, value)| [name, value]);
                self.list([name, value].into_iter().chain(rest));
            }
        }
    }

    fn list<'a>(&mut self, strings: impl Iterator<Item = &'a [u8]>) {
        self.out.push(b'(');
        for (at, string) in strings.enumerate() {
            if at > 0 {
                self.space();
            }
            self.string(string);
        }
        self.out.push(b')');
    }

    fn string(&mut self, value: &[u8]) {
        self.dialect.string(value, self.out);
    }

    fn nil(&mut self) {
        self.out.extend_from_slice(b"NIL");
    }

    fn space(&mut self) {
        self.out.push(b' ');
    }
}

const EMPTY_PART: &[u8] = b"(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0";

#[cfg(test)]
mod tests {
    use super::super::Scanner;
    use super::*;

    fn written(blob: &[u8], form: BodyForm, dialect: Dialect) -> String {
        let mut scanner = Scanner::new();
        scanner.push(blob);
        let mut out = Vec::new();
        write_body_structure(&scanner.finish().structure, form, dialect, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn each_kind_of_part_has_its_form() {
        use BodyForm::{Body, BodyStructure};
        let plain = r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 2 0"#;
        let nil = "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)";
        for (blob, form, expected) in [
            ("\nab", Body, format!("{plain})")),
            ("\nab", BodyStructure, format!("{plain} NIL NIL NIL NIL)")),
            (
                "Content-Type: Image/X; n=\"a\\\"b\"\nContent-ID: <i>\nContent-Description: d\n\
                 Content-Transfer-Encoding: BASE64 (x)\nContent-MD5: m\n\
                 Content-Disposition: inline; filename=f\nContent-Language: de, en\n\
                 Content-Location: a b\n\nx\n",
                BodyStructure,
                r#"("Image" "X" ("n" "a\"b") "<i>" "d" "BASE64" 2 "m" ("inline" ("filename" "f")) ("de" "en") "a b")"#
                    .to_owned(),
            ),
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nab\n--b--\n",
                BodyStructure,
                format!("({plain} NIL NIL NIL NIL) \"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"),
            ),
            (
                "Content-Type: multipart/mixed; boundary=b\n\nab",
                Body,
                r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")"#.to_owned(),
            ),
            ("Content-Type: multipart/mixed\n\nab", Body, format!("{plain})")),
            (
                "Content-Type: multipart/digest; boundary=b\n\n--b\n\n\nab",
                Body,
                format!("((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 3 {nil} {plain}) 1) \"digest\")"),
            ),
            (
                "Content-Type: message/global\n\n\nab",
                Body,
                r#"("message" "global" NIL NIL NIL "7bit" 3)"#.to_owned(),
            ),
            (
                "Content-Type: /;;;\nContent-Type: text/html\nContent-Type: text/plain\n\na\n",
                Body,
                r#"("text" "html" NIL NIL NIL "7bit" 2 1)"#.to_owned(),
            ),
        ] {
            assert_eq!(written(blob.as_bytes(), form, Dialect::Rev1), expected);
        }
        assert_eq!(
            written(b"Content-Type: message/global\n\n\nab", Body, Dialect::Utf8),
            format!("(\"message\" \"global\" NIL NIL NIL \"7bit\" 3 {nil} {plain}) 1)")
        );
    }
}
