//! With which timing members of ours and of Camel's exclude one another.

use std::time::Duration;

use cluster_lease::Settings;

use crate::settings::CamelTiming;

/// Why a timing is not safe next to members that are Camel's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CamelTimingError {
    /// This member would start while one of Camel's may still work.
    #[error(
        "the takeover wait {takeover_wait:?} is worth {waited:?} when clocks err, but a member of Camel may lead \
         for {renew_deadline:?} after its last look and is given {stop:?} to stop: raise the takeover wait to \
         at least {least:?}"
    )]
    TakeoverWait {
        /// The takeover wait x.
        takeover_wait: Duration,
        /// What it is worth.
        waited: Duration,
        /// Camel's `renewDeadlineMillis`.
        renew_deadline: Duration,
        /// What a member of Camel is given to stop.
        stop: Duration,
        /// The smallest takeover wait that would do.
        least: Duration,
    },
    /// A member of Camel would start while this one may still work.
    #[error(
        "a member of Camel that takes over waits {lease_duration:?}, which is worth {waited:?} when clocks err, but \
         this member may work for deadline {deadline:?} + stop {stop:?} = {needed:?}: lower deadline or stop"
    )]
    Deadline {
        /// Camel's `leaseDurationMillis`.
        lease_duration: Duration,
        /// What it is worth.
        waited: Duration,
        /// The deadline y.
        deadline: Duration,
        /// The time for guarded work to end.
        stop: Duration,
        /// The sum of the two.
        needed: Duration,
    },
}

/// Camel gives a member the time between its two numbers to stop. A tenth of it is for clocks.
fn stop_of(camel: &CamelTiming) -> Duration {
    camel.lease_duration.saturating_sub(camel.renew_deadline) * 9 / 10
}

impl CamelTiming {
    /// Checks both directions: each side's wait, with clocks that err, must outlast the other side's work.
    ///
    /// # Errors
    /// When `settings` are not safe next to members of Camel with this timing.
    pub fn check(&self, settings: &Settings) -> Result<(), CamelTimingError> {
        self.errors(settings).into_iter().next().map_or(Ok(()), Err)
    }

    /// Why `settings` are not safe next to members of Camel with this timing.
    pub(crate) fn errors(&self, settings: &Settings) -> Vec<CamelTimingError> {
        let mut errors = Vec::new();
        let error = f64::from(settings.rate_error_ppm()) / 1e6;
        let worth = ((1.0 - error) / (1.0 + error)).max(0.0);
        let takeover_wait = settings.takeover_wait();
        let waited = takeover_wait.mul_f64(worth);
        let (renew_deadline, stop) = (self.renew_deadline, stop_of(self));
        let needed = renew_deadline.saturating_add(stop);
        if waited < needed {
            let least = Duration::try_from_secs_f64(needed.as_secs_f64() / worth).unwrap_or(Duration::MAX);
            let least = least.saturating_add(Duration::from_millis(1));
            errors.push(CamelTimingError::TakeoverWait {
                takeover_wait,
                waited,
                renew_deadline,
                stop,
                least,
            });
        }
        let lease_duration = self.lease_duration;
        let waited = lease_duration.mul_f64(worth);
        let (deadline, stop) = (settings.deadline(), settings.stop());
        let needed = deadline.saturating_add(stop);
        if waited < needed {
            errors.push(CamelTimingError::Deadline { lease_duration, waited, deadline, stop, needed });
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_both_sides_fit() {
        assert_eq!(CamelTiming::default().check(&Settings::default()), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_sum_worked_out() {
        let text = CamelTiming::default().check(&Settings::fast()).unwrap_err().to_string();
        assert!(text.contains("takeover wait 5s is worth 4.9"), "{text}");
        assert!(text.contains("lead for 10s") && text.contains("at least 14.79"), "{text}");
        let text = CamelTiming::default().check(&Settings::relaxed()).unwrap_err().to_string();
        assert!(text.contains("waits 15s") && text.contains("deadline 48s + stop 10s = 58s"), "{text}");
        assert!(CamelTiming::default().check(&Settings::slewed_clock()).is_err());
        let seconds = Duration::from_secs;
        let first_camels = CamelTiming { lease_duration: seconds(30), renew_deadline: seconds(20) };
        assert!(first_camels.check(&Settings::default()).is_err());
        let slower = Settings::new(seconds(30), seconds(25), seconds(4), seconds(6), 10_000).unwrap();
        assert_eq!(first_camels.check(&slower), Ok(()));
    }
}
