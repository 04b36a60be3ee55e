//! The promise: when the leader that polls a server ends in any way, the next one goes on where it was, and
//! no item is lost. What comes twice is counted.
//!
//! `SEED` repeats a run, `ITEMS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use support::Stage;
use support::group::{ANY_FATE, Fate, GRACEFUL, Group, number, poll};
use testkit::JsonServer;
use tokio::time::sleep;

/// How many items an answer has, and so how many a crash can repeat.
const LIMIT: usize = 20;

/// Lets three members poll while items appear and leaders end. Returns for each term which items of it came
/// again later.
async fn play(options: &str, items: usize, fates: &[Fate]) -> BTreeMap<u64, Vec<usize>> {
    let items = number("ITEMS").unwrap_or(items);
    let (stage, present) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let shown = Arc::clone(&present);
    // What comes after the item that the caller had last.
    let server = JsonServer::start(move |path| {
        let after = path.split_once("after=").map_or(0, |(_, after)| after.parse::<usize>().unwrap());
        let last = shown.load(Ordering::Relaxed).min(after + LIMIT);
        let items = (after + 1..=last).map(|id| json!({ "id": id })).collect::<Vec<_>>();
        json!({ "items": items, "next": last })
    });
    let server = server.await.unwrap();
    let uri = format!(
        "http-poll:{}/items?period=5ms&cursor=/next&cursor_parameter=after&split=/items&{options}",
        server.uri()
    );
    let variables = [("MEMBER_URI", uri)];
    let mut group = Group::start(&stage, "poller_process", &variables);
    let writing = async {
        for number in 1..=items {
            present.store(number, Ordering::Relaxed);
            if number % 10 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::join!(writing, group.end_leaders_until_done(fates, items));
    group.stop().await;
    group.story().judge(items)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dedupe_a_crash_repeats_one_item_at_most() {
    for (term, repeated) in play("dedupe=/id", 1_000, ANY_FATE).await {
        assert_eq!(repeated.len(), 1, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dedupe_a_crash_repeats_an_answer_at_most() {
    for (term, repeated) in play("", 1_000, ANY_FATE).await {
        assert!(repeated.len() <= LIMIT, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_hand_over_repeats_nothing() {
    for options in ["dedupe=/id", ""] {
        let repeated = play(options, 500, GRACEFUL).await;
        assert!(repeated.is_empty(), "{options}: {repeated:?}");
    }
}

/// What a member does. Not a test: the others start it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn poller_process() {
    poll(|exchange| exchange.message.body.to_json().unwrap()["id"].to_string());
}
