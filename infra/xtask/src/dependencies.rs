//! The dependency rule: tiers know `infra/` and never each other; protocol and journal cores stay free of I/O and of mail.

use crate::Findings;
use crate::metadata::{Graph, Kind, Package};
use crate::source;
use crate::tree::{TIERS, Tree};

/// Packages of `infra/` that start or test the tiers and therefore know them.
const KNOW_TIERS: [&str; 2] = ["posthouse", "e2e"];

/// Packages nobody may build upon, with those who may all the same.
const ENDS: [(&str, &[&str]); 3] = [("posthouse", &["e2e"]), ("e2e", &[]), ("xtask", &[])];

/// Packages that must never reach some others, not even through a third; a final `*` stands for any ending.
const KEPT_OUT: [(&str, &[&str], &str); 2] = [
    (
        "mail-proto",
        &["tokio*", "hyper*", "futures*", "mio", "socket2"],
        "protocol cores have no I/O, no clock, no async",
    ),
    (
        "durable",
        &[
            "tokio*",
            "hyper*",
            "futures*",
            "mio",
            "socket2",
            "mail-*",
            "directory-api",
            "store-api",
        ],
        "the journal is synchronous and knows no mail",
    ),
];

/// Code that would give a protocol core a clock or I/O by way of the standard library.
const IMPURE: [&str; 8] = [
    "async fn",
    "async move",
    "Instant : : now",
    "SystemTime : : now",
    "std : : fs",
    "std : : thread",
    "TcpStream",
    "UdpSocket",
];

pub(crate) fn check(tree: &Tree) -> Findings {
    let graph = Graph::load(tree)?;
    let mut findings = edges(&graph);
    findings.extend(kept_out(&graph));

    // `cargo metadata` also resolves optional parts that no feature turns on; `cargo tree` lists what is built.
    let built = tree.output(
        "cargo",
        &[
            "tree",
            "--workspace",
            "--locked",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ],
    )?;
    findings.extend(second_tls_provider(&built));

    let sources = tree.texts(".rs")?;
    findings.extend(unsafe_code(&sources));
    findings.extend(impure_code(&sources));
    Ok(findings)
}

/// Judges who depends directly on whom, for build, run and tests alike.
fn edges(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for from in &graph.packages {
        let Some(from_folder) = &from.folder else {
            continue;
        };
        for &(to, kind) in &from.uses {
            let to = &graph.packages[to];
            let Some(to_folder) = &to.folder else {
                continue;
            };
            if let Some(why) = objection((from, top(from_folder)), (to, top(to_folder)), kind) {
                findings.push(format!("{} depends on {}: {why}", from.name, to.name));
            }
        }
    }
    findings
}

fn objection(
    (from, from_top): (&Package, &str),
    (to, to_top): (&Package, &str),
    kind: Kind,
) -> Option<&'static str> {
    if TIERS.contains(&to_top) && from_top != to_top {
        if TIERS.contains(&from_top) {
            return Some("a tier never depends on another tier; share through a package in infra/");
        }
        if !KNOW_TIERS.contains(&from.name.as_str()) {
            return Some("nothing in infra/ depends on a tier, except posthouse and e2e");
        }
    }
    if let Some((_, friends)) = ENDS.iter().find(|(end, _)| *end == to.name)
        && !friends.contains(&from.name.as_str())
    {
        return Some("this package stands at the end, nothing is built upon it");
    }
    // e2e is nothing but tests, and nothing can depend on it.
    if to.name == "testkit" && kind != Kind::Dev && from.name != "e2e" {
        return Some("testkit is for tests: make it a dev-dependency");
    }
    None
}

fn kept_out(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, banned, why) in KEPT_OUT {
        let Some(member) = graph.member(name) else {
            findings.push(format!("{name}, which a rule is about, is not in the workspace: change the rule or the name"));
            continue;
        };
        for reached in graph.closure(member) {
            let reached = &graph.packages[reached].name;
            if banned.iter().any(|pattern| matches(pattern, reached)) {
                findings.push(format!(
                    "{name} reaches {reached}: {why} (see `cargo tree -p {name} -i {reached}`)"
                ));
            }
        }
    }
    findings
}

/// Two providers in one binary make rustls panic at start; ours is aws-lc-rs. Takes the lines of `cargo tree`.
fn second_tls_provider(built: &str) -> Option<String> {
    let ring = built.lines().find(|line| line.starts_with("ring "))?;
    Some(format!(
        "{} is built: TLS uses aws-lc-rs alone (see `cargo tree --workspace -i ring`)",
        ring.trim_end()
    ))
}

fn unsafe_code(sources: &[(&str, String)]) -> Vec<String> {
    let files = sources
        .iter()
        .filter(|(path, _)| !path.starts_with("infra/lmdb/"));
    source::findings(
        files.map(|(path, text)| (*path, text.as_str())),
        &["unsafe"],
        "only infra/lmdb may",
    )
}

