//! `posthouse key …`: the keys by which back-ends check who may open a mailbox.

use directory_api::DirectoryClient;
use directory_api::wire::{KeyState, PublicKey};

use super::{Output, Row, VerbError, told};

const NOUN: &str = "key";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// The keys that back-ends accept now
    List,
    /// Make a new key: published at once, used after a minute, when every back-end has it; the old one goes a minute later
    Rotate,
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        let keys = match self {
            Self::List => directory.keys().await,
            Self::Rotate => directory.rotate_key().await,
        };
        output.rows(&keys.map_err(|error| told(NOUN, "", error))?);
        Ok(())
    }
}

impl Row for PublicKey {
    const HEADINGS: &'static [&'static str] = &["KEY", "STATE"];

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            Some(KeyState::Old) => "old: no new grants",
            Some(KeyState::Used) | None => "used",
            Some(KeyState::Next) => "next: published, not used yet",
            Some(KeyState::Other) => "unknown to this version",
        };
        vec![self.id.clone(), state.to_owned()]
    }
}
