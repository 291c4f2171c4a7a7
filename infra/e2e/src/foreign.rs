//! Clients that are libraries of another language: a script in that language uses them and judges.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::imap::Imap;
use crate::programs::root;
use crate::samples::Sample;
use crate::smtp::Smtp;
use crate::system::System;

/// Where `cargo xtask peers` puts what comes from a language's own package registry.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn installed(path: &str) -> PathBuf {
    let path = root().join("target/peers").join(path);
    assert!(
        path.exists(),
        "{} is missing: `cargo xtask peers` installs it",
        path.display()
    );
    path
}

/// Runs a script of `infra/e2e/clients` against a system, with the messages there are and those to use one by one; it
/// ends with 0 when all is well.
///
/// It finds ports, login and files in its environment, and all messages in the mailbox `whole`. Each line `DELIVER` that it prints has a message sent to its
/// user by SMTP; its other lines are passed on.
///
/// # Panics
/// When it ends otherwise, or not within two minutes.
pub fn run(
    interpreter: &mut Command,
    script: &str,
    system: &System,
    user: &str,
    whole: &[Sample],
    messages: &[Sample],
) {
    let folder = tempfile::tempdir().unwrap();
    let [all, corpus] = ["whole", "corpus"].map(|name| folder.path().join(name));
    write_all(&all, whole);
    write_all(&corpus, messages);
    let mut imap = Imap::connect(system.endpoints.proxy.imap).login(user, "pass");
    imap.command("CREATE whole");
    imap.append_all("whole", "", whole.iter().map(|one| one.octets.as_slice()));
    let script = root().join("infra/e2e/clients").join(script);
    let mut child = Command::new("timeout")
        .arg("120")
        .arg(interpreter.get_program())
        .args(interpreter.get_args())
        .arg(&script)
        .envs(
            interpreter
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env("IMAP_PORT", system.endpoints.proxy.imap.port().to_string())
        .env(
            "IMAPS_PORT",
            system.endpoints.proxy.imaps.port().to_string(),
        )
        .env("CA", system.ca())
        .env("LOGIN", user)
        .env("PASSWORD", "pass")
        .env("WHOLE", all)
        .env("CORPUS", corpus)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "DELIVER" => {
                Smtp::connect(system.endpoints.mx.smtp)
                    .send(
                        "carla@elsewhere.test",
                        &[user],
                        b"Subject: delivered\r\n\r\nIt comes.\r\n",
                    )
                    .expect(250);
            }
            said => println!("{said}"),
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{} ended with {status}", script.display());
}

fn write_all(folder: &Path, messages: &[Sample]) {
    fs::create_dir(folder).unwrap();
    for (at, sample) in messages.iter().enumerate() {
        fs::write(folder.join(format!("{at:05}.eml")), &sample.octets).unwrap();
    }
}
