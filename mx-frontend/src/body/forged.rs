//! Takes out of a message's header by which somebody else claims to be us: Authentication-Results with our own name. Who
//! reads the message believes those. RFC 8601 §5.
//!
//! ```text
//!  LineStart ──letter──▶ Name ──another name──▶ Within ──line's end──▶ LineStart
//!      │                  └──the name──▶ Claim ──line's end──▶ ClaimEnd ──no white space──▶ LineStart
//!      └──empty line──▶ Body
//! ```
//! A field is withheld until it is known whose it is, and no longer than [`CLAIM_MAX`]; everything else passes as it comes.

use bytes::BytesMut;
use memchr::memchr;

/// One header under way.
#[derive(Debug)]
pub(super) struct Forged {
    ours: Box<str>,
    state: State,
    /// What is withheld.
    held: Vec<u8>,
    has_removed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A continuation line shares the fate of the line before it.
    LineStart {
        is_forged: bool,
    },
    Name,
    Within {
        is_forged: bool,
    },
    Claim,
    ClaimEnd,
    Body,
}

impl Forged {
    pub(super) fn new(ours: &str) -> Self {
        Self {
            ours: ours.into(),
            state: State::LineStart { is_forged: false },
            held: Vec::new(),
            has_removed: false,
        }
    }

    /// Whether something was taken out.
    pub(super) fn has_removed(&self) -> bool {
        self.has_removed
    }

    /// Whether the header is over, so that nothing more will be.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Body
    }

    /// Passes on what is nobody's claim to be us.
    pub(super) fn take(&mut self, mut octets: &[u8], out: &mut BytesMut) {
        while let Some(&first) = octets.first() {
            match self.state {
                State::Body => {
                    out.extend_from_slice(octets);
                    return;
                }
                State::LineStart { is_forged } => {
                    self.state = match first {
                        b' ' | b'\t' => State::Within { is_forged },
                        _ => State::Name,
                    };
                }
                State::Within { is_forged } => {
                    let (line, is_whole) = up_to_line_end(&mut octets, usize::MAX);
                    if !is_forged {
                        out.extend_from_slice(line);
                    }
                    if is_whole {
                        self.state = State::LineStart { is_forged };
                    }
                }
                State::Name => {
                    self.held.push(first);
                    octets = &octets[1..];
                    if let Some(state) = self.name() {
                        if state == (State::Within { is_forged: true }) {
                            self.has_removed = true;
                            self.held.clear();
                        } else if state != State::Claim {
                            out.extend_from_slice(&self.held);
                            self.held.clear();
                        }
                        self.state = state;
                    }
                }
                State::Claim => {
                    let room = CLAIM_MAX.saturating_sub(self.held.len());
                    let (line, is_whole) = up_to_line_end(&mut octets, room);
                    self.held.extend_from_slice(line);
                    if is_whole {
                        self.state = State::ClaimEnd;
                    } else if self.held.len() >= CLAIM_MAX {
                        let is_forged = self.decide(out, true);
                        self.state = State::Within { is_forged };
                    }
                }
                State::ClaimEnd if first == b' ' || first == b'\t' => self.state = State::Claim,
                State::ClaimEnd => {
                    let is_forged = self.decide(out, false);
                    self.state = State::LineStart { is_forged };
                }
            }
        }
    }

    /// The message is over.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        match self.state {
            State::Claim | State::ClaimEnd => _ = self.decide(out, false),
            _ => out.extend_from_slice(&self.held),
        }
        self.held.clear();
    }

    /// What the beginning of a line is, once that is known.
    fn name(&self) -> Option<State> {
        let (name, behind) = match self.held.split_at_checked(NAME.len()) {
            Some(parts) => parts,
            None => (self.held.as_slice(), [].as_slice()),
        };
        if self.held == b"\r" {
            return None;
        }
        if self.held == b"\r\n" {
            return Some(State::Body);
        }
        let is_so_far = name.eq_ignore_ascii_case(&NAME[..name.len()]);
        // White space before the colon is an old form that programs still read. RFC 5322 §4.5.
        match behind {
            [] if is_so_far => None,
            [white @ .., b' ' | b'\t'] if is_so_far && white.len() < WHITE_MAX => None,
            // Nobody writes so many but to hide what comes.
            [.., b' ' | b'\t']
                if is_so_far && behind.iter().all(|octet| b" \t".contains(octet)) =>
            {
                Some(State::Within { is_forged: true })
            }
            [.., b':'] if is_so_far => Some(State::Claim),
            [.., b'\n'] => Some(State::LineStart { is_forged: false }),
            _ if self.held.ends_with(b"\n") => Some(State::LineStart { is_forged: false }),
            _ => Some(State::Within { is_forged: false }),
        }
    }

    /// Passes on or drops the field that is withheld, all of it or what there is room for (`is_cut`).
    fn decide(&mut self, out: &mut BytesMut, is_cut: bool) -> bool {
        let colon = memchr(b':', &self.held).unwrap_or(0);
        let is_forged = is_of(&self.held[colon + 1..], &self.ours, is_cut);
        if is_forged {
            self.has_removed = true;
        } else {
            out.extend_from_slice(&self.held);
        }
        self.held = Vec::new();
        is_forged
    }
}

