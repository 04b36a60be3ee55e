//! A lock that has no leader says so, for how long and why.

use std::process::Command;

use http::StatusCode;

use super::CLOCK;
use super::metrics::value;
use super::process::{Process, get_with, status};

const SECONDS: &str = "bactrian_lock_without_leader_seconds{lock=\"lock1\"}";
const TERM: &str = "bactrian_leader_term{lock=\"lock1\"}";

fn tool(folder: &tempfile::TempDir, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_bactrian"))
        .current_dir(folder.path())
        .env_clear()
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_lock_that_its_only_member_may_not_take_is_counted_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let route = [("clock", CLOCK, "{ log = 'tick' }")];
    let mut process = Process::start(&folder, &route, &["admin.listen=127.0.0.1:0"]);
    let at = process.address();
    process.wait_for("tick");
    assert_eq!(value(at, SECONDS).await, Some(0.0));
    let term = value(at, TERM).await.unwrap();
    tool(&folder, &["drain", "routes.toml"]);
    let why = ": this member is drained, so another one must take it\n";
    let (code, ready) = get_with(at, "readyz?verbose", why).await;
    assert_eq!(code, StatusCode::OK, "another member may lead");
    assert!(ready.contains("[+]lock lock1 ok: standby, no leader is known for "), "{ready}");
    assert_eq!(status(at, "leaderz/lock1").await, StatusCode::SERVICE_UNAVAILABLE);
    let first = value(at, SECONDS).await.unwrap();
    let later = value(at, SECONDS).await.unwrap();
    assert!(0.0 < first && first < later, "{first} {later}");
    tool(&folder, &["drain", "--undo", "routes.toml"]);
    get_with(at, "readyz?verbose", "lock lock1 ok: leader in term ").await;
    assert!(value(at, TERM).await.unwrap() > term);
    assert_eq!(value(at, SECONDS).await, Some(0.0));
}
