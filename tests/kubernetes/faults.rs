//! The leader is paused, or its way to the server is spoilt, or the server itself is.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::api_server::ApiServer;
use super::ends::TAKEOVER;
use super::judge::now;
use super::proxy::Fault;
use super::rounds;
use super::stage::{Stage, between, report, take_leader};

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_paused_leader_starts_nothing_when_it_goes_on() {
    let stage = Stage::new("pause");
    let mut members = stage.members();
    let mut led = stage.wait_for_term_after(0);
    let (mut times, mut pauses) = (Vec::new(), Vec::new());
    for _ in 0..rounds(2) {
        stage.let_pass(Duration::from_millis(fastrand::u64(0..1_000)));
        let mut leader = take_leader(&mut members, &led);
        let paused = leader.signal(Signal::STOP);
        pauses.push((leader.id(), paused));
        let next = stage.wait_for_term_after(led.term);
        times.push(between(paused, next.start));
        stage.let_pass(Duration::from_secs(1));
        leader.signal(Signal::CONT);
        stage.let_pass(Duration::from_secs(2));
        if leader.has_ended() {
            println!(
                "pause: the leader ended its process, because it woke up after its work had to have ended"
            );
            members.push(stage.member(super::stage::number(&leader)));
        } else {
            members.push(leader);
        }
        led = next;
    }
    stage.judge_with_pauses(&pauses);
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("SIGSTOP: to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_loses_the_server_ends_before_the_next_one_begins() {
    let stage = Stage::new("black-hole");
    let mut members = stage.members();
    let mut led = stage.wait_for_term_after(0);
    let mut times = Vec::new();
    for round in 0..rounds(3) {
        let fault = if round % 2 == 0 { Fault::BlackHole } else { Fault::Cut };
        stage.let_pass(Duration::from_millis(fastrand::u64(0..1_000)));
        let leader = take_leader(&mut members, &led);
        let lost = now();
        leader.proxy.set(fault);
        let next = stage.wait_for_term_after(led.term);
        times.push(between(lost, next.start));
        stage.let_pass(Duration::from_secs(1));
        leader.proxy.set(Fault::None);
        stage.let_pass(Duration::from_secs(2));
        let same = stage.records().iter().map(|record| record.term).max();
        assert_eq!(same, Some(next.term), "the return of the old leader deposed the new one");
        members.push(leader);
        led = next;
    }
    stage.judge();
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("partition: to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn answers_that_come_late_do_not_prolong_a_term() {
    let stage = Stage::new("late");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &led);
    // Just in time for each heartbeat, so that what counts from the arrival would count too much.
    leader.proxy.set(Fault::DelayAnswers(Duration::from_millis(850)));
    stage.let_pass(Duration::from_secs(6));
    let cut = now();
    leader.proxy.set(Fault::Cut);
    let next = stage.wait_for_term_after(stage.records().last().unwrap().term.max(led.term));
    println!("late answers, then cut: the next leader's first exchange after {:?}", between(cut, next.start));
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_release_that_arrives_after_a_takeover_changes_nothing() {
    let stage = Stage::new("release");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &led);
    leader.proxy.set(Fault::BlackHole);
    leader.signal(Signal::TERM);
    let next = stage.wait_for_term_after(led.term);
    // Now the server gets what was sent before, the release among it.
    leader.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(3));
    assert_eq!(stage.records().iter().map(|record| record.term).max(), Some(next.term));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_server_that_restarts_is_led_again() {
    let server = Arc::new(ApiServer::start());
    let stage = Stage::on(Arc::clone(&server), "restart");
    let _members = stage.members();
    let led = stage.wait_for_term_after(0);
    server.kill_server();
    let down = now();
    stage.let_pass(Duration::from_secs(4));
    server.start_server();
    let up = now();
    let next = stage.wait_for_term_after(led.term);
    println!(
        "server killed for {:?}: the next exchange {:?} after it was ready",
        between(down, up),
        between(up, next.start)
    );
    // A server whose store stands still accepts requests, and answers none.
    stage.let_pass(Duration::from_secs(1));
    server.signal_etcd(Signal::STOP);
    stage.let_pass(Duration::from_secs(6));
    server.signal_etcd(Signal::CONT);
    let on = now();
    let last = stage.wait_for_term_after(next.term);
    println!("etcd paused for 6 s: the next exchange {:?} after it went on", between(on, last.start));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_server_that_is_gone_for_a_moment_is_not_noticed() {
    let server = Arc::new(ApiServer::start());
    let stage = Stage::on(Arc::clone(&server), "moment");
    let _members = stage.members();
    let led = stage.wait_for_term_after(0);
    server.signal_etcd(Signal::STOP);
    stage.let_pass(Duration::from_millis(1_800));
    server.signal_etcd(Signal::CONT);
    stage.let_pass(Duration::from_secs(4));
    assert!(stage.records().iter().all(|record| record.term == led.term), "leadership changed");
    stage.judge();
}
