//! Messages to send, and the check that they came out as they went in.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::programs::root;
use crate::smtp::ended;

/// One message.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of its file.
    pub name: String,
    /// Its octets; lines end in CRLF.
    pub octets: Vec<u8>,
}

/// The messages of our own making, broken ones included.
///
/// # Panics
/// When they cannot be read.
#[must_use]
pub fn own() -> Vec<Sample> {
    let samples = read_folder(&root().join("infra/e2e/samples"));
    assert!(samples.len() >= 12, "the samples are missing");
    samples
}

/// Every `.eml` file below a folder, by name.
///
/// # Panics
/// When they cannot be read.
#[must_use]
pub fn read_folder(folder: &Path) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "eml") {
                samples.push(Sample {
                    name: path.display().to_string(),
                    octets: fs::read(&path).unwrap(),
                });
            }
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

/// Panics unless `message` is our trace lines followed by exactly the octets sent.
pub fn assert_delivered(message: &[u8], sample: &Sample, sender: &str) {
    let sent = ended(&sample.octets);
    let name = &sample.name;
    assert!(
        message.ends_with(&sent),
        "{name}: came out changed\n--- sent\n{}\n--- read\n{}",
        sent.escape_ascii(),
        message.escape_ascii()
    );
    let prologue =
        std::str::from_utf8(&message[..message.len() - sent.len()]).expect("trace lines are ASCII");
    assert!(
        prologue.starts_with(&format!("Return-Path: <{sender}>\r\n")),
        "{name}: {prologue:?}"
    );
    assert!(
        prologue.ends_with("\r\n") && !prologue.contains("\r\n\r\n"),
        "{name}: {prologue:?}"
    );
    let last_field = prologue
        .lines()
        .rfind(|line| !line.starts_with([' ', '\t']));
    // Received stands last: it bears whatever the message begins with.
    assert!(
        last_field.is_some_and(|field| field.starts_with("Received: ")),
        "{name}: {prologue:?}"
    );
}

/// The public corpus beside the tree, with line ends as they travel: CRLF for LF. Other CRs stay.
///
/// # Panics
/// When it is not there, saying where it should be, or cannot be unpacked by `zstd` and `tar`.
#[must_use]
pub fn corpus() -> Vec<Sample> {
    let archive = root().join("../shared/corpus/corpus.tar.zst");
    assert!(
        archive.is_file(),
        "the corpus is not at {}",
        archive.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let unpack = "zstd -dc --long=27 \"$1\" | tar -x -C \"$2\"";
    let unpacked = Command::new("sh")
        .args(["-ec", unpack, "sh"])
        .arg(archive)
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(
        unpacked.success(),
        "the corpus cannot be unpacked: {unpacked}"
    );
    let mut samples = read_folder(folder.path());
    assert!(
        samples.len() > 4000,
        "the corpus has {} messages",
        samples.len()
    );
    for sample in &mut samples {
        sample.octets = travelling(&sample.octets);
    }
    samples
}

fn travelling(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

impl Sample {
    /// Whether RFC 5321 lets it travel: no CR by itself (§2.3.8), no line over 998 octets (§4.5.3.1.6).
    #[must_use]
    pub fn may_travel(&self) -> bool {
        ended(&self.octets)
            .split_inclusive(|octet| *octet == b'\n')
            .all(|line| {
                let text = line.strip_suffix(b"\r\n").unwrap_or(line);
                text.len() <= 998 && !text.contains(&b'\r')
            })
    }
}
