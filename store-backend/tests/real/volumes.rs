//! A back-end with two volumes: each serves its accounts, and each fails alone.

mod disks;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::identity::Role;
use daemon::link::Link;
use daemon::shutdown::Shutdown;
use directory_api::{AccountId, Epoch, VolumeName};
use http::Method;
use store_api::MoveId;
use store_api::away::{self, Away};
use store_api::backup::{BackupClient, Begin, Missing};
use store_api::deliver::Outcome;
use store_api::transfer::{Activate, Freeze, Pull, Release, TransferClient, TransferError, Undo};
use store_backend::{Limits, VolumeFolder};
use testkit::fault_disk::{FaultDisk, Operation};

use self::disks::Disks;
use crate::deliver::{commit, deliver, open};
use crate::imap_client::{Answer, Imap};
use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: to both\r\n\r\nbody\r\n";

/// Ann lives on `d1`; Bob, and Cid who has no mail yet, on `d2`.
async fn site() -> Site {
    let site = Site::new().await;
    for (account, local, volume) in [(1, "ann", "d1"), (2, "bob", "d2"), (3, "cid", "d2")] {
        site.directory.address(local, &[account]);
        site.directory.home_on(account, "b1", volume, 1);
    }
    site
}

fn folder(site: &Site, name: &str, volume: &str) -> PathBuf {
    site.data(name).with_extension(volume)
}

fn starting(site: &Site, name: &str) -> Backend {
    let one = |volume| {
        format!(
            "{{ name = {volume:?}, folder = {:?} }}",
            folder(site, name, volume)
        )
    };
    let volumes = format!("volumes = [{}, {}]", one("d1"), one("d2"));
    site.backend_of(name, &volumes, "plaintext_login = true", "")
}

async fn started(site: &Site, name: &str) -> Backend {
    let backend = starting(site, name);
    backend.ready().await;
    backend
}

/// One transaction to these, and the beginnings of what is answered.
async fn lmtp(backend: &Backend, recipients: &[&str], replies: &[&str]) {
    let said = Dialogue::lmtp(backend)
        .await
        .deliver(recipients, MESSAGE)
        .await;
    let fits = |(said, wanted): (&String, &&str)| said.starts_with(wanted);
    assert_eq!(said.len(), replies.len());
    assert!(said.iter().zip(replies).all(fits), "{said:?}");
}

async fn by_link(link: &Link, txn: u8, accounts: &[u64]) -> Vec<Outcome> {
    let (open, commit) = (open(txn, accounts), commit(MESSAGE, accounts));
    let reply = deliver(link, &open, MESSAGE, &commit).await.unwrap();
    reply.results.into_iter().map(|one| one.outcome).collect()
}

async fn uids(backend: &Backend, local: &str) -> String {
    Imap::inbox(backend, local)
        .await
        .ok("UID SEARCH ALL")
        .await
        .text()
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.untagged.join(&b"\r\n"[..])).unwrap()
    }
}

/// What logins are answered whose volume is not open.
async fn is_away(backend: &Backend, local: &str) {
    let mut imap = Dialogue::open(backend.imap).await;
    imap.expect("* OK").await;
    imap.ask(
        &format!("a LOGIN {local}@example.test pass"),
        "a NO [UNAVAILABLE]",
    )
    .await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask(&format!("USER {local}@example.test"), "+OK").await;
    pop3.ask("PASS pass", "-ERR [SYS/TEMP]").await;
}

