//! The index as text: equal dumps mean equal indexes, whatever pages LMDB keeps them in.

use std::fmt::Write;

use super::Volume;
use super::error::ReadError;
use super::index::Index;
use super::read::blocking;

impl Volume {
    /// Every row, one line each: table, key, value. For comparing an index with one rebuilt from the journal.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn dump_index(&self) -> Result<String, ReadError> {
        self.inner.shared().settled_all().await?;
        blocking(self.inner.shared(), |shared| dump(&shared.index)).await
    }
}

fn dump(index: &Index) -> Result<String, ReadError> {
    let hex = data_encoding::HEXLOWER;
    index.read(|txn| {
        let mut text = String::new();
        for (name, table) in index.tables() {
            for row in table.iter(txn)? {
                let (key, value) = row?;
                // How far the files are is not the journal's business; of cards, some are made by readers.
                if key != b"checkpoint" && name != "cards" {
                    let _ = writeln!(text, "{name} {} {}", hex.encode(key), hex.encode(value));
                }
            }
        }
        Ok(text)
    })
}
