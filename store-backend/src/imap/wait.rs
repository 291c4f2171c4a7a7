//! What a session waits for between two octets: its client, its mailbox, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
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
        self.watch_owners().await;
        let Self {
            user,
            watch,
            owner_watches,
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
            changed = rings(owner_watches), if is_listening => match changed {
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

    /// While a command runs: whether the client has said that it sends no more, as far as can be seen without waiting.
    pub(super) async fn has_ended(&mut self) -> Result<bool, Cut> {
        let has_ended = self.user.has_ended().await?;
        // It waits for us, not we for it; what it has sent is the beginning of its next command.
        self.heard = Instant::now();
        self.arriving = (self.heard, self.user.pending().len() as u64);
        Ok(has_ended)
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
    pub(super) async fn note_rung(&mut self) {
        self.watch_owners().await;
        let mut rung = Vec::new();
        rung.extend(
            self.watch
                .rung()
                .map(|changed| (self.state.account, changed)),
        );
        for (owner, watch) in &mut self.owner_watches {
            rung.extend(watch.rung().map(|changed| (*owner, changed)));
        }
        for (account, changed) in rung {
            self.note(account, &changed);
        }
    }

    /// Watches the accounts whose mailboxes are open or watched, when they are not the session's own.
    async fn watch_owners(&mut self) {
        let open = self.state.selected.as_ref().map(|open| open.place.account);
        let open = open.filter(|owner| *owner != self.state.account);
        let mut owners = match &self.state.notify {
            Some(registration) => registration.others().clone(),
            None => BTreeSet::new(),
        };
        owners.extend(open);
        self.owner_watches.retain(|owner, _| owners.contains(owner));
        owners.retain(|owner| !self.owner_watches.contains_key(owner));
        for owner in owners {
            // Whoever has moved away rings no more: that shows when it is read. In a box, for few sessions come here.
            if let Ok(volume) = Box::pin(self.volume_of(owner)).await {
                self.owner_watches.insert(owner, volume.watch(owner));
            }
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
        let registration = self.state.notify.as_ref().filter(|one| one.has_others());
        if let Some(registration) = registration {
            self.news.list |= changed.list;
            self.news.annotations |= changed.annotations;
            let mailboxes = changed.mailboxes.iter().map(|(one, _)| (account, *one));
            let watched = mailboxes.filter(|(account, one)| registration.watches(*account, *one));
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

/// What changed at an owner. Waits for ever when there is none.
async fn rings(watches: &mut BTreeMap<AccountId, Watch>) -> Option<(AccountId, Changed)> {
    // In boxes of their own, for few sessions that wait have any.
    let changes = watches.iter_mut().map(|(owner, watch)| {
        Box::pin(async move { watch.changed().await.map(|changed| (*owner, changed)) })
    });
    let mut changes: Vec<_> = changes.collect();
    poll_fn(|context| {
        let mut polled = changes.iter_mut().map(|one| one.as_mut().poll(context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// DESIGN, limits: the slowest sender of a command, beyond its first minute.
const SLOWEST_OCTETS_PER_S: u64 = 100;
