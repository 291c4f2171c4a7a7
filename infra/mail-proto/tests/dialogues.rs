//! Runs the dialogue files: what is said, for every cut of the input.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use mail_proto::smtp::Mode;
use support::{Login, Smtp};
use testkit::dialogue::check_folder;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogue"))
}

#[test]
fn smtp_dialogues_are_kept() {
    check_folder(folder(), "smtp", || Smtp::new(Mode::Smtp));
}

#[test]
fn lmtp_dialogues_are_kept() {
    check_folder(folder(), "lmtp", || Smtp::new(Mode::Lmtp));
}

#[test]
fn pop3_dialogues_are_kept() {
    check_folder(folder(), "pop3", || Login::new(false));
}

#[test]
fn imap_dialogues_are_kept() {
    check_folder(folder(), "imap", || Login::new(true));
}
