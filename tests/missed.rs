//! The promise: what passes while a process is suspended is missed, and fires by the policy `missed` and no other way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("routes.toml"), routes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder.path()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command.args(["run", "--set", "log.format=human", "--set", "admin.listen=off"]);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let id = Pid::from_child(&child.0);
    let lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut fired = BTreeMap::<String, Vec<(u64, bool)>>::new();
    let (mut stopped, mut went_on) = (None, 0);
    for line in lines {
        let mut words = line.split(' ').skip(2);
        let (Some(route), Some(time), Some(missed)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Ok(time), Ok(missed)) = (time.parse::<u64>(), missed.parse::<bool>()) else { continue };
        fired.entry(route.trim_end_matches(':').to_owned()).or_default().push((time, missed));
        if stopped.is_none() && fired.len() == 6 {
            kill_process(id, Signal::STOP).unwrap();
            stopped = Some(now());
            #[expect(clippy::disallowed_methods, reason = "the time that passes is what is tested")]
            std::thread::sleep(Duration::from_millis(3_500));
            went_on = now();
            kill_process(id, Signal::CONT).unwrap();
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
