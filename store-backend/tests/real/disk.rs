//! A disk that fails, fills up or cannot be trusted, as users, other tiers and the operator see it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use store_api::deliver::Outcome;
use store_backend::Limits;
use testkit::fault_disk::{FaultDisk, Operation};

use crate::deliver::{commit, deliver, open};
use crate::imap_client::Imap;
use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

async fn site() -> Site {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    site
}

async fn by_lmtp(backend: &Backend) -> String {
    Dialogue::lmtp(backend)
        .await
        .deliver(&["ann"], MESSAGE)
        .await[0]
        .clone()
}

async fn by_link(site: &Site, backend: &Backend, txn: u8) -> Outcome {
    let link = site.link(Role::MxFrontend, backend);
    let (open, commit) = (open(txn, &[1]), commit(MESSAGE, &[1]));
    let reply = deliver(&link, &open, MESSAGE, &commit).await.unwrap();
    reply.results[0].outcome.clone()
}

async fn answer(imap: &mut Imap, command: &str) -> String {
    imap.command(command.as_bytes()).await.tagged
}

async fn append(imap: &mut Imap) -> String {
    let text = String::from_utf8_lossy(MESSAGE);
    answer(
        imap,
        &format!("APPEND INBOX {{{}+}}\r\n{text}", MESSAGE.len()),
    )
    .await
}

