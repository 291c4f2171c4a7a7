//! What the sender is told: one fixed text for each outcome. Causes go to the log only.

use mail_proto::smtp::Reply;

use crate::checks::{Check, Finding};
use crate::rates::{Event, TooOften};
use crate::settlement::{Kept, Short};

/// Why a recipient is refused at RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecipientRefusal {
    /// The domain is ours, the address is not there.
    UnknownUser,
    /// The domain is not ours.
    RelayDenied,
    /// No address the directory could know.
    BadAddress,
    /// The directory gave no answer (P6: never "no such user").
    DirectoryAway,
    /// The address of a home could not be found.
    BackendAway,
    /// The account lives on a foreign back-end, to which this front-end does not deliver.
    ForeignHome,
    /// It leads to addresses that are not ours, too.
    ExternalTarget,
    /// The address of the settings for postmaster is nobody's.
    PostmasterUnset,
    /// The transaction reaches as many accounts as it may.
    TooManyAccounts,
    /// Every account it leads to is full.
    OverQuota {
        /// By setting: 552 instead of 452.
        for_good: bool,
    },
}

impl RecipientRefusal {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::RelayDenied => "relay_denied",
            Self::BadAddress => "bad_address",
            Self::DirectoryAway => "directory_away",
            Self::BackendAway => "backend_away",
            Self::ForeignHome => "foreign_home",
            Self::ExternalTarget => "external_target",
            Self::PostmasterUnset => "postmaster_unset",
            Self::TooManyAccounts => "too_many_accounts",
            Self::OverQuota { .. } => "over_quota",
        }
    }

    /// The reply to RCPT. RFC 5321 §4.2.3, RFC 3463.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::UnknownUser => Reply::new(550, (5, 1, 1), "no such user here"),
            Self::RelayDenied => Reply::new(550, (5, 7, 1), "no relaying: the domain is not ours"),
            Self::BadAddress => Reply::new(553, (5, 1, 3), "not an address we could have"),
            Self::DirectoryAway => Reply::new(
                451,
                (4, 3, 0),
                "cannot look up recipients now, try again later",
            ),
            Self::BackendAway => Reply::new(
                451,
                (4, 3, 2),
                "recipient's store is not available now, try again later",
            ),
            // Temporary: the operator routes its mail to the other system, or brings the account here.
            Self::ForeignHome => Reply::new(
                451,
                (4, 3, 2),
                "recipient's mail is kept by another system, not reached from here, try again later",
            ),
            Self::ExternalTarget => Reply::new(
                451,
                (4, 3, 2),
                "recipient's mail goes to another system, not reached from here, try again later",
            ),
            // RFC 5321 §4.5.1 wants it accepted, always: a sender must not be told that there is none.
            Self::PostmasterUnset => {
                Reply::new(451, (4, 3, 5), "postmaster is not set up, try again later")
            }
            // RFC 5321 §4.5.3.1.10: the sender sends the rest in another transaction.
            Self::TooManyAccounts => {
                Reply::new(452, (4, 5, 3), "too many recipients in one transaction")
            }
            Self::OverQuota { for_good: true } => {
                Reply::new(552, (5, 2, 2), "recipient's mailbox is full")
            }
            Self::OverQuota { for_good: false } => Reply::new(
                452,
                (4, 2, 2),
                "recipient's mailbox is full, try again later",
            ),
        }
    }
}

/// The reply to the final dot when every recipient is durable. Demands the proof.
#[allow(clippy::needless_pass_by_value, reason = "a proof is used once")]
pub(crate) fn kept(_proof: Kept, trace_id: &str) -> Reply {
    Reply::with_text(250, (2, 0, 0), format!("kept, {trace_id}"))
}

/// The reply to DATA or the final dot when some recipient is not durable.
pub(crate) fn short(short: Short, trace_id: &str) -> Reply {
    let (code, enhanced, text) = match short {
        Short::Away | Short::Unavailable => {
            (451, (4, 3, 2), "a recipient's store is not available now")
        }
        Short::Unknown => (451, (4, 4, 2), "a recipient's store did not answer"),
        Short::Moved | Short::Frozen => (451, (4, 3, 2), "a recipient's mailbox is being moved"),
        Short::Full => (452, (4, 3, 1), "a recipient's store is full"),
        Short::Deadline => (451, (4, 4, 7), "a recipient's store took too long"),
        // Ours to mend: the sender keeps the message until then (P6).
        Short::NotUnderstood => (451, (4, 3, 5), "a recipient's store does not understand us"),
        Short::TooLarge => {
            let text = format!("message is larger than a recipient's store takes, {trace_id}");
            return Reply::with_text(552, (5, 3, 4), text);
        }
    };
    Reply::with_text(
        code,
        enhanced,
        format!("{text}, try again later, {trace_id}"),
    )
}

/// The reply to a command that came too often. RFC 3463 §3.8 has no better one for a policy.
pub(crate) fn too_often(what: TooOften) -> Reply {
    match what.0 {
        Event::Connection => Reply::new(450, (4, 7, 1), "too many connections, come back later"),
        Event::Message => Reply::new(450, (4, 7, 1), "too many messages, come back later"),
        Event::Recipient => Reply::new(450, (4, 7, 1), "too many recipients, come back later"),
        // RFC 3207 §4.
        Event::TlsSession => Reply::new(454, (4, 7, 0), "too many new TLS sessions"),
        Event::Auth => Reply::new(450, (4, 7, 1), "too many AUTH commands"),
    }
}

