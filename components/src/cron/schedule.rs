//! [`Schedule`]: a cron pattern in a time zone.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::missed_ticks::Missed;

/// The times of a cron pattern, read in a time zone.
#[derive(Debug)]
pub struct Schedule {
    pattern: Cron,
    zone: TimeZone,
    /// It names times of the day, instead of steps from one to the next.
    fixed: bool,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);
/// How many missed times are counted one by one.
const COUNTED: u64 = 100_000;

/// What was missed.
#[derive(Default)]
pub(super) struct Overdue {
    pub(super) count: u64,
    pub(super) fires: Vec<SystemTime>,
    pub(super) last: Option<SystemTime>,
}

impl Schedule {
    /// Reads a pattern of five, six or seven fields, and the IANA name of a time zone.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn parse(pattern: &str, time_zone: &str) -> Result<Self, String> {
        let zone = self::time_zone(time_zone)?;
        if let Some(item) = step_too_long(pattern) {
            return Err(format!("`{pattern}` has the step `{item}`, which is longer than its range"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).sloppy_ranges(true).build();
        let parsed = parser.parse(&without_wrapped_ranges(pattern));
        let fixed = names_times(pattern);
        match parsed {
            Ok(parsed) if !has_empty_item(pattern) => Ok(Self { pattern: parsed, zone, fixed }),
            _ => Err(format!("`{pattern}` is no cron schedule: {}", what_is_wrong(pattern, &parser))),
        }
    }

    /// The first time after `time`, `None` when there is none any more.
    #[must_use]
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        let mut after = Timestamp::try_from(time).ok()?.to_zoned(self.zone.clone());
        if !self.fixed {
            return self.pattern.find_next_occurrence(&after, false).ok().map(SystemTime::from);
        }
        // On a clock that never changes, each time is there once. The order of times is the same in the zone.
        after = after.datetime().to_zoned(TimeZone::UTC).ok()?;
        loop {
            after = self.pattern.find_next_occurrence(&after, false).ok()?;
            let due = SystemTime::from(self.first(after.datetime())?);
            // Where clocks have gone back, the first of two is over already.
            if due > time {
                return Some(due);
            }
        }
    }

    /// When the clocks of the zone first show this time, or, where they leave it out, go forward.
    fn first(&self, local: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        let gap = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let time = ambiguous.compatible().ok()?;
        match gap {
            false => Some(time),
            // The beginning of the gap is such a time too.
            true => Some(self.zone.preceding(time.checked_add(NANOSECOND).ok()?).next()?.timestamp()),
        }
    }

    /// What became due after `last`, up to and including `now`, and which of it fires.
    pub(super) fn overdue(&self, last: SystemTime, now: SystemTime, policy: Missed) -> Overdue {
        let mut overdue = Overdue::default();
        let mut times = VecDeque::new();
        let mut due = self.next_after(last);
        while let Some(time) = due.filter(|time| *time <= now) {
            overdue.count += 1;
            overdue.last = Some(time);
            times.push_back(time);
            if times.len() as u64 > policy.fires(u64::MAX) {
                times.pop_front();
            }
            // No day has more than 86,400 times. Whoever missed more is not kept waiting for the exact
            // count, and gets the latest ones.
            let recent = now.checked_sub(DAY).filter(|_| overdue.count == COUNTED);
            due = self.next_after(recent.map_or(time, |recent| recent.max(time)));
        }
        overdue.fires = times.into();
        overdue
    }
}

/// The time zone of an IANA name, or that there is none.
pub(super) fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        // Needs no database.
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name)
            .map_err(|_| format!("there is no time zone `{name}` in the time zone database of this system")),
    }
}

