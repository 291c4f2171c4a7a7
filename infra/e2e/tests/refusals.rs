//! What keeps `posthouse up` from starting: one clear line, an exit code, nothing damaged.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use e2e::ports::PortBlock;
use e2e::system::{System, posthouse};

/// Tries to start, expects a refusal in one line that holds every word.
fn refused(data: &Path, base: u16, words: &[&str]) {
    let (success, said) = posthouse(&[
        "up",
        "--data",
        data.to_str().unwrap(),
        "--port-base",
        &base.to_string(),
    ]);
    assert!(!success, "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entry = |entry: fs::DirEntry| (entry.path(), fs::read(entry.path()).unwrap_or_default());
    fs::read_dir(folder)
        .unwrap()
        .map(|found| entry(found.unwrap()))
        .collect()
}

#[test]
fn a_busy_port_is_named_with_its_purpose() {
    let ports = PortBlock::take();
    let folder = tempfile::tempdir().unwrap();
    let address = ports.of(posthouse::ports::Port::Pop3s);
    let _held = TcpListener::bind(address).unwrap();
    refused(
        &folder.path().join("data"),
        ports.base,
        &[&address.to_string(), "proxy pop3s", "--port-base"],
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let ports = PortBlock::take();
    refused(&file, ports.base, &[file.to_str().unwrap(), "--data"]);
    refused(
        &file.join("below"),
        ports.base,
        &[file.to_str().unwrap(), "--data"],
    );
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_folder_that_is_not_ours_or_newer_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let ports = PortBlock::take();
    fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    let before = contents(folder.path());
    refused(folder.path(), ports.base, &["not Posthouse's", "--data"]);
    assert_eq!(contents(folder.path()), before);

    fs::write(
        folder.path().join("posthouse.json"),
        r#"{"product":"posthouse","format":999}"#,
    )
    .unwrap();
    let before = contents(folder.path());
    refused(folder.path(), ports.base, &["format 999"]);
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_second_start_is_refused_and_down_ends_the_first() {
    let mut system = System::start(&[]);
    let data = system.data.to_str().unwrap().to_owned();
    let ports = PortBlock::take();
    refused(
        &system.data,
        ports.base,
        &[
            &format!("process {}", system.endpoints.pid),
            "posthouse down",
        ],
    );
    assert!(system.status());

    let (success, said) = posthouse(&["down", "--data", &data]);
    assert!(success, "{said}");
    assert!(system.up.ended().success(), "{}", system.up.printed());
    assert!(system.up.printed().contains("draining") && system.up.printed().ends_with("done\n"));
    assert!(!system.data.join("endpoints.json").exists());
    assert!(!system.status(), "nothing runs, and status says so");
    let (success, said) = posthouse(&["down", "--data", &data]);
    assert!(success && said.contains("nothing runs"), "{said}");
    let elsewhere = tempfile::tempdir().unwrap();
    let (success, said) = posthouse(&["down", "--data", elsewhere.path().to_str().unwrap()]);
    assert!(!success && said.contains("--data"), "{said}");
}

#[test]
fn a_verb_that_fails_says_why_in_one_line() {
    let system = System::start(&[]);
    let data = system.data.to_str().unwrap();
    for (verb, word) in [
        (["domain", "remove", "example.test"], "domain example.test"),
        (
            ["account", "show", "nobody@example.test"],
            "posthouse account list",
        ),
        (["backend", "remove", "b1"], "backend b1"),
    ] {
        let (success, said) = posthouse(&[verb.as_slice(), &["--data", data]].concat());
        assert!(
            !success && said.trim_end().lines().count() == 1 && said.contains(word),
            "{said}"
        );
    }
    let (success, said) = posthouse(&["account", "list", "--data", data, "--json"]);
    assert!(success, "{said}");
    assert_eq!(said.lines().count(), 2);
    assert!(
        said.contains("anna@example.test") && !said.contains(&system.demo(0).1),
        "{said}"
    );
}
