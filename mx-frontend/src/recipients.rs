//! The accounts one transaction delivers to: each once, whatever aliases led there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use directory_api::wire::Located;
use directory_api::{AccountId, BackendName, Epoch, VolumeName};
use mail_proto::Address;

/// One account and the recipient that first led to it.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    pub(crate) account: AccountId,
    pub(crate) backend: BackendName,
    pub(crate) epoch: Epoch,
    /// What RCPT named: it stands in Delivered-To and is looked up again when the home has moved.
    pub(crate) address: Arc<Address>,
    /// Of the subaddress that led here (RFC 5233).
    pub(crate) detail: Option<String>,
    /// `backend` is not its home: it shall hold the message for it.
    pub(crate) hold: bool,
}

/// What the RCPT commands of one transaction came to.
#[derive(Debug)]
pub(crate) struct Recipients {
    list: Vec<Recipient>,
    known: HashSet<AccountId>,
    accounts_max: usize,
}

/// One more recipient would reach more accounts than one delivery may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyAccounts;

impl Recipients {
    pub(crate) fn new(accounts_max: usize) -> Self {
        Self {
            list: Vec::new(),
            known: HashSet::new(),
            accounts_max,
        }
    }

    /// Adds what one RCPT resolved to. An account that an earlier one reached is not added again.
    ///
    /// `holders`: homes, by volume, that cannot take mail now, and who holds it for them.
    /// All or nothing: a recipient refused here must be refused to the sender whole.
    pub(crate) fn add(
        &mut self,
        address: Address,
        located: Vec<Located>,
        holders: &[(BackendName, VolumeName, BackendName)],
    ) -> Result<(), TooManyAccounts> {
        let mut new: Vec<Located> = Vec::with_capacity(located.len());
        for place in located {
            let again = self.known.contains(&place.account)
                || new.iter().any(|other| other.account == place.account);
            if !again {
                new.push(place);
            }
        }
        if self.list.len() + new.len() > self.accounts_max {
            return Err(TooManyAccounts);
        }
        let address = Arc::new(address);
        for place in new {
            self.known.insert(place.account);
            let home = place.home;
            let holder = holders
                .iter()
                .find(|(backend, volume, _)| (backend, volume) == (&home.backend, &home.volume));
            self.list.push(Recipient {
                account: place.account,
                hold: holder.is_some(),
                backend: holder.map_or(home.backend, |(.., holder)| holder.clone()),
                epoch: home.epoch,
                address: Arc::clone(&address),
                detail: place.detail,
            });
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> &[Recipient] {
        &self.list
    }
}

/// Sorts recipients by the back-end they live on: one delivery stream each.
pub(crate) fn by_backend<'a>(
    recipients: impl IntoIterator<Item = &'a Recipient>,
) -> BTreeMap<BackendName, Vec<&'a Recipient>> {
    let mut groups: BTreeMap<BackendName, Vec<&Recipient>> = BTreeMap::new();
    for recipient in recipients {
        groups
            .entry(recipient.backend.clone())
            .or_default()
            .push(recipient);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{address, backend, located};

    #[test]
    fn an_account_reached_twice_is_there_once_under_its_first_name() {
        let mut recipients = Recipients::new(10);
        recipients
            .add(address("ann@example.test"), vec![located(1, "b1", 1)], &[])
            .unwrap();
        recipients
            .add(
                address("all@example.test"),
                vec![located(1, "b1", 1), located(2, "b2", 1)],
                &[],
            )
            .unwrap();
        let seen: Vec<_> = recipients
            .list()
            .iter()
            .map(|r| (r.account.0, r.address.to_string()))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "ann@example.test".to_owned()),
                (2, "all@example.test".to_owned())
            ]
        );
        let groups = by_backend(recipients.list());
        assert_eq!(
            groups.keys().map(BackendName::as_str).collect::<Vec<_>>(),
            ["b1", "b2"]
        );
    }

    #[test]
    fn a_recipient_beyond_the_limit_is_refused_whole() {
        let mut recipients = Recipients::new(2);
        recipients
            .add(address("a@x.test"), vec![located(1, "b1", 1)], &[])
            .unwrap();
        let two = vec![located(2, "b1", 1), located(3, "b1", 1)];
        assert_eq!(
            recipients.add(address("b@x.test"), two, &[]),
            Err(TooManyAccounts)
        );
        assert_eq!(recipients.list().len(), 1);
        recipients
            .add(address("c@x.test"), vec![located(2, "b1", 1)], &[])
            .unwrap();
        assert_eq!(recipients.list().len(), 2);
    }

    #[test]
    fn a_recipient_whose_home_is_down_goes_to_its_holder() {
        let mut recipients = Recipients::new(10);
        let two = vec![located(1, "b1", 3), located(2, "b2", 1)];
        let volume = two[0].home.volume.clone();
        let holders = [(backend("b1"), volume, backend("b2"))];
        recipients
            .add(address("all@x.test"), two, &holders)
            .unwrap();
        let seen: Vec<_> = recipients
            .list()
            .iter()
            .map(|one| (one.account.0, one.backend.as_str(), one.epoch.0, one.hold))
            .collect();
        assert_eq!(seen, [(1, "b2", 3, true), (2, "b2", 1, false)]);
    }
}
