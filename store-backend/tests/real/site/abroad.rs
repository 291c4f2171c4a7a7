//! Accounts that live on another mail system.

use directory_api::BackendState;
use directory_api::wire::{Backend, Foreign, ForeignService, ForeignTls};

use super::Directory;

impl Directory {
    /// Makes a back-end another mail system.
    pub(crate) fn foreign(&self, name: &str) {
        let service = ForeignService {
            address: "127.0.0.1:143".into(),
            tls: ForeignTls::Plain,
        };
        let backend = Backend {
            name: name.parse().unwrap(),
            address: service.address.clone(),
            state: BackendState::Active,
            weight: 1,
            volumes: Vec::new(),
            accounts: 0,
            foreign: Some(Foreign {
                imap: Some(service),
                pop3: None,
            }),
        };
        let mut state = self.state.lock().unwrap();
        state.backends.insert(backend.name.clone(), backend);
    }
}
