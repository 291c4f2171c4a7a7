//! The working tree: where it is, which files git counts as part of it, and how programs are run in it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The five tiers: their folders at the top level, their packages and their binaries.
pub(crate) const TIERS: [&str; 5] = [
    "directory",
    "store-backend",
    "mx-frontend",
    "pop-imap-proxy",
    "migrator",
];

/// The checked-out repository.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// Files below the root that are tracked or would be (not ignored), with `/` between folders.
    pub(crate) files: BTreeSet<String>,
}

impl Tree {
    /// Finds the tree this program was built from.
    ///
    /// # Errors
    /// When git is missing or the folder is not a git checkout.
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .ancestors()
            .nth(2)
            .ok_or("infra/xtask has no repository above it")?
            .to_owned();
        let mut tree = Self {
            root,
            files: BTreeSet::new(),
        };
        let listed = tree.output(
            "git",
            &[
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
        )?;
        // A file deleted but not yet staged is still listed.
        let files = listed
            .split('\0')
            .filter(|file| !file.is_empty() && tree.root.join(file).exists());
        tree.files = files.map(str::to_owned).collect();
        Ok(tree)
    }

    /// Paths and texts of all files whose name ends so.
    pub(crate) fn texts(&self, ending: &str) -> Result<Vec<(&str, String)>, Box<dyn Error>> {
        let chosen = self.files.iter().filter(|file| file.ends_with(ending));
        chosen
            .map(|file| Ok((file.as_str(), self.read(file)?)))
            .collect()
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Box<dyn Error>> {
        fs::read_to_string(self.root.join(file)).map_err(|error| format!("{file}: {error}").into())
    }

    /// A program to be run at the root. System folders are searched too, because Debian keeps daemons there.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command
    }

    /// Runs a program that talks to the person at the terminal.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
        let line = format!("{program} {}", arguments.join(" "));
        println!("$ {line}");
        let status = self
            .command(program, arguments)
            .stdin(Stdio::null())
            .status();
        match status.map_err(|error| format!("{program} does not run: {error}"))? {
            status if status.success() => Ok(()),
            status => Err(format!("`{line}` ended with {status}").into()),
        }
    }

    /// Runs a program for what it prints.
    pub(crate) fn output(
        &self,
        program: &str,
        arguments: &[&str],
    ) -> Result<String, Box<dyn Error>> {
        let line = format!("{program} {}", arguments.join(" "));
        let output = self
            .command(program, arguments)
            .stdin(Stdio::null())
            .output();
        let output = output.map_err(|error| format!("{program} does not run: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`{line}` ended with {}: {}", output.status, said.trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
