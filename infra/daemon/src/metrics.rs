//! Collects the process's metrics and writes them in Prometheus form.
//!
//! Names are `posthouse_<tier>_<what>_<unit>`, counters end in `_total`. Durations are histograms in `_seconds`, sizes
//! in `_bytes`. A metric is described where it is counted, so that its help text stands there:
//! (after [`install`], which keeps the texts) `metrics::describe_counter!("posthouse_mx_accepted_total", "Messages accepted.")`.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// Seconds, from a journal sync on a good disk to a timeout of SMTP.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];
/// Octets, from a note to the largest message accepted by default.
const BYTES: &[f64] = &[
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    52_428_800.0,
];

/// How often old samples are folded together.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts collecting, once a process, and gives the way to write everything collected.
///
/// # Panics
/// When another recorder of metrics was installed in this process.
pub fn install() -> PrometheusHandle {
    let start = || {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_bytes".into()), BYTES)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .expect("the buckets are not empty and nobody else installs a recorder");
        describe_counter!(
            "posthouse_link_connects_total",
            "Attempts to connect to another process, by target and result."
        );
        describe_gauge!(
            "posthouse_link_up",
            "1 while the last attempt to connect to the target worked or another connection to it lives."
        );
        handle
    };
    INSTALLED.get_or_init(start).clone()
}
