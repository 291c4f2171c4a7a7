//! Which mailbox gets mail for a subaddress: that for `ann+lists@x.test` goes to her mailbox `Lists` (RFC 5233).
//!
//! It is chosen with the commit and by what is true there, so that nobody can take the mailbox away in between: mail is not
//! refused, and other recipients' is not sent again, for a mailbox that its owner has deleted.

use super::super::types::{MailboxId, Recipient, SpecialUse, TransactionId};
use super::accounts::Account;
use super::mailbox::canonical;
use super::{Batch, Sequencer, Stop};

impl Account {
    /// The mailbox for a recipient's mail. Whatever is in the way of the one of its detail, it is what it would be without.
    pub(super) fn place(&self, recipient: &Recipient) -> MailboxId {
        let named = recipient.detail.as_ref().and_then(|detail| {
            self.mailboxes.iter().find(|(_, row)| {
                is_named(&row.name, &detail.name)
                    && is_open(&row.name, row.special_use)
                    && row.uidnext < u32::MAX
            })
        });
        named.map_or(recipient.mailbox, |(mailbox, _)| *mailbox)
    }
}

impl Sequencer {
    /// Makes the mailbox of a recipient's detail, if that shall be. One of the first level, and not in an account that has never
    /// had anything. What refuses it is no trouble of the message.
    pub(super) fn make_for_detail(
        &mut self,
        batch: &mut Batch<'_>,
        txn: &TransactionId,
        recipient: &Recipient,
    ) -> Result<(), Stop> {
        let Some(detail) = recipient.detail.as_ref().filter(|detail| detail.makes) else {
            return Ok(());
        };
        let (id, name) = (recipient.account, &detail.name);
        let may_be = name.len() <= NAME_MAX_OCTETS
            && !name.contains(NOT_MADE)
            && is_open(name, SpecialUse::default())
            && canonical(name).is_ok_and(|canonical| canonical == *name);
        if !may_be || batch.check_room().is_err() || self.has_transaction(batch, id, txn)? {
            return Ok(());
        }
        let account = self.account(batch, id)?;
        let mut names = account.mailboxes.values().map(|row| &row.name);
        if names.any(|other| is_named(other, name))
            || account.mailboxes.len() >= MADE_MAX
            || account.writable(recipient.epoch).is_err()
        {
            return Ok(());
        }
        self.new_mailboxes(batch, id, vec![name.clone()], SpecialUse::default())?;
        self.subscribe(batch, id, recipient.epoch, name, true)?;
        Ok(())
    }
}

/// Whether a detail may lead there: strangers shall not put mail among what somebody has sent or thrown away. Most programs make
/// the mailboxes for that without saying what they are for.
fn is_open(name: &str, special_use: SpecialUse) -> bool {
    let is_used = |level: &str| USED_NAMES.iter().any(|used| is_named(level, used));
    special_use == SpecialUse::default() && !name.split('/').any(is_used)
}

/// Both are one name but for their case; the directory has the detail in lower case.
fn is_named(name: &str, detail: &str) -> bool {
    match name.is_ascii() {
        true => name.eq_ignore_ascii_case(detail),
        false => name.to_lowercase() == detail,
    }
}

/// What mail programs call the mailboxes of RFC 6154's uses, wherever they put them.
const USED_NAMES: [&str; 17] = [
    "all mail",
    "archive",
    "archives",
    "deleted items",
    "deleted messages",
    "draft",
    "drafts",
    "junk",
    "junk e-mail",
    "junk email",
    "outbox",
    "sent",
    "sent items",
    "sent mail",
    "sent messages",
    "spam",
    "trash",
];
/// A level more, and what LIST would take for a pattern (RFC 9051 §6.3.9).
const NOT_MADE: [char; 3] = ['/', '%', '*'];
/// Local parts are no longer.
const NAME_MAX_OCTETS: usize = 64;
/// A stranger cannot use up what the owner may have.
const MADE_MAX: usize = 200;
