//! `cron:name`: an exchange at the times of a cron schedule.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `schedule` | text |  | required: five fields from minutes to days of the week, or six with seconds in front, or seven with years behind; `+` is a space |
//! | `time_zone` | text | `UTC` | the IANA name of the time zone in which the schedule is read |
//!
//! For example `cron:nightly?schedule=30+2+*+*+*&time_zone=Europe/Paris`. The fields take `*`, `?`, lists,
//! ranges, steps (`0/5` as well as `*/5`), `L`, `W`, `#`, and names of months and days. Days of the week
//! are numbered as in Unix, Sunday is 0 and 7; names cannot be mistaken. A schedule that names both a day
//! of the month and a day of the week means either. The default zone is not that of the system, so that
//! all replicas agree.
//!
//! When clocks go forward, a time that does not exist that day is made up for right after the gap. When
//! they go back, a fixed time that exists twice fires once, at its first occurrence, and steps go on.
//!
//! The next exchange never starts before the last one is finished. Times that pass meanwhile are skipped,
//! with a line in the log. So are times noticed more than a minute late, because the process was suspended
//! or the clock was set forward, and times at which no member led. A clock that is set back fires nothing
//! twice.
//!
//! Each exchange has an empty body and the headers `cron.name`, `cron.scheduled_time` (when it was due)
//! and `cron.fired_time`, both in milliseconds since 1970-01-01 UTC.
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

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Consumer, Endpoint};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, OptionDescription, OptionKind};
use router_core::pipeline::Pipeline;
use router_core::stop::Stop;
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tracing::{info, warn};

#[cfg(feature = "tokio-cron-scheduler")]
pub use clock::SchedulerClock;
pub use clock::{Clock, SystemClock};
pub use schedule::Schedule;

/// The component.
#[derive(Clone)]
pub struct CronComponent {
    clock: Arc<dyn Clock>,
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
    consumes: true,
    produces: false,
    options: &[
        OptionDescription {
            name: "schedule",
            kind: OptionKind::Text,
            default: None,
            summary: "required: five fields from minutes to days of the week, or six with seconds in front, \
                      or seven with years behind; `+` is a space",
        },
        OptionDescription {
            name: "time_zone",
            kind: OptionKind::Text,
            default: Some("UTC"),
            summary: "the IANA name of the time zone in which the schedule is read",
        },
    ],
};

impl Component for CronComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let options = DESCRIPTION.read(uri)?;
        let name = uri.required_path("a cron endpoint needs a name: `cron:nightly`")?;
        let schedule = options.text("schedule").ok_or_else(|| {
            uri.error_in_whole("option `schedule` is required")
                .help("for example `cron:nightly?schedule=30+2+*+*+*`")
        })?;
        let time_zone = options.text("time_zone").unwrap_or_default();
        let schedule =
            Schedule::parse(&schedule, &time_zone).map_err(|problem| uri.error_in_whole(problem))?;
        let clock = Arc::clone(&self.clock);
        Ok(Box::new(Cron { name, schedule: Arc::new(schedule), clock }))
    }
}

#[derive(Clone)]
struct Cron {
    name: SmolStr,
    schedule: Arc<Schedule>,
    clock: Arc<dyn Clock>,
}

impl Endpoint for Cron {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }
}

/// How late a time may be noticed and still count, as in Quartz.
const LATE: Duration = Duration::from_secs(60);

/// How long a wait goes on without a look at the wall clock, which may be set at any time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[async_trait]
impl Consumer for Cron {
    async fn run(self: Box<Self>, pipeline: Pipeline, stop: Stop) -> Result<(), BoxError> {
        let route = pipeline.route_id();
        // Up to here all times are settled: fired, or skipped by policy. A stored position belongs here.
        let mut settled = self.clock.now();
        while let Some(due) = self.schedule.next_after(settled) {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = self.wait_until(due) => {}
            }
            let fired = self.clock.now();
            settled = due;
            if fired.duration_since(due).is_ok_and(|late| late > LATE) {
                let skipped = self.settle_missed(&mut settled, fired) + 1;
                warn!(
                    route,
                    "route `{route}` skips {skipped} times of its schedule: they were noticed too late"
                );
                continue;
            }
            // The pipeline has logged a failure; the next time is a new chance.
            let _ = pipeline.process(&mut self.exchange(due, fired)).await;
            let now = self.clock.now();
            let skipped = self.settle_missed(&mut settled, now);
            if skipped > 0 {
                info!(route, "route `{route}` skips {skipped} times that passed while it worked");
            }
        }
        // The schedule names years, and all of them are over.
        Ok(())
    }
}

impl Cron {
    async fn wait_until(&self, due: SystemTime) {
        while let Ok(left) = due.duration_since(self.clock.now())
            && !left.is_zero()
        {
            self.clock.sleep(left.min(LONGEST_WAIT)).await;
        }
    }

    /// Settles the times up to `now`; returns how many there were, counting no further than a thousand.
    fn settle_missed(&self, settled: &mut SystemTime, now: SystemTime) -> usize {
        let missed = self.schedule.due_between(*settled, now).take(1000).count();
        // Never back: a clock that was set back would fire again what it has fired.
        *settled = now.max(*settled);
        missed
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
