//! `posthouse hold …`: the mail that back-ends hold for each other, by where it shall go and how old it is.

use std::collections::BTreeMap;

use daemon::output::print_line;
use directory_api::{BackendName, DirectoryClient};
use serde::Serialize;
use store_api::hold::{AGES, Drop, Held, HoldClient, List};

use super::{Output, Row, VerbError, account_id, told};
use crate::cli::Source;
use crate::cli::reach;

/// What to do.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// How many messages are held, by where they shall go and by their age in minutes
    List {
        /// By account
        #[arg(long)]
        accounts: bool,
    },
    /// Have all homes tried at once, and what waits by itself
    Flush,
    /// Remove what is held for an account: it is never delivered
    Drop {
        /// Number or login name
        account: String,
        /// Only the messages that are set aside
        #[arg(long)]
        set_aside: bool,
    },
}

/// Asks every back-end. One that is down is named and passed over: that is when this is asked. False: none answers.
pub(crate) fn perform(
    options: &Options,
    source: Source,
    output: &Output,
) -> Result<bool, VerbError> {
    super::block_on(async {
        let (directory, backends) = reach(source)?;
        let ours = ours(&directory).await?;
        let mut answered = ours.is_empty();
        let mut found = Vec::new();
        let mut dropped = 0;
        let account = match &options.verb {
            Verb::Drop { account, .. } => Some(account_id(&directory, account).await?),
            Verb::List { .. } | Verb::Flush => None,
        };
        for name in ours {
            let asked = async {
                let client = HoldClient::new(backends.link(&name).await?);
                match (&options.verb, account) {
                    (Verb::List { .. }, _) => found.extend(list(&client, &name).await?),
                    (Verb::Flush, _) => client.flush().await?,
                    (Verb::Drop { set_aside, .. }, Some(account)) => {
                        let only_aside = *set_aside;
                        let request = Drop {
                            account,
                            only_aside,
                        };
                        dropped += client.drop(&request).await?.messages;
                    }
                    (Verb::Drop { .. }, None) => {}
                }
                Ok::<(), VerbError>(())
            };
            match asked.await {
                Ok(()) => answered = true,
                Err(error) => eprintln!("{name}: {}", daemon::log::causes(&error)),
            }
        }
        match options.verb {
            Verb::List { accounts: true } => output.rows(&found),
            Verb::List { accounts: false } => output.rows(&by_home(found)),
            Verb::Flush if !output.json => print_line("every home is tried now"),
            Verb::Flush => {}
            Verb::Drop { .. } => output.rows(&[Dropped { dropped }]),
        }
        Ok(answered)
    })?
}

async fn ours(directory: &DirectoryClient) -> Result<Vec<BackendName>, VerbError> {
    let own = directory.own_backends().await;
    let own = own.map_err(|error| told("backend", "list", error))?;
    Ok(own.into_iter().map(|one| one.name).collect())
}

async fn list(client: &HoldClient, holder: &BackendName) -> Result<Vec<Account>, VerbError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let listed = client.list(&List { after }).await?;
        after = listed
            .accounts
            .last()
            .map(|one| (one.volume.clone(), one.account));
        let told = listed.accounts.into_iter().map(|one| Account {
            holder: holder.clone(),
            held: one,
        });
        found.extend(told);
        if !listed.has_more {
            return Ok(found);
        }
    }
}

/// What one back-end holds for one account.
#[derive(Serialize)]
struct Account {
    holder: BackendName,
    #[serde(flatten)]
    held: Held,
}

/// What all hold for one home.
#[derive(Serialize)]
struct Destination {
    /// None: the account is not known to the directory, or its home was not asked for yet.
    home: Option<BackendName>,
    total: u64,
    /// By age, as [`store_api::hold::AGES_MIN`] has it.
    messages: [u64; AGES],
    octets: u64,
}

#[derive(Serialize)]
struct Dropped {
    dropped: u64,
}

fn by_home(accounts: Vec<Account>) -> Vec<Destination> {
    let mut homes: BTreeMap<Option<BackendName>, Destination> = BTreeMap::new();
    for Account { held, .. } in accounts {
        let to = homes
            .entry(held.home.clone())
            .or_insert_with(|| Destination {
                home: held.home.clone(),
                total: 0,
                messages: [0; AGES],
                octets: 0,
            });
        for (sum, count) in to.messages.iter_mut().zip(held.messages) {
            *sum += count;
            to.total += count;
        }
        to.octets += held.octets;
    }
    homes.into_values().collect()
}

