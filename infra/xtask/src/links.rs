//! Relative links in Markdown pages, and whether they point at something that exists.

use std::collections::BTreeSet;

/// Says which relative links of a page lead to no file and no folder of the tree.
pub(crate) fn broken(page: &str, text: &str, files: &BTreeSet<String>) -> Vec<String> {
    let exists = |path: &str| {
        path.is_empty() || files.contains(path) || {
            let folder = format!("{path}/");
            files
                .range(folder.clone()..)
                .next()
                .is_some_and(|file| file.starts_with(&folder))
        }
    };
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, target) in targets(text) {
        let path = target.split('#').next().unwrap_or_default();
        // `https:`, `mailto:` and places on the same page are somebody else's, or here.
        if path.is_empty()
            || path
                .split('/')
                .next()
                .is_some_and(|first| first.contains(':'))
        {
            continue;
        }
        if !resolve(folder, path).is_some_and(|path| exists(&path)) {
            findings.push(format!("{page}:{line}: the link to {target} leads nowhere"));
        }
    }
    findings
}

/// Inline links `[…](target)` and definitions `[name]: target` outside code, with their lines from 1.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        let mut add = |rest: &'_ str, start: usize| {
            let end = rest.find([')', ' ', '\t']).unwrap_or(rest.len());
            targets.push((index + 1, &line[start..start + end]));
        };
        if line.starts_with('[')
            && let Some((name, rest)) = line.split_once("]: ")
        {
            add(rest, name.len() + 3);
            continue;
        }
        for (place, found) in line.match_indices("](") {
            // An odd number of back-ticks before it: this stands inside `code`.
            if line[..place].matches('`').count() % 2 == 0 || line[..place].ends_with('`') {
                let start = place + found.len();
                add(&line[start..], start);
            }
        }
    }
    targets
}

/// Joins a link to the folder of its page; `None` when it leaves the tree.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> BTreeSet<String> {
        [
            "README.md",
            "LICENSE",
            "infra/docs/ARCHITECTURE.md",
            "infra/docs/FORMAT.md",
            "infra/deploy/sample/directory.toml",
        ]
        .map(str::to_owned)
        .into()
    }

    #[test]
    fn links_to_files_folders_places_and_other_sites_are_fine() {
        let text = "See [a](infra/docs/ARCHITECTURE.md), [b](infra/docs/), [`c`](infra/docs/FORMAT.md#blob \"title\"),\n\
                    [d](#tour), [e](https://example.test/x), [f](mailto:a@example.test), `[g](code)`.\n\
                    ```text\n[h](in-a-block)\n```\n[i]: LICENSE\n";
        assert_eq!(broken("README.md", text, &files()), [""; 0]);
        assert_eq!(
            broken(
                "infra/docs/FORMAT.md",
                "[up](../../README.md) [here](./ARCHITECTURE.md)",
                &files()
            ),
            [""; 0]
        );
    }

    #[test]
    fn links_to_nothing_are_found_with_their_line() {
        let text = "\n[a](infra/docs/GONE.md) and [b](infra/doc)\n[c](../LICENSE)\n[d](/LICENSE)\n[e]: GONE\n";
        let found = broken("README.md", text, &files());
        let lines: Vec<&str> = found
            .iter()
            .filter_map(|finding| finding.split(':').nth(1))
            .collect();
        assert_eq!(lines, ["2", "2", "3", "4", "5"], "{found:?}");
    }
}
