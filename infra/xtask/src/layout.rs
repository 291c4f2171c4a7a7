//! What a newcomer sees first: the top level as designed, files of readable size, nothing unfinished, no dead links.

use std::collections::BTreeSet;

use crate::tree::{TIERS, Tree};
use crate::{Findings, links, source};

/// The files of the top level; folders are the tiers and `infra`. Names with a leading dot are free.
const TOP_FILES: [&str; 4] = ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md"];

/// Beyond this a second subject is hiding in the file.
const LINES_MAX: usize = 800;

/// Code that says it is not done, and tests that do not run.
const UNFINISHED: [&str; 5] = [
    "todo !",
    "unimplemented !",
    "# [ ignore",
    ", ignore ) ]",
    ", ignore =",
];

pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = top_level(&tree.files);
    let sources = tree.texts(".rs")?;
    for (path, text) in &sources {
        findings.extend(too_long(path, text));
    }
    findings.extend(unfinished(&sources));
    for (path, text) in tree.texts(".md")? {
        if path == "README.md" || path.starts_with("infra/docs/") {
            findings.extend(links::broken(path, &text, &tree.files));
        }
    }
    Ok(findings)
}

fn top_level(files: &BTreeSet<String>) -> Vec<String> {
    let found: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.split('/').next())
        .collect();
    let wanted: BTreeSet<&str> = TOP_FILES
        .iter()
        .chain(&TIERS)
        .copied()
        .chain(["infra"])
        .collect();
    let missing = wanted
        .difference(&found)
        .map(|name| format!("{name} is missing at the top level"));
    let strange = found
        .difference(&wanted)
        .filter(|name| !name.starts_with('.'));
    missing
        .chain(strange.map(|name| format!("{name} does not belong at the top level")))
        .collect()
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX)
        .then(|| format!("{path} has {lines} lines, more than {LINES_MAX}: split it by subject"))
}

fn unfinished(sources: &[(&str, String)]) -> Vec<String> {
    let files = sources.iter().map(|(path, text)| (*path, text.as_str()));
    source::findings(files, &UNFINISHED, "finish it or take it out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(more: &[&str]) -> BTreeSet<String> {
        let usual =
            TOP_FILES
                .iter()
                .copied()
                .chain([".gitignore", ".ci/run", "infra/xtask/Cargo.toml"]);
        let tiers = TIERS.iter().map(|tier| format!("{tier}/Cargo.toml"));
        usual
            .chain(more.iter().copied())
            .map(str::to_owned)
            .chain(tiers)
            .collect()
    }

    #[test]
    fn the_top_level_is_as_designed() {
        assert_eq!(top_level(&files(&[".clippy.toml"])), [""; 0]);
        assert_eq!(
            top_level(&files(&["notes.txt"])),
            ["notes.txt does not belong at the top level"]
        );
        assert_eq!(
            top_level(&files(&["webmail/src/lib.rs"])),
            ["webmail does not belong at the top level"]
        );
        let mut without = files(&[]);
        without.remove("LICENSE");
        assert_eq!(top_level(&without), ["LICENSE is missing at the top level"]);
    }

    #[test]
    fn a_file_may_have_800_lines_and_not_one_more() {
        assert_eq!(too_long("a.rs", &"x\n".repeat(800)), None);
        assert!(too_long("a.rs", &"x\n".repeat(801)).is_some());
    }

    #[test]
    fn unfinished_code_and_sleeping_tests_are_found() {
        for text in [
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"later\") }",
            "#[test]\n#[ignore]\nfn f() {}",
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
            "#[cfg_attr(unix, ignore)]\nfn f() {}",
            "#[cfg_attr(unix, ignore = \"slow\")]\nfn f() {}",
        ] {
            assert_eq!(unfinished(&[("a.rs", text.to_owned())]).len(), 1, "{text}");
        }
        let fine =
            "/// A `todo!()` in words.\nfn todo(ignore: bool) { f(ignore, \"unimplemented!\") }";
        assert_eq!(unfinished(&[("a.rs", fine.to_owned())]), [""; 0]);
    }
}
