//! The operator's verbs: what the directory holds, listed, shown, added, changed, removed.
//!
//! One file a noun. Each verb is one or two calls of the directory's own interface; what is
//! printed is what the directory answered.

pub(crate) mod account;
pub(crate) mod address;
pub(crate) mod backend;
pub(crate) mod backup;
pub(crate) mod connections;
pub(crate) mod domain;
pub(crate) mod drain;
pub(crate) mod export;
pub(crate) mod hold;
pub(crate) mod home;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod kick;
pub(crate) mod ldap;
pub(crate) mod load;
mod password;
mod proxies;
pub(crate) mod restore;
pub(crate) mod undelete;
pub(crate) mod why;

use daemon::link::{CallError, Problem};
use daemon::output::print_line;
use std::future::Future;
use std::io;
use std::path::PathBuf;

use comfy_table::{ContentArrangement, Table, presets};
use directory_api::operator::SourceError;
use directory_api::wire::{ListQuery, Page, limit};
use directory_api::{
    AccountId, AddressError, DirectoryClient, DirectoryError, LoginName, NameError,
};
use serde::Serialize;
use store_api::backends::BackendAway;

use crate::backup::BackupError;
use crate::cli::{Source, connect};

/// How answers are printed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Output {
    /// One JSON object a line, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerbError {
    /// The directory is not to be found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It does not answer.
    #[error("directory is away: {}; `posthouse status` says what runs", daemon::log::causes(.0))]
    Away(#[source] DirectoryError),
    /// It holds no such thing.
    #[error("no {noun} {name}; `posthouse {noun} list` shows what there is")]
    Unknown {
        /// `account`, `domain`, …
        noun: &'static str,
        /// As given.
        name: String,
    },
    /// Its rules forbid it.
    #[error("{noun} {name}: {message} ({code})")]
    Refused {
        /// `account`, `domain`, …
        noun: &'static str,
        /// As given.
        name: String,
        /// The directory's words.
        message: String,
        /// For programs.
        code: String,
    },
    /// The back-end where the account lives is not to be found.
    #[error("{}; `posthouse status` says what runs", daemon::log::causes(.0))]
    Backend(#[from] BackendAway),
    /// It refuses.
    #[error("back-end refused: {}: {}", .0.code, .0.message)]
    BackendRefused(Problem),
    /// It gives no answer.
    #[error("back-end does not answer: {}; what was asked may have been done, ask again", daemon::log::causes(.0))]
    BackendSilent(#[source] CallError),
    /// Nobody was logged in whom it was about.
    #[error(
        "no such session is open; `posthouse connections` shows what there is, users by their login name"
    )]
    NoSuchSession,
    /// Sessions are let in again.
    #[error(
        "{0} takes sessions again: somebody has undone it, or a proxy was started anew; say it again"
    )]
    Undone(String),
    /// A proxy refuses, or gives no answer.
    #[error("proxy {name}: {}", daemon::log::causes(.error))]
    Proxy {
        /// Its name, or its address as long as it has not told it.
        name: String,
        /// Why.
        error: CallError,
    },
    /// Nothing has that name.
    #[error("{0:?} is neither a proxy of the settings nor a back-end")]
    NoSuchNode(String),
    /// A name that cannot be one.
    #[error("{name:?} is no login name and no account number: {source}")]
    AccountName {
        /// As given.
        name: String,
        /// Why.
        source: NameError,
    },
    /// An alias of something that is no address.
    #[error("{text:?} is no address: {source}")]
    Address {
        /// As given.
        text: String,
        /// Why.
        source: AddressError,
    },
    /// The password could not be read.
    #[error("cannot read the password ({0}); give it as one line on standard input")]
    Password(io::Error),
    /// There is none, or too long a one.
    #[error("the password {0}")]
    PasswordLength(&'static str),
    /// Nothing of what was asked for can be brought back.
    #[error("no {0} is kept; --list shows what is")]
    NotKept(String),
    /// A backup or a restore.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file of the command line.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe or a device where a file is read several times.
    #[error("{}: is no regular file, and it is read several times; write it to one first", .0.display())]
    NotRegular(PathBuf),
    /// A file was written while it was read.
    #[error("{}: {told} lines were brought of {counted} that were checked; has the file changed meanwhile?", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Lines of which the directory has said what became of them.
        told: u64,
        /// Lines that the first look found.
        counted: u64,
    },
    /// What is exported cannot be written so that an import reads the same.
    #[error("cannot export: {0}")]
    NotExported(String),
    /// Lines of it, which were told, cannot be read.
    #[error("{}: nothing was changed, for lines cannot be read: {mistakes}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// How many.
        mistakes: usize,
    },
    /// Standard output.
    #[error("cannot write: {0}")]
    Output(io::Error),
    /// The command line says too little.
    #[error("give {0}; --help tells more")]
    Missing(&'static str),
    /// The asynchronous runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl From<CallError> for VerbError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => Self::BackendRefused(problem),
            error => Self::BackendSilent(error),
        }
    }
}

