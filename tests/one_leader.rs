//! The promise: of several processes, exactly one runs the route, whatever happens to them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Stage, assert_exclusive};

#[test]
fn one_of_three_processes_leads_through_kills_stops_and_pauses() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("repeat with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    let start = || stage.member(Duration::from_millis(3));
    let mut members = vec![start(), start(), start()];
    let mut led = stage.wait_for_term_after(0);
    for _ in 0..12 {
        let leader = members.iter().position(|member| member.id() == led.member).unwrap();
        let leader = members.swap_remove(leader);
        match random.u8(0..3) {
            0 => drop(leader.kill()),
            1 => {
                leader.signal(Signal::TERM);
                assert!(leader.wait().success());
            }
            _ => {
                // A paused process keeps its lock: nobody may lead until it is gone.
                leader.signal(Signal::STOP);
                leader.kill();
            }
        }
        members.push(start());
        led = stage.wait_for_term_after(led.term);
    }
    drop(members);
    assert_exclusive(&stage.records());
}
