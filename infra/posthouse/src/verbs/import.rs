//! `posthouse import FILE`: domains, accounts and addresses from another system, by the hundred thousand.
//!
//! The file is read several times: first to find every line that cannot be read or stands twice, in
//! which case nothing is changed; then once for the domains, the accounts and the addresses in it, so
//! that lines may stand in any order, and the file must be a regular one. What is there and equal is passed over, so an import that was
//! broken off is gone on with by giving it again.

mod csv;
mod file;
pub(crate) mod line;
mod needs;

use std::collections::HashSet;
use std::path::PathBuf;

use clap::ValueEnum;
use directory_api::DirectoryClient;
use directory_api::wire::{Import, ImportOutcome, ImportRow, code, limit};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Output, Row, VerbError, block_on_threads, told};
use crate::cli::{Source, connect};
use file::{Counted, Numbered, Table};
use needs::Needs;

/// What to bring, and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// CSV (`.csv`) or JSON, one object a line: {"domain":…,"alias_of":…}, {"account":…,"hashed":…,
    /// "password":…,"status":…,"services":[…],"quota_octets":…,"quota_messages":…,"backend":…,
    /// "volume":…}, {"address":…,"targets":[…]}. A target is a login name, `=` and another address, or
    /// `#` and an account's number; `\\` stands before a login name that begins like these. The first
    /// line of CSV names its columns so; lists stand in one field, with spaces between, and `none` is
    /// no service at all
    file: PathBuf,
    /// What the file is, when its name does not say so
    #[arg(long)]
    format: Option<Format>,
    /// Check everything, the directory's rules included, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Change what is there and differs; otherwise that is an error. Passwords stay
    #[arg(long)]
    update: bool,
    /// Give accounts that are there the passwords of the file, too; otherwise these are for new ones
    #[arg(long)]
    update_passwords: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Csv,
    Jsonl,
}

/// Brings the file; true when no line was refused.
pub(crate) fn perform(
    options: &Options,
    source: Source,
    output: &Output,
) -> Result<bool, VerbError> {
    let table = Table::new(options.file.clone(), options.format)?;
    let counted = table.check()?;
    // The link is answered for while a large file is read.
    block_on_threads(async {
        let directory = connect(source)?;
        let run = Run {
            bar: bar(counted.rows()),
            shown: 0,
            totals: KINDS.map(|kind| Total::new(kind, options.dry_run)),
            directory: &directory,
            table: &table,
            options,
        };
        run.all(counted, output).await
    })?
}

const KINDS: [&str; 3] = ["domain", "account", "address"];

/// Rows of one request: a second of the directory's writer or less, in which nothing else is written.
/// With what a trial needs beside them it may be some more; the directory takes twice as many.
const BATCH_ROWS: usize = 5_000;
/// Octets of one request as it is sent, before its last row: that is six times a record at most, for
/// so long JSON makes a control character, and what it needs on a trial is less than a MiB.
const BATCH_OCTETS: usize = limit::BODY_MAX_OCTETS / 8;
/// Refused lines that are told one by one.
const SHOWN_MAX: usize = 1_000;

struct Run<'a> {
    bar: ProgressBar,
    shown: usize,
    totals: [Total; 3],
    directory: &'a DirectoryClient,
    table: &'a Table,
    options: &'a Options,
}

/// Lines of one request.
#[derive(Default)]
struct Batch {
    /// On a trial, what the others need and the file has brought before them; their outcomes are nobody's.
    needed: Vec<ImportRow>,
    numbers: Vec<u64>,
    rows: Vec<ImportRow>,
    /// What is needed, as it is sent.
    asked: HashSet<String>,
    octets: usize,
}

impl Batch {
    fn add(&mut self, number: u64, row: ImportRow, needs: Option<&Needs<'_>>) {
        for needed in needs.map(|needs| needs.of(&row)).unwrap_or_default() {
            let sent = sent(&needed);
            let octets = sent.len() + 1;
            if self.asked.insert(sent) {
                self.octets += octets;
                self.needed.push(needed);
            }
        }
        self.octets += sent(&row).len() + 1;
        self.numbers.push(number);
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.rows.len() + self.needed.len() >= BATCH_ROWS || self.octets >= BATCH_OCTETS
    }
}

/// A row as it is sent.
fn sent(row: &ImportRow) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

