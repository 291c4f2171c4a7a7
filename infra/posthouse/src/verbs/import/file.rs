//! The file that is imported: its records, each with the line on which it begins.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use directory_api::DomainName;
use directory_api::wire::ImportRow;

use super::line::{Line, unknown_column};
use super::{Format, csv};
use crate::verbs::VerbError;

/// A file with rows.
pub(super) struct Table {
    path: PathBuf,
    format: Format,
}

/// A row and where it stands.
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) row: ImportRow,
}

/// A line that cannot be read.
pub(crate) struct Mistake {
    number: u64,
    what: String,
}

/// What is in a file.
#[derive(Default)]
pub(super) struct Counted {
    passes: [u64; 4],
    /// The domains of the file, with what they are aliases of.
    pub(super) domains: HashMap<DomainName, Option<DomainName>>,
    /// Hashes of the login names in the file.
    pub(super) logins: std::collections::HashSet<u64>,
}

impl Counted {
    pub(super) fn rows(&self) -> u64 {
        self.passes.iter().sum()
    }

    pub(super) fn has(&self, pass: usize) -> bool {
        self.passes[pass] > 0
    }
}

/// In which reading of the file a row is brought.
pub(super) fn pass_of(row: &ImportRow) -> usize {
    match row {
        ImportRow::Domain(domain) => usize::from(domain.alias_of.is_some()),
        ImportRow::Account(_) => 2,
        ImportRow::Address(_) => 3,
    }
}

/// Login names are one name in any case.
pub(super) fn login_hash(name: &str) -> u64 {
    hash(&("account", name.to_lowercase()))
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn key_of(row: &ImportRow) -> u64 {
    match row {
        ImportRow::Domain(domain) => hash(&("domain", domain.name.as_str())),
        ImportRow::Account(account) => login_hash(account.login_name.as_str()),
        ImportRow::Address(address) => hash(&("address", address.address.as_str())),
    }
}

/// Mistakes that are told one by one.
const SHOWN_MAX: usize = 100;
/// Octets of a record.
const RECORD_MAX: usize = 1 << 20;

impl Table {
    pub(super) fn new(path: PathBuf, format: Option<Format>) -> Result<Self, VerbError> {
        let by_name = || match path.extension()?.to_str()? {
            "csv" => Some(Format::Csv),
            "jsonl" | "json" | "ndjson" => Some(Format::Jsonl),
            _ => None,
        };
        let format = format
            .or_else(by_name)
            .ok_or(VerbError::Missing("--format csv or --format jsonl"))?;
        let table = Self { path, format };
        let about = fs::metadata(&table.path).map_err(|error| table.failed(error))?;
        if !about.is_file() {
            return Err(VerbError::NotRegular(table.path));
        }
        Ok(table)
    }

    /// Reads all of it and finds what is wrong before anything is changed.
    pub(super) fn check(&self) -> Result<Counted, VerbError> {
        let mut counted = Counted::default();
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let mut mistakes = 0;
        let mut tell = |number, what: &dyn fmt::Display| {
            mistakes += 1;
            if mistakes <= SHOWN_MAX {
                eprintln!("{self}:{number}: {what}");
            }
        };
        for record in self.records()? {
            let row = match record? {
                Ok(numbered) => numbered,
                Err(Mistake { number, what }) => {
                    tell(number, &what);
                    continue;
                }
            };
            let Numbered { number, row, .. } = row;
            match seen.entry(key_of(&row)) {
                Entry::Occupied(first) => tell(
                    number,
                    &format_args!(
                        "stands on line {} already; remove one of the two",
                        first.get()
                    ),
                ),
                Entry::Vacant(place) => {
                    place.insert(number);
                }
            }
            counted.passes[pass_of(&row)] += 1;
            match row {
                ImportRow::Domain(domain) => {
                    counted.domains.insert(domain.name, domain.alias_of);
                }
                ImportRow::Account(account) => {
                    counted
                        .logins
                        .insert(login_hash(account.login_name.as_str()));
                }
                ImportRow::Address(_) => {}
            }
        }
        if mistakes > 0 {
            return Err(VerbError::Unreadable {
                path: self.path.clone(),
                mistakes,
            });
        }
        Ok(counted)
    }

    /// The rows of a file that was checked.
    pub(super) fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<Numbered, VerbError>> + '_, VerbError> {
        let records = self.records()?;
        Ok(records.map(move |record| {
            record?.map_err(|Mistake { number, what }| {
                eprintln!("{self}:{number}: {what}");
                VerbError::Unreadable {
                    path: self.path.clone(),
                    mistakes: 1,
                }
            })
        }))
    }

    fn records(&self) -> Result<Records<'_>, VerbError> {
        let file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let mut records = Records {
            table: self,
            reader: BufReader::with_capacity(1 << 16, file),
            line: 0,
            columns: Vec::new(),
        };
        if self.format == Format::Csv {
            records.read_columns()?;
        }
        Ok(records)
    }

    fn failed(&self, source: io::Error) -> VerbError {
        VerbError::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

struct Records<'a> {
    table: &'a Table,
    reader: BufReader<File>,
    line: u64,
    columns: Vec<String>,
}

