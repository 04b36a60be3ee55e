//! What a member can tell of itself: which locks it wants, how its terms ended, and whether its loop runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cluster_lease::{
    Clock, Clocks, LeaseCluster, LeaseClusterSettings, MemoryHandle, MemoryStore, StoreKey, SystemClock,
    TokioClock,
};
use router_core::cluster::{ClusterService, LeaderScope, Leadership, LockName, Member, TermEnd};
use tokio::time::timeout;

fn lock(name: &str) -> LockName {
    name.parse().unwrap()
}

fn start(store: &MemoryStore, clock: impl Clock) -> (Arc<LeaseCluster>, MemoryHandle) {
    // These tests hold scopes for longer than is allowed, and want to live.
    let settings = LeaseClusterSettings::new(Member::new("a")).clock(Arc::new(clock)).strict(false);
    let handle = store.handle(1);
    (LeaseCluster::start(handle.clone(), settings).unwrap(), handle)
}

async fn lead(cluster: &LeaseCluster) -> LeaderScope {
    cluster.view(&lock("lock1")).await.unwrap().lead().await.unwrap()
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    store.create_free(&lock("lock1"));
    store
}

#[tokio::test(start_paused = true)]
async fn each_wanted_lock_is_told_with_who_leads_it() {
    let store = store();
    let (cluster, _) = start(&store, TokioClock::default());
    assert!(cluster.leaderships().is_empty());
    let scope = lead(&cluster).await;
    let other = cluster.view(&lock("lock2")).await.unwrap();
    let mut told = cluster.leaderships();
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    let [(first, Leadership::Leader(term)), (second, Leadership::Vacant(_))] = &*told else {
        panic!("{told:?}");
    };
    assert_eq!((first.as_str(), second.as_str()), ("lock1", "lock2"));
    assert_eq!((term.number(), term.why()), (scope.term().number(), "the lock was free"));
    drop(other);
    assert_eq!(cluster.leaderships().len(), 1, "a lock that nobody wants any more is not told");
}

#[tokio::test(start_paused = true)]
async fn a_term_says_whether_it_was_given_up_or_taken_away_or_has_expired() {
    let store = store();
    let (cluster, link) = start(&store, TokioClock::default());
    let view = cluster.view(&lock("lock1")).await.unwrap();

    let scope = view.lead().await.unwrap();
    assert_eq!(scope.term().ended(), None);
    view.resign(Duration::from_secs(1));
    scope.term().lost().await;
    assert_eq!(scope.term().ended(), Some(TermEnd::Released));
    drop(scope);

    let scope = view.lead().await.unwrap();
    assert!(store.delete(&StoreKey::Lock(lock("lock1"))));
    scope.term().lost().await;
    // The watch tells of the loss before the deadline.
    assert_eq!(scope.term().ended(), Some(TermEnd::Lost));
    drop(scope);

    let scope = view.lead().await.unwrap();
    link.link().cut();
    scope.term().lost().await;
    // Who waits is woken at the deadline, and the sentinel, which says so, at the same time.
    scope.term().expired().await;
    assert_eq!(scope.term().ended(), Some(TermEnd::Expired));
}

/// The clocks of this machine, which do not answer while the gate is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn close(&self, closed: bool) {
        *self.0.0.lock().unwrap() = closed;
        self.0.1.notify_all();
    }
}

impl Clock for Gate {
    fn now(&self) -> Clocks {
        let (closed, opened) = &*self.0;
        drop(opened.wait_while(closed.lock().unwrap(), |closed| *closed).unwrap());
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_is_stuck_does_not_answer() {
    let gate = Gate::default();
    let (cluster, _) = start(&store(), gate.clone());
    let scope = lead(&cluster).await;
    cluster.check_alive().await.unwrap();
    gate.close(true);
    // The loop asks for the time, and waits.
    let _view = cluster.view(&lock("lock2")).await.unwrap();
    let asked = timeout(Duration::from_millis(200), cluster.check_alive()).await;
    gate.close(false);
    assert!(asked.is_err(), "it answered while it was stuck");
    cluster.check_alive().await.unwrap();
    drop(scope);
    cluster.close().await;
    cluster.check_alive().await.expect("who leaves in order is not unwell");
}
