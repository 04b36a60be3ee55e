//! The promise: a process tells whether it lives, is ready and leads, and what it does, to whoever asks its
//! admin listener; and what it tells is true.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod expiry;
mod idle_connections;
mod livez;
mod metrics;
mod process;
mod reload;
mod vacancy;

use http::StatusCode;
use process::{Process, ask, get, get_with, send, status};
use rustix::process::Signal;

/// A client of the listener learns what it tells, and changes nothing.
#[tokio::test]
async fn the_admin_listener_only_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut leader =
        Process::start(&folder, &[("clock", CLOCK, "{ log = 'tick' }")], &["admin.listen=127.0.0.1:0"]);
    let at = leader.address();
    leader.wait_for("tick");
    let term = metrics::value(at, "bactrian_leader_term{lock=\"lock1\"}").await.unwrap();
    for path in ["", "livez", "readyz", "startupz", "leaderz/lock1", "metrics"] {
        assert_eq!(send("GET", at, path).await, StatusCode::OK, "{path}");
        for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE"] {
            assert_eq!(send(method, at, path).await, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
    for path in ["routes", "handover", "drain", "stop", "quit", "leaderz"] {
        assert_eq!(send("POST", at, path).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(metrics::value(at, "bactrian_leader_term{lock=\"lock1\"}").await, Some(term));
}

const CLOCK: &str = "master:lock1:timer:clock?delay=0&period=10";

#[tokio::test]
async fn a_leader_and_a_standby_are_ready_and_only_one_leads() {
    let folder = tempfile::tempdir().unwrap();
    let start =
        || Process::start(&folder, &[("clock", CLOCK, "{ log = 'tick' }")], &["admin.listen=127.0.0.1:0"]);
    let mut leader = start();
    let at = leader.address();
    leader.wait_for("tick");
    for path in ["livez", "readyz", "startupz"] {
        assert_eq!(get(at, path).await, (StatusCode::OK, "ok".into()), "{path}");
        let (_, listed) = get(at, &format!("{path}?verbose")).await;
        assert!(listed.ends_with(&format!("{path} check passed\n")), "{listed}");
    }
    let (_, ready) = get(at, "readyz?verbose").await;
    assert!(ready.contains("[+]route clock ok: started\n"), "{ready}");
    let term = metrics::value(at, "bactrian_leader_term{lock=\"lock1\"}").await.unwrap();
    let why = format!("[+]lock lock1 ok: leader in term {term}: its file is new or was replaced\n");
    assert!(ready.contains(&why), "{ready}");
    assert_eq!(status(at, "leaderz/lock1").await, StatusCode::OK);
    assert_eq!(status(at, "leaderz/lock2").await, StatusCode::NOT_FOUND);
    assert_eq!(status(at, "nothing").await, StatusCode::NOT_FOUND);
    assert_eq!(metrics::value(at, "bactrian_leader{lock=\"lock1\"}").await, Some(1.0));

    let mut standby = start();
    let standby_at = standby.address();
    standby.wait_for("standing by for `lock1`");
    // The election can be faster than the router, which says last that all is started.
    let (code, _) = get_with(standby_at, "readyz?verbose", "readyz check passed").await;
    assert_eq!(code, StatusCode::OK);
    // What follows the process id is random.
    let who = format!("-{}-", leader.id());
    let (code, text) = get_with(standby_at, "leaderz/lock1", &who).await;
    assert!(text.contains(&format!(" leads in term {term}")), "{text}");
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(metrics::value(standby_at, "bactrian_leader{lock=\"lock1\"}").await, Some(0.0));
    assert_eq!(metrics::value(standby_at, "bactrian_leader_term{lock=\"lock1\"}").await, Some(term));

    leader.signal(Signal::KILL);
    standby.wait_for("leading `lock1`");
    standby.wait_for("tick");
    assert_eq!(status(standby_at, "leaderz/lock1").await, StatusCode::OK);
    assert_eq!(metrics::value(standby_at, "bactrian_leader{lock=\"lock1\"}").await, Some(1.0));
    assert!(metrics::value(standby_at, "bactrian_leader_term{lock=\"lock1\"}").await.unwrap() > term);
    let elected = "bactrian_leader_transitions_total{lock=\"lock1\",reason=\"elected\"}";
    assert_eq!(metrics::value(standby_at, elected).await, Some(1.0));
}

#[tokio::test]
async fn a_route_whose_database_is_away_is_not_ready_and_says_why_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    // A link in its place leads to a directory that is not there yet.
    let (database, away) = (folder.path().join("orders.db"), folder.path().join("away"));
    std::os::unix::fs::symlink(away.join("orders.db"), &database).unwrap();
    let routes = [
        ("clock", CLOCK, "{ log = 'tick' }"),
        ("queue", "seda:work", "{ log = 'work' }"),
        ("called", "direct:called", "{ log = 'called' }"),
        (
            "orders",
            &*format!("sql:select 1 as id?data_source=sqlite:{}", database.display()),
            "{ log = 'row' }",
        ),
    ];
    let mut process = Process::start(&folder, &routes, &["admin.listen=127.0.0.1:0"]);
    let at = process.address();
    process.wait_for("the consumer of route `orders` failed");
    let (code, why) = get_with(at, "readyz", "no connection to the database").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("[-]route orders failed: not ready for "), "{why}");
    for ready in ["clock", "queue", "called"] {
        assert!(why.contains(&format!("[+]route {ready} ok: started")), "{why}");
    }
    assert_eq!(get(at, "startupz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    std::fs::create_dir(&away).unwrap();
    process.wait_for("row");
    for path in ["readyz", "startupz"] {
        assert_eq!(get_with(at, path, "ok").await, (StatusCode::OK, "ok".into()), "{path}");
    }
}

#[tokio::test]
async fn what_is_stopped_before_all_routes_were_ready_has_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let (database, away) = (folder.path().join("orders.db"), folder.path().join("away"));
    std::os::unix::fs::symlink(away.join("orders.db"), &database).unwrap();
    let orders = format!("sql:select 1 as id?data_source=sqlite:{}", database.display());
    let routes =
        [("slow", CLOCK, "{ log = 'begun' }, { delay = '1h' }"), ("orders", &*orders, "{ log = 'row' }")];
    let mut process = Process::start(&folder, &routes, &["admin.listen=127.0.0.1:0"]);
    let at = process.address();
    process.wait_for("the consumer of route `orders` failed");
    process.wait_for("begun");
    process.signal(Signal::TERM);
    process.wait_for("draining");
    assert_eq!(status(at, "startupz").await, StatusCode::SERVICE_UNAVAILABLE);
    process.signal(Signal::TERM);
    process.wait();
}

#[tokio::test]
async fn while_it_drains_it_lives_but_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let steps = "{ log = 'begun' }, { delay = '1h' }";
    let mut process = Process::start(&folder, &[("slow", CLOCK, steps)], &["admin.listen=127.0.0.1:0"]);
    let at = process.address();
    process.wait_for("begun");
    assert_eq!(status(at, "readyz").await, StatusCode::OK);
    process.signal(Signal::TERM);
    process.wait_for("draining");
    let (code, why) = get_with(at, "readyz", "[+]route slow ok: starting or stopping\n").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.starts_with("[-]router failed: it is being stopped, or has ended\n"), "{why}");
    assert!(why.ends_with("readyz check failed\n"), "{why}");
    for path in ["livez", "startupz", "leaderz/lock1"] {
        assert_eq!(status(at, path).await, StatusCode::OK, "{path}");
    }
    assert_eq!(metrics::value(at, "bactrian_inflight{route=\"slow\"}").await, Some(1.0));
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(1), "the exchange was aborted");
    assert!(ask(&format!("http://{at}/livez")).await.is_none(), "nobody listens any more");
}

