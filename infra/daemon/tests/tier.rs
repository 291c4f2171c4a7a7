//! A tier as a process: command line, settings, signals and exit codes. Runs itself as the tier, hence no harness.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitCode, Output, Stdio},
};

use daemon::{config::Settings, shutdown::Shutdown, tier};
use rustix::process::{Pid, Signal, kill_process};

daemon::settings! {
    /// A tier that waits for its end.
    struct Config {
        /// "fail" to fail, "hang" to be slow at the end.
        mood: String = "good".into(),
    }
}
impl Settings for Config {}

#[derive(Debug, thiserror::Error)]
#[error("cannot work")]
struct Failed(#[source] std::io::Error);

async fn run(config: Config, shutdown: Shutdown) -> Result<(), Failed> {
    match config.mood.as_str() {
        "fail" => return Err(Failed(std::io::Error::other("no mood"))),
        "hang" => drop(shutdown.spawn(std::future::pending::<()>())),
        _ => {}
    }
    println!("running");
    shutdown.requested().await;
    Ok(())
}

fn tier(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(arguments)
        .env("RUN_AS_TIER", "1")
        .env_remove("RUST_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = tier(arguments).output().unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

fn started(file: &Path) -> Child {
    let mut child = tier(&["--config", file.to_str().unwrap()]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "running\n");
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn main() -> ExitCode {
    if std::env::var_os("RUN_AS_TIER").is_some() {
        return tier::main("test-tier", "TEST_TIER", run);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tier.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();

    let (code, _, errors) = output(&["--bogus"]);
    assert_eq!(code, Some(2));
    assert!(
        errors.starts_with("test-tier: \"--bogus\" is not an option\n\nUsage: "),
        "{errors}"
    );

    let (code, help, _) = output(&["--help"]);
    assert!(
        code == Some(0) && help.contains("TEST_TIER__SECTION__KEY"),
        "{help}"
    );

    let (code, sample, _) = output(&["--print-sample-config"]);
    assert!(
        code == Some(0) && sample == Config::sample() && sample.contains("mood = \"good\""),
        "{sample}"
    );

    write("mod = \"x\"\n");
    let (code, _, errors) = output(&["--config", path]);
    assert_eq!(
        (code, errors),
        (
            Some(2),
            format!("{path}: mod: is not a setting: did you mean mood?\n")
        )
    );

    write("mood = \"fail\"\n");
    let (code, _, errors) = output(&["--config", path]);
    assert_eq!(
        (code, errors.lines().last()),
        (Some(1), Some("test-tier: cannot work: no mood"))
    );

    for kind in [Signal::TERM, Signal::INT] {
        write("mood = \"good\"\n");
        let mut child = started(&file);
        // It has nothing to read again, and is not to end by that.
        signal(&child, Signal::HUP);
        signal(&child, kind);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        child.stderr.unwrap().read_to_string(&mut log).unwrap();
        assert!(log.contains("draining") && log.contains("drained"), "{log}");
    }

    write("mood = \"hang\"\n");
    let mut child = started(&file);
    signal(&child, Signal::TERM);
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    println!("a tier behaves as a process: ok");
    ExitCode::SUCCESS
}
