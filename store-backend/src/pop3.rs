//! A POP3 session after its login: the maildrop's snapshot, its messages, and the deletions at QUIT.
//!
//! The states and texts are `mail_proto`'s; here is what they ask of the volume. No lock is held:
//! the snapshot is a list of UIDs, a message that went meanwhile is answered as gone, and DELE
//! takes effect at QUIT alone, as does the provider's retention, so that an abrupt close changes
//! nothing (RFC 1939 §6).

mod retrieve;
mod update;

use std::time::Duration;

use daemon::clock::now_ms;
use directory_api::{AccountId, Epoch, Quota};
use mail_proto::login::{CloseReason, Shut};
use mail_proto::pop3::{Entry, Maildrop, Policy, Step, Transaction};
use tokio::time::timeout;

use self::retrieve::Ahead;
use crate::session::SessionEnd;
use crate::sessions::Registration;
use crate::user::{Cut, Input, User};
use crate::volume::{OpeningError, Volume};

/// One open maildrop.
pub(crate) struct Pop3<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) account: AccountId,
    pub(crate) epoch: Epoch,
    pub(crate) idle: Duration,
    pub(crate) policy: Policy,
    pub(crate) may_write: bool,
}

impl Pop3<'_> {
    /// Opens the account and takes the snapshot: every message of the INBOX as it is now.
    pub(crate) async fn snapshot(&self, quota: Quota) -> Result<Maildrop, OpeningError> {
        let inbox = self
            .volume
            .open_inbox(self.account, self.epoch, quota)
            .await?;
        let entries = inbox.messages.into_iter().map(|message| {
            Entry::new(
                message.uid,
                message.size_octets,
                message.save_date_ms,
                message.seen,
            )
        });
        Ok(Maildrop::new(inbox.uidvalidity, entries.collect()))
    }

    /// Runs the session to its end. Nothing of it stands on the call stack but the place of a
    /// message under way: between two commands the state is `transaction.maildrop()` alone.
    pub(crate) async fn run(
        self,
        user: &mut User,
        maildrop: Maildrop,
        registration: &mut Registration,
    ) -> SessionEnd {
        let mut transaction = Transaction::new(maildrop, self.policy, b"");
        match self.drive(user, &mut transaction, registration).await {
            Ok(end) => end,
            Err(cut) => SessionEnd::Cut(cut),
        }
    }

    async fn drive(
        &self,
        user: &mut User,
        transaction: &mut Transaction,
        registration: &mut Registration,
    ) -> Result<SessionEnd, Cut> {
        let mut why = SessionEnd::Quit;
        let mut ahead = Ahead::default();
        loop {
            match transaction.next() {
                Step::NeedInput => {
                    let arrived = tokio::select! {
                        // First, or a client that never stops sending would never be told.
                        biased;
                        () = registration.ending() => {
                            why = SessionEnd::Ended;
                            transaction.shut(Shut::GoingDown);
                            continue;
                        }
                        arrived = timeout(self.idle, user.fill()) => arrived,
                    };
                    match arrived {
                        Ok(Ok(Input::Octets)) => {
                            let took = transaction.receive(user.pending());
                            user.took(took);
                        }
                        // Closed without QUIT: the UPDATE state is never entered.
                        Ok(Ok(Input::End)) => return Ok(SessionEnd::Closed),
                        Ok(Err(cut)) => return Err(cut),
                        Err(_) => {
                            why = SessionEnd::Idle;
                            transaction.shut(Shut::TimedOut);
                        }
                    }
                }
                Step::Send(octets) => user.write_until(octets, registration).await?,
                Step::SendMessage(wanted) => {
                    self.retrieve(user, transaction, &mut ahead, registration, wanted)
                        .await?;
                }
                Step::Commit => {
                    let done = self.update(transaction.update(now_ms())).await;
                    transaction.committed(done);
                }
                Step::Close(CloseReason::TooManyErrors) => return Ok(SessionEnd::Errors),
                Step::Close(CloseReason::Quit | CloseReason::Shut) => return Ok(why),
                Step::AwaitAnswer => {
                    unreachable!("every question is answered before the next step is asked for")
                }
            }
        }
    }
}