/// What front-ends are told to refuse at RCPT, a moment later.
async fn is_told_away(link: &Link, volumes: &[&str]) {
    let began = Instant::now();
    loop {
        let asked = link.json(Method::GET, away::PATH, &(), PATIENCE).await;
        let Away { volumes: told, .. } = asked.unwrap();
        if told
            .iter()
            .map(VolumeName::as_str)
            .eq(volumes.iter().copied())
        {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From then on it takes mail.
async fn is_announced(backend: &Backend, volume: &str) {
    let line = format!("posthouse_store_announced{{backend=\"b1\",volume=\"{volume}\"}} 1");
    has_metric(backend, &line).await;
}

async fn has_metric(backend: &Backend, line: &str) {
    let began = Instant::now();
    while !backend
        .get("/metrics")
        .await
        .unwrap_or_default()
        .lines()
        .any(|found| found.starts_with(line))
    {
        assert!(began.elapsed() < PATIENCE, "no {line}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn each_volume_keeps_the_mail_of_its_accounts_over_a_kill() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    let link = site.link(Role::MxFrontend, &backend);
    lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    let kept = |outcomes: Vec<Outcome>| {
        let kept = |one: &Outcome| matches!(one, Outcome::Committed { uid: 2 });
        assert!(outcomes.iter().all(kept), "{outcomes:?}");
    };
    kept(by_link(&link, 1, &[2, 1]).await);
    // Said again, it is there once on each of them (P2).
    assert_eq!(
        by_link(&link, 1, &[1, 2]).await,
        [Outcome::Duplicate, Outcome::Duplicate]
    );
    // A large body goes to a file on each volume.
    let large = [MESSAGE, "0123456789abcdef\r\n".repeat(200_000).as_bytes()].concat();
    let replies = Dialogue::lmtp(&backend)
        .await
        .deliver(&["bob", "ann"], &large)
        .await;
    assert!(
        replies.iter().all(|reply| reply.starts_with("250")),
        "{replies:?}"
    );
    backend.kill();
    backend.restart().await;
    for local in ["ann", "bob"] {
        assert_eq!(uids(&backend, local).await, "* SEARCH 1 2 3");
        let mut pop3 = until_listed(&backend, local, 3).await;
        assert!(pop3.retrieve(3).await.ends_with(&large));
    }
    assert_eq!(
        by_link(&link, 1, &[1, 2]).await,
        [Outcome::Duplicate, Outcome::Duplicate]
    );
    for volume in ["d1", "d2"] {
        let of =
            |name: &str| format!("posthouse_store_{name}{{backend=\"b1\",volume=\"{volume}\"}} 1");
        has_metric(&backend, &of("volume_accounts")).await;
        has_metric(&backend, &of("volume_open")).await;
        has_metric(&backend, &of("announced")).await;
    }
    assert_eq!(backend.terminate().await, Some(0));
}

#[tokio::test]
async fn a_volume_that_is_missing_at_the_start_is_away_until_it_is_mounted_and_the_other_serves() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
    let (d2, unmounted) = (folder(&site, "b1", "d2"), folder(&site, "b1", "unmounted"));
    std::fs::rename(&d2, &unmounted).unwrap();
    // A mount point without its disk is an empty folder.
    std::fs::create_dir(&d2).unwrap();
    backend.start();
    backend.fails("volume d2 is not open: ").await;
    is_announced(&backend, "d1").await;
    has_metric(
        &backend,
        "posthouse_store_volume_open{backend=\"b1\",volume=\"d2\"} 0",
    )
    .await;
    lmtp(&backend, &["ann"], &["250"]).await;
    assert_eq!(uids(&backend, "ann").await, "* SEARCH 1 2");
    // Cid has no row on any volume: he is not made on another one.
    lmtp(
        &backend,
        &["bob", "ann", "cid"],
        &["451 4.3.0", "250", "451 4.3.0"],
    )
    .await;
    for local in ["bob", "cid"] {
        is_away(&backend, local).await;
    }
    let link = site.link(Role::MxFrontend, &backend);
    is_told_away(&link, &["d2"]).await;
    let outcomes = by_link(&link, 1, &[2, 1, 3]).await;
    assert_eq!(outcomes[0], Outcome::Unavailable);
    assert!(outcomes[1].is_kept());
    assert_eq!(outcomes[2], Outcome::Unavailable);
    assert_eq!(
        std::fs::read_dir(&d2).unwrap().count(),
        0,
        "nothing is begun there"
    );
    // Nor is it while the directory is away.
    site.stop_directory().await;
    lmtp_of_link(&link, 2).await;
    assert_eq!(
        std::fs::read_dir(&d2).unwrap().count(),
        0,
        "nothing is begun there"
    );
    let log = backend.log();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("cannot be opened"))
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    for wanted in ["d2", "mount its disk", d2.to_str().unwrap()] {
        assert!(said[0].contains(wanted), "{wanted}: {}", said[0]);
    }
    let mut site = site;
    site.start_directory().await;
    // Without a restart.
    std::fs::remove_dir(&d2).unwrap();
    std::fs::rename(&unmounted, &d2).unwrap();
    backend.ready().await;
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 1");
    lmtp(&backend, &["bob", "ann", "cid"], &["250", "250", "250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
}

#[tokio::test]
async fn a_volume_that_is_adopted_while_its_disk_is_away_is_not_begun_anew() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    lmtp(&backend, &["bob"], &["250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
    let (d2, unmounted) = (folder(&site, "b1", "d2"), folder(&site, "b1", "unmounted"));
    std::fs::rename(&d2, &unmounted).unwrap();
    std::fs::create_dir(&d2).unwrap();
    site.directory.adopt();
    backend.start();
    backend.fails("volume d2 is not open: ").await;
    is_away(&backend, "bob").await;
    assert_eq!(std::fs::read_dir(&d2).unwrap().count(), 0);
    std::fs::remove_dir(&d2).unwrap();
    std::fs::rename(&unmounted, &d2).unwrap();
    backend.ready().await;
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 1");
    assert_eq!(backend.terminate().await, Some(0));
}

/// Who lives on the open volume is served without a directory; who may live elsewhere is not.
async fn lmtp_of_link(link: &Link, txn: u8) {
    let outcomes = by_link(link, txn, &[1, 2, 3]).await;
    assert!(outcomes[0].is_kept(), "{outcomes:?}");
    assert_eq!(outcomes[1..], [Outcome::Unavailable, Outcome::Unavailable]);
}

#[tokio::test]
async fn an_old_copy_of_one_volume_and_a_foreign_marker_stop_that_volume_alone() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    backend.configure(|config| {
        config.replacen("[identity]", "backup_operators = [\"t1\"]\n[identity]", 1)
    });
    lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
    let (d1, d2) = (folder(&site, "b1", "d1"), folder(&site, "b1", "d2"));
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&d2)
        .arg(d2.with_extension("old"))
        .status();
    assert!(copied.unwrap().success());
    backend.restart().await;
    lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
    std::fs::remove_dir_all(&d2).unwrap();
    std::fs::rename(d2.with_extension("old"), &d2).unwrap();
    backend.start();
    backend
        .fails("volume d2 is older than the directory knows")
        .await;
    is_announced(&backend, "d1").await;
    lmtp(&backend, &["ann", "bob"], &["250", "451 4.3.0"]).await;
    // A backup's accounts come to it, and not to the one that is in use.
    let operator = BackupClient::new(site.link(Role::Operator, &backend));
    for (account, takes) in [(1, false), (2, true), (3, true)] {
        let nothing = Missing {
            account: AccountId(account),
            hashes: Vec::new(),
        };
        assert_eq!(operator.missing(&nothing).await.is_ok(), takes, "{account}");
        let begin = Begin {
            account: AccountId(account),
            restore_id: MoveId::from_octets([1; 16]),
        };
        // Bob is there, as the copy has him.
        assert_eq!(operator.begin(&begin).await.is_ok(), account == 3);
    }
    // What it has is read; who is not in it is not there yet, which is not empty.
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 1");
    is_away(&backend, "cid").await;
    // Nor has it everything that its owners share.
    let mut ann = Imap::inbox(&backend, "ann").await;
    let select = b"SELECT \"Other Users/bob@example.test/INBOX\"";
    let refused = ann.command(select).await.tagged;
    assert!(refused.starts_with("NO [UNAVAILABLE]"), "{refused}");
    drop(ann);
    assert_eq!(backend.terminate().await, Some(0));
    std::fs::copy(d2.join("FORMAT"), d1.join("FORMAT")).unwrap();
    backend.start();
    backend.fails("volume d1 is not open: ").await;
    is_away(&backend, "ann").await;
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 1");
    // By which a restore passes it over.
    let nothing = Missing {
        account: AccountId(1),
        hashes: Vec::new(),
    };
    let refused = operator.missing(&nothing).await;
    assert!(
        matches!(&refused, Err(TransferError::Refused(why)) if why.code == "unavailable"),
        "{refused:?}"
    );
    backend.kill();
}

#[tokio::test]
async fn a_back_end_starts_only_if_one_of_its_volumes_opens() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    assert_eq!(backend.terminate().await, Some(0));
    for volume in ["d1", "d2"] {
        std::fs::write(folder(&site, "b1", volume).join("FORMAT"), "another\n").unwrap();
    }
    let (code, said) = backend.twin(str::to_owned);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FORMAT file begins"), "{said}");
    let again = |text: &str| text.replace("name = \"d2\"", "name = \"D1\"");
    let (code, said) = backend.twin(again);
    assert_eq!(code, Some(2), "{said}");
    for wanted in [
        "volumes[1].name",
        "D1",
        "volumes[0].name",
        "a name of its own",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_on_one_disk_and_a_full_one_leave_the_other() {
    let site = site().await;
    let (disk, shutdown) = (FaultDisk::new(1), Shutdown::new());
    let d2 = folder(&site, "b1", "d2");
    let disks = Disks {
        first: FaultDisk::new(2),
        second: disk.clone(),
        at: d2.clone(),
    };
    let limits = Limits {
        disk_free_min_bytes: 1 << 20,
        disk_free_min_percent: 0,
        ..Limits::default()
    };
    let volumes = ["d1", "d2"].map(|name| VolumeFolder {
        name: name.into(),
        folder: folder(&site, "b1", name),
        // The folder is on the fault disk, where nobody else sees it.
        anew: true,
    });
    let backend = site
        .backend_within("b1", limits, volumes.into(), Arc::new(disks), &shutdown)
        .await;
    lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    disk.set_capacity(1 << 20);
    let short = "posthouse_store_volume_refuses_growth{backend=\"b1\",volume=\"d2\"}";
    has_metric(&backend, &format!("{short} 1")).await;
    lmtp(&backend, &["ann", "bob"], &["250", "452 4.3.1"]).await;
    disk.set_capacity(1 << 30);
    has_metric(&backend, &format!("{short} 0")).await;
    lmtp(&backend, &["bob"], &["250"]).await;
    disk.fail(Operation::Sync, 0, ErrorKind::Other);
    lmtp(&backend, &["bob", "ann"], &["451 4.3.0", "250"]).await;
    backend.fails("volume d2 takes no writes").await;
    is_told_away(&site.link(Role::MxFrontend, &backend), &["d2"]).await;
    lmtp(&backend, &["ann"], &["250"]).await;
    let mut ann = Imap::inbox(&backend, "ann").await;
    ann.ok("STORE 1 +FLAGS (\\Seen)").await;
    let mut bob = Imap::inbox(&backend, "bob").await;
    bob.ok("FETCH 1 BODY.PEEK[]").await;
    let refused = bob.command(b"STORE 1 +FLAGS (\\Seen)").await.tagged;
    assert!(refused.starts_with("NO [UNAVAILABLE]"), "{refused}");
    drop((ann, bob));
    shutdown.begin();
}

#[tokio::test]
async fn mailboxes_are_shared_between_volumes_as_on_one() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    for _ in 0..2 {
        lmtp(&backend, &["ann", "bob"], &["250", "250"]).await;
    }
    let mut bob = Imap::inbox(&backend, "bob").await;
    bob.ok(
        "NOTIFY SET (SELECTED (MessageNew MessageExpunge)) (SUBTREE \"Other Users\" (MailboxName))",
    )
    .await;
    let mut ann = Imap::inbox(&backend, "ann").await;
    ann.ok("SETACL INBOX bob@example.test lrswite").await;
    // His session watches him on his own volume, and hears of what came on hers.
    let told = bob.ok("NOOP").await.text();
    assert!(
        told.contains("Other Users/ann@example.test/INBOX"),
        "{told}"
    );
    let shared = "\"Other Users/ann@example.test/INBOX\"";
    let listed = bob
        .ok("LIST \"\" \"*\" RETURN (MYRIGHTS STATUS (MESSAGES))")
        .await
        .text();
    assert!(
        listed.contains(&format!("STATUS {shared} (MESSAGES 2)")),
        "{listed}"
    );
    // From his to hers, and from hers to his.
    bob.ok(&format!("COPY 1 {shared}")).await;
    bob.ok(&format!("MOVE 1 {shared}")).await;
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 2");
    assert_eq!(uids(&backend, "ann").await, "* SEARCH 1 2 3 4");
    bob.ok(&format!(
        "APPEND {shared} {{{}+}}\r\n{}",
        MESSAGE.len(),
        str::from_utf8(MESSAGE).unwrap()
    ))
    .await;
    bob.ok(&format!("SELECT {shared}")).await;
    bob.ok("STORE 5 +FLAGS (\\Flagged)").await;
    let fetched = bob.ok("FETCH 5 (FLAGS BODY.PEEK[])").await.text();
    assert!(
        fetched.contains("\\Flagged") && fetched.contains("to both"),
        "{fetched}"
    );
    bob.ok("COPY 5 INBOX").await;
    bob.ok("MOVE 1:2 INBOX").await;
    assert_eq!(uids(&backend, "bob").await, "* SEARCH 2 3 4 5");
    assert_eq!(uids(&backend, "ann").await, "* SEARCH 3 4 5");
    // What the one does in it the other hears, and so does the end of the right.
    ann.ok("NOOP").await;
    ann.ok("UID STORE 3 +FLAGS (\\Deleted)").await;
    ann.ok("EXPUNGE").await;
    let told = bob.ok("NOOP").await.text();
    assert!(told.contains("EXPUNGE"), "{told}");
    ann.ok("SETACL INBOX bob@example.test lr").await;
    let refused = bob.command(b"STORE 1 +FLAGS (\\Seen)").await.tagged;
    assert!(refused.starts_with("NO [NOPERM]"), "{refused}");
    drop((ann, bob));
    assert_eq!(backend.terminate().await, Some(0));
    // Of a volume that is not open nobody knows what it shares: its mailboxes are not gone.
    let d1 = folder(&site, "b1", "d1");
    std::fs::rename(&d1, d1.with_extension("aside")).unwrap();
    backend.start();
    backend.fails("volume d1 is not open: ").await;
    let mut bob = Imap::inbox(&backend, "bob").await;
    let refused = bob
        .command(format!("SELECT {shared}").as_bytes())
        .await
        .tagged;
    assert!(refused.starts_with("NO [UNAVAILABLE]"), "{refused}");
    bob.ok("LIST \"\" \"*\"").await;
    backend.kill();
}

#[tokio::test]
async fn mailboxes_are_shared_on_one_of_several_volumes() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    lmtp(&backend, &["bob", "cid"], &["250", "250"]).await;
    let mut bob = Imap::inbox(&backend, "bob").await;
    bob.ok("SETACL INBOX cid@example.test lrs").await;
    drop(bob);
    assert_eq!(backend.terminate().await, Some(0));
    backend.restart().await;
    // Nobody has looked for Bob yet.
    let shared = "\"Other Users/bob@example.test/INBOX\"";
    let mut cid = Imap::inbox(&backend, "cid").await;
    let listed = cid.ok("LIST \"\" \"*\" RETURN (STATUS (MESSAGES))").await;
    let listed = listed.text();
    assert!(
        listed.contains(&format!("STATUS {shared} (MESSAGES 1)")),
        "{listed}"
    );
    cid.ok(&format!("SELECT {shared}")).await;
    cid.ok("FETCH 1 BODY.PEEK[]").await;
    // After any step of a move he is looked for again.
    let drive = TransferClient::new(site.link(Role::Migrator, &backend));
    let move_id = MoveId::from_octets([7; 16]);
    let account = AccountId(2);
    drive
        .thaw(&Undo {
            account,
            move_id,
            source: None,
            volume: None,
        })
        .await
        .unwrap();
    cid.ok("STORE 1 +FLAGS (\\Seen)").await;
    lmtp(&backend, &["bob"], &["250"]).await;
    let told = cid.ok("NOOP").await.text();
    assert!(told.contains("* 2 EXISTS"), "{told}");
    drop(cid);
    assert_eq!(backend.terminate().await, Some(0));
}

#[tokio::test]
async fn what_an_old_copy_says_of_an_owner_who_lives_elsewhere_now_does_not_count() {
    let site = site().await;
    let mut backend = started(&site, "b1").await;
    lmtp(&backend, &["ann", "bob", "cid"], &["250"; 3]).await;
    let mut bob = Imap::inbox(&backend, "bob").await;
    for who in ["ann", "cid"] {
        let set = format!("SETACL INBOX {who}@example.test lrs");
        bob.ok(&set).await;
    }
    drop(bob);
    assert_eq!(backend.terminate().await, Some(0));
    // Bob comes to the other volume while his old one is missing, and shares nothing there.
    let (d2, aside) = (folder(&site, "b1", "d2"), folder(&site, "b1", "aside"));
    std::fs::rename(&d2, &aside).unwrap();
    site.directory.home_on(2, "b1", "d1", 3);
    backend.start();
    backend.fails("volume d2 is not open: ").await;
    is_announced(&backend, "d1").await;
    lmtp(&backend, &["bob", "bob"], &["250", "250"]).await;
    assert_eq!(backend.terminate().await, Some(0));
    std::fs::rename(&aside, &d2).unwrap();
    backend.restart().await;
    let shared = "\"Other Users/bob@example.test/INBOX\"";
    for local in ["ann", "cid"] {
        let mut imap = Imap::inbox(&backend, local).await;
        let listed = imap.ok("LIST \"\" \"*\"").await.text();
        assert!(!listed.contains("bob@example.test"), "{listed}");
        let select = format!("SELECT {shared}");
        let refused = imap.command(select.as_bytes()).await.tagged;
        assert!(refused.starts_with("NO [NONEXISTENT]"), "{refused}");
    }
    let mut bob = Imap::inbox(&backend, "bob").await;
    bob.ok("SETACL INBOX cid@example.test lrs").await;
    let mut cid = Imap::inbox(&backend, "cid").await;
    let selected = cid.ok(&format!("SELECT {shared}")).await.text();
    assert!(selected.contains("EXISTS"), "{selected}");
    assert_eq!(
        cid.ok("SEARCH ALL").await.text(),
        bob.ok("SEARCH ALL").await.text()
    );
    drop((bob, cid));
    assert_eq!(backend.terminate().await, Some(0));
    // With his volume missing the row of his old one is not taken for him.
    std::fs::rename(folder(&site, "b1", "d1"), &aside).unwrap();
    backend.start();
    backend.fails("volume d1 is not open: ").await;
    is_announced(&backend, "d2").await;
    lmtp(&backend, &["bob", "cid"], &["451", "250"]).await;
    let mut cid = Imap::inbox(&backend, "cid").await;
    let listed = cid.ok("LIST \"\" \"*\"").await.text();
    assert!(!listed.contains("bob@example.test"), "{listed}");
    let select = format!("SELECT {shared}");
    let refused = cid.command(select.as_bytes()).await.tagged;
    assert!(refused.starts_with("NO [UNAVAILABLE]"), "{refused}");
    drop(cid);
    assert_eq!(backend.terminate().await, Some(0));
}

#[tokio::test]
async fn an_account_moves_to_the_volume_that_the_move_names() {
    let site = site().await;
    let b1 = started(&site, "b1").await;
    let b2 = started(&site, "b2").await;
    lmtp(&b1, &["ann"], &["250"]).await;
    let link = |backend| TransferClient::new(site.link(Role::Migrator, backend));
    let (source, target) = (link(&b1), link(&b2));
    let (account, move_id) = (AccountId(1), MoveId::from_octets([7; 16]));
    let epoch = Epoch(1);
    let frozen = source
        .freeze(&Freeze {
            account,
            epoch,
            move_id,
            force: true,
            target: Some("b2".parse().unwrap()),
        })
        .await
        .unwrap();
    let pull = |volume: Option<&str>| Pull {
        account,
        move_id,
        source: "b1".parse().unwrap(),
        source_address: b1.link.to_string(),
        source_epoch: epoch,
        volume: volume.map(|name| name.parse().unwrap()),
        is_last: true,
        octets_per_s: None,
    };
    for wrong in [None, Some("d3")] {
        assert!(target.pull(&pull(wrong)).await.is_err(), "{wrong:?}");
    }
    // One that was given up before anything had come: what comes late of it is refused where it would begin.
    let given_up = MoveId::from_octets([6; 16]);
    for (volume, code) in [("d2", None), ("d3", Some("not_found"))] {
        let undo = Undo {
            account,
            move_id: given_up,
            source: Some("b1".parse().unwrap()),
            volume: Some(volume.parse().unwrap()),
        };
        let refused = target.discard(&undo).await.err();
        let refused = refused.map(|error| match error {
            TransferError::Refused(problem) => problem.code.into_owned(),
            other => panic!("{other:?}"),
        });
        assert_eq!(refused.as_deref(), code);
    }
    let late = Pull {
        move_id: given_up,
        ..pull(Some("d2"))
    };
    match target.pull(&late).await {
        Err(TransferError::Refused(problem)) => assert_eq!(problem.code, "wrong_state"),
        other => panic!("{other:?}"),
    }
    let mut events = target.pull(&pull(Some("d2"))).await.unwrap();
    while events
        .next()
        .await
        .unwrap()
        .is_some_and(|progress| !progress.done)
    {}
    // Taken up again without a name it is known where it was begun.
    let mut events = target.pull(&pull(None)).await.unwrap();
    while events
        .next()
        .await
        .unwrap()
        .is_some_and(|progress| !progress.done)
    {}
    site.directory.home_on(1, "b2", "d2", 2);
    let epoch = Epoch(2);
    let active = target
        .activate(&Activate {
            account,
            move_id,
            epoch,
        })
        .await
        .unwrap();
    assert_eq!(active.set_hash, frozen.set_hash);
    let backend = "b2".parse().unwrap();
    source
        .release(&Release {
            account,
            move_id,
            backend,
            epoch,
        })
        .await
        .unwrap();
    has_metric(
        &b2,
        "posthouse_store_volume_accounts{backend=\"b2\",volume=\"d2\"} 1",
    )
    .await;
    has_metric(
        &b2,
        "posthouse_store_volume_accounts{backend=\"b2\",volume=\"d1\"} 0",
    )
    .await;
    assert_eq!(uids(&b2, "ann").await, "* SEARCH 1");
    // Asked at her old home she is relayed.
    assert_eq!(uids(&b1, "ann").await, "* SEARCH 1");
    lmtp(&b2, &["ann"], &["250"]).await;
    // And back, to the other volume: the row that she left on the first is of the past.
    let move_id = MoveId::from_octets([8; 16]);
    target
        .freeze(&Freeze {
            account,
            epoch,
            move_id,
            force: true,
            target: Some("b1".parse().unwrap()),
        })
        .await
        .unwrap();
    let back = Pull {
        move_id,
        source: "b2".parse().unwrap(),
        source_address: b2.link.to_string(),
        source_epoch: epoch,
        volume: Some("d2".parse().unwrap()),
        ..pull(None)
    };
    let mut events = source.pull(&back).await.unwrap();
    while events
        .next()
        .await
        .unwrap()
        .is_some_and(|progress| !progress.done)
    {}
    site.directory.home_on(1, "b1", "d2", 3);
    let epoch = Epoch(3);
    source
        .activate(&Activate {
            account,
            move_id,
            epoch,
        })
        .await
        .unwrap();
    let backend = "b1".parse().unwrap();
    target
        .release(&Release {
            account,
            move_id,
            backend,
            epoch,
        })
        .await
        .unwrap();
    assert_eq!(uids(&b1, "ann").await, "* SEARCH 1 2");
    let accounts = "posthouse_store_volume_accounts{backend=\"b1\",volume=\"d2\"} 1";
    has_metric(&b1, accounts).await;
}
