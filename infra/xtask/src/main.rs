//! The one command for every check of this repository: `cargo xtask check`, `cargo xtask peers`, `cargo xtask generate`.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use tree::Tree;

mod check;
mod dependencies;
mod generated;
mod layout;
mod licences;
mod links;
mod metadata;
mod peers;
mod report;
mod source;
mod tree;

/// What a step found wrong, one line each; an error when the step itself could not be run.
type Findings = Result<Vec<String>, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = Tree::open().and_then(|tree| match words.as_slice() {
        ["check"] => check::run(&tree, None),
        ["check", "--only", step] => check::run(&tree, Some(step)),
        ["peers"] => peers::run(&tree, None),
        ["peers", "--only", peer] => peers::run(&tree, Some(peer)),
        ["generate"] => generated::write(&tree).map(|()| true),
        _ => Err(usage().into()),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let names = |names: Vec<&str>| names.join(" ");
    format!(
        "usage:\n  \
         cargo xtask check [--only STEP]   every check; steps: {}\n  \
         cargo xtask peers [--only PEER]   tests with other people's programs; peers: {}\n  \
         cargo xtask generate              write the generated files again",
        names(check::STEPS.iter().map(|step| step.name).collect()),
        names(peers::PEERS.iter().map(|peer| peer.name).collect()),
    )
}
