//! The five numbers of an election, and the one inequality that makes them safe.

use std::time::Duration;

use crate::record::{Limits, MILLION, scaled_up};

/// The timing of one member. Members of a group may differ: each waits for what the others say that they live
/// by. Where no record says it any more, its own takeover wait must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    takeover_wait: Duration,
    deadline: Duration,
    stop: Duration,
    heartbeat: Duration,
    rate_error_ppm: u32,
}

/// Why a combination of timings is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A successor could start while the old leader may still work.
    #[error(
        "the takeover wait is too short: {takeover_wait:?} * (1 - {rho}) / (1 + {rho}) = {waited:?} of \
         real waiting, but the old leader may work for deadline {deadline:?} + stop {stop:?} = {needed:?}; \
         raise the takeover wait to at least {least:?} or lower deadline or stop"
    )]
    Overlap {
        /// The wait x that was asked for.
        takeover_wait: Duration,
        /// The rate error as a fraction.
        rho: f64,
        /// What the wait is worth when the two clocks err in opposite directions.
        waited: Duration,
        /// The leader's deadline y.
        deadline: Duration,
        /// The time for guarded work to end.
        stop: Duration,
        /// The sum of `deadline` and `stop`.
        needed: Duration,
        /// The smallest takeover wait that would do.
        least: Duration,
    },
    /// The leader would step down between two heartbeats.
    #[error(
        "the heartbeat period {heartbeat:?} must be more than zero and at most half of the deadline {deadline:?}"
    )]
    Heartbeat {
        /// The heartbeat period T.
        heartbeat: Duration,
        /// The leader's deadline y.
        deadline: Duration,
    },
    /// A rate error of 100 % or more is no clock.
    #[error("a clock rate error of {0} parts per million is not a clock")]
    Rate(u32),
    /// Nobody would ever take over.
    #[error("a takeover wait of {0:?} never ends; it may be a year at most")]
    Endless(Duration),
}

/// Readings of clocks can be added to anything up to this, and to what it implies for the other numbers.
pub const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

impl Settings {
    /// Checks and keeps the timing: takeover wait x, deadline y, stop, heartbeat period T and the bound
    /// rho on the clock rate error in parts per million.
    ///
    /// # Errors
    ///
    /// Refuses numbers for which `x (1 - rho) / (1 + rho) >= y + stop` does not hold, because then two
    /// members could work at once.
    pub fn new(
        takeover_wait: Duration,
        deadline: Duration,
        stop: Duration,
        heartbeat: Duration,
        rate_error_ppm: u32,
    ) -> Result<Self, SettingsError> {
        let settings = Self::unchecked(takeover_wait, deadline, stop, heartbeat, rate_error_ppm);
        settings.errors().into_iter().next().map_or(Ok(settings), Err)
    }

    /// What is wrong with numbers that were not checked.
    #[must_use]
    pub fn errors(&self) -> Vec<SettingsError> {
        let Self { takeover_wait, deadline, stop, heartbeat, rate_error_ppm } = *self;
        if u128::from(rate_error_ppm) >= MILLION {
            return vec![SettingsError::Rate(rate_error_ppm)];
        }
        let mut errors = Vec::new();
        if takeover_wait > LONGEST_WAIT {
            errors.push(SettingsError::Endless(takeover_wait));
        }
        if heartbeat.is_zero() || heartbeat > deadline / 2 {
            errors.push(SettingsError::Heartbeat { heartbeat, deadline });
        }
        let (slow, fast) = self.rates();
        let needed = deadline.saturating_add(stop);
        if takeover_wait.as_nanos() * slow < needed.as_nanos() * fast {
            errors.push(SettingsError::Overlap {
                takeover_wait,
                rho: f64::from(rate_error_ppm) / 1e6,
                waited: nanos(takeover_wait.as_nanos() * slow / fast),
                deadline,
                stop,
                needed,
                least: nanos((needed.as_nanos() * fast).div_ceil(slow)),
            });
        }
        errors
    }

    /// Takes any numbers at all: for [`errors`](Self::errors), and for the simulator, which shows what unsafe ones do.
    #[must_use]
    pub fn unchecked(
        takeover_wait: Duration,
        deadline: Duration,
        stop: Duration,
        heartbeat: Duration,
        rate_error_ppm: u32,
    ) -> Self {
        Self { takeover_wait, deadline, stop, heartbeat, rate_error_ppm }
    }

