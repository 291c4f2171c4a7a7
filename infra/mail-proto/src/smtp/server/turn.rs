//! Whose turn it is: a client that may send several commands at once must wait for some replies all the same.

use super::super::command::Verb;
use super::Server;

impl Server {
    /// Whether the client has ever sent on before it may: behind HELO, EHLO, DATA or STARTTLS, whose replies decide what may
    /// follow (RFC 2920 §3.1), or several commands before EHLO told it that it may. Programs that send mail wait; those
    /// that only throw it do not. What came is read all the same.
    pub fn is_out_of_turn(&self) -> bool {
        self.is_out_of_turn
    }

    /// A command has come, and perhaps more behind it.
    pub(super) fn see_turn(&mut self, verb: Verb) {
        let must_wait = matches!(
            verb,
            Verb::Helo | Verb::Ehlo | Verb::Lhlo | Verb::Data | Verb::StartTls
        );
        let may_send_on = self.client.as_ref().is_some_and(|client| client.extended);
        self.is_out_of_turn |= self.has_unread_input() && (must_wait || !may_send_on);
    }
}
