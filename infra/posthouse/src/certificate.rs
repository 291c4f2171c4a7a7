//! `posthouse certificate`: certificates for tiers that run by themselves.

use daemon::output::print_line;
use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use daemon::identity::{Authority, IdentityError, IdentityFiles, Role};

/// Options of `posthouse certificate`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What the process is to the others
    role: RoleName,
    /// Which one it is: one DNS label, for a back-end its name in the directory
    node: String,
    /// Folder of the private authority; made at the first use. Its key signs for the whole installation: keep it safe
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// Folder for ca.pem, <NODE>.pem and <NODE>.key; made when it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug)]
struct RoleName(Role);

impl ValueEnum for RoleName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [RoleName; Role::ALL.len()] = {
            let mut all = [RoleName(Role::Directory); Role::ALL.len()];
            let mut at = 0;
            while at < all.len() {
                all[at] = RoleName(Role::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

/// Makes key and certificate of one process, and the authority when there is none.
///
/// # Errors
/// `Read` and `Write` name the file; `NodeName`.
pub(crate) fn run(options: &Options) -> Result<(), IdentityError> {
    for folder in [&options.authority, &options.out] {
        let failed = |source| IdentityError::Write {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let authority = if options.authority.join("ca.pem").exists() {
        Authority::open(&options.authority)?
    } else {
        print_line(format_args!(
            "a new authority in {}",
            options.authority.display()
        ));
        Authority::create(&options.authority)?
    };
    let (role, node) = (options.role.0, &options.node);
    let files = IdentityFiles {
        ca: options.out.join("ca.pem"),
        certificate: options.out.join(format!("{node}.pem")),
        key: options.out.join(format!("{node}.key")),
    };
    authority.issue(role, node, &files)?;
    print_line(format_args!(
        "{role} {node}: {} and {}",
        files.certificate.display(),
        files.key.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use daemon::identity::Identity;

    use super::*;

    #[test]
    fn certificates_of_one_authority_fit_together() {
        let place = tempfile::tempdir().unwrap();
        for role in RoleName::value_variants() {
            let options = Options {
                role: *role,
                node: "n1".into(),
                authority: place.path().join("authority"),
                out: place.path().join(role.0.as_str()),
            };
            run(&options).unwrap();
            let out = |name: &str| options.out.join(name);
            let files = IdentityFiles {
                ca: out("ca.pem"),
                certificate: out("n1.pem"),
                key: out("n1.key"),
            };
            assert_eq!(Identity::load(&files).unwrap().peer().role, role.0);
        }
    }
}
