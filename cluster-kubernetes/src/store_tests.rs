//! The store against a server that answers in all the ways that servers do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster_lease::{
    Attempt, Change, Death, LeaseStore, LockRecord, Precondition, SessionId, SessionRecord, StoreError,
    StoreKey, StoreRecord, Version, Write,
};
use http::Method;
use router_core::cluster::Member;

use crate::codec::Codec;
use crate::fake_api_server::{FakeServer, Fault};
use crate::names::Group;
use crate::shared::Shared;
use crate::store::KubernetesStore;

const FREE: StoreRecord = StoreRecord::Lock { record: LockRecord::RELEASED, holder: None, term: None };
const LEASE: &str = "bactrian.lock.lock1";

fn shared(server: &Arc<FakeServer>) -> Arc<Shared> {
    let codec = Codec { group: Group::default(), owner: None, takeover_wait_seconds: 15 };
    Arc::new(Shared::new(server.clients(), "shop".into(), codec))
}

fn store(server: &Arc<FakeServer>) -> KubernetesStore {
    KubernetesStore::new(shared(server))
}

fn key() -> StoreKey {
    StoreKey::Lock("lock1".parse().unwrap())
}

async fn write(store: &KubernetesStore, expect: Precondition, term: u64) -> Result<Version, StoreError> {
    let record =
        StoreRecord::Lock { record: LockRecord { term, ..LockRecord::UNKNOWN }, holder: None, term: None };
    store.write(Write::new(key(), expect, record), Attempt::default()).await
}