impl Run<'_> {
    async fn all(mut self, counted: Counted, output: &Output) -> Result<bool, VerbError> {
        let needs = self.options.dry_run.then(|| Needs::new(&counted));
        // An alias comes after the domain that it is of.
        for pass in 0..4 {
            if counted.has(pass) {
                self.pass(pass, needs.as_ref()).await?;
            }
        }
        self.bar.finish_and_clear();
        let (told, counted) = (self.totals.iter().map(Total::sum).sum(), counted.rows());
        if told != counted {
            let path = self.options.file.clone();
            return Err(VerbError::Changed {
                path,
                told,
                counted,
            });
        }
        if self.shown > SHOWN_MAX {
            eprintln!(
                "posthouse: {} more lines were refused",
                self.shown - SHOWN_MAX
            );
        }
        let totals: Vec<Total> = self.totals.into_iter().filter(Total::any).collect();
        output.rows(&totals);
        if self.options.dry_run && !output.json {
            eprintln!("posthouse: it was a trial, nothing has changed");
        }
        Ok(self.shown == 0)
    }

    async fn pass(&mut self, pass: usize, needs: Option<&Needs<'_>>) -> Result<(), VerbError> {
        let mut batch = Batch::default();
        for numbered in self.table.rows()? {
            let Numbered { number, row } = numbered?;
            if file::pass_of(&row) != pass {
                continue;
            }
            batch.add(number, row, needs);
            if batch.is_full() {
                self.send(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.rows.is_empty() {
            self.send(batch).await?;
        }
        Ok(())
    }

    async fn send(&mut self, batch: Batch) -> Result<(), VerbError> {
        let Batch {
            needed,
            numbers,
            rows,
            ..
        } = batch;
        let kinds: Vec<usize> = rows.iter().map(kind_of).collect();
        let skipped = needed.len();
        let import = Import {
            rows: needed.into_iter().chain(rows).collect(),
            update: self.options.update,
            update_passwords: self.options.update_passwords,
            on_trial: self.options.dry_run,
        };
        let reply = self.directory.import(&import).await.map_err(|error| {
            self.bar.abandon();
            let name = format!(
                "{}, up to line {}",
                self.table,
                numbers.last().unwrap_or(&0)
            );
            told("import", &name, error)
        })?;
        let outcomes = reply.outcomes.into_iter().skip(skipped);
        for ((outcome, number), kind) in outcomes.zip(numbers).zip(kinds) {
            let total = &mut self.totals[kind];
            match outcome {
                ImportOutcome::Created => total.created += 1,
                ImportOutcome::Equal => total.equal += 1,
                ImportOutcome::Updated => total.updated += 1,
                ImportOutcome::Refused { code, message } => {
                    total.refused += 1;
                    self.shown += 1;
                    if self.shown <= SHOWN_MAX {
                        let table = self.table;
                        let remedy = remedy(&code);
                        self.bar
                            .suspend(|| eprintln!("{table}:{number}: {message}{remedy}"));
                    }
                }
            }
            self.bar.inc(1);
        }
        Ok(())
    }
}

/// What to do about a refusal, where the words of the directory leave that open.
fn remedy(refused: &str) -> &'static str {
    match refused {
        code::EXISTS => "; --update makes it what the file says",
        code::UNKNOWN_DOMAIN => "; add the domain, or a line for it",
        code::UNKNOWN_ACCOUNT => {
            "; add the account, or a line for it. Another address is written with = in front"
        }
        code::UNKNOWN_PLACE => "; `posthouse backend list` shows what there is",
        code::NO_BACKEND => "; start a back-end first",
        _ => "",
    }
}

fn kind_of(row: &ImportRow) -> usize {
    match row {
        ImportRow::Domain(_) => 0,
        ImportRow::Account(_) => 1,
        ImportRow::Address(_) => 2,
    }
}

/// On a terminal only: elsewhere indicatif draws nothing.
fn bar(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{human_pos} of {human_len} [{wide_bar}] {per_sec}, {eta} left",
    );
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What became of the lines of one kind.
#[derive(Serialize)]
struct Total {
    kind: &'static str,
    dry_run: bool,
    created: u64,
    equal: u64,
    updated: u64,
    refused: u64,
}

impl Total {
    fn new(kind: &'static str, dry_run: bool) -> Self {
        Self {
            kind,
            dry_run,
            created: 0,
            equal: 0,
            updated: 0,
            refused: 0,
        }
    }

    fn sum(&self) -> u64 {
        self.created + self.equal + self.updated + self.refused
    }

    fn any(&self) -> bool {
        self.sum() > 0
    }
}

impl Row for Total {
    const HEADINGS: &'static [&'static str] =
        &["KIND", "CREATED", "THERE AND EQUAL", "UPDATED", "REFUSED"];

    fn cells(&self) -> Vec<String> {
        let counts = [self.created, self.equal, self.updated, self.refused];
        let counts = counts.iter().map(ToString::to_string);
        std::iter::once(self.kind.to_owned())
            .chain(counts)
            .collect()
    }
}
