//! Somebody changes the labels of Leases, or another program has a Lease of the same name.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::judge::now;
use super::stage::{Stage, between};

const LOCK: &str = "bactrian.lock.lock1";

/// As `kubectl label --overwrite` does it; null removes a label.
fn label(stage: &Stage, labels: &Value) -> u64 {
    let at = now();
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    stage.block(async { stage.leases().patch(LOCK, &PatchParams::default(), &patch).await }).unwrap();
    at
}

fn lock(stage: &Stage) -> Lease {
    stage.block(async { stage.leases().get(LOCK).await }).unwrap()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn labels_of_other_tools_do_not_matter_and_a_lost_one_comes_back() {
    let stage = Stage::new("labels");
    let members = stage.members();
    let led = stage.wait_for_term_after(0);
    label(&stage, &json!({"app.kubernetes.io/managed-by": "Helm"}));
    stage.let_pass(Duration::from_secs(7));
    assert!(stage.records().iter().all(|record| record.term == led.term), "leadership changed");
    let lost = label(&stage, &json!({"bactrian/group": null}));
    let next = stage.wait_for_term_after(led.term);
    let time = between(lost, next.start);
    println!("the group's label removed: the next exchange after {time:?}");
    assert!((Duration::from_millis(4_900)..Duration::from_secs(8)).contains(&time), "{time:?}");
    let labels = lock(&stage).metadata.labels.unwrap();
    assert_eq!(
        (labels["bactrian/group"].as_str(), labels["app.kubernetes.io/managed-by"].as_str()),
        ("bactrian", "Helm")
    );
    stage.let_pass(Duration::from_secs(7));
    assert_eq!(stage.wait_for_work().term, next.term, "once is enough");
    stage.judge();
    drop(members);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lease_of_another_program_is_named_and_left_alone() {
    let stage = Stage::new("foreign");
    let delete =
        || stage.block(async { stage.leases().delete(LOCK, &DeleteParams::default()).await }).unwrap();
    delete();
    let foreign = json!({"metadata": {"name": LOCK}, "spec": {"holderIdentity": "other-program-0"}});
    let foreign = serde_json::from_value::<Lease>(foreign).unwrap();
    let foreign =
        stage.block(async { stage.leases().create(&PostParams::default(), &foreign).await }).unwrap();
    let members = stage.members();
    stage.let_pass(Duration::from_secs(15));
    assert!(stage.records().is_empty(), "a lock was led whose Lease belongs to another program");
    assert_eq!(lock(&stage), foreign);
    for member in &members {
        let log = member.log();
        let named = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("its holder is `other-program-0`"));
        assert!((1..4).contains(&named.count()), "{log}");
    }
    delete();
    stage.wait_for_term_after(0);
    stage.judge();
}
