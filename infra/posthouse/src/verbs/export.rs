//! `posthouse export`: what the directory holds, in the form that `posthouse import` takes.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;
use directory_api::wire::{AddressEntry, ListQuery, Page, Target};
use directory_api::{AccountId, DirectoryClient, DirectoryError};

use super::import::Format;
use super::import::line::{self, Line};
use super::{VerbError, block_on, told};
use crate::cli::{Source, connect};

/// What to export.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One kind of things [default: all, domains first]
    #[arg(long)]
    only: Option<Kind>,
    /// CSV holds one kind
    #[arg(long, default_value = "jsonl", requires_if("csv", "only"))]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Domains,
    Accounts,
    Addresses,
}

/// Writes everything to standard output, one line each.
pub(crate) fn perform(options: &Options, source: Source) -> Result<(), VerbError> {
    block_on(async {
        let directory = connect(source)?;
        let mut out = Out {
            file: BufWriter::new(io::stdout().lock()),
            format: options.format,
            columns: &[],
        };
        let done = export(&directory, options.only, &mut out).await;
        match done.and_then(|()| out.file.flush().map_err(VerbError::Output)) {
            // Who reads has read enough.
            Err(VerbError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    })?
}

async fn export(
    directory: &DirectoryClient,
    only: Option<Kind>,
    out: &mut Out<'_>,
) -> Result<(), VerbError> {
    let wanted = |kind| only.is_none_or(|only| only == kind);
    if wanted(Kind::Domains) {
        out.begin(line::DOMAIN)?;
        // An alias comes after the domain that it is of.
        let mut aliases = Vec::new();
        each(
            async |query| directory.domains(&query).await,
            async |domain| match domain.alias_of {
                None => out.line(&Line::of_domain(domain)),
                Some(_) => {
                    aliases.push(Line::of_domain(domain));
                    Ok(())
                }
            },
        )
        .await?;
        for alias in &aliases {
            out.line(alias)?;
        }
    }
    let mut logins: HashMap<AccountId, String> = HashMap::new();
    if wanted(Kind::Accounts) {
        out.begin(line::ACCOUNT)?;
    }
    if wanted(Kind::Accounts) || wanted(Kind::Addresses) {
        each(
            async |query| directory.accounts(&query).await,
            async |account| {
                if wanted(Kind::Accounts) {
                    out.line(&Line::of_account(&account))?;
                }
                logins.insert(account.id, account.login_name.into());
                Ok(())
            },
        )
        .await?;
    }
    if wanted(Kind::Addresses) {
        out.begin(line::ADDRESS)?;
        each(
            async |query| directory.addresses(&query).await,
            async |entry| {
                new_logins(directory, &entry, &mut logins).await?;
                let line = Line::of_address(&entry, &logins).ok_or_else(|| {
                    let address = &entry.address;
                    VerbError::NotExported(format!(
                        "address {address} has changed meanwhile, export again"
                    ))
                })?;
                out.line(&line)
            },
        )
        .await?;
    }
    Ok(())
}

/// Asks for the login names of accounts that were made after the accounts were listed.
async fn new_logins(
    directory: &DirectoryClient,
    entry: &AddressEntry,
    logins: &mut HashMap<AccountId, String>,
) -> Result<(), VerbError> {
    for target in &entry.targets {
        let Target::Account(id) = *target else {
            continue;
        };
        if logins.contains_key(&id) {
            continue;
        }
        match directory.account(id).await {
            Ok(account) => {
                logins.insert(id, account.login_name.into());
            }
            Err(DirectoryError::Unknown) => {}
            Err(error) => return Err(told("account", &id, error)),
        }
    }
    Ok(())
}

/// Takes every item of a collection.
async fn each<T, F>(
    page: impl Fn(ListQuery) -> F,
    mut take: impl AsyncFnMut(T) -> Result<(), VerbError>,
) -> Result<(), VerbError>
where
    F: Future<Output = Result<Page<T>, DirectoryError>>,
{
    let mut query = ListQuery::default();
    loop {
        let page = page(query.clone())
            .await
            .map_err(|error| told("entry", "", error))?;
        for item in page.items {
            take(item).await?;
        }
        let Some(next) = page.next else {
            return Ok(());
        };
        query.after = Some(next);
    }
}

struct Out<'a> {
    file: BufWriter<StdoutLock<'a>>,
    format: Format,
    columns: &'static [&'static str],
}

impl Out<'_> {
    fn begin(&mut self, columns: &'static [&'static str]) -> Result<(), VerbError> {
        self.columns = columns;
        match self.format {
            Format::Csv => writeln!(self.file, "{}", columns.join(",")).map_err(VerbError::Output),
            Format::Jsonl => Ok(()),
        }
    }

    fn line(&mut self, line: &Line) -> Result<(), VerbError> {
        let text = match self.format {
            Format::Csv => line.to_csv(self.columns).ok_or_else(|| {
                let address = line.address.as_deref().unwrap_or_default();
                VerbError::NotExported(format!(
                    "a target of {address} holds a space, which CSV cannot write here; leave --format away"
                ))
            })?,
            Format::Jsonl => serde_json::to_string(line).unwrap_or_default(),
        };
        writeln!(self.file, "{text}").map_err(VerbError::Output)
    }
}
