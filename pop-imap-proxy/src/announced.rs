//! What IMAP announces here before the login, compared with what back-ends can do: some programs look here and never again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::health::Health;
use directory_api::BackendName;
use mail_proto::imap::CAPABILITIES_BEFORE_LOGIN;

pub(crate) struct Announced {
    capabilities: Vec<String>,
    health: Health,
    /// What each back-end said last.
    heard: Mutex<HashMap<BackendName, Box<str>>>,
}

impl Announced {
    pub(crate) fn new(capabilities: Vec<String>, health: Health) -> Self {
        Self {
            capabilities,
            health,
            heard: Mutex::default(),
        }
    }

    /// As the greeting says it.
    pub(crate) fn line(&self) -> Arc<str> {
        self.capabilities.join(" ").into()
    }

    /// A back-end says what it can do. What it lacks is told in log, health and metrics, once.
    pub(crate) fn compare(&self, backend: &BackendName, has: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.get(backend).is_some_and(|before| **before == *has) {
            return;
        }
        heard.insert(backend.clone(), has.into());
        drop(heard);
        let has: Vec<&str> = has.split(' ').collect();
        let lacks = |one: &&String| !has.iter().any(|other| other.eq_ignore_ascii_case(one));
        let missing: Vec<&str> = self
            .capabilities
            .iter()
            .filter(lacks)
            .map(String::as_str)
            .collect();
        let backend = backend.as_str();
        metrics::gauge!(MISSING, "backend" => backend.to_owned()).set(missing.len() as f64);
        let text = (!missing.is_empty()).then(|| {
            let missing = missing.join(" ");
            format!("does not have what imap_capabilities announces before the login: {missing}")
        });
        self.health.note(&format!("back-end {backend}"), text);
    }
}

pub(crate) const MISSING: &str = "posthouse_proxy_capabilities_missing";

/// The usual ones.
pub(crate) fn usual() -> Vec<String> {
    CAPABILITIES_BEFORE_LOGIN
        .iter()
        .map(|one| (*one).to_owned())
        .collect()
}

/// Whether this may be announced by a setting: one word, and not what follows from other settings.
pub(crate) fn may_be_set(capability: &str) -> bool {
    let is_word = |octet: u8| octet.is_ascii_graphic() && !br#"(){%*"\]"#.contains(&octet);
    let upper = capability.to_ascii_uppercase();
    !capability.is_empty()
        && capability.bytes().all(is_word)
        && !upper.starts_with("AUTH=")
        && !["STARTTLS", "LOGINDISABLED"].contains(&upper.as_str())
}
