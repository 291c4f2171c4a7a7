//! Files that are made from the code: the sample configuration of each tier, as `posthouse sample-config` prints it.

use std::error::Error;
use std::fs;

use crate::Findings;
use crate::tree::{TIERS, Tree};

const FOLDER: &str = "infra/deploy/sample";

/// Compares what the code says with what is in the tree.
pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for tier in TIERS {
        let path = path(tier);
        let fresh = sample(tree, tier)?;
        let stored = tree
            .files
            .contains(&path)
            .then(|| tree.read(&path))
            .transpose()?;
        findings.extend(stale(&path, &fresh, stored.as_deref()));
    }
    Ok(findings)
}

/// Writes the files again.
pub(crate) fn write(tree: &Tree) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(tree.root.join(FOLDER)).map_err(|error| format!("{FOLDER}: {error}"))?;
    for tier in TIERS {
        let path = path(tier);
        fs::write(tree.root.join(&path), sample(tree, tier)?)
            .map_err(|error| format!("{path}: {error}"))?;
        println!("{path}");
    }
    Ok(())
}

fn path(tier: &str) -> String {
    format!("{FOLDER}/{tier}.toml")
}

fn sample(tree: &Tree, tier: &str) -> Result<String, Box<dyn Error>> {
    let text = tree.output(
        "cargo",
        &[
            "run",
            "-q",
            "-p",
            "posthouse",
            "--locked",
            "--",
            "sample-config",
            tier,
        ],
    )?;
    if text.trim().is_empty() {
        return Err(format!("`posthouse sample-config {tier}` printed nothing").into());
    }
    Ok(text)
}

fn stale(path: &str, fresh: &str, stored: Option<&str>) -> Option<String> {
    const CURE: &str = "run `cargo xtask generate` and commit the result";
    let Some(stored) = stored else {
        return Some(format!("{path} is missing: {CURE}"));
    };
    if fresh == stored {
        return None;
    }
    let same = fresh
        .lines()
        .zip(stored.lines())
        .take_while(|(fresh, stored)| fresh == stored)
        .count();
    Some(format!(
        "{path} differs from the code from line {} on: {CURE}",
        same + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_octets_are_fresh() {
        assert_eq!(stale("a.toml", "a = 1\n", Some("a = 1\n")), None);
        assert!(stale("a.toml", "a = 1\n", None).is_some_and(|said| said.contains("missing")));
        assert!(
            stale("a.toml", "a = 1\nb = 2\n", Some("a = 1\nb = 3\n"))
                .is_some_and(|said| said.contains("line 2"))
        );
        assert!(stale("a.toml", "a = 1\n", Some("a = 1")).is_some());
        assert!(
            stale("a.toml", "a = 1\n", Some("a = 1\nb = 2\n"))
                .is_some_and(|said| said.contains("line 2"))
        );
    }
}
