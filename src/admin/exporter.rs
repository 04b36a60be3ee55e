//! The metrics of this process, in the text format of Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use router_core::metrics::{Metric, MetricKind, enable};

/// All metrics that are compiled in.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    let registry = crate::registry();
    let elections = registry.backends().iter().flat_map(|backend| backend.description().metrics);
    let elections = elections.copied().collect::<Vec<_>>();
    #[cfg(feature = "logging")]
    let log = crate::logging::METRICS;
    #[cfg(not(feature = "logging"))]
    let log = &[];
    let ours = [router_core::metrics::METRICS, components::METRICS].into_iter().flatten().copied();
    ours.chain(elections).chain(log.iter().copied())
}

/// Has everything measured, once for the process. `None`: the program has installed a recorder of its own,
/// which gets the metrics, and shows them itself.
pub(super) fn install() -> Option<PrometheusHandle> {
    static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let mut builder = PrometheusBuilder::new();
        for metric in metrics() {
            if let MetricKind::Histogram(bounds) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder
                    .set_buckets_for_metric(name, bounds)
                    .unwrap_or_else(|error| unreachable!("every histogram has bounds: {error}"));
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let installed = ::metrics::set_global_recorder(recorder).is_ok();
        enable(metrics());
        installed.then_some(handle)
    };
    INSTALLED.get_or_init(install).clone()
}
