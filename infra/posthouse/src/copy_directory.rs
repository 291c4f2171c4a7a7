//! `posthouse copy-directory`: a whole directory that is stopped, from its folder to PostgreSQL, or back.

use std::path::PathBuf;

use daemon::config::ConfigError;
use daemon::log::causes;
use daemon::output::print_line;
use directory::{Config, CopyError, CopyTo, copy};

/// What to copy.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The directory's settings file: `data` names the folder, `[postgres]` the database
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// To what; the other one is copied from, and stays as it is
    #[arg(long)]
    to: To,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum To {
    /// Into the database, which is empty
    Postgres,
    /// Into the folder, which is not there or empty
    Folder,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no thread to copy on")]
    Runtime(#[source] std::io::Error),
    #[error("{}", causes(.0))]
    Copy(#[from] CopyError),
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let config: Config = daemon::config::load(&options.config, "DIRECTORY")?;
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Runtime)?;
    let to = match options.to {
        To::Postgres => CopyTo::Postgres,
        To::Folder => CopyTo::Folder,
    };
    let copied = runtime.block_on(copy(&config, to))?;
    print_line(format_args!(
        "copied {} rows and {} keys, with passwords; what was copied from is as it was",
        copied.rows, copied.keys
    ));
    Ok(())
}
