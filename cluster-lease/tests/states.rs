//! What a `LeaseCluster` promises about states: they travel with the lock, and never go back.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;

use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{
    Attempt, Faults, LeaseStore, LockRecord, MemoryStore, Precondition, Span, StoreKey, StoreRecord, Write,
};
use process::{Process, lock, seconds, store};
use router_core::cluster::ClusterService;
use router_core::state::StateError;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// The deadline of the timing, which is the default.
const Y: Duration = Duration::from_millis(12_500);

fn deposed<T: std::fmt::Debug>(result: Result<T, StateError>) {
    assert!(matches!(result, Err(StateError::Deposed(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_finds_what_the_last_one_stored_while_it_gave_the_lock_up() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let old = scope.term().states();
    assert_eq!(old.load("poll").await.unwrap(), None);
    old.store("poll", &json!({ "offset": 7 })).await.unwrap();
    old.store("cron", &json!("noon")).await.unwrap();
    assert!(scope.term().is_valid(), "a store does not depose its own leader");
    let view = b.view().await;
    let closing = async {
        scope.term().lost().await;
        // The exchange in hand is finished, and noted, after the term has ended and before the release.
        old.store("poll", &json!({ "offset": 8 })).await.unwrap();
        drop(scope);
    };
    tokio::join!(a.cluster.close(), closing);
    let scope = view.lead().await.unwrap();
    let new = scope.term().states();
    assert_eq!(new.load("poll").await.unwrap(), Some(json!({ "offset": 8 })));
    assert_eq!(new.load("cron").await.unwrap(), Some(json!("noon")));
    for _ in 0..2 {
        deposed(old.store("poll", &json!({ "offset": 1 })).await);
        assert_eq!(new.load("poll").await.unwrap(), Some(json!({ "offset": 8 })));
        new.store("cron", &json!("midnight")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_one_write_and_nothing_else() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.load("poll").await.unwrap();
    states.store("poll", &json!(0)).await.unwrap();
    let before = a.handle.link().requests();
    for position in 1..=100 {
        states.store("poll", &json!(position)).await.unwrap();
    }
    let after = a.handle.link().requests();
    assert_eq!((after.writes - before.writes, after.total() - before.total()), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn a_store_takes_back_no_term_that_others_have_written_down() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    // As members do that remember more of the lock than its leader, after a restore.
    let other = store.handle(9);
    let entry = other.read(&lock()).await.unwrap().unwrap();
    let raised = LockRecord { term: 41_000, ..entry.record };
    let record = StoreRecord::Lock { record: raised, holder: None, term: None };
    let write = Write::new(StoreKey::Lock(lock()), Precondition::Version(entry.version), record);
    other.write(write, Attempt::default()).await.unwrap();
    let before = a.handle.link().requests().writes;
    for position in 2..5 {
        states.store("poll", &json!(position)).await.unwrap();
        assert_eq!(other.read(&lock()).await.unwrap().unwrap().record.term, 41_000);
    }
    assert_eq!(a.handle.link().requests().writes - before, 4, "one meets a conflict");
    assert!(scope.term().is_valid());
    drop(scope);
    a.cluster.close().await;
    assert_eq!(other.read(&lock()).await.unwrap().unwrap().record.term, 41_000);
}

#[tokio::test(start_paused = true)]
async fn stores_that_wait_go_together_and_each_is_answered_by_a_write_that_contains_it_or_a_later_one() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(0)).await.unwrap();
    let delay = Span::exactly(seconds(1));
    a.handle.link().set(Faults { request_delay: delay, ..Faults::default() });
    let before = a.handle.link().requests().writes;
    let started = Instant::now();
    let mut storing = tokio::task::JoinSet::new();
    for position in 1..=20 {
        for route in ["poll", "cron", "timer"] {
            let states = Arc::clone(&states);
            storing.spawn(async move { states.store(route, &json!(position)).await.unwrap() });
        }
    }
    storing.join_all().await;
    assert!(started.elapsed() < seconds(3), "{:?}", started.elapsed());
    // The first one alone, then all that has gathered; and heartbeats.
    assert!(a.handle.link().requests().writes - before <= 4);
    for route in ["poll", "cron", "timer"] {
        assert_eq!(states.load(route).await.unwrap(), Some(json!(20)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stores_nothing_and_gets_an_error_by_its_deadline() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    let view = b.view().await;
    a.handle.link().cut();
    let cut = Instant::now();
    let error = states.store("poll", &json!(2)).await.unwrap_err();
    assert!(cut.elapsed() <= Y + seconds(4), "{error} after {:?}", cut.elapsed());
    scope.term().expired().await;
    drop(scope);
    let scope = view.lead().await.unwrap();
    assert_eq!(scope.term().states().load("poll").await.unwrap(), Some(json!(1)));
    a.handle.link().mend();
    deposed(states.store("poll", &json!(3)).await);
    assert_eq!(scope.term().states().load("poll").await.unwrap(), Some(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_nothing_is_sent_any_more() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    a.handle.link().cut();
    sleep(Y + seconds(1)).await;
    let before = a.handle.link().requests();
    a.handle.link().mend();
    // Nobody else has taken the lock, so only the deadline speaks against it.
    deposed(states.store("poll", &json!(2)).await);
    assert_eq!(a.handle.link().requests(), before);
    drop(scope);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_arrives_late_changes_nothing_after_a_takeover() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let old = scope.term().states();
    old.store("poll", &json!("first")).await.unwrap();
    let view = b.view().await;
    a.handle.link().set(Faults { request_delay: Span::exactly(seconds(40)), ..Faults::default() });
    assert!(old.store("poll", &json!("late")).await.is_err());
    drop(scope);
    let scope = view.lead().await.unwrap();
    let new = scope.term().states();
    assert_eq!(new.load("poll").await.unwrap(), Some(json!("first")));
    new.store("poll", &json!("second")).await.unwrap();
    sleep(seconds(60)).await;
    assert_eq!(new.load("poll").await.unwrap(), Some(json!("second")));
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_and_writes_that_arrive_twice_are_sorted_out() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    let faults = Faults {
        lose_answer: 20,
        lose_request: 20,
        fail_early: 10,
        duplicate: 50,
        duplicate_delay: Span::up_to(seconds(5)),
        request_delay: Span::up_to(Duration::from_millis(200)),
        ..Faults::default()
    };
    a.handle.link().set(faults);
    let mut failed = 0;
    for position in 1..=200 {
        match states.store("poll", &json!(position)).await {
            Ok(()) => {
                let handle = store.handle(2);
                let kept = handle.read(&lock()).await.unwrap().unwrap().states.unwrap();
                assert_eq!(kept, json!({ "poll": position }).to_string());
            }
            Err(StateError::Deposed(_)) => break,
            Err(_) => failed += 1,
        }
    }
    assert!(failed < 20, "{failed} of 200");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_others_go_on_changing_is_an_error_and_no_endless_wait() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    // Between its read and its write there is always a change.
    a.handle
        .link()
        .set(Faults { request_delay: Span::exactly(Duration::from_millis(100)), ..Faults::default() });
    let hand = store.handle(2);
    let editing = async {
        loop {
            let entry = hand.read(&lock()).await.unwrap().unwrap();
            let record = cluster_lease::StoreRecord::Lock {
                record: entry.record,
                holder: Some("a".into()),
                term: None,
            };
            let expect = cluster_lease::Precondition::Version(entry.version);
            let write = cluster_lease::Write::new(StoreKey::Lock(lock()), expect, record);
            let _ = hand.write(write, cluster_lease::Attempt::default()).await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (began, second) = (Instant::now(), json!(2));
    let stored = timeout(seconds(60), states.store("poll", &second));
    let error = tokio::select! {
        biased;
        stored = stored => stored.expect("it ends").unwrap_err(),
        () = editing => unreachable!("it goes on for ever"),
    };
    assert!(matches!(error, StateError::Unusable(..)), "{error:?}");
    assert!(began.elapsed() <= Y + seconds(1), "{:?}", began.elapsed());
    a.handle.link().set(Faults::default());
    states.store("poll", &json!(3)).await.unwrap();
    assert!(scope.term().is_valid());
}

#[tokio::test(start_paused = true)]
async fn an_edit_by_hand_stays_and_costs_a_read() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    // As the settling write of the core does, somebody makes another version of the same record.
    let hand = store.handle(2);
    let entry = hand.read(&lock()).await.unwrap().unwrap();
    let write = cluster_lease::Write {
        states: Some(json!({ "poll": 1, "other": 5 }).to_string()),
        ..cluster_lease::Write::new(
            StoreKey::Lock(lock()),
            cluster_lease::Precondition::Version(entry.version),
            cluster_lease::StoreRecord::Lock { record: entry.record, holder: Some("a".into()), term: None },
        )
    };
    hand.write(write, cluster_lease::Attempt::default()).await.unwrap();
    states.store("poll", &json!(2)).await.unwrap();
    assert_eq!(states.load("other").await.unwrap(), Some(json!(5)));
    assert!(scope.term().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_waited_may_store_before_its_record_is_settled_and_stays_leader() {
    // There is no record, so the first leader owes a wait and settles only when it leads.
    let store = MemoryStore::new();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let number = scope.term().number();
    for position in 0..5 {
        scope.term().states().store("poll", &json!(position)).await.unwrap();
    }
    sleep(seconds(60)).await;
    assert!(scope.term().is_valid());
    let entry = a.handle.read(&lock()).await.unwrap().unwrap();
    assert!(entry.record.settled && entry.record.term == number, "{entry:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_record_takes_the_states_along_and_refuses_its_last_leader() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    store.delete(&StoreKey::Lock(lock()));
    deposed(states.store("poll", &json!(2)).await);
    drop(scope);
    let scope = a.lead().await;
    assert_eq!(scope.term().states().load("poll").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_record_can_hold_is_refused_and_harms_nobody_else() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    let large = Value::from("x".repeat(15 * 1024));
    let mut refused = 0;
    for route in 0..20 {
        if let Err(error) = states.store(&format!("route{route}"), &large).await {
            assert!(error.to_string().contains("give some routes another lock"), "{error}");
            refused += 1;
        }
    }
    assert!((3..=6).contains(&refused), "{refused}");
    states.store("route0", &json!(1)).await.unwrap();
    assert_eq!(states.load("route0").await.unwrap(), Some(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_dropped_leaves_the_others_alone() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    let states = scope.term().states();
    states.store("poll", &json!(0)).await.unwrap();
    a.handle.link().set(Faults { request_delay: Span::exactly(seconds(1)), ..Faults::default() });
    let (first, second) = (json!(1), json!(2));
    let older = states.store("poll", &first);
    let mut newer = states.store("poll", &second);
    let dropped = async {
        let _ = timeout(Duration::from_millis(100), &mut newer).await;
        drop(newer);
    };
    let (older, ()) = tokio::join!(older, dropped);
    older.unwrap();
    a.handle.link().set(Faults::default());
    let kept = states.load("poll").await.unwrap().unwrap();
    assert!(kept == first || kept == second, "{kept}");
}
