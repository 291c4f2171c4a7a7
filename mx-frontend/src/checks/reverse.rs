//! A client's name by reverse look-up, confirmed when the name leads back to its address. RFC 8601 §2.7.3.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::dns::{Answer, Dns};

/// What is known of a client's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reverse {
    /// The name that leads back.
    Confirmed(Box<str>),
    /// There are names, and none leads back.
    Unconfirmed,
    /// There is no name.
    Missing,
    /// Nobody can say now.
    Unknown,
}

impl Reverse {
    /// The word for it. RFC 8601 §2.7.3.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Confirmed(_) => "pass",
            Self::Unconfirmed => "fail",
            Self::Missing => "permerror",
            Self::Unknown => "temperror",
        }
    }
}

pub(super) async fn look_up(dns: &Dns, client: IpAddr) -> Reverse {
    let client = client.to_canonical();
    let pointers = match dns.ask_name(Name::from(client), RecordType::PTR).await {
        Answer::Found(pointers) => pointers,
        Answer::Nothing => return Reverse::Missing,
        Answer::Unknown => return Reverse::Unknown,
    };
    let kind = match client {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    };
    let mut is_unknown = false;
    for pointer in pointers.iter().take(NAMES_MAX) {
        let RData::PTR(name) = pointer else { continue };
        let name = name.to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        if !is_host_name(name) {
            continue;
        }
        match dns.ask(name, kind).await {
            Answer::Found(addresses) if addresses.iter().any(|one| is(one, client)) => {
                return Reverse::Confirmed(name.into());
            }
            Answer::Found(_) | Answer::Nothing => {}
            Answer::Unknown => is_unknown = true,
        }
    }
    if is_unknown {
        Reverse::Unknown
    } else {
        Reverse::Unconfirmed
    }
}

fn is(data: &RData, client: IpAddr) -> bool {
    match data {
        RData::A(address) => IpAddr::V4(address.0) == client,
        RData::AAAA(address) => IpAddr::V6(address.0) == client,
        _ => false,
    }
}

/// What a trace line may show: the DNS allows any octet.
fn is_host_name(name: &str) -> bool {
    let is_letter = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_letter)
}

/// Names of one address that are tried: some have hundreds, and one is enough. RFC 7208 §4.6.4 takes as many.
const NAMES_MAX: usize = 10;
