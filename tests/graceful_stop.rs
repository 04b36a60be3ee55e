//! The promise: a leader that is asked to stop finishes its work, then gives the lock away, and the next
//! one starts at once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Stage, assert_exclusive};

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
