//! The migrator's settings.

use std::net::SocketAddr;
use std::time::Duration;

use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;
use daemon::log::LogSettings;

use crate::perform::{FROZEN_MAX, Limits};

daemon::settings! {
    /// The migrator: finishes moves that others left, and moves accounts when told.
    pub struct Config {
        /// The directory, `host:port`.
        pub directory: String = "127.0.0.1:4205".into(),
        /// Health and metrics over plain HTTP/1.1.
        pub metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4392)),
        /// Seconds between looks for moves to finish.
        pub interval_s: u64 = 30,
        /// A move is taken up when nobody has touched it for this many seconds: its migrator is gone.
        pub abandoned_after_s: u64 = 300,
        /// Moves at once.
        pub moves_max: usize = 4,
        /// Of them from or to one back-end, when a plan is run.
        pub moves_per_backend_max: usize = 2,
        /// When a plan is run, copying pauses while either side takes longer than so many milliseconds to tell its load, for which it looks at its disks; 0: it never does.
        pub latency_max_ms: u64 = 250,
        /// An account that nobody may write, because the last of it is copied, is given back to its users after so many seconds, and the move given up.
        pub frozen_max_s: u64 = FROZEN_MAX.as_secs(),
        /// Octets of messages copied in a second by all moves together; 0: no limit. It does not hold while an account is frozen.
        pub octets_per_s: u64 = 0,
        /// Certificate of this process, with the role migrator.
        pub identity: IdentityFiles = IdentityFiles::default(),
        /// What is logged, and in which form.
        pub log: LogSettings = LogSettings::default(),
    }
}

impl Settings for Config {
    fn problems(&self) -> Vec<Problem> {
        [
            Problem::outside("interval_s", &self.interval_s, 1..=86_400),
            // A copy under way shows itself every 20 s.
            Problem::outside("abandoned_after_s", &self.abandoned_after_s, 60..=604_800),
            Problem::outside("moves_max", &self.moves_max, 1..=64),
            Problem::outside("moves_per_backend_max", &self.moves_per_backend_max, 1..=64),
            Problem::outside("latency_max_ms", &self.latency_max_ms, 0..=60_000),
            Problem::outside("frozen_max_s", &self.frozen_max_s, 2..=3600),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn log(&self) -> LogSettings {
        self.log.clone()
    }
}

impl Config {
    /// What each move may cost.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let share = self.octets_per_s / self.moves_max.max(1) as u64;
        Limits {
            frozen_max: Duration::from_secs(self.frozen_max_s),
            octets_per_s: (self.octets_per_s > 0).then_some(share.max(1)),
        }
    }

    /// Between looks for moves to finish.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s)
    }
}
