//! [`RouteMetrics`]: the handles of one route.

use std::time::Instant;

use super::{Counter, EXCHANGE_SECONDS, EXCHANGES, Gauge, Histogram, IN_FLIGHT};
use crate::outcome::{Outcome, RouteError};

/// What is measured of one route. Asked of the recorder once, because that takes longer than many an
/// exchange.
pub(crate) struct RouteMetrics {
    completed: Counter,
    filtered: Counter,
    stopped: Counter,
    dead_lettered: Counter,
    failed: Counter,
    leadership_lost: Counter,
    aborted: Counter,
    in_flight: Gauge,
    seconds: Histogram,
}

/// An exchange that is on its way. If it is dropped without a result, the exchange was aborted.
pub(crate) struct Journey<'a> {
    metrics: &'a RouteMetrics,
    start: Instant,
    end: &'a Counter,
}

impl RouteMetrics {
    pub(crate) fn new(route: &str) -> Self {
        let outcome = |outcome| EXCHANGES.counter(&[route, outcome]);
        Self {
            completed: outcome(Outcome::Completed.name()),
            filtered: outcome(Outcome::Filtered.name()),
            stopped: outcome(Outcome::Stopped.name()),
            dead_lettered: outcome(Outcome::DeadLettered.name()),
            failed: outcome("failed"),
            leadership_lost: outcome("leadership_lost"),
            aborted: outcome("aborted"),
            in_flight: IN_FLIGHT.gauge(&[route]),
            seconds: EXCHANGE_SECONDS.histogram(&[route]),
        }
    }

    /// Counts exchanges that never began.
    pub(crate) fn abandon(&self, count: u64) {
        self.aborted.increment(count);
    }

    pub(crate) fn begin(&self) -> Journey<'_> {
        self.in_flight.increment(1);
        Journey { metrics: self, start: Instant::now(), end: &self.aborted }
    }
}

impl Journey<'_> {
    pub(crate) fn end(&mut self, result: &Result<Outcome, RouteError>) {
        self.end = match result {
            Ok(Outcome::Completed) => &self.metrics.completed,
            Ok(Outcome::Filtered) => &self.metrics.filtered,
            Ok(Outcome::Stopped) => &self.metrics.stopped,
            Ok(Outcome::DeadLettered) => &self.metrics.dead_lettered,
            Err(error) if error.is_leadership_lost() => &self.metrics.leadership_lost,
            Err(_) => &self.metrics.failed,
        };
    }
}

impl Drop for Journey<'_> {
    fn drop(&mut self) {
        self.end.increment(1);
        self.metrics.seconds.record(self.start.elapsed());
        self.metrics.in_flight.decrement(1);
    }
}
