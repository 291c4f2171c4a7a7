//! Checks of clients and senders: what each is called, and what comes of what it finds.
//!
//! A check never stops mail because it could not be made: what nobody can say is no finding.

mod helo;

use std::net::IpAddr;

use tracing::info;

use crate::config::{Action, CheckSettings};
use crate::meter;

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    EarlyTalker,
    Pipelining,
    HeloSyntax,
    HeloOwnName,
    HeloLiteral,
}

impl Check {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::EarlyTalker => "early_talker",
            Self::Pipelining => "pipelining",
            Self::HeloSyntax => "helo_syntax",
            Self::HeloOwnName => "helo_own_name",
            Self::HeloLiteral => "helo_literal",
        }
    }
}

#[cfg(test)]
pub(crate) const ALL: [Check; 5] = [
    Check::EarlyTalker,
    Check::Pipelining,
    Check::HeloSyntax,
    Check::HeloOwnName,
    Check::HeloLiteral,
];

/// Something was found that by setting is not borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) for_good: bool,
}

/// Of whom something was found, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Of<'a> {
    pub(crate) helo: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) trace_id: &'a str,
}

/// The checks of one process.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) settings: CheckSettings,
    hostname: String,
}

impl Checks {
    pub(crate) fn new(settings: CheckSettings, hostname: String) -> Self {
        Self { settings, hostname }
    }

    /// Whether a client is looked at.
    pub(crate) fn concern(&self, client: IpAddr) -> bool {
        let mut exempt = self.settings.exempt_networks.iter();
        !exempt.any(|network| network.holds(client))
    }

    pub(crate) fn action(&self, check: Check) -> Action {
        match check {
            Check::EarlyTalker => self.settings.early_talker,
            Check::Pipelining => self.settings.pipelining,
            Check::HeloSyntax => self.settings.helo_syntax,
            Check::HeloOwnName => self.settings.helo_own_name,
            Check::HeloLiteral => self.settings.helo_literal,
        }
    }

    /// Counts and logs what was found, and says whether it is borne.
    pub(crate) fn found(&self, check: Check, client: IpAddr, of: Of<'_>) -> Result<(), Finding> {
        let (done, for_good) = match self.action(check) {
            Action::Off => return Ok(()),
            Action::Log => ("log", None),
            Action::Defer => ("defer", Some(false)),
            Action::Reject => ("reject", Some(true)),
        };
        meter::found(check.code(), done);
        let Of {
            helo,
            from,
            to,
            trace_id,
        } = of;
        info!(%client, check = check.code(), action = done, helo, from, to, trace_id, "check found something");
        for_good.map_or(Ok(()), |for_good| Err(Finding { check, for_good }))
    }

    /// Judges what the client calls itself.
    pub(crate) fn helo(&self, client: IpAddr, of: Of<'_>) -> Result<(), Finding> {
        match helo::judge(of.helo, client, &self.hostname) {
            Some(check) => self.found(check, client, of),
            None => Ok(()),
        }
    }
}
