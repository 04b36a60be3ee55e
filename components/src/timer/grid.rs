//! [`CatchUp`]: times that go on over restarts and failovers, and what becomes of those that were missed.

use std::path::PathBuf;
use std::time::Duration;

use router_core::cluster::Term;
use router_core::component::RouteHandle;
use router_core::error::{BoxError, ConfigError};
use router_core::options::Options;
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tokio::time::{Instant, sleep_until};

use super::{Timer, milliseconds, now};
use crate::lateness::is_too_late;
use crate::missed_ticks::{self, Missed, Missing};

/// The options `missed`, `missed_max` and `state`.
#[derive(Clone)]
pub(super) struct CatchUp {
    policy: Missed,
    state: Option<PathBuf>,
}

/// Times that are multiples of a period on the wall clock, whoever fires them.
struct Grid {
    /// The wall clock of this process: read once, and counted on by the clock that nobody sets.
    started: Instant,
    start: Duration,
    period: Duration,
    /// The last time that was fired or skipped.
    settled: Duration,
    state: RouteState,
}

impl Grid {
    fn now(&self) -> Duration {
        self.start + self.started.elapsed()
    }

    /// When the time after the last one is.
    fn next(&self) -> Instant {
        self.started + (self.settled + self.period).saturating_sub(self.start)
    }

    /// How many times have passed since the last one.
    fn passed(&self) -> u64 {
        let passed = self.now().saturating_sub(self.settled).as_nanos() / self.period.as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// Passes over so many times, and stores that before anything is fired.
    async fn settle(&mut self, times: u64) -> Result<(), StateError> {
        let nanoseconds = self.period.as_nanos().saturating_mul(times.into());
        self.settled += Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.state.store(&serde_json::json!({ "settled": milliseconds(self.settled) })).await
    }
}

impl CatchUp {
    /// The options, where `missed` is given.
    pub(super) fn read(uri: &EndpointUri, options: &Options) -> Result<Option<Self>, ConfigError> {
        let Some(policy) = Missed::read(uri, options)? else { return Ok(None) };
        if !options.are_right(&["fixed_rate", "period", "missed"]) {
            return Ok(None);
        }
        if !options.boolean("fixed_rate") || options.duration("period").is_zero() {
            let error = uri.error_at_option("missed", "option `missed` needs `fixed_rate=true` and a period");
            return Err(error.help("a period that counts from the last exchange has no times to miss"));
        }
        Ok(Some(Self { policy, state: options.text("state").map(PathBuf::from) }))
    }

    /// Whether the position is in a file, where no lock carries it.
    pub(super) fn has_file(&self) -> bool {
        self.state.is_some()
    }

    /// Runs the timer, with times that outlive it.
    pub(super) async fn run(&self, timer: &Timer, route: &RouteHandle) -> Result<(), BoxError> {
        let RouteHandle { pipeline, stop, .. } = route;
        let policy = self.policy;
        let (mut grid, mut is_new) = self.grid(timer, pipeline).await?;
        route.ready();
        let mut missing = Missing::new(pipeline.route_id(), policy);
        // Missed, noted, and about to fire one after the other.
        let mut pending = 0;
        let mut counter = 1;
        loop {
            // A first start misses nothing, however long it took to store its position.
            let passed = if std::mem::take(&mut is_new) { 0 } else { grid.passed() };
            missing.note(passed.saturating_sub(pending), "when no member led, or it was busy or suspended");
            if passed > pending {
                pending = policy.fires(passed);
                grid.settle(passed - pending).await?;
            }
            tokio::select! {
                biased;
                () = stop.requested() => break,
                () = sleep_until(grid.next()) => {}
            }
            if pending == 0 && is_too_late(grid.next().elapsed(), grid.passed() > 1) {
                // What becomes of it is decided above, together with those after it.
                continue;
            }
            let before = grid.settled;
            grid.settle(1).await?;
            if let Some(Err(lost)) = pipeline.term().map(Term::admit) {
                // The term ended meanwhile, and the exchange would not start: the time is for the next leader.
                grid.settled = before;
                grid.settle(0).await?;
                return Err(lost.into());
            }
            let mut exchange = timer.exchange(counter);
            let headers = &mut exchange.message.headers;
            headers.set(const { SmolStr::new_static("timer.scheduled_time") }, milliseconds(grid.settled));
            headers.set(const { SmolStr::new_static("timer.missed") }, pending > 0);
            pending = pending.saturating_sub(1);
            // The pipeline has logged a failure; the next tick is a new chance.
            let _ = pipeline.process(&mut exchange).await;
            if timer.repeat_count == Some(counter) {
                break;
            }
            counter += 1;
        }
        Ok(())
    }

    /// The grid, and whether it is a new one.
    async fn grid(&self, timer: &Timer, pipeline: &Pipeline) -> Result<(Grid, bool), BoxError> {
        let state = pipeline.state(self.state.as_deref());
        let stored = state.load().await?.and_then(|value| value["settled"].as_u64());
        let (started, start) = (Instant::now(), now());
        let mut grid = Grid { started, start, period: timer.period, settled: Duration::ZERO, state };
        match stored {
            Some(settled) => {
                grid.settled = Duration::from_millis(settled);
                missed_ticks::warn_if_ahead(pipeline.route_id(), grid.settled.saturating_sub(start));
            }
            None => {
                // The first time is after the delay, and strictly after now: nothing is missed yet.
                let delay = timer.delay.max(Duration::from_millis(1));
                grid.settled = (start + delay).saturating_sub(timer.period);
                grid.settle(0).await?;
            }
        }
        Ok((grid, stored.is_none()))
    }
}
