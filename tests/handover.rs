//! What an operator asks for on the command line of processes that share a directory: a lock changes hands,
//! a process holds none.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use support::{Member, Stage, assert_exclusive};

fn tool(stage: &Stage, arguments: &[&str]) -> Output {
    let root = format!("cluster.file.root={}", stage.locks().display());
    Command::new(env!("CARGO_BIN_EXE_bactrian"))
        .args(arguments)
        .args(["--set", "cluster.service=file", "--set", &root])
        // Where there is no file of routes.
        .current_dir(stage.locks())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{error}").trim().to_owned()
}

/// Three members, and the term of the one that leads.
fn three() -> (Stage, Vec<Member>, support::Record) {
    let stage = Stage::new();
    let members = (0..3).map(|_| stage.member(Duration::from_millis(2))).collect();
    let led = stage.wait_for_term_after(0);
    (stage, members, led)
}

fn leftovers(stage: &Stage) -> usize {
    let entries = std::fs::read_dir(stage.locks()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "handover" || end == "drain")).count()
}

#[test]
fn a_lock_changes_hands_when_an_operator_asks_and_never_has_two() {
    let (stage, members, mut led) = three();
    let mut leaders = BTreeSet::new();
    for _ in 0..20 {
        let output = tool(&stage, &["handover", "lock1"]);
        assert!(output.status.success(), "{}", said(&output));
        let next = stage.wait_for_term_after(led.term);
        let (from, to) = (format!("-{} released it after term {};", led.member, led.term), next.member);
        assert!(said(&output).contains(&from), "{} has led: {}", led.member, said(&output));
        assert!(said(&output).contains(&format!("-{to} leads, term {},", next.term)), "{}", said(&output));
        assert_ne!(led.member, next.member);
        leaders.insert(next.member);
        led = next;
    }
    assert!(leaders.len() >= 2);
    assert_eq!(leftovers(&stage), 0);
    for member in members {
        member.signal(Signal::TERM);
        assert!(member.wait().success());
    }
    assert_exclusive(&stage.records());
}

#[test]
fn a_leader_that_is_killed_meanwhile_has_not_released_the_lock() {
    let stage = Stage::new();
    let member = || stage.member(Duration::from_secs(3_600));
    let first = member();
    let led = stage.wait_for_term_after(0);
    let second = member();
    let (asked, next) = std::thread::scope(|scope| {
        let tool = scope.spawn(|| tool(&stage, &["handover", "lock1"]));
        let request = stage.locks().join("lock1.handover");
        while !request.exists() {
            std::thread::yield_now();
        }
        first.kill();
        (tool.join().unwrap(), stage.wait_for_term_after(led.term))
    });
    assert!(asked.status.success(), "{}", said(&asked));
    assert_eq!(next.member, second.id());
    let told = format!("did not release it after term {}: it ended, or was silent for", led.term);
    assert!(said(&asked).contains(&told), "{}", said(&asked));
    assert!(said(&asked).contains("has replaced it and leads, term"), "{}", said(&asked));
}

#[test]
fn a_lock_that_nobody_else_wants_comes_back_and_the_operator_hears_it() {
    let stage = Stage::new();
    std::fs::create_dir_all(stage.locks()).unwrap();
    let output = tool(&stage, &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no member has ever used the directory"), "{}", said(&output));
    let _member = stage.member(Duration::from_millis(2));
    let led = stage.wait_for_term_after(0);
    let output = tool(&stage, &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nobody else took `lock1` over"), "{}", said(&output));
    stage.wait_for_term_after(led.term);
    let output = tool(&stage, &["handover", "lock2"]);
    assert_eq!(said(&output), "error: nobody leads `lock2`; led are: lock1");
    assert_exclusive(&stage.records());
}

#[test]
fn drained_processes_hold_nothing_until_they_may_again() {
    let (stage, members, led) = three();
    let output = tool(&stage, &["drain"]);
    assert_eq!(output.status.code(), Some(1));
    for member in &members {
        assert!(said(&output).contains(&format!("-{}", member.id())), "who is there: {}", said(&output));
    }
    let standby = members.iter().find(|member| member.id() != led.member).unwrap().id();
    for process in [standby, led.member] {
        let output = tool(&stage, &["drain", &process.to_string()]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let next = stage.wait_for_term_after(led.term);
    assert!(next.member != standby && next.member != led.member, "a drained process took the lock");
    let output = tool(&stage, &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1), "nobody is left to take it: {}", said(&output));
    let next = stage.wait_for_term_after(next.term);
    let output = tool(&stage, &["drain", "--undo", &led.member.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let output = tool(&stage, &["handover", "lock1"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(stage.wait_for_term_after(next.term).member, led.member);
    // The one that is still drained can only be meant.
    assert!(tool(&stage, &["drain", "--undo"]).status.success());
    assert_eq!(leftovers(&stage), 0);
    assert_exclusive(&stage.records());
}
