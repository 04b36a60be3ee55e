//! The promise: a leader that is asked to stop finishes its work, then gives the lock away, and the next
//! one starts at once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::{Member, Stage, assert_exclusive};

#[test]
fn after_sigterm_the_work_in_flight_is_finished_before_the_next_leader_starts() {
    let stage = Stage::new();
    let work = Duration::from_millis(300);
    let mut members = vec![stage.member(work), stage.member(work)];
    let first = stage.wait_for_term_after(0);
    let leader = members.iter().position(|member| member.id() == first.member).unwrap();
    let leader = members.swap_remove(leader);
    leader.signal(Signal::TERM);
    let status = leader.wait();
    assert!(status.success(), "a clean drain ends with 0: {status}");
    let next = stage.wait_for_term_after(first.term);
    let records = stage.records();
    let last = records.iter().rfind(|record| record.term == first.term).unwrap();
    let end = last.end.expect("the exchange in flight was finished");
    assert!(next.start > end);
    drop(members);
    assert_exclusive(&stage.records());
}

#[test]
fn a_second_signal_aborts_what_is_in_flight() {
    let stage = Stage::new();
    let member = stage.member(Duration::from_secs(60));
    stage.wait_for_term_after(0);
    member.signal(Signal::TERM);
    // Two signals that arrive together count as one, so they are sent until the process has ended.
    let killer = rustix::process::Pid::from_raw(i32::try_from(member.id()).unwrap()).unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(member.wait()).unwrap());
    let status = loop {
        match ended.recv_timeout(Duration::from_millis(20)) {
            Ok(status) => break status,
            Err(_) => drop(rustix::process::kill_process(killer, Signal::TERM)),
        }
    };
    waiter.join().unwrap();
    assert!(!status.success(), "it was not a clean drain: {status}");
}

/// The command line, with a log in JSON.
struct Tool {
    folder: tempfile::TempDir,
    member: Member,
    log: BufReader<ChildStderr>,
}

impl Tool {
    fn run(from: &str, settings: &[&str]) -> Self {
        Self::run_beside(from, "", settings)
    }