fn home(name: Option<&BackendName>) -> String {
    name.map_or("not known".to_owned(), ToString::to_string)
}

impl Row for Destination {
    // As Postfix's `qshape` has them.
    const HEADINGS: &'static [&'static str] = &[
        "HOME", "T", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+", "OCTETS",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![home(self.home.as_ref()), self.total.to_string()];
        cells.extend(self.messages.iter().map(u64::to_string));
        cells.push(self.octets.to_string());
        cells
    }
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "ACCOUNT",
        "HOME",
        "HELD BY",
        "VOLUME",
        "MESSAGES",
        "OCTETS",
        "OLDEST (UTC)",
        "WAITS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.held.account.to_string(),
            home(self.held.home.as_ref()),
            self.holder.to_string(),
            self.held.volume.to_string(),
            self.held.messages.iter().sum::<u64>().to_string(),
            self.held.octets.to_string(),
            daemon::clock::utc(self.held.oldest_ms),
            waits(&self.held),
        ]
    }
}

/// In words: the account's reason, and how many messages are set aside and why the first of them is.
fn waits(held: &Held) -> String {
    let account = held.waits.iter().map(|waits| waits.reason.clone());
    let aside = held.aside.first().map(|first| {
        let (count, why) = (held.aside_count, &first.waits.reason);
        format!("{count} set aside ({why})")
    });
    let both: Vec<String> = account.chain(aside).collect();
    match both.is_empty() {
        true => "-".to_owned(),
        false => both.join(", "),
    }
}

impl Row for Dropped {
    const HEADINGS: &'static [&'static str] = &["DROPPED"];

    fn cells(&self) -> Vec<String> {
        vec![self.dropped.to_string()]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use directory_api::AccountId;
    use store_api::hold::{Aside, Waits};

    use super::*;

    #[test]
    fn what_is_held_is_summed_by_home_and_age() {
        let account = |number, home: Option<&str>, messages| Account {
            holder: "b2".parse().unwrap(),
            held: Held {
                volume: "main".parse().unwrap(),
                account: AccountId(number),
                home: home.map(|home| home.parse().unwrap()),
                messages,
                octets: 10,
                oldest_ms: 0,
                waits: None,
                aside_count: 0,
                aside: Vec::new(),
            },
        };
        let mut old = [0; AGES];
        old[9] = 2;
        let mut new = [0; AGES];
        new[0] = 1;
        let homes = by_home(vec![
            account(1, Some("b1"), new),
            account(2, Some("b1"), old),
            account(3, None, new),
        ]);
        let cells: Vec<_> = homes.iter().map(Row::cells).collect();
        assert_eq!(cells[0].join(" "), "not known 1 1 0 0 0 0 0 0 0 0 0 10");
        assert_eq!(cells[1].join(" "), "b1 3 1 0 0 0 0 0 0 0 0 2 20");
        assert_eq!(Destination::HEADINGS.len(), cells[0].len());
    }

    #[test]
    fn an_account_tells_why_it_waits_and_what_is_set_aside() {
        let because = |reason: &str| Waits {
            reason: reason.into(),
            tries: 1,
            next_s: 60,
        };
        let mut held = Held {
            volume: "main".parse().unwrap(),
            account: AccountId(1),
            home: None,
            messages: [0; AGES],
            octets: 0,
            oldest_ms: 0,
            waits: None,
            aside_count: 0,
            aside: Vec::new(),
        };
        assert_eq!(waits(&held), "-");
        held.waits = Some(because("frozen"));
        assert_eq!(waits(&held), "frozen");
        held.aside_count = 12;
        held.aside.push(Aside {
            uid: 3,
            waits: because("too_large"),
        });
        assert_eq!(waits(&held), "frozen, 12 set aside (too_large)");
        let account = Account {
            holder: "b2".parse().unwrap(),
            held,
        };
        assert_eq!(Account::HEADINGS.len(), account.cells().len());
    }
}