/// What is wrong with a pattern that is none: in plain words, which those of the parser are not.
fn what_is_wrong(pattern: &str, parser: &CronParser) -> String {
    const NAMES: [&str; 7] = [
        "second, 0 to 59",
        "minute, 0 to 59",
        "hour, 0 to 23",
        "day of the month, 1 to 31 or L",
        "month, 1 to 12 or JAN to DEC",
        "day of the week, 0 to 7 or SUN to SAT",
        "year",
    ];
    let fields = pattern.split_whitespace().collect::<Vec<_>>();
    if !(5..=7).contains(&fields.len()) {
        return format!(
            "it has {} fields, and takes five, from minutes to days of the week, or six with seconds in front, or seven with years behind",
            fields.len()
        );
    }
    let seconds = usize::from(fields.len() == 5);
    for (index, field) in fields.iter().enumerate() {
        let mut alone = vec!["*"; fields.len()];
        alone[index] = field;
        let alone = alone.join(" ");
        if has_empty_item(field) || parser.parse(&without_wrapped_ranges(&alone)).is_err() {
            return format!("`{field}` is no {}", NAMES[index + seconds]);
        }
    }
    "its fields do not go together".into()
}

/// The parser leaves out what is missing in `1,,2`.
fn has_empty_item(pattern: &str) -> bool {
    pattern.split_whitespace().any(|field| field.split(',').any(str::is_empty))
}

/// The least value of a field, the greatest one, and their names.
type Bounds = (u32, u32, &'static [&'static str]);

/// The fields of a pattern, with their bounds, which the year has not.
fn fields(pattern: &str) -> impl Iterator<Item = (&str, Option<Bounds>)> {
    const FIELDS: [Bounds; 6] = [
        (0, 59, &[]),
        (0, 59, &[]),
        (0, 23, &[]),
        (1, 31, &[]),
        (1, 12, &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
        (0, 6, &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]),
    ];
    let seconds = usize::from(pattern.split_whitespace().count() == 5);
    let fields = pattern.split_whitespace().enumerate();
    fields.map(move |(index, field)| (field, FIELDS.get(index + seconds).copied()))
}

/// Writes ranges that go past the end of their field, which the parser does not know (`FRI-MON`, `22-4/2`), as lists.
fn without_wrapped_ranges(pattern: &str) -> String {
    let written = fields(pattern).map(|(field, bounds)| match bounds {
        Some(bounds) => field.split(',').map(|item| unwrapped(item, bounds)).collect::<Vec<_>>().join(","),
        None => field.to_owned(),
    });
    written.collect::<Vec<_>>().join(" ")
}

/// An item whose step leads out of its range at once: `*/70` of minutes would fire each hour.
fn step_too_long(pattern: &str) -> Option<&str> {
    let too_long = |item: &str, bounds: Bounds| {
        let (range, step) = item.split_once('/')?;
        let step = step.parse::<u32>().ok()?;
        let all = bounds.1 - bounds.0 + 1;
        let values = match ends(range, bounds) {
            Some((first, last)) if first <= last => last - first + 1,
            Some((first, last)) => all - (first - last) + 1,
            None => all,
        };
        (step > values).then_some(())
    };
    fields(pattern).find_map(|(field, bounds)| {
        let bounds = bounds?;
        field.split(',').find(|item| too_long(item, bounds).is_some())
    })
}

/// The ends of a range, as numbers.
fn ends(range: &str, (least, most, names): Bounds) -> Option<(u32, u32)> {
    let value = |text: &str| match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(index) => u32::try_from(index).ok().map(|index| index + least),
        None => text.parse().ok().filter(|value| (least..=most).contains(value)),
    };
    range.split_once('-').and_then(|(first, last)| Some((value(first)?, value(last)?)))
}

/// One item of a field, as a list where it is a range from a larger value to a smaller one.
fn unwrapped(item: &str, bounds: Bounds) -> String {
    let (least, most, _) = bounds;
    let (range, step) =
        item.split_once('/').map_or((item, Some(1)), |(range, step)| (range, step.parse().ok()));
    match (ends(range, bounds), step) {
        (Some((first, last)), Some(step @ 1..)) if first > last => {
            let all = (first..=most).chain(least..=last);
            all.step_by(step).map(|value| value.to_string()).collect::<Vec<_>>().join(",")
        }
        _ => item.to_owned(),
    }
}

