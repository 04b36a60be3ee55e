//! [`Metric`]: what is counted and measured, in the names of Prometheus.
//!
//! Each crate lists its metrics once, as `METRICS`. From the lists come the handles, the help of the
//! exporter and the table of the guide, so that there is no metric without a description.
//!
//! Nothing is measured before [`enable`] is called, and then a route costs one more look at an atomic for
//! each exchange. The listener of the package `bactrian` calls it. A program with an exporter of its own
//! installs its recorder (of the crate `metrics`), calls [`enable`], runs the router, and calls
//! [`Router::refresh_gauges`](crate::router::Router::refresh_gauges) before each scrape.

mod route;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use ::metrics::{Key, KeyName, Label, Level, Metadata, Recorder, with_recorder};

pub use ::metrics::{Counter, Gauge, Histogram};

pub(crate) use route::RouteMetrics;

/// Something that is counted or measured.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub summary: &'static str,
}

/// What the values of a metric are.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// How many values were at most as large as each of these bounds.
    Histogram(&'static [f64]),
}

/// `exchanges_total{route,outcome}`.
pub(crate) static EXCHANGES: Metric = Metric {
    name: "bactrian_exchanges_total",
    kind: MetricKind::Counter,
    labels: &["route", "outcome"],
    summary: "exchanges that have ended: `completed`, `filtered`, `stopped`, `dead_lettered`, `failed`, `leadership_lost` (refused or \
              ended because the term was over) or `aborted` (dropped on the way)",
};

/// `exchange_seconds{route}`.
pub(crate) static EXCHANGE_SECONDS: Metric = Metric {
    name: "bactrian_exchange_seconds",
    kind: MetricKind::Histogram(&[
        0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ]),
    labels: &["route"],
    summary: "how long exchanges took, with any outcome",
};

/// `inflight{route}`.
pub(crate) static IN_FLIGHT: Metric = Metric {
    name: "bactrian_inflight",
    kind: MetricKind::Gauge,
    labels: &["route"],
    summary: "exchanges that are on their way",
};

/// `leader{lock}`.
pub(crate) static LEADER: Metric = Metric {
    name: "bactrian_leader",
    kind: MetricKind::Gauge,
    labels: &["lock"],
    summary: "1 while this process leads the lock, else 0; the term itself is asked at each scrape",
};

/// `leader_term{lock}`.
pub(crate) static LEADER_TERM: Metric = Metric {
    name: "bactrian_leader_term",
    kind: MetricKind::Gauge,
    labels: &["lock"],
    summary: "the present term of whichever member leads; 0 while no leader is known",
};

/// `lock_without_leader_seconds{lock}`.
pub(crate) static WITHOUT_LEADER_SECONDS: Metric = Metric {
    name: "bactrian_lock_without_leader_seconds",
    kind: MetricKind::Gauge,
    labels: &["lock"],
    summary: "for how long this process has known of no leader of the lock; 0 while it knows one. The minimum over \
              all processes is for how long there has been none",
};

/// `leader_transitions_total{lock,reason}`.
pub(crate) static LEADER_TRANSITIONS: Metric = Metric {
    name: "bactrian_leader_transitions_total",
    kind: MetricKind::Counter,
    labels: &["lock", "reason"],
    summary: "terms of this process that began (`elected`) or ended: given up (`released`), taken away \
              (`lost`), or past their deadline (`expired`)",
};

/// The metrics of this crate.
pub static METRICS: &[&Metric] = &[
    &EXCHANGES,
    &EXCHANGE_SECONDS,
    &IN_FLIGHT,
    &LEADER,
    &LEADER_TERM,
    &WITHOUT_LEADER_SECONDS,
    &LEADER_TRANSITIONS,
];

static ENABLED: AtomicBool = AtomicBool::new(false);

/// What is told to a recorder about where a metric comes from.
static METADATA: Metadata<'static> = Metadata::new("bactrian", Level::INFO, None);

/// Describes these metrics to the recorder of the process, and has everything measured that starts from
/// now on. To be called after the recorder was installed, and before anything runs.
pub fn enable(metrics: impl IntoIterator<Item = &'static Metric>) {
    for metric in metrics {
        metric.describe();
    }
    ENABLED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Metrics as a Markdown table: the one of the guide.
#[must_use]
pub fn metrics_table<'a>(metrics: impl IntoIterator<Item = &'a Metric>) -> String {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, summary } in metrics {
        let kind = kind.name();
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {summary} |");
    }
    table
}

impl MetricKind {
    /// The name of this kind in Prometheus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Metric {
    /// The counter with these values of the labels, in their order. Does nothing if nothing is measured.
    pub fn counter(&self, labels: &[&str]) -> Counter {
        self.handle(labels, Counter::noop, |recorder, key| recorder.register_counter(key, &METADATA))
    }

    /// The gauge with these values of the labels, in their order. Does nothing if nothing is measured.
    pub fn gauge(&self, labels: &[&str]) -> Gauge {
        self.handle(labels, Gauge::noop, |recorder, key| recorder.register_gauge(key, &METADATA))
    }

    /// The histogram with these values of the labels, in their order. Does nothing if nothing is measured.
    pub fn histogram(&self, labels: &[&str]) -> Histogram {
        self.handle(labels, Histogram::noop, |recorder, key| recorder.register_histogram(key, &METADATA))
    }

    fn handle<T>(
        &self,
        values: &[&str],
        nothing: impl FnOnce() -> T,
        register: impl FnOnce(&dyn Recorder, &Key) -> T,
    ) -> T {
        debug_assert_eq!(values.len(), self.labels.len(), "{} has labels {:?}", self.name, self.labels);
        if !is_enabled() {
            return nothing();
        }
        let labels =
            self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned()));
        let key = Key::from_parts(self.name, labels.collect::<Vec<_>>());
        with_recorder(|recorder| register(recorder, &key))
    }

    fn describe(&self) {
        let name = KeyName::from_const_str(self.name);
        with_recorder(|recorder| match self.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, self.summary.into()),
            MetricKind::Gauge => recorder.describe_gauge(name, None, self.summary.into()),
            MetricKind::Histogram(_) => recorder.describe_histogram(name, None, self.summary.into()),
        });
    }
}
