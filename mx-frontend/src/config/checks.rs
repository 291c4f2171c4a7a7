//! What is looked at before mail is taken, and what is done about it.

use std::time::Duration;

use daemon::balancers::Network;
use daemon::config::{Problem, Settings};
use serde::{Deserialize, Serialize};

/// What is done when a check finds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is not looked at.
    Off,
    /// It is counted, and a line of the log says so.
    Log,
    /// Besides, the client is told to come again (4xx).
    Defer,
    /// Besides, the client is refused for good (5xx).
    Reject,
}

daemon::settings! {
    /// What is looked at before mail is taken. Each check is "off"; "log": what it finds is counted and logged; "defer": besides, the
    /// client is told to come again (4xx); or "reject": besides, it is refused for good (5xx). Clients and their senders are refused at
    /// RCPT, so that the log names the recipient and mail for postmaster comes through (RFC 5321 §4.5.1).
    pub struct CheckSettings {
        /// Networks and addresses of clients that are not looked at. Those of `xclient_networks` are not either, but those for whom
        /// they speak are.
        pub exempt_networks: Vec<Network> = Network::LOOPBACK.to_vec(),
        /// Early talkers: clients that send something before our greeting. Who waits for none waits for no other reply either. They
        /// are told so instead of a greeting, and closed.
        pub early_talker: Action = Action::Off,
        /// Milliseconds for which the greeting is held back to see that, if it is looked at: not from clients that have brought mail
        /// lately (`stress.good_messages_min`), and from nobody under stress.
        pub greeting_wait_ms: u64 = 1000,
        /// Commands that are sent before they may be: behind HELO, EHLO, DATA or STARTTLS without its reply, or several at
        /// once before EHLO. The connection is closed.
        pub pipelining: Action = Action::Log,
        /// A name in HELO or EHLO that is neither a full host name nor an address literal.
        pub helo_syntax: Action = Action::Log,
        /// Our own name in it, of another.
        pub helo_own_name: Action = Action::Log,
        /// An address literal in it that is not the client's address. A client behind an address translator may not know its own.
        pub helo_literal: Action = Action::Log,
    }
}

impl CheckSettings {
    pub(crate) fn greeting_wait(&self) -> Duration {
        Duration::from_millis(self.greeting_wait_ms)
    }
}

impl Settings for CheckSettings {
    fn problems(&self) -> Vec<Problem> {
        // RFC 5321 §4.5.3.2.1: a client waits five minutes, but people's patience with a first message is shorter.
        [Problem::outside(
            "greeting_wait_ms",
            &self.greeting_wait_ms,
            1..=30_000,
        )]
        .into_iter()
        .flatten()
        .collect()
    }
}
