//! One tier as a child process: started, watched, started again when it dies.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::shutdown::Shutdown;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::UpError;
use super::tiers::Pids;
use crate::nodes::Node;

/// What is needed to run one tier as a process.
pub(super) struct Child {
    pub(super) node: Node,
    /// Its settings file.
    pub(super) file: PathBuf,
    /// Where its process id is told.
    pub(super) pids: watch::Sender<Pids>,
    /// Whether the whole system was ready once.
    pub(super) started: Arc<AtomicBool>,
}

impl Child {
    /// Keeps the process running until `stop`, then ends it with SIGTERM and waits for it.
    ///
    /// The caller bounds that wait; a process whose supervision is dropped is killed.
    pub(super) async fn supervise(self, stop: Shutdown) -> Result<(), UpError> {
        let node = self.node;
        let mut pause = PAUSE_MIN;
        loop {
            let begun = Instant::now();
            let mut process = self
                .start()
                .map_err(|source| UpError::Spawn { node, source })?;
            let pid = process.id().unwrap_or_default();
            self.pids.send_modify(|pids| _ = pids.insert(node, pid));
            let ended = tokio::select! {
                ended = process.wait() => ended,
                () = stop.requested() => {
                    terminate(pid);
                    // However it ends now, it was asked to.
                    _ = process.wait().await;
                    return Ok(());
                }
            };
            let status = ended.map_err(|source| UpError::Spawn { node, source })?;
            // One that gives up by itself at the first start has wrong settings or no disk, and would again.
            if status.signal().is_none() && !self.started.load(Ordering::Relaxed) {
                return Err(UpError::ChildEnded { node, status });
            }
            if begun.elapsed() > STEADY {
                pause = PAUSE_MIN;
            }
            warn!(%node, pid, %status, again_in_ms = pause.as_millis() as u64, "process died, starting it again");
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn start(&self) -> io::Result<tokio::process::Child> {
        let own = std::env::current_exe()?;
        let process = Command::new(own)
            .args(["tier", &self.node.tier().to_string()])
            .args(["--supervisor", &std::process::id().to_string(), "--config"])
            .arg(&self.file)
            .stdin(Stdio::null())
            // Ctrl-C at the terminal reaches the whole foreground group; the tiers end in order, when we say so.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        info!(node = %self.node, pid = process.id(), "process started");
        Ok(process)
    }
}

fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // An error means that it has just ended by itself.
        _ = kill_process(pid, Signal::TERM);
    }
}

/// In the child: makes the kernel end this process with its supervisor, even when that one is killed.
///
/// # Errors
/// What the kernel says; `NotFound` when the supervisor is gone already.
pub(crate) fn end_with(supervisor: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above; then somebody else is our parent now.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent == i32::try_from(supervisor).ok() {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The first pause before a dead process is started again; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that ran this long has started well; its next death is a new story.
const STEADY: Duration = Duration::from_secs(10);
