//! `timer:name`: an exchange at regular times.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `delay` | duration | `1s` | the time before the first exchange |
//! | `period` | duration | `1s` | the time from one exchange to the next; `0` means that there is only one |
//! | `fixed_rate` | boolean | `false` | whether the times are multiples of the period, whatever an exchange takes; without it the period counts from the last exchange's start |
//! | `repeat_count` | integer |  | how many exchanges there are; unset or `0` means no end |
//! | `missed` | skip, once, all |  | with `fixed_rate`: keeps the schedule across restarts and failovers; of the missed times none fires, the latest, or each |
//! | `missed_max` | integer | `100` | how many missed times fire with `missed=all`: the latest |
//! | `state` | text |  | a file for the position of a route without a lock; below `master:` it travels with the lock |
//!
//! The next exchange never starts before the last one is finished. At a fixed rate, times that were missed do not
//! fire unless `missed` says so; without it, the timer goes on one period after the last start.
//!
//! # Missed times
//! A time is missed when it passes while the exchange before it still runs, when no member led or no process ran,
//! or when it is noticed too late, because the process was suspended or, for `cron`, the clock was set forward:
//! more than a minute late, or after the time that follows it (but at least 100 ms late). Then it is missed, and so are all
//! others that have passed by then, the latest one too. What becomes of missed times is the same for all of these: with
//! `skip` none of them fires, with `once` the latest one, with `all` each of them, or the latest `missed_max`. A line in the
//! log has their number, at once; while more are missed, the next lines come after pauses of up to an hour, in sum.
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

mod grid;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, OptionKind, PathKind, option, path};
use router_core::pipeline::Pipeline;
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tokio::time::{Instant, sleep_until};

use crate::lateness::is_too_late;
use crate::metrics::MISSED_TICKS;
use crate::missed_ticks::{self, Missed, Missing};

/// The component.
#[derive(Debug)]
pub struct TimerComponent;

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "timer",
    summary: "an exchange at regular times",
    syntax: "timer:name",
    path: path("name", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[
        option("delay", OptionKind::Duration, Some("1s"), "the time before the first exchange"),
        option(
            "period",
            OptionKind::Duration,
            Some("1s"),
            "the time from one exchange to the next; `0` means that there is only one",
        ),
        option(
            "fixed_rate",
            OptionKind::Boolean,
            Some("false"),
            "whether the times are multiples of the period, whatever an exchange takes; \
                      without it the period counts from the last exchange's start",
        ),
        option(
            "repeat_count",
            OptionKind::Integer,
            None,
            "how many exchanges there are; unset or `0` means no end",
        ),
        option(
            "missed",
            OptionKind::Choice(missed_ticks::WORDS),
            None,
            "with `fixed_rate`: keeps the schedule across restarts and failovers; of the missed times \
                      none fires, the latest, or each",
        ),
        missed_ticks::MAX_OPTION,
        missed_ticks::STATE_OPTION,
    ],
};

impl Component for TimerComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a timer needs a name: `timer:clock`"));
        let catch_up = errors.collect(grid::CatchUp::read(uri, &options)).flatten();
        errors.into_result()?;
        Ok(Box::new(Timer {
            catch_up,
            name: name.unwrap_or_default(),
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
    catch_up: Option<grid::CatchUp>,
}

impl Endpoint for Timer {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn keeps_state(&self, below_lock: bool) -> bool {
        self.catch_up.as_ref().is_some_and(|catch_up| below_lock || catch_up.has_file())
    }
}

#[async_trait]
impl Consumer for Timer {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        if let Some(catch_up) = &self.catch_up {
            // Boxed: each timer would keep the place for it.
            return Box::pin(catch_up.run(&self, &route)).await;
        }
        route.ready();
        // The metric is there from now on; what counts is made when something is missed: many timers never miss anything.
        let _ = MISSED_TICKS.counter(&[pipeline.route_id()]);
        let mut missing = None;
        let mut miss = |times: u32, why| {
            if times > 0 || missing.is_some() {
                let new = || Box::new(Missing::new(pipeline.route_id(), Missed::Skip));
                missing.get_or_insert_with(new).note(times.into(), why);
            }
        };
        let (mut due, mut counter) = (Instant::now() + self.delay, 1);
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => break,
                () = sleep_until(due) => {}
            }
            if self.fixed_rate && !self.period.is_zero() {
                let later = self.missed_since(due);
                if is_too_late(due.elapsed(), later > 0) {
                    miss(later + 1, "which were noticed too late");
                    due += self.period * (later + 1);
                    continue;
                }
            }
            let fired = Instant::now();
            // Boxed: a timer that waits keeps no room for an exchange.
            Box::pin(self.fire(pipeline, counter)).await;
            if self.period.is_zero() || self.repeat_count == Some(counter) {
                break;
            }
            counter += 1;
            due = if self.fixed_rate {
                let missed = self.missed_since(due);
                miss(missed, "which passed while it worked");
                due + self.period * (missed + 1)
            } else {
                fired + self.period
            };
        }
        Ok(())
    }
}

impl Timer {
    async fn fire(&self, pipeline: &Pipeline, counter: u64) {
        // The pipeline has logged a failure; the next tick is a new chance.
        let _ = pipeline.process(&mut self.exchange(counter)).await;
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

    /// How many multiples of the period after `due` have passed already.
    fn missed_since(&self, due: Instant) -> u32 {
        let missed = due.elapsed().as_nanos() / self.period.as_nanos();
        u32::try_from(missed).unwrap_or(u32::MAX - 1)
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
            catch_up: None,
        };
        let start = Instant::now();
        tokio::time::advance(Duration::from_millis(3_400)).await;
        assert_eq!(timer.missed_since(start), 3);
        assert_eq!(timer.missed_since(start + Duration::from_secs(3)), 0);
    }
}
