//! `posthouse fsck`: looks at the volumes of stopped back-ends, and mends them.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::log::causes;
use daemon::output::print_line;
use serde::Serialize;
use store_backend::volume::{Event, FsckOptions, fsck};

use crate::verbs::Output;

/// Options of `posthouse fsck`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder of a volume: `data` in the settings of its back-end. More than one may be given
    #[arg(long, value_name = "DIR", required = true)]
    volume: Vec<PathBuf>,
    /// Mend what is found. Nothing is deleted: what does not belong goes to `quarantine/` in the volume
    #[arg(long)]
    repair: bool,
    /// Read every message and compare its hash
    #[arg(long)]
    hashes: bool,
    /// Where the index is lost and nothing makes it anew: find the messages by their files. Flags, trace lines and most names
    /// of folders are lost, and mail programs fetch everything anew
    #[arg(long, requires = "repair")]
    new_uidvalidity: bool,
}

#[derive(Serialize)]
struct Line<'l> {
    volume: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mended: Option<bool>,
}

/// Looks at each. Exit codes: 0 nothing is wrong; 1 something was, mended or not; 2 it could not be done.
pub(crate) fn run(options: &Options, output: &Output) -> ExitCode {
    let mut code = 0;
    for path in &options.volume {
        code = code.max(one(options, output, path));
    }
    ExitCode::from(code)
}

fn one(options: &Options, output: &Output, path: &std::path::Path) -> u8 {
    let volume = path.display().to_string();
    let wanted = FsckOptions {
        repair: options.repair,
        hashes: options.hashes,
        new_uidvalidity: options.new_uidvalidity,
    };
    let shows_progress = !output.json && std::io::stderr().is_terminal();
    let mut told: Option<Instant> = None;
    let mut tell = |event: Event<'_>| {
        if output.json {
            let line = match &event {
                Event::Progress(_) => return,
                Event::Fact(part, text) => Line {
                    volume: volume.clone(),
                    event: "fact",
                    part: Some(part.as_str()),
                    text: Some(text),
                    mended: None,
                },
                Event::Found(finding) => Line {
                    volume: volume.clone(),
                    event: "finding",
                    part: Some(finding.part.as_str()),
                    text: Some(&finding.what),
                    mended: Some(finding.mended),
                },
            };
            return print_line(serde_json::to_string(&line).unwrap_or_default());
        }
        match event {
            Event::Progress(text) => {
                if shows_progress && told.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
                    told = Some(Instant::now());
                    eprintln!("… {text}");
                }
            }
            Event::Fact(part, text) => print_line(format_args!("{:8} {text}", part.as_str())),
            Event::Found(finding) => {
                let mark = if finding.mended { "mended" } else { "WRONG" };
                print_line(format_args!(
                    "{:8} {mark}: {}",
                    finding.part.as_str(),
                    finding.what
                ));
            }
        }
    };
    match fsck(path, Arc::new(durable::RealDisk), wanted, &mut tell) {
        Ok(verdict) if verdict.found_count == 0 => {
            if !output.json {
                print_line(format_args!("{volume}: nothing is wrong"));
            }
            0
        }
        Ok(verdict) => {
            if !output.json {
                let left = verdict.found_count - verdict.mended_count;
                print_line(format_args!(
                    "{volume}: {} findings, {} mended, {left} left",
                    verdict.found_count, verdict.mended_count
                ));
                match (left > 0, options.repair) {
                    (true, false) => print_line(
                        "next: posthouse fsck --repair --volume … mends what can be mended",
                    ),
                    (true, true) => {
                        print_line("next: each line above that says WRONG says what to do")
                    }
                    (false, _) => print_line("next: start the back-end"),
                }
            }
            1
        }
        Err(error) => {
            eprintln!("posthouse: {}", causes(&error));
            2
        }
    }
}

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
