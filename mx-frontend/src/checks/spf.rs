//! Whether the sender's domain lets this client send for it. RFC 7208.
//!
//! The library counts look-ups (§4.6.4: ten) and takes the first record that it can read where a domain has several. It does
//! not count look-ups that find nothing; our own deadline bounds those.

use std::net::IpAddr;

use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, Parameters, SpfResult};
use mail_proto::Address;

use super::dns::Dns;

/// What the domain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spf {
    pub(super) result: SpfResult,
    /// Which of the client's words was believed: the sender, or where there is none, its own name.
    pub(super) property: &'static str,
    pub(super) identity: String,
}

impl Spf {
    /// The word for it. RFC 8601 §2.7.2.
    pub(super) fn word(&self) -> &'static str {
        match self.result {
            SpfResult::Pass => "pass",
            SpfResult::Fail => "fail",
            SpfResult::SoftFail => "softfail",
            SpfResult::Neutral => "neutral",
            SpfResult::TempError => "temperror",
            SpfResult::PermError => "permerror",
            SpfResult::None => "none",
        }
    }
}

/// Whom a message claims to be from.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// What the client calls itself.
    pub(crate) helo: String,
    /// The sender; none of what wants no answer.
    pub(crate) from: Option<Address>,
}

impl Claim {
    /// Nobody could say so far.
    pub(super) fn unknown(&self) -> Spf {
        let (property, identity) = match &self.from {
            Some(address) => ("smtp.mailfrom", address.to_string()),
            None => ("smtp.helo", self.helo.clone()),
        };
        Spf {
            result: SpfResult::TempError,
            property,
            identity,
        }
    }
}

/// Asks the sender's domain; of a message that wants no answer, that of the client's own name (§2.4).
pub(super) async fn look_up(dns: &Dns, client: IpAddr, claim: &Claim, hostname: &str) -> Spf {
    let unknown = claim.unknown();
    let domain = claim.from.as_ref().map_or(&*claim.helo, Address::domain);
    if domain.starts_with('[') {
        // An address literal is no domain that could say anything (§4.3); the library takes it for a mistake in one.
        return Spf {
            result: SpfResult::None,
            ..unknown
        };
    }
    let Some((resolver, _turn)) = dns.for_several().await else {
        return unknown;
    };
    let client = client.to_canonical();
    let parameters = match &claim.from {
        Some(_) => {
            SpfParameters::verify_mail_from(client, &claim.helo, hostname, &unknown.identity)
        }
        None => SpfParameters::verify_ehlo(client, &claim.helo, hostname),
    };
    let authenticator = MessageAuthenticator(resolver.clone());
    let output = authenticator.check_host(Parameters::new(parameters)).await;
    Spf {
        result: output.result(),
        ..unknown
    }
}