/// Takes what is of this line, at most so much, and says whether its end is among it.
fn up_to_line_end<'a>(octets: &mut &'a [u8], room: usize) -> (&'a [u8], bool) {
    let end = memchr(b'\n', octets).map(|at| at + 1);
    let count = end.unwrap_or(octets.len()).min(room);
    let (line, rest) = octets.split_at(count);
    *octets = rest;
    (line, end == Some(count))
}

/// Whether a field's value begins with this name. One that does not say whose it is in the room it has is nobody's, and goes.
fn is_of(value: &[u8], ours: &str, is_cut: bool) -> bool {
    let Some(rest) = skip_comments(value).filter(|rest| !is_cut || !rest.is_empty()) else {
        return true;
    };
    let name: Vec<u8> = if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut name = Vec::new();
        let mut octets = quoted.iter();
        loop {
            match octets.next() {
                Some(b'\\') => name.extend(octets.next()),
                Some(b'"') => break,
                Some(octet) => name.push(*octet),
                None => return true,
            }
        }
        name
    } else {
        let is_end = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(');
        let end = rest.iter().position(is_end);
        if is_cut && end.is_none() {
            return true;
        }
        rest[..end.unwrap_or(rest.len())].to_vec()
    };
    let name = name.strip_suffix(b".").unwrap_or(&name);
    name.eq_ignore_ascii_case(ours.as_bytes())
}

/// What stands behind white space and comments; none when they do not end. RFC 5322 §3.2.2.
fn skip_comments(mut value: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    loop {
        let Some((&first, rest)) = value.split_first() else {
            // An empty value names nobody.
            return (depth == 0).then_some(value);
        };
        value = match first {
            b'(' => {
                depth += 1;
                rest
            }
            b')' if depth > 0 => {
                depth -= 1;
                rest
            }
            b'\\' if depth > 0 => rest.get(1..).unwrap_or_default(),
            b' ' | b'\t' | b'\r' | b'\n' => rest,
            _ if depth > 0 => rest,
            _ => return Some(value),
        };
    }
}

