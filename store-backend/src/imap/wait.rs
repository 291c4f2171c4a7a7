//! What a session waits for between two octets: its client, its mailbox, its end.

use std::time::Duration;

use directory_api::AccountId;
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::framing::Framer;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::reply::Failure;
use super::{Causes, Session, notify, updates};
use crate::session::SessionEnd;
use crate::user::{Cut, Input};
use crate::volume::{Changed, Watch};

impl Session<'_> {
    /// Writes what there is, then waits for the client, for the volume while it idles, or for the end.
    pub(super) async fn wait(&mut self, framer: &Framer) -> Result<Option<SessionEnd>, Cut> {
        if !self.out.is_empty() {
            // In a box of its own, for it is larger than all that is waited for below.
            Box::pin(self.flush()).await?;
        }
        let is_between = framer.is_between_commands();
        let (began, octets) = self.arriving;
        let deadline = match is_between {
            true => self.heard + self.service.idle,
            false => {
                let earned = Duration::from_secs(octets / SLOWEST_OCTETS_PER_S);
                (began + earned).min(self.heard) + self.service.stall
            }
        };
        let is_listening = is_between && (self.state.idle.is_some() || self.state.hears_always());
        self.watch_owner();
        let Self {
            user,
            watch,
            owner_watch,
            registration,
            ..
        } = self;
        // In any order: neither a client that never stops sending nor a mailbox that never stops changing keeps out the others.
        tokio::select! {
            () = registration.ending() => {
                // Also in the middle of a command: nothing of it was done.
                Ok(Some(self.going_down()))
            }
            changed = watch.changed(), if is_listening => match changed {
                Some(changed) => {
                    self.note(self.state.account, &changed);
                    Box::pin(self.push()).await
                }
                // The volume is closed; nothing more can be done here.
                None => Ok(Some(self.going_down())),
            },
            changed = rings(owner_watch), if is_listening => match changed {
                Some((owner, changed)) => {
                    self.note(owner, &changed);
                    Box::pin(self.push()).await
                }
                None => Ok(Some(self.going_down())),
            },
            arrived = timeout_at(deadline, user.fill()) => match arrived {
                Ok(Ok(Input::Octets)) => {
                    self.heard = Instant::now();
                    if is_between {
                        self.arriving = (self.heard, 0);
                    }
                    self.arriving.1 += self.user.pending().len() as u64;
                    Ok(None)
                }
                Ok(Ok(Input::End)) => Ok(Some(SessionEnd::Closed)),
                Ok(Err(cut)) => Err(cut),
                Err(_) => {
                    self.encoder().untagged(Condition::Bye, None, "idle for too long");
                    Ok(Some(SessionEnd::Idle))
                }
            },
        }
    }

    /// Tells what has changed while the client idles, or has asked by NOTIFY to be told always.
    async fn push(&mut self) -> Result<Option<SessionEnd>, Cut> {
        let may_expunge = self.state.idle.is_some() || self.state.hears().at_once;
        let mut told = updates::tell(self, may_expunge).await;
        if told.is_ok() {
            told = notify::tell(self).await;
        }
        if !self.out.is_empty() {
            self.tell_held_back();
        }
        match told {
            Ok(()) => Ok(None),
            Err(Failure::Cut(cut)) => Err(cut),
            Err(Failure::MailboxGone) => Ok(Some(self.mailbox_gone())),
            Err(Failure::Ending | Failure::OwnerAway) => Ok(Some(self.going_down())),
            Err(failure) => {
                error!(account = %self.state.account, error = %Causes(&failure), "changes cannot be told");
                Ok(Some(self.going_down()))
            }
        }
    }

    /// Takes note of all that has rung: what the session's own commands did has, before they were answered.
    pub(super) fn note_rung(&mut self) {
        self.watch_owner();
        if let Some(changed) = self.watch.rung() {
            self.note(self.state.account, &changed);
        }
        if let Some((owner, watch)) = self.owner_watch.as_deref_mut()
            && let Some(changed) = watch.rung()
        {
            let owner = *owner;
            self.note(owner, &changed);
        }
    }

    /// Watches the account whose mailbox is open, when that is not the session's own.
    fn watch_owner(&mut self) {
        let owner = self.state.selected.as_ref().map(|open| open.place.account);
        let owner = owner.filter(|owner| *owner != self.state.account);
        if owner != self.owner_watch.as_ref().map(|watch| watch.0) {
            self.owner_watch =
                owner.map(|owner| Box::new((owner, self.service.volume.watch(owner))));
        }
    }

    fn note(&mut self, account: AccountId, changed: &Changed) {
        let selected = self.state.selected.as_ref();
        let selected = selected.filter(|selected| selected.place.account == account);
        self.has_changed |= selected.is_some_and(|selected| {
            // With the list of mailboxes this one may have gone.
            changed.list
                || changed.mailboxes.iter().any(|(mailbox, modseq)| {
                    *mailbox == selected.place.mailbox && *modseq > selected.modseq
                })
        });
        let is_own = account == self.state.account;
        let registration = self.state.notify.as_ref().filter(|one| one.has_others());
        if let Some(registration) = registration.filter(|_| is_own) {
            self.news.list |= changed.list;
            self.news.annotations |= changed.annotations;
            let mailboxes = changed.mailboxes.iter().map(|(mailbox, _)| *mailbox);
            let watched = mailboxes.filter(|mailbox| registration.watches(*mailbox));
            self.news.mailboxes.extend(watched);
        }
    }

    pub(super) fn going_down(&mut self) -> SessionEnd {
        let code = Code::Word("UNAVAILABLE");
        self.encoder()
            .untagged(Condition::Bye, Some(&code), "come back in a moment");
        SessionEnd::Ended
    }

    pub(super) fn mailbox_gone(&mut self) -> SessionEnd {
        self.encoder()
            .untagged(Condition::Bye, None, "the selected mailbox was deleted");
        SessionEnd::Ended
    }
}

/// What changed at the owner whose mailbox is open. Waits for ever when there is none.
async fn rings(watch: &mut Option<Box<(AccountId, Watch)>>) -> Option<(AccountId, Changed)> {
    match watch {
        // In a box of its own, for few sessions that wait have another user's mailbox open.
        Some(watch) => {
            let (owner, watch) = &mut **watch;
            Some((*owner, Box::pin(watch.changed()).await?))
        }
        None => std::future::pending().await,
    }
}

/// DESIGN, limits: the slowest sender of a command, beyond its first minute.
const SLOWEST_OCTETS_PER_S: u64 = 100;
