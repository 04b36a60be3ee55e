//! `MemoryStore` gives what a `LeaseStore` must give, and its links do what they are told.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::time::Duration;

use cluster_lease::{
    Attempt, Change, Faults, LeaseStore, LeaseWatch, LockRecord, MemoryHandle, MemoryStore, Precondition,
    Span, StoreError, StoreKey, StoreRecord, Version, Write,
};
use router_core::cluster::LockName;
use tokio::time::{Instant, sleep, timeout};

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

fn write(expect: Precondition, term: u64) -> Write {
    let record =
        StoreRecord::Lock { record: LockRecord { term, ..LockRecord::RELEASED }, holder: None, term: None };
    Write::new(StoreKey::Lock(lock()), expect, record)
}

async fn put(handle: &MemoryHandle, expect: Precondition, term: u64) -> Result<Version, StoreError> {
    handle.write(write(expect, term), Attempt::default()).await
}

async fn term(handle: &MemoryHandle) -> Option<u64> {
    handle.read(&lock()).await.unwrap().map(|entry| entry.record.term)
}

async fn next(watch: &mut Box<dyn LeaseWatch>) -> (Version, Option<u64>) {
    match timeout(Duration::from_secs(100), watch.next()).await.unwrap().unwrap().unwrap() {
        Change::Record { version, record: Some(StoreRecord::Lock { record, .. }), .. } => {
            (version, Some(record.term))
        }
        other => (other.version(), None),
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_applied_only_as_of_the_version_that_it_names() {
    let handle = MemoryStore::new().handle(1);
    let first = put(&handle, Precondition::Absent, 1).await.unwrap();
    assert!(matches!(put(&handle, Precondition::Absent, 2).await, Err(StoreError::Conflict)));
    let second = put(&handle, Precondition::Version(first), 3).await.unwrap();
    assert!(second > first);
    assert!(matches!(put(&handle, Precondition::Version(first), 4).await, Err(StoreError::Conflict)));
    assert_eq!(term(&handle).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_watch_delivers_every_change_in_order_however_late_each_is() {
    let store = MemoryStore::new();
    let handle = store.handle(1);
    let late = Span::up_to(Duration::from_secs(5));
    handle.link().set(Faults { watch_delay: late, ..Faults::default() });
    let mut watch = handle.watch(0).await.unwrap();
    let mut version = put(&handle, Precondition::Absent, 0).await.unwrap();
    for term in 1..50 {
        version = put(&handle, Precondition::Version(version), term).await.unwrap();
    }
    store.touch();
    assert!(store.delete(&StoreKey::Lock(lock())));
    for term in 0..50 {
        assert_eq!(next(&mut watch).await, (term + 1, Some(term)));
    }
    assert_eq!((next(&mut watch).await, next(&mut watch).await), ((51, None), (52, None)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_has_missed_something_fails() {
    let store = MemoryStore::new();
    let handle = store.handle(1);
    put(&handle, Precondition::Absent, 0).await.unwrap();
    store.compact();
    assert!(handle.watch(0).await.unwrap().next().await.is_err());
    let mut watch = handle.watch(handle.list().await.unwrap().version).await.unwrap();
    store.touch();
    assert_eq!(next(&mut watch).await, (2, None));
    handle.link().break_watch();
    assert!(watch.next().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_outlives_its_caller() {
    let handle = MemoryStore::new().handle(1);
    let late = Span::exactly(Duration::from_secs(20));
    handle.link().set(Faults { request_delay: late, ..Faults::default() });
    assert!(timeout(Duration::from_secs(3), put(&handle, Precondition::Absent, 7)).await.is_err());
    handle.link().set(Faults::default());
    assert_eq!(term(&handle).await, None);
    sleep(Duration::from_secs(18)).await;
    assert_eq!(term(&handle).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_is_applied_again_if_it_can_be() {
    let store = MemoryStore::new();
    let handle = store.handle(1);
    let duplicate_delay = Span::exactly(Duration::from_secs(10));
    handle.link().set(Faults { duplicate: 100, duplicate_delay, ..Faults::default() });
    put(&handle, Precondition::Absent, 1).await.unwrap();
    store.delete(&StoreKey::Lock(lock()));
    sleep(Duration::from_secs(11)).await;
    assert_eq!(term(&handle).await, Some(1), "made again by the late copy of its creation");
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_says_nothing_and_a_mended_one_catches_up() {
    let store = MemoryStore::new();
    let (cut, other) = (store.handle(1), store.handle(2));
    let mut watch = cut.watch(0).await.unwrap();
    cut.link().cut();
    let start = Instant::now();
    assert!(timeout(Duration::from_secs(60), cut.list()).await.is_err());
    put(&other, Precondition::Absent, 1).await.unwrap();
    assert!(timeout(Duration::from_secs(60), watch.next()).await.is_err());
    assert_eq!(start.elapsed(), Duration::from_secs(120));
    cut.link().mend();
    assert_eq!(next(&mut watch).await, (1, Some(1)));
}