type Record = Result<Numbered, Mistake>;

impl Records<'_> {
    fn read_columns(&mut self) -> Result<(), VerbError> {
        let wrong = |what: String| {
            eprintln!("{}:1: {what}", self.table);
            VerbError::Unreadable {
                path: self.table.path.clone(),
                mistakes: 1,
            }
        };
        let mut text = String::new();
        let table = self.table;
        self.reader
            .by_ref()
            .take(RECORD_MAX as u64)
            .read_line(&mut text)
            .map_err(|error| table.failed(error))?;
        self.line = 1;
        let names = text.trim_start_matches('\u{feff}').trim_end();
        let columns = csv::split(names).unwrap_or(Err("a quote is not closed"));
        let columns = columns.map_err(|what| wrong(what.to_owned()))?;
        for (at, name) in columns.iter().enumerate() {
            // Where the first line is not the columns' names, a password may stand in it.
            if !Line::has(name) {
                return Err(wrong(unknown_column(at + 1)));
            }
            if columns[..at].contains(name) {
                return Err(wrong(format!("names {name} twice")));
            }
        }
        self.columns = columns;
        Ok(())
    }

    /// One more line of a record; false at the end of the file.
    fn more(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        let left = (RECORD_MAX + 1).saturating_sub(record.len()) as u64;
        let read = self.reader.by_ref().take(left).read_until(b'\n', record)?;
        self.line += u64::from(read > 0);
        Ok(read > 0)
    }

    /// The lines behind one that ends in a field with an open quote, up to the one that ends the record.
    /// What was read is not looked at again: a quote that nobody closes costs its length.
    fn rest(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        let mut is_open = true;
        while is_open && record.len() <= RECORD_MAX {
            let looked_at = record.len();
            if !self.more(record)? {
                break;
            }
            let quotes = record[looked_at..].iter().filter(|octet| **octet == b'"');
            is_open = quotes.count() % 2 == 0;
        }
        Ok(())
    }

    /// `None` at the end of the file.
    fn read(&mut self) -> io::Result<Option<Record>> {
        let mut record = Vec::new();
        loop {
            record.clear();
            if !self.more(&mut record)? {
                return Ok(None);
            }
            if !record.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.line;
        let mistake = |what: String| Ok(Some(Err(Mistake { number, what })));
        if self.table.format == Format::Csv && csv::is_open(&record) {
            self.rest(&mut record)?;
        }
        if record.len() > RECORD_MAX {
            let mut rest = Vec::new();
            while !record.ends_with(b"\n") {
                rest.clear();
                if self
                    .reader
                    .by_ref()
                    .take(1 << 16)
                    .read_until(b'\n', &mut rest)?
                    == 0
                    || rest.ends_with(b"\n")
                {
                    break;
                }
            }
            return mistake("is longer than 1 MiB; split it".to_owned());
        }
        let Ok(text) = std::str::from_utf8(&record) else {
            return mistake("is not UTF-8; convert the file".to_owned());
        };
        let text = text.trim_end_matches(['\r', '\n']);
        let line = match self.table.format {
            Format::Jsonl => Line::from_json(text),
            Format::Csv => match csv::split(text) {
                Some(Ok(fields)) => Line::from_fields(&self.columns, fields),
                Some(Err(what)) => Err(what.to_owned()),
                None => Err("a quote is not closed before the end of the file".to_owned()),
            },
        };
        match line.and_then(Line::row) {
            Ok(row) => Ok(Some(Ok(Numbered { number, row }))),
            Err(what) => mistake(what),
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, VerbError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read()
            .map_err(|error| self.table.failed(error))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows(text: &str) -> Result<u64, VerbError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        fs::write(&path, text).unwrap();
        let counted = Table::new(path, None)?.check()?;
        Ok(counted.rows())
    }

    #[test]
    fn a_record_ends_with_its_last_quote() {
        let text = "account,password\na,\"x\ny\"\nb,\"\"\"\n\n\"\nc,\"x\"\"y\"\n";
        assert_eq!(rows(text).unwrap(), 3);
        assert!(matches!(
            rows("account,password\na,\"x\ny\n"),
            Err(VerbError::Unreadable { mistakes: 1, .. })
        ));
    }

    /// It was looked at again with each of its lines: a MiB of them took hours.
    #[test]
    fn a_quote_that_nobody_closes_costs_its_length() {
        let text = format!("account,password\na,\"{}", "\n".repeat(RECORD_MAX));
        assert!(matches!(
            rows(&text),
            Err(VerbError::Unreadable { mistakes: 1, .. })
        ));
    }

    #[test]
    fn a_column_is_named_once() {
        assert_eq!(rows("account,status\na,active\n").unwrap(), 1);
        for columns in ["account,account", "account,state"] {
            assert!(
                rows(&format!("{columns}\na,active\n")).is_err(),
                "{columns}"
            );
        }
    }
}
