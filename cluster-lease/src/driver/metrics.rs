//! What is measured of the election.

use std::time::Duration;

use router_core::metrics::{Metric, MetricKind};

/// The time from sending a heartbeat to the answer that it was written.
static RENEW_SECONDS: Metric = Metric {
    name: "bactrian_lease_renew_seconds",
    kind: MetricKind::Histogram(&[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0]),
    labels: &[],
    summary: "how long the store took to write a heartbeat of the election",
};

/// The time that the deadline was still away when it was moved.
static DEADLINE_SECONDS: Metric = Metric {
    name: "bactrian_lease_deadline_seconds",
    kind: MetricKind::Histogram(&[0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 40.0]),
    labels: &[],
    summary: "how many seconds were left to the deadline of this process when a heartbeat moved it",
};

/// The metrics of this crate.
pub static METRICS: &[&Metric] = &[&RENEW_SECONDS, &DEADLINE_SECONDS];

/// Has them exist before the first heartbeat.
pub(super) fn show() {
    for metric in METRICS {
        let _ = metric.histogram(&[]);
    }
}

/// A heartbeat was written.
pub(super) fn renewed(took: Duration) {
    RENEW_SECONDS.histogram(&[]).record(took);
}

/// The view has shown a heartbeat, which moves the deadline.
pub(super) fn deadline_moves(left: Duration) {
    DEADLINE_SECONDS.histogram(&[]).record(left);
}
