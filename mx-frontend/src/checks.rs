//! Checks of clients and senders: what each is called, and what comes of what it finds.
//!
//! A check never stops mail because it could not be made: what nobody can say is no finding.

mod dns;
mod helo;
mod lists;
mod results;
mod reverse;
mod spf;

use std::net::IpAddr;
use std::sync::Arc;

use mail_auth::SpfResult;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use crate::config::{Action, CheckSettings};
use crate::meter;
use dns::Dns;
use lists::Listed;
pub(crate) use reverse::Reverse;
pub(crate) use spf::Claim;
use spf::Spf;

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    EarlyTalker,
    Pipelining,
    HeloSyntax,
    HeloOwnName,
    HeloLiteral,
    ReverseDns,
    DnsLists,
    Spf,
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
            Self::ReverseDns => "reverse_dns",
            Self::DnsLists => "dns_lists",
            Self::Spf => "spf",
        }
    }
}

#[cfg(test)]
pub(crate) const ALL: [Check; 8] = [
    Check::EarlyTalker,
    Check::Pipelining,
    Check::HeloSyntax,
    Check::HeloOwnName,
    Check::HeloLiteral,
    Check::ReverseDns,
    Check::DnsLists,
    Check::Spf,
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
    /// What more there is to say.
    pub(crate) detail: &'a str,
}

/// The checks of one process.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) settings: CheckSettings,
    hostname: String,
    dns: Arc<Dns>,
}

/// What was looked up of a client and its sender.
#[derive(Debug)]
pub(crate) struct Looked {
    /// None: it is not looked at.
    pub(crate) reverse: Option<Reverse>,
    listed: Listed,
    spf: Option<Spf>,
}

/// Look-ups under way; dropped, they end.
#[derive(Debug)]
pub(crate) struct Looking(JoinHandle<Looked>);

impl Looking {
    /// What they brought. They end by themselves in the time that the settings give them.
    pub(crate) async fn done(mut self) -> Option<Looked> {
        (&mut self.0).await.ok()
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checks {
    pub(crate) fn new(settings: CheckSettings, hostname: String) -> Self {
        let dns = Arc::new(Dns::new(&settings.dns));
        Self {
            settings,
            hostname,
            dns,
        }
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
            Check::ReverseDns => self.settings.reverse_dns,
            Check::DnsLists => self.settings.dns_lists,
            Check::Spf => self.settings.spf,
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
            detail,
        } = of;
        info!(%client, check = check.code(), action = done, helo, from, to, trace_id, detail, "check found something");
        for_good.map_or(Ok(()), |for_good| Err(Finding { check, for_good }))
    }

    /// Begins to look up what the checks need to know. None: they need nothing.
    pub(crate) fn look_up(&self, client: IpAddr, claim: Claim) -> Option<Looking> {
        let wants_reverse = self.action(Check::ReverseDns) != Action::Off;
        let wants_spf = self.action(Check::Spf) != Action::Off;
        let wants_lists = self.action(Check::DnsLists) != Action::Off;
        let lists = if wants_lists {
            self.settings.lists.clone()
        } else {
            Vec::new()
        };
        if !wants_reverse && !wants_spf && lists.is_empty() {
            return None;
        }
        let (dns, within) = (Arc::clone(&self.dns), self.settings.dns.session_timeout());
        let hostname = self.hostname.clone();
        let looking = async move {
            let reverse = async {
                if !wants_reverse {
                    return None;
                }
                let found = timeout(within, reverse::look_up(&dns, client)).await;
                Some(found.unwrap_or(Reverse::Unknown))
            };
            let spf = async {
                if !wants_spf {
                    return None;
                }
                let found = timeout(within, spf::look_up(&dns, client, &claim, &hostname)).await;
                Some(found.unwrap_or_else(|_| claim.unknown()))
            };
            // Each of them takes one look-up.
            let lists = lists::look_up(&dns, &lists, client);
            let (reverse, spf, listed) = tokio::join!(reverse, spf, lists);
            if let Some(spf) = &spf {
                meter::spf(spf.word());
            }
            Looked {
                reverse,
                listed,
                spf,
            }
        };
        Some(Looking(tokio::spawn(looking)))
    }

    /// Judges a client that brings mail, by what it calls itself and by what was looked up.
    pub(crate) fn judge(
        &self,
        client: IpAddr,
        looked: Option<&Looked>,
        of: Of<'_>,
    ) -> Result<(), Finding> {
        let weight = looked.map_or(0, |looked| looked.listed.weight);
        if weight <= self.settings.lists_weight_allowed {
            return Ok(());
        }
        self.helo(client, of)?;
        let Some(Looked {
            reverse,
            listed,
            spf,
        }) = looked
        else {
            return Ok(());
        };
        if weight >= self.settings.lists_weight_min {
            let detail = &listed.against.join(" ");
            self.found(Check::DnsLists, client, Of { detail, ..of })?;
        }
        if let Some(missing @ (Reverse::Missing | Reverse::Unconfirmed)) = reverse {
            let detail = missing.word();
            self.found(Check::ReverseDns, client, Of { detail, ..of })?;
        }
        if let Some(spf) = spf.as_ref().filter(|spf| spf.result == SpfResult::Fail) {
            let detail = spf.property;
            self.found(Check::Spf, client, Of { detail, ..of })?;
        }
        Ok(())
    }

    /// What Authentication-Results says of a message; none where nothing was looked at.
    pub(crate) fn results(&self, client: IpAddr, looked: &Looked) -> Option<String> {
        results::value(looked, client, &self.hostname)
    }

    /// Judges what the client calls itself.
    fn helo(&self, client: IpAddr, of: Of<'_>) -> Result<(), Finding> {
        match helo::judge(of.helo, client, &self.hostname) {
            Some(check) => self.found(check, client, of),
            None => Ok(()),
        }
    }
}
