//! `cron:name`: an exchange at the times of a cron schedule.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `schedule` | text |  | required: five fields from minutes to days of the week, or six with seconds in front, or seven with years behind; `+` is a space |
//! | `time_zone` | text | `UTC` | the IANA name of the time zone in which the schedule is read |
//! | `missed` | skip, once, all | `skip` | what becomes of times that were missed: none of them fires, the latest one does, or each |
//! | `missed_max` | integer | `100` | how many missed times fire with `missed=all`: the latest |
//! | `state` | text |  | a file for the position of a route without a lock; below `master:` it travels with the lock |
//!
//! For example `cron:nightly?schedule=30+2+*+*+*&time_zone=Europe/Paris`. The fields take `*`, `?`, lists,
//! ranges (also past the end of a field: `FRI-MON`, `22-4`), steps (`0/5` as well as `*/5`), `L`, `W`, `#`, and
//! names of months and days. Days of the week are numbered as in Unix, Sunday is 0 and 7; names cannot be
//! mistaken. A schedule that names both a day of the month and a day of the week means either. One that has no time
//! to come (`0 0 30 2 *`) is an error. The default zone is not that of the system, so that all replicas agree.
//!
//! A schedule whose hours, minutes and seconds are numbers (also lists and ranges: `0 2,14 * * *`) names times
//! of the day. When clocks go forward, times that do not exist that day are made up for right after the gap,
//! by one exchange; when they go back, a time that exists twice fires once, at its first occurrence. With `*`
//! or `/` in these fields it names steps, which follow the clock: none is made up for, and they go on while the
//! clock shows the same again.
//!
//! The next exchange never starts before the last one is finished.
//!
//! # Missed times
//! A time is missed when it passes while the exchange before it still runs, when no member led or no process ran,
//! or when it is noticed too late, because the process was suspended or, for `cron`, the clock was set forward:
//! more than a minute late, or after the time that follows it (but at least 100 ms late). Then it is missed, and so are all
//! others that have passed by then, the latest one too. What becomes of missed times is the same for all of these: with
//! `skip` none of them fires, with `once` the latest one, with `all` each of them, or the latest `missed_max`. A line in the
//! log has their number, at once; while more are missed, the next lines come after pauses of up to an hour, in sum.
//!
//! The position, up to which all times are fired or skipped, is stored *before* an exchange starts. Below
//! `master:` it travels with the lock, so the next leader knows which times were missed, and **no time
//! fires twice under one lock**, also when clocks differ or are set back. The other side of that coin: an
//! exchange that was under way when its leader crashed is not repeated. A first start misses nothing, and
//! a route without a lock that has no file `state` begins anew with each process. Where the cluster service
//! keeps no state, `once` and `all` are an error, and `skip` goes by the clock alone.
//!
//! Each exchange has an empty body and the headers `cron.name`, `cron.scheduled_time` (when it was due)
//! and `cron.fired_time`, both in milliseconds since 1970-01-01 UTC, and `cron.missed`: whether it makes
//! up for a time that was missed.
//!
//! # Who computes and who waits
//! The times come from the crate `croner`. Waiting is a timer of the runtime, which is compared with the
//! wall clock at least every 30 seconds. A program that runs a `JobScheduler` of the crate
//! `tokio-cron-scheduler` can let that wait instead ([`SchedulerClock`], feature `tokio-cron-scheduler`):
//! each time is then a one-shot job of it, up to half a second late, because it looks at the clock twice a
//! second. The schedules themselves are not left to that crate: it fixes the offset of a time zone when a
//! job is made, so that daily jobs are an hour off after clocks change, and it starts a job again while
//! its last run still works.

mod clock;
mod schedule;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use router_core::cluster::Term;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, OptionKind, Options, PathKind, option, path};
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::uri::EndpointUri;
use smol_str::SmolStr;

#[cfg(feature = "tokio-cron-scheduler")]
pub use clock::SchedulerClock;
pub use clock::{Clock, SystemClock};
pub use schedule::Schedule;

