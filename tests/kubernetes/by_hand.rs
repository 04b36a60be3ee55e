//! Somebody deletes or edits Leases while they are in use.

use std::time::Duration;

use bactrian::cluster_kubernetes::{Group, bare_lock};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::judge::now;
use super::proxy::Fault;
use super::stage::{Stage, between, take_leader};

const LOCK: &str = "bactrian.lock.lock1";

fn patch(stage: &Stage, name: &str, patch: &serde_json::Value) -> u64 {
    let at = now();
    let params = PatchParams::default();
    stage.block(async { stage.leases().patch(name, &params, &Patch::Merge(patch)).await }).unwrap();
    at
}

fn delete(stage: &Stage, name: &str) -> u64 {
    let at = now();
    stage.block(async { stage.leases().delete(name, &DeleteParams::default()).await }).unwrap();
    at
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_that_is_deleted_while_it_is_led_rests_for_the_takeover_wait() {
    let stage = Stage::new("deleted");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let deleted = delete(&stage, LOCK);
    let next = stage.wait_for_term_after(led.term);
    let time = between(deleted, next.start);
    println!("lock deleted: the next exchange after {time:?}");
    assert!(time > Duration::from_millis(4_900), "a deleted lock was taken after {time:?}");
    // And while its leader cannot know.
    let leader = take_leader(&mut members, &next);
    leader.proxy.set(Fault::BlackHole);
    let deleted = delete(&stage, LOCK);
    let last = stage.wait_for_term_after(next.term);
    println!("lock deleted while its leader was cut off: {:?}", between(deleted, last.start));
    leader.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_that_is_deleted_and_made_anew_rests_for_the_takeover_wait() {
    let stage = Stage::new("anew");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    stage.let_pass(Duration::from_secs(1));
    let leader = take_leader(&mut members, &led);
    leader.proxy.set(Fault::BlackHole);
    let deleted = delete(&stage, LOCK);
    let lease = bare_lock(&Group::default(), &"lock1".parse().unwrap());
    // A member may have been faster.
    let _ = stage.block(async { stage.leases().create(&PostParams::default(), &lease).await });
    let next = stage.wait_for_term_after(led.term);
    println!("lock deleted and made anew: {:?}", between(deleted, next.start));
    leader.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

/// As `kubectl get lease -o yaml`, `kubectl delete -f` and `kubectl apply -f` of what it printed do it: a Lease with the
/// record and the seal of a member, in another object.
#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_that_is_saved_deleted_and_applied_again_under_long_work_is_no_evidence() {
    let mut stage = Stage::new("saved");
    (stage.settings.work, stage.settings.period) = (Duration::from_secs(8), Duration::from_millis(10));
    let first = stage.member(0);
    let led = stage.wait_for_work();
    // It gives the lock up when its work is done, so what is saved says that it is free, and it leads again.
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().success());
    let mut saved = stage.block(async { stage.leases().get(LOCK).await }).unwrap();
    let text = saved.annotations()["bactrian/record"].clone();
    assert!(!text.contains("holder=") && text.contains("settled=true"), "{text}");
    let second = stage.member(1);
    let led_again = stage.wait_for_term_after(led.term);
    stage.let_pass(Duration::from_millis(500));
    delete(&stage, LOCK);
    saved.metadata.resource_version = None;
    stage.block(async { stage.leases().create(&PostParams::default(), &saved).await }).unwrap();
    let third = stage.member(2);
    let next = stage.wait_for_term_after(led_again.term);
    let ended =
        stage.records().iter().filter(|record| record.term == led_again.term).find_map(|record| record.end);
    println!(
        "saved and applied again: work of term {} from {} to {}, of term {} from {}",
        led_again.term,
        led_again.start,
        ended.map_or("the end of its process".to_owned(), |end| end.to_string()),
        next.term,
        next.start
    );
    assert!(!third.log().contains(": it was released"), "{}", third.log());
    stage.judge();
    drop(second);
}

/// As `kubectl apply` of a saved Lease does it over the one that is there: its record, its seal and its uid all fit.
#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_lock_that_is_set_back_under_long_work_is_no_evidence_to_those_who_have_seen_more() {
    let mut stage = Stage::new("back");
    (stage.settings.work, stage.settings.period) = (Duration::from_secs(3), Duration::from_millis(10));
    let first = stage.member(0);
    let led = stage.wait_for_work();
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().success());
    let saved = stage.block(async { stage.leases().get(LOCK).await }).unwrap();
    let _second = stage.member(1);
    let led_again = stage.wait_for_term_after(led.term);
    let third = stage.member(2);
    stage.let_pass(Duration::from_secs(1));
    stage.wait_for_work();
    let fields =
        json!({"metadata": {"annotations": saved.metadata.annotations}, "spec": {"holderIdentity": null}});
    let set_back = patch(&stage, LOCK, &fields);
    let next = stage.wait_for_term_after(led_again.term);
    println!("set back: the next term after {:?}", between(set_back, next.start));
    assert!(between(set_back, next.start) > Duration::from_millis(4_800));
    assert!(
        next.member != third.id() || third.log().contains("another writer has set it back"),
        "{}",
        third.log()
    );
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_session_that_is_deleted_costs_the_takeover_wait() {
    let stage = Stage::new("session");
    let mut members = stage.members();
    let led = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &led);
    let session = stage.session_of(&leader).name_any();
    let deleted = delete(&stage, &session);
    let next = stage.wait_for_term_after(led.term);
    println!("session deleted: {:?}", between(deleted, next.start));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn leases_that_are_edited_by_hand_are_not_believed() {
    let stage = Stage::new("edited");
    let members = stage.members();
    let mut led = stage.wait_for_term_after(0);
    let emptied = json!({"spec": {"holderIdentity": null}});
    let stolen = json!({"spec": {"holderIdentity": "somebody-else"}});
    for edit in [emptied, stolen] {
        let edited = patch(&stage, LOCK, &edit);
        let next = stage.wait_for_term_after(led.term);
        println!("lock edited by hand: the next exchange after {:?}", between(edited, next.start));
        led = next;
    }
    let leader = members.iter().find(|member| member.id() == led.member).unwrap();
    let session = stage.session_of(leader).name_any();
    let revived = json!({"metadata": {"annotations": {"bactrian/record": "seq=1000000"}}});
    let edited = patch(&stage, &session, &revived);
    let next = stage.wait_for_term_after(led.term);
    println!("session edited by hand: the next exchange after {:?}", between(edited, next.start));
    // What is no record of ours may be changed by anybody, once the leader has noted that its wait is over.
    stage.let_pass(Duration::from_millis(500));
    patch(&stage, LOCK, &json!({"metadata": {"annotations": {"team": "a"}, "labels": {"team": "a"}}}));
    stage.let_pass(Duration::from_secs(2));
    if stage.records().last().unwrap().term != next.term {
        stage.show_logs();
        panic!("a label cost leadership; {}", super::judge::show(&stage.records()));
    }
    let lock = stage.block(async { stage.leases().get(LOCK).await }).unwrap();
    assert_eq!(lock.labels()["team"], "a");
    stage.judge();
}

/// What the store relies on when it sends the uid along: some servers make what does not exist.
#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_replacement_of_what_was_deleted_is_refused() {
    let stage = Stage::new("replaced");
    let read = stage.block(async { stage.leases().get(LOCK).await }).unwrap();
    delete(&stage, LOCK);
    let params = kube::api::PostParams::default();
    let refused = stage.block(async { stage.leases().replace(LOCK, &params, &read).await }).unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    println!("a replacement with the uid of what was deleted: {} {}", status.code, status.reason);
    assert!(matches!(status.code, 404 | 409), "{status:?}");
    let mut blind = read;
    blind.metadata.uid = None;
    let answer = stage.block(async { stage.leases().replace(LOCK, &params, &blind).await });
    println!(
        "the same without a uid: {}",
        answer.map_or_else(|error| error.to_string(), |_| "it was made".into())
    );
}
