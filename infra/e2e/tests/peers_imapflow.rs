//! Node's imapflow: `infra/e2e/clients/with_imapflow.js` tells what it does.
#![cfg(feature = "peers")]

use std::process::Command;

use e2e::foreign::{installed, run};
use e2e::samples::corpus;
use e2e::system::System;

#[test]
fn imapflow_appends_reads_marks_moves_searches_idles_and_resyncs() {
    let system = System::start(&["--seed-accounts", "1"]);
    let whole = corpus();
    // These travel alone and wait for their sync: some from each folder of the corpus are enough.
    let chosen = whole.iter().skip(5).step_by(10).cloned();
    let messages: Vec<_> = chosen.filter(|sample| !is_too_deep(&sample.name)).collect();
    let mut node = Command::new("node");
    node.env("NODE_PATH", installed("imapflow/node_modules"));
    run(
        &mut node,
        "with_imapflow.js",
        &system,
        "user00000@example.test",
        &whole,
        &messages,
    );
}

/// imapflow reads no more than 25 parentheses within each other, and drops a message whose structure has more.
fn is_too_deep(name: &str) -> bool {
    let made = [
        "nested-multipart-40",
        "nested-multipart-150",
        "nested-rfc822-30",
        "nested-rfc822-120",
    ];
    made.iter().any(|made| name.contains(made))
}
