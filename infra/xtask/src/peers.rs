//! `cargo xtask peers`: our system against other people's programs, which are installed from Debian first; libraries
//! that it lacks come from their language's own registry into the target folder.
//!
//! A peer test is an integration test of the package `e2e`, `infra/e2e/tests/peers_<name>.rs`, behind the feature
//! `peers`, so that `cargo test --workspace` needs nothing but Rust and a C compiler. The peers that are file systems are a
//! test inside the store, which a variable tells which one to use; PostgreSQL and OpenLDAP are under tests of the directory,
//! which a variable has start one.

use std::collections::BTreeSet;
use std::error::Error;

use crate::Findings;
use crate::report::Report;
use crate::tree::Tree;

mod debian;
mod library;

use library::{Language, Library};

/// One test with other people's programs.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What it shows, for the heading.
    title: &'static str,
    /// Debian packages it needs; each has a row in [`debian::PACKAGES`].
    packages: &'static [&'static str],
    /// What Debian does not have.
    library: Option<Library>,
    at: Place,
}

/// Where a peer's test is.
enum Place {
    /// A file of its own.
    EndToEnd,
    /// Inside a package; a variable says that it is to use this peer.
    Inside {
        test: &'static str,
        variable: &'static str,
    },
    /// In files of tests of a package and inside it, with such names; a variable says that the peer is there.
    Files {
        package: &'static str,
        files: &'static [&'static str],
        tests: &'static str,
        variable: &'static str,
    },
}

