//! [`Schedule`]: a cron pattern in a time zone.

use std::time::SystemTime;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The times of a cron pattern, read in a time zone.
#[derive(Debug)]
pub struct Schedule {
    pattern: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a pattern of five, six or seven fields, and the IANA name of a time zone.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn parse(pattern: &str, time_zone: &str) -> Result<Self, String> {
        let zone = match time_zone {
            // Needs no database.
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| {
                format!("there is no time zone `{name}` in the time zone database of this system")
            })?,
        };
        let parser = CronParser::builder().seconds(Seconds::Optional).sloppy_ranges(true).build();
        let parsed = parser.parse(pattern);
        let pattern = parsed.map_err(|error| format!("`{pattern}` is no cron schedule: {error}"))?;
        Ok(Self { pattern, zone })
    }

    /// The first time after `time`, `None` when there is none any more.
    #[must_use]
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        self.pattern.find_next_occurrence(&self.zoned(time)?, false).ok().map(SystemTime::from)
    }

    /// The times after `last`, up to and including `now`, oldest first: what became due since `last` was
    /// settled.
    pub fn due_between(&self, last: SystemTime, now: SystemTime) -> impl Iterator<Item = SystemTime> {
        std::iter::successors(self.next_after(last), |time| self.next_after(*time))
            .take_while(move |time| *time <= now)
    }

    fn zoned(&self, time: SystemTime) -> Option<Zoned> {
        Some(Timestamp::try_from(time).ok()?.to_zoned(self.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    /// What is due from one time in UTC to another.
    fn due(pattern: &str, zone: &str, last: &str, now: &str) -> Vec<String> {
        let schedule = Schedule::parse(pattern, zone).unwrap();
        let times = schedule.due_between(time(last), time(now));
        times.map(|time| Timestamp::try_from(time).unwrap().to_string()).collect()
    }

    #[test]
    fn due_times_are_after_the_last_and_up_to_now() {
        let due = due("*/10 * * * *", "UTC", "2026-01-01T00:10:00Z", "2026-01-01T00:30:00Z");
        assert_eq!(due, ["2026-01-01T00:20:00Z", "2026-01-01T00:30:00Z"]);
    }

    #[test]
    fn seconds_are_optional_and_quartz_forms_are_read() {
        let from = ("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z");
        let expected = ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"];
        for pattern in ["0/5 * * * *", "0 0/5 * * * ?", "0 */5 * * * *"] {
            assert_eq!(due(pattern, "UTC", from.0, from.1), expected, "{pattern}");
        }
        assert_eq!(due("*/30 0 0 1 1 *", "UTC", from.0, from.1), ["2026-01-01T00:00:30Z"]);
        let sundays = due("0 12 * * 7", "UTC", "2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z");
        assert_eq!(sundays, ["2026-01-04T12:00:00Z"]);
    }

    #[test]
    fn a_time_in_the_gap_of_spring_is_made_up_for_once() {
        // In Paris, 02:00 becomes 03:00 on 2026-03-29 at 01:00 UTC.
        let due = due("30 2 * * *", "Europe/Paris", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(due, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    }

    #[test]
    fn a_time_in_the_overlap_of_autumn_fires_once_and_steps_go_on() {
        // In Paris, 03:00 becomes 02:00 on 2026-10-25 at 01:00 UTC.
        let once = due("30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(once, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let steps = due("*/30 * * * *", "Europe/Paris", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
        let expected =
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_daily_time_follows_the_zone_through_the_year() {
        let paris = |day: &str| {
            due("0 9 * * *", "Europe/Paris", &format!("{day}T00:00:00Z"), &format!("{day}T23:00:00Z"))
        };
        assert_eq!(paris("2026-01-15"), ["2026-01-15T08:00:00Z"]);
        assert_eq!(paris("2026-07-15"), ["2026-07-15T07:00:00Z"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            Schedule::parse("61 * * * *", "UTC").unwrap_err().contains("`61 * * * *` is no cron schedule")
        );
        assert!(Schedule::parse("* *", "UTC").is_err());
        assert!(Schedule::parse("* * * * *", "Mars/Olympus").unwrap_err().contains("`Mars/Olympus`"));
        let over = Schedule::parse("0 0 0 1 1 * 2020", "UTC").unwrap();
        assert_eq!(over.next_after(time("2026-01-01T00:00:00Z")), None);
    }
}
