//! The text of HTML: tags, comments, scripts and styles left out, character references resolved.
//!
//! A tokenizer and nothing more, one step a character, with a few octets of state, however broken the page is.

use encoding_rs::WINDOWS_1252;

/// Where in the page it is.
#[derive(Debug, Default)]
pub(super) struct Html {
    state: State,
    /// The name of the tag or character reference at hand.
    name: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind `<`.
    Open,
    /// In a tag's name.
    Name { closes: bool },
    /// Behind a tag's name, perhaps in an attribute's quotes.
    Attributes {
        quote: Option<char>,
        /// The last character that was no white space was `=`.
        behind_equals: bool,
    },
    /// `<!…>` or `<?…>`; how many dashes it began with.
    Markup { dashes: u8 },
    /// `<!--`, and how many dashes in a row are behind it.
    Comment { dashes: u8 },
    /// Behind `&`.
    Reference,
    /// In a script or style: how much of its end tag is there.
    Raw { end: &'static str, matched: usize },
}

impl Html {
    /// Appends the text of the next piece.
    pub(super) fn push(&mut self, html: &str, out: &mut String) {
        for c in html.chars() {
            self.step(c, out);
        }
    }

    /// Appends what the end leaves.
    pub(super) fn finish(&mut self, out: &mut String) {
        match self.state {
            State::Reference => self.end_reference(out),
            State::Open => out.push('<'),
            _ => {}
        }
        self.state = State::Text;
    }

    fn step(&mut self, c: char, out: &mut String) {
        match self.state {
            State::Text => match c {
                '<' => self.state = State::Open,
                '&' => {
                    self.name.clear();
                    self.state = State::Reference;
                }
                c => out.push(c),
            },
            State::Open => match c {
                '/' => self.begin_name(true),
                '!' | '?' => self.state = State::Markup { dashes: 0 },
                c if c.is_ascii_alphabetic() => {
                    self.begin_name(false);
                    self.name.push(c.to_ascii_lowercase());
                }
                c => {
                    // `a < b`: no tag.
                    out.push('<');
                    self.state = State::Text;
                    self.step(c, out);
                }
            },
            State::Name { closes } => match c {
                '>' => self.end_tag(closes, out),
                c if c.is_ascii_alphanumeric() => {
                    if self.name.len() < NAME_MAX {
                        self.name.push(c.to_ascii_lowercase());
                    }
                }
                _ => {
                    if closes {
                        self.name.insert(0, '/');
                    }
                    self.state = State::Attributes {
                        quote: None,
                        behind_equals: false,
                    };
                }
            },
            State::Attributes {
                quote: Some(quote), ..
            } => {
                if c == quote {
                    self.state = State::Attributes {
                        quote: None,
                        behind_equals: false,
                    };
                }
            }
            State::Attributes {
                quote: None,
                behind_equals,
            } => match c {
                '>' => {
                    let closes = self.name.starts_with('/');
                    if closes {
                        self.name.remove(0);
                    }
                    self.end_tag(closes, out);
                }
                '"' | '\'' if behind_equals => {
                    self.state = State::Attributes {
                        quote: Some(c),
                        behind_equals: false,
                    };
                }
                c if c.is_whitespace() => {}
                c => {
                    self.state = State::Attributes {
                        quote: None,
                        behind_equals: c == '=',
                    };
                }
            },
            State::Markup { dashes } => match c {
                '-' if dashes == 1 => self.state = State::Comment { dashes: 2 },
                '-' if dashes == 0 => self.state = State::Markup { dashes: 1 },
                '>' => self.state = State::Text,
                // A dash later on begins nothing.
                _ => self.state = State::Markup { dashes: 2 },
            },
            State::Comment { dashes } => match c {
                '-' => {
                    self.state = State::Comment {
                        dashes: dashes.saturating_add(1).min(2),
                    };
                }
                '>' if dashes >= 2 => self.state = State::Text,
                _ => self.state = State::Comment { dashes: 0 },
            },
            State::Reference => {
                let goes_on = c.is_ascii_alphanumeric() || (c == '#' && self.name.is_empty());
                if goes_on && self.name.len() < NAME_MAX {
                    self.name.push(c);
                    return;
                }
                self.end_reference(out);
                self.state = State::Text;
                if c != ';' {
                    self.step(c, out);
                }
            }
            State::Raw { end, matched } => {
                let matches = end.as_bytes().get(matched) == Some(&(c.to_ascii_lowercase() as u8));
                let matched = match (matches && c.is_ascii(), c) {
                    (true, _) => matched + 1,
                    (false, '<') => 1,
                    (false, _) => 0,
                };
                self.state = match matched == end.len() {
                    true => {
                        self.name.clear();
                        State::Attributes {
                            quote: None,
                            behind_equals: false,
                        }
                    }
                    false => State::Raw { end, matched },
                };
            }
        }
    }