#[tokio::test(start_paused = true)]
async fn writes_are_applied_only_to_what_was_seen() {
    let server = FakeServer::new();
    let (one, two) = (store(&server), store(&server));
    let first = write(&one, Precondition::Absent, 1).await.unwrap();
    assert!(matches!(write(&two, Precondition::Absent, 1).await, Err(StoreError::Conflict)));
    let listed = two.list().await.unwrap();
    assert_eq!((listed.version, listed.entries[0].version), (first, first));
    let second = write(&two, Precondition::Version(first), 2).await.unwrap();
    assert!(second > first);
    assert!(matches!(write(&one, Precondition::Version(first), 3).await, Err(StoreError::Conflict)));
    assert_eq!(one.read(&"lock1".parse().unwrap()).await.unwrap().unwrap().record.term, 2);
    // One that was deleted is not made again by a write that belongs to the one before.
    server.delete(LEASE);
    assert!(matches!(write(&two, Precondition::Version(second), 4).await, Err(StoreError::Conflict)));
    assert_eq!(server.lease(LEASE), None);
    assert_eq!(two.read(&"lock1".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_which_nothing_comes_any_more_fails_after_minutes() {
    let server = FakeServer::new();
    let store = store(&server);
    let listed = store.list().await.unwrap();
    server.script(|_| Fault::Deaf);
    let mut watch = store.watch(listed.version).await.unwrap();
    write(&store, Precondition::Absent, 1).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(600), watch.next()).await;
    assert!(matches!(next.expect("it ends"), Err(StoreError::Unknown(..))));
}

#[tokio::test(start_paused = true)]
async fn the_watch_tells_changes_deletions_and_bookmarks_in_order() {
    let server = FakeServer::new();
    let store = store(&server);
    let listed = store.list().await.unwrap();
    let mut watch = store.watch(listed.version).await.unwrap();
    let made = write(&store, Precondition::Absent, 1).await.unwrap();
    server.delete(LEASE);
    server.bookmark();
    let record =
        StoreRecord::Lock { record: LockRecord { term: 1, ..LockRecord::UNKNOWN }, holder: None, term: None };
    let mut next = async || format!("{:?}", watch.next().await.unwrap().unwrap());
    let change = |version, record| format!("{:?}", Change::Record { version, key: key(), record });
    assert_eq!(next().await, change(made, Some(record)));
    assert_eq!(next().await, change(made + 1, None));
    assert_eq!(next().await, format!("{:?}", Change::Bookmark { version: made + 2 }));
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_version_fails() {
    let server = FakeServer::new();
    let store = store(&server);
    let listed = store.list().await.unwrap();
    write(&store, Precondition::Absent, 1).await.unwrap();
    server.compact();
    let error = store.watch(listed.version).await.err().unwrap();
    assert!(error.to_string().contains("410"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_no_word_of_the_state_is_unknown() {
    let server = FakeServer::new();
    let store = store(&server);
    let faults = [
        Fault::Refuse(429, "TooManyRequests"),
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "ServiceUnavailable"),
        Fault::Refuse(409, "SomethingElse"),
        Fault::Refuse(403, "Forbidden"),
        Fault::Garble("<html>it works</html>"),
        Fault::Garble(""),
        Fault::Garble("{}"),
        Fault::Garble(r#"{"metadata": {"name": "bactrian.lock.lock1", "resourceVersion": "soon"}}"#),
    ];
    for fault in faults {
        let asked = fault.clone();
        server.script(move |_| asked.clone());
        let error = write(&store, Precondition::Absent, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unknown(..)), "{fault:?}: {error}");
        let list = store.list().await;
        assert!(matches!(list, Err(StoreError::Unknown(..))), "{fault:?}: {list:?}");
        server.script(|_| Fault::None);
        server.delete(LEASE);
    }
    // The library below must not try again by itself: what was sent when is the election's business.
    server.seen.lock().unwrap().clear();
    server.script(|_| Fault::Refuse(429, "TooManyRequests"));
    assert!(write(&store, Precondition::Absent, 1).await.is_err());
    assert_eq!(server.seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_not_the_last_word() {
    let server = FakeServer::new();
    let store = store(&server);
    server.script(|seen| if seen.method == Method::POST { Fault::LoseAnswer } else { Fault::None });
    let patience = Duration::from_secs(3);
    assert!(tokio::time::timeout(patience, write(&store, Precondition::Absent, 1)).await.is_err());
    assert!(matches!(write(&store, Precondition::Version(1), 1).await, Err(StoreError::Conflict)));
    let listed = store.list().await.unwrap();
    assert_eq!(listed.entries.len(), 1);
    write(&store, Precondition::Version(listed.entries[0].version), 2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_take_turns_but_heartbeats_do_not_wait() {
    let server = FakeServer::new();
    let store = Arc::new(store(&server));
    server.script(|seen| if seen.method == Method::GET { Fault::Stall } else { Fault::None });
    let stalled = (0..4).map(|_| {
        let store = Arc::clone(&store);
        Box::pin(async move { store.list().await })
    });
    let stalled = futures_util::future::join_all(stalled);
    let heartbeat = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let write = Write::new(key(), Precondition::Absent, FREE);
        let ordinary = store.write(write.clone(), Attempt::default());
        assert!(tokio::time::timeout(Duration::from_secs(1), ordinary).await.is_err());
        store.write(write, Attempt { heartbeat: true, fresh_connection: false }).await.unwrap();
    };
    tokio::select! {
        biased;
        () = heartbeat => {}
        _ = stalled => panic!("nobody answers"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_is_a_new_client() {
    let server = FakeServer::new();
    let store = store(&server);
    let beat = async |version, fresh_connection| {
        let expect = if version == 0 { Precondition::Absent } else { Precondition::Version(version) };
        let record = StoreRecord::Lock {
            record: LockRecord { term: version, ..LockRecord::RELEASED },
            holder: None,
            term: None,
        };
        let attempt = Attempt { heartbeat: true, fresh_connection };
        store.write(Write::new(key(), expect, record), attempt).await.unwrap()
    };
    let first = beat(0, false).await;
    let second = beat(first, false).await;
    assert_eq!(server.clients_made(), 1);
    beat(second, true).await;
    assert_eq!(server.clients_made(), 2);
    store.list().await.unwrap();
    assert_eq!(server.clients_made(), 3, "a list goes over other connections than a heartbeat");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_of_a_lock_that_was_deleted_and_made_again() {
    let server = FakeServer::new();
    let store = store(&server);
    write(&store, Precondition::Absent, 1).await.unwrap();
    store.list().await.unwrap();
    server.delete(LEASE);
    let free = crate::codec::bare_lock(&Group::default(), &"lock1".parse().unwrap());
    let api = kube::Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), &free).await.unwrap();
    // To a member that has seen it led as to one that starts now: its last leader may not know yet.
    for store in [&store, &self::store(&server)] {
        let listed = store.list().await.unwrap();
        let StoreRecord::Lock { record, .. } = &listed.entries[0].record else { panic!() };
        assert_eq!(*record, LockRecord::UNKNOWN);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_was_seen_is_deleted_and_only_with_the_right() {
    let server = FakeServer::new();
    let one = store(&server);
    let first = write(&one, Precondition::Absent, 1).await.unwrap();
    one.delete(key(), first).await.unwrap();
    assert!(server.lease(LEASE).is_some(), "without the right nothing is asked");
    assert!(server.seen.lock().unwrap().iter().all(|seen| seen.method != Method::DELETE));
    one.allow_deletion();
    let second = write(&store(&server), Precondition::Absent, 1).await;
    assert!(second.is_err());
    let (other, edited) = (store(&server), 2);
    other.list().await.unwrap();
    let second = write(&other, Precondition::Version(first), edited).await.unwrap();
    assert!(one.delete(key(), first).await.is_err(), "it has changed since");
    assert!(server.lease(LEASE).is_some());
    one.list().await.unwrap();
    one.delete(key(), second).await.unwrap();
    assert_eq!(server.lease(LEASE), None);
}

/// Lists and the beginnings of watches tell of them, once, and again when there are twice as many.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_left_are_told_at_the_start_and_when_they_have_doubled() {
    let server = FakeServer::new();
    let ended = async |incarnation| {
        let key = StoreKey::Session(SessionId { incarnation, generation: 0 });
        let record = SessionRecord { seq: 1, dead: Some(Death::Expired), limits: None };
        let record = StoreRecord::Session { record, member: Member::new("gone") };
        store(&server).write(Write::new(key, Precondition::Absent, record), Attempt::default()).await.unwrap()
    };
    let told = async |shared: &Arc<Shared>| {
        KubernetesStore::new(Arc::clone(shared)).list().await.unwrap();
        shared.reported_left_over.load(Ordering::Relaxed)
    };
    let (first, second) = (shared(&server), shared(&server));
    assert_eq!(told(&first).await, 0);
    ended(1).await;
    assert_eq!(told(&first).await, 1, "one is said, too");
    assert_eq!(first.news_of_left_over(), None, "and not again");
    ended(2).await;
    let at = ended(3).await;
    assert_eq!((told(&first).await, told(&second).await), (3, 3), "so does a member that starts now");
    ended(4).await;
    assert_eq!(told(&first).await, 3, "not each of them");
    ended(5).await;
    let last = ended(6).await;
    let store = KubernetesStore::new(Arc::clone(&first));
    let mut watch = store.watch(at).await.unwrap();
    while !matches!(watch.next().await.unwrap(), Some(Change::Record { version, .. }) if version == last) {}
    drop(store.watch(last).await.unwrap());
    assert_eq!(first.reported_left_over.load(Ordering::Relaxed), 6, "the next watch");
    let deleting = shared(&server);
    deleting.may_delete.store(true, Ordering::Relaxed);
    assert_eq!(told(&deleting).await, 0, "it removes them");
}
