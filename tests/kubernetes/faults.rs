//! The leader is paused, or its way to the server is spoilt, or the server itself is.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::api_server::ApiServer;
use super::judge::now;
use super::leader_ends::TAKEOVER;
use super::proxy::Fault;
use super::rounds;
use super::scenarios::{late_answers, partitions, pauses, random_faults};
use super::stage::{Stage, between, report, take_leader};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_paused_leader_starts_nothing_when_it_goes_on() {
    let stage = Stage::new("pause");
    let times = pauses(&stage, rounds(3), 1_000..12_000);
    stage.judge();
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("SIGSTOP: to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_loses_the_server_ends_before_the_next_one_begins() {
    let stage = Stage::new("partition");
    let times = partitions(&stage, rounds(2), &[Fault::BlackHole, Fault::Cut], SECOND);
    assert_eq!(stage.judge(), times.len() + 1, "the return of an old leader deposed a new one");
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("partition: to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_whose_connections_died_without_a_word_or_are_refused_gives_way() {
    let stage = Stage::new("refused");
    let faults = [Fault::HalfOpen, Fault::Refuse(429), Fault::Refuse(500), Fault::Refuse(410)];
    let times = partitions(&stage, rounds(faults.len()), &faults, SECOND);
    stage.judge();
    // The server may have got one more heartbeat, whose answer the leader has not.
    assert!(times.iter().all(|time| *time < TAKEOVER + SECOND), "{times:?}");
    report("half-open, 429, 500, 410: to the next leader's first exchange", times);
}

/// A standby sends nothing, so only the time tells it that nothing comes.
#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn standbys_whose_watch_died_without_a_word_take_over_all_the_same() {
    let stage = Stage::new("deaf");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &led);
    // Long enough for a heartbeat to be lost on each watch.
    members.iter().for_each(|member| member.proxy.set(Fault::HalfOpen));
    stage.let_pass(2 * SECOND);
    members.iter().for_each(|member| member.proxy.set(Fault::None));
    let killed = leader.kill();
    let next = stage.wait_for_term_after(led.term);
    let time = between(killed, next.start);
    println!("standbys with dead watches: from kill -9 to the next leader's first exchange {time:?}");
    // The silence shows that the watch is dead; what a list shows then is watched for as long again.
    assert!(time < 2 * TAKEOVER + SECOND, "{time:?}");
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn faults_at_random_never_make_two_leaders() {
    let stage = Stage::new("random");
    random_faults(&stage, rounds(5));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn answers_that_come_late_do_not_prolong_a_term() {
    let stage = Stage::new("late");
    let times = late_answers(&stage, rounds(1), SECOND);
    stage.judge();
    report("late answers, then cut: to the next leader's first exchange", times);
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

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn an_outage_of_a_minute_is_a_few_lines_and_its_end_is_one() {
    let server = Arc::new(ApiServer::start());
    let stage = Stage::on(Arc::clone(&server), "quiet");
    let members = stage.members();
    let led = stage.wait_for_term_after(0);
    stage.let_pass(Duration::from_secs(2));
    let before = members.iter().map(|member| member.log().lines().count()).collect::<Vec<_>>();
    server.kill_server();
    stage.let_pass(Duration::from_secs(60));
    for (member, before) in members.iter().zip(before) {
        let log = member.log();
        let lines = log.lines().skip(before).filter(|line| !line.contains("DEBUG")).collect::<Vec<_>>();
        println!("a minute without a server: {} lines", lines.len());
        assert!((2..25).contains(&lines.len()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("the API server has not responded for")), "{lines:#?}");
        assert!(!log.contains("kube_client"), "{log}");
    }
    server.start_server();
    let up = now();
    let next = stage.wait_for_term_after(led.term);
    println!("the next exchange {:?} after it was ready", between(up, next.start));
    stage.let_pass(Duration::from_secs(3));
    for member in &members {
        assert_eq!(
            member.log().matches("the API server serves this member again").count(),
            1,
            "{}",
            member.log()
        );
    }
    stage.judge();
}
