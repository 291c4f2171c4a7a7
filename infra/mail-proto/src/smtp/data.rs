//! DATA: what may be said before and after the body. RFC 5321 §4.1.1.4.

use std::borrow::Cow;

use super::body::BodyFault;
use super::config::Mode;
use super::mail::TOO_LARGE;
use super::reply::Reply;

/// The reply to DATA when no recipient was accepted.
pub(super) fn no_recipients(mode: Mode) -> Reply {
    match mode {
        Mode::Smtp => Reply::new(554, (5, 5, 1), "no valid recipients"),
        // RFC 2033 §4.2 names this code.
        Mode::Lmtp => Reply::new(503, (5, 5, 1), "no valid recipients"),
    }
}

/// The reply to a body that was read to its end and refused.
pub(super) fn broken(fault: BodyFault) -> Reply {
    match fault {
        BodyFault::BareCr => Reply::new(
            550,
            (5, 5, 2),
            "bare CR in the message: lines end with CRLF",
        ),
        BodyFault::BareLf => Reply::new(
            550,
            (5, 5, 2),
            "bare LF in the message: lines end with CRLF",
        ),
        // RFC 5321 §4.5.3.1.10.
        BodyFault::LineTooLong => Reply::new(500, (5, 5, 2), "a line of the message is too long"),
        BodyFault::TooLarge => TOO_LARGE,
    }
}

/// The go-ahead.
pub(super) const START: Reply =
    Reply::plain(354, Cow::Borrowed("end the message with <CRLF>.<CRLF>"));