/// Whether a pattern has numbers alone for the hours, minutes and seconds: `0 2,14 * * *`.
fn names_times(pattern: &str) -> bool {
    let fields = pattern.split_whitespace().collect::<Vec<_>>();
    let of_the_day = if fields.len() > 5 { 3 } else { 2 };
    fields.len() >= 5 && !fields.iter().take(of_the_day).any(|field| field.contains(['*', '?', '/']))
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
        let times = schedule.overdue(time(last), time(now), Missed::All { max: 100 }).fires;
        times.into_iter().map(|time| Timestamp::try_from(time).unwrap().to_string()).collect()
    }

    #[test]
    fn due_times_are_after_the_last_and_up_to_now() {
        let due = due("*/10 * * * *", "UTC", "2026-01-01T00:10:00Z", "2026-01-01T00:30:00Z");
        assert_eq!(due, ["2026-01-01T00:20:00Z", "2026-01-01T00:30:00Z"]);
    }

    #[test]
    fn of_too_many_missed_times_the_latest_fire() {
        let schedule = Schedule::parse("* * * * * *", "UTC").unwrap();
        let (last, now) = (time("2026-01-01T00:00:00Z"), time("2026-02-01T00:00:00Z"));
        let overdue = schedule.overdue(last, now, Missed::All { max: 2 });
        assert_eq!(overdue.fires, [now - Duration::from_secs(1), now]);
        assert_eq!(schedule.overdue(last, now, Missed::Once).fires, [now]);
        let none = schedule.overdue(last, now, Missed::Skip);
        assert!(none.fires.is_empty() && none.last == Some(now) && none.count > 100_000);
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
    fn a_range_may_go_past_the_end_of_its_field() {
        // 2026-01-01 is a Thursday.
        let week = due("0 12 * * FRI-MON", "UTC", "2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z");
        let expected =
            ["2026-01-02T12:00:00Z", "2026-01-03T12:00:00Z", "2026-01-04T12:00:00Z", "2026-01-05T12:00:00Z"];
        assert_eq!(week, expected);
        let night = due("0 0 22-4/2 * * *", "UTC", "2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z");
        let expected =
            ["2026-01-01T22:00:00Z", "2026-01-02T00:00:00Z", "2026-01-02T02:00:00Z", "2026-01-02T04:00:00Z"];
        assert_eq!(night, expected);
        let winter = due("0 0 1 oct-feb *", "UTC", "2026-02-01T00:00:00Z", "2027-03-01T00:00:00Z");
        assert_eq!(winter.len(), 5);
        assert!(Schedule::parse("0 12 * * FRO-MON", "UTC").is_err());
        assert!(Schedule::parse("70-10 * * * *", "UTC").is_err());
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
    fn each_time_of_a_list_fires_once_a_day_when_clocks_change() {
        let spring =
            |pattern: &str| due(pattern, "Europe/Paris", "2026-03-29T00:00:00Z", "2026-03-29T10:00:00Z");
        let autumn =
            |pattern: &str| due(pattern, "Europe/Paris", "2026-10-24T23:00:00Z", "2026-10-25T10:00:00Z");
        assert_eq!(spring("0 2,9 * * *"), ["2026-03-29T01:00:00Z", "2026-03-29T07:00:00Z"]);
        assert_eq!(autumn("0 2,9 * * *"), ["2026-10-25T00:00:00Z", "2026-10-25T08:00:00Z"]);
        // What two times are made up for by is the same.
        assert_eq!(
            spring("15,45 2-3 * * *"),
            ["2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:45:00Z"]
        );
        assert_eq!(autumn("15,45 2 * * *"), ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"]);
        // Steps follow the clock.
        assert!(spring("*/30 2 * * *").is_empty());
        assert_eq!(autumn("*/30 2 * * *").len(), 4);
        // In Samoa there was no 30th: a whole day is made up for by one time.
        let samoa = due("30 2,9 * * *", "Pacific/Apia", "2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z");
        assert_eq!(samoa, ["2011-12-30T10:00:00Z", "2011-12-30T12:30:00Z", "2011-12-30T19:30:00Z"]);
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
    fn errors_are_named() {
        assert!(Schedule::parse("61 * * * *", "UTC").unwrap_err().contains("`61` is no minute, 0 to 59"));
        assert!(Schedule::parse("* *", "UTC").is_err());
        assert!(Schedule::parse("* * * * *", "Mars/Olympus").unwrap_err().contains("`Mars/Olympus`"));
        let over = Schedule::parse("0 0 0 1 1 * 2020", "UTC").unwrap();
        assert_eq!(over.next_after(time("2026-01-01T00:00:00Z")), None);
    }
}
