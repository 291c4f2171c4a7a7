//! Whether a subaddress says which mailbox gets its mail: that for `ann+lists@x.test` goes to her mailbox `Lists` (RFC 5233).

use mail_proto::imap::mailbox::MailboxName;
use serde::{Deserialize, Serialize};

use crate::volume::Detail;

/// Where mail for a subaddress goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubaddressMailbox {
    /// To INBOX, like all other mail.
    Inbox,
    /// To the mailbox of that name if there is one, else to INBOX.
    #[default]
    Existing,
    /// To the mailbox of that name, which is made when there is none.
    Create,
}

impl SubaddressMailbox {
    /// What the volume is told of the detail of an address.
    pub(crate) fn detail(self, detail: Option<&str>) -> Option<Detail> {
        let detail = detail.filter(|_| self != Self::Inbox)?;
        // As CREATE has it: nobody could type the name again.
        let is_typed = MailboxName::new(detail).is_ok_and(|name| !name.has_hidden());
        Some(Detail {
            name: detail.to_lowercase(),
            makes: self == Self::Create && is_typed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_says_whether_a_detail_names_a_mailbox_and_makes_it() {
        use SubaddressMailbox::{Create, Existing, Inbox};
        let of = |rule: SubaddressMailbox, detail| {
            let told = rule.detail(Some(detail));
            told.map(|detail| (detail.name, detail.makes))
        };
        assert_eq!(of(Inbox, "lists"), None);
        assert_eq!(of(Existing, "Lists"), Some(("lists".to_owned(), false)));
        assert_eq!(of(Create, "lists"), Some(("lists".to_owned(), true)));
        let hidden = "li\u{2028}sts";
        assert_eq!(of(Create, hidden), Some((hidden.to_owned(), false)));
        assert_eq!(Create.detail(None), None);
    }
}
