//! `timer:name`: an exchange at regular times.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `delay` | duration | `1s` | the time before the first exchange |
//! | `period` | duration | `1s` | the time from one exchange to the next; `0` means that there is only one |
//! | `fixed_rate` | boolean | `false` | whether the times are multiples of the period, whatever an exchange takes; without it the period counts from the last exchange's start |
//! | `repeat_count` | integer |  | how many exchanges there are; unset or `0` means no end |
//! | `missed` | skip, once, all |  | with `fixed_rate`: the times go on over restarts and failovers, and this becomes of those that were missed: none of them fires, the latest one does, or each |
//! | `missed_max` | integer | `100` | how many missed times fire with `missed=all`: the latest |
//! | `state` | text |  | a file for the position of a route without a lock; below `master:` it travels with the lock |
//!
//! The next exchange never starts before the last one is finished. Times that were missed, because an
//! exchange took long or the process was paused, are skipped and do not burst out afterwards.
//!
//! With `missed`, the times are those of the wall clock: the position, the time that fired last, is stored
//! before its exchange starts, and below `master:` it travels with the lock. Whoever leads next goes on at
//! the same multiples of the period, knows which were missed, and fires none twice. The first time is
//! counted from the first start of all; `delay` is then of no importance any more. Within one process,
//! setting the clock changes nothing.
//!
//! Each exchange has an empty body and the headers `timer.name`, `timer.counter` (from 1) and
//! `timer.fired_time` (milliseconds since 1970-01-01 UTC); with `missed` also `timer.scheduled_time`, and
//! `timer.missed`: whether it makes up for a time that was missed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Consumer, Endpoint};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, OptionDescription, OptionKind};
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::stop::Stop;
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tokio::time::{Instant, sleep_until};

use crate::missed::{self, Missed};

/// The component.
pub struct TimerComponent;

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "timer",
    summary: "an exchange at regular times",
    syntax: "timer:name",
    consumes: true,
    produces: false,
    options: &[
        OptionDescription {
            name: "delay",
            kind: OptionKind::Duration,
            default: Some("1s"),
            summary: "the time before the first exchange",
        },
        OptionDescription {
            name: "period",
            kind: OptionKind::Duration,
            default: Some("1s"),
            summary: "the time from one exchange to the next; `0` means that there is only one",
        },
        OptionDescription {
            name: "fixed_rate",
            kind: OptionKind::Boolean,
            default: Some("false"),
            summary: "whether the times are multiples of the period, whatever an exchange takes; \
                      without it the period counts from the last exchange's start",
        },
        OptionDescription {
            name: "repeat_count",
            kind: OptionKind::Integer,
            default: None,
            summary: "how many exchanges there are; unset or `0` means no end",
        },
        OptionDescription {
            name: "missed",
            kind: OptionKind::Choice(missed::WORDS),
            default: None,
            summary: "with `fixed_rate`: the times go on over restarts and failovers, and this becomes of \
                      those that were missed: none of them fires, the latest one does, or each",
        },
        missed::MAX_OPTION,
        missed::STATE_OPTION,
    ],
};

impl Component for TimerComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let options = DESCRIPTION.read(uri)?;
        let missed = Missed::read(&options);
        if missed.is_some() && (!options.boolean("fixed_rate") || options.duration("period").as_millis() == 0)
        {
            let error = uri.error_in_whole("option `missed` needs `fixed_rate=true` and a period");
            return Err(error
                .help("a period that counts from the last exchange has no times to miss")
                .into());
        }
        Ok(Box::new(Timer {
            missed,
            state: options.text("state").map(PathBuf::from),
            name: uri.required_path("a timer needs a name: `timer:clock`")?,
            delay: options.duration("delay"),
            period: options.duration("period"),
            fixed_rate: options.boolean("fixed_rate"),
            repeat_count: options.integer("repeat_count").filter(|count| *count > 0),
        }))
    }
}

#[derive(Clone)]
struct Timer {
    name: SmolStr,
    delay: Duration,
    period: Duration,
    fixed_rate: bool,
    repeat_count: Option<u64>,
    /// `None`: times that were missed are forgotten, and nothing is stored.
    missed: Option<Missed>,
    state: Option<PathBuf>,
}

impl Endpoint for Timer {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }
}

