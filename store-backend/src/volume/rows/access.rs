//! Who may use a mailbox of others, and what is noted about mailboxes.

use directory_api::AccountId;

use super::super::codec::Malformed;
use super::super::types::MailboxId;
use super::mailbox_key;

/// Key of the table `shares`: who may use a mailbox, then whose it is.
pub(in super::super) fn share_key(
    account: AccountId,
    owner: AccountId,
    mailbox: MailboxId,
) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&account.0.to_be_bytes());
    key[8..].copy_from_slice(&mailbox_key(owner, mailbox));
    key
}

/// Owner and mailbox of a key of `shares`.
pub(in super::super) fn share_of(key: &[u8]) -> Option<(AccountId, MailboxId)> {
    let (owner, mailbox) = (key.get(8..16)?, key.get(16..20)?);
    Some((
        AccountId(u64::from_be_bytes(owner.try_into().ok()?)),
        MailboxId(u32::from_be_bytes(mailbox.try_into().ok()?)),
    ))
}

/// A value of `shares`: version, then the owner's name.
pub(in super::super) fn encode_share(owner: &str) -> Vec<u8> {
    [&[1], owner.as_bytes()].concat()
}

pub(in super::super) fn decode_share(bytes: &[u8]) -> Result<&str, Malformed> {
    let bad = Malformed { what: "share row" };
    match bytes.split_first() {
        Some((1, owner)) => std::str::from_utf8(owner).map_err(|_| bad),
        _ => Err(bad),
    }
}

/// Key of the table `annotations`; mailbox 0 is the account itself.
pub(in super::super) fn annotation_key(
    account: AccountId,
    mailbox: MailboxId,
    entry: &str,
) -> Vec<u8> {
    [&mailbox_key(account, mailbox), entry.as_bytes()].concat()
}

/// Mailbox and entry of a key of `annotations`.
pub(in super::super) fn annotation_of(key: &[u8]) -> Option<(MailboxId, &str)> {
    let (mailbox, entry) = (key.get(8..12)?, key.get(12..)?);
    Some((
        MailboxId(u32::from_be_bytes(mailbox.try_into().ok()?)),
        std::str::from_utf8(entry).ok()?,
    ))
}

/// A value of `annotations`: version, then the annotation's value.
pub(in super::super) fn encode_annotation(value: &[u8]) -> Vec<u8> {
    [&[1], value].concat()
}

pub(in super::super) fn decode_annotation(bytes: &[u8]) -> Result<&[u8], Malformed> {
    match bytes.split_first() {
        Some((1, value)) => Ok(value),
        _ => Err(Malformed {
            what: "annotation row",
        }),
    }
}