fn impure_code(sources: &[(&str, String)]) -> Vec<String> {
    let files = sources
        .iter()
        .filter(|(path, _)| path.starts_with("infra/mail-proto/src/"));
    source::findings(
        files.map(|(path, text)| (*path, text.as_str())),
        &IMPURE,
        "mail-proto has no I/O, no clock, no async",
    )
}

fn top(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a graph from `(name, folder)`, an empty folder meaning somebody else's, and `(from, to, kind)`.
    fn graph(packages: &[(&str, &str)], uses: &[(&str, &str, Kind)]) -> Graph {
        let position = |name: &str| packages.iter().position(|(own, _)| *own == name).unwrap();
        let package = |&(name, folder): &(&str, &str)| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: None,
            folder: (!folder.is_empty()).then(|| folder.to_owned()),
            uses: uses
                .iter()
                .filter(|(from, ..)| *from == name)
                .map(|(_, to, kind)| (position(to), *kind))
                .collect(),
        };
        Graph {
            packages: packages.iter().map(package).collect(),
        }
    }

    const PACKAGES: &[(&str, &str)] = &[
        ("mx-frontend", "mx-frontend"),
        ("directory", "directory"),
        ("directory-engine", "directory/engine"),
        ("daemon", "infra/daemon"),
        ("posthouse", "infra/posthouse"),
        ("e2e", "infra/e2e"),
        ("testkit", "infra/testkit"),
        ("xtask", "infra/xtask"),
        ("mail-proto", "infra/mail-proto"),
        ("durable", "infra/durable"),
        ("bytes", ""),
        ("tokio", ""),
    ];

    #[test]
    fn arrows_towards_infra_are_allowed() {
        let allowed = [
            ("mx-frontend", "daemon", Kind::Normal),
            ("mx-frontend", "testkit", Kind::Dev),
            ("directory", "directory-engine", Kind::Normal),
            ("posthouse", "mx-frontend", Kind::Normal),
            ("e2e", "posthouse", Kind::Dev),
            ("e2e", "directory", Kind::Normal),
            ("e2e", "testkit", Kind::Normal),
            ("daemon", "tokio", Kind::Normal),
        ];
        assert_eq!(edges(&graph(PACKAGES, &allowed)), [""; 0]);
    }

    #[test]
    fn arrows_between_tiers_or_out_of_infra_are_refused() {
        for refused in [
            ("mx-frontend", "directory", Kind::Normal),
            ("mx-frontend", "directory", Kind::Dev),
            ("mx-frontend", "directory-engine", Kind::Build),
            ("daemon", "directory", Kind::Normal),
            ("testkit", "directory", Kind::Dev),
            ("mx-frontend", "posthouse", Kind::Normal),
            ("daemon", "e2e", Kind::Dev),
            ("posthouse", "xtask", Kind::Normal),
            ("daemon", "testkit", Kind::Normal),
            ("mx-frontend", "testkit", Kind::Build),
        ] {
            assert_eq!(edges(&graph(PACKAGES, &[refused])).len(), 1, "{refused:?}");
        }
    }

    #[test]
    fn what_is_kept_out_is_found_behind_a_third_package() {
        let reached = [
            ("mail-proto", "bytes", Kind::Normal),
            ("bytes", "tokio", Kind::Normal),
        ];
        let found = kept_out(&graph(PACKAGES, &reached));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("mail-proto reaches tokio"),
            "{found:?}"
        );
        let found = kept_out(&graph(PACKAGES, &[("durable", "mail-proto", Kind::Normal)]));
        assert!(
            found[0].starts_with("durable reaches mail-proto"),
            "{found:?}"
        );
    }

    #[test]
    fn what_only_tests_use_is_not_kept_out() {
        let reached = [
            ("mail-proto", "tokio", Kind::Dev),
            ("durable", "bytes", Kind::Normal),
        ];
        assert_eq!(kept_out(&graph(PACKAGES, &reached)), [""; 0]);
    }

    #[test]
    fn a_rule_about_a_package_that_is_gone_is_a_finding() {
        assert_eq!(
            kept_out(&graph(&[("durable", "infra/durable")], &[])).len(),
            1
        );
    }

    #[test]
    fn ring_is_found_and_words_that_contain_it_are_not() {
        assert!(second_tls_provider("rustls v0.23.46\nring v0.17.14\n").is_some());
        assert_eq!(
            second_tls_provider("rustls v0.23.46\nstring-ring v1.0.0\nspring v1.0.0\n"),
            None
        );
    }

    #[test]
    fn unsafe_is_for_lmdb_alone() {
        let body = "fn f() { unsafe { g() } }".to_owned();
        let found = unsafe_code(&[
            ("infra/lmdb/src/lib.rs", body.clone()),
            ("infra/durable/src/lib.rs", body),
        ]);
        assert_eq!(
            found,
            ["infra/durable/src/lib.rs:1: `unsafe`: only infra/lmdb may"]
        );
    }

    #[test]
    fn a_clock_in_mail_proto_is_found() {
        let body = "fn f() -> std::time::Instant { std::time::Instant::now() }".to_owned();
        let found = impure_code(&[
            ("infra/mail-proto/src/smtp.rs", body.clone()),
            ("infra/daemon/src/lib.rs", body),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
