//! Store back-ends and their volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, BackendState, ChangeNumber, Service, VolumeName};

/// One life of a volume: made at random with the volume, and again when it is found to be an old copy,
/// for the life that begins when an operator adopts it. 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(pub u128);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incarnation is not 32 hexadecimal digits")]
pub struct IncarnationError;

impl FromStr for Incarnation {
    type Err = IncarnationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(IncarnationError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| IncarnationError)
    }
}

impl TryFrom<String> for Incarnation {
    type Error = IncarnationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

/// How far a volume has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumePosition {
    /// The volume.
    pub name: VolumeName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The last journal position that is synced.
    pub position: u64,
}

/// A back-end tells where it listens and how far its volumes are: at start and then every few
/// seconds. The first one registers it, active, with weight 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceRequest {
    /// Must be the node in the caller's certificate.
    pub backend: BackendName,
    /// Where it listens for streams from inside: `host:port`.
    pub address: String,
    /// Every volume, at most [`super::limit::VOLUMES_MAX`].
    pub volumes: Vec<VolumePosition>,
}

/// What the directory knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceReply {
    /// The newest change.
    pub change: ChangeNumber,
    /// How the operator wants it to take part.
    pub state: BackendState,
    /// What was known *before* this announcement. A volume that stands here with another
    /// incarnation, or with a later position than its own, was restored from an old copy: it must
    /// refuse writes until an operator adopts it. The directory keeps the known values until then.
    pub known: Vec<VolumePosition>,
}

/// One back-end as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name, which stands in its certificate.
    pub name: BackendName,
    /// Where it listens for streams from inside: `host:port`.
    pub address: String,
    /// How it takes part.
    pub state: BackendState,
    /// Its share of new accounts against the others'. From 1.
    pub weight: u32,
    /// Its volumes as last announced.
    pub volumes: Vec<Volume>,
    /// Accounts that live there.
    pub accounts: u64,
    /// Where users are logged in, if it is another mail system and none of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}

/// A mail system that is not ours, and whose users log in through our proxies by a master login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreign {
    /// Its IMAP; none: nobody who lives there has IMAP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imap: Option<ForeignService>,
    /// Its POP3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop3: Option<ForeignService>,
}

impl Foreign {
    /// Where this service is.
    #[must_use]
    pub fn service(&self, service: Service) -> Option<&ForeignService> {
        match service {
            Service::Imap => self.imap.as_ref(),
            Service::Pop3 => self.pop3.as_ref(),
        }
    }

    /// What is there, in the form that operators write.
    pub fn told(&self) -> String {
        let services = [("imap", &self.imap), ("pop3", &self.pop3)];
        let told = services.iter().filter_map(|(name, service)| {
            let ForeignService { address, tls } = service.as_ref()?;
            Some(format!("{name} {}:{address}", tls.as_str()))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// One listener of a foreign back-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignService {
    /// `host:port`; the host is what its certificate must be for.
    pub address: String,
    /// How TLS is begun there. Whose certificates are believed is a setting of each proxy.
    pub tls: ForeignTls,
}

/// How TLS is begun with a foreign back-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignTls {
    /// Not at all.
    Plain,
    /// By STARTTLS or STLS.
    StartTls,
    /// From the first octet.
    Implicit,
}

impl ForeignTls {
    /// The word on the wire and at the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
        }
    }
}

/// The text does not say where a foreign service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write plain, starttls or implicit, a colon, and host:port: implicit:imap.example.test:993"
)]
pub struct ForeignServiceError;

impl FromStr for ForeignService {
    type Err = ForeignServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tls, address) = text.split_once(':').ok_or(ForeignServiceError)?;
        let all = [
            ForeignTls::Plain,
            ForeignTls::StartTls,
            ForeignTls::Implicit,
        ];
        let tls = all.into_iter().find(|one| one.as_str() == tls);
        let service = Self {
            address: address.to_owned(),
            tls: tls.ok_or(ForeignServiceError)?,
        };
        service
            .is_sensible()
            .then_some(service)
            .ok_or(ForeignServiceError)
    }
}

impl ForeignService {
    /// Whether the address has a host and a port.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        let is_host = |host: &str| {
            (1..=255).contains(&host.len()) && host.bytes().all(|octet| octet.is_ascii_graphic())
        };
        let parts = self.address.rsplit_once(':');
        parts.is_some_and(|(host, port)| {
            is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    }
}

/// The one volume of each foreign back-end, for a home is a place on a volume.
pub const FOREIGN_VOLUME: &str = "foreign";

/// One volume as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name on the back-end.
    pub name: VolumeName,
    /// Which life of it; none when an operator named it before it announced itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The last position known.
    pub position: u64,
}

/// Adds or changes a back-end: PUT to its path. What is not given stays; `address` is needed to add one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPut {
    /// `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Active when not given for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BackendState>,
    /// 1 when not given for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Adopts a restored volume: its known incarnation and position are forgotten, the next
    /// announcement sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt_volume: Option<VolumeName>,
    /// It is another mail system, and there; takes the place of what was said of it before. Then it has no `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}
