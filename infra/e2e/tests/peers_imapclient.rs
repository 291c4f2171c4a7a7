//! Python's IMAPClient, and imaplib below it: `infra/e2e/clients/with_imapclient.py` tells what it does.
#![cfg(feature = "peers")]

use std::process::Command;

use e2e::foreign::{installed, run};
use e2e::samples::corpus;
use e2e::system::System;

#[test]
fn imapclient_appends_reads_marks_moves_searches_idles_and_resyncs() {
    let system = System::start(&["--seed-accounts", "1"]);
    // Every message travels alone and waits for its sync; some from each folder of the corpus are enough.
    let messages: Vec<_> = corpus().into_iter().step_by(10).collect();
    let mut python = Command::new(installed("imapclient/bin/python"));
    run(
        &mut python,
        "with_imapclient.py",
        &system,
        "user00000@example.test",
        &messages,
    );
}
