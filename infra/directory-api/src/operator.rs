//! Finds the directory for the commands a person runs, and shows it that person's certificate.
//!
//! A system started by `posthouse up` is found by its endpoints file or its data folder; any other
//! by a settings file of its own. Never starts anything and never asks questions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::config::{ConfigError, Settings};
use daemon::identity::{Identity, IdentityError, IdentityFiles, Role};
use serde::Deserialize;

use crate::client::{ClientOptions, DirectoryClient};

/// The folder of `posthouse up` when nothing else is said.
pub const DATA_DEFAULT: &str = "posthouse-data";
/// In the data folder: where everything listens, there as long as the system is up.
pub const ENDPOINTS_FILE: &str = "endpoints.json";
/// In the data folder: certificates and keys.
pub const PKI_FOLDER: &str = "pki";

daemon::settings! {
    /// How an operator's command reaches the directory.
    pub struct OperatorConfig {
        /// The directory, `host:port`.
        pub directory: String = "127.0.0.1:4205".into(),
        /// Certificate of the person or command, with the role operator or migrator.
        pub identity: IdentityFiles = IdentityFiles::default(),
        /// The inside listeners of the POP3 and IMAP proxies, `host:port`, for `posthouse connections`, `kick` and `drain`.
        pub proxies: Vec<String> = Vec::new(),
    }
}
impl Settings for OperatorConfig {}

/// Where to look for the directory: the first that is given counts; with none, [`DATA_DEFAULT`].
#[derive(Clone, Debug, Default)]
pub struct DirectorySource {
    /// A settings file, [`OperatorConfig`].
    pub config: Option<PathBuf>,
    /// An endpoints file written by `posthouse up --endpoints`.
    pub endpoints: Option<PathBuf>,
    /// The data folder of `posthouse up`.
    pub data: Option<PathBuf>,
}

/// Why the directory was not found. Whether it answers shows at the first call.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No endpoints file: nothing is up, or it runs elsewhere.
    #[error("{}: cannot be read ({source}); is `posthouse up` running? Name its folder with --data, or its file with --endpoints", path.display())]
    NotUp {
        /// The endpoints file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The endpoints file is none.
    #[error("{}: is no endpoints file of posthouse ({source}); name the right one with --endpoints", path.display())]
    NoEndpoints {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The settings file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The part of an endpoints file that leads to the directory and the proxy.
#[derive(Deserialize)]
struct Endpoints {
    data: PathBuf,
    directory: Listens,
    proxy: ListensInside,
}

#[derive(Deserialize)]
struct ListensInside {
    inside: String,
}

#[derive(Deserialize)]
struct Listens {
    http: String,
}

impl DirectorySource {
    /// Finds the directory and loads the identity with `role` (operator or migrator). Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// [`SourceError`], each one line with what to do.
    pub fn connect(&self, role: Role) -> Result<(DirectoryClient, Arc<Identity>), SourceError> {
        let config = self.config(role)?;
        let identity = Identity::load(&config.identity)?;
        let client = DirectoryClient::new(&config.directory, &identity, &ClientOptions::default());
        Ok((client, Arc::new(identity)))
    }

    /// Where the inside listeners of the proxies are; none when the settings file names none.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn proxies(&self, role: Role) -> Result<Vec<String>, SourceError> {
        Ok(self.config(role)?.proxies)
    }

    fn config(&self, role: Role) -> Result<OperatorConfig, SourceError> {
        if let Some(path) = &self.config {
            return Ok(daemon::config::load(path, "POSTHOUSE")?);
        }
        let path = self.endpoints_file();
        let text = std::fs::read(&path).map_err(|source| SourceError::NotUp {
            path: path.clone(),
            source,
        })?;
        let found: Endpoints = serde_json::from_slice(&text)
            .map_err(|source| SourceError::NoEndpoints { path, source })?;
        Ok(OperatorConfig {
            directory: found.directory.http,
            identity: identity_files(&found.data, role.as_str()),
            proxies: vec![found.proxy.inside],
        })
    }

    /// The endpoints file that belongs to this source.
    #[must_use]
    pub fn endpoints_file(&self) -> PathBuf {
        let data = self.data.as_deref().unwrap_or(Path::new(DATA_DEFAULT));
        self.endpoints
            .clone()
            .unwrap_or_else(|| data.join(ENDPOINTS_FILE))
    }
}

/// Where `posthouse up` keeps the certificate of a node (`b1`), or of a person's role (`operator`).
#[must_use]
pub fn identity_files(data: &Path, node: &str) -> IdentityFiles {
    let pki = data.join(PKI_FOLDER);
    IdentityFiles {
        ca: pki.join("ca.pem"),
        certificate: pki.join(format!("{node}.pem")),
        key: pki.join(format!("{node}.key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_is_not_up_is_said_in_one_line_with_the_file() {
        let source = DirectorySource {
            data: Some("/nonexistent/mail".into()),
            ..DirectorySource::default()
        };
        let said = source.connect(Role::Operator).unwrap_err().to_string();
        assert!(
            said.starts_with("/nonexistent/mail/endpoints.json: "),
            "{said}"
        );
        assert!(said.contains("posthouse up"), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}
