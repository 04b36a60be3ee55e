//! The clocks of one machine: how its readings follow true time, and how far they may stray.

use std::time::Duration;

use cluster_lease::Clocks;

/// True time of the simulation, in nanoseconds since its start.
pub type Time = u64;

/// A stretch of true time with constant rates.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// When it begins.
    pub from: Time,
    /// Nanoseconds of hardware clock per nanosecond of true time.
    pub rate: f64,
    /// What the time daemon makes of the hardware's rate for MONOTONIC and BOOTTIME.
    pub slew: f64,
    /// The host is suspended: the hardware clock stands still, and only BOOTTIME will know.
    pub suspended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    stretch: Stretch,
    raw: f64,
    monotonic: f64,
    asleep: f64,
}

/// All readings of one machine over one schedule.
#[derive(Clone, Debug)]
pub struct MachineClock {
    offset: u64,
    segments: Vec<Segment>,
    /// The tempting way to compose the two clocks: the larger and the smaller of two totals.
    totals: bool,
}

impl MachineClock {
    /// Readings start at `offset`; the stretches are in order and the first begins at zero.
    pub fn new(offset: u64, stretches: &[Stretch], totals: bool) -> Self {
        let mut segments: Vec<Segment> = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let (raw, monotonic, asleep) =
                segments.last().map_or((0.0, 0.0, 0.0), |before| before.readings(stretch.from));
            segments.push(Segment { stretch: *stretch, raw, monotonic, asleep });
        }
        Self { offset, segments, totals }
    }

    /// When the rates change.
    pub fn changes(&self) -> impl Iterator<Item = Time> + '_ {
        self.segments.iter().map(|segment| segment.stretch.from)
    }

    fn segment(&self, now: Time) -> &Segment {
        let index = self.segments.partition_point(|segment| segment.stretch.from <= now);
        &self.segments[index.max(1) - 1]
    }

    /// The readings at a moment of true time.
    pub fn read(&self, now: Time) -> Clocks {
        let (raw, monotonic, asleep) = self.segment(now).readings(now);
        let (leader, standby) = if self.totals {
            let boottime = monotonic + asleep;
            (raw.max(boottime), raw.min(boottime))
        } else {
            (raw + asleep, raw)
        };
        let at = |elapsed: f64| Duration::from_nanos(self.offset + elapsed as u64);
        Clocks { leader: at(leader), standby: at(standby) }
    }

    /// The first moment from `now` on at which the leader's clock reads at least `target`, as far as the
    /// present rates tell.
    pub fn when(&self, now: Time, target: Duration) -> Time {
        let missing = target.saturating_sub(self.read(now).leader);
        if missing.is_zero() {
            return now;
        }
        let stretch = &self.segment(now).stretch;
        let rate = match (stretch.suspended, self.totals) {
            (true, _) => 1.0,
            (false, true) => stretch.rate * stretch.slew.max(1.0),
            (false, false) => stretch.rate,
        };
        now + (missing.as_nanos() as f64 / rate) as u64 + 1
    }
}

impl Segment {
    fn readings(&self, now: Time) -> (f64, f64, f64) {
        let elapsed = now.saturating_sub(self.stretch.from) as f64;
        if self.stretch.suspended {
            return (self.raw, self.monotonic, self.asleep + elapsed);
        }
        let raw = elapsed * self.stretch.rate;
        (self.raw + raw, self.monotonic + raw * self.stretch.slew, self.asleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stretch(from: u64, slew: f64, suspended: bool) -> Stretch {
        Stretch { from: from * SECOND, rate: 1.0, slew, suspended }
    }

    #[test]
    fn the_larger_of_two_totals_runs_slow_after_a_suspension() {
        let stretches = [stretch(0, 1.0, false), stretch(10, 1.0, true), stretch(20, 0.92, false)];
        let elapsed = |totals| {
            let clock = MachineClock::new(7, &stretches, totals);
            clock.read(40 * SECOND).leader - clock.read(30 * SECOND).leader
        };
        assert_eq!(elapsed(false), Duration::from_secs(10));
        assert_eq!(elapsed(true), Duration::from_millis(9_200));
    }

    #[test]
    fn the_moment_of_a_reading_is_found() {
        let clock =
            MachineClock::new(0, &[Stretch { from: 0, rate: 0.5, slew: 1.0, suspended: false }], false);
        let at = clock.when(0, Duration::from_secs(2));
        assert!(clock.read(at).leader >= Duration::from_secs(2));
        assert!(at < 4 * SECOND + 10);
    }
}