/// The reply to RCPT when a check found something.
pub(crate) fn found(finding: Finding) -> Reply {
    let Finding { check, for_good } = finding;
    let (detail, text) = match check {
        Check::EarlyTalker => ((5, 0), "you talk before our greeting"),
        Check::Pipelining => ((5, 0), "you send commands before you may"),
        Check::HeloSyntax => ((7, 1), "HELO, EHLO: not a full host name"),
        Check::HeloOwnName => ((7, 1), "HELO, EHLO: that is our name, not yours"),
        Check::HeloLiteral => ((7, 1), "HELO, EHLO: that is not your address"),
        // RFC 7372 §3.3.
        Check::ReverseDns => (
            (7, 25),
            "your address has no name in the DNS that leads back to it",
        ),
        // RFC 7372 §3.2.
        Check::Spf => (
            (7, 23),
            "SPF: the sender's domain does not let your address send for it",
        ),
        Check::DnsLists => (
            (7, 1),
            "your address stands in lists of those who send spam",
        ),
    };
    let (code, class) = if for_good { (550, 5) } else { (450, 4) };
    Reply::new(code, (class, detail.0, detail.1), text)
}

/// Why a connection is closed from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The process drains.
    Draining,
    /// Nothing came within the time for a command.
    Idle,
    /// The body came slower than the slowest sender served.
    TooSlow,
    /// It brought no message for long, while connections run out.
    NoMail,
    /// As many connections as all clients together may have.
    ConnectionsMax,
    /// As many connections as one client may have.
    ClientConnectionsMax,
    /// What ends the connection when it comes too often.
    TooOften(TooOften),
    /// What a check found is not borne.
    Found(Finding),
}

impl Closing {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Idle => "idle",
            Self::TooSlow => "too_slow",
            Self::NoMail => "no_mail",
            Self::ConnectionsMax => "connections_max",
            Self::ClientConnectionsMax => "client_connections_max",
            Self::TooOften(what) => what.code(),
            Self::Found(finding) => finding.check.code(),
        }
    }

    /// The last words. RFC 5321 §3.8.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Draining => Reply::new(421, (4, 3, 2), "going down for a moment, come back"),
            Self::Idle => Reply::new(421, (4, 4, 2), "waited too long for a command"),
            Self::TooSlow => Reply::new(421, (4, 4, 2), "message comes too slowly"),
            Self::NoMail => Reply::new(421, (4, 4, 2), "too long without a message, come back"),
            Self::ConnectionsMax => Reply::new(421, (4, 3, 2), "too many connections, come back"),
            Self::ClientConnectionsMax => {
                Reply::new(421, (4, 7, 0), "too many connections from your network")
            }
            Self::TooOften(what) => Reply {
                code: 421,
                enhanced: Some((4, 7, 0)),
                ..too_often(what)
            },
            Self::Found(finding) => Reply {
                code: if finding.for_good { 554 } else { 421 },
                ..found(finding)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_ours_is_temporary_and_only_the_senders_mistakes_are_final() {
        use RecipientRefusal::*;
        let full = OverQuota { for_good: true };
        for refusal in [UnknownUser, RelayDenied, BadAddress, full] {
            assert_eq!(refusal.reply().code / 100, 5, "{}", refusal.code());
        }
        let full = OverQuota { for_good: false };
        for refusal in [
            DirectoryAway,
            BackendAway,
            ForeignHome,
            ExternalTarget,
            PostmasterUnset,
            TooManyAccounts,
            full,
        ] {
            assert_eq!(refusal.reply().code / 100, 4, "{}", refusal.code());
        }
        use Short::*;
        let ours = [
            Away,
            Unknown,
            Moved,
            Frozen,
            Unavailable,
            Full,
            Deadline,
            NotUnderstood,
        ];
        for why in ours {
            let reply = short(why, "t1");
            assert_eq!(reply.code / 100, 4, "{}", why.code());
            assert!(reply.text.ends_with("t1"));
        }
        let reply = short(TooLarge, "t1");
        assert_eq!((reply.code, reply.enhanced), (552, Some((5, 3, 4))));
        assert!(!reply.text.contains("again"));
    }

    #[test]
    fn the_enhanced_class_is_that_of_the_code() {
        use RecipientRefusal::*;
        let recipients = [
            UnknownUser,
            RelayDenied,
            BadAddress,
            DirectoryAway,
            BackendAway,
            ForeignHome,
            ExternalTarget,
            PostmasterUnset,
            TooManyAccounts,
            OverQuota { for_good: false },
            OverQuota { for_good: true },
        ];
        use Closing::*;
        use Event::{Auth, Connection, Message, Recipient, TlsSession};
        let often = [Connection, Message, Recipient, TlsSession, Auth].map(crate::rates::TooOften);
        let closings = [
            Draining,
            Idle,
            TooSlow,
            NoMail,
            ConnectionsMax,
            ClientConnectionsMax,
        ];
        let closings = closings.into_iter().chain(often.map(TooOften));
        let findings: Vec<_> = crate::checks::ALL
            .into_iter()
            .flat_map(|check| [true, false].map(|for_good| Finding { check, for_good }))
            .collect();
        let closings = closings.chain(findings.iter().copied().map(Found));
        let replies = recipients.map(RecipientRefusal::reply);
        let all = replies.into_iter().chain(closings.map(Closing::reply));
        let all = all.chain(findings.iter().copied().map(found));
        for reply in all.chain(often.map(too_often)) {
            assert_eq!(
                u16::from(reply.enhanced.unwrap().0),
                reply.code / 100,
                "{}",
                reply.text
            );
        }
    }
}
