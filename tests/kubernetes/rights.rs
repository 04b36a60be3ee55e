//! Rights that are missing are named.

use std::time::Duration;

use super::judge::now;
use super::stage::{Stage, VERBS, between, take_leader};

fn rule(verb: &str) -> String {
    format!(r#"{{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["{verb}"]}}"#)
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_member_without_a_right_does_not_start_and_names_the_rule() {
    for verb in VERBS {
        let stage = Stage::new("right");
        stage.allow(&VERBS.iter().filter(|other| *other != verb).copied().collect::<Vec<_>>());
        // The server needs a moment to know its own rules.
        stage.let_pass(Duration::from_millis(500));
        let mut member = stage.member(0);
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while !member.has_ended() {
            assert!(std::time::Instant::now() < patience, "without `{verb}`: {}", member.log());
            super::pause();
        }
        assert!(member.log().replace('\\', "").contains(&rule(verb)), "{}", member.log());
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_right_that_is_taken_away_ends_leadership_and_is_named() {
    let stage = Stage::new("taken");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    stage.let_pass(Duration::from_secs(1));
    let leader = take_leader(&mut members, &led);
    stage.allow(&["get", "list", "watch", "create"]);
    let taken = now();
    stage.let_pass(Duration::from_secs(7));
    assert!(leader.log().replace('\\', "").contains(&rule("update")), "{}", leader.log());
    let log = leader.log();
    let warned =
        log.lines().filter(|line| line.contains("WARN") && line.contains("the heartbeats of this member"));
    assert_eq!(warned.count(), 1, "one line, not one for each try: {log}");
    let last = stage.records().iter().filter_map(|record| record.end).max().unwrap();
    println!("right taken away: the last exchange ended after {:?}", between(taken, last));
    assert!(between(taken, last) < Duration::from_millis(5_500));
    stage.allow(VERBS);
    let given = now();
    let next = stage.wait_for_term_after(led.term);
    println!("right given back: the next exchange after {:?}", between(given, next.start));
    stage.judge();
}
