//! The promise: when the leader that polls a bot ends in any way, the next one goes on, and no update is
//! lost. What comes twice is counted.
//!
//! `SEED` repeats a run, `UPDATES` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::Stage;
use support::group::{ANY_FATE, Fate, GRACEFUL, Group, number, poll};
use testkit::TelegramServer;
use tokio::time::sleep;

const TOKEN: &str = "123:test";
/// How many updates a poll brings, and so how many a crash can repeat.
const LIMIT: usize = 20;

/// Lets three members poll while somebody writes and leaders end. Returns for each term which updates of it
/// came again later.
async fn play(options: &str, updates: usize, fates: &[Fate]) -> BTreeMap<u64, Vec<usize>> {
    let updates = number("UPDATES").unwrap_or(updates);
    let (stage, server) = (Stage::new(), TelegramServer::start(TOKEN).await.unwrap());
    let uri = format!(
        "telegram:bots?authorization_token=env:MEMBER_TOKEN&base_uri={}&limit={LIMIT}&{options}",
        server.base_uri()
    );
    let variables = [("MEMBER_TOKEN", TOKEN.to_owned()), ("MEMBER_URI", uri)];
    let mut group = Group::start(&stage, "poller_process", &variables);
    let writing = async {
        for number in 0..updates {
            server.receive_text(1, &format!("update {number}")).unwrap();
            if number % 10 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::join!(writing, group.end_leaders_until_done(fates, updates));
    group.stop().await;
    assert!(server.unacknowledged().is_empty(), "not acknowledged: {:?}", server.unacknowledged());
    group.story().judge(updates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dedupe_a_crash_repeats_one_update_at_most() {
    for (term, repeated) in play("dedupe=true", 2_000, ANY_FATE).await {
        assert_eq!(repeated.len(), 1, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dedupe_a_crash_repeats_a_batch_at_most() {
    for (term, repeated) in play("", 2_000, ANY_FATE).await {
        assert!(repeated.len() <= LIMIT, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_hand_over_repeats_nothing() {
    for options in ["dedupe=true", ""] {
        let repeated = play(options, 1_000, GRACEFUL).await;
        assert!(repeated.is_empty(), "{options}: {repeated:?}");
    }
}

/// What a member does. Not a test: the others start it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn poller_process() {
    poll(|exchange| exchange.message.headers.get("telegram.update_id").unwrap().to_string());
}