    /// Takes over after 5 s; survives an outage of the store of 2.85 s.
    pub const fn fast() -> Self {
        Self::profile(5_000, 3_800, 1_000, 950)
    }

    /// Takes over after 15 s; survives an outage of the store of 9.4 s.
    pub const fn default_profile() -> Self {
        Self::profile(15_000, 12_500, 2_000, 3_100)
    }

    /// Takes over after 60 s; survives an outage of the store of 36 s.
    pub const fn relaxed() -> Self {
        Self::profile(60_000, 48_000, 10_000, 12_000)
    }

    /// The default for a machine whose election clocks may be slewed: rho is 10 % instead of 1 %.
    pub const fn slewed_clock() -> Self {
        Self { deadline: Duration::from_secs(10), rate_error_ppm: 100_000, ..Self::default_profile() }
    }

    const fn profile(takeover_wait: u64, deadline: u64, stop: u64, heartbeat: u64) -> Self {
        Self {
            takeover_wait: Duration::from_millis(takeover_wait),
            deadline: Duration::from_millis(deadline),
            stop: Duration::from_millis(stop),
            heartbeat: Duration::from_millis(heartbeat),
            rate_error_ppm: 10_000,
        }
    }

    /// x: how long an unchanged session must have been watched before it is declared dead.
    pub fn takeover_wait(&self) -> Duration {
        self.takeover_wait
    }

    /// y: how long after sending a heartbeat its sender may lead.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How long after the deadline guarded work may take to end.
    pub fn stop(&self) -> Duration {
        self.stop
    }

    /// T: the period of the heartbeat.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// rho: the bound on the error of the clock rate, in parts per million.
    pub fn rate_error_ppm(&self) -> u32 {
        self.rate_error_ppm
    }

    /// After this time a request counts as lost. A stalled request must not use up the deadline, so it
    /// never gets more than one heartbeat period.
    pub fn attempt_timeout(&self) -> Duration {
        self.heartbeat.min(Duration::from_secs(3))
    }

    /// What the work of this member lives by, in whole milliseconds, as records have it.
    pub fn limits(&self) -> Limits {
        let (deadline, stop) = (whole_millis(self.deadline), whole_millis(self.stop));
        Limits { deadline, stop, rate_error_ppm: self.rate_error_ppm }
    }

    /// How long to wait, by the own clock, until this much true time has passed for certain; never less than
    /// the takeover wait.
    pub fn wait_for(&self, rest: Duration) -> Duration {
        self.takeover_wait.max(scaled_up(rest, MILLION + u128::from(self.rate_error_ppm), MILLION))
    }

    /// The true time that the takeover wait is worth, by a clock that is as fast as it may be.
    pub(crate) fn worth(&self) -> Duration {
        let (_, fast) = self.rates();
        nanos(self.takeover_wait.as_nanos() * MILLION / fast).max(self.limits().rest())
    }

    /// What is left, by the leader's clock, between the latest end of its work and the earliest start of a
    /// successor.
    pub(crate) fn slack(&self) -> Duration {
        let (slow, fast) = self.rates();
        let waited = nanos(self.takeover_wait.as_nanos() * slow / fast);
        waited.saturating_sub(self.deadline.saturating_add(self.stop))
    }

    /// The rates of a clock that is as slow, and as fast, as it may be.
    fn rates(&self) -> (u128, u128) {
        let error = u128::from(self.rate_error_ppm);
        (MILLION.saturating_sub(error), MILLION + error)
    }

    /// For how long a member leads on when the store stops responding: at least, and at most. Its deadline counts from
    /// when its last heartbeat was sent, which may be a moment ago or a whole period.
    #[must_use]
    pub fn leads_on(&self) -> (Duration, Duration) {
        (self.deadline - self.heartbeat, self.deadline)
    }

    /// The pause after a request that failed at once, so that a store that refuses is not hammered.
    pub fn retry_pause(&self) -> Duration {
        self.heartbeat / 8
    }

    /// How long the watch may lag behind a known write before a list is asked for instead.
    pub fn watch_patience(&self) -> Duration {
        self.heartbeat / 2
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::default_profile()
    }
}

