//! Packages from Debian: what does not work yet is installed without questions and without starting a daemon.
//! A program that is there from elsewhere stays.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::tree::Tree;

/// A package, and a command that shows it works.
pub(super) struct Package {
    pub(super) name: &'static str,
    probe: &'static [&'static str],
}

pub(super) const PACKAGES: &[Package] = &[
    // `script`: a terminal for programs that want one.
    Package {
        name: "bsdutils",
        probe: &["script", "--version"],
    },
    Package {
        name: "btrfs-progs",
        probe: &["mkfs.btrfs", "--version"],
    },
    Package {
        name: "curl",
        probe: &["curl", "--version"],
    },
    Package {
        name: "dovecot-core",
        probe: &["dovecot", "--version"],
    },
    // Programs that only Dovecot starts.
    Package {
        name: "dovecot-imapd",
        probe: &["ls", "/usr/lib/dovecot/imap"],
    },
    Package {
        name: "dovecot-pop3d",
        probe: &["ls", "/usr/lib/dovecot/pop3"],
    },
    Package {
        name: "e2fsprogs",
        probe: &["sh", "-c", "mkfs.ext4 -V 2>&1"],
    },
    Package {
        name: "fetchmail",
        probe: &["fetchmail", "--version"],
    },
    Package {
        name: "isync",
        probe: &["mbsync", "--version"],
    },
    // Mechanisms only, no program: Postfix as a client loads them.
    Package {
        name: "libsasl2-modules",
        probe: &["sh", "-c", "ls /usr/lib/*/sasl2/libplain.so"],
    },
    Package {
        name: "mount",
        probe: &["mount", "--version"],
    },
    Package {
        name: "mutt",
        probe: &["mutt", "-v"],
    },
    Package {
        name: "neomutt",
        probe: &["neomutt", "-v"],
    },
    Package {
        name: "nodejs",
        probe: &["node", "--version"],
    },
    Package {
        name: "npm",
        probe: &["npm", "--version"],
    },
    Package {
        name: "postfix",
        probe: &["postconf", "-d", "mail_version"],
    },
    Package {
        name: "postgresql",
        probe: &["sh", "-c", "/usr/lib/postgresql/*/bin/postgres --version"],
    },
    Package {
        name: "python3-venv",
        probe: &["python3", "-c", "import ensurepip, sys; print(sys.version)"],
    },
    Package {
        name: "slapd",
        probe: &["sh", "-c", "/usr/sbin/slapd -VV 2>&1"],
    },
    Package {
        name: "swaks",
        probe: &["swaks", "--version"],
    },
    Package {
        name: "util-linux",
        probe: &["unshare", "--version"],
    },
    Package {
        name: "xfsprogs",
        probe: &["mkfs.xfs", "-V"],
    },
    Package {
        name: "zstd",
        probe: &["zstd", "--version"],
    },
];

/// Without this, Debian's postfix asks what kind of mail server this is and writes a configuration.
const ANSWERS: &str = "postfix postfix/main_mailer_type select No configuration\n";

/// Debian asks this program before it starts a service; 101 means "forbidden".
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing and tries every package. Gives findings, and the names that do not work.
pub(super) fn provide<'a>(
    tree: &Tree,
    needed: &BTreeSet<&'a str>,
) -> (Vec<String>, BTreeSet<&'a str>) {
    let mut findings = Vec::new();
    let missing: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|name| probe(tree, name).is_err())
        .collect();
    if !missing.is_empty()
        && let Err(error) = install(tree, &missing)
    {
        findings.push(format!("cannot install {}: {error}", missing.join(", ")));
    }
    let mut absent = BTreeSet::new();
    for &name in needed {
        match probe(tree, name) {
            Ok(said) => println!("{name}: {said}"),
            Err(error) => {
                findings.push(format!("{name} does not work: {error}"));
                absent.insert(name);
            }
        }
    }
    (findings, absent)
}

fn probe(tree: &Tree, name: &str) -> Result<String, Box<dyn Error>> {
    let package = PACKAGES
        .iter()
        .find(|package| package.name == name)
        .ok_or("no probe is known for it")?;
    let (program, arguments) = package.probe.split_first().ok_or("its probe is empty")?;
    let said = tree.output(program, arguments)?;
    Ok(said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("silent")
        .trim()
        .to_owned())
}

fn install(tree: &Tree, missing: &[&str]) -> Result<(), Box<dyn Error>> {
    if tree.output("id", &["-u"])?.trim() != "0" {
        return Err("installing needs root; run `cargo xtask peers` as root or install these packages first".into());
    }
    let _quiet = NoServices::forbid(Path::new(POLICY))?;
    answer(tree)?;
    tree.run("apt-get", &["update", "-qq"])?;
    let mut arguments = vec![
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
    ];
    arguments.extend(missing);
    tree.run("env", &arguments)
}

fn answer(tree: &Tree) -> Result<(), Box<dyn Error>> {
    let mut child = tree
        .command("debconf-set-selections", &[])
        .stdin(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .ok_or("debconf-set-selections has no input")?
        .write_all(ANSWERS.as_bytes())?;
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("debconf-set-selections ended with {status}").into())
    }
}

/// While it lives, installing a package starts no service. Whatever policy stood there before comes back.
struct NoServices<'a> {
    policy: &'a Path,
}

impl<'a> NoServices<'a> {
    fn forbid(policy: &'a Path) -> Result<Self, Box<dyn Error>> {
        let saved = policy.with_extension("saved-by-xtask");
        // A saved policy means that an earlier run was killed: what stands there now is ours, not the machine's.
        if !saved.exists() {
            match fs::rename(policy, &saved) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let guard = Self { policy };
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        let saved = self.policy.with_extension("saved-by-xtask");
        let restored = if saved.exists() {
            fs::rename(&saved, self.policy)
        } else {
            fs::remove_file(self.policy)
        };
        if let Err(error) = restored {
            eprintln!(
                "xtask: {} could not be put back: {error}",
                self.policy.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_the_machine_comes_back() {
        let folder = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let policy = folder.join("policy-rc.d");

        let guard = NoServices::forbid(&policy).unwrap();
        assert!(fs::read_to_string(&policy).unwrap().contains("exit 101"));
        drop(guard);
        assert!(!policy.exists());

        fs::write(&policy, "theirs").unwrap();
        drop(NoServices::forbid(&policy).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "theirs");

        // Killed in between: the guard never ran its end.
        std::mem::forget(NoServices::forbid(&policy).unwrap());
        drop(NoServices::forbid(&policy).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
