//! Reads the address lists of RFC 5322 §3.4, obsolete forms included, as IMAP
//! ENVELOPE shows them.

use super::token::{Lexer, Token};

/// One mailbox of an address list. Where a list is broken, parts of it are
/// missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, or a comment where there is none. Encoded words are
    /// kept as they are.
    pub name: Option<Vec<u8>>,
    /// The obsolete source route, such as `@a.test,@b.test`.
    pub route: Option<Vec<u8>>,
    /// The local part, unquoted.
    pub local: Option<Vec<u8>>,
    /// The domain or address literal.
    pub domain: Option<Vec<u8>>,
}

/// What an address list holds, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressEntry {
    /// A mailbox, inside or outside of a group.
    Mailbox(Mailbox),
    /// A group of this name begins.
    GroupStart(Vec<u8>),
    /// The group ends.
    GroupEnd,
}

/// Iterates the entries of an unfolded address list. Every group that starts
/// ends.
#[derive(Debug, Clone)]
pub struct Addresses<'a> {
    lexer: Lexer<'a>,
    in_group: bool,
}

impl<'a> Addresses<'a> {
    /// The entries of `value`.
    pub fn new(value: &'a [u8]) -> Self {
        Self {
            lexer: Lexer::new(value),
            in_group: false,
        }
    }

    /// Reads what stands between angle brackets; the `<` is read.
    fn angle(&mut self, name: Option<Vec<u8>>) -> Mailbox {
        let mut route = Vec::new();
        let mut words = Words::default();
        let mut domain = None;
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Special(b'>') => break,
                Token::Special(b';') if self.in_group => {
                    self.lexer.unread();
                    break;
                }
                // `<@a,@b:c@d>`: commas only separate within a route.
                Token::Special(b',') if !words.is_empty() || domain.is_some() => {
                    self.lexer.unread();
                    break;
                }
                Token::Special(b'@') if words.is_empty() => {
                    if let Some(hop) = self.domain() {
                        if !route.is_empty() {
                            route.push(b',');
                        }
                        route.push(b'@');
                        route.extend(hop);
                    }
                }
                Token::Special(b'@') => domain = domain.or(self.domain()),
                Token::Special(b',' | b'<') => {}
                Token::Special(b':') if words.is_empty() => {}
                token if domain.is_none() => words.push(&token, self.lexer.spaced()),
                _ => {}
            }
        }
        Mailbox {
            name,
            route: (!route.is_empty()).then_some(route),
            local: words.into_local(),
            domain,
        }
    }

    /// Reads a domain up to the special that ends it.
    fn domain(&mut self) -> Option<Vec<u8>> {
        let mut domain = Vec::new();
        while let Some(token) = self.lexer.next() {
            let text = match &token {
                Token::Special(b'.') => b".",
                Token::Special(_) => {
                    self.lexer.unread();
                    break;
                }
                Token::Atom(text) | Token::Literal(text) => *text,
                Token::Quoted(text) => text.as_ref(),
            };
            // Two words without a dot between them: the second is junk.
            if !(domain.is_empty() || domain.ends_with(b".") || text == b".") {
                break;
            }
            domain.extend_from_slice(text);
        }
        (!domain.is_empty()).then_some(domain)
    }

    /// Passes what follows a finished address: its comma, or up to the
    /// semicolon of its group.
    fn pass_comma(&mut self) {
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Special(b',') => break,
                Token::Special(b';') => {
                    self.lexer.unread();
                    break;
                }
                _ => {}
            }
        }
    }
}

impl Iterator for Addresses<'_> {
    type Item = AddressEntry;

    fn next(&mut self) -> Option<AddressEntry> {
        let mut words = Words::default();
        self.lexer.take_comment();
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Special(b',') if words.is_empty() => {
                    self.lexer.take_comment();
                }
                Token::Special(b';') if words.is_empty() => {
                    if std::mem::take(&mut self.in_group) {
                        return Some(AddressEntry::GroupEnd);
                    }
                }
                Token::Special(special @ (b',' | b';')) => {
                    if special == b';' {
                        self.lexer.unread();
                    }
                    return Some(AddressEntry::Mailbox(words.into_lone(&mut self.lexer)));
                }
                Token::Special(b'<') => {
                    let mailbox = self.angle(words.into_name());
                    self.pass_comma();
                    return Some(AddressEntry::Mailbox(mailbox));
                }
                Token::Special(b'@') => {
                    let local = words.into_local();
                    let domain = self.domain();
                    let mailbox = if self.lexer.next() == Some(Token::Special(b'<')) {
                        // `a@b.test <a@b.test>`: an address as display name.
                        let name = [
                            local.unwrap_or_default(),
                            b"@".to_vec(),
                            domain.unwrap_or_default(),
                        ];
                        self.angle(Some(name.concat()))
                    } else {
                        self.lexer.unread();
                        Mailbox {
                            name: None,
                            route: None,
                            local,
                            domain,
                        }
                    };
                    // The comment may stand behind: `a@b.test (Joe)`.
                    self.pass_comma();
                    let comment = self.lexer.take_comment();
                    return Some(AddressEntry::Mailbox(Mailbox {
                        name: mailbox.name.or(comment),
                        ..mailbox
                    }));
                }
                Token::Special(b':') if !self.in_group => {
                    self.in_group = true;
                    let name = words.into_name().unwrap_or_default();
                    return Some(AddressEntry::GroupStart(name));
                }
                Token::Special(b':' | b'>') => {}
                token => words.push(&token, self.lexer.spaced()),
            }
        }
        if !words.is_empty() {
            return Some(AddressEntry::Mailbox(words.into_lone(&mut self.lexer)));
        }
        std::mem::take(&mut self.in_group).then_some(AddressEntry::GroupEnd)
    }
}