/// Rounded up: what lasts longer than is said is not safe.
fn whole_millis(span: Duration) -> Duration {
    let millis = span.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_satisfies_the_inequality() {
        for profile in [Settings::fast(), Settings::default(), Settings::relaxed(), Settings::slewed_clock()]
        {
            let checked = Settings::new(
                profile.takeover_wait,
                profile.deadline,
                profile.stop,
                profile.heartbeat,
                profile.rate_error_ppm,
            );
            assert_eq!(checked, Ok(profile));
        }
    }

    /// Each number with the unit behind it.
    fn figures(text: &str) -> Vec<String> {
        let words = text.split_whitespace().map(|word| word.trim_matches(['(', ')', ',', ';', '.']));
        let words = words.collect::<Vec<_>>();
        let is_figure =
            |pair: &&[&str]| pair[0].parse::<f64>().is_ok() && ["s", "ms", "%"].contains(&pair[1]);
        words.windows(2).filter(is_figure).map(|pair| pair.join(" ")).collect()
    }

    #[test]
    fn every_figure_that_the_guide_promises_is_that_of_the_settings() {
        let seconds = |span: Duration| format!("{} s", span.as_secs_f64());
        let error = |profile: &Settings| format!("{} %", f64::from(profile.rate_error_ppm) / 1e4);
        let leads_on = |profile: &Settings| {
            let (least, most) = profile.leads_on();
            format!("{} to {}", seconds(least), seconds(most))
        };
        let profiles = [
            ("fast", Settings::fast()),
            ("default", Settings::default()),
            ("relaxed", Settings::relaxed()),
            ("slewed-clock", Settings::slewed_clock()),
        ];
        let row = |(name, profile): &(&str, Settings)| {
            let Settings { takeover_wait, deadline, stop, heartbeat, .. } = *profile;
            let times = [heartbeat, deadline, stop, takeover_wait].map(seconds).join(" | ");
            format!("| `{name}` | {times} | {} | {} |\n", error(profile), leads_on(profile))
        };
        let table = profiles.iter().map(row).collect::<String>();
        let page = include_str!("../../docs/src/promises.md");
        let (before, after) =
            page.split_once(&table).unwrap_or_else(|| panic!("promises.md has not\n{table}"));
        let [_, (_, default), (_, relaxed), (_, slewed)] = &profiles;
        let (stop, wait) = (seconds(default.stop), seconds(default.takeover_wait));
        let (least, most) = default.leads_on();
        let said = [error(default), error(slewed), stop, wait, seconds(least), seconds(most)];
        assert_eq!(figures(before), said, "promises.md");
        assert_eq!(figures(after), [""; 0], "promises.md");

        let page = include_str!("../../docs/src/kubernetes.md");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let example = format!("led in {:.1?}, at", default.takeover_wait);
        let takes = format!("of the profile `relaxed` takes {}", seconds(relaxed.takeover_wait));
        for said in [example, takes] {
            assert!(words(page).contains(&said), "kubernetes.md: {said}");
        }
        let said = format!("a leader stops {least:?} to {most:?} after the last response");
        assert!(words(include_str!("../../docs/src/troubleshooting.md")).contains(&said), "{said}");
    }

    #[test]
    fn an_unsafe_combination_is_refused_with_the_sum_worked_out() {
        let seconds = Duration::from_secs;
        let error = Settings::new(seconds(15), seconds(14), seconds(2), seconds(3), 10_000).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("15s * (1 - 0.01) / (1 + 0.01) = 14.702970297s"), "{text}");
        assert!(text.contains("deadline 14s + stop 2s = 16s"), "{text}");
        assert!(text.contains("at least 16.323232324s"), "{text}");
    }

    #[test]
    fn numbers_without_bounds_are_refused() {
        let (seconds, ever) = (Duration::from_secs, Duration::MAX);
        let refused = |x, y, stop, t| Settings::new(x, y, stop, t, 10_000).unwrap_err();
        let text = refused(seconds(15), ever, seconds(2), seconds(3)).to_string();
        assert!(text.contains("+ stop 2s = 18446744073709551615.999999999s"), "{text}");
        assert!(matches!(refused(seconds(15), seconds(12), ever, seconds(3)), SettingsError::Overlap { .. }));
        assert!(matches!(
            refused(seconds(15), seconds(12), seconds(2), ever),
            SettingsError::Heartbeat { .. }
        ));
        assert_eq!(refused(ever, ever, ever, ever), SettingsError::Endless(ever));
    }

    #[test]
    fn a_heartbeat_that_leaves_no_second_try_is_refused() {
        let seconds = Duration::from_secs;
        assert!(matches!(
            Settings::new(seconds(15), seconds(5), seconds(1), seconds(3), 10_000),
            Err(SettingsError::Heartbeat { .. })
        ));
        assert!(Settings::new(seconds(15), seconds(5), seconds(1), Duration::ZERO, 10_000).is_err());
    }
}
