//! The main function every tier's binary has.

use std::{
    error::Error,
    ffi::OsString,
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    config::{self, Settings},
    log, metrics, open_files,
    shutdown::{Hangup, Shutdown},
};

/// Runs one tier: command line, settings, log, signals, drain. Call it from `main` and return what it gives.
///
/// Exit codes as [`main_with`].
pub fn main<T, E, R, F>(name: &str, env_prefix: &str, run: R) -> ExitCode
where
    T: Settings,
    E: Error + 'static,
    R: FnOnce(T, Shutdown) -> F,
    F: Future<Output = Result<(), E>>,
{
    main_with(std::env::args_os().skip(1), name, env_prefix, run)
}

/// Runs one tier with the arguments given, for a program that holds several.
///
/// Exit codes: 0 after a clean end, 1 when the tier failed, 2 for a wrong command line or settings file, 130 when a
/// second signal cut the drain short.
pub fn main_with<T, E, R, F>(
    arguments: impl Iterator<Item = OsString>,
    name: &str,
    env_prefix: &str,
    run: R,
) -> ExitCode
where
    T: Settings,
    E: Error + 'static,
    R: FnOnce(T, Shutdown) -> F,
    F: Future<Output = Result<(), E>>,
{
    let file = match parse(arguments) {
        Ok(Command::Run(file)) => file,
        Ok(Command::Help) => {
            print!("{}", usage(name, env_prefix));
            return ExitCode::SUCCESS;
        }
        Ok(Command::PrintSample) => {
            print!("{}", T::sample());
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{name}: {wrong}\n\n{}", usage(name, env_prefix).trim_end());
            return ExitCode::from(2);
        }
    };
    main_of(name, env_prefix, &file, run)
}

/// Runs one tier as [`main`] does, for a binary that reads its own command line.
pub fn main_of<T, E, R, F>(name: &str, env_prefix: &str, file: &Path, run: R) -> ExitCode
where
    T: Settings,
    E: Error + 'static,
    R: FnOnce(T, Shutdown) -> F,
    F: Future<Output = Result<(), E>>,
{
    let settings: T = match config::load(file, env_prefix) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    log::init(&settings.log());
    install_crypto();
    metrics::install();
    open_files::raise();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.connection_threads(cores).max(1))
        .enable_all()
        .thread_name(name)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        tokio::spawn(shutdown.clone().on_signals(Hangup::Passes));
        let result = run(settings, shutdown.clone()).await;
        shutdown.begin();
        if shutdown.drained(DRAIN_TIMEOUT).await {
            info!("drained");
        } else {
            warn!(
                tasks = shutdown.tasks_running(),
                "ended before everything was drained"
            );
        }
        result
    });
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", log::causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Makes aws-lc-rs the provider for code that asks rustls for its default. The first call in a process counts.
pub fn install_crypto() {
    // An error means that it is installed already, and no other can be: there is one provider in the tree.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run(PathBuf),
    Help,
    PrintSample,
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments;
    let mut file = None;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        match &*text {
            "--help" | "-h" => return Ok(Command::Help),
            "--print-sample-config" => return Ok(Command::PrintSample),
            "--config" => match arguments.next() {
                Some(path) => file = Some(path.into()),
                None => return Err("--config needs a file".to_owned()),
            },
            _ => match text.strip_prefix("--config=") {
                Some(path) if !path.is_empty() => file = Some(path.into()),
                _ => return Err(format!("{text:?} is not an option")),
            },
        }
    }
    file.map(Command::Run)
        .ok_or_else(|| "no settings file is given".to_owned())
}

fn usage(name: &str, env_prefix: &str) -> String {
    format!(
        "Usage: {name} --config FILE
       {name} --print-sample-config
       {name} --help

Settings come from FILE (TOML). The variable {env_prefix}__SECTION__KEY overrides
one of them, RUST_LOG what is logged. SIGINT and SIGTERM drain; a second one ends at once.
SIGHUP has the certificates that users are shown read again.
"
    )
}

/// How long sessions may take to end; what comes after is cut and, for mail, sent again by the other side.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a blocking call that still runs is waited for.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_small_and_strict() {
        assert_eq!(
            parsed(&["--config", "a.toml"]),
            Ok(Command::Run("a.toml".into()))
        );
        assert_eq!(
            parsed(&["--config=a.toml"]),
            Ok(Command::Run("a.toml".into()))
        );
        assert_eq!(parsed(&["--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["--print-sample-config"]), Ok(Command::PrintSample));
        assert_eq!(parsed(&[]), Err("no settings file is given".into()));
        assert_eq!(parsed(&["--config"]), Err("--config needs a file".into()));
        assert_eq!(
            parsed(&["--conf"]),
            Err("\"--conf\" is not an option".into())
        );
    }
}
