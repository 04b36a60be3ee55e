//! What a process does that is asked by SIGHUP to read its routes again.

use std::net::SocketAddr;

use http::StatusCode;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, get, status};
use crate::{CLOCK, metrics};

fn start(folder: &TempDir) -> (Process, SocketAddr) {
    let route = ("clock", CLOCK, "{ log = 'first' }");
    let mut process = Process::start(folder, &[route], &["admin.listen=127.0.0.1:0"]);
    let at = process.address();
    (process, at)
}

/// Changes the file of the routes.
fn edit(folder: &TempDir, from: &str, to: &str) {
    let file = folder.path().join("routes.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_leader_that_reads_its_routes_again_leads_on_in_the_same_term() {
    let folder = tempfile::tempdir().unwrap();
    let (mut leader, leader_at) = start(&folder);
    leader.wait_for("first");
    let (mut standby, standby_at) = start(&folder);
    standby.wait_for("standing by for `lock1`");
    let term = metrics::value(leader_at, "bactrian_leader_term{lock=\"lock1\"}").await.unwrap();
    edit(&folder, "'first'", "'second'");
    for process in [&mut leader, &mut standby] {
        process.signal(Signal::HUP);
        process.wait_for("the routes were read again: replaced clock; 0 unchanged");
    }
    leader.wait_for("second");
    for at in [leader_at, standby_at] {
        assert_eq!(metrics::value(at, "bactrian_leader_term{lock=\"lock1\"}").await, Some(term));
        assert_eq!(status(at, "readyz").await, StatusCode::OK);
    }
    assert_eq!(status(leader_at, "leaderz/lock1").await, StatusCode::OK);
    leader.signal(Signal::KILL);
    let log = standby.wait_for("second");
    assert!(!log.contains("first"), "{log}");
    assert!(metrics::value(standby_at, "bactrian_leader_term{lock=\"lock1\"}").await.unwrap() > term);
}

#[tokio::test]
async fn errors_in_the_files_change_nothing_and_are_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, at) = start(&folder);
    process.wait_for("first");
    edit(&folder, "{ log = 'first' }", "{ lgo = 'x' }, { to = 'direct:nobody' }");
    process.signal(Signal::HUP);
    let log = process.wait_for("no route consumes `direct:nobody`");
    assert!(log.contains("the routes were not changed") && log.contains("lgo"), "{log}");
    process.wait_for("first");
    assert_eq!(get(at, "readyz").await.0, StatusCode::OK);
    // A setting is not changed, and a comment is no change.
    edit(&folder, "{ lgo = 'x' }, { to = 'direct:nobody' }", "{ log = 'first' }");
    edit(&folder, "[cluster]", "# A comment.\n[router]\nshutdown_timeout = '7s'\n[cluster]");
    process.signal(Signal::HUP);
    let log = process.wait_for("the routes were read again: 1 unchanged");
    assert!(log.contains("settings have changed"), "{log}");
}
