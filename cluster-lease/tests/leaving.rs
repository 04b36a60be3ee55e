//! How members leave, and what they leave behind, under paused time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_lease::{MemoryStore, StoreKey};
use process::{Process, seconds, store};
use router_core::cluster::{ClusterService, Member};
use tokio::time::{Instant, sleep, timeout};

const X: Duration = Duration::from_secs(15);
const T: Duration = Duration::from_millis(3_100);

/// A process that draws these numbers for itself, one after the other, and then the last one again.
fn start(store: &MemoryStore, name: &str, numbers: &'static [u128]) -> Process {
    let drawn = AtomicUsize::new(0);
    let draw = move || numbers[drawn.fetch_add(1, Ordering::Relaxed).min(numbers.len() - 1)];
    Process::start_as(store, Member::new(name), |settings| settings.incarnations(draw))
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_store_is_gone_closes_and_drains_when_its_deadline_has_passed() {
    for close in [true, false] {
        let store = store();
        let a = start(&store, "a", &[1]);
        let view = a.view().await;
        let scope = view.lead().await.unwrap();
        sleep(seconds(100)).await;
        a.handle.link().cut();
        let asked = Instant::now();
        let end = async { if close { a.cluster.close().await } else { a.cluster.drain().await } };
        let (ended, ()) = tokio::join!(timeout(seconds(60), end), async {
            // Work that is running is waited for all the same.
            sleep(seconds(13)).await;
            drop(scope);
        });
        ended.unwrap();
        let elapsed = asked.elapsed();
        assert!(seconds(13) <= elapsed && elapsed <= seconds(14), "{elapsed:?}");
        let b = start(&store, "b", &[2]);
        b.lead().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_closes_ends_its_session_and_a_leader_removes_what_ended_long_ago() {
    let store = store();
    let sessions = || {
        let entries = store.listing().entries.into_iter();
        entries.filter(|entry| matches!(entry.key, StoreKey::Session(_))).count()
    };
    const NUMBERS: &[u128] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    for number in NUMBERS {
        let a = start(&store, "a", std::slice::from_ref(number));
        drop(a.lead().await);
        a.cluster.close().await;
    }
    assert_eq!(sessions(), 20);
    let b = start(&store, "b", &[21]);
    let scope = b.lead().await;
    sleep(seconds(1)).await;
    let listed = b.cluster.sessions().borrow().clone();
    assert_eq!(listed.len(), 1, "the dead are not listed: {listed:?}");
    assert_eq!(sessions(), 21, "they are not removed before everybody has seen that they are dead");
    sleep(X * 10 + T * 25).await;
    assert_eq!(sessions(), 1);
    assert!(scope.term().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_draws_the_number_of_another_draws_again() {
    let store = store();
    let a = start(&store, "a", &[42]);
    let scope = a.lead().await;
    let b = start(&store, "b", &[42, 42, 43]);
    let standing_by = b.view().await;
    assert!(timeout(seconds(300), standing_by.lead()).await.is_err());
    assert!(scope.term().is_valid(), "the first one notices nothing");
    drop(scope);
    a.cluster.close().await;
    let scope = timeout(seconds(1), standing_by.lead()).await.unwrap().unwrap();
    let sessions = b.cluster.sessions().borrow().clone();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].0.incarnation, 43);
    assert!(scope.term().is_valid());
}
