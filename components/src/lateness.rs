//! [`is_too_late`]: when a time that was waited for counts as missed. The one rule of `timer:` and `cron:`.

use std::time::Duration;

/// A time that is noticed later than this is missed, as in Quartz.
const LATE: Duration = Duration::from_secs(60);

/// So is one that is noticed after the time that follows it. But timers of a busy system wake up late, and a short
/// period must not be all missed by that.
const LATE_WAKE: Duration = Duration::from_millis(100);

/// Whether a time is noticed so `late` that it counts as missed.
pub(crate) fn is_too_late(late: Duration, next_has_passed: bool) -> bool {
    late > LATE || (next_has_passed && late > LATE_WAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_missed_after_a_minute_or_after_the_next_one() {
        let milliseconds = [99, 101, 59_999, 60_001].map(Duration::from_millis);
        assert_eq!(milliseconds.map(|late| is_too_late(late, false)), [false, false, false, true]);
        assert_eq!(milliseconds.map(|late| is_too_late(late, true)), [false, true, true, true]);
    }

    #[test]
    fn the_pages_of_timer_and_cron_say_the_same_rule() {
        let rule = |page: &'static str| {
            let (_, rest) = page.split_once("//! # Missed times\n").unwrap();
            rest.split("//!\n").next().unwrap()
        };
        let timer = rule(include_str!("timer.rs"));
        assert!(timer.starts_with("//! A time is missed when"), "{timer}");
        assert_eq!(timer, rule(include_str!("cron.rs")));
        let text = timer.replace("\n//!", "");
        assert!(text.contains("and so are all others that have passed by then"), "{text}");
    }
}