/// Words before it is known whether they are a display name or a local part.
#[derive(Default)]
struct Words {
    text: Vec<u8>,
    count: usize,
    quoted: bool,
}

impl Words {
    fn push(&mut self, token: &Token<'_>, spaced: bool) {
        // White space between words is one space, as in a display name.
        if spaced && self.count > 0 {
            self.text.push(b' ');
        }
        self.count += 1;
        match token {
            Token::Atom(text) | Token::Literal(text) => self.text.extend_from_slice(text),
            Token::Quoted(text) => {
                self.quoted = true;
                self.text.extend_from_slice(text);
            }
            Token::Special(special) => self.text.push(*special),
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn into_name(self) -> Option<Vec<u8>> {
        (!self.text.is_empty()).then_some(self.text)
    }

    fn into_local(self) -> Option<Vec<u8>> {
        (self.count > 0).then_some(self.text)
    }

    /// Words without an address: one bare word is a local user, anything else
    /// a display name.
    fn into_lone(self, lexer: &mut Lexer<'_>) -> Mailbox {
        let is_name = self.quoted || self.text.contains(&b' ');
        let (name, local) = if is_name {
            (self.into_name(), None)
        } else {
            (lexer.take_comment(), self.into_local())
        };
        Mailbox {
            name,
            route: None,
            local,
            domain: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Vec<String> {
        let text = |part: Option<Vec<u8>>| {
            part.map_or_else(
                || "-".to_owned(),
                |part| String::from_utf8(part).expect("text"),
            )
        };
        Addresses::new(list.as_bytes())
            .map(|entry| match entry {
                AddressEntry::Mailbox(mailbox) => [
                    text(mailbox.name),
                    text(mailbox.route),
                    text(mailbox.local),
                    text(mailbox.domain),
                ]
                .join("|"),
                AddressEntry::GroupStart(name) => format!("{}:", text(Some(name))),
                AddressEntry::GroupEnd => ";".to_owned(),
            })
            .collect()
    }

    #[test]
    fn address_lists_are_read_however_broken() {
        for (list, entries) in [
            ("joe@example.test", vec!["-|-|joe|example.test"]),
            (
                "joe@example.test (Joe (jr))",
                vec!["Joe (jr)|-|joe|example.test"],
            ),
            (
                "Joe  Q. Public <joe@x.test>",
                vec!["Joe Q. Public|-|joe|x.test"],
            ),
            (
                "\"Public, Joe\" <\"j \\\" o\"@[192.0.2.1]>, b@x",
                vec!["Public, Joe|-|j \" o|[192.0.2.1]", "-|-|b|x"],
            ),
            (
                "<@a.test,@b.test:u@h.test>",
                vec!["-|@a.test,@b.test|u|h.test"],
            ),
            (
                "list: a@x, B <b@x>;, c@x",
                vec!["list:", "-|-|a|x", "B|-|b|x", ";", "-|-|c|x"],
            ),
            ("hidden:;", vec!["hidden:", ";"]),
            ("open: a@x", vec!["open:", "-|-|a|x", ";"]),
            (
                "x: a@x; y: <b@x>;",
                vec!["x:", "-|-|a|x", ";", "y:", "-|-|b|x", ";"],
            ),
            ("a@b.test <c@d.test>", vec!["a@b.test|-|c|d.test"]),
            ("root", vec!["-|-|root|-"]),
            (
                "Joe Public, \"no at\"",
                vec!["Joe Public|-|-|-", "no at|-|-|-"],
            ),
            ("<>, @, ,,", vec!["-|-|-|-", "-|-|-|-"]),
            ("(only a comment)", vec![]),
            (
                "a..b@c, d@e f@g, h . i @ j . k",
                vec!["-|-|a..b|c", "-|-|d|e", "-|-|h . i|j.k"],
            ),
            (
                "<undisclosed-recipients:;@x.test>, a@b",
                vec!["-|-|undisclosed-recipients:;|x.test", "-|-|a|b"],
            ),
            ("<a@b.test", vec!["-|-|a|b.test"]),
            ("<a@b, c@d", vec!["-|-|a|b", "-|-|c|d"]),
            ("; a@b:", vec!["-|-|a|b"]),
            ("a<b@c>x, d<e>", vec!["a|-|b|c", "d|-|e|-"]),
        ] {
            assert_eq!(read(list), entries, "{list}");
        }
    }
}
