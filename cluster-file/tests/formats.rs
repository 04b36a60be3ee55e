//! What any version of the program has ever written is read; what a newer one may write is left alone.
//!
//! `formats/` has a sample of each. Another one is added when a format changes, and none is ever changed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster_file::{FileCluster, FileClusterSettings, drained, locks, members};
use router_core::cluster::{ClusterService, LockName};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

fn lock1() -> LockName {
    "lock1".parse().unwrap()
}

fn sample(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)).unwrap()
}

fn samples(kind: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names =
        names.filter(|name| name.starts_with(kind) && !name.contains("newer")).collect::<Vec<_>>();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    names
}

/// A directory with the record of an earlier leader in it.
fn led_before(record: &str) -> (TempDir, PathBuf) {
    let root = TempDir::new().unwrap();
    let path = root.path().join("lock1.lock");
    fs::write(&path, "").unwrap();
    let metadata = fs::metadata(&path).unwrap();
    let born =
        metadata.created().ok().map(|born| born.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos());
    let record = record.replace("FILE", &metadata.ino().to_string());
    let written = (metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000).to_string();
    let record = record.replace("BORN", &born.map_or("null".to_owned(), |born| born.to_string()));
    fs::write(&path, record.replace("WRITTEN", &written)).unwrap();
    fs::write(root.path().join("terms"), "8\n").unwrap();
    (root, path)
}

async fn join(root: &Path, id: &str) -> Arc<FileCluster> {
    FileCluster::open(FileClusterSettings::new(root).member(id)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn records_of_leaders_vouch_for_their_files_in_every_format() {
    for name in samples("lock-") {
        let (root, _) = led_before(&sample(&name));
        assert_eq!(locks(root.path()).unwrap()[0].term, 5, "{name}");
        // Not alone, so that only the record tells that no earlier file is led.
        let _other = join(root.path(), "other").await;
        let a = join(root.path(), "a").await;
        let begun = Instant::now();
        let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: {:?}", begun.elapsed());
        assert!(scope.term().number() > 8, "{name}");
        assert!(scope.term().why().contains("which led in term 5, ended"), "{name}: {}", scope.term().why());
    }
}

/// An empty file, or one that something else wrote, is no evidence that it was never led.
#[tokio::test(start_paused = true)]
async fn what_is_no_record_is_no_evidence() {
    let of_another_file = sample("lock-2.json").replace("FILE", "1");
    for text in ["", "\n", "{", "{}", "null", "7", "{\"format\":1}", &of_another_file] {
        let (root, _) = led_before(text);
        let _other = join(root.path(), "other").await;
        let a = join(root.path(), "a").await;
        let view = a.view(&lock1()).await.unwrap();
        assert!(timeout(Duration::from_secs(4), view.lead()).await.is_err(), "{text:?}");
        timeout(Duration::from_secs(2), view.lead()).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_program_is_left_alone() {
    let (root, path) = led_before(&sample("lock-newer.json"));
    let a = join(root.path(), "a").await;
    let view = a.view(&lock1()).await.unwrap();
    assert!(timeout(Duration::from_secs(600), view.lead()).await.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), sample("lock-newer.json"));
    fs::remove_file(path).unwrap();
    timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_are_seen_in_every_format() {
    for name in samples("member-").into_iter().chain(["member-newer.json".to_owned()]) {
        let root = TempDir::new().unwrap();
        let _a = join(root.path(), "a").await;
        let path = root.path().join("members/host1-101");
        fs::write(&path, sample(&name)).unwrap();
        let alive = fs::File::open(path).unwrap();
        alive.lock().unwrap();
        let ids = || {
            members(root.path()).unwrap().into_iter().map(|member| member.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(), ["a", "host1-101"], "{name}");
    }
}

/// A request is a file of its own, which is read by members of any version.
#[tokio::test(start_paused = true)]
async fn requests_of_operators_are_heard_in_every_format() {
    let root = TempDir::new().unwrap();
    let a = join(root.path(), "host1-101").await;
    let view = a.view(&lock1()).await.unwrap();
    let scope = view.lead().await.unwrap();
    let term = scope.term().number();
    let request = sample("handover-1.json").replace("TERM", &term.to_string());
    fs::write(root.path().join("lock1.handover"), request).unwrap();
    timeout(Duration::from_secs(60), scope.term().lost()).await.expect("it gives the lock up");
    drop(scope);
    // No other member wants it, and the next term is not the one that was asked for.
    let scope = timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
    assert!(timeout(Duration::from_secs(60), scope.term().lost()).await.is_err());

    fs::write(root.path().join("host1-101.drain"), sample("drain-1.json")).unwrap();
    assert_eq!(drained(root.path()).unwrap(), ["host1-101"]);
    timeout(Duration::from_secs(60), scope.term().lost()).await.expect("it gives the lock up");
    drop(scope);
    assert!(timeout(Duration::from_secs(60), view.lead()).await.is_err());
    fs::remove_file(root.path().join("host1-101.drain")).unwrap();
    timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
}

/// Of a member of a newer program it is not known how long it needs to end when a file is gone.
#[tokio::test(start_paused = true)]
async fn a_file_without_a_history_leads_no_member_while_one_of_a_newer_program_lives() {
    let other_types = r#"{"format":3,"id":["host1",101],"host":7,"ends_within_ms":"3s"}"#.to_owned();
    for record in [sample("member-newer.json"), other_types, r#"{"format":3}"#.to_owned()] {
        let root = TempDir::new().unwrap();
        let _other = join(root.path(), "other").await;
        let path = root.path().join("members/host1-101");
        fs::write(&path, &record).unwrap();
        let newer = fs::File::open(path).unwrap();
        newer.lock().unwrap();
        let a = join(root.path(), "a").await;
        let view = a.view(&lock1()).await.unwrap();
        assert!(timeout(Duration::from_secs(600), view.lead()).await.is_err(), "{record}");
        drop(newer);
        timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn states_are_read_in_every_format_and_left_alone_in_a_newer_one() {
    for name in samples("states-") {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("states")).unwrap();
        fs::write(root.path().join("states/lock1.json"), sample(&name)).unwrap();
        let a = join(root.path(), "a").await;
        let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
        assert!(scope.term().number() > 5, "{name}");
        let states = scope.term().states();
        assert_eq!(states.load("poll").await.unwrap(), Some(json!({ "offset": 7 })), "{name}");
        states.store("poll", &json!(8)).await.unwrap();
    }
    let root = TempDir::new().unwrap();
    let path = root.path().join("states/lock1.json");
    fs::create_dir(root.path().join("states")).unwrap();
    let a = join(root.path(), "a").await;
    let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
    fs::write(&path, sample("states-newer.json")).unwrap();
    let error = scope.term().states().store("poll", &json!(8)).await.unwrap_err().to_string();
    assert!(error.contains("states/lock1.json") && error.contains("format 3"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), sample("states-newer.json"));
    drop(scope);
    a.close().await;
    let b = join(root.path(), "b").await;
    let view = b.view(&lock1()).await.unwrap();
    assert!(timeout(Duration::from_millis(300), view.lead()).await.is_err(), "it leads, and cannot work");
}
