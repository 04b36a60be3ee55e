//! What happens to the leader, round after round, whoever elects: each returns the times from the blow to
//! the next leader's first exchange.

use std::ops::Range;
use std::time::Duration;

use rustix::process::Signal;

use super::judge::now;
use super::proxy::Fault;
use super::stage::{Stage, between, number, take_leader};

pub(crate) fn random(milliseconds: Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(milliseconds))
}

/// `kill -9`, anywhere between two heartbeats; a new process with the name of the killed one follows.
pub(crate) fn crashes(stage: &Stage, rounds: usize) -> Vec<Duration> {
    let mut members = stage.members();
    stage.wait_for_work();
    let round = |_| {
        stage.let_pass(random(0..1_000));
        let led = stage.wait_for_leader();
        let leader = take_leader(&mut members, &led);
        let user = number(&leader);
        let killed = leader.kill();
        members.push(stage.member(user));
        between(killed, stage.wait_for_term_after(led.term).start)
    };
    (0..rounds).map(round).collect()
}

/// SIGTERM; the one that stops must end well.
pub(crate) fn stops(stage: &Stage, rounds: usize) -> Vec<Duration> {
    let mut members = stage.members();
    stage.wait_for_work();
    let round = |_| {
        // Long enough for the new process to be ready.
        stage.let_pass(random(500..1_000));
        let led = stage.wait_for_leader();
        let leader = take_leader(&mut members, &led);
        let user = number(&leader);
        let asked = leader.signal(Signal::TERM);
        let next = stage.wait_for_term_after(led.term);
        assert!(leader.wait().success());
        members.push(stage.member(user));
        between(asked, next.start)
    };
    (0..rounds).map(round).collect()
}

/// SIGSTOP for a time, then SIGCONT. Where the pause was too short for another leader there is no time.
pub(crate) fn pauses(stage: &Stage, rounds: usize, milliseconds: Range<u64>) -> Vec<Duration> {
    let mut members = stage.members();
    stage.wait_for_work();
    let (mut times, mut ended) = (Vec::new(), 0);
    for _ in 0..rounds {
        stage.let_pass(random(0..1_000));
        let led = stage.wait_for_leader();
        let mut leader = take_leader(&mut members, &led);
        let paused = stage.pause(&leader);
        stage.let_pass(random(milliseconds.clone()));
        leader.signal(Signal::CONT);
        stage.wait_for_work();
        stage.let_pass(Duration::from_secs(2));
        let next = stage.records().into_iter().find(|record| record.term > led.term);
        if let Some(next) = next.filter(|next| next.member != led.member) {
            times.push(between(paused, next.start));
        }
        // A process whose work should have ended while it was paused may end itself.
        if leader.has_ended() {
            ended += 1;
            leader = stage.member(number(&leader));
        }
        members.push(leader);
    }
    println!("{}: {ended} of {rounds} paused leaders ended their process", stage.namespace);
    times
}

/// The way of the leader to the server fails in one of these ways, and is mended when the next one has led
/// for a time.
pub(crate) fn partitions(stage: &Stage, rounds: usize, faults: &[Fault], mended: Duration) -> Vec<Duration> {
    let mut members = stage.members();
    stage.wait_for_work();
    let round = |round: usize| {
        stage.let_pass(random(0..1_000));
        let led = stage.wait_for_leader();
        let leader = take_leader(&mut members, &led);
        let lost = now();
        leader.proxy.set(faults[round % faults.len()]);
        let next = stage.wait_for_term_after(led.term);
        stage.let_pass(mended);
        leader.proxy.set(Fault::None);
        stage.let_pass(Duration::from_secs(2));
        members.push(leader);
        between(lost, next.start)
    };
    (0..rounds).map(round).collect()
}

/// Answers reach the leader late, but just in time for each heartbeat, so that what counts from the arrival
/// would count too much. Then its connections are cut.
pub(crate) fn late_answers(stage: &Stage, rounds: usize, mended: Duration) -> Vec<Duration> {
    let mut members = stage.members();
    stage.wait_for_work();
    let mut times = Vec::new();
    for _ in 0..rounds {
        stage.let_pass(random(0..1_000));
        let led = stage.wait_for_leader();
        let leader = take_leader(&mut members, &led);
        leader.proxy.set(Fault::DelayAnswers(Duration::from_millis(850)));
        stage.let_pass(random(5_500..6_500));
        let cut = now();
        leader.proxy.set(Fault::Cut);
        let kept = stage.wait_for_work();
        // On a busy host the delay alone may have been too much.
        if kept.member == leader.id() {
            times.push(between(cut, stage.wait_for_term_after(kept.term).start));
        }
        stage.let_pass(mended);
        leader.proxy.set(Fault::None);
        stage.let_pass(Duration::from_secs(2));
        members.push(leader);
    }
    times
}

/// A member's way to the server has a fault for a time, or it has not, as chance has it, round after round; then
/// somebody must lead again.
pub(crate) fn random_faults(stage: &Stage, rounds: usize) -> Vec<Duration> {
    let members = stage.members();
    stage.wait_for_work();
    for _ in 0..rounds {
        for member in members.iter().filter(|_| fastrand::bool()) {
            member.proxy.set(match fastrand::u8(..7) {
                0 => Fault::Refuse(429),
                1 => Fault::Refuse(500),
                2 => Fault::Refuse(410),
                3 => Fault::HalfOpen,
                4 => Fault::BlackHole,
                5 => Fault::Cut,
                _ => Fault::DelayAnswers(random(50..5_000)),
            });
        }
        stage.let_pass(random(3_000..9_000));
        for member in &members {
            member.proxy.set(Fault::None);
        }
        stage.wait_for_work();
    }
    Vec::new()
}
