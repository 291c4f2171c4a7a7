//! Store back-ends and their volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, BackendState, ChangeNumber, VolumeName};

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
}

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
}
