//! Client libraries that Debian does not have: one version of each, fetched by the language's own tool.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;

use crate::tree::Tree;

/// One library, below `target/peers/` in a folder with the peer's name.
pub(super) struct Library {
    pub(super) language: Language,
    pub(super) name: &'static str,
    /// A newer one is tried by hand and then written here, so that a run tells about us and not about them.
    pub(super) version: &'static str,
}

/// Whose tool fetches it.
pub(super) enum Language {
    /// Into a virtual environment.
    Python,
    /// Into `node_modules`.
    Node,
}

impl Library {
    /// Fetches it unless this version is there.
    pub(super) fn provide(&self, tree: &Tree, peer: &str) -> Result<(), Box<dyn Error>> {
        let folder = format!("target/peers/{peer}");
        let path = tree.root.join(&folder);
        let wanted = format!("{} {}", self.name, self.version);
        // Written last: a folder without it is half made.
        let mark = path.join("version");
        if fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
            println!("{wanted} is in {folder}");
            return Ok(());
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&path)?,
        }
        match self.language {
            Language::Python => {
                tree.run("python3", &["-m", "venv", &folder])?;
                let requirement = format!("{}=={}", self.name, self.version);
                let pip = format!("{folder}/bin/pip");
                tree.run(
                    &pip,
                    &[
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                        &requirement,
                    ],
                )?;
            }
            Language::Node => {
                let requirement = format!("{}@{}", self.name, self.version);
                // Without a manifest of its own npm looks for one in the folders above.
                fs::write(path.join("package.json"), "{\"private\": true}\n")?;
                let quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
                tree.run(
                    "npm",
                    &[
                        &["install", "--prefix", &folder],
                        &quiet[..],
                        &[&requirement],
                    ]
                    .concat(),
                )?;
            }
        }
        fs::write(mark, wanted)?;
        Ok(())
    }
}
