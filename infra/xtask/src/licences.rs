//! Every package we build may be shipped together with ours: its SPDX expression can be met from an allow list.

use spdx::{Expression, ParseMode};

use crate::Findings;
use crate::metadata::{Graph, Package};
use crate::tree::Tree;

/// Permissive terms only. Weak copyleft (MPL, LGPL) is left out on purpose: nothing we build needs it.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "OpenSSL",
    "Unicode-3.0",
    "Zlib",
];

pub(crate) fn check(tree: &Tree) -> Findings {
    let graph = Graph::load(tree)?;
    println!("{} packages", graph.packages.len());
    Ok(graph.packages.iter().filter_map(finding).collect())
}

fn finding(package: &Package) -> Option<String> {
    let Package {
        name,
        version,
        licence,
        ..
    } = package;
    let Some(licence) = licence else {
        return Some(format!(
            "{name} {version} names no licence (`license` in its manifest)"
        ));
    };
    match may_be_shipped(licence) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{name} {version}: `{licence}` cannot be met from the allow list: {}",
            ALLOWED.join(", ")
        )),
        Err(error) => Some(format!(
            "{name} {version}: `{licence}` is no SPDX expression: {}",
            error.reason
        )),
    }
}

/// True when some choice among the alternatives needs allowed licences only. Old manifests write `/` for `OR`.
fn may_be_shipped(licence: &str) -> Result<bool, spdx::ParseError> {
    let expression = Expression::parse_mode(
        licence,
        ParseMode {
            allow_slash_as_or_operator: true,
            ..ParseMode::STRICT
        },
    )?;
    Ok(expression.evaluate(|wanted| {
        // An exception (`WITH …`) is a text of its own: nobody has read it, and no package leaves us no other choice.
        wanted.addition.is_none()
            && wanted
                .license
                .id()
                .is_some_and(|id| ALLOWED.contains(&id.name))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissive_terms_and_a_permissive_choice_are_allowed() {
        for licence in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "GPL-3.0-only OR MIT",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR ISC) AND OpenSSL",
        ] {
            assert_eq!(may_be_shipped(licence).ok(), Some(true), "{licence}");
        }
    }

    #[test]
    fn copyleft_without_another_choice_is_refused() {
        for licence in [
            "GPL-3.0-only",
            "AGPL-3.0-or-later",
            "MIT AND GPL-2.0-only",
            "LGPL-2.1-or-later",
            "MPL-2.0",
            "(MIT OR Apache-2.0) AND AGPL-3.0-only",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "LicenseRef-Proprietary",
        ] {
            assert_eq!(may_be_shipped(licence).ok(), Some(false), "{licence}");
        }
    }

    #[test]
    fn a_missing_or_unreadable_licence_is_a_finding() {
        let package = |licence: Option<&str>| Package {
            name: "some".to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.map(str::to_owned),
            folder: None,
            uses: Vec::new(),
        };
        for licence in [
            None,
            Some(""),
            Some("MIT OR"),
            Some("Public Domain"),
            Some("AGPL-3.0-only"),
        ] {
            assert!(finding(&package(licence)).is_some(), "{licence:?}");
        }
        assert_eq!(finding(&package(Some("Zlib"))), None);
    }
}
