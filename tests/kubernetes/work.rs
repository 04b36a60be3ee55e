//! A slow exchange is under way when its leader has to go.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::Signal;

use super::judge::now;
use super::leader_ends::TAKEOVER;
use super::member::MemberSettings;
use super::proxy::Fault;
use super::stage::{Stage, between, take_leader};

fn slow(stage: &Stage) -> Vec<super::member::Member> {
    let settings = MemberSettings { work: Duration::from_secs(8), ..stage.settings.clone() };
    (0..3).map(|user| stage.member_with(user, settings.clone())).collect()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_is_asked_to_stop_finishes_its_slow_exchange_first() {
    let stage = Stage::new("slow-stop");
    let mut members = slow(&stage);
    let led = stage.wait_for_term_after(0);
    stage.let_pass(Duration::from_secs(1));
    let leader = take_leader(&mut members, &led);
    leader.signal(Signal::TERM);
    let next = stage.wait_for_term_after(led.term);
    let first = stage.records().into_iter().find(|record| record.term == led.term).unwrap();
    let end = first.end.expect("the slow exchange has ended");
    assert!(between(first.start, end) >= Duration::from_secs(8), "it was cut short");
    println!("slow exchange at SIGTERM: the next one starts {:?} after its end", between(end, next.start));
    assert!(leader.wait().success());
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_slow_exchange_of_a_leader_that_is_cut_off_ends_before_the_next_one_begins() {
    let stage = Stage::new("slow-hole");
    let mut members = slow(&stage);
    let led = stage.wait_for_term_after(0);
    stage.let_pass(Duration::from_millis(500));
    let leader = take_leader(&mut members, &led);
    let lost = now();
    leader.proxy.set(Fault::BlackHole);
    let next = stage.wait_for_term_after(led.term);
    let time = between(lost, next.start);
    assert!(time < TAKEOVER, "{time:?}");
    let first = stage.records().into_iter().find(|record| record.term == led.term).unwrap();
    let end = first.end.expect("the slow exchange has ended");
    println!(
        "slow exchange in a black hole: ended after {:?}, the next one starts after {time:?}",
        between(lost, end)
    );
    leader.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_slow_exchange_of_a_paused_leader_does_not_run_in_the_next_term() {
    let stage = Stage::new("slow-pause");
    let mut members = slow(&stage);
    let led = stage.wait_for_work();
    let mut leader = take_leader(&mut members, &led);
    let paused = stage.pause(&leader);
    let next = stage.wait_for_term_after(led.term);
    // It sleeps for two more seconds of its eight when it goes on.
    let resumed = leader.signal(Signal::CONT);
    stage.wait("the end of the old exchange, or of its process", |records| {
        leader.has_ended() || records.iter().any(|record| record.term == led.term && record.end.is_some())
    });
    let old = stage.records().into_iter().filter(|record| record.member == led.member).collect::<Vec<_>>();
    assert_eq!(old.len(), 1, "the old leader started something: {old:?}");
    match old[0].end {
        Some(end) => {
            let time = between(resumed, end);
            println!("slow exchange at SIGSTOP: dropped {time:?} after SIGCONT");
            assert!(time < Duration::from_secs(1), "it went on for {time:?} in the next term");
        }
        None => assert_eq!(leader.wait().signal(), Some(Signal::ABORT.as_raw())),
    }
    println!("slow exchange at SIGSTOP: the next one started {:?} after it", between(paused, next.start));
    stage.judge();
}