/// Power cuts of the store on a file system of the kernel's.
const fn file_system(
    name: &'static str,
    title: &'static str,
    packages: &'static [&'static str],
) -> Peer {
    Peer {
        name,
        title,
        packages,
        library: None,
        at: Place::Inside {
            test: "volume::tests::power_cut::file_system::a_power_cut_under_a_real_file_system_loses_and_doubles_nothing",
            variable: "POSTHOUSE_TEST_FILE_SYSTEM",
        },
    }
}

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "corpus",
        title: "the shared corpus is served whole",
        packages: &["zstd"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "curl",
        title: "curl sends by SMTP and reads by POP3 and IMAP",
        packages: &["curl", "zstd"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "swaks",
        title: "swaks walks through SMTP and LMTP dialogues",
        packages: &["swaks"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "postfix",
        title: "Postfix feeds us by LMTP and SMTP",
        packages: &["postfix", "libsasl2-modules"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "fetchmail",
        title: "fetchmail empties a mailbox by POP3 and IMAP",
        packages: &["fetchmail"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "mbsync",
        title: "mbsync keeps Maildir folders and ours the same",
        packages: &["isync", "zstd"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "mutt",
        title: "mutt and NeoMutt work a mailbox by keys",
        packages: &["bsdutils", "mutt", "neomutt"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "imapclient",
        title: "Python's IMAPClient does all it can",
        packages: &["python3-venv", "zstd"],
        library: Some(Library {
            language: Language::Python,
            name: "IMAPClient",
            version: "3.0.1",
        }),
        at: Place::EndToEnd,
    },
    Peer {
        name: "imapflow",
        title: "Node's imapflow does all it can",
        packages: &["nodejs", "npm", "zstd"],
        library: Some(Library {
            language: Language::Node,
            name: "imapflow",
            // The last one whose parts all run on the Node that Debian 12 has.
            version: "1.0.190",
        }),
        at: Place::EndToEnd,
    },
    Peer {
        name: "dovecot",
        title: "Dovecot is a home behind our proxy",
        packages: &["dovecot-core", "dovecot-imapd", "dovecot-pop3d"],
        library: None,
        at: Place::EndToEnd,
    },
    Peer {
        name: "postgres",
        title: "the directory on PostgreSQL does all it does on LMDB",
        packages: &["postgresql"],
        library: None,
        at: Place::Files {
            package: "directory",
            files: &["conformance", "postgres"],
            tests: "postgres",
            variable: "POSTHOUSE_TEST_POSTGRES",
        },
    },
    Peer {
        name: "slapd",
        title: "users of the directory come from OpenLDAP",
        packages: &["slapd"],
        library: None,
        at: Place::Files {
            package: "directory",
            files: &["ldap"],
            tests: "ldap",
            variable: "POSTHOUSE_TEST_SLAPD",
        },
    },
    file_system(
        "ext4",
        "the power is cut under ext4",
        &["e2fsprogs", "mount", "util-linux"],
    ),
    file_system(
        "xfs",
        "the power is cut under XFS",
        &["xfsprogs", "mount", "util-linux"],
    ),
    file_system(
        "btrfs",
        "the power is cut under Btrfs",
        &["btrfs-progs", "mount", "util-linux"],
    ),
];

const TESTS: &str = "infra/e2e/tests/";

/// Installs what is missing and runs all peer tests, or the named one; true when all ran and passed.
pub(crate) fn run(tree: &Tree, only: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let chosen: Vec<&Peer> = PEERS
        .iter()
        .filter(|peer| only.is_none_or(|name| name == peer.name))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no peer `{}`\n{}", only.unwrap_or_default(), crate::usage()).into());
    }
    let mut report = Report::default();
    report.step("list", "every peer test is known by name", || {
        let unheard = unheard(&tree.texts(".rs")?);
        Ok(unknown(&tree.files).into_iter().chain(unheard).collect())
    });
    let needed: BTreeSet<&str> = chosen
        .iter()
        .flat_map(|peer| peer.packages)
        .copied()
        .collect();
    let mut absent = BTreeSet::new();
    report.step("install", "programs from Debian run", || {
        let (findings, without) = debian::provide(tree, &needed);
        absent = without;
        Ok(findings)
    });
    for peer in chosen {
        report.step(peer.name, peer.title, || {
            match skip(peer, &tree.files, &absent) {
                Some(why) => Ok(vec![why]),
                None => {
                    if let Some(library) = &peer.library {
                        library.provide(tree, peer.name)?;
                    }
                    test(tree, peer)
                }
            }
        });
    }
    Ok(report.summary())
}

/// The workspace is named so that everything built for its tests before is used again.
fn test(tree: &Tree, peer: &Peer) -> Findings {
    let target = format!("peers_{}", peer.name);
    let given = match &peer.at {
        Place::EndToEnd => None,
        Place::Inside { variable, .. } | Place::Files { variable, .. } => {
            Some(format!("{variable}={}", peer.name))
        }
    };
    let mut arguments: Vec<&str> = given.iter().map(String::as_str).collect();
    match &peer.at {
        Place::EndToEnd | Place::Inside { .. } => {
            arguments.extend(["cargo", "test", "--workspace", "--locked"]);
            arguments.extend(["--features", "e2e/peers"]);
        }
        Place::Files { package, .. } => {
            arguments.extend(["cargo", "test", "--locked", "--package", *package]);
        }
    }
    match &peer.at {
        Place::EndToEnd => arguments.extend(["--test", target.as_str(), "--"]),
        Place::Inside { test, .. } => arguments.extend(["--lib", "--", "--exact", *test]),
        Place::Files { files, tests, .. } => {
            arguments.push("--lib");
            arguments.extend(files.iter().flat_map(|file| ["--test", *file]));
            arguments.extend(["--", *tests]);
        }
    }
    tree.run("env", &[arguments.as_slice(), &["--nocapture"]].concat())?;
    let listed = tree.output("env", &[arguments.as_slice(), &["--list"]].concat())?;
    Ok(idle(&listed).into_iter().collect())
}

/// A file whose tests are all compiled out passes, having shown nothing. Takes what `--list` prints.
fn idle(listed: &str) -> Option<String> {
    let none = !listed.lines().any(|line| line.ends_with(": test"));
    none.then(|| "SKIPPED: the file holds no test".to_owned())
}

/// Why a peer test cannot be run. Skipping is a failure: a check that silently does nothing is worse than none.
fn skip(peer: &Peer, files: &BTreeSet<String>, absent: &BTreeSet<&str>) -> Option<String> {
    let test = format!("{TESTS}peers_{}.rs", peer.name);
    if matches!(peer.at, Place::EndToEnd) && !files.contains(&test) {
        return Some(format!("SKIPPED: {test} does not exist"));
    }
    let lacking: Vec<&str> = peer
        .packages
        .iter()
        .copied()
        .filter(|package| absent.contains(package))
        .collect();
    (!lacking.is_empty()).then(|| format!("SKIPPED: does not work here: {}", lacking.join(", ")))
}

/// Tests in the folder that no row of [`PEERS`] would ever run.
fn unknown(files: &BTreeSet<String>) -> Vec<String> {
    let names = files.iter().filter_map(|file| {
        file.strip_prefix(TESTS)?
            .strip_prefix("peers_")?
            .strip_suffix(".rs")
    });
    let strange = names.filter(|name| PEERS.iter().all(|peer| peer.name != *name));
    strange
        .map(|name| format!("{TESTS}peers_{name}.rs is in no row of PEERS in {HERE}"))
        .collect()
}

/// Variables that would make no test run, so that it passes having shown nothing.
fn unheard(sources: &[(&str, String)]) -> Vec<String> {
    let is_heard = |variable: &str| {
        let quoted = format!("\"{variable}\"");
        let mut others = sources.iter().filter(|(file, _)| *file != HERE);
        others.any(|(_, text)| text.contains(&quoted))
    };
    let variables = PEERS.iter().filter_map(|peer| match peer.at {
        Place::EndToEnd => None,
        Place::Inside { variable, .. } | Place::Files { variable, .. } => Some(variable),
    });
    variables
        .filter(|variable| !is_heard(variable))
        .map(|variable| format!("no test asks for {variable}, which {HERE} sets"))
        .collect()
}

const HERE: &str = "infra/xtask/src/peers.rs";

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| format!("{TESTS}{name}")).collect()
    }

    #[test]
    fn a_variable_that_no_test_asks_for_is_a_finding() {
        assert_eq!(
            unheard(&Tree::open().unwrap().texts(".rs").unwrap()),
            [""; 0]
        );
        let here = (HERE, "\"POSTHOUSE_TEST_POSTGRES\"".to_owned());
        assert!(unheard(&[here]).iter().any(|one| one.contains("POSTGRES")));
    }

    #[test]
    fn a_peer_without_its_test_or_its_program_is_skipped_loudly() {
        let curl = &PEERS[1];
        let none = BTreeSet::new();
        assert_eq!(skip(curl, &files(&["peers_curl.rs"]), &none), None);
        assert_eq!(
            skip(
                curl,
                &files(&["peers_curl.rs"]),
                &BTreeSet::from(["postfix"])
            ),
            None
        );
        assert!(skip(curl, &files(&["journey.rs"]), &none).is_some());
        assert!(skip(curl, &files(&["peers_curl.rs"]), &BTreeSet::from(["curl"])).is_some());
        let ext4 = PEERS.iter().find(|peer| peer.name == "ext4").unwrap();
        assert_eq!(skip(ext4, &files(&[]), &none), None);
        assert!(skip(ext4, &files(&[]), &BTreeSet::from(["e2fsprogs"])).is_some());
    }

    #[test]
    fn a_file_without_a_test_is_skipped_loudly() {
        assert_eq!(idle("journey: test\n\n1 test, 0 benchmarks\n"), None);
        assert!(idle("0 tests, 0 benchmarks\n").is_some());
    }

    #[test]
    fn a_test_that_would_never_run_is_found() {
        assert_eq!(unknown(&files(&["peers_curl.rs", "journey.rs"])), [""; 0]);
        assert_eq!(unknown(&files(&["peers_exim.rs"])).len(), 1);
    }

    #[test]
    fn every_package_a_peer_needs_can_be_installed() {
        for package in PEERS.iter().flat_map(|peer| peer.packages) {
            assert!(
                debian::PACKAGES.iter().any(|known| known.name == *package),
                "{package}"
            );
        }
    }
}
