//! The promise: when the leader dies, another member takes over at once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::{Stage, assert_exclusive, now};

#[test]
fn after_kill_9_of_the_leader_another_member_takes_over() {
    let stage = Stage::new();
    let mut members = vec![stage.member(Duration::ZERO), stage.member(Duration::ZERO)];
    let first = stage.wait_for_term_after(0);
    let leader = members.iter().position(|member| member.id() == first.member).unwrap();
    let killed = members.swap_remove(leader).kill();
    let next = stage.wait_for_term_after(first.term);
    assert_eq!(next.member, members[0].id());
    assert!(next.start > killed);
    let taken = Duration::from_nanos(next.start - killed);
    println!("the next leader's first exchange started {taken:?} after the kill");
    // Not a measurement, for which there is a bench: it only tells an event from a time-out.
    assert!(taken < Duration::from_millis(900), "nobody was woken: {taken:?}");
    drop(members);
    assert_exclusive(&stage.records());
}

#[test]
fn a_process_that_hangs_keeps_the_lock_and_starts_no_burst_when_it_goes_on() {
    let stage = Stage::new();
    let mut members = vec![stage.member(Duration::ZERO), stage.member(Duration::ZERO)];
    let first = stage.wait_for_term_after(0);
    let leader = members.iter().position(|member| member.id() == first.member).unwrap();
    let leader = members.swap_remove(leader);
    leader.pause();
    let before = stage.records().len();
    // The time itself is what is tested: two hundred ticks of 5 ms are missed, and nobody takes over.
    #[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(stage.records().len(), before, "somebody worked while the leader was paused");
    let resumed = now();
    leader.signal(rustix::process::Signal::CONT);
    let records = stage.wait("five more exchanges", |records| records.len() >= before + 5);
    assert!(records.iter().all(|record| record.term == first.term));
    let after = &records[before..before + 5];
    let took = Duration::from_nanos(after[4].start - resumed);
    assert!(took >= Duration::from_millis(15), "missed ticks burst out: five within {took:?}");
    drop((leader, members));
    assert_exclusive(&stage.records());
}
