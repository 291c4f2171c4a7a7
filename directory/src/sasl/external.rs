//! EXTERNAL (RFC 4422 appendix A): a user who has shown a certificate to a proxy.
//!
//! The chain is checked here, against authorities of these settings, and so is whose it is. That the client has the certificate's key
//! only the proxy has seen: TLS 1.3 signs the handshake of the two, which cannot be shown to anybody else. So this is trust in
//! the proxy, and P8 does not hold for these users: a proxy that is taken over enters as anybody whose certificate it has ever
//! seen. It is off by default, and only proxies that the settings name are taken at their word.

use std::path::PathBuf;

use daemon::client_certificate::UserAuthorities;
use daemon::config::{Problem, Settings};
use daemon::identity::{IdentityError, Peer, Role};
use data_encoding::BASE64;

daemon::settings! {
    /// Logins by a certificate that the user has shown to a proxy (SASL EXTERNAL). TRUST IN THE PROXY: that the client has the
    /// certificate's key only the proxy has seen. One that is taken over can enter as everybody whose certificate it has seen, which
    /// with passwords, SCRAM and tokens it could only while they log in.
    pub struct ExternalSettings {
        /// Certificates (PEM) of the authorities that users' certificates are of. Without it there is no EXTERNAL.
        pub ca: Option<PathBuf> = None,
        /// The proxies that are believed, by the names in their certificates; each needs `users_ca` in its own settings.
        pub proxies: Vec<String> = Vec::new(),
    }
}

impl Settings for ExternalSettings {
    fn problems(&self) -> Vec<Problem> {
        let problem = match (&self.ca, self.proxies.is_empty()) {
            (Some(_), true) => Problem::new(
                "proxies",
                "",
                "empty, though ca is given",
                "name the proxies that are believed",
            ),
            (None, false) => Problem::new(
                "ca",
                "",
                "missing, though proxies are given",
                "name the users' authorities",
            ),
            (Some(_), false) | (None, true) => return Vec::new(),
        };
        vec![problem]
    }
}

/// Decides EXTERNAL.
pub(crate) struct External {
    authorities: UserAuthorities,
    proxies: Vec<String>,
}

impl External {
    /// None: the settings have no authorities.
    pub(crate) fn open(settings: ExternalSettings) -> Result<Option<Self>, IdentityError> {
        let Some(ca) = settings.ca else {
            return Ok(None);
        };
        Ok(Some(Self {
            authorities: UserAuthorities::load(&ca)?,
            proxies: settings.proxies,
        }))
    }

    /// Whether this one is taken at its word.
    pub(crate) fn believes(&self, caller: &Peer) -> bool {
        caller.role == Role::PopImapProxy && self.proxies.contains(&caller.node)
    }

    /// The mail addresses of who showed this chain, in base64; nothing where it proves none.
    pub(crate) fn addresses(&self, chain: &[String]) -> Option<Vec<String>> {
        let octets: usize = chain.iter().map(String::len).sum();
        if octets > CHAIN_MAX_OCTETS {
            return None;
        }
        let decoded = chain.iter().map(|one| BASE64.decode(one.as_bytes()).ok());
        let chain: Option<Vec<_>> = decoded.collect();
        self.authorities.mail_addresses(&chain?)
    }
}

/// In base64; TLS takes some 16 KiB of certificates for usual.
const CHAIN_MAX_OCTETS: usize = 64 * 1024;
