//! What changes when connections run out.

use std::time::Duration;

use daemon::config::{Problem, Settings};
use mail_proto::smtp::ErrorLimits;

use crate::stress::Manner;

daemon::settings! {
    /// What changes when connections run out: clients that take long or make mistakes are ended soon, so that there is room for
    /// others. Clients that have brought mail lately are served as ever, and those in `limits.exempt_networks`.
    pub struct StressSettings {
        /// Percent of `limits.connections_max` open at which it begins. It begins in any case when one more finds no room, or only
        /// what `reserved_percent` leaves to others.
        pub enter_percent: u8 = 90,
        /// Percent at which, or below, it may end.
        pub leave_percent: u8 = 70,
        /// Seconds of that before it ends.
        pub leave_after_s: u64 = 30,
        /// Percent of the connections that are left to clients with a good history. While not one is free these too have
        /// `command_timeout_s` between two messages.
        pub reserved_percent: u8 = 2,
        /// Takes the place of `limits.command_timeout_s`, at once: who waits longer already is told so and closed.
        pub command_timeout_s: u64 = 10,
        /// Takes the place of `limits.starttls_timeout_s`.
        pub starttls_timeout_s: u64 = 10,
        /// Takes the place of `limits.command_deadline`.
        pub command_deadline: bool = true,
        /// Takes the place of `limits.sender_window_s`.
        pub sender_window_s: u64 = 10,
        /// Seconds after which whoever has brought no message since it began, or since the last one, is closed; a message on its way
        /// is waited for.
        pub session_timeout_s: u64 = 120,
        /// Takes the place of `limits.hard_error_limit`. No reply is delayed.
        pub hard_error_limit: u32 = 1,
        /// Takes the place of `limits.junk_command_limit`.
        pub junk_command_limit: u32 = 1,
        /// Messages that a client must have brought for a good history; of one that we end for its mistakes or its slowness half are forgotten.
        pub good_messages_min: u32 = 2,
        /// Connections of such a client, its first ones, that are served as ever; any more are as a stranger's.
        pub good_connections_max: usize = 5,
        /// Clients whose history is known, the latest; some 100 octets of memory each.
        pub good_clients_max: u64 = 20_000,
        /// Days after its last message for which a client's history counts.
        pub good_days: u64 = 7,
    }
}

impl StressSettings {
    /// What is borne under stress.
    pub(crate) fn manner(&self) -> Manner {
        Manner {
            command_timeout: Duration::from_secs(self.command_timeout_s),
            starttls_timeout: Duration::from_secs(self.starttls_timeout_s),
            command_deadline: self.command_deadline,
            sender_window: Duration::from_secs(self.sender_window_s),
            session_timeout: Some(Duration::from_secs(self.session_timeout_s)),
            errors: ErrorLimits {
                soft: u32::MAX,
                hard: self.hard_error_limit,
                junk: self.junk_command_limit,
            },
        }
    }
}

impl Settings for StressSettings {
    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = [
            Problem::outside("enter_percent", &self.enter_percent, 1..=100),
            Problem::outside("leave_percent", &self.leave_percent, 0..=100),
            Problem::outside("leave_after_s", &self.leave_after_s, 1..=3600),
            Problem::outside("reserved_percent", &self.reserved_percent, 0..=50),
            Problem::outside("command_timeout_s", &self.command_timeout_s, 1..=3600),
            Problem::outside("starttls_timeout_s", &self.starttls_timeout_s, 1..=3600),
            Problem::outside("sender_window_s", &self.sender_window_s, 1..=3600),
            Problem::outside("session_timeout_s", &self.session_timeout_s, 1..=3600),
            Problem::outside("hard_error_limit", &self.hard_error_limit, 1..=1000),
            Problem::outside("junk_command_limit", &self.junk_command_limit, 1..=100_000),
            Problem::outside("good_messages_min", &self.good_messages_min, 1..=10_000),
            Problem::outside(
                "good_connections_max",
                &self.good_connections_max,
                1..=1_000_000,
            ),
            Problem::outside("good_clients_max", &self.good_clients_max, 0..=1_000_000),
            Problem::outside("good_days", &self.good_days, 1..=365),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.leave_percent >= self.enter_percent {
            problems.push(Problem::new(
                "leave_percent",
                self.leave_percent,
                "not below enter_percent",
                "choose less, so that stress does not come and go",
            ));
        }
        problems
    }
}
