//! What the status of pods proves, and what it does not.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::judge::now;
use super::leader_ends::TAKEOVER;
use super::member::{Member, MemberSettings};
use super::rounds;
use super::stage::{Stage, between, number, report, take_leader};

/// A pod, and the member that runs in it.
fn member_in_pod(stage: &Stage, user: usize, round: usize) -> Member {
    let name = format!("clock-{round}-{user}");
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "clock"}},
        "spec": {"containers": [{"name": "clock", "image": "clock"}]},
    });
    let pod = serde_json::from_value::<Pod>(pod).unwrap();
    let pod = stage.block(async { stage.pods().create(&PostParams::default(), &pod).await }).unwrap();
    let termination_log = stage.path(&format!("termination-log-{name}"));
    std::fs::write(&termination_log, "").unwrap();
    let settings = MemberSettings {
        pod: name,
        pod_uid: pod.uid(),
        cluster_labels: Some("app=clock".into()),
        termination_log: Some(termination_log),
        ..stage.settings.clone()
    };
    stage.member_with(user, settings)
}

pub(crate) fn patch_status(stage: &Stage, pod: &str, status: &Value) -> u64 {
    let at = now();
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    stage.block(async { stage.pods().patch_status(pod, &params, &patch).await }).unwrap();
    at
}

/// What the kubelet says of a container that has ended.
fn terminated(message: &str) -> Value {
    let state = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": message}});
    json!({"phase": "Running", "containerStatuses": [{
        "name": "clock", "image": "clock", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }]})
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_locks_of_a_container_that_has_terminated_are_taken_at_once() {
    let stage = Stage::new("proof");
    let mut members = (0..3).map(|user| member_in_pod(&stage, user, 0)).collect::<Vec<_>>();
    let mut led = stage.wait_for_term_after(0);
    let mut times = Vec::new();
    for round in 1..=rounds(5) {
        stage.let_pass(Duration::from_millis(500));
        let leader = take_leader(&mut members, &led);
        let owners = stage.session_of(&leader).metadata.owner_references.unwrap();
        assert_eq!((owners[0].kind.as_str(), &owners[0].name), ("Pod", &leader.settings.pod));
        let (user, settings) = (number(&leader), leader.settings.clone());
        leader.kill();
        let message = std::fs::read_to_string(settings.termination_log.unwrap()).unwrap();
        let said = patch_status(&stage, &settings.pod, &terminated(&message));
        led = stage.wait_for_term_after(led.term);
        times.push(between(said, led.start));
        members.push(member_in_pod(&stage, user, round));
    }
    stage.judge();
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    report("container terminated: from the patch to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_failed_pod_proves_nothing_while_its_process_lives() {
    let stage = Stage::new("failed");
    let members = (0..3).map(|user| member_in_pod(&stage, user, 0)).collect::<Vec<_>>();
    let led = stage.wait_for_term_after(0);
    let leader = members.iter().find(|member| member.id() == led.member).unwrap();
    // As the collector of lost pods does it, and as an eviction looks; and another container's end.
    patch_status(&stage, &leader.settings.pod, &json!({"phase": "Failed", "reason": "Evicted"}));
    patch_status(&stage, &leader.settings.pod, &terminated("out of memory"));
    stage.let_pass(Duration::from_secs(3));
    let records = stage.records();
    assert!(records.iter().all(|record| record.term == led.term), "leadership changed");
    assert!(between(records.last().unwrap().start, now()) < Duration::from_millis(500), "nobody works");
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_same_pod_name_again_is_another_member() {
    let stage = Stage::new("again");
    let mut members = vec![stage.member(0)];
    let mut led = stage.wait_for_term_after(0);
    let mut times = Vec::new();
    for _ in 0..2 {
        stage.let_pass(Duration::from_millis(600));
        let killed = take_leader(&mut members, &led).kill();
        members.push(stage.member(0));
        led = stage.wait_for_term_after(led.term);
        times.push(between(killed, led.start));
    }
    stage.judge();
    // It is not the holder that it has the name of, so it waits as everybody does. It begins to watch only
    // when it has started.
    let started = Duration::from_millis(1_500);
    assert!(times.iter().all(|time| (TAKEOVER - started..TAKEOVER + started).contains(time)), "{times:?}");
    report("same pod name again: from kill -9 to the first exchange", times);
}