use crate::lateness::is_too_late;
use crate::missed_ticks::{self, Missed, Missing};

/// The component.
#[derive(Clone)]
pub struct CronComponent {
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for CronComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CronComponent").finish_non_exhaustive()
    }
}

/// On the clock of the system.
impl Default for CronComponent {
    fn default() -> Self {
        Self::with_clock(SystemClock)
    }
}

impl CronComponent {
    /// A component on another clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self { clock: Arc::new(clock) }
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "cron",
    summary: "an exchange at the times of a cron schedule",
    syntax: "cron:name",
    path: path("name", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[
        option(
            "schedule",
            OptionKind::Text,
            None,
            "required: five fields from minutes to days of the week, or six with seconds in front, \
                      or seven with years behind; `+` is a space",
        ),
        option(
            "time_zone",
            OptionKind::Text,
            Some("UTC"),
            "the IANA name of the time zone in which the schedule is read",
        ),
        option(
            "missed",
            OptionKind::Choice(missed_ticks::WORDS),
            Some("skip"),
            "what becomes of times that were missed: none of them fires, the latest one does, or each",
        ),
        missed_ticks::MAX_OPTION,
        missed_ticks::STATE_OPTION,
    ],
};

impl Component for CronComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a cron endpoint needs a name: `cron:nightly`"));
        let schedule = errors.collect(schedule(uri, &options, self.clock.now()));
        let missed = errors.collect(Missed::read(uri, &options)).flatten();
        errors.into_result()?;
        let (Some(name), Some(schedule)) = (name, schedule) else {
            unreachable!("what is missing is an error");
        };
        Ok(Box::new(Cron {
            name,
            schedule: Arc::new(schedule),
            missed: missed.unwrap_or(Missed::Skip),
            state: options.text("state").map(PathBuf::from),
            clock: Arc::clone(&self.clock),
        }))
    }
}

/// The schedule in the options, or every error in it.
fn schedule(uri: &EndpointUri, options: &Options, now: SystemTime) -> Result<Schedule, ConfigErrors> {
    if !options.are_right(&["schedule"]) {
        // Which was said.
        return Err(ConfigErrors::default());
    }
    let pattern = options.text("schedule").ok_or_else(|| {
        uri.error_at_option("schedule", "option `schedule` is required")
            .help("for example `cron:nightly?schedule=30+2+*+*+*`")
    })?;
    let zone = options.text("time_zone").unwrap_or_default();
    let zone_error = |message| uri.error_at_option("time_zone", message);
    let mut errors = ConfigErrors::default();
    let zone_is_known = errors.collect(schedule::time_zone(&zone).map_err(zone_error)).is_some();
    // Whether a pattern can be read, and has times at all, does not depend on the zone.
    let parsed = Schedule::parse(&pattern, if zone_is_known { &zone } else { "UTC" });
    let parsed = parsed.and_then(|parsed| match parsed.next_after(now) {
        Some(_) => Ok(parsed),
        None => Err(format!("`{pattern}` never fires: no such time is to come")),
    });
    let schedule = errors.collect(parsed.map_err(|message| uri.error_at_option("schedule", message)));
    errors.into_result()?;
    schedule.ok_or_else(ConfigErrors::default)
}

#[derive(Clone)]
struct Cron {
    name: SmolStr,
    schedule: Arc<Schedule>,
    missed: Missed,
    state: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

impl Endpoint for Cron {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }

    fn keeps_state(&self, below_lock: bool) -> bool {
        below_lock || self.state.is_some()
    }
}

