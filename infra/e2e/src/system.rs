//! A whole system under `posthouse up`, or single programs, ended with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use posthouse::endpoints::Endpoints;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually;
use crate::ports::PortBlock;
use crate::programs::program;

/// A program that is running; killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program with its output in a file of `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
        label: &str,
    ) -> Self {
        let log = folder.join(format!("{label}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(program(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// What it has printed.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Panics when it has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended ({status}):\n{}", self.name, self.printed());
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} printed\n{}", self.name, self.printed());
        }
    }
}

/// Sends a signal to a process by its id.
///
/// # Panics
/// When it is gone.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A system started by `posthouse up`.
pub struct System {
    /// The command itself.
    pub up: Running,
    /// Where everything listens, as it was when it became ready.
    pub endpoints: Endpoints,
    /// The data folder.
    pub data: PathBuf,
    // Below `up`: dropped after it.
    _folder: TempDir,
    _ports: PortBlock,
}

impl System {
    /// Starts a system in a new folder, with further options, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::start_in(folder, data, PortBlock::take(), options)
    }

    fn start_in(folder: TempDir, data: PathBuf, ports: PortBlock, options: &[&str]) -> Self {
        let endpoints = folder.path().join("endpoints.json");
        let base = ports.base.to_string();
        let mut arguments = vec![OsStr::new("up"), OsStr::new("--data"), data.as_os_str()];
        arguments.extend(["--port-base", &base, "--endpoints"].map(OsStr::new));
        arguments.push(endpoints.as_os_str());
        arguments.extend(options.iter().map(OsStr::new));
        let mut up = Running::start("posthouse", arguments, folder.path(), "up");
        let endpoints = eventually("the endpoints file is written", || {
            up.assert_runs();
            read_endpoints(&endpoints)
        });
        Self {
            up,
            endpoints,
            data,
            _folder: folder,
            _ports: ports,
        }
    }

    /// Ends it cleanly and starts it again on the same data.
    ///
    /// # Panics
    /// When it does not end or does not become ready.
    #[must_use]
    pub fn restarted(mut self, options: &[&str]) -> Self {
        self.up.signal(Signal::TERM);
        assert!(self.up.ended().success(), "{}", self.up.printed());
        Self::start_in(self._folder, self.data, self._ports, options)
    }

    /// The endpoints file as it is now.
    ///
    /// # Panics
    /// When it is missing.
    #[must_use]
    pub fn endpoints_now(&self) -> Endpoints {
        read_endpoints(&self.data.join("endpoints.json")).unwrap()
    }

    /// Kills one process of the system and waits until it is replaced and everything serves again.
    ///
    /// # Panics
    /// When it is not replaced.
    pub fn kill_and_wait(&mut self, node: &str) {
        let before = self.endpoints_now().pids[node];
        send(before, Signal::KILL);
        let path = self.data.join("endpoints.json");
        eventually(&format!("{node} is started again"), || {
            self.up.assert_runs();
            read_endpoints(&path).filter(|now| now.pids[node] != before)
        });
        eventually("everything is ready again", || self.status().then_some(()));
    }

    /// Whether `posthouse status` finds all tiers ready.
    ///
    /// # Panics
    /// When the command cannot be run.
    #[must_use]
    pub fn status(&self) -> bool {
        posthouse(&["status", "--data", self.data.to_str().unwrap()]).0
    }

    /// Address and password of a demo account.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn demo(&self, at: usize) -> (String, String) {
        let text = fs::read(self.data.join("demo-accounts.json")).unwrap();
        let demo: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let account = &demo["accounts"][at];
        let text = |key: &str| account[key].as_str().unwrap().to_owned();
        (text("address"), text("password"))
    }

    /// The certificate that users check ours against.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.data.join("pki/ca.pem")
    }

    /// Where a back-end listens for POP3.
    #[must_use]
    pub fn backend_pop3(&self, at: usize) -> SocketAddr {
        self.endpoints.backends[at].pop3
    }
}

fn read_endpoints(path: &Path) -> Option<Endpoints> {
    // Written in one step: what is there is whole.
    fs::read(path)
        .ok()
        .map(|text| serde_json::from_slice(&text).expect("endpoints"))
}

/// Runs `posthouse` to its end: whether it succeeded, and what it printed on both outputs.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn posthouse(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program("posthouse"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}
