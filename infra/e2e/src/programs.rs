//! The programs under test, built once a test binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The packages whose binaries are tested; each binary has its package's name.
const PACKAGES: [&str; 6] = [
    "posthouse",
    "directory",
    "store-backend",
    "mx-frontend",
    "pop-imap-proxy",
    "migrator",
];

/// Where one of our programs is, built from this tree as the tests are.
///
/// # Panics
/// When the build fails, or there is no such program.
pub fn program(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(build)
        .get(name)
        .unwrap_or_else(|| panic!("no program {name}"))
}

fn build() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--locked",
        "--bins",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(root()).output().unwrap();
    assert!(
        output.status.success(),
        "the programs do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut found = BTreeMap::new();
    for line in output.stdout.split(|octet| *octet == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        if let (Some(name), Some(path)) = (
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    found
}

/// The root of the tree.
#[must_use]
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap()
}
