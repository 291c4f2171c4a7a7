//! `posthouse undelete …`: brings back what a user has expunged, through the back-end where the account lives.

use std::collections::BTreeSet;
use std::time::Duration;

use daemon::clock::{now_ms, parse_utc, utc};
use daemon::output::print_line;
use directory_api::{AccountId, DirectoryClient, Epoch};
use serde::Serialize;
use store_api::Backends;
use store_api::undelete::{Expunged, List, MESSAGES_MAX, Place, Undelete, UndeleteClient};

use super::{Output, Row, VerbError, account_id, is_same_mailbox, told};
use crate::cli::Source;
use crate::cli::reach;

/// Which messages, and what to do with them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number or login name
    account: String,
    /// Only messages that were in this mailbox
    #[arg(long, value_name = "NAME")]
    mailbox: Option<String>,
    /// Only what was expunged at this time or later: 2026-11-29, "2026-11-29 14:00", or with seconds and offset; UTC unless told
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Only what was expunged within this time: 90s, 30m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "since")]
    last: Option<Duration>,
    /// Only this message, as --list names it; may be given again
    #[arg(long = "message", value_name = "MESSAGE", value_parser = place)]
    messages: Vec<Place>,
    /// Bring them back into this mailbox, made when there is none [default: the one they were in]
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    to: Option<String>,
    /// Only show what can be brought back
    #[arg(long)]
    list: bool,
}

/// Finds the back-end and does it.
pub(crate) fn perform(options: Options, source: Source, output: &Output) -> Result<(), VerbError> {
    super::block_on(async {
        let (directory, backends) = reach(source)?;
        options.perform(&directory, &backends, output).await
    })?
}

impl Options {
    async fn perform(
        self,
        directory: &DirectoryClient,
        backends: &Backends,
        output: &Output,
    ) -> Result<(), VerbError> {
        let account = account_id(directory, &self.account).await?;
        let home = directory
            .home(account)
            .await
            .map_err(|error| told("account", &self.account, error))?
            .home;
        let client = UndeleteClient::new(backends.link(&home.backend).await?);
        let found = self.find(&client, account, home.epoch).await?;
        if found.is_empty() && !output.json {
            print_line("nothing to bring back");
            return Ok(());
        }
        if self.list {
            output.rows(&found);
            return Ok(());
        }
        let mut back: Vec<Back> = Vec::new();
        // As they are listed: by mailbox.
        for of_mailbox in found.chunk_by(|one, next| one.place.mailbox == next.place.mailbox) {
            for slice in of_mailbox.chunks(MESSAGES_MAX) {
                let request = Undelete {
                    account,
                    epoch: home.epoch,
                    mailbox: slice[0].place.mailbox,
                    uids: slice.iter().map(|one| one.place.uid).collect(),
                    to: self.to.clone(),
                };
                let came = client.undelete(&request).await?;
                match back.iter_mut().find(|one| one.mailbox == came.mailbox) {
                    Some(known) => known.messages += came.messages,
                    None if came.messages > 0 => back.push(Back {
                        mailbox: came.mailbox,
                        messages: came.messages,
                    }),
                    None => {}
                }
            }
        }
        output.rows(&back);
        Ok(())
    }

