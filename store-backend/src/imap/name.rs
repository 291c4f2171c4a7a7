//! From a name as a client sends it to the name that it stands for. RFC 9051 §5.1, RFC 5198.
//!
//! Two names that look the same are one: `ü` and `u` with two dots above name one mailbox, whatever the form it was made
//! in, by any command. A name that somebody made before in another form than NFC is kept, told and taken as it is; should
//! there be several that look the same, each is reached by itself, and so is what is below it. A name without a mailbox, of
//! a subscription or above others, gives way to a mailbox that looks the same. Names in ASCII, nearly all, have one form and
//! cost nothing.

use std::collections::HashMap;

use mail_proto::imap::command::Command;
use mail_proto::imap::mailbox::{MailboxName, composed};

use super::Session;
use super::list::{Entry, all_names};
use super::place::find;
use super::reply::Failure;
use crate::volume::Refusal;

/// Puts names that are kept, or would be, in the place of those that a command has. NOTIFY can have twenty thousand: what
/// there is is asked for once.
pub(super) async fn settle_all(
    session: &mut Session<'_>,
    command: &mut Command,
) -> Result<(), Failure> {
    // These are about names that no mailbox needs to have, the first of RENAME may only be above some; and what is deleted is
    // never another one than the one that was listed.
    let names_itself = matches!(
        command,
        Command::Delete(_) | Command::Rename(..) | Command::Unsubscribe(_)
    );
    let mut known = None;
    for (place, name) in command.mailbox_names().into_iter().enumerate() {
        session.may_go_on()?;
        settle_by(session, name, names_itself && place == 0, &mut known).await?;
    }
    Ok(())
}

/// The same for one name of a mailbox.
pub(super) async fn settle(
    session: &mut Session<'_>,
    name: &mut MailboxName,
) -> Result<(), Failure> {
    settle_by(session, name, false, &mut None).await
}

async fn settle_by(
    session: &mut Session<'_>,
    name: &mut MailboxName,
    names_itself: bool,
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
            let kind_of = |(name, entry)| (String::as_str(name), Kind::of(entry));
            known.insert(Known::of(names.iter().map(kind_of)))
        }
    };
    if names_itself && known.has(name.as_str()) {
        return Ok(());
    }
    let kept = known.as_kept(name.as_str());
    if kept != name.as_str() {
        // It may have become longer than a name can be.
        let kept = MailboxName::new(&kept).map_err(|_| Refusal::BadName)?;
        session.own().sent_name = Some((kept.clone(), std::mem::replace(name, kept)));
    }
    Ok(())
}

/// What there is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Mailbox,
    /// Mailboxes below it.
    Above,
    /// A subscription, or one below it.
    Subscription,
}

impl Kind {
    fn of(entry: &Entry) -> Self {
        match (&entry.mailbox, entry.has_children) {
            (Some(_), _) => Self::Mailbox,
            (None, true) => Self::Above,
            (None, false) => Self::Subscription,
        }
    }
}

/// The names that there are and that have more than one form, by how they look. Those with a mailbox come first.
struct Known(HashMap<String, Vec<(Kind, String)>>);

impl Known {
    fn of<'n>(names: impl Iterator<Item = (&'n str, Kind)>) -> Self {
        let mut by_looks = HashMap::<_, Vec<_>>::new();
        for (name, kind) in names.filter(|(name, _)| !name.is_ascii()) {
            let forms = by_looks.entry(composed(name).into_owned()).or_default();
            forms.push((kind, name.to_owned()));
            forms.sort();
        }
        Self(by_looks)
    }

    fn has(&self, name: &str) -> bool {
        let mut forms = self.looking_like(name);
        forms.any(|(_, form)| form == name)
    }

    fn looking_like(&self, name: &str) -> impl Iterator<Item = &(Kind, String)> + use<'_> {
        self.0.get(&*composed(name)).into_iter().flatten()
    }

    /// The one that looks the same; or, made of the nearest one above it that does, what it will be.
    fn as_kept(&self, name: &str) -> String {
        // Subscriptions only where there is nothing else.
        for least in [Kind::Above, Kind::Subscription] {
            let levels = name.rmatch_indices('/').map(|(place, _)| place);
            for end in std::iter::once(name.len()).chain(levels) {
                let (above, rest) = name.split_at(end);
                let forms = self.looking_like(above).filter(|(kind, _)| *kind <= least);
                let forms: Vec<_> = forms.collect();
                let Some(first) = forms.first() else {
                    continue;
                };
                // What is below a name without a mailbox stays below it; the name itself gives way.
                let is_exact = |(kind, form): &&&(Kind, String)| {
                    form == above && (*kind == first.0 || !rest.is_empty())
                };
                let (_, kept) = forms.iter().find(is_exact).unwrap_or(first);
                return format!("{kept}{}", composed(rest));
            }
        }
        composed(name).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::{Above, Mailbox, Subscription};
    use super::*;

    fn kept(names: &[(&'static str, Kind)], name: &str) -> String {
        Known::of(names.iter().copied()).as_kept(name)
    }

    #[test]
    fn a_name_is_the_one_that_looks_the_same() {
        let names = [
            ("a", Mailbox),
            ("e\u{301}", Mailbox),
            ("e\u{301}/b", Mailbox),
            ("\u{e9}", Mailbox),
            ("o\u{308}", Above),
            ("o\u{308}/c", Mailbox),
        ];
        for (name, wanted) in [
            ("e\u{301}", "e\u{301}"),
            ("\u{e9}", "\u{e9}"),
            ("\u{f6}/c", "o\u{308}/c"),
            ("\u{f6}/c/\u{212b}", "o\u{308}/c/\u{c5}"),
            ("\u{f6}", "o\u{308}"),
            ("n\u{303}", "\u{f1}"),
            ("\u{f1}/", "\u{f1}/"),
            ("a/u\u{308}", "a/\u{fc}"),
            // Below the one that it names.
            ("e\u{301}/u\u{308}/x", "e\u{301}/\u{fc}/x"),
            ("\u{e9}/u\u{308}", "\u{e9}/\u{fc}"),
            ("e\u{301}/b/c", "e\u{301}/b/c"),
        ] {
            assert_eq!(kept(&names, name), wanted, "{name}");
        }
    }

    #[test]
    fn a_name_without_a_mailbox_gives_way_to_one_that_looks_the_same() {
        // All three of one look.
        let (sent, other, made) = ("u\u{308}\u{304}", "\u{fc}\u{304}", "\u{1d6}");
        let below = |name: &str| format!("{name}/u\u{308}");
        for (kind, sent_below) in [(Above, sent), (Subscription, made)] {
            let names = [(sent, kind), (other, kind), (made, Mailbox)];
            assert_eq!(kept(&names, sent), made, "{kind:?}");
            assert_eq!(kept(&names, other), made, "{kind:?}");
            let wanted = format!("{sent_below}/\u{fc}");
            assert_eq!(kept(&names, &below(sent)), wanted, "{kind:?}");
        }
        // Of a subscription there is only that.
        let names = [(sent, Subscription)];
        assert_eq!(kept(&names, made), sent);
        assert_eq!(kept(&names, &below(made)), format!("{sent}/\u{fc}"));
    }
}
