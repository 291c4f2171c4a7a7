//! Made-up values for the tests of this package's decisions.

use std::sync::Arc;

use directory_api::wire::Located;
use directory_api::{AccountId, BackendName, Epoch, Home, Quota, VolumeName};
use mail_proto::Address;

use crate::recipients::Recipient;

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn backend(name: &str) -> BackendName {
    BackendName::new(name).unwrap()
}

pub(crate) fn located(account: u64, home: &str, epoch: u64) -> Located {
    Located {
        account: AccountId(account),
        home: Home {
            backend: backend(home),
            volume: VolumeName::new("v1").unwrap(),
            epoch: Epoch(epoch),
        },
        quota: Quota::NONE,
        detail: None,
        is_caught: false,
    }
}

pub(crate) fn recipient(account: u64, home: &str, epoch: u64) -> Recipient {
    Recipient {
        account: AccountId(account),
        backend: backend(home),
        epoch: Epoch(epoch),
        address: Arc::new(address("someone@example.test")),
        detail: None,
        hold: false,
    }
}
