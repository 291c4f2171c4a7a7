//! `cargo xtask check`: the steps, in the order in which a mistake is found soonest.

use std::error::Error;

use crate::report::Report;
use crate::tree::Tree;
use crate::{Findings, dependencies, generated, layout, licences};

/// One thing that must hold.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    title: &'static str,
    run: fn(&Tree) -> Findings,
}

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "format",
        title: "the code is formatted",
        run: |tree| cargo(tree, &["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        title: "no warning anywhere",
        run: |tree| {
            cargo(
                tree,
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--features",
                    "e2e/peers",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
            )
        },
    },
    Step {
        name: "test",
        title: "all tests pass",
        run: |tree| cargo(tree, &["test", "--workspace", "--locked"]),
    },
    Step {
        name: "dependencies",
        title: "tiers know infra and never each other",
        run: dependencies::check,
    },
    Step {
        name: "licences",
        title: "every package may be shipped under permissive terms",
        run: licences::check,
    },
    Step {
        name: "generated",
        title: "sample configurations are those of the code",
        run: generated::check,
    },
    Step {
        name: "layout",
        title: "top level, file sizes, unfinished code, links",
        run: layout::check,
    },
];

/// Runs all steps, or the named one; true when nothing was found.
pub(crate) fn run(tree: &Tree, only: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| only.is_none_or(|name| name == step.name))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no step `{}`\n{}", only.unwrap_or_default(), crate::usage()).into());
    }
    let mut report = Report::default();
    for step in chosen {
        report.step(step.name, step.title, || (step.run)(tree));
    }
    Ok(report.summary())
}

fn cargo(tree: &Tree, arguments: &[&str]) -> Findings {
    tree.run("cargo", arguments).map(|()| Vec::new())
}
