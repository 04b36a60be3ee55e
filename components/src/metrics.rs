//! What components count.

use router_core::metrics::{Metric, MetricKind};

/// Counted by `timer:` and `cron:`.
pub(crate) static MISSED_TICKS: Metric = Metric {
    name: "bactrian_missed_ticks_total",
    kind: MetricKind::Counter,
    labels: &["route"],
    summary: "times of a `timer:` with a fixed rate or of a `cron:` that passed while it could not fire, \
              also if they fired later",
};

/// Counted by `telegram:`.
#[cfg(feature = "http")]
pub(crate) static POLL_CONFLICTS: Metric = Metric {
    name: "bactrian_poll_conflicts_total",
    kind: MetricKind::Counter,
    labels: &["route"],
    summary: "polls that `telegram:` lost to another process that polls for the same bot",
};

/// The metrics of this crate.
pub static METRICS: &[&Metric] = &[
    &MISSED_TICKS,
    #[cfg(feature = "http")]
    &POLL_CONFLICTS,
];
