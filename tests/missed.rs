//! The promise: what passes while a process is suspended is missed, and fires by the policy `missed` and no other way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;

use program::{Process, folder};

#[expect(clippy::disallowed_methods, reason = "for people and grids, the wall clock is what is meant")]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A line `time missed` for each exchange.
fn routes() -> String {
    let mut text = String::new();
    for policy in ["skip", "once", "all"] {
        for (scheme, times) in
            [("timer", "delay=0&period=1s&fixed_rate=true"), ("cron", "schedule=*+*+*+*+*+*")]
        {
            text += &format!(
                "[[route]]\nid = '{scheme}-{policy}'\nfrom = '{scheme}:t?{times}&missed={policy}&state={scheme}-{policy}'\n\
                 steps = [{{ log = '${{header.{scheme}.scheduled_time}} ${{header.{scheme}.missed}}' }}]\n"
            );
        }
    }
    text
}

#[test]
fn what_passed_while_the_process_was_stopped_fires_by_policy() {
    let folder = folder(&[("routes.toml", &routes())]);
    let mut process = Process::run(folder.path(), &["--set", "admin.listen=off"]);
    let mut fired = BTreeMap::<String, Vec<(u64, bool)>>::new();
    let (mut stopped, mut went_on) = (None, 0);
    while let Some(line) = process.line() {
        let mut words = line.split(' ').skip(2);
        let (Some(route), Some(time), Some(missed)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Ok(time), Ok(missed)) = (time.parse::<u64>(), missed.parse::<bool>()) else { continue };
        fired.entry(route.trim_end_matches(':').to_owned()).or_default().push((time, missed));
        if stopped.is_none() && fired.len() == 6 {
            process.signal(Signal::STOP);
            stopped = Some(now());
            #[expect(clippy::disallowed_methods, reason = "the time that passes is what is tested")]
            std::thread::sleep(Duration::from_millis(3_500));
            went_on = now();
            process.signal(Signal::CONT);
        }
        if stopped.is_some()
            && fired.values().all(|times| times.iter().any(|(time, _)| *time > went_on + 1_000))
        {
            break;
        }
    }
    let stopped = stopped.unwrap();
    for (route, times) in &fired {
        // The edges may fall on either side: the signals take their time.
        let within = times.iter().filter(|(time, _)| (stopped + 200..went_on - 200).contains(time));
        let within = within.collect::<Vec<_>>();
        let expected = match route.rsplit('-').next().unwrap() {
            "skip" => 0..=0,
            "once" => 0..=1,
            _ => 2..=4,
        };
        assert!(expected.contains(&within.len()), "{route}: {within:?} of {times:?}");
        assert!(within.iter().all(|(_, missed)| *missed), "{route}: {times:?}");
        let made_up_for = times.iter().filter(|(_, missed)| *missed).count();
        assert!(route.ends_with("all") || made_up_for <= 1, "{route}: {times:?}");
        assert!(route.ends_with("skip") || made_up_for >= 1, "{route}: {times:?}");
    }
}
