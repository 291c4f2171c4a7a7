//! `posthouse down`: tells a running `up` to end and waits until it has.

use daemon::output::print_line;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use directory_api::operator::DATA_DEFAULT;
use rustix::process::{Pid, Signal, kill_process};

use crate::data::{DataError, running};

/// Options of `posthouse down`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Data folder of the system to stop
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
}

/// Why it may still run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownError {
    /// The folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The signal could not be sent.
    #[error("cannot signal process {pid}, which holds {}: {source}; run this as the user who started it", data.display())]
    Signal {
        /// The process.
        pid: u32,
        /// Its folder.
        data: PathBuf,
        /// Why.
        source: rustix::io::Errno,
    },
    /// It does not end.
    #[error("process {pid} still holds {} after {} s; look at its log, and end it with `kill -9 {pid}` if it hangs: nothing accepted is lost", data.display(), PATIENCE.as_secs())]
    StillThere {
        /// The process.
        pid: u32,
        /// Its folder.
        data: PathBuf,
    },
}

/// Ends what runs in the folder. Nothing running is no error.
///
/// # Errors
/// [`DownError`].
pub(crate) fn run(options: &Options) -> Result<(), DownError> {
    let data = &options.data;
    let begun = Instant::now();
    let mut told = None;
    while let Some(holder) = running(data)? {
        // Only the first process met is told: a second signal would cut its drain short.
        if let (None, Some(pid)) = (told, holder.pid) {
            signal(pid).map_err(|source| DownError::Signal {
                pid,
                data: data.clone(),
                source,
            })?;
            print_line(format_args!("posthouse: process {pid} was told to end"));
            told = Some(pid);
        }
        if begun.elapsed() > PATIENCE {
            return Err(DownError::StillThere {
                pid: told.unwrap_or_default(),
                data: data.clone(),
            });
        }
        sleep(POLL);
    }
    print_line(format_args!(
        "posthouse: {} in {}",
        if told.is_some() {
            "stopped"
        } else {
            "nothing runs"
        },
        data.display()
    ));
    Ok(())
}

fn signal(pid: u32) -> Result<(), rustix::io::Errno> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)?;
    match kill_process(pid, Signal::TERM) {
        // It has just ended by itself.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        sent => sent,
    }
}

/// A drain takes 10 s at most, and some time goes into closing files.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
