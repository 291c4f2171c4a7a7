//! From a name as a client sends it to the name that it stands for. RFC 9051 §5.1, RFC 5198.
//!
//! Two names that look the same are one: `ü` and `u` with two dots above name one mailbox, whatever the form it was made
//! in, by any command. A name that somebody made before in another form than NFC is kept, told and taken as it is; should
//! there be several that look the same, each is reached by itself. Names in ASCII, nearly all, have one form and cost
//! nothing.

use std::collections::{BTreeSet, HashMap};

use mail_proto::imap::command::Command;
use mail_proto::imap::mailbox::{MailboxName, composed};

use super::Session;
use super::list::all_names;
use super::place::find;
use super::reply::Failure;
use crate::volume::Refusal;

/// Puts names that are kept, or would be, in the place of those that a command has. NOTIFY can have twenty thousand: what
/// there is is asked for once.
pub(super) async fn settle_all(
    session: &mut Session<'_>,
    command: &mut Command,
) -> Result<(), Failure> {
    let mut known = None;
    for name in command.mailbox_names() {
        session.may_go_on()?;
        settle_by(session, name, &mut known).await?;
    }
    Ok(())
}

/// The same for one name.
pub(super) async fn settle(
    session: &mut Session<'_>,
    name: &mut MailboxName,
) -> Result<(), Failure> {
    settle_by(session, name, &mut None).await
}

async fn settle_by(
    session: &mut Session<'_>,
    name: &mut MailboxName,
    known: &mut Option<Known>,
) -> Result<(), Failure> {
    if name.as_str().is_ascii() {
        return Ok(());
    }
    let known = match known {
        Some(known) => known,
        None => {
            if find(session, name).await?.is_some() {
                return Ok(());
            }
            let names = all_names(session).await?;
            known.insert(Known::of(names.keys().map(String::as_str)))
        }
    };
    let kept = known.as_kept(name.as_str());
    if kept != name.as_str() {
        // It may have become longer than a name can be.
        let kept = MailboxName::new(&kept).map_err(|_| Refusal::BadName)?;
        session.own().sent_name = Some((kept.clone(), std::mem::replace(name, kept)));
    }
    Ok(())
}

/// The names that there are and that have more than one form.
struct Known {
    exact: BTreeSet<String>,
    /// By how they look.
    composed: HashMap<String, String>,
}

impl Known {
    fn of<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let exact: BTreeSet<String> = names
            .filter(|one| !one.is_ascii())
            .map(str::to_owned)
            .collect();
        let by_looks = exact
            .iter()
            .map(|one| (composed(one).into_owned(), one.clone()));
        Self {
            composed: by_looks.collect(),
            exact,
        }
    }

    /// The one that looks the same; or, made of the nearest one above it that does, what it will be.
    fn as_kept(&self, name: &str) -> String {
        if self.exact.contains(name) {
            return name.to_owned();
        }
        let wanted = composed(name);
        let levels = wanted.rmatch_indices('/').map(|(place, _)| place);
        for end in std::iter::once(wanted.len()).chain(levels) {
            if let Some(kept) = self.composed.get(&wanted[..end]) {
                return format!("{kept}{}", &wanted[end..]);
            }
        }
        wanted.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_one_that_looks_the_same() {
        let names = ["a", "e\u{301}", "e\u{301}/b", "\u{e9}", "o\u{308}/c"];
        for (name, kept) in [
            ("e\u{301}", "e\u{301}"),
            ("\u{e9}", "\u{e9}"),
            ("\u{f6}/c", "o\u{308}/c"),
            ("\u{f6}/c/\u{212b}", "o\u{308}/c/\u{c5}"),
            ("\u{f6}", "\u{f6}"),
            ("n\u{303}", "\u{f1}"),
            ("\u{f1}/", "\u{f1}/"),
            ("a/u\u{308}", "a/\u{fc}"),
        ] {
            assert_eq!(Known::of(names.into_iter()).as_kept(name), kept, "{name}");
        }
    }
}
