//! What an operator asks for on the command line: a lock changes hands, a pod holds none.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Instant;

use kube::ResourceExt as _;
use kube::api::ListParams;
use rustix::process::Signal;

use super::member::Member;
use super::rounds;
use super::stage::{Stage, between, report};

/// The tool, with what its user has: a way to the server, and the settings of the members.
fn tool(stage: &Stage, user: Option<usize>, arguments: &[&str]) -> Output {
    let port = stage.server.port();
    let text = match user {
        Some(user) => stage.server.kubeconfig(port, user, &stage.namespace),
        None => stage.server.admin_kubeconfig(port, &stage.namespace),
    };
    let kubeconfig = stage.path("kubeconfig-operator");
    std::fs::write(&kubeconfig, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_bactrian"))
        .args(arguments)
        .args(["--set", "cluster.service=kubernetes", "--set", "cluster.kubernetes.profile=fast"])
        .current_dir(stage.path(""))
        .env("KUBECONFIG", kubeconfig)
        .env_remove("POD_NAME")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{error}").trim().to_owned()
}

/// `lock1: A released it after term 3; B leads, term 4, after 46 ms`.
struct Line {
    from: String,
    from_term: u64,
    to: String,
    to_term: u64,
}

fn parse(line: &str) -> Line {
    let words = line.split([' ', ',', ';', ':']).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let [
        _,
        from,
        "released",
        "it",
        "after",
        "term",
        from_term,
        to,
        "leads",
        "term",
        to_term,
        "after",
        _,
        "ms",
    ] = words[..]
    else {
        panic!("{line}")
    };
    Line {
        from: from.to_owned(),
        from_term: from_term.parse().unwrap(),
        to: to.to_owned(),
        to_term: to_term.parse().unwrap(),
    }
}

fn requests(stage: &Stage) -> Vec<String> {
    let params = ListParams::default().labels("bactrian/kind=request");
    let leases = stage.block(async { stage.leases().list(&params).await }).unwrap();
    leases.items.iter().map(|lease| lease.name_any()).collect()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_changes_hands_when_an_operator_asks_and_never_has_two() {
    let stage = Stage::new("handover");
    let members = stage.members();
    let mut led = stage.wait_for_term_after(0);
    let (mut whole, mut gaps) = (Vec::new(), Vec::new());
    let mut leaders = BTreeSet::new();
    for _ in 0..rounds(25) {
        let started = Instant::now();
        let output = tool(&stage, None, &["handover", "lock1"]);
        whole.push(started.elapsed());
        assert!(output.status.success(), "{}", said(&output));
        let line = parse(&said(&output));
        assert_ne!(line.from, line.to);
        assert_eq!(line.from_term, led.term, "{}", said(&output));
        led = stage.wait_for_term_after(led.term);
        assert_eq!(line.to_term, led.term, "{}", said(&output));
        let leader = members.iter().find(|member| member.id() == led.member).unwrap();
        assert!(line.to.starts_with(&format!("{}_", leader.settings.pod)), "{}", said(&output));
        leaders.insert(leader.settings.pod.clone());
        let records = stage.records();
        let former = records.iter().filter(|record| record.term == line.from_term);
        gaps.push(between(former.filter_map(|record| record.end).max().unwrap(), led.start));
    }
    assert!(leaders.len() >= 2);
    assert_eq!(requests(&stage), [""; 0], "a request is left behind");
    stage.judge();
    report("handover: from the last exchange of a leader to the first of the next", gaps);
    report("handover: the whole command", whole);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_that_nobody_else_wants_comes_back_and_the_operator_hears_it() {
    let stage = Stage::new("handback");
    let _member = stage.member(0);
    let led = stage.wait_for_term_after(0);
    let output = tool(&stage, None, &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nobody else took `lock1` over"), "{}", said(&output));
    stage.wait_for_term_after(led.term);
    let output = tool(&stage, None, &["handover", "lock2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no lock `lock2`; there are: lock1"), "{}", said(&output));
    // The namespace that is meant is the first thing that goes wrong.
    let output = tool(&stage, None, &["handover", "lock1", "-n", "elsewhere"]);
    let nothing =
        "there is no lock `lock1`; there are: none (looked for in the namespace elsewhere, group bactrian)";
    assert!(said(&output).contains(nothing), "{}", said(&output));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn drained_pods_hold_nothing_until_they_may_again() {
    let stage = Stage::new("drain");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let is_leader = |member: &Member| member.id() == led.member;
    let leader = members.iter().find(|member| is_leader(member)).unwrap().settings.pod.clone();
    let standbys = members.iter().filter(|member| !is_leader(member));
    let standbys = standbys.map(|member| member.settings.pod.clone()).collect::<Vec<_>>();
    let output = tool(&stage, None, &["drain"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&leader), "those who are there are named: {}", said(&output));
    for pod in [&standbys[0], &leader] {
        let output = tool(&stage, None, &["drain", pod]);
        assert!(output.status.success(), "{}", said(&output));
        println!("{}", said(&output));
    }
    let next = stage.wait_for_term_after(led.term);
    let left = members.iter().find(|member| member.id() == next.member).unwrap();
    assert_eq!(left.settings.pod, standbys[1], "a drained pod took the lock");
    // Nobody is left to take it, so the drained ones have to be let go on first.
    let output = tool(&stage, None, &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let next = stage.wait_for_term_after(next.term);
    for log in members.iter().filter(|member| member.settings.pod != standbys[1]).map(Member::log) {
        assert!(log.contains("drained at the request of an operator"), "{log}");
    }
    assert_eq!(requests(&stage).len(), 2);
    // Both have sessions that are alive.
    let output = tool(&stage, None, &["leaders", "-o", "json"]);
    let seen = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let lock = &seen["locks"][0];
    assert_eq!((&lock["term"], &lock["standbys"]), (&next.term.into(), &serde_json::json!([])), "{seen}");
    let output = tool(&stage, None, &["drain", "--undo"]);
    assert_eq!(output.status.code(), Some(1), "two are drained: {}", said(&output));
    let output = tool(&stage, None, &["drain", "--undo", &leader]);
    assert!(output.status.success(), "{}", said(&output));
    let output = tool(&stage, None, &["handover", "lock1"]);
    assert!(output.status.success(), "{}", said(&output));
    let last = stage.wait_for_term_after(next.term);
    assert_eq!(members.iter().find(|member| is_leader(member)).unwrap().id(), last.member);
    for member in members.drain(..) {
        member.signal(Signal::TERM);
        assert!(member.wait().success());
    }
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn an_operator_without_rights_is_told_the_rule() {
    let stage = Stage::new("operator");
    // Members may not delete anything, and an operator who has no more rights than they have hears it.
    let output = tool(&stage, Some(0), &["handover", "lock1"]);
    assert_eq!(output.status.code(), Some(1));
    let rule = r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["delete"]}"#;
    assert!(said(&output).contains(rule), "{}", said(&output));
}
