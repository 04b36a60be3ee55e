//! What looks like a free lock, or like a dead leader, and is none.

use std::time::Duration;

use bactrian::cluster_kubernetes::{Group, bare_lock};
use kube::api::{DeleteParams, PostParams};
use rustix::process::Signal;

use super::member::MemberSettings;
use super::proxy::Fault;
use super::rounds;
use super::stage::Stage;

/// What `kubectl delete -f` and `kubectl apply -f` do to the Lease of a lock.
fn delete_and_apply(stage: &Stage) {
    let lease = bare_lock(&Group::default(), &"lock1".parse().unwrap());
    stage.block(async {
        stage.leases().delete("bactrian.lock.lock1", &DeleteParams::default()).await.unwrap();
        stage.leases().create(&PostParams::default(), &lease).await.unwrap();
    });
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lease_that_is_deleted_and_applied_again_while_its_leader_works_is_no_free_lock() {
    for round in 0..rounds(2) {
        let stage = Stage::new("applied");
        let settings = MemberSettings { work: Duration::from_secs(3), ..stage.settings.clone() };
        let old = stage.member_with(0, settings.clone());
        let led = stage.wait_for_work();
        if round % 2 == 1 {
            // Then it does not even learn of it.
            old.proxy.set(Fault::Cut);
        }
        delete_and_apply(&stage);
        let next = stage.member_with(1, settings);
        let led = stage.wait_for_term_after(led.term);
        assert!(led.term > 0);
        drop((old, next));
        stage.judge();
    }
}

/// Slow heartbeats, and a long deadline.
const SLOW: &str = "20000,16000,3000,8000";

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_rolling_update_to_another_timing_overlaps_nowhere() {
    let stage = Stage::new("timings");
    let settings = MemberSettings { work: Duration::from_millis(900), ..stage.settings.clone() };
    let slow = MemberSettings { variables: vec![("MEMBER_TIMING", SLOW.to_owned())], ..settings.clone() };
    let old = stage.member_with(0, slow);
    let led = stage.wait_for_work();
    let next = stage.member_with(1, settings);
    // Longer than the wait of the new one: the old one is well, and leads on.
    stage.let_pass(Duration::from_secs(9));
    let still = stage.wait_for_work();
    assert_eq!((still.member, still.term), (old.id(), led.term));
    assert!(next.log().contains("has another timing"), "{}", next.log());
    // It is cut off, and given the time that it lives by.
    old.proxy.set(Fault::Cut);
    stage.wait_for_term_after(led.term);
    old.signal(Signal::KILL);
    drop((old, next));
    stage.judge();
}
