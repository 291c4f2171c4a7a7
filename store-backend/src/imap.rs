//! An IMAP session after its login: so far only what tells a client that its mailbox is there.
//!
//! CAPABILITY, NOOP, LOGOUT, LIST and STATUS are answered; everything else is refused as not
//! available yet. The whole of RFC 9051 takes this module's place.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use directory_api::AccountId;
use tokio::time::timeout;
use tracing::error;

use crate::session::SessionEnd;
use crate::sessions::Registration;
use crate::user::{Cut, Input, User};
use crate::volume::{Flags, MailboxId, ReadError, Volume};

/// One session.
pub(crate) struct Imap<'a> {
    volume: &'a Volume,
    account: AccountId,
    idle: Duration,
    /// The beginning of a command line that has not ended yet.
    line: BytesMut,
}

/// DESIGN §13: a command without its literals, after the login.
const LINE_MAX_OCTETS: usize = 64 << 10;
/// RFC 9051 §9 leaves a tag's length open; no client needs more.
const TAG_MAX_OCTETS: usize = 128;
const CAPABILITY: &str = "IMAP4rev1";

impl<'a> Imap<'a> {
    pub(crate) fn new(volume: &'a Volume, account: AccountId, idle: Duration) -> Self {
        Self {
            volume,
            account,
            idle,
            line: BytesMut::new(),
        }
    }

    /// Answers the login and serves the session to its end.
    pub(crate) async fn run(
        &mut self,
        user: &mut User,
        tag: &str,
        registration: &mut Registration,
    ) -> SessionEnd {
        match self.drive(user, tag, registration).await {
            Ok(end) => end,
            Err(cut) => SessionEnd::Cut(cut),
        }
    }

    async fn drive(
        &mut self,
        user: &mut User,
        tag: &str,
        registration: &mut Registration,
    ) -> Result<SessionEnd, Cut> {
        user.write(format!("{tag} OK [CAPABILITY {CAPABILITY}] logged in\r\n").as_bytes())
            .await?;
        loop {
            while let Some(line) = self.next_line() {
                if let Some(end) = self.command(user, &line).await? {
                    return Ok(end);
                }
            }
            if self.line.len() > LINE_MAX_OCTETS {
                user.write(b"* BYE command line is too long\r\n").await?;
                return Ok(SessionEnd::Errors);
            }
            let arrived = tokio::select! {
                biased;
                () = registration.ending() => {
                    user.write(b"* BYE [UNAVAILABLE] mailbox is being moved, try again in a moment\r\n").await?;
                    return Ok(SessionEnd::Ended);
                }
                arrived = timeout(self.idle, user.fill()) => arrived,
            };
            match arrived {
                Ok(Ok(Input::Octets)) => {
                    let take = user.pending().len().min(LINE_MAX_OCTETS);
                    self.line.extend_from_slice(&user.pending()[..take]);
                    user.took(take);
                }
                Ok(Ok(Input::End)) => return Ok(SessionEnd::Closed),
                Ok(Err(cut)) => return Err(cut),
                Err(_) => {
                    user.write(b"* BYE idle for too long\r\n").await?;
                    return Ok(SessionEnd::Idle);
                }
            }
        }
    }

    fn next_line(&mut self) -> Option<String> {
        let end = self.line.iter().position(|octet| *octet == b'\n')?;
        let line = self.line.split_to(end);
        self.line.advance(1);
        Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned())
    }

    async fn command(&self, user: &mut User, line: &str) -> Result<Option<SessionEnd>, Cut> {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let (Some(tag), Some(verb)) = (words.next().filter(|tag| is_tag(tag)), words.next()) else {
            user.write(b"* BAD not a command\r\n").await?;
            return Ok(None);
        };
        if line.ends_with("+}") {
            // A literal that is sent unasked would be read as commands.
            user.write(b"* BYE literals are not available yet\r\n")
                .await?;
            return Ok(Some(SessionEnd::Errors));
        }
        let mut reply = String::new();
        let mut end = None;
        match verb.to_ascii_uppercase().as_str() {
            "CAPABILITY" => {
                let _ = write!(reply, "* CAPABILITY {CAPABILITY}\r\n{tag} OK done\r\n");
            }
            "NOOP" => {
                let _ = write!(reply, "{tag} OK done\r\n");
            }
            "LOGOUT" => {
                let _ = write!(reply, "* BYE good-bye\r\n{tag} OK done\r\n");
                end = Some(SessionEnd::Quit);
            }
            "LIST" => {
                let _ = write!(
                    reply,
                    "* LIST (\\HasNoChildren) \"/\" INBOX\r\n{tag} OK done\r\n"
                );
            }
            "STATUS" if words.next().is_some_and(is_inbox) => match self.status(line).await {
                Ok(items) => {
                    let _ = write!(reply, "* STATUS INBOX ({items})\r\n{tag} OK done\r\n");
                }
                Err(error) => {
                    error!(account = %self.account, %error, "mailbox cannot be read");
                    let _ = write!(
                        reply,
                        "{tag} NO [UNAVAILABLE] mailbox cannot be read now\r\n"
                    );
                }
            },
            _ => {
                let _ = write!(reply, "{tag} NO [UNAVAILABLE] not available yet\r\n");
            }
        }
        user.write(reply.as_bytes()).await?;
        Ok(end)
    }

    /// The items named in parentheses, with their values. RFC 9051 §6.3.11.
    async fn status(&self, line: &str) -> Result<String, ReadError> {
        let inbox = self.volume.mailbox(self.account, "INBOX").await?;
        let messages = match &inbox {
            Some(_) => self.volume.messages(self.account, MailboxId::INBOX).await?,
            None => Vec::new(),
        };
        let wanted = line
            .rsplit_once('(')
            .map_or("", |(_, wanted)| wanted.trim_end_matches(')'));
        let mut items = String::new();
        for name in wanted.split_ascii_whitespace() {
            let name = name.to_ascii_uppercase();
            let value = match name.as_str() {
                "MESSAGES" => messages.len() as u64,
                "UNSEEN" => messages
                    .iter()
                    .filter(|message| !message.flags.contains(Flags::SEEN))
                    .count() as u64,
                "UIDNEXT" => inbox.as_ref().map_or(1, |inbox| u64::from(inbox.uidnext)),
                "UIDVALIDITY" => inbox
                    .as_ref()
                    .map_or(1, |inbox| u64::from(inbox.uidvalidity)),
                "RECENT" => 0,
                _ => continue,
            };
            let space = if items.is_empty() { "" } else { " " };
            let _ = write!(items, "{space}{name} {value}");
        }
        Ok(items)
    }
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= TAG_MAX_OCTETS
        && tag
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !b"(){%*\"\\+]".contains(&octet))
}

fn is_inbox(name: &str) -> bool {
    name.trim_matches('"').eq_ignore_ascii_case("INBOX")
}
