//! Volumes of which one gives no answer, or errors.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use directory_api::Epoch;
use directory_api::client::ClientOptions;
use durable::{DiskRoom, RealDisk};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::volume::tests::Hanging;
use crate::volume::{AclChange, MailboxId, Rights, VolumeConfig, holder_of};

const ANN: AccountId = AccountId(1);
const BOB: AccountId = AccountId(2);
const CID: AccountId = AccountId(3);
const E1: Epoch = Epoch::FIRST;
/// Longer than anything takes that does not wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ann lives on `d3`; Cid on `d1` and Bob on `d2` let her see their mail.
struct Site {
    volumes: Volumes,
    backend: BackendName,
    folder: TempDir,
}

/// `with_d1`, or the first is not mounted yet.
async fn site(with_d1: bool) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let names = ["d1", "d2", "d3"].map(|name| VolumeName::new(name).unwrap());
    let backend = BackendName::new("b1").unwrap();
    let directory = directory(folder.path());
    let volumes = Volumes::new(backend.clone(), directory, names.clone());
    let site = Site {
        volumes,
        backend,
        folder,
    };
    for (name, account) in names.into_iter().zip([CID, BOB, ANN]) {
        let volume = site.opened(&name);
        volume.ensure_account(account, E1).await.unwrap();
        if account != ANN {
            let owner = format!("{account}@example.test");
            let (owner, all) = (Some(&owner[..]), AclChange::Replace(Rights::ALL));
            let inbox = MailboxId::INBOX;
            let shared = volume.set_acl(account, E1, inbox, owner, ANN, "ann@example.test", all);
            shared.await.unwrap();
        }
        if name.as_str() != "d1" || with_d1 {
            site.volumes.mount(&name, volume).set_restored(false);
        }
    }
    for account in [CID, BOB, ANN].into_iter().filter(|_| with_d1) {
        site.volumes.of(account).await.unwrap();
    }
    site
}

/// One that is away.
fn directory(folder: &Path) -> DirectoryClient {
    daemon::tier::install_crypto();
    let at = |end: &str| folder.join(end);
    let files = IdentityFiles {
        ca: at("ca"),
        certificate: at("pem"),
        key: at("key"),
    };
    let authority = Authority::create(folder).unwrap();
    authority.issue(Role::StoreBackend, "b1", &files).unwrap();
    let identity = Identity::load(&files).unwrap();
    let address = testkit::address::unused_address().to_string();
    DirectoryClient::new(&address, &identity, &ClientOptions::default())
}

impl Site {
    fn mounted(&self, at: usize) -> Arc<Mounted> {
        self.volumes.at(Some(at)).unwrap()
    }

    fn opened(&self, name: &VolumeName) -> Volume {
        let path = self.folder.path().join(name.as_str());
        let config = VolumeConfig::new(path, self.backend.clone(), name.clone());
        Volume::open(config, Arc::new(RealDisk)).unwrap()
    }

    /// Who shares mailboxes with Ann, and whether that is all.
    async fn shared(&self) -> (Vec<AccountId>, bool) {
        let own = self.mounted(2);
        let (shared, is_whole) = self.volumes.add_shared(&own, ANN, Vec::new()).await;
        (shared.iter().map(|one| one.owner).collect(), is_whole)
    }

    /// How a mailbox of Bob's is for Ann.
    async fn of_bob(&self) -> Named {
        let owner = format!("{BOB}@example.test");
        let own = self.mounted(2);
        let named = self.volumes.shared_named(&own, ANN, &owner, "INBOX");
        named.await.unwrap()
    }

    /// Where Ann lives, looked for anew.
    async fn of_ann(&self) -> Result<Arc<Mounted>, Away> {
        self.volumes.forget(ANN);
        let found = timeout(PATIENCE, self.volumes.of(ANN)).await;
        found.expect("users of the other volumes do not wait")
    }
}

