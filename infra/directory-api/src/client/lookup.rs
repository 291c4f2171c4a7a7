//! Where mail for an address goes.

use http::Method;

use super::cached::Stamped;
use super::{CALL_DEADLINE, DirectoryClient, DirectoryError};
use crate::types::Address;
use crate::wire::{LookupReply, LookupRequest, LookupResult, Verdict, path};

impl DirectoryClient {
    /// Where mail for an address goes, from the cache when it is known there.
    ///
    /// While the directory is away, an address of which nothing is kept goes where its own goes without the detail, if that is
    /// kept: nobody can keep every `ann+anything`. Should it be somebody else's, who never got mail through here, it is ann who
    /// gets it.
    ///
    /// # Errors
    /// [`DirectoryError::Away`], or `Refused` when too many aliases stand behind the address. Each is
    /// temporary for a sender.
    pub async fn lookup(&self, address: &Address) -> Result<Verdict, DirectoryError> {
        let lookups = &self.inner.lookups;
        let subaddress = address.subaddress();
        let ask = async {
            if let Some((base, _)) = &subaddress
                && self.inner.seen.is_silent()
                && lookups.kept_while_away(base).await.is_some()
            {
                return Err(DirectoryError::silent());
            }
            self.ask_for(address).await
        };
        let error = match lookups.find(address, ask).await {
            Ok(result) => return Ok(result.verdict),
            Err(error) => error,
        };
        if error.is_away() {
            let kept = match &subaddress {
                Some((base, detail)) => lookups
                    .kept_while_away(base)
                    .await
                    .map(|result| with_detail(result.verdict, detail)),
                None => None,
            };
            lookups.count(if kept.is_some() { "stale" } else { "none" });
            if let Some(verdict) = kept {
                return Ok(verdict);
            }
        }
        Err(error)
    }

    async fn ask_for(&self, address: &Address) -> Result<Stamped<LookupResult>, DirectoryError> {
        let request = LookupRequest {
            addresses: vec![address.clone()],
        };
        let reply: Result<LookupReply, _> = self
            .call(Method::POST, path::LOOKUP, &request, CALL_DEADLINE)
            .await;
        // Who has nobody says so in a verdict: this is not the directory, or another version of it.
        let reply = reply.map_err(|error| match error {
            DirectoryError::Unknown => DirectoryError::nonsense("lookup is not known there"),
            error => error,
        })?;
        let result = reply
            .results
            .into_iter()
            .next()
            .filter(|result| result.address == *address)
            .ok_or(DirectoryError::nonsense(
                "lookup answered for another address",
            ))?;
        let accounts = match &result.verdict {
            Verdict::Accounts(accounts) | Verdict::External { accounts, .. } => Some(accounts),
            Verdict::UnknownAddress | Verdict::UnknownDomain => None,
        };
        // A stranger makes as many subaddresses of somebody, and names in a domain with a catch-all, as he likes, and each of
        // them may be given to somebody: they are worth no more than an "unknown".
        let known = accounts.is_some() && !result.is_derived;
        let steps = accounts.map_or(0, Vec::len) + result.via.len();
        Ok(Stamped {
            change: reply.change,
            known,
            weight: u32::try_from(steps).unwrap_or(u32::MAX).max(1),
            value: result,
        })
    }

    /// Forgets what is kept about an address, because a back-end has shown it to be wrong.
    pub async fn forget(&self, address: &Address) {
        self.inner.lookups.drop_key(address).await;
    }
}

/// The verdict on an address, as one on a subaddress of it: an alias with a detail of its own has the last word, and a
/// detail is of one user.
fn with_detail(mut verdict: Verdict, detail: &str) -> Verdict {
    if let Verdict::Accounts(accounts) | Verdict::External { accounts, .. } = &mut verdict
        && let [one] = &mut accounts[..]
    {
        one.detail.get_or_insert_with(|| detail.to_owned());
    }
    verdict
}