#[test]
fn processes_that_were_told_no_address_do_not_get_in_each_others_way() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Process::start(&folder, &[("clock", "timer:clock?delay=0", "{ log = 'tick' }")], &[]);
    let mut processes = [start(), start()];
    // Whoever came first, maybe a process of somebody else: at most one has it.
    let without = processes.each_mut().map(|process| process.wait_for("tick").matches("no probes").count());
    assert!(without == [0, 1] || without == [1, 0] || without == [1, 1], "{without:?}");
}

#[test]
fn an_address_that_was_asked_for_and_is_taken_is_an_error_that_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setting = format!("admin.listen={}", taken.local_addr().unwrap());
    let process = Process::start(&folder, &[("clock", CLOCK, "{ log = 'tick' }")], &[&setting]);
    let (status, output) = process.output();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("error: cannot listen on 127.0.0.1:"), "{output}");
    assert!(output.contains("(setting `admin.listen`)"), "{output}");
    assert!(!folder.path().join(".bactrian").exists(), "it took part in the cluster before it found out");
}

#[test]
fn off_is_off_and_an_address_for_everybody_is_worth_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let route = [("clock", "timer:clock?delay=0", "{ log = 'tick' }")];
    let output = Process::start(&folder, &route, &["admin.listen=off"]).wait_for("tick");
    assert!(!output.contains("probes"), "{output}");
    let output = Process::start(&folder, &route, &["admin.listen=0.0.0.0:0"]).wait_for("tick");
    assert_eq!(output.matches("can be read from other hosts").count(), 1, "{output}");
}
