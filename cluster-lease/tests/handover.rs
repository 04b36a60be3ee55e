//! What an operator asks of members, under paused time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;
mod support;

use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{Event, Faults, LeaseOperator, MemoryStore, Settings, Span, StoreKey};
use process::{Process, lock, seconds, store};
use router_core::cluster::{ClusterService, Member, Operator, OperatorError};
use support::{Group, LOCK};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process of a member that is called by its host too.
fn start(store: &MemoryStore, name: &str) -> Process {
    let member = Member { id: name.into(), host: Some(format!("host-of-{name}").into()), pid: None };
    Process::start_as(store, member, |settings| settings)
}

fn operator(store: &MemoryStore) -> LeaseOperator {
    LeaseOperator::new(store.handle(9), &Settings::default())
}

fn requests(store: &MemoryStore) -> usize {
    store.listing().entries.iter().filter(|entry| matches!(entry.key, StoreKey::Request(_))).count()
}

/// Works under the lock whenever this process leads, for some time each.
fn work(process: &Process, time: Duration) -> tokio::task::JoinHandle<()> {
    let cluster = Arc::clone(&process.cluster);
    tokio::spawn(async move {
        let view = cluster.view(&lock()).await.unwrap();
        while let Ok(scope) = view.lead().await {
            scope.term().lost().await;
            // What runs is finished.
            sleep(time).await;
        }
    })
}