/// Waits for a line of the metrics.
async fn until_metric(backend: &Backend, line: &str) {
    let began = Instant::now();
    loop {
        let metrics = backend.get("/metrics").await.unwrap_or_default();
        if metrics.lines().any(|found| found.starts_with(line)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "no {line} in\n{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn metric(name: &str, labels: &str, value: u64) -> String {
    format!("posthouse_store_{name}{{backend=\"b1\",volume=\"main\"{labels}}} {value}")
}

#[tokio::test]
async fn a_nearly_full_disk_takes_no_mail_for_now_and_lets_users_make_room() {
    let site = site().await;
    let mut backend = site.backend("b1").await;
    for _ in 0..3 {
        assert!(by_lmtp(&backend).await.starts_with("250 "));
    }
    assert_eq!(backend.terminate().await, Some(0));
    // As full as a disk can be, by the operator's word.
    backend.configure(|text| text.replace("[limits]", "[limits]\ndisk_free_min_percent = 100"));
    backend.restart().await;
    let refused = by_lmtp(&backend).await;
    assert!(refused.starts_with("452 4.3.1 "), "{refused}");
    assert_eq!(by_link(&site, &backend, 1).await, Outcome::Full);
    let mut imap = Imap::inbox(&backend, "ann").await;
    imap.ok("CREATE Trash").await;
    for refused in [
        append(&mut imap).await,
        answer(&mut imap, "COPY 1 Trash").await,
    ] {
        assert!(refused.starts_with("NO [UNAVAILABLE] "), "{refused}");
    }
    imap.ok("FETCH 1 BODY.PEEK[]").await;
    imap.ok("STORE 1 +FLAGS (\\Deleted)").await;
    imap.ok("EXPUNGE").await;
    imap.ok("MOVE 1 Trash").await;
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    assert!(pop3.retrieve(1).await.ends_with(MESSAGE));
    pop3.ask("DELE 1", "+OK").await;
    pop3.ask("QUIT", "+OK").await;
    until_metric(&backend, &metric("volume_refuses_growth", "", 1)).await;
    until_metric(&backend, &metric("volume_short", ",what=\"disk\"", 1)).await;
    until_metric(&backend, &metric("volume_read_only", "", 0)).await;
    until_metric(&backend, "posthouse_store_disk_free_bytes{").await;
    for name in [
        "map_bytes",
        "file_bytes",
        "free_bytes",
        "oldest_reader_seconds",
    ] {
        until_metric(&backend, &format!("posthouse_store_index_{name}{{")).await;
    }
    let health = backend.get("/health").await.unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "it serves: {health}");
    let log = backend.log();
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains("nearly full"))
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains("mark") && said[0].contains("delete something"),
        "{}",
        said[0]
    );
    assert_eq!(backend.terminate().await, Some(0));
    backend.configure(|text| text.replace("percent = 100", "percent = 0"));
    backend.restart().await;
    assert!(by_lmtp(&backend).await.starts_with("250 "));
    until_metric(&backend, &metric("volume_refuses_growth", "", 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_and_then_fails_is_told_to_all_who_write_and_nobody_who_reads() {
    let log = Log::capture();
    let site = site().await;
    let (disk, shutdown) = (FaultDisk::new(1), Shutdown::new());
    disk.set_capacity(1 << 30);
    let limits = Limits {
        disk_free_min_bytes: 1 << 20,
        disk_free_min_percent: 0,
        ..Limits::default()
    };
    let backend = site
        .backend_on("b1", limits, Arc::new(disk.clone()), &shutdown)
        .await;
    assert!(by_lmtp(&backend).await.starts_with("250 "));
    // One of the two takes the room away, the other gives it back, without a restart.
    disk.set_capacity(1 << 20);
    until_metric(&backend, &metric("volume_refuses_growth", "", 1)).await;
    assert!(by_lmtp(&backend).await.starts_with("452 4.3.1 "));
    disk.set_capacity(1 << 30);
    until_metric(&backend, &metric("volume_refuses_growth", "", 0)).await;
    assert!(by_lmtp(&backend).await.starts_with("250 "));
    let mut imap = Imap::inbox(&backend, "ann").await;
    // Whoever syncs next: it is all the same disk.
    disk.fail(Operation::Sync, 0, ErrorKind::Other);
    let refused = by_lmtp(&backend).await;
    assert!(refused.starts_with("451 4.3.0 "), "{refused}");
    assert_eq!(by_link(&site, &backend, 1).await, Outcome::Unavailable);
    for refused in [
        append(&mut imap).await,
        answer(&mut imap, "STORE 1 +FLAGS (\\Seen)").await,
    ] {
        assert!(refused.starts_with("NO [UNAVAILABLE] "), "{refused}");
    }
    imap.ok("FETCH 1:2 BODY.PEEK[]").await;
    let mut pop3 = until_listed(&backend, "ann", 2).await;
    assert!(pop3.retrieve(2).await.ends_with(MESSAGE));
    pop3.ask("DELE 2", "+OK").await;
    pop3.ask("QUIT", "-ERR [SYS/TEMP]").await;
    until_metric(&backend, &metric("volume_read_only", "", 1)).await;
    let journal = metric("volume_failures_total", ",reason=\"journal\"", 1);
    until_metric(&backend, &journal).await;
    let began = Instant::now();
    while !backend
        .get("/health")
        .await
        .unwrap()
        .contains("takes no writes")
    {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let data = backend.data.display().to_string();
    let said = log.lines("takes no more writes");
    assert_eq!(said.len(), 1, "{said:?}");
    for wanted in [&data[..], "00000001.seg", "sync", "restart"] {
        assert!(said[0].contains(wanted), "{wanted}: {}", said[0]);
    }
    assert_eq!(log.lines("nearly full").len(), 1);
    assert_eq!(log.lines("has room again").len(), 1);
    drop((imap, pop3));
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_end_whose_only_volume_finds_no_room_to_open_waits_for_some_and_starts() {
    let site = site().await;
    let (disk, shutdown) = (FaultDisk::new(1), Shutdown::new());
    disk.fill_up_after(0);
    let given = async {
        let began = Instant::now();
        while disk.refused() == 0 {
            assert!(began.elapsed() < PATIENCE, "nothing was tried");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        disk.give_room();
    };
    let limits = Limits {
        disk_free_min_bytes: 0,
        disk_free_min_percent: 0,
        ..Limits::default()
    };
    let on = Arc::new(disk.clone());
    let (backend, ()) = tokio::join!(site.backend_on("b1", limits, on, &shutdown), given);
    assert!(by_lmtp(&backend).await.starts_with("250 "));
    shutdown.begin();
}

#[tokio::test]
async fn a_volume_on_a_file_system_that_is_not_known_is_refused_with_a_list_of_those_that_are() {
    let site = site().await;
    let backend = site.backend("b1").await;
    let data = format!("data = {:?}", backend.data);
    let (code, said) = backend.twin(|config| {
        let elsewhere = config.replace(&data, "data = \"/proc/posthouse\"");
        // Ports of its own, so that it comes as far as the volume.
        let ports = elsewhere
            .lines()
            .filter(|line| !line.contains("_listen") && !line.contains(" = \"127."));
        let text: String = ports.map(|line| format!("{line}\n")).collect();
        let any = "link_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n";
        format!("{any}{text}")
    });
    assert_eq!(code, Some(1), "{said}");
    for wanted in ["/proc/posthouse", "not known", "0x9fa0", "ext4, XFS"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

/// What is logged in this process, by all tests in it.
struct Log;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Log {
    fn capture() -> Self {
        // A second one is not needed.
        let _ = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| Log)
            .try_init();
        Log
    }

    fn lines(&self, part: &str) -> Vec<String> {
        let octets = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&octets);
        let found = text.lines().filter(|line| line.contains(part));
        found.map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A small ext4 on a loop device, mounted where a back-end's volume will lie.
struct Ext4 {
    mounted: PathBuf,
}

impl Ext4 {
    fn mount(at: &Path, size_mib: u64) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let image = at.with_extension("ext4");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(size_mib << 20).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(arguments).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
            assert!(output.status.success(), "{program} needs root: {output:?}");
        };
        // Nothing kept back for root, who runs this.
        run(
            "mkfs.ext4",
            &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_ref()],
        );
        run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()],
        );
        Self {
            mounted: at.to_owned(),
        }
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.mounted).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// Sends numbered messages until this many in a row were refused; every refusal is temporary.
async fn fill(backend: &Backend, next: &mut u64, kept: &mut BTreeSet<u64>, refusals: u64) {
    let mut lmtp = Dialogue::lmtp(backend).await;
    let mut refused = 0;
    while refused < refusals {
        *next += 1;
        let padding = "0123456789abcdef\r\n".repeat(1 + (*next * 997 % 12_000) as usize);
        let message = format!("Subject: {next} end\r\n\r\n{padding}");
        let reply = lmtp.deliver(&["ann"], message.as_bytes()).await.remove(0);
        if reply.starts_with("250 ") {
            kept.insert(*next);
            refused = 0;
        } else {
            assert!(reply.starts_with("452 4.3.1 "), "{reply}");
            refused += 1;
        }
    }
}

/// All numbers that the mailbox has; none twice, none that was not answered with 250, each message whole.
async fn check(backend: &Backend, kept: &BTreeSet<u64>) {
    let mut pop3 = until_listed(backend, "ann", kept.len()).await;
    let mut found = BTreeSet::new();
    for number in 1..=kept.len() {
        let message = String::from_utf8(pop3.retrieve(number).await).unwrap();
        let subject = message.split("Subject: ").nth(1).unwrap();
        let number = subject.split(' ').next().unwrap().parse().unwrap();
        assert!(found.insert(number), "{number} is there twice");
    }
    assert_eq!(found, *kept);
}

/// Needs root and a loop device: `POSTHOUSE_TEST_EXT4=1 cargo test -p store-backend --test real ext4`.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_ext4_that_is_full_is_written_again_when_it_has_room_and_lost_nothing() {
    if std::env::var_os("POSTHOUSE_TEST_EXT4").is_none() {
        return;
    }
    let site = site().await;
    let ext4 = Ext4::mount(&site.data("b1"), 400);
    let filler = ext4.mounted.join("lost+found/filler");
    let fill_with = |octets: usize| std::fs::write(&filler, vec![1; octets]).unwrap();
    // No mark: the disk is to be really full.
    let mark = |octets: u64| {
        format!("expunge_grace_s = 0\ndisk_free_min_percent = 0\ndisk_free_min_bytes = {octets}")
    };
    let mut backend = site.backend_starting("b1", &mark(0));
    backend.ready().await;
    let (mut next, mut kept) = (0, BTreeSet::new());
    for round in 0..3 {
        fill_with(60 << 20);
        fill(&backend, &mut next, &mut kept, 20).await;
        println!("round {round}: {} of {next} kept", kept.len());
        check(&backend, &kept).await;
        let give_room = || std::fs::remove_file(&filler).unwrap();
        if round == 2 {
            // A start on the full disk, whatever it finds room for.
            backend.kill();
            let soon = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                give_room();
            };
            tokio::join!(backend.restart(), soon);
            check(&backend, &kept).await;
        } else {
            give_room();
        }
        let began = Instant::now();
        loop {
            next += 1;
            let message = format!("Subject: {next} end\r\n\r\n{}", "x\r\n".repeat(100_000));
            let mut lmtp = Dialogue::lmtp(&backend).await;
            if lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 ") {
                kept.insert(next);
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "it is not written again: {}",
                backend.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        check(&backend, &kept).await;
        if round == 1 {
            backend.kill();
            backend.restart().await;
            check(&backend, &kept).await;
        }
        // The user makes room.
        let mut imap = Imap::inbox(&backend, "ann").await;
        imap.ok("STORE 1:* +FLAGS (\\Deleted)").await;
        imap.ok("EXPUNGE").await;
        kept.clear();
    }
    // With a mark the disk never gets so full, and the user alone makes room.
    assert_eq!(backend.terminate().await, Some(0));
    backend.configure(|text| text.replace(&mark(0), &mark(50 << 20)));
    backend.restart().await;
    for _ in 0..2 {
        fill(&backend, &mut next, &mut kept, 20).await;
        check(&backend, &kept).await;
        let mut imap = Imap::inbox(&backend, "ann").await;
        imap.ok("STORE 1:* +FLAGS (\\Deleted)").await;
        imap.ok("EXPUNGE").await;
        kept.clear();
        until_metric(&backend, &metric("volume_refuses_growth", "", 0)).await;
    }
    let log = backend.log();
    assert!(
        log.contains("no room") && log.contains("there is room again"),
        "{log}"
    );
    assert!(!log.contains("takes no more writes"), "{log}");
    assert_eq!(backend.terminate().await, Some(0));
}
