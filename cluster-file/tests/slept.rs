//! A process that sleeps while its files are deleted. As SIGSTOP does to a process, a thread that blocks keeps all
//! tasks of its runtime from running; here the one that watches the files cannot be faster than the check.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::time::Duration;

use cluster_file::{FileCluster, FileClusterSettings, Timing};
use router_core::cluster::ClusterService;

const SHORT: Duration = Duration::from_millis(50);

#[expect(clippy::disallowed_methods, reason = "to block the runtime is what the test is about")]
fn sleep_as_a_process() {
    std::thread::sleep(4 * SHORT);
}

#[tokio::test]
async fn a_term_that_slept_looks_at_its_files_before_it_admits_work() {
    for (without_events, comes_back) in [(false, false), (false, true), (true, false), (true, true)] {
        let root = tempfile::tempdir().unwrap();
        let mut settings = FileClusterSettings::new(root.path()).member("a");
        settings.without_events = without_events;
        settings.timing = Timing { recheck: SHORT, drain: 20 * SHORT, margin: SHORT };
        let a = FileCluster::open(settings).await.unwrap();
        let view = a.view(&"lock1".parse().unwrap()).await.unwrap();
        let scope = view.lead().await.unwrap();
        sleep_as_a_process();
        scope.term().admit().unwrap();
        scope.term().check().unwrap();
        let (file, aside) = (root.path().join("lock1.lock"), root.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        sleep_as_a_process();
        if comes_back {
            fs::rename(&aside, &file).unwrap();
        }
        let told = format!("without events: {without_events}, comes back: {comes_back}");
        assert!(scope.term().admit().is_err(), "{told}");
        assert!(scope.term().check().is_err(), "{told}");
        assert!(scope.term().enter().is_err(), "{told}");
        scope.term().lost().await;
    }
}

#[tokio::test]
async fn a_root_that_went_while_a_process_slept_is_seen_too() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("root");
    let mut settings = FileClusterSettings::new(&root).member("a");
    settings.timing = Timing { recheck: SHORT, drain: SHORT, margin: SHORT };
    let a = FileCluster::open(settings).await.unwrap();
    let scope = a.view(&"lock1".parse().unwrap()).await.unwrap().lead().await.unwrap();
    fs::rename(&root, parent.path().join("moved")).unwrap();
    sleep_as_a_process();
    assert!(scope.term().check().is_err());
    // Others do not wait for the work longer than the file was gone: it may not go on as if it were new.
    let begun = std::time::Instant::now();
    scope.term().expired().await;
    assert!(begun.elapsed() < SHORT / 2, "{:?}", begun.elapsed());
}