#[tokio::test]
async fn a_volume_that_hangs_is_asked_once_until_it_answers() {
    let site = site(true).await;
    assert!(matches!(site.of_bob().await, Named::Found(_)));
    let hung = Hanging::begin(&site.mounted(1).volume);
    for _ in 0..3 {
        assert_eq!(site.of_ann().await.unwrap().name.as_str(), "d3");
        assert!(matches!(site.of_bob().await, Named::Away));
        assert_eq!(site.shared().await, (vec![CID], false));
    }
    assert!(site.volumes.away().eq([site.mounted(1).name.clone()]));
    // One question is Ann's; the volume's own threads may wait too, but not more than there are.
    assert_eq!(site.mounted(1).late.load(Ordering::Relaxed), 1);
    assert!(hung.count() > 0);
    drop(hung);
    let answers = async {
        while site.mounted(1).is_silent() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, answers).await.unwrap();
    assert!(matches!(site.of_bob().await, Named::Found(_)));
    assert_eq!(site.volumes.away().count(), 0);
}

#[tokio::test]
async fn users_of_a_volume_that_hangs_leave_those_of_the_others_their_threads() {
    let site = site(true).await;
    let hung = Hanging::begin(&site.mounted(1).volume);
    let volume = &site.mounted(1).volume;
    // More than the runtime has threads that may block.
    let reads: Vec<_> = (0..600)
        .map(|_| {
            let volume = volume.clone();
            tokio::spawn(async move { volume.mailboxes(BOB).await })
        })
        .collect();
    let full = async {
        while volume.turns().free() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, full).await.unwrap();
    let ann = &site.mounted(2).volume;
    let read = timeout(PATIENCE, ann.mailboxes(ANN)).await;
    assert_eq!(read.expect("others do not wait").unwrap().len(), 1);
    drop(hung);
    for read in reads {
        let read = timeout(PATIENCE, read).await.unwrap().unwrap();
        assert_eq!(read.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_a_volume_shares_that_cannot_be_read_is_left_out_and_not_gone() {
    let site = site(true).await;
    assert_eq!(site.shared().await, (vec![CID, BOB], true));
    let failing = Hanging::fail(&site.mounted(1).volume);
    assert_eq!(site.shared().await, (vec![CID], false));
    drop(failing);
    assert_eq!(site.shared().await, (vec![CID, BOB], true));
}

#[tokio::test]
async fn what_is_on_a_volume_that_opens_while_others_are_asked_is_not_gone() {
    let site = site(false).await;
    let name = VolumeName::new("d1").unwrap();
    let volume = site.opened(&name);
    let hung = Hanging::begin(&site.mounted(1).volume);
    let mut shared = Box::pin(site.shared());
    // It has passed the first volume and waits for the second.
    assert!(timeout(Duration::ZERO, &mut shared).await.is_err());
    site.volumes.mount(&name, volume).set_restored(false);
    drop(hung);
    assert_eq!(shared.await, (vec![BOB], false));
    assert_eq!(site.shared().await, (vec![CID, BOB], true));
}

#[tokio::test]
async fn mail_held_for_others_leaves_a_disk_its_reserve() {
    let site = site(true).await;
    let holder = holder_of(AccountId(9)).unwrap();
    let looked = |at: usize, free_bytes: u64| {
        let mounted = site.mounted(at);
        let mut status = mounted.volume.status();
        status.space.disk = Some(DiskRoom {
            size_bytes: 1000,
            free_bytes,
            inodes: 0,
            free_inodes: 0,
        });
        mounted.looked_at(&status, 5);
    };
    for (at, free_bytes) in [(0, 49), (1, 50), (2, 0)] {
        looked(at, free_bytes);
    }
    let held_at = || async {
        let found = site.volumes.of_one_of_many(holder, &mut false).await;
        found.ok().map(|one| one.name.to_string())
    };
    assert_eq!(held_at().await.as_deref(), Some("d2"));
    assert!(site.volumes.takes_held());
    looked(1, 49);
    assert_eq!(held_at().await, None);
    assert!(!site.volumes.takes_held());
    assert_eq!(site.volumes.away().count(), 0, "they take their own mail");
}
