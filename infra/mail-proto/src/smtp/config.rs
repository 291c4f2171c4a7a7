//! Settings of a server core.

use super::server::ErrorLimits;

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: LHLO, and one reply per recipient after the final dot.
    Lmtp,
}

/// Settings of a server core.
#[derive(Debug, Clone)]
pub struct Config {
    /// SMTP or LMTP.
    pub mode: Mode,
    /// Our name in greeting and EHLO reply.
    pub hostname: String,
    /// Largest message in octets, dots unstuffed. DESIGN §10: 50 MiB.
    pub size_max_bytes: u64,
    /// Recipients accepted per message. DESIGN §10: 1000, never under 100.
    pub recipients_max: usize,
    /// Longest command line without CRLF. DESIGN §13: 4,096.
    pub command_line_max_bytes: usize,
    /// Longest text line without CRLF. DESIGN §13: 998, to 64 KiB by setting.
    pub text_line_max_bytes: u64,
    /// Octets held at most, received but not yet used.
    pub input_max_bytes: usize,
    /// Whether STARTTLS is offered.
    pub starttls: bool,
    /// Whether TLS is active from the first octet.
    pub implicit_tls: bool,
    /// Whether the peer may tell by XCLIENT whom it speaks for.
    pub xclient: bool,
    /// How many mistakes are borne.
    pub errors: ErrorLimits,
}

impl Config {
    /// The defaults of DESIGN §10 and §13.
    pub fn new(mode: Mode, hostname: impl Into<String>) -> Self {
        Self {
            mode,
            hostname: hostname.into(),
            size_max_bytes: 50 * 1024 * 1024,
            recipients_max: 1000,
            command_line_max_bytes: 4096,
            text_line_max_bytes: 998,
            input_max_bytes: 64 * 1024,
            starttls: false,
            implicit_tls: false,
            xclient: false,
            errors: ErrorLimits::default(),
        }
    }
}
