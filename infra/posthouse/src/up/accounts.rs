//! The first domain and accounts, put into the directory through its own interface.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use directory_api::wire::{
    AccountBatch, AccountNew, AddressPut, Credential, ListQuery, Secret, Target, code, limit,
};
use directory_api::{Address, BackendName, DirectoryClient, DirectoryError, DomainName, LoginName};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::UpError;
use crate::data::{DataError, write_atomically};
use crate::nodes::BACKENDS;

/// RFC 6761 keeps `.test` for ever out of the public DNS.
pub(super) const DOMAIN: &str = "example.test";
const FILE: &str = "demo-accounts.json";
const DEMO_NAMES: [&str; 2] = ["anna", "ben"];
/// The password of every seeded account: they are for tests, and bench tools know it.
pub(super) const SEED_PASSWORD: &str = "pass";

/// The demo accounts as first made, so that later starts can show them again.
#[derive(Serialize, Deserialize)]
pub(super) struct Demo {
    pub(super) accounts: Vec<DemoAccount>,
    /// They are in the directory; what an operator does to them there is not undone.
    made: bool,
}

/// One demo account.
#[derive(Serialize, Deserialize)]
pub(super) struct DemoAccount {
    pub(super) address: Address,
    /// In clear, in a file of mode 0600: that is what a demo account is.
    pub(super) password: String,
    pub(super) backend: BackendName,
}

/// Makes domain, demo accounts and the postmaster alias, once for a data folder.
pub(super) async fn demo(directory: &DirectoryClient, data: &Path) -> Result<Demo, UpError> {
    let path = data.join(FILE);
    let mut demo = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| broken(&path, error.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Demo::new(),
        Err(error) => return Err(broken(&path, error)),
    };
    if demo.made {
        return Ok(demo);
    }
    // The passwords first: after a crash the next start uses the same ones.
    demo.write(&path)?;
    backends_known(directory).await?;
    directory.put_domain(&domain()).await?;
    for account in &demo.accounts {
        let new = AccountNew {
            addresses: vec![account.address.clone()],
            backend: Some(account.backend.clone()),
            ..AccountNew::new(
                login_name(account.address.as_str()),
                Some(Credential::Password(Secret::new(account.password.clone()))),
            )
        };
        match directory.create_account(&new).await {
            Ok(_) => {}
            // An earlier start came that far.
            Err(DirectoryError::Refused(problem)) if problem.code == code::EXISTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    // RFC 5321 §4.5.1: every domain that takes mail has a postmaster.
    let targets = demo
        .accounts
        .iter()
        .take(1)
        .map(|account| Target::Address(account.address.clone()))
        .collect();
    directory
        .put_address(&address("postmaster"), &AddressPut { targets })
        .await?;
    demo.made = true;
    demo.write(&path)?;
    Ok(demo)
}

fn broken(path: &Path, source: io::Error) -> UpError {
    DataError::Io {
        path: path.to_owned(),
        source,
    }
    .into()
}

impl Demo {
    fn new() -> Self {
        let account = |(name, backend): (&&str, &&str)| DemoAccount {
            address: address(name),
            password: readable_password(),
            backend: BackendName::new(*backend).expect("the names of our own back-ends are labels"),
        };
        Self {
            accounts: DEMO_NAMES.iter().zip(&BACKENDS).map(account).collect(),
            made: false,
        }
    }

    fn write(&self, path: &Path) -> Result<(), DataError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_atomically(path, text.as_bytes(), 0o600)
    }
}

/// Makes `user00000@…` to `count` accounts; those that are there stay as they are.
pub(super) async fn seed(directory: &DirectoryClient, count: u32) -> Result<(), DirectoryError> {
    directory.put_domain(&domain()).await?;
    // One salt for all: the password is known anyway, and hashing it once keeps 50,000 accounts a matter of seconds.
    let credential = Credential::salted_sha256(SEED_PASSWORD, b"posthouse");
    let numbers: Vec<u32> = (0..count).collect();
    for part in numbers.chunks(limit::BATCH_ACCOUNTS_MAX) {
        let account = |number: &u32| {
            let address = address(&format!("user{number:05}"));
            let backend = BACKENDS[*number as usize % BACKENDS.len()];
            AccountNew {
                addresses: vec![address.clone()],
                backend: BackendName::new(backend).ok(),
                ..AccountNew::new(login_name(address.as_str()), Some(credential.clone()))
            }
        };
        directory
            .create_accounts(&AccountBatch {
                accounts: part.iter().map(account).collect(),
            })
            .await?;
    }
    Ok(())
}

/// A back-end is known to the directory once it has announced itself, just after it became ready.
async fn backends_known(directory: &DirectoryClient) -> Result<(), DirectoryError> {
    loop {
        let known = directory.backends(&ListQuery::default()).await?.items;
        if BACKENDS
            .iter()
            .all(|name| known.iter().any(|backend| backend.name.as_str() == *name))
        {
            return Ok(());
        }
        sleep(Duration::from_millis(25)).await;
    }
}

/// Ten syllables of one consonant and one vowel: 60 bits that can be read out on a telephone.
fn readable_password() -> String {
    const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
    const VOWELS: &[u8; 4] = b"aiou";
    let mut random = [0; 10];
    daemon::random::fill(&mut random);
    let mut password = String::new();
    for (at, octet) in random.iter().enumerate() {
        if at > 0 && at % 2 == 0 {
            password.push('-');
        }
        password.push(char::from(CONSONANTS[usize::from(octet & 15)]));
        password.push(char::from(VOWELS[usize::from(octet >> 4 & 3)]));
    }
    password
}

fn domain() -> DomainName {
    DomainName::new(DOMAIN).expect("our own domain is a name")
}

fn address(local: &str) -> Address {
    Address::new(local, DOMAIN).expect("our own names are addresses")
}

fn login_name(text: &str) -> LoginName {
    LoginName::new(text).expect("our own addresses are login names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_can_be_read_out_and_is_not_the_next_one() {
        let password = readable_password();
        assert_eq!(
            password.split('-').map(str::len).collect::<Vec<_>>(),
            [4; 5],
            "{password}"
        );
        assert_ne!(password, readable_password());
    }
}