fn not_done(result: Result<impl std::fmt::Debug, OperatorError>) -> String {
    match result {
        Err(OperatorError::NotDone(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn not_asked(result: Result<impl std::fmt::Debug, OperatorError>) -> String {
    match result {
        Err(OperatorError::NotAsked(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn staying_out_counts_from_when_the_lock_is_free() {
    for work in [0.0, 5.0] {
        let mut group = Group::new(2);
        group.pass(1.0);
        let leader = group.active()[0];
        let stay_out = Duration::from_secs(1);
        group.tell(leader, Event::Resign { lock: LOCK, stay_out });
        group.pass(work);
        assert_eq!(group.active(), [leader], "its work is still running");
        group.join_work(leader);
        group.pass(0.9);
        assert_eq!(group.active(), [1 - leader], "the other one leads after work of {work} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_handed_over_is_led_by_another_member_however_long_the_work_takes() {
    for work_time in [Duration::ZERO, seconds(10)] {
        let store = store();
        let (a, b) = (start(&store, "a"), start(&store, "b"));
        let first = a.lead().await;
        let view = b.view().await;
        let term = first.term().number();
        // Every write makes another version of the record, and none another term.
        first.term().states().store("poll", &serde_json::json!(1)).await.unwrap();
        work(&a, work_time);
        work(&b, work_time);
        // They take part before the first view is dropped, so the term goes on.
        sleep(seconds(1)).await;
        drop(first);
        let handover = operator(&store).hand_over(&lock(), PATIENCE).await.unwrap();
        assert_eq!((handover.from.as_str(), handover.to.as_str()), ("a", "b"));
        assert_eq!(handover.from_term, term);
        let scope = view.lead().await.unwrap();
        assert_eq!(handover.to_term, scope.term().number());
        assert!(handover.after.unwrap() < Duration::from_millis(500), "{handover:?}");
        assert_eq!(requests(&store), 0, "nothing is left behind");
        drop(scope);
        if !work_time.is_zero() {
            // It stays there.
            sleep(seconds(60)).await;
        }
        let back = operator(&store).hand_over(&lock(), PATIENCE).await.unwrap();
        assert_eq!((back.from.as_str(), back.to.as_str()), ("b", "a"));
        assert_eq!(back.from_term, handover.to_term);
        assert!(
            back.after.unwrap() < Duration::from_millis(500),
            "the former leader need not stay out any more: {back:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_replaced_after_the_wait_has_not_released_the_lock() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    let first = a.lead().await;
    first.term().states().store("poll", &serde_json::json!(1)).await.unwrap();
    work(&b, Duration::ZERO);
    sleep(seconds(1)).await;
    // It hears nothing of the request.
    a.handle.link().cut();
    let handover = operator(&store).hand_over(&lock(), seconds(60)).await.unwrap();
    assert_eq!((handover.from.as_str(), handover.to.as_str()), ("a", "b"));
    assert_eq!((handover.from_term, handover.after), (first.term().number(), None));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_nobody_else_takes_comes_back() {
    let store = store();
    let a = start(&store, "a");
    drop(a.lead().await);
    work(&a, Duration::ZERO);
    let started = Instant::now();
    let text = not_done(operator(&store).hand_over(&lock(), PATIENCE).await);
    assert!(text.contains("nobody else took `lock1` over: a released it after term"), "{text}");
    assert!(started.elapsed() < seconds(5), "{:?}", started.elapsed());
    assert_eq!(requests(&store), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_void_after_the_term_that_it_names() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    let scope = a.lead().await;
    // The leader does not hear of it before its term has ended in another way.
    a.handle.link().stall_watch(true);
    let asked = operator(&store).hand_over(&lock(), seconds(2)).await;
    assert!(not_done(asked).contains("a has not released `lock1`"));
    a.handle.link().stall_watch(false);
    drop(scope);
    let view = b.view().await;
    a.cluster.close().await;
    let scope = view.lead().await.unwrap();
    sleep(seconds(100)).await;
    assert!(scope.term().is_valid(), "the successor is not meant");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_handed_over_is_said() {
    let store = store();
    let operator = operator(&store);
    assert_eq!(not_asked(operator.hand_over(&lock(), PATIENCE).await), "nobody leads `lock1`");
    let other = "lock2".parse().unwrap();
    assert_eq!(
        not_asked(operator.hand_over(&other, PATIENCE).await),
        "there is no lock `lock2`; there are: lock1"
    );
    let a = start(&store, "a");
    let scope = a.lead().await;
    let text = not_done(operator.hand_over(&lock(), PATIENCE).await);
    assert!(text.contains("work under the lock is still running"), "{text}");
    drop(scope);
}

#[tokio::test(start_paused = true)]
async fn a_drained_member_gives_up_everything_and_takes_nothing_until_it_may_again() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    let operator = operator(&store);
    drop(a.lead().await);
    work(&a, seconds(3));
    let started = Instant::now();
    // The one member that can be meant: the other one never held anything.
    assert_eq!(operator.drain(None, PATIENCE).await.unwrap(), "a");
    assert!(started.elapsed() >= seconds(3), "it was done before its work had ended");
    assert!(*a.cluster.drained().borrow() && !*b.cluster.drained().borrow());
    assert_eq!(operator.drain(Some("host-of-a"), PATIENCE).await.unwrap(), "a", "once more is the same");
    let view = a.view().await;
    assert!(timeout(seconds(100), view.lead()).await.is_err(), "it takes the lock");
    // Its own program cannot let it go on.
    a.cluster.undrain();
    assert!(timeout(seconds(10), view.lead()).await.is_err(), "it takes the lock");
    let scope = b.lead().await;
    assert_eq!(operator.undrain(None).await.unwrap(), "a", "by whichever name it was asked");
    assert!(not_asked(operator.undrain(None).await).contains("drained are: none"));
    sleep(seconds(1)).await;
    assert!(!*a.cluster.drained().borrow());
    drop(scope);
    b.cluster.close().await;
    timeout(seconds(10), view.lead()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_standby_can_be_drained_by_its_host_and_a_member_that_comes_later_is_too() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    let operator = operator(&store);
    let scope = a.lead().await;
    let view = b.view().await;
    assert_eq!(operator.drain(Some("host-of-b"), PATIENCE).await.unwrap(), "b");
    b.cluster.close().await;
    let again = start(&store, "b");
    drop((scope, view));
    a.cluster.close().await;
    let view = again.view().await;
    assert!(timeout(seconds(100), view.lead()).await.is_err(), "it takes the lock");
    operator.undrain(None).await.unwrap();
    timeout(seconds(10), view.lead()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_members_on_one_host_are_drained_and_do_not_correct_one_another_for_ever() {
    let store = store();
    let start = |id: &str| {
        let member = Member { id: id.into(), host: Some("host".into()), pid: None };
        Process::start_as(&store, member, |settings| settings)
    };
    let (a, b) = (start("a"), start("b"));
    let done = operator(&store).drain(Some("host"), PATIENCE).await.unwrap();
    assert!(["a", "b"].contains(&done.as_str()), "{done}");
    sleep(seconds(60)).await;
    assert!(*a.cluster.drained().borrow() && *b.cluster.drained().borrow());
    let writes = a.handle.link().requests().writes + b.handle.link().requests().writes;
    assert!(writes <= 4, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_there_is_not_drained_and_those_who_are_there_are_named() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    drop(a.lead().await);
    a.cluster.drain().await;
    drop(b.lead().await);
    let operator = operator(&store);
    let text = not_asked(operator.drain(None, PATIENCE).await);
    assert_eq!(text, "it is not clear which member is meant; members that hold or have held something: a, b");
    let text = not_done(operator.drain(Some("c"), seconds(3)).await);
    assert!(text.contains("no member called c has answered within 3s"), "{text}");
    assert_eq!(requests(&store), 0);
}

#[tokio::test(start_paused = true)]
async fn an_operator_on_a_bad_network_and_members_on_a_bad_one_come_to_an_end() {
    let store = store();
    let (a, b) = (start(&store, "a"), start(&store, "b"));
    drop(a.lead().await);
    let bad = Faults {
        request_delay: Span::up_to(Duration::from_millis(300)),
        watch_delay: Span::up_to(Duration::from_millis(500)),
        break_watch: 20,
        end_watch: 20,
        ..Faults::default()
    };
    for process in [&a, &b] {
        process.handle.link().set(bad);
        work(process, Duration::from_millis(100));
    }
    let handle = store.handle(9);
    handle.link().set(bad);
    let operator = LeaseOperator::new(handle, &Settings::default());
    sleep(seconds(5)).await;
    let mut done = 0;
    for _ in 0..20 {
        match operator.hand_over(&lock(), PATIENCE).await {
            Ok(handover) => {
                assert_ne!(handover.from, handover.to);
                done += 1;
            }
            Err(error) => println!("{error}"),
        }
        sleep(seconds(5)).await;
    }
    // The others come back, because the other member needs longer than a heartbeat to claim: 11 to 17 with other seeds.
    assert!(done >= 10, "{done} of 20");
    assert_eq!(requests(&store), 0);
}

/// The first start of a lock owes a wait: until it is over, its claimant has nothing to hand over.
#[tokio::test(start_paused = true)]
async fn a_lock_that_is_being_taken_is_handed_over_when_it_is_led_or_said_to_be_waited_for() {
    for (patience, done) in [(seconds(5), false), (PATIENCE, true)] {
        // No member has led it yet.
        let store = MemoryStore::new();
        let (a, b) = (start(&store, "a"), start(&store, "b"));
        work(&a, Duration::ZERO);
        sleep(seconds(1)).await;
        work(&b, Duration::ZERO);
        sleep(seconds(1)).await;
        let asked = operator(&store).hand_over(&lock(), patience).await;
        assert_eq!(requests(&store), 0, "nothing is left behind");
        if done {
            let handover = asked.unwrap();
            assert_eq!((handover.from.as_str(), handover.to.as_str()), ("a", "b"));
            assert!(handover.after.unwrap() < Duration::from_millis(500), "{handover:?}");
        } else {
            let text = not_done(asked);
            assert!(
                text.starts_with("a has claimed `lock1` and has not led it within 5s: it waits"),
                "{text}"
            );
        }
    }
}
