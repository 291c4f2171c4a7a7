//! What one client and one message may take, and how often.

use std::time::Duration;

use daemon::balancers::Network;
use daemon::clients::Grouping;
use daemon::config::{Problem, Settings};
use directory_api::client::STALE_MAX_S;
use mail_proto::smtp::ErrorLimits;

use crate::stress::Manner;

daemon::settings! {
    /// What one client and one message may take.
    pub struct Limits {
        /// Connections open at once, on all listeners together; those beyond are told 421. Each takes a file descriptor.
        pub connections_max: usize = 10_000,
        /// Connections open at once from one client.
        pub client_connections_max: usize = 50,
        /// Leading bits of an IPv4 address that make one client. Who sends from several hosts sends from neighbours; with 32 each
        /// address counts for itself.
        pub client_ipv4_bits: u8 = 24,
        /// The same of an IPv6 address.
        pub client_ipv6_bits: u8 = 64,
        /// Networks and addresses whose connections and rates are not limited. A relay on this machine speaks for many senders.
        pub exempt_networks: Vec<Network> = Network::LOOPBACK.to_vec(),
        /// Seconds without an octet in which a client may be, within a command too, and that it may take to take a reply.
        pub command_timeout_s: u64 = 300,
        /// Whether a whole command has to come in that time, and not only each piece of it.
        pub command_deadline: bool = false,
        /// Seconds for the TLS handshake.
        pub starttls_timeout_s: u64 = 300,
        /// Octets of a message.
        pub message_size_max_bytes: u64 = 50 << 20,
        /// Recipients of one message.
        pub recipients_max: usize = 1000,
        /// Accounts that the recipients of one message come to, all aliases resolved.
        pub accounts_max: usize = 1000,
        /// Octets of a text line without its CRLF. RFC 5321 has 998; more is accepted up to 65536.
        pub text_line_max_bytes: u64 = 998,
        /// Refused commands after which each reply is delayed.
        pub soft_error_limit: u32 = 10,
        /// Milliseconds of that delay.
        pub error_delay_ms: u64 = 1000,
        /// Refused commands after which the connection is closed.
        pub hard_error_limit: u32 = 20,
        /// Commands that bring no mail (NOOP, RSET, VRFY) before each further one counts as an error.
        pub junk_command_limit: u32 = 100,
        /// Octets a second that a body must bring; slower ones are cut, also where all that comes is read over. 0 allows any.
        pub sender_octets_per_s_min: u64 = 100,
        /// Seconds over which that is seen.
        pub sender_window_s: u64 = 60,
        /// Seconds that a back-end may take no octets before it is given up for this message.
        pub stall_timeout_s: u64 = 10,
        /// Seconds from the final dot to the reply, at most.
        pub commit_timeout_s: u64 = 30,
        /// Whether mail for a full account is refused for good (552) or until later (452).
        pub over_quota_is_permanent: bool = false,
        /// Seconds for which what was known of recipients and back-ends is good while the directory is away, from when it
        /// was last heard; after that, mail is answered `451`.
        pub directory_stale_max_s: u64 = STALE_MAX_S,
        /// Bodies up to this size stay in memory until the reply, to be sent again when a home has moved, or to a sibling that holds it.
        pub retry_body_max_bytes: u64 = 256 << 10,
        /// Seconds without an octet from a client after which the system asks whether it is still there; one that has vanished is
        /// noticed 90 s later. 0 never asks.
        pub keepalive_s: u64 = 120,
    }
}

impl Limits {
    /// What is borne of everybody while nothing is short.
    pub(crate) fn manner(&self) -> Manner {
        Manner {
            command_timeout: Duration::from_secs(self.command_timeout_s),
            starttls_timeout: Duration::from_secs(self.starttls_timeout_s),
            command_deadline: self.command_deadline,
            sender_window: Duration::from_secs(self.sender_window_s),
            session_timeout: None,
            errors: ErrorLimits {
                soft: self.soft_error_limit,
                hard: self.hard_error_limit,
                junk: self.junk_command_limit,
            },
        }
    }

    /// Which addresses are one client, and whose connections and rates are not limited.
    pub(crate) fn grouping(&self) -> Grouping {
        Grouping {
            ipv4_bits: self.client_ipv4_bits,
            ipv6_bits: self.client_ipv6_bits,
            exempt: self.exempt_networks.clone(),
        }
    }

    pub(crate) fn keepalive(&self) -> Duration {
        Duration::from_secs(self.keepalive_s)
    }