    /// All that is asked for.
    async fn find(
        &self,
        client: &UndeleteClient,
        account: AccountId,
        epoch: Epoch,
    ) -> Result<Vec<Expunged>, VerbError> {
        let within = self.last.map(|last| {
            let last_ms = i64::try_from(last.as_millis()).unwrap_or(i64::MAX);
            now_ms().saturating_sub(last_ms)
        });
        let since = self.since.or(within);
        let is_wanted = |one: &Expunged| {
            self.mailbox
                .as_ref()
                .is_none_or(|name| is_same_mailbox(name, &one.mailbox))
                && since.is_none_or(|since| one.expunged_ms >= since)
                && (self.messages.is_empty() || self.messages.contains(&one.place))
        };
        let (mut found, mut mailboxes, mut places) = (Vec::new(), BTreeSet::new(), Vec::new());
        let mut after = None;
        loop {
            let listed = client
                .list(&List {
                    account,
                    epoch,
                    after,
                })
                .await?;
            after = listed.messages.last().map(|one| one.place);
            for one in listed.messages {
                mailboxes.insert(shown(&one.mailbox));
                if self.messages.contains(&one.place) {
                    places.push(one.place);
                }
                found.extend(Some(one).filter(&is_wanted));
            }
            if !listed.has_more {
                break;
            }
        }
        // What was mistyped is told apart from a mailbox of which nothing has gone.
        let missing = self.messages.iter().find(|place| !places.contains(place));
        if let Some(Place { mailbox, uid }) = missing {
            return Err(VerbError::NotKept(format!("message {mailbox}:{uid}")));
        }
        if let Some(name) = &self.mailbox
            && !mailboxes.iter().any(|one| is_same_mailbox(name, one))
        {
            let has = mailboxes.into_iter().collect::<Vec<_>>().join(", ");
            return Err(VerbError::NotKept(format!(
                "message of a mailbox {name:?} (there are some of: {has})"
            )));
        }
        Ok(found)
    }
}

/// What came back into one mailbox.
#[derive(Serialize)]
struct Back {
    mailbox: String,
    messages: u64,
}

impl Row for Back {
    const HEADINGS: &'static [&'static str] = &["BROUGHT BACK", "INTO"];

    fn cells(&self) -> Vec<String> {
        vec![self.messages.to_string(), shown(&self.mailbox)]
    }
}

impl Row for Expunged {
    const HEADINGS: &'static [&'static str] = &[
        "MESSAGE",
        "EXPUNGED (UTC)",
        "KEPT UNTIL",
        "MAILBOX",
        "OCTETS",
        "RECEIVED",
        "FROM",
        "SUBJECT",
    ];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), shown);
        vec![
            format!("{}:{}", self.place.mailbox, self.place.uid),
            utc(self.expunged_ms),
            utc(self.until_ms),
            shown(&self.mailbox),
            self.octets.to_string(),
            utc(self.received_ms),
            text(&self.from),
            text(&self.subject),
        ]
    }
}

/// What somebody else wrote must not move the cursor of the operator's terminal, nor fill the line.
fn shown(text: &str) -> String {
    let calm = |one: char| if one.is_control() { '?' } else { one };
    text.chars().map(calm).take(SHOWN_MAX_CHARS).collect()
}

fn time(text: &str) -> Result<i64, &'static str> {
    parse_utc(text).ok_or("not a time such as 2026-11-29 or \"2026-11-29 14:00\"")
}

fn span(text: &str) -> Result<Duration, &'static str> {
    let bad = "not a time such as 90s, 30m, 2h or 3d";
    let unit = text.chars().next_back().ok_or(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(bad),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| bad)?;
    let all = count.checked_mul(seconds).ok_or(bad)?;
    Ok(Duration::from_secs(all))
}

fn place(text: &str) -> Result<Place, &'static str> {
    let bad = "not a message as --list names it, such as 1:17";
    let (mailbox, uid) = text.split_once(':').ok_or(bad)?;
    Ok(Place {
        mailbox: mailbox.parse().map_err(|_| bad)?,
        uid: uid.parse().map_err(|_| bad)?,
    })
}

/// So that a line with all columns fits a wide terminal.
const SHOWN_MAX_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_messages_are_read() {
        assert_eq!(span("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(span("3d"), Ok(Duration::from_secs(3 * 86_400)));
        for bad in ["", "h", "2", "-1h", "2w", "2ü", "99999999999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        let named = Place {
            mailbox: 3,
            uid: 17,
        };
        assert_eq!(place("3:17"), Ok(named));
        assert!(place("3").is_err() && place("3:x").is_err());
    }

    #[test]
    fn what_others_wrote_is_shown_without_control_characters() {
        assert_eq!(shown("a\x1b[2Jb\nc"), "a?[2Jb?c");
        assert_eq!(shown(&"ä".repeat(100)).chars().count(), SHOWN_MAX_CHARS);
    }
}
