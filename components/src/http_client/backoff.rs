//! [`Backoff`]: how long to leave a server in peace that does not respond as it should.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Upper bound for `Retry-After`; larger values are errors of the server.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Pauses that double from one failure to the next, with jitter, so that many clients that failed at once
/// do not come back at once.
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses from about `shortest` to `longest`.
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0 }
    }

    /// All is well: the next pause is a short one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after one more failure: not shorter than what the server asked for, up to a day.
    pub(crate) fn next(&mut self, asked_for: Option<Duration>) -> Duration {
        let doubled = self.shortest.saturating_mul(2_u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        // Never shorter than half, or the jitter would defeat the purpose.
        let jittered = doubled.min(self.longest).mul_f64(0.5 + fastrand::f64() / 2.0);
        // A little more than was asked for: all clients were asked for the same.
        let asked_for = asked_for.unwrap_or_default().min(LONGEST_ASKED_FOR);
        let asked_for = asked_for + jittered.min(asked_for / 10);
        jittered.max(asked_for)
    }
}

/// What the header `Retry-After` asks for: a number of seconds, or a time.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().map(Duration::from_secs).ok();
    let until = || Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default());
    seconds.or_else(until)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server names a time on this clock; no authority rests on it"
)]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
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
        backoff.reset();
        let pause = backoff.next(Some(seconds(100)));
        assert!(pause >= seconds(100) && pause <= seconds(110), "{pause:?}");
        assert_eq!(backoff.failures(), 1);
        let pause = backoff.next(Some(Duration::MAX));
        assert!(pause >= LONGEST_ASKED_FOR && pause <= LONGEST_ASKED_FOR + seconds(2), "{pause:?}");
    }

    #[test]
    fn a_server_asks_for_seconds_or_names_a_time() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:00 GMT"), Some(23));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(asked("99999999999"), Some(99_999_999_999));
        assert_eq!(asked("soon"), None);
    }
}
