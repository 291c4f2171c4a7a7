//! What moves may cost, as it is said on the command line; what is not said there is as in the settings file.

use std::collections::BTreeSet;
use std::time::Duration;

use directory_api::BackendName;
use directory_api::client::DirectoryClient;
use store_api::Backends;

use crate::Config;
use crate::execute::{Budget, Runner};
use crate::gate::Gate;
use crate::perform::Mover;

#[derive(Debug, clap::Args)]
pub(super) struct CostArguments {
    /// Moves at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: Option<u16>,
    /// Of them from or to one back-end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    per_backend: Option<u16>,
    /// Octets of messages copied in a second by all moves together; 0: no limit
    #[arg(long, value_name = "N")]
    octets_per_s: Option<u64>,
    /// Copying pauses while either side takes longer to answer; 0: it never does
    #[arg(long, value_name = "MS")]
    latency_max_ms: Option<u64>,
    /// An account that nobody may write is given back after so long, and its move given up
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    frozen_max_s: Option<u64>,
}

impl CostArguments {
    /// The settings with what was said.
    pub(super) fn over(&self, config: Config) -> Config {
        Config {
            moves_max: self.at_once.map_or(config.moves_max, usize::from),
            moves_per_backend_max: self
                .per_backend
                .map_or(config.moves_per_backend_max, usize::from),
            octets_per_s: self.octets_per_s.unwrap_or(config.octets_per_s),
            latency_max_ms: self.latency_max_ms.unwrap_or(config.latency_max_ms),
            frozen_max_s: self.frozen_max_s.unwrap_or(config.frozen_max_s),
            ..config
        }
    }
}

/// Who carries out plans that name these back-ends.
pub(super) fn runner(
    config: &Config,
    directory: &DirectoryClient,
    backends: &Backends,
    names: BTreeSet<BackendName>,
) -> Runner {
    let mut mover = Mover::new(directory.clone(), backends.clone()).within(config.limits());
    if config.latency_max_ms > 0 {
        let latency_max = Duration::from_millis(config.latency_max_ms);
        mover = mover.behind(Gate::watching(backends.clone(), names, latency_max));
    }
    let budget = Budget {
        moves_max: config.moves_max,
        per_backend_max: config.moves_per_backend_max,
    };
    Runner::new(mover, directory.clone(), backends.clone(), budget)
}
