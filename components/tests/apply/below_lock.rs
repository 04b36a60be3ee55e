//! A changed route below `master:` keeps the lock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, Leadership, LockName};
use tokio::time::{sleep, timeout};

use crate::support::setup;

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

/// Notes when an exchange of which version began and ended.
fn version(uri: &str, version: &'static str, delay: u64, events: &Arc<Mutex<Vec<String>>>) -> RouteBuilder {
    let (begins, ends) = (Arc::clone(events), Arc::clone(events));
    from(uri)
        .id("a")
        .process(move |exchange| {
            let term = exchange.term.as_ref().map(|term| term.number());
            begins.lock().unwrap().push(format!("{version} begins in {term:?}"));
            Ok(())
        })
        .delay(format!("{delay}s"))
        .process(move |_| {
            ends.lock().unwrap().push(format!("{version} ends"));
            Ok(())
        })
}

#[tokio::test(start_paused = true)]
async fn the_old_one_ends_before_the_new_one_starts_in_the_same_term() {
    let events = Arc::default();
    let tick = "master:lock1:timer:t?delay=0&period=1h";
    let setup = setup([version(tick, "old", 20, &events)]).start();
    sleep(Duration::from_secs(1)).await;
    let other = setup.cluster.join("b");
    let waiting = other.view(&lock()).await.unwrap();
    setup.apply([version(tick, "new", 20, &events)]).await.unwrap();
    sleep(Duration::from_secs(21)).await;
    let expected = ["old begins in Some(1)", "old ends", "new begins in Some(1)", "new ends"];
    assert_eq!(*events.lock().unwrap(), expected);
    assert!(timeout(Duration::from_secs(1), waiting.lead()).await.is_err(), "another member got the lock");
    // The lock is given back when the route is gone.
    setup.apply([from("timer:t?delay=1h").id("b")]).await.unwrap();
    let scope = timeout(Duration::from_secs(1), waiting.lead()).await.unwrap().unwrap();
    assert_eq!(scope.term().number(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_a_caller_polls_has_ended_too_when_it_takes_too_long() {
    let events = Arc::default();
    let setup = setup([version("master:lock1:direct:a", "old", 3_600, &events)]).start();
    sleep(Duration::from_secs(1)).await;
    let call = async { setup.send("direct:a", "x").await };
    let change = async {
        sleep(Duration::from_secs(1)).await;
        setup.apply([version("master:lock1:direct:a", "new", 0, &events)]).await.unwrap();
        setup.send("direct:a", "y").await.unwrap();
    };
    let (call, ()) = tokio::join!(call, change);
    assert!(call.is_err());
    assert_eq!(*events.lock().unwrap(), ["old begins in Some(1)", "new begins in Some(1)", "new ends"]);
}

#[tokio::test(start_paused = true)]
async fn the_new_one_waits_for_an_exchange_that_is_not_polled() {
    let events = Arc::default();
    let setup = Arc::new(setup([version("master:lock1:direct:a", "old", 3_600, &events)]).start());
    sleep(Duration::from_secs(1)).await;
    let mut call = Box::pin(setup.send("direct:a", "x"));
    assert!(timeout(Duration::from_secs(1), &mut call).await.is_err());
    let next = version("master:lock1:timer:t?delay=0&period=1h", "new", 0, &events);
    let applying = Arc::clone(&setup);
    let applying = tokio::spawn(async move { applying.apply([next]).await });
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*events.lock().unwrap(), ["old begins in Some(1)"], "it may still have an effect");
    drop(call);
    applying.await.unwrap().unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(events.lock().unwrap()[1..], ["new begins in Some(1)", "new ends"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_for_another_lock_gives_the_first_one_back() {
    let events = Arc::default();
    let setup = setup([version("master:lock1:timer:t?delay=0&period=1h", "old", 0, &events)]).start();
    sleep(Duration::from_secs(1)).await;
    setup.apply([version("master:lock2:timer:t?delay=0&period=1h", "new", 0, &events)]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let leaderships = setup.cluster.leaderships();
    assert_eq!(leaderships.len(), 1);
    assert!(leaderships[0].0.as_str() == "lock2" && matches!(leaderships[0].1, Leadership::Leader(_)));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_was_stopped_takes_no_lock_for_a_change() {
    let events = Arc::default();
    let tick = "master:lock1:timer:t?delay=0&period=1h";
    let setup = setup([version(tick, "old", 0, &events)]).start();
    sleep(Duration::from_secs(1)).await;
    setup.router.stop_route("a").await.unwrap();
    setup.apply([version(tick, "new", 0, &events)]).await.unwrap();
    assert!(setup.cluster.leaderships().is_empty());
    assert_eq!(setup.cluster.join("b").view(&lock()).await.unwrap().lead().await.unwrap().term().number(), 2);
}
