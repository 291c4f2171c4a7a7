//! What the checks say of a client: before the greeting, when it sends on out of turn, and at RCPT.

use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use mail_proto::smtp::{ForwardPath, Mail};
use tokio::time::{Instant, sleep};

use super::{End, Phase, Session, io};
use crate::checks::{Check, Claim, Finding, Looking, Of, Reverse};
use crate::config::Action;
use crate::reply::Closing;

impl Session<'_> {
    /// Holds the greeting back from a stranger, by setting, and sees whether it talks meanwhile.
    pub(super) async fn see_early_talk(
        &mut self,
        stream: &mut UserStream,
        shutdown: &Shutdown,
    ) -> Result<(), End> {
        let checks = &self.shared.checks;
        self.follow_stress();
        let is_stressed = std::ptr::eq(self.manner, &self.shared.stress.stressed);
        if checks.action(Check::EarlyTalker) == Action::Off
            || !self.client.checked
            || self.client.is_good
            || is_stressed
        {
            return Ok(());
        }
        tokio::select! {
            read = io::read_into(stream, &mut self.core) => match read {
                Ok(0) | Err(_) => return Err(End::Gone),
                Ok(_) => {
                    let found = checks.found(Check::EarlyTalker, self.client.address.ip(), Of::default());
                    self.shut_if(found);
                }
            },
            () = sleep(checks.settings.greeting_wait()) => {}
            // Connections run out, and this one is of no use to anybody yet.
            Ok(()) = self.stress.changed() => {}
            () = shutdown.requested() => self.shut(Closing::Draining),
        }
        self.heard = Instant::now();
        Ok(())
    }

    /// Sees whether the client has sent on before it may, and closes the connection where that is not borne. Once is enough.
    pub(super) fn see_turn(&mut self) -> Result<(), Finding> {
        if !self.client.checked || self.is_out_of_turn_told || !self.core.is_out_of_turn() {
            return Ok(());
        }
        self.is_out_of_turn_told = true;
        let of = Of {
            helo: self.core.client_name(),
            ..Of::default()
        };
        let client = self.client.address.ip();
        let found = self.shared.checks.found(Check::Pipelining, client, of);
        self.shut_if(found);
        found
    }

    /// Begins to look up what is to be known of a client that brings mail. One that brings none costs nobody a question.
    pub(super) fn look_up(&self, mail: &Mail) -> Option<Looking> {
        let Session { shared, client, .. } = self;
        let claim = Claim {
            helo: self.core.client_name().to_owned(),
            from: mail.reverse_path.address().cloned(),
        };
        client
            .checked
            .then(|| shared.checks.look_up(client.address.ip(), claim))?
    }

    /// What the checks say of the client and its sender, found once for each transaction.
    pub(super) async fn screen(&mut self, to: &ForwardPath) -> Result<(), Finding> {
        let Phase::Envelope(envelope) = &mut self.phase else {
            return Ok(());
        };
        if let Some(looking) = envelope.looking.take() {
            envelope.looked = looking.done().await;
            // The wait was for us.
            self.heard = Instant::now();
            if let Some(Reverse::Confirmed(name)) = envelope
                .looked
                .as_ref()
                .and_then(|one| one.reverse.as_ref())
            {
                self.client_host = Some(name.clone());
            }
        }
        if !self.client.checked || is_postmaster(to) {
            return Ok(());
        }
        if let Some(screened) = envelope.screened {
            return screened;
        }
        let of = Of {
            helo: self.core.client_name(),
            from: &envelope.mail.reverse_path.to_string(),
            to: &to.to_string(),
            trace_id: &envelope.trace_id,
            detail: "",
        };
        let client = self.client.address.ip();
        let screened = self
            .shared
            .checks
            .judge(client, envelope.looked.as_ref(), of);
        envelope.screened = Some(screened);
        screened
    }

    fn shut_if(&mut self, found: Result<(), Finding>) {
        if let Err(finding) = found {
            self.shut(Closing::Found(finding));
        }
    }
}

/// Who is refused by mistake must be able to say so. RFC 5321 §4.5.1.
fn is_postmaster(to: &ForwardPath) -> bool {
    match to {
        ForwardPath::Postmaster => true,
        ForwardPath::Mailbox(address) => address.local().eq_ignore_ascii_case("postmaster"),
    }
}