    /// The same, beside `other` routes.
    fn run_beside(from: &str, other: &str, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let routes = format!(
            "[cluster]\nservice = 'file'\n[cluster.file]\nroot = 'locks'\n[[route]]\nid = 'slow'\nfrom = '{from}'\n\
             steps = [{{ log = 'begun' }}, {{ delay = '1h' }}]\n{other}"
        );
        std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.current_dir(folder.path()).env_clear().args(["run", "--set", "log.format=json"]);
        for setting in [&["admin.listen=off"], settings].concat() {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { folder, member: child.into(), log }
    }

    /// The next line whose message contains `wanted`.
    fn wait_for(&mut self, wanted: &str) -> Value {
        let mut lines = String::new();
        loop {
            let start = lines.len();
            assert!(self.log.read_line(&mut lines).unwrap() > 0, "it ended without `{wanted}`:\n{lines}");
            let line = serde_json::from_str::<Value>(&lines[start..]).unwrap();
            if line["message"].as_str().unwrap().contains(wanted) {
                return line;
            }
        }
    }
}

fn assert_names_the_work(line: &Value) {
    let message = line["message"].as_str().unwrap();
    let exchange = line["exchange"].as_str().unwrap();
    let told = format!("route `slow` dropped the exchange {exchange} in step 2 (delay), after ");
    assert!(message.starts_with(&told), "{message}");
    assert_eq!((&line["route"], &line["step"]), (&"slow".into(), &"step 2 (delay)".into()));
    assert!(line["seconds"].as_f64().unwrap() > 0.0, "{line}");
}

#[test]
fn what_is_dropped_at_the_end_of_the_time_to_stop_is_told_and_the_exit_code_is_1() {
    let mut tool = Tool::run("timer:t?delay=0&period=0", &["router.shutdown_timeout=200ms"]);
    tool.wait_for("begun");
    tool.member.signal(Signal::TERM);
    assert_names_the_work(&tool.wait_for("dropped the exchange"));
    assert_eq!(tool.member.wait().code(), Some(1));
}

#[test]
fn what_is_dropped_because_a_term_was_lost_is_told_and_the_exit_code_is_1_though_all_else_drains() {
    let mut tool = Tool::run("master:lock1:timer:t?delay=0&period=0", &[]);
    tool.wait_for("begun");
    std::fs::remove_file(tool.folder.path().join("locks/lock1.lock")).unwrap();
    let line = tool.wait_for("dropped the exchange");
    assert_names_the_work(&line);
    assert!(line["message"].as_str().unwrap().contains("`lock1`"), "{line}");
    tool.member.signal(Signal::TERM);
    tool.wait_for("exchanges were dropped in the life of this process: 1");
    assert_eq!(tool.member.wait().code(), Some(1));
}

/// A route that sends `count` exchanges to `queue`, with a line after each.
fn sender(queue: &str, count: u32) -> String {
    format!(
        "[[route]]\nid = 'sender'\nfrom = 'timer:send?delay=0&period=1ms&repeat_count={count}'\n\
         steps = [{{ to = '{queue}' }}, {{ log = 'sent' }}]\n"
    )
}

fn assert_names_what_waited(line: &Value, route: &str, queue: &str) {
    let (message, exchange) = (line["message"].as_str().unwrap(), line["exchange"].as_str().unwrap());
    let told = format!("route `{route}` dropped the exchange {exchange}, which had waited in `{queue}` for ");
    assert!(message.starts_with(&told), "{message}");
    assert_eq!((&line["route"], &line["queue"]), (&route.into(), &queue.into()));
    assert!(line["seconds"].as_f64().unwrap() > 0.0, "{line}");
}

#[test]
fn of_what_has_begun_each_exchange_has_its_line_however_many_they_are() {
    let from = "seda:work?concurrent_consumers=130";
    let mut tool = Tool::run_beside(from, &sender("seda:work", 130), &["router.shutdown_timeout=200ms"]);
    for _ in 0..130 {
        tool.wait_for("begun");
    }
    tool.member.signal(Signal::TERM);
    let mut exchanges = BTreeSet::new();
    for _ in 0..130 {
        let line = tool.wait_for("dropped");
        assert_names_the_work(&line);
        exchanges.insert(line["exchange"].as_str().unwrap().to_owned());
    }
    assert_eq!(exchanges.len(), 130);
    assert_eq!(tool.member.wait().code(), Some(1));
}

#[test]
fn what_waits_in_a_queue_when_the_router_aborts_is_told_line_by_line_up_to_a_bound() {
    let settings = ["router.shutdown_timeout=200ms"];
    let mut tool = Tool::run_beside("seda:work", &sender("seda:work", 130), &settings);
    for _ in 0..130 {
        tool.wait_for("sent");
    }
    tool.member.signal(Signal::TERM);
    assert_names_the_work(&tool.wait_for("dropped the exchange"));
    for _ in 0..100 {
        assert_names_what_waited(&tool.wait_for("dropped the exchange"), "slow", "seda:work");
    }
    let more = tool.wait_for("dropped");
    assert!(more["message"].as_str().unwrap().contains("dropped 29 more exchanges"), "{more}");
    assert_eq!(tool.member.wait().code(), Some(1));
}

#[test]
fn what_waits_for_a_route_that_does_not_run_is_told_and_the_exit_code_is_1_though_all_else_drains() {
    let stopped =
        "[[route]]\nid = 'stopped'\nauto_startup = false\nfrom = 'seda:stopped'\nsteps = [{ log = 'x' }]\n";
    let other = stopped.to_owned() + &sender("seda:stopped", 3);
    let mut tool = Tool::run_beside("timer:never?delay=1h", &other, &[]);
    for _ in 0..3 {
        tool.wait_for("sent");
    }
    tool.member.signal(Signal::TERM);
    for _ in 0..3 {
        assert_names_what_waited(&tool.wait_for("dropped the exchange"), "stopped", "seda:stopped");
    }
    tool.wait_for("exchanges were dropped in the life of this process: 3");
    assert_eq!(tool.member.wait().code(), Some(1));
}
