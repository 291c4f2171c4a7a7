//! A back-end within the test's own process, on a disk of the test's choice.

use std::sync::Arc;
use std::time::Instant;

use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use durable::Disk;
use store_backend::{Config, Limits, Listeners, VolumeFolder};
use testkit::address::unused_address;

use super::{Backend, Site};

impl Site {
    /// Starts a back-end in this process, whose volume lies on `disk`; it ends with the shutdown. Waits until it is ready.
    pub(crate) async fn backend_on(
        &self,
        name: &str,
        limits: Limits,
        disk: Arc<dyn Disk>,
        shutdown: &Shutdown,
    ) -> Backend {
        let volumes = Vec::new();
        self.backend_within(name, limits, volumes, disk, shutdown)
            .await
    }

    /// The same with several volumes, if there are any.
    pub(crate) async fn backend_within(
        &self,
        name: &str,
        limits: Limits,
        volumes: Vec<VolumeFolder>,
        disk: Arc<dyn Disk>,
        shutdown: &Shutdown,
    ) -> Backend {
        let port = unused_address;
        let data = self.data(name);
        let (link, metrics, lmtp, pop3, imap) = (port(), port(), port(), port(), port());
        let config = Config {
            name: name.into(),
            data: match volumes.is_empty() {
                true => data.clone(),
                false => Config::default().data,
            },
            volumes,
            link_listen: link,
            metrics_listen: metrics,
            directory: self.directory.address.to_string(),
            identity: self.files(Role::StoreBackend, name),
            listen: Listeners {
                lmtp: Some(lmtp),
                pop3: Some(pop3),
                imap: Some(imap),
                plaintext_login: true,
                ..Listeners::default()
            },
            limits,
            ..Config::default()
        };
        // The index and the lock are on the real disk, whatever `disk` is.
        for folder in config.volumes.iter().map(|one| &one.folder).chain([&data]) {
            std::fs::create_dir_all(folder).unwrap();
        }
        let run = store_backend::run_on(disk, config, shutdown.clone());
        tokio::spawn(async { run.await.unwrap() });
        let backend = Backend {
            name: name.parse().unwrap(),
            process: None,
            started: Instant::now(),
            config: self.folder.path().join(format!("{name}.toml")),
            data,
            link,
            metrics,
            lmtp,
            pop3,
            pop3s: pop3,
            imap,
        };
        backend.ready().await;
        backend
    }
}
