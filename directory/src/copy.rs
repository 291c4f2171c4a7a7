//! A copy of a whole directory, passwords and keys included, from its folder to PostgreSQL, or back.

use std::fs;
use std::path::{Path, PathBuf};

use daemon::clock::now_ms;

use crate::Config;
use crate::engine::{EngineError, Postgres, PostgresError, copy_to_lmdb, copy_to_postgres};
use crate::folder::{Folder, FolderError, KEY_FILES};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTo {
    /// From the folder to the database of `[postgres]`, which is empty.
    Postgres,
    /// From the database of `[postgres]` to the folder, which is not there or empty.
    Folder,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Rows of all tables.
    pub rows: u64,
    /// Keys.
    pub keys: usize,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The settings name one database.
    #[error("the settings have no url in [postgres]: it names the database to copy to or from")]
    NoPostgres,
    /// A folder that is to be there is not.
    #[error("{}: there is no directory's folder", .0.display())]
    NoFolder(PathBuf),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It cannot be put into its place.
    #[error("{}: the folder cannot be put there: it is to be empty, or not there", .0.display())]
    Place(PathBuf, #[source] std::io::Error),
    /// What a copy that was cut has left.
    #[error("{}: a copy was cut and has left it: remove it", .0.display())]
    Left(PathBuf),
    /// The database cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Reading or writing failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is somebody's.
    #[error("the database has keys of another directory: name another one")]
    OtherKeys,
    /// What is written meanwhile would be lost.
    #[error("{0} connections of directory servers use the database: stop them all")]
    Served(i64),
}

/// Copies; no server may run on either. What is not copied whole is not there.
///
/// # Errors
/// [`CopyError`]; what is copied from is as it was.
pub async fn copy(config: &Config, to: CopyTo) -> Result<Copied, CopyError> {
    if config.postgres.url.is_none() {
        return Err(CopyError::NoPostgres);
    }
    match to {
        CopyTo::Postgres => to_postgres(config).await,
        CopyTo::Folder => to_folder(config).await,
    }
}

async fn to_postgres(config: &Config) -> Result<Copied, CopyError> {
    let data = config.data.clone();
    if !data.join("FORMAT").exists() {
        return Err(CopyError::NoFolder(data));
    }
    let opened = blocking(move || {
        let folder = Folder::open(&data)?;
        let read = |name| Some((name, fs::read(data.join(name)).ok()?));
        let files: Vec<_> = KEY_FILES.into_iter().filter_map(read).collect();
        Ok((folder, files))
    });
    let (Folder { engine, lock, .. }, files) = opened.await?;
    let postgres = Postgres::open(config.postgres.clone()).await?;
    // First, so that who begins again after a copy that was cut finds them equal.
    let keys = files.len();
    for (name, octets) in files {
        if postgres.key_or(name, &octets).await? != octets {
            return Err(CopyError::OtherKeys);
        }
    }
    let copied = copy_to_postgres(&engine, &postgres, now_ms()).await;
    postgres.close();
    blocking(move || {
        engine.close();
        drop(lock);
        Ok(())
    })
    .await?;
    Ok(Copied {
        rows: copied?,
        keys,
    })
}

async fn to_folder(config: &Config) -> Result<Copied, CopyError> {
    let servers = Postgres::servers(config.postgres.clone()).await?;
    if servers > 0 {
        return Err(CopyError::Served(servers));
    }
    let temporary = beside(&config.data);
    if temporary.exists() {
        return Err(CopyError::Left(temporary));
    }
    let postgres = Postgres::open(config.postgres.clone()).await?;
    let keys = postgres.all_keys().await?;
    let count = keys.len();
    let place = temporary.clone();
    let (engine, lock) = blocking(move || Ok(Folder::made_of(&place, &keys)?)).await?;
    let copied = copy_to_lmdb(&postgres, &engine, now_ms()).await;
    postgres.close();
    let place = config.data.clone();
    blocking(move || {
        engine.close();
        drop(lock);
        let placed = copied.map_err(CopyError::from).and_then(|rows| {
            fs::rename(&temporary, &place).map_err(|error| CopyError::Place(place, error))?;
            Ok(Copied { rows, keys: count })
        });
        if placed.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        placed
    })
    .await
}

/// On the same disk, so that it is put into its place at once.
fn beside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".copying");
    folder.with_file_name(name)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => Err(EngineError::Storage(Box::new(panicked)).into()),
    }
}
