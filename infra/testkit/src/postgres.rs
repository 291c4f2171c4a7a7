//! A PostgreSQL server of the tests' own: in a folder of its own, on a port of loopback, as a user without rights.
//!
//! It runs only where [`VARIABLE`] is set (`cargo xtask peers` installs Debian's package and sets it); elsewhere tests that
//! want one say that they skipped it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::address::unused_address;
use crate::user_certificate::UserAuthority;

/// Set to anything, it has the tests start a server.
pub const VARIABLE: &str = "POSTHOUSE_TEST_POSTGRES";

/// A running server. Dropped, it is stopped, and its folder removed.
pub struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
    running: Mutex<Option<Child>>,
}

impl Cluster {
    /// One that the tests of a process share: it is stopped when the last of them lets it go. `None`, loudly, where
    /// there shall be none.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        if !is_wanted() {
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        Some(shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        }))
    }

    /// One of a test's own, or `None`, loudly.
    ///
    /// # Panics
    /// When it does not start.
    pub fn own() -> Option<Self> {
        is_wanted().then(Self::start)
    }

    fn start() -> Self {
        let programs = programs().expect("PostgreSQL's programs are installed");
        let dir = tempfile::Builder::new()
            .prefix("posthouse-postgres-")
            .tempdir();
        let dir = dir.expect("a temporary folder can be made");
        if let Some((user, group)) = user() {
            chown(dir.path(), Some(user), Some(group)).expect("root gives folders away");
        }
        let cluster = Self {
            dir,
            programs,
            port: unused_address().port(),
            databases: AtomicU32::new(0),
            running: Mutex::new(None),
        };
        let data = cluster.data();
        cluster.run(
            "initdb",
            &[
                "--auth=trust",
                "--username=posthouse",
                "--encoding=UTF8",
                "--no-sync",
                "-D",
                text(&data),
            ],
        );
        cluster.write_certificate();
        cluster.start_again();
        cluster
    }

    /// For TLS. The server wants its key to be its own.
    fn write_certificate(&self) {
        let authority = UserAuthority::new();
        let server = authority.issue_loopback();
        for (path, text) in [
            (self.ca(), authority.pem()),
            (self.data().join("server.crt"), &server.certificate),
            (self.data().join("server.key"), &server.key),
        ] {
            fs::write(&path, text).expect("the folder can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .expect("the file is ours");
            if let Some((user, group)) = user() {
                chown(&path, Some(user), Some(group)).expect("root gives files away");
            }
        }
    }

    /// The certificate of who signed the server's.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Starts it and waits until it answers, as after [`Cluster::kill`].
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&self) {
        let began = Instant::now();
        loop {
            let mut running = self.running();
            if running
                .as_mut()
                .is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
            {
                // What was left of the one before ends first; until then a new one refuses.
                *running = Some(self.spawn());
            }
            drop(running);
            let (host, port) = (text(self.dir.path()).to_owned(), self.port.to_string());
            let probe = self
                .command("pg_isready")
                .args(["-q", "-h", &host, "-p", &port])
                .status();
            if probe.is_ok_and(|status| status.success()) {
                return;
            }
            assert!(
                began.elapsed() < COMES_UP_MAX,
                "PostgreSQL does not come up, see {}",
                self.log().display()
            );
            sleep(LOOK);
        }
    }

    /// The server ends in order when its guard's input does, be it that this process is killed.
    fn spawn(&self) -> Child {
        const GUARD: &str = r#""$@" & read -r _; kill -INT $!; wait $!"#;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log());
        let log = log.expect("the log can be written");
        let socket = format!("-k{}", self.dir.path().display());
        let port = format!("-p{}", self.port);
        self.command_of("sh")
            .args(["-c", GUARD, "sh"])
            .arg(self.programs.join("postgres"))
            .args(["-D", text(&self.data()), "-h127.0.0.1", &socket, &port])
            .args([
                "-cmax_connections=60",
                "-clog_min_messages=warning",
                "-cssl=on",
            ])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("a shell starts")
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        self.run(
            "createdb",
            &["-h", "127.0.0.1", "-p", &port, "-U", "posthouse", &name],
        );
        format!("postgresql://posthouse@127.0.0.1:{port}/{name}")
    }

    /// Kills the server as the kernel would. What it had acknowledged is on disk.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let number = file
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        let pid = number
            .and_then(Pid::from_raw)
            .expect("the file begins with a number");
        kill_process(pid, Signal::KILL).expect("it runs");
        // The guard has not waited for it yet, so the number is still its own.
        self.end();
    }

    fn end(&self) {
        if let Some(mut guard) = self.running().take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let Output { status, stderr, .. } = self
            .command(program)
            .args(arguments)
            .output()
            .expect("PostgreSQL's programs can be run");
        assert!(
            status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&stderr)
        );
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(self.programs.join(program))
    }

    /// Root is refused by the server.
    fn command_of(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path());
        if let Some((user, group)) = user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_wanted() -> bool {
    static TOLD: Once = Once::new();
    let is_wanted = std::env::var_os(VARIABLE).is_some();
    if !is_wanted {
        // Past the test harness, which keeps the words of a test that passes to itself.
        TOLD.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: nothing was tested on PostgreSQL. `cargo xtask peers --only postgres` installs and tests it; \
                 where it is installed, {VARIABLE}=1 does."
            );
        });
    }
    is_wanted
}

/// Where Debian has them, newest first, or on the path.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    found.sort();
    let on_path = std::env::var_os("PATH")?;
    let debian = found.into_iter().rev().map(|(_, path)| path);
    debian
        .chain(std::env::split_paths(&on_path))
        .find(|path| path.join("initdb").exists())
}

/// The user and group to be, where we are root.
fn user() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

const COMES_UP_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
