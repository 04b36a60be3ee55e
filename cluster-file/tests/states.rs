//! What the file cluster promises about states: they travel with the lock, and never go back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_file::{FileCluster, FileClusterSettings};
use router_core::cluster::{ClusterService, LeaderScope, LockName};
use router_core::state::StateError;
use serde_json::json;
use tokio::time::timeout;

fn lock1() -> LockName {
    "lock1".parse().unwrap()
}

async fn join(root: &Path, id: &str) -> Arc<FileCluster> {
    FileCluster::open(FileClusterSettings::new(root).member(id)).await.unwrap()
}

async fn lead(cluster: &FileCluster) -> LeaderScope {
    let view = cluster.view(&lock1()).await.unwrap();
    timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_next_leader_finds_what_the_last_one_stored() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let scope = lead(&a).await;
    let old = scope.term().states();
    assert_eq!(old.load("poll").await.unwrap(), None);
    old.store("poll", &json!({ "offset": 7 })).await.unwrap();
    old.store("cron", &json!("noon")).await.unwrap();
    let view = b.view(&lock1()).await.unwrap();
    let closing = async {
        scope.term().lost().await;
        // The exchange in hand is finished, and noted, after the term has ended and before the release.
        old.store("poll", &json!({ "offset": 8 })).await.unwrap();
        drop(scope);
    };
    tokio::join!(a.close(), closing);
    let scope = view.lead().await.unwrap();
    let new = scope.term().states();
    assert_eq!(new.load("poll").await.unwrap(), Some(json!({ "offset": 8 })));
    assert_eq!(new.load("cron").await.unwrap(), Some(json!("noon")));
    for round in 0..2 {
        let refused = old.store("poll", &json!({ "offset": 1 })).await;
        assert!(matches!(refused, Err(StateError::Deposed(_))), "{round}: {refused:?}");
        assert_eq!(new.load("poll").await.unwrap(), Some(json!({ "offset": 8 })));
        new.store("cron", &json!("midnight")).await.unwrap();
    }
}

#[tokio::test]
async fn a_leader_whose_file_was_deleted_stores_nothing_even_if_the_file_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let old = lead(&a).await;
    let states = old.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    let (path, away) = (root.path().join("lock1.lock"), root.path().join("away"));
    fs::rename(&path, &away).unwrap();
    assert!(matches!(states.store("poll", &json!(2)).await, Err(StateError::Deposed(_))));
    let new = lead(&b).await;
    new.term().states().store("poll", &json!(3)).await.unwrap();
    // Its record is in its file, and its file at its place: only the number of the term tells.
    fs::rename(&away, &path).unwrap();
    assert!(matches!(states.store("poll", &json!(4)).await, Err(StateError::Deposed(_))));
    assert_eq!(states.load("poll").await.unwrap(), Some(json!(3)));
}

#[tokio::test]
async fn a_leader_waits_for_a_store_of_its_predecessor_that_was_held_up() {
    let root = tempfile::tempdir().unwrap();
    let a = join(root.path(), "a").await;
    let scope = lead(&a).await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    // As a predecessor does that is paused between its look and its write.
    let held_up = fs::File::open(root.path().join("states/.lock1.lock")).unwrap();
    held_up.lock().unwrap();
    let mut loading = states.load("poll");
    assert!(timeout(Duration::from_millis(50), &mut loading).await.is_err());
    held_up.unlock().unwrap();
    assert_eq!(loading.await.unwrap(), Some(json!(1)));
}

#[tokio::test]
async fn a_damaged_state_is_an_error_and_not_a_new_beginning() {
    let root = tempfile::tempdir().unwrap();
    let a = join(root.path(), "a").await;
    let scope = lead(&a).await;
    let states = scope.term().states();
    states.store("poll", &json!(1)).await.unwrap();
    fs::write(root.path().join("states/lock1.json"), "{").unwrap();
    for result in [states.load("poll").await.map(drop), states.store("poll", &json!(2)).await] {
        assert!(result.unwrap_err().to_string().contains("states/lock1.json"));
    }
}
