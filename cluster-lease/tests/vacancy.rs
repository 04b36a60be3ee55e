//! A lock without a leader: each member says why, and never that one leads who cannot.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/process.rs"]
mod support;

use std::time::Duration;

use cluster_lease::{Faults, MemoryStore, Span, StoreKey};
use router_core::cluster::{ClusterService, ClusterView, Leadership};
use support::{Process, lock, seconds, store};
use tokio::time::{Instant, sleep};

/// What a view says of the present: `leader`, `led by a`, or why there is no leader.
fn said(view: &ClusterView) -> String {
    match view.leadership() {
        Leadership::Leader(_) => "leader".into(),
        Leadership::Follower { leader } => format!("led by {}", leader.member),
        Leadership::Vacant(vacancy) => vacancy.why().into(),
    }
}

/// Waits until a view says something that contains `wanted`; returns it, and after how long.
async fn wait_for(view: &ClusterView, wanted: &str) -> (String, Duration) {
    let start = Instant::now();
    loop {
        let said = said(view);
        if said.contains(wanted) {
            return (said, start.elapsed());
        }
        assert!(start.elapsed() < seconds(120), "it never says `{wanted}`, but `{said}`");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_without_a_record_says_until_when_it_waits_and_so_does_a_standby() {
    let store = MemoryStore::new();
    let a = Process::start(&store, "a");
    let on_a = a.view().await;
    let (why, _) = wait_for(&on_a, "this member has claimed it and leads at 2").await;
    assert!(why.contains("Z: "), "{why}");
    let b = Process::start(&store, "b");
    let on_b = b.view().await;
    let why = wait_for(&on_b, "a has claimed it and waits").await.0;
    assert!(why.ends_with("because an earlier leader may still work"), "{why}");
    wait_for(&on_a, "leader").await;
    wait_for(&on_b, "led by a").await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_no_list_yet_says_nothing_of_records() {
    let store = store();
    let a = Process::start(&store, "a");
    a.handle.link().set(Faults { answer_delay: Span::exactly(seconds(2)), ..Faults::default() });
    let on_a = a.view().await;
    let (_, after) = wait_for(&on_a, "heard of none yet: the first list of the election's records").await;
    assert!(after < seconds(2), "{after:?}");
    while !said(&on_a).contains("leader") {
        assert!(!said(&on_a).contains("it has no record"), "nothing is known of it");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_store_asks_for_is_a_reason_also_before_a_request_has_failed() {
    let store = store();
    let a = Process::start(&store, "a");
    a.handle.link().set(Faults { answer_delay: Span::exactly(seconds(2)), ..Faults::default() });
    a.handle.link().say_unsent(Some("no request is sent until noon"));
    let on_a = a.view().await;
    let (why, after) = wait_for(&on_a, "heard of none yet: the first list").await;
    assert!(after < seconds(2), "{after:?}");
    assert!(why.starts_with("no request is sent until noon; "), "{why}");
    a.handle.link().say_unsent(None);
    wait_for(&on_a, "leader").await;
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_is_named_with_its_error_and_since_when() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let on_a = a.view().await;
    wait_for(&on_a, "leader").await;
    let on_b = b.view().await;
    wait_for(&on_b, "led by a").await;
    for process in [&a, &b] {
        process.handle.link().cut();
    }
    for view in [&on_a, &on_b] {
        let (why, after) = wait_for(view, "cannot be").await;
        assert!(after <= seconds(20), "{after:?}");
        assert!(why.contains(" since 2"), "{why}");
        assert!(why.ends_with("Z: the store did not answer in time"), "{why}");
    }
    for process in [&a, &b] {
        process.handle.link().mend();
    }
    wait_for(&on_a, "led by b").await;
    wait_for(&on_b, "leader").await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_gone_is_none_and_a_drained_member_says_that_it_will_not_help() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let on_b = b.view().await;
    wait_for(&on_b, "led by a").await;
    b.cluster.drain().await;
    sleep(seconds(60)).await;
    assert_eq!(said(&on_b), "led by a", "heartbeats keep a leader one");
    a.handle.link().cut();
    let (_, after) = wait_for(&on_b, "this member is drained, so another one must take it").await;
    assert!(after <= seconds(16), "{after:?}");
    drop(scope);
    b.cluster.undrain();
    wait_for(&on_b, "leader").await;
}

#[tokio::test(start_paused = true)]
async fn work_that_goes_on_and_a_member_that_stays_out_are_reasons() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let view = a.view().await;
    let term = scope.term().number();
    view.resign(seconds(600));
    wait_for(&view, &format!("this member led it, and its work under term {term} has not ended yet")).await;
    drop(scope);
    wait_for(&view, "this member gave it up and leaves it to others until 2").await;
    a.cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_deleted_under_a_leader_is_told_as_such() {
    let store = store();
    let a = Process::start(&store, "a");
    let view = a.view().await;
    wait_for(&view, "leader").await;
    assert!(store.delete(&StoreKey::Lock(lock())));
    wait_for(&view, "this member has claimed it and leads at").await;
    wait_for(&view, "leader").await;
}