    fn begin_name(&mut self, closes: bool) {
        self.name.clear();
        self.state = State::Name { closes };
    }

    fn end_tag(&mut self, closes: bool, out: &mut String) {
        // Words do not run together over a tag that begins something new.
        if !INLINE.contains(&self.name.as_str()) {
            out.push(' ');
        }
        let raw = RAW.iter().find(|(name, _)| *name == self.name);
        self.state = match raw {
            Some((_, end)) if !closes => State::Raw { end, matched: 0 },
            _ => State::Text,
        };
    }

    fn end_reference(&mut self, out: &mut String) {
        match character(&self.name) {
            Some(c) => out.push(c),
            None => {
                out.push('&');
                out.push_str(&self.name);
            }
        }
    }
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(number) => u32::from_str_radix(number, 16).ok()?,
            None => number.parse().ok()?,
        };
        return match u8::try_from(number) {
            // As every browser takes them.
            Ok(octet @ 0x80..=0x9f) => WINDOWS_1252
                .decode_without_bom_handling(&[octet])
                .0
                .chars()
                .next(),
            _ => char::from_u32(number),
        };
    }
    let latin = || {
        let at = LATIN_1.iter().position(|latin| *latin == name)?;
        char::from_u32(0xa0 + u32::try_from(at).ok()?)
    };
    let named = NAMED.iter().find(|(known, _)| *known == name);
    named.map(|(_, c)| *c).or_else(latin)
}

/// Tags within a word or line.
const INLINE: [&str; 30] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font",
    "i", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong",
    "sub", "sup", "u", "var", "wbr",
];
/// Elements whose content is no text.
const RAW: [(&str, &str); 2] = [("script", "</script"), ("style", "</style")];
/// Longer than any name here.
const NAME_MAX: usize = 16;
/// The names of HTML 4's special characters that mail has.
const NAMED: [(&str, char); 24] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("euro", '€'),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("sbquo", '‚'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("bdquo", '„'),
    ("lsaquo", '‹'),
    ("rsaquo", '›'),
    ("bull", '•'),
    ("hellip", '…'),
    ("trade", '™'),
    ("OElig", 'Œ'),
    ("oelig", 'œ'),
    ("Scaron", 'Š'),
    ("scaron", 'š'),
    ("Yuml", 'Ÿ'),
];
/// The names of U+00A0 to U+00FF, in order.
#[rustfmt::skip]
const LATIN_1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect",
    "uml", "copy", "ordf", "laquo", "not", "shy", "reg", "macr",
    "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para", "middot",
    "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest",
    "Agrave", "Aacute", "Acirc", "Atilde", "Auml", "Aring", "AElig", "Ccedil",
    "Egrave", "Eacute", "Ecirc", "Euml", "Igrave", "Iacute", "Icirc", "Iuml",
    "ETH", "Ntilde", "Ograve", "Oacute", "Ocirc", "Otilde", "Ouml", "times",
    "Oslash", "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN", "szlig",
    "agrave", "aacute", "acirc", "atilde", "auml", "aring", "aelig", "ccedil",
    "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc", "iuml",
    "eth", "ntilde", "ograve", "oacute", "ocirc", "otilde", "ouml", "divide",
    "oslash", "ugrave", "uacute", "ucirc", "uuml", "yacute", "thorn", "yuml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_is_text_however_it_is_cut() {
        for (html, text) in [
            ("<p>Gr&uuml;&#223;e</p><P>x", " Grüße  x"),
            ("be<b>ste</b>llt<br>neu", "bestellt neu"),
            (
                "a < b &amp; c &unknown; d &#8364;&#x80;",
                "a < b & c &unknown d €€",
            ),
            ("<a title='>' href=\"x>y\" b>in</a>", "in"),
            (
                "<!-- a -- > <b> -->x<!doctype html>y<?pi?>z<!-->w-->",
                "xyzw-->",
            ),
            (
                "<style>p{}</p></STYLE >a<script>if(a<b)\"</scr\"</script>b",
                "  a  b",
            ),
            ("x<", "x<"),
            ("x&amp", "x&"),
            ("x<b", "x"),
        ] {
            for size in 1..=html.len() {
                let (mut page, mut out) = (Html::default(), String::new());
                let chars: Vec<char> = html.chars().collect();
                for piece in chars.chunks(size) {
                    page.push(&piece.iter().collect::<String>(), &mut out);
                }
                page.finish(&mut out);
                assert_eq!(out, text, "{html}");
            }
        }
    }
}
