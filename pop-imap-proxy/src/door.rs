//! One listener: what is spoken behind it, and the dialogue before login as one type.

use directory_api::Service;
use mail_proto::login::{Config, LoginDialogue, LoginStep, Refusal, Shut};
use mail_proto::{imap, pop3};

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) service: Service,
    pub(crate) implicit_tls: bool,
}

impl Door {
    pub(crate) const POP3: Self = Self {
        service: Service::Pop3,
        implicit_tls: false,
    };
    pub(crate) const POP3S: Self = Self {
        service: Service::Pop3,
        implicit_tls: true,
    };
    pub(crate) const IMAP: Self = Self {
        service: Service::Imap,
        implicit_tls: false,
    };
    pub(crate) const IMAPS: Self = Self {
        service: Service::Imap,
        implicit_tls: true,
    };

    /// The name in settings, logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match (self.service, self.implicit_tls) {
            (Service::Pop3, false) => "pop3",
            (Service::Pop3, true) => "pop3s",
            (Service::Imap, false) => "imap",
            (Service::Imap, true) => "imaps",
        }
    }

    /// Begins the dialogue; its first step is the greeting.
    pub(crate) fn dialogue(self, config: Config) -> Dialogue {
        match self.service {
            Service::Pop3 => Dialogue::Pop3(Box::new(pop3::Login::new(config))),
            Service::Imap => Dialogue::Imap(Box::new(imap::Login::new(config))),
        }
    }
}

/// The part of a connection before its login, in either protocol. Boxed, so that it costs the
/// session nothing once it is over.
pub(crate) enum Dialogue {
    Pop3(Box<pop3::Login>),
    Imap(Box<imap::Login>),
}

impl Dialogue {
    fn core(&self) -> &dyn LoginDialogue {
        match self {
            Self::Pop3(core) => core.as_ref(),
            Self::Imap(core) => core.as_ref(),
        }
    }

    fn core_mut(&mut self) -> &mut dyn LoginDialogue {
        match self {
            Self::Pop3(core) => core.as_mut(),
            Self::Imap(core) => core.as_mut(),
        }
    }

    /// All that is said to a connection that cannot be served.
    pub(crate) fn last_words(mut self, why: Shut) -> Vec<u8> {
        let mut words = Vec::new();
        self.shut(why);
        while let LoginStep::Send(octets) = self.next() {
            words.extend_from_slice(octets);
        }
        words
    }
}

impl LoginDialogue for Dialogue {
    fn room(&self) -> usize {
        self.core().room()
    }

    fn receive(&mut self, octets: &[u8]) -> usize {
        self.core_mut().receive(octets)
    }

    fn next(&mut self) -> LoginStep<'_> {
        self.core_mut().next()
    }

    fn refuse(&mut self, why: Refusal) {
        self.core_mut().refuse(why);
    }

    fn challenge(&mut self, message: &[u8]) {
        self.core_mut().challenge(message);
    }

    fn tls_started(&mut self, has_binding: bool) {
        self.core_mut().tls_started(has_binding);
    }

    fn certificate_shown(&mut self) {
        self.core_mut().certificate_shown();
    }

    fn take_leftover(&mut self) -> Vec<u8> {
        self.core_mut().take_leftover()
    }

    fn client_id(&self) -> Option<&str> {
        self.core().client_id()
    }

    fn shut(&mut self, why: Shut) {
        self.core_mut().shut(why);
    }
}

#[cfg(test)]
mod tests {
    use mail_proto::login::Tls;

    use super::*;

    #[test]
    fn a_connection_too_many_is_told_so_in_its_own_protocol() {
        for (door, words) in [(Door::POP3, "-ERR [SYS/TEMP]"), (Door::IMAP, "* BYE")] {
            let dialogue = door.dialogue(Config::new("proxy.test", Tls::Absent));
            let said = String::from_utf8(dialogue.last_words(Shut::Overloaded)).unwrap();
            assert!(said.contains(words) && said.ends_with("\r\n"), "{said}");
        }
    }
}
