//! What the benches share: a volume on the real disk, and a message delivered to it.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use directory_api::{AccountId, BackendName, Epoch, VolumeName};
use durable::RealDisk;
use store_backend::volume::{Delivery, MailboxId, Outcome, Recipient, Volume, VolumeConfig};

/// The small-message profile of the design: 4.7 KB.
const BODY_OCTETS: usize = 4_700;

/// Opens the volume in a folder, made when absent, with the usual settings.
pub(crate) fn open(path: &Path) -> Volume {
    let backend = BackendName::new("bench").expect("the name is valid");
    let name = VolumeName::new("v1").expect("the name is valid");
    let config = VolumeConfig::new(path, backend, name);
    Volume::open(config, Arc::new(RealDisk)).expect("the volume opens")
}

/// A body of the small-message profile, another one for each number.
pub(crate) fn small_body(number: u64) -> Vec<u8> {
    let mut body = vec![b'x'; BODY_OCTETS];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body
}

/// Delivers a message to the INBOX of each account, all with the same prologue. Each number is another transaction.
///
/// # Panics
/// When it is not taken.
pub(crate) async fn deliver(
    volume: &Volume,
    number: u64,
    body: &[u8],
    to: impl IntoIterator<Item = AccountId>,
    prologue: &[u8],
) {
    let mut writer = volume.begin_blob();
    writer.write(body).await.expect("the body is taken");
    let mut txn = [0; 16];
    txn[..8].copy_from_slice(&number.to_le_bytes());
    let recipient = |account| Recipient {
        account,
        epoch: Epoch::FIRST,
        mailbox: MailboxId::INBOX,
        detail: None,
        prologue: prologue.to_vec(),
    };
    let delivery = Delivery {
        txn,
        sender: Vec::new(),
        content_key: [0; 32],
        repeats: store_api::deliver::Repeats::Deliver,
        blob: writer.finish().await.expect("the body is whole"),
        trace: String::new(),
        received_ms: 0,
        recipients: to.into_iter().map(recipient).collect(),
    };
    for outcome in volume.deliver(delivery).await {
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }
}
