//! The deadline holds although the runtime stands still: in real time, with the fast clock of this
//! machine and a timing as short as it can be.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and blocks on purpose")]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cluster_lease::{Faults, LeaseCluster, LeaseClusterSettings, MemoryStore, Settings, Span};
use router_core::cluster::{ClusterService, LockName, Member};
use tokio::runtime::Builder;

const X: Duration = Duration::from_millis(1_500);
const Y: Duration = Duration::from_millis(1_000);
const STOP: Duration = Duration::from_millis(400);
const T: Duration = Duration::from_millis(300);

fn settings(name: &str) -> LeaseClusterSettings {
    LeaseClusterSettings::new(Member::new(name)).timing(Settings::new(X, Y, STOP, T, 10_000).unwrap())
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

#[test]
fn a_term_ends_at_its_deadline_while_the_runtime_is_blocked() {
    let store = MemoryStore::new();
    store.create_free(&lock());
    let handle = store.handle(1);
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let cluster = LeaseCluster::start(handle.clone(), settings("a").strict(false)).unwrap();
        let view = cluster.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        // What counts is when a heartbeat was sent, not when its echo came.
        let late = Span::exactly(Duration::from_millis(250));
        handle.link().set(Faults { watch_delay: late, ..Faults::default() });
        tokio::time::sleep(T * 5).await;
        let term = scope.term().clone();
        let writes = handle.link().requests().writes;
        while handle.link().requests().writes == writes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sent = Instant::now();
        tokio::time::sleep(Duration::from_millis(280)).await;
        let observer = thread::spawn(move || {
            while term.is_valid() {
                thread::sleep(Duration::from_micros(200));
            }
            (Instant::now(), term)
        });
        let lost = scope.term().clone();
        let sleeper = thread::spawn(move || {
            // Another runtime stands for whoever can still be woken.
            Builder::new_current_thread().enable_time().build().unwrap().block_on(lost.lost());
            Instant::now()
        });
        thread::sleep(X);
        let (ended, _term) = observer.join().unwrap();
        let woken = sleeper.join().unwrap();
        for (what, at) in [("the check", ended), ("the wake-up", woken)] {
            let after = at - sent;
            // The observer may be late on a busy machine, but by less than the echo was.
            assert!(Y - T <= after && after <= Y + Duration::from_millis(150), "{what}: {after:?}");
        }
        drop(scope);
    });
}

/// Not a test of its own: what the next one runs in a process that may die.
#[test]
fn child_that_blocks_its_runtime_under_a_term() {
    let Ok(strict) = std::env::var("BLOCKED_CHILD_STRICT") else { return };
    let store = MemoryStore::new();
    store.create_free(&lock());
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let settings = settings("a").strict(strict == "true");
        let cluster = LeaseCluster::start(store.handle(1), settings).unwrap();
        let view = cluster.view(&lock()).await.unwrap();
        let _scope = view.lead().await.unwrap();
        thread::sleep(X * 2);
    });
}

fn run_child(strict: bool) -> (std::process::Output, Duration) {
    let started = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_blocks_its_runtime_under_a_term", "--nocapture"])
        .env("BLOCKED_CHILD_STRICT", strict.to_string())
        .output()
        .unwrap();
    (output, started.elapsed())
}

#[test]
fn a_strict_process_does_not_outlive_its_term_and_another_does() {
    use std::os::unix::process::ExitStatusExt;
    let (output, lived) = run_child(true);
    assert_eq!(output.status.signal(), Some(6), "it was aborted: {output:?}");
    assert!(lived < X * 2, "{lived:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("work under `lock1`, term ") && text.contains("outlives its leadership"), "{text}");
    let (output, _) = run_child(false);
    assert!(output.status.success(), "{output:?}");
}