const NAME: &[u8] = b"authentication-results";
/// White space between the name and its colon.
const WHITE_MAX: usize = 64;
/// What is withheld of one field. The name of a server is at most 255 octets long (RFC 5321 §4.5.3.1.2); all else before it
/// is comment.
const CLAIM_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes, whole and octet by octet.
    fn passed(message: &str) -> String {
        let mut forms = [message.len().max(1), 1, 3].map(|size| {
            let (mut forged, mut out) = (Forged::new("mx.test"), BytesMut::new());
            for piece in message.as_bytes().chunks(size) {
                forged.take(piece, &mut out);
            }
            forged.finish(&mut out);
            assert_eq!(forged.has_removed(), out.len() < message.len());
            String::from_utf8(out.to_vec()).unwrap()
        });
        assert!(forms.iter().all(|one| *one == forms[0]), "{forms:?}");
        std::mem::take(&mut forms[0])
    }

    #[test]
    fn what_claims_to_be_ours_goes_and_nothing_else_does() {
        let long = format!(
            "Authentication-Results: ({}) mx.test; a=b\r\n",
            "x".repeat(5000)
        );
        for forged in [
            "Authentication-Results: mx.test; spf=pass\r\n",
            "Authentication-Results:mx.test\r\n",
            "AUTHENTICATION-results \t: MX.TEST 1; spf=pass\r\n",
            "Authentication-Results:\r\n (a (b\\) c)) mx.test\r\n\t; dkim=pass\r\n\tx=y\r\n",
            "Authentication-Results: \"mx.\\test\"; spf=pass\r\n",
            "Authentication-Results: mx.test.; spf=pass\r\n",
            "Authentication-Results: mx.test(x); spf=pass\r\n",
            "Authentication-Results: (endless\r\n",
            &long,
        ] {
            let message = format!("From: a\r\n{forged}To: b\r\n\r\nbody\r\n{forged}");
            let expected = format!("From: a\r\nTo: b\r\n\r\nbody\r\n{forged}");
            assert_eq!(passed(&message), expected, "{forged}");
            assert_eq!(passed(forged), "", "{forged}");
            assert_eq!(passed(&forged.repeat(3)), "", "{forged}");
        }
        for others in [
            "Authentication-Results: mx.other.test; spf=pass\r\n",
            "Authentication-Results: smx.test; spf=pass\r\n",
            "Authentication-Results: mx.test.other.test; spf=pass (mx.test)\r\n",
            "Authentication-Results:\r\n",
            "Authentication-Results\r\n",
            "Authentication-Results-Of: mx.test\r\n",
            "X-Authentication-Results: mx.test\r\n",
            "ARC-Authentication-Results: i=1; mx.test\r\n",
            "Subject: x\r\n Authentication-Results: mx.test\r\n",
            "\tAuthentication-Results: mx.test\r\n",
            "Auth\r\n",
            "A",
            "\r",
            "",
        ] {
            assert_eq!(passed(others), others);
            let message = format!("From: a\r\n{others}");
            assert_eq!(passed(&message), message);
        }
    }

    #[test]
    fn little_is_withheld_however_long_a_field_is() {
        let (mut forged, mut out) = (Forged::new("mx.test"), BytesMut::new());
        forged.take(b"Authentication-Results: other.test; x=", &mut out);
        for _ in 0..1000 {
            forged.take(&[b'y'; 1000], &mut out);
            assert!(forged.held.len() <= CLAIM_MAX);
        }
        assert_eq!(out.len(), 38 + 1_000_000);
        forged.take(b"\r\nAuthentication-Results", &mut out);
        forged.take(&[b' '; 1000], &mut out);
        assert!(forged.held.len() <= NAME.len() + WHITE_MAX + 1);
        assert!(!forged.is_over());
        forged.take(b"\r\n\r\n", &mut out);
        assert!(forged.is_over() && forged.has_removed());
    }

    #[test]
    fn nothing_that_stands_before_the_name_hides_it() {
        let name = "Authentication-Results";
        for padding in [" ", "()", "\r\n "] {
            for count in (CLAIM_MAX - 100) / padding.len()..(CLAIM_MAX + 100) / padding.len() {
                let forged = format!("{name}:{}mx.test; spf=pass\r\n", padding.repeat(count));
                assert_eq!(passed(&forged), "", "{count} times {padding:?}");
            }
        }
        for count in [0, 1, WHITE_MAX - 1, WHITE_MAX, WHITE_MAX + 1, 500] {
            let forged = format!(
                "{name}{}: mx.test; spf=pass\r\n a=b\r\n",
                "\t".repeat(count)
            );
            let message = format!("From: a\r\n{forged}To: b\r\n\r\nbody");
            assert_eq!(passed(&message), "From: a\r\nTo: b\r\n\r\nbody", "{count}");
        }
    }
}
