//! What is looked at before mail is taken, and what is done about it.

use std::net::SocketAddr;
use std::time::Duration;

use daemon::balancers::Network;
use daemon::config::{Problem, Settings};
use mail_proto::Address;
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
        /// A client whose address has no name in the DNS, or none that leads back to it. The name stands in Received.
        pub reverse_dns: Action = Action::Log,
        /// A sender whose domain says that this client does not send for it (SPF, "fail"). Other results are counted, and
        /// all stand in Authentication-Results.
        pub spf: Action = Action::Log,
        /// Clients that stand in DNS lists; see `lists`.
        pub dns_lists: Action = Action::Log,
        /// DNS lists, such as [{ zone = "bl.example.test", weight = 2 }, { zone = "allow.example.test", weight = -5 }]. A negative weight
        /// makes it a list of clients to be let in. A list may have `answers = ["127.0.0.4/30"]`: only these of its answers
        /// count; else all in 127.0.0.0/8 do, but those of 127.255.255.0/24, by which lists say that they do not answer us.
        pub lists: Vec<DnsList> = Vec::new(),
        /// A client of whom all lists that name it weigh so much together, or more, is found.
        pub lists_weight_min: i32 = 1,
        /// One of whom they weigh so much, or less, is let in: of its name, its address and its sender nothing is found.
        pub lists_weight_allowed: i32 = -1,
        /// How the DNS is asked.
        pub dns: DnsSettings = DnsSettings::default(),
    }
}

daemon::settings! {
    /// How the DNS is asked. Mail never waits for it longer than said here; what nobody could say in that time is found of nobody.
    pub struct DnsSettings {
        /// Servers, such as ["192.0.2.53:53"], resolvers for this site. Empty: those of /etc/resolv.conf.
        pub servers: Vec<SocketAddr> = Vec::new(),
        /// Milliseconds for one look-up; in half of it comes a second attempt.
        pub lookup_timeout_ms: u64 = 2000,
        /// Milliseconds from MAIL for which RCPT waits at most for all that is looked up.
        pub session_timeout_ms: u64 = 5000,
        /// Answers that are kept, positive and negative; some hundred octets of memory each.
        pub cache_entries_max: u64 = 20_000,
        /// Seconds for which an answer is kept at most, whatever it says itself.
        pub ttl_max_s: u64 = 3600,
        /// The same of an answer that there is nothing.
        pub negative_ttl_max_s: u64 = 300,
    }
}

impl DnsSettings {
    pub(crate) fn lookup_timeout(&self) -> Duration {
        Duration::from_millis(self.lookup_timeout_ms)
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms)
    }
}

/// One DNS list. RFC 5782.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsList {
    /// The domain under which addresses stand.
    pub zone: String,
    /// What it weighs to stand there.
    #[serde(default = "one")]
    pub weight: i32,
    /// Answers that count.
    #[serde(default)]
    pub answers: Vec<Network>,
}

fn one() -> i32 {
    1
}

impl Settings for DnsSettings {
    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = [
            Problem::outside("lookup_timeout_ms", &self.lookup_timeout_ms, 10..=30_000),
            Problem::outside("session_timeout_ms", &self.session_timeout_ms, 10..=60_000),
            Problem::outside("cache_entries_max", &self.cache_entries_max, 0..=10_000_000),
            Problem::outside("ttl_max_s", &self.ttl_max_s, 0..=86_400),
            Problem::outside("negative_ttl_max_s", &self.negative_ttl_max_s, 0..=86_400),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.session_timeout_ms < self.lookup_timeout_ms {
            problems.push(Problem::new(
                "session_timeout_ms",
                self.session_timeout_ms,
                "less than lookup_timeout_ms",
                "leave time for one look-up at least",
            ));
        }
        problems
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
        let wait = Problem::outside("greeting_wait_ms", &self.greeting_wait_ms, 1..=30_000);
        let mut problems: Vec<_> = wait.into_iter().collect();
        problems.extend(Problem::outside("lists", &self.lists.len(), 0..=LISTS_MAX));
        for list in &self.lists {
            // An address of version 6 takes 64 octets before it.
            let fits = list.zone.len() <= 253 - 64;
            if !fits || format!("x@{}", list.zone).parse::<Address>().is_err() {
                problems.push(Problem::new(
                    "lists",
                    &list.zone,
                    "not a domain for a list",
                    "write it like bl.example.test",
                ));
            }
        }
        problems.extend(Problem::outside(
            "lists_weight_min",
            &self.lists_weight_min,
            1..=1_000_000,
        ));
        problems.extend(Problem::outside(
            "lists_weight_allowed",
            &self.lists_weight_allowed,
            -1_000_000..=-1,
        ));
        problems
    }
}

/// Each is asked for every client that brings mail.
const LISTS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_value_is_named() {
        let keys = |settings: &CheckSettings| -> Vec<String> {
            let problems = settings.problems().into_iter();
            problems.map(|problem| problem.key).collect()
        };
        let list = |zone: &str| DnsList {
            zone: zone.into(),
            weight: 1,
            answers: Vec::new(),
        };
        assert_eq!(keys(&CheckSettings::default()), [""; 0]);
        assert_eq!(CheckSettings::default().dns.problems(), []);
        let label = "x".repeat(62);
        let longest = format!("{label}.{label}.{label}");
        assert_eq!(longest.len(), 188);
        let settings = CheckSettings {
            lists: vec![list("bl.test"); 20],
            ..CheckSettings::default()
        };
        assert_eq!(keys(&settings), [""; 0]);
        let settings = CheckSettings {
            greeting_wait_ms: 30_001,
            lists: vec![list("bl.test"), list(""), list("b l.test"), list(&longest)],
            lists_weight_min: 0,
            lists_weight_allowed: 0,
            ..CheckSettings::default()
        };
        let expected = [
            "greeting_wait_ms",
            "lists",
            "lists",
            "lists_weight_min",
            "lists_weight_allowed",
        ];
        assert_eq!(keys(&settings), expected);
        let settings = CheckSettings {
            lists: vec![list(&format!("{longest}xx")); 21],
            ..CheckSettings::default()
        };
        assert_eq!(keys(&settings).len(), 22, "too many, and each too long");
        let dns = DnsSettings {
            lookup_timeout_ms: 3000,
            session_timeout_ms: 2999,
            ..DnsSettings::default()
        };
        assert_eq!(dns.problems()[0].key, "session_timeout_ms");
    }
}
