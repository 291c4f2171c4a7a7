//! Tells the verbs apart. Their arguments are read in the file of each verb.

/// A command line, split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) verb: Verb,
    /// What follows the verb and its space, trailing white space gone.
    pub(super) arguments: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Helo,
    Ehlo,
    Lhlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Quit,
    StartTls,
    Auth,
    XClient,
    /// A verb of some RFC that this server does not have.
    Unsupported,
    /// No verb at all.
    Unknown,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandFault {
    /// NUL or another control.
    Control,
    /// Not UTF-8.
    NotUtf8,
}

impl<'a> Command<'a> {
    /// Splits a line without its CRLF.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, CommandFault> {
        // A tab is the only control that clients are known to send for a space.
        if line
            .iter()
            .any(|octet| octet.is_ascii_control() && *octet != b'\t')
        {
            return Err(CommandFault::Control);
        }
        let line = std::str::from_utf8(line).map_err(|_| CommandFault::NotUtf8)?;
        let end = line.find([' ', '\t']).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let known = VERBS
            .iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name));
        Ok(Self {
            verb: known.map_or(Verb::Unknown, |(_, verb)| *verb),
            arguments: rest.trim_matches([' ', '\t']),
        })
    }
}

const VERBS: &[(&str, Verb)] = &[
    ("RCPT", Verb::Rcpt),
    ("MAIL", Verb::Mail),
    ("DATA", Verb::Data),
    ("BDAT", Verb::Bdat),
    ("EHLO", Verb::Ehlo),
    ("HELO", Verb::Helo),
    ("LHLO", Verb::Lhlo),
    ("RSET", Verb::Rset),
    ("NOOP", Verb::Noop),
    ("QUIT", Verb::Quit),
    ("VRFY", Verb::Vrfy),
    ("STARTTLS", Verb::StartTls),
    ("HELP", Verb::Unsupported),
    ("EXPN", Verb::Unsupported),
    ("AUTH", Verb::Auth),
    ("XCLIENT", Verb::XClient),
    ("ETRN", Verb::Unsupported),
    ("TURN", Verb::Unsupported),
    ("SEND", Verb::Unsupported),
    ("SOML", Verb::Unsupported),
    ("SAML", Verb::Unsupported),
];
