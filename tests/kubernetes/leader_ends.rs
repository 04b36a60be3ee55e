//! The leader ends: by a kill, in good order, in a rolling restart.

use std::time::Duration;

use rustix::process::Signal;

use super::judge::now;
use super::rounds;
use super::scenarios::{crashes, stops};
use super::stage::{Stage, VERBS, between, number, report};

/// x of the profile `fast`, and half a second.
pub(crate) const TAKEOVER: Duration = Duration::from_millis(5_500);

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn after_kill_9_another_member_leads_within_the_takeover_wait() {
    let stage = Stage::new("crash");
    let times = crashes(&stage, rounds(4));
    stage.judge();
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("crash: from kill -9 to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let stage = Stage::new("graceful");
    let times = stops(&stage, rounds(25));
    stage.judge();
    report("graceful: from SIGTERM to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_released_lock_is_led_at_once_by_a_member_that_starts_later() {
    let stage = Stage::new("later");
    let mut last = 0;
    let mut times = Vec::new();
    for _ in 0..rounds(5) {
        let started = now();
        let member = stage.member(0);
        let led = stage.wait_for_term_after(last);
        times.push(between(started, led.start));
        last = led.term;
        member.signal(Signal::TERM);
        assert!(member.wait().success());
    }
    stage.judge();
    // Less than the takeover wait of five seconds.
    assert!(times.iter().all(|time| *time < Duration::from_secs(4)), "{times:?}");
    report("released before: from the start of a process to its first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_rolling_restart_hands_over_and_never_overlaps() {
    let stage = Stage::new("rolling");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    for user in [0, 1, 2, 0, 1, 2] {
        // Kubernetes starts the new one first, and then asks the old one to stop.
        let index = members.iter().position(|member| number(member) == user).unwrap();
        let old = members.swap_remove(index);
        members.push(stage.member(user));
        stage.let_pass(Duration::from_millis(700));
        old.signal(Signal::TERM);
        assert!(old.wait().success());
    }
    let last = stage.wait_for_term_after(led.term);
    stage.wait("work by the last leader", |records| {
        records.iter().filter(|record| record.term >= last.term).count() > 10
    });
    let records = stage.records();
    let mut gaps = records.windows(2).map(|pair| between(pair[0].start, pair[1].start)).collect::<Vec<_>>();
    gaps.sort_unstable();
    println!("rolling: the longest time without an exchange was {:?}", gaps[gaps.len() - 1]);
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_member_that_may_delete_takes_its_sessions_along() {
    let stage = Stage::new("delete");
    stage.allow(&[VERBS, &["delete"]].concat());
    stage.let_pass(Duration::from_millis(500));
    let member = stage.member(0);
    stage.wait_for_term_after(0);
    assert_eq!(stage.sessions().len(), 1);
    member.signal(Signal::TERM);
    assert!(member.wait().success());
    assert!(stage.sessions().is_empty());
    stage.judge();
}
