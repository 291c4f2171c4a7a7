//! Names of mailboxes that look the same and were made before that made them one: only a volume can make them.

use std::sync::Arc;

use directory_api::{AccountId, Epoch};
use durable::RealDisk;
use store_backend::volume::{SpecialUse, Volume, VolumeConfig};

use crate::imap_client::Imap;
use crate::site::Site;

/// `é` as `e` and an accent, and in one character.
const APART: &str = "Ame&AwE-";
const COMPOSED: &str = "Am&AOk-";

/// The mailboxes of a user who had these before.
async fn names(imap: &mut Imap) -> Vec<String> {
    let lines = imap.ok("LIST \"\" Am*").await.lines();
    let names = lines.iter().map(|line| line.rsplit_once(' ').unwrap().1);
    names.map(str::to_owned).collect()
}

async fn with_mailboxes(made: &[&str]) -> (Site, crate::site::Backend, Imap) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut backend = site.backend("b1").await;
    Imap::login(&backend, "ann").await;
    assert_eq!(backend.terminate().await, Some(0));
    let name = backend.name.clone();
    let config = VolumeConfig::new(&backend.data, name, "main".parse().unwrap());
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    for name in made {
        let create = volume.create_mailbox(AccountId(1), Epoch(1), name, SpecialUse::default());
        create.await.unwrap();
    }
    volume.close();
    drop(volume);
    backend.restart().await;
    let imap = Imap::login(&backend, "ann").await;
    (site, backend, imap)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_below_one_of_two_names_that_look_the_same_is_below_that_one() {
    let (_site, _backend, mut imap) = with_mailboxes(&["Ame\u{301}", "Am\u{e9}"]).await;
    imap.ok(&format!("CREATE {APART}/a")).await;
    imap.ok(&format!("CREATE {COMPOSED}/b")).await;
    imap.ok("CREATE c").await;
    // What is new in a name is composed.
    imap.ok(&format!("RENAME c {APART}/u&Awg-")).await;
    let apart = [
        APART.to_owned(),
        format!("{APART}/a"),
        format!("{APART}/&APw-"),
    ];
    let composed = [COMPOSED.to_owned(), format!("{COMPOSED}/b")];
    assert_eq!(names(&mut imap).await, [&apart[..], &composed].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_a_mailbox_does_not_hide_one_that_looks_the_same() {
    let made = ["Ame\u{301}/a", "Am\u{e9}"];
    let (_site, _backend, mut imap) = with_mailboxes(&made).await;
    imap.ok(&format!("SUBSCRIBE {APART}")).await;
    imap.ok(&format!("DELETE {APART}")).await;
    let status = imap.ok(&format!("STATUS {APART} (MESSAGES)")).await;
    assert_eq!(
        status.lines(),
        [format!("* STATUS {COMPOSED} (MESSAGES 0)")]
    );
    // These are about the name itself: nothing is deleted that only looks like it.
    let deleted = imap.command(format!("DELETE {APART}").as_bytes()).await;
    assert!(deleted.tagged.starts_with("NO "), "{}", deleted.tagged);
    imap.ok(&format!("UNSUBSCRIBE {APART}")).await;
    assert_eq!(imap.ok("LSUB \"\" *").await.lines(), Vec::<String>::new());
    imap.ok(&format!("RENAME {APART} Amb")).await;
    assert_eq!(names(&mut imap).await, ["Amb", "Amb/a", COMPOSED]);
}
