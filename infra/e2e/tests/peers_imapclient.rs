//! Python's IMAPClient, and imaplib below it: `infra/e2e/clients/with_imapclient.py` tells what it does.
#![cfg(feature = "peers")]

use std::process::Command;

use e2e::foreign::{installed, run};
use e2e::samples::corpus;
use e2e::system::System;

#[test]
fn imapclient_appends_reads_marks_moves_searches_idles_and_resyncs() {
    let system = System::start(&["--seed-accounts", "1"]);
    let whole = corpus();
    // These travel alone and wait for their sync: some from each folder of the corpus are enough.
    let messages: Vec<_> = whole.iter().step_by(10).cloned().collect();
    let mut python = Command::new(installed("imapclient/bin/python"));
    run(
        &mut python,
        "with_imapclient.py",
        &system,
        "user00000@example.test",
        &whole,
        &messages,
    );
}