/// One verb of one noun.
pub(crate) trait Verb {
    /// Does it and prints the answer.
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError>;
}

/// Finds the directory and does one verb.
pub(crate) fn perform(verb: impl Verb, source: Source, output: &Output) -> Result<(), VerbError> {
    block_on(async {
        let directory = connect(source)?;
        verb.perform(&directory, output).await
    })?
}

/// A choice as it stands on the command line, which is how the wire has it too.
pub(crate) fn word_of<T: clap::ValueEnum>(choice: Option<T>) -> Option<String> {
    let word = choice?.to_possible_value()?;
    Some(word.get_name().to_owned())
}

/// Runs a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, VerbError> {
    daemon::tier::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(VerbError::Runtime)?;
    Ok(runtime.block_on(future))
}

/// The same with threads beside, so that one disk or line does not hold up another.
pub(crate) fn block_on_threads<T>(future: impl Future<Output = T>) -> Result<T, VerbError> {
    daemon::tier::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(VerbError::Runtime)?;
    Ok(runtime.block_on(future))
}

/// Something the directory holds, as a row.
pub(crate) trait Row: Serialize {
    const HEADINGS: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
}

impl Output {
    /// Prints rows as a table, or each as a line of JSON.
    pub(crate) fn rows<T: Row>(&self, rows: &[T]) {
        if self.json {
            for row in rows {
                print_line(format_args!(
                    "{}",
                    serde_json::to_string(row).unwrap_or_default()
                ));
            }
            return;
        }
        let mut table = table(T::HEADINGS);
        for row in rows {
            table.add_row(row.cells());
        }
        print_line(&table);
    }

    /// Prints one thing that was read, added, changed or removed; `done` says which.
    pub(crate) fn one<T: Row>(&self, done: Option<&str>, row: &T) {
        if let (Some(done), false) = (done, self.json) {
            print_line(done);
        }
        self.rows(std::slice::from_ref(row));
    }

    /// Prints all pages of a collection as they come.
    pub(crate) async fn list<T, F>(
        &self,
        filter: Option<String>,
        page: impl Fn(ListQuery) -> F,
    ) -> Result<(), VerbError>
    where
        T: Row,
        F: Future<Output = Result<Page<T>, DirectoryError>>,
    {
        let mut query = ListQuery {
            filter,
            limit: Some(limit::PAGE_ROWS_MAX),
            ..ListQuery::default()
        };
        let mut rows = Vec::new();
        loop {
            let page = page(query.clone())
                .await
                .map_err(|error| told("entry", "", error))?;
            if self.json {
                self.rows(&page.items);
            } else {
                // A table is laid out by its longest cell, so it is printed whole.
                rows.extend(page.items);
            }
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        if !self.json {
            self.rows(&rows);
        }
        Ok(())
    }
}

/// INBOX is one name in any case (RFC 9051 §5.1).
pub(crate) fn is_same_mailbox(one: &str, other: &str) -> bool {
    one == other || one.eq_ignore_ascii_case("INBOX") && other.eq_ignore_ascii_case("INBOX")
}

/// A table for a terminal and for `awk`: no lines, headings first.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    table
}

/// Words for what the directory said about one thing.
pub(crate) fn told(
    noun: &'static str,
    name: &(impl ToString + ?Sized),
    error: DirectoryError,
) -> VerbError {
    let name = name.to_string();
    match error {
        DirectoryError::Away(_) => VerbError::Away(error),
        DirectoryError::Unknown => VerbError::Unknown { noun, name },
        DirectoryError::Refused(problem) => VerbError::Refused {
            noun,
            name,
            message: problem.message,
            code: problem.code.into_owned(),
        },
    }
}

/// Takes an account's number, or its login name and asks for the number.
pub(crate) async fn account_id(
    directory: &DirectoryClient,
    name: &str,
) -> Result<AccountId, VerbError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let login_name = LoginName::new(name).map_err(|source| VerbError::AccountName {
        name: name.to_owned(),
        source,
    })?;
    directory
        .account_of(&login_name)
        .await
        .map(|account| account.id)
        .map_err(|error| told("account", name, error))
}
