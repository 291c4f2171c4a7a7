//! Looks through all stored credentials, at the start and then daily: how slow the slowest of them
//! is decides when a refusal is answered, how the keys for SCRAM look decides how made-up ones do, and of those that cannot be
//! checked the log tells.

use std::collections::BTreeMap;
use std::time::Duration;

use directory_api::AccountId;
use tracing::{info, warn};

use crate::engine::{Answer, Engine};
use crate::password::{Cost, Passwords};

/// Until it is ended from outside.
pub(crate) async fn survey<E: Engine>(engine: &E, passwords: &Passwords) {
    loop {
        let pause = match look(engine, passwords).await {
            Ok(slowest) => {
                passwords.look_ended(slowest);
                DAILY
            }
            Err(error) => {
                warn!(%error, "cannot look through the stored credentials, will try again");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
        passwords.look_begins(false);
    }
}

async fn look<E: Engine>(engine: &E, passwords: &Passwords) -> Answer<Cost> {
    let (mut slowest, mut shapes) = (Cost::default(), BTreeMap::new());
    let (mut after, mut unusable) = (AccountId(0), 0_usize);
    loop {
        let page = engine.credentials(after, PAGE_ROWS).await?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = *last;
        for (account, credentials) in &page {
            let (cost, refused) = passwords.examine(credentials);
            slowest = slowest.max(cost);
            if let Some(shape) = passwords
                .scram()
                .and_then(|scram| scram.shape_of(credentials))
            {
                *shapes.entry(shape).or_default() += 1;
            }
            if let Some(error) = refused {
                unusable += 1;
                if unusable <= NAMED_MAX {
                    warn!(%account, %error, "a stored credential cannot be checked: nobody can log in with it");
                }
            }
        }
    }
    if let Some(scram) = passwords.scram() {
        scram.look_as(&shapes);
    }
    metrics::gauge!(UNUSABLE).set(f64::from(u32::try_from(unusable).unwrap_or(u32::MAX)));
    if unusable > NAMED_MAX {
        info!(
            unusable,
            "stored credentials that cannot be checked, all together"
        );
    }
    Ok(slowest)
}

/// Of how many stored credentials the last look said that they cannot be checked.
pub(crate) const UNUSABLE: &str = "posthouse_directory_credentials_unusable";

const DAILY: Duration = Duration::from_secs(86_400);
/// After a failure of the database.
const AGAIN: Duration = Duration::from_secs(60);
/// Some milliseconds of one transaction.
const PAGE_ROWS: usize = 5_000;
/// Accounts named in the log by one look.
const NAMED_MAX: usize = 100;
