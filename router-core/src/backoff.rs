//! [`Backoff`]: how long to leave something in peace that has failed.

use std::time::Duration;

/// Upper bound for what is asked for; larger values are errors of the server.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Pauses that double from one failure to the next, with jitter, so that many that failed at once do not come back at
/// once.
///
/// ```
/// use std::time::Duration;
/// use router_core::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// let first = backoff.next(None);
/// assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
/// // A server that asks for more gets it.
/// assert!(backoff.next(Some(Duration::from_secs(90))) >= Duration::from_secs(90));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
    steady: bool,
}

impl Backoff {
    /// Pauses from about `shortest` to `longest`.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0, steady: false }
    }

    /// The same without jitter, for what is spread elsewhere.
    #[must_use]
    pub fn steady(mut self) -> Self {
        self.steady = true;
        self
    }

    /// All is well: the next pause is a short one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after one more failure, between half and all of what has doubled. It is not shorter than what was
    /// `asked_for`, as by the header `Retry-After`, up to a day.
    pub fn next(&mut self, asked_for: Option<Duration>) -> Duration {
        let pause = if self.steady { doubled } else { pause }(self.shortest, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        // A little more than was asked for: all clients were asked for the same.
        let asked_for = asked_for.unwrap_or_default().min(LONGEST_ASKED_FOR);
        let asked_for = asked_for + pause.min(asked_for / 10);
        pause.max(asked_for)
    }
}

/// A pause after so many `failures` before this one. Never shorter than half, or the jitter would defeat the purpose.
#[must_use]
pub fn pause(shortest: Duration, longest: Duration, failures: u32) -> Duration {
    doubled(shortest, longest, failures).mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn doubled(shortest: Duration, longest: Duration, failures: u32) -> Duration {
    shortest.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_not_shorter_than_asked_for() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60));
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = backoff.next(None);
            assert!(pause >= seconds(expected) / 2 && pause <= seconds(expected), "{expected}: {pause:?}");
        }
        let mut steady = Backoff::new(seconds(1), seconds(60)).steady();
        assert_eq!([1; 3].map(|_| steady.next(None).as_secs()), [1, 2, 4]);
        backoff.reset();
        let pause = backoff.next(Some(seconds(100)));
        assert!(pause >= seconds(100) && pause <= seconds(110), "{pause:?}");
        assert_eq!(backoff.failures(), 1);
        let pause = backoff.next(Some(Duration::MAX));
        assert!(pause >= LONGEST_ASKED_FOR && pause <= LONGEST_ASKED_FOR + seconds(2), "{pause:?}");
    }
}
