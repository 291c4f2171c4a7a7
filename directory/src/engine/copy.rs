//! Everything that one database has, written into another, which is empty: all of it in one transaction, or nothing.

use std::ops::Bound;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::rows::{Rows, RowsMut, Table};
use super::rules::{Database, How};
use super::{Answer, EngineError, Lmdb, Postgres};

/// Some rows, or the end of all.
enum Part {
    Rows(Table, Vec<(Vec<u8>, Vec<u8>)>),
    End,
}

/// Copies all rows and says how many there are.
pub(crate) async fn copy_to_postgres(from: &Lmdb, to: &Postgres, now_ms: i64) -> Answer<u64> {
    copy_rows(from, to, now_ms).await
}

/// Copies all rows and says how many there are.
pub(crate) async fn copy_to_lmdb(from: &Postgres, to: &Lmdb, now_ms: i64) -> Answer<u64> {
    copy_rows(from, to, now_ms).await
}

async fn copy_rows<F: Database, T: Database>(from: &F, to: &T, now_ms: i64) -> Answer<u64> {
    let (sender, parts) = sync_channel(PARTS_WAITING_MAX);
    let read = from.read(move |view| send_all(view.rows(), &sender));
    let written = to.write(How::large(now_ms), move |write| {
        take_all(write.rows(), &parts)
    });
    let (read, written) = tokio::join!(read, written);
    // Where the reader has failed the writer has only missed the end.
    read?;
    written
}

fn send_all(rows: &dyn Rows, to: &SyncSender<Part>) -> Answer<()> {
    for table in Table::ALL {
        let (mut part, mut octets) = (Vec::new(), 0);
        for row in rows.walk(table, Bound::Unbounded)? {
            let (key, value) = row?;
            // What a database says of its own form is not the other's.
            if table == Table::Meta && key.as_ref() == b"format" {
                continue;
            }
            octets += key.len() + value.len();
            part.push((key.into_owned(), value.into_owned()));
            if octets >= PART_OCTETS {
                send(to, Part::Rows(table, std::mem::take(&mut part)))?;
                octets = 0;
            }
        }
        send(to, Part::Rows(table, part))?;
    }
    send(to, Part::End)
}

fn send(to: &SyncSender<Part>, part: Part) -> Answer<()> {
    to.send(part).map_err(|_| cut())
}

fn take_all(rows: &mut dyn RowsMut, parts: &Receiver<Part>) -> Answer<u64> {
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        if rows.last_key(table)?.is_some() {
            return Err(EngineError::InUse(
                "the database to copy to is not empty: name another one",
            ));
        }
    }
    let mut count = 0;
    loop {
        match parts.recv().map_err(|_| cut())? {
            Part::End => return Ok(count),
            Part::Rows(table, part) => {
                for (key, value) in &part {
                    rows.put(table, key, value)?;
                }
                rows.relieve()?;
                count += part.len() as u64;
            }
        }
    }
}

fn cut() -> EngineError {
    EngineError::Storage("the other side of the copy has ended".into())
}

const PART_OCTETS: usize = 1 << 20;
const PARTS_WAITING_MAX: usize = 4;