#[async_trait]
impl Consumer for Timer {
    async fn run(self: Box<Self>, pipeline: Pipeline, stop: Stop) -> Result<(), BoxError> {
        if let Some(policy) = self.missed {
            return self.run_on_grid(policy, &pipeline, &stop).await;
        }
        let mut due = Instant::now() + self.delay;
        for counter in 1.. {
            tokio::select! {
                biased;
                () = stop.requested() => break,
                () = sleep_until(due) => {}
            }
            let fired = Instant::now();
            // The pipeline has logged a failure; the next tick is a new chance.
            let _ = pipeline.process(&mut self.exchange(counter)).await;
            if self.period.is_zero() || self.repeat_count == Some(counter) {
                break;
            }
            due = if self.fixed_rate { self.next_multiple(due) } else { fired + self.period };
        }
        Ok(())
    }
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

impl Timer {
    async fn run_on_grid(&self, policy: Missed, pipeline: &Pipeline, stop: &Stop) -> Result<(), BoxError> {
        let mut grid = self.grid(pipeline).await?;
        // Missed, reported, and about to fire one after the other.
        let mut pending = 0;
        for counter in 1.. {
            let passed = grid.passed();
            if passed > pending {
                policy.report(
                    pipeline.route_id(),
                    passed - pending,
                    "when nobody led, or it was busy or paused",
                );
                pending = policy.fires(passed);
                grid.settle(passed - pending).await?;
            }
            tokio::select! {
                biased;
                () = stop.requested() => break,
                () = sleep_until(grid.next()) => {}
            }
            if let Some(term) = pipeline.term() {
                // Nothing would start any more: this time is for the next leader.
                term.admit()?;
            }
            grid.settle(1).await?;
            let mut exchange = self.exchange(counter);
            let headers = &mut exchange.message.headers;
            headers.set(const { SmolStr::new_static("timer.scheduled_time") }, milliseconds(grid.settled));
            headers.set(const { SmolStr::new_static("timer.missed") }, pending > 0);
            pending = pending.saturating_sub(1);
            // The pipeline has logged a failure; the next tick is a new chance.
            let _ = pipeline.process(&mut exchange).await;
            if self.repeat_count == Some(counter) {
                break;
            }
        }
        Ok(())
    }

    async fn grid(&self, pipeline: &Pipeline) -> Result<Grid, BoxError> {
        let state = missed::state(pipeline, self.state.as_ref());
        let stored = state.load().await?.and_then(|value| value["settled"].as_u64());
        let (started, start) = (Instant::now(), now());
        let mut grid = Grid { started, start, period: self.period, settled: Duration::ZERO, state };
        match stored {
            Some(settled) => {
                grid.settled = Duration::from_millis(settled);
                missed::warn_if_ahead(pipeline.route_id(), grid.settled.saturating_sub(start));
            }
            None => {
                // The first time is after the delay, and strictly after now: nothing is missed yet.
                let delay = self.delay.max(Duration::from_millis(1));
                grid.settled = (start + delay).saturating_sub(self.period);
                grid.settle(0).await?;
            }
        }
        Ok(grid)
    }

    fn exchange(&self, counter: u64) -> Exchange {
        let now = now();
        let mut exchange = Exchange::new(());
        let headers = &mut exchange.message.headers;
        headers.set(const { SmolStr::new_static("timer.name") }, self.name.clone());
        headers.set(const { SmolStr::new_static("timer.counter") }, counter);
        headers.set(const { SmolStr::new_static("timer.fired_time") }, milliseconds(now));
        exchange
    }

    /// The first multiple of the period after `due` that has not passed yet.
    fn next_multiple(&self, due: Instant) -> Instant {
        let missed = due.elapsed().as_nanos() / self.period.as_nanos();
        due + self.period * (u32::try_from(missed).unwrap_or(u32::MAX - 1) + 1)
    }
}

/// The wall clock, since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "times for people to read, and of a grid that processes share; no authority rests on it"
)]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fixed_rate_skips_what_was_missed_and_stays_on_the_grid() {
        let timer = Timer {
            name: "t".into(),
            delay: Duration::ZERO,
            period: Duration::from_secs(1),
            fixed_rate: true,
            repeat_count: None,
            missed: None,
            state: None,
        };
        let start = Instant::now();
        tokio::time::advance(Duration::from_millis(3_400)).await;
        assert_eq!(timer.next_multiple(start) - start, Duration::from_secs(4));
        assert_eq!(timer.next_multiple(start + Duration::from_secs(3)) - start, Duration::from_secs(4));
    }
}