    pub(crate) fn error_delay(&self) -> Duration {
        Duration::from_millis(self.error_delay_ms)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.stall_timeout_s)
    }

    pub(crate) fn directory_stale_max(&self) -> Duration {
        Duration::from_secs(self.directory_stale_max_s)
    }

    pub(crate) fn commit_timeout(&self) -> Duration {
        Duration::from_secs(self.commit_timeout_s)
    }
}

daemon::settings! {
    /// How often one client may do what costs us something: so often at once, and as often again over each 60 s. 0 is without a limit. A client
    /// is what `limits.client_ipv4_bits` says, and `limits.exempt_networks` are exempt.
    pub struct Rates {
        /// Connections; those beyond are told 421.
        pub connections_max: u32 = 0,
        /// MAIL commands; those beyond are told 450.
        pub messages_max: u32 = 0,
        /// RCPT commands; those beyond are told 450.
        pub recipients_max: u32 = 0,
        /// TLS handshakes that resume no session; STARTTLS beyond is told 454, a connection in TLS closed.
        pub tls_sessions_max: u32 = 0,
        /// AUTH commands; those beyond are told 450. Nobody can log in here, so each of them is refused anyway and counts as a mistake.
        pub auths_max: u32 = 0,
    }
}

impl Settings for Limits {
    fn problems(&self) -> Vec<Problem> {
        let outside = [
            Problem::outside("connections_max", &self.connections_max, 1..=1_000_000),
            Problem::outside(
                "client_connections_max",
                &self.client_connections_max,
                1..=1_000_000,
            ),
            Problem::outside("client_ipv4_bits", &self.client_ipv4_bits, 0..=32),
            Problem::outside("client_ipv6_bits", &self.client_ipv6_bits, 0..=128),
            Problem::outside("command_timeout_s", &self.command_timeout_s, 1..=3600),
            Problem::outside("starttls_timeout_s", &self.starttls_timeout_s, 1..=3600),
            // RFC 5321 §4.5.3.1.7: at least 64 KiB must be taken.
            Problem::outside(
                "message_size_max_bytes",
                &self.message_size_max_bytes,
                64 << 10..=1 << 40,
            ),
            // RFC 5321 §4.5.3.1.8: at least 100. The deliver stream carries 1000.
            Problem::outside("recipients_max", &self.recipients_max, 100..=1000),
            Problem::outside("accounts_max", &self.accounts_max, 100..=1000),
            Problem::outside(
                "text_line_max_bytes",
                &self.text_line_max_bytes,
                998..=64 << 10,
            ),
            Problem::outside("soft_error_limit", &self.soft_error_limit, 1..=1000),
            Problem::outside("keepalive_s", &self.keepalive_s, 0..=7200),
            Problem::outside("error_delay_ms", &self.error_delay_ms, 0..=60_000),
            Problem::outside("hard_error_limit", &self.hard_error_limit, 1..=1000),
            Problem::outside("junk_command_limit", &self.junk_command_limit, 1..=100_000),
            Problem::outside(
                "sender_octets_per_s_min",
                &self.sender_octets_per_s_min,
                0..=1 << 20,
            ),
            Problem::outside("sender_window_s", &self.sender_window_s, 1..=3600),
            Problem::outside("stall_timeout_s", &self.stall_timeout_s, 1..=300),
            Problem::outside("commit_timeout_s", &self.commit_timeout_s, 1..=300),
            Problem::outside(
                "directory_stale_max_s",
                &self.directory_stale_max_s,
                0..=86_400,
            ),
            Problem::outside(
                "retry_body_max_bytes",
                &self.retry_body_max_bytes,
                0..=256 << 10,
            ),
        ];
        let mut problems: Vec<_> = outside.into_iter().flatten().collect();
        if self.soft_error_limit > self.hard_error_limit {
            problems.push(Problem::new(
                "soft_error_limit",
                self.soft_error_limit,
                format!("above hard_error_limit ({})", self.hard_error_limit),
                "choose no more than that, or no reply is ever delayed before the connection is closed",
            ));
        }
        problems
    }
}

impl Settings for Rates {
    fn problems(&self) -> Vec<Problem> {
        [
            ("connections_max", self.connections_max),
            ("messages_max", self.messages_max),
            ("recipients_max", self.recipients_max),
            ("tls_sessions_max", self.tls_sessions_max),
            ("auths_max", self.auths_max),
        ]
        .into_iter()
        .filter_map(|(key, value)| Problem::outside(key, &value, 0..=1_000_000))
        .collect()
    }
}
