//! An OpenLDAP server of the tests' own: in a folder of its own, on a port of loopback.
//!
//! It runs only where [`VARIABLE`] is set (`cargo xtask peers` installs Debian's package and sets it); elsewhere tests that
//! want one say that they skipped it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::address::unused_address;
use crate::user_certificate::UserAuthority;

/// Set to anything, it has the tests start a server.
pub const VARIABLE: &str = "POSTHOUSE_TEST_SLAPD";
/// Under which all entries are.
pub const BASE: &str = "dc=x,dc=test";
/// Who may change entries.
pub const ADMIN: &str = "cn=admin,dc=x,dc=test";
/// Who may read them.
pub const READER: &str = "cn=reader,dc=x,dc=test";
/// The password of both.
pub const PASSWORD: &str = "of the servers";

/// A running server. Dropped, it is killed, and its folder removed.
pub struct Slapd {
    dir: TempDir,
    address: SocketAddr,
    authority: UserAuthority,
    /// Lines of its settings that a test has added.
    limits: String,
    running: Option<Child>,
}

impl Slapd {
    /// One that has BASE, ADMIN and READER, or `None`, loudly.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn own() -> Option<Self> {
        static TOLD: Once = Once::new();
        if std::env::var_os(VARIABLE).is_none() {
            // Past the test harness, which keeps the words of a test that passes to itself.
            TOLD.call_once(|| {
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: nothing was tested on OpenLDAP. `cargo xtask peers --only slapd` installs and tests it; \
                     where it is installed, {VARIABLE}=1 does."
                );
            });
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("posthouse-slapd-")
            .tempdir();
        let mut slapd = Self {
            dir: dir.expect("a temporary folder can be made"),
            address: unused_address(),
            authority: UserAuthority::new(),
            limits: String::new(),
            running: None,
        };
        let server = slapd.authority.issue_loopback();
        for (name, text) in [
            ("ca.pem", slapd.authority.pem()),
            ("server.pem", &server.certificate),
            ("server.key", &server.key),
            ("reader.password", PASSWORD),
        ] {
            fs::write(slapd.path(name), text).expect("the folder can be written");
        }
        fs::create_dir(slapd.path("data")).expect("the folder can be written");
        slapd.start();
        Some(slapd)
    }

    /// A file of the folder: `ca.pem`, `reader.password`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    /// Starts it, as after [`Slapd::kill`], and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self) {
        self.write_settings();
        let log = fs::File::create(self.path("log")).expect("the log can be written");
        let child = Command::new("/usr/sbin/slapd")
            .args(["-h", &self.url(), "-d", "0", "-f"])
            .arg(self.path("slapd.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn();
        self.running = Some(child.expect("OpenLDAP is installed"));
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(
                began.elapsed() < COMES_UP_MAX,
                "OpenLDAP does not come up, see {}",
                self.path("log").display()
            );
            sleep(LOOK);
        }
    }

    /// Starts it anew with lines more in its settings, such as `limits * size=2`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart_with(&mut self, limits: &str) {
        self.kill();
        limits.clone_into(&mut self.limits);
        self.start();
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it cannot.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// It takes connections and answers nothing, until it [goes on](Slapd::go_on).
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// The end of [`Slapd::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.running.as_ref().map(Child::id).expect("it runs");
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has a number"), signal).expect("it is ours");
    }

    fn write_settings(&self) {
        let mut text = String::new();
        for schema in ["core", "cosine", "inetorgperson"] {
            let _ = writeln!(text, "include /etc/ldap/schema/{schema}.schema");
        }
        let at = |name: &str| self.path(name).display().to_string();
        let _ = writeln!(
            text,
            "modulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             TLSCertificateFile {}\nTLSCertificateKeyFile {}\n\
             database mdb\nsuffix {BASE}\nrootdn {ADMIN}\nrootpw \"{PASSWORD}\"\ndirectory {}\n\
             maxsize 268435456\ndbnosync\nindex objectClass,entryUUID eq\n{}\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=\"{READER}\" read by anonymous auth by * none",
            at("server.pem"),
            at("server.key"),
            at("data"),
            self.limits,
        );
        fs::write(self.path("slapd.conf"), text).expect("the folder can be written");
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

const COMES_UP_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