/// How long a wait goes on without a look at the wall clock, which may be set at any time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[async_trait]
impl Consumer for Cron {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        let mut missing = Missing::new(pipeline.route_id(), self.missed);
        let mut position = self.position(pipeline).await?;
        route.ready();
        let mut why = "when no member led, no process ran, or the last one still worked before it stopped";
        loop {
            let overdue = self.schedule.overdue(position.settled, self.clock.now(), self.missed);
            missing.note(overdue.count, why);
            for due in overdue.fires {
                if stop.is_requested() {
                    return Ok(());
                }
                self.fire(pipeline, &mut position, due, true).await?;
            }
            if let Some(last) = overdue.last {
                position.settle(last).await?;
            }
            // None: the schedule names years, and all of them are over.
            let Some(due) = self.schedule.next_after(position.settled) else { return Ok(()) };
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = self.wait_until(due) => {}
            }
            let now = self.clock.now();
            let next_has_passed = self.schedule.next_after(due).is_some_and(|next| next <= now);
            let late = now.duration_since(due).map(|late| late.saturating_sub(self.clock.lateness()));
            let on_time = late.is_ok_and(|late| !is_too_late(late, next_has_passed));
            why = "which were noticed too late";
            if on_time {
                self.fire(pipeline, &mut position, due, false).await?;
                why = "which passed while it worked";
            }
        }
    }
}

/// Up to where all times are fired or skipped.
struct Position {
    settled: SystemTime,
    /// `None`: the cluster service keeps none.
    state: Option<RouteState>,
}

impl Position {
    /// Never back: a clock that was set back would fire again what it has fired.
    async fn settle(&mut self, time: SystemTime) -> Result<(), StateError> {
        if time > self.settled {
            self.store(time).await?;
            self.settled = time;
        }
        Ok(())
    }

    async fn store(&self, time: SystemTime) -> Result<(), StateError> {
        match &self.state {
            Some(state) => state.store(&serde_json::json!({ "settled": milliseconds(time) })).await,
            None => Ok(()),
        }
    }
}

impl Cron {
    async fn position(&self, pipeline: &Pipeline) -> Result<Position, BoxError> {
        let state = pipeline.state(self.state.as_deref());
        let (state, stored) = missed_ticks::load_if_kept(state, self.missed != Missed::Skip).await?;
        let now = self.clock.now();
        let stored = stored["settled"].as_u64().map(|time| UNIX_EPOCH + Duration::from_millis(time));
        let settled = stored.unwrap_or(now);
        missed_ticks::warn_if_ahead(pipeline.route_id(), settled.duration_since(now).unwrap_or_default());
        let position = Position { settled, state };
        if stored.is_none() {
            // From here on, the next leader knows what it has missed.
            position.store(settled).await?;
        }
        Ok(position)
    }

    async fn fire(
        &self,
        pipeline: &Pipeline,
        position: &mut Position,
        due: SystemTime,
        missed: bool,
    ) -> Result<(), StateError> {
        let before = position.settled;
        position.settle(due).await?;
        if let Some(Err(lost)) = pipeline.term().map(Term::admit) {
            // The term ended meanwhile, and the exchange would not start: the time is missed, not fired.
            position.store(before).await?;
            return Err(StateError::Deposed(lost));
        }
        let mut exchange = self.exchange(due, self.clock.now());
        exchange.message.headers.set(const { SmolStr::new_static("cron.missed") }, missed);
        // The pipeline has logged a failure; the next time is a new chance.
        let _ = pipeline.process(&mut exchange).await;
        Ok(())
    }

    async fn wait_until(&self, due: SystemTime) {
        while let Ok(left) = due.duration_since(self.clock.now())
            && !left.is_zero()
        {
            self.clock.sleep(left.min(LONGEST_WAIT)).await;
        }
    }

    fn exchange(&self, due: SystemTime, fired: SystemTime) -> Exchange {
        let mut exchange = Exchange::new(());
        let headers = &mut exchange.message.headers;
        headers.set(const { SmolStr::new_static("cron.name") }, self.name.clone());
        headers.set(const { SmolStr::new_static("cron.scheduled_time") }, milliseconds(due));
        headers.set(const { SmolStr::new_static("cron.fired_time") }, milliseconds(fired));
        exchange
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
