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
async fn a_version_whose_delegate_fails_gives_way_to_the_old_one_in_the_same_term() {
    let events = Arc::default();
    let tick = "master:lock1:timer:t?delay=0&period=1h";
    for (broken, why) in [
        ("case:fails", "it was not ready within 10s: it failed in attempt"),
        ("case:never", "its consumer did not say within 10s that it is ready"),
    ] {
        let setup = setup([version(tick, "old", 0, &events)]).start();
        sleep(Duration::from_secs(1)).await;
        let new = version(&format!("master:lock1:{broken}"), "new", 0, &events);
        let changes = setup.apply([new]).await.unwrap();
        assert!(changes.replaced.is_empty(), "{changes}");
        let (id, told) = &changes.reverted[0];
        assert!(id == "a" && told.starts_with(why), "{told}");
        assert!(broken != "case:fails" || told.ends_with(": the port is taken"), "{told}");
        sleep(Duration::from_secs(1)).await;
        let expected = ["old begins in Some(1)", "old ends", "old begins in Some(1)", "old ends"];
        assert_eq!(*events.lock().unwrap(), expected);
        events.lock().unwrap().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_delegate_that_ends_by_itself_and_a_standby_are_ready() {
    let events = Arc::default();
    let setup = setup([version("master:lock1:timer:t?delay=0&period=1h", "old", 0, &events)]).start();
    sleep(Duration::from_secs(1)).await;
    let changes = setup.apply([version("master:lock1:case:ends", "new", 0, &events)]).await.unwrap();
    assert_eq!(changes.replaced, ["a"]);
    let other = setup.cluster.join("b").view(&"lock2".parse().unwrap()).await.unwrap();
    let _leads = other.lead().await.unwrap();
    let changes = setup.apply([version("master:lock2:case:fails", "standby", 0, &events)]).await.unwrap();
    assert_eq!(changes.replaced, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn why_the_delegate_of_a_leader_failed_is_said_until_it_is_ready() {
    let setup = setup([from("master:lock1:case:fails").id("a")]).start();
    let note = || setup.router.routes().remove(0).note.unwrap_or_default();
    for attempt in 1..10 {
        sleep(Duration::from_secs(if attempt == 1 { 1 } else { 5 })).await;
        assert!(note().starts_with(&format!("it failed in attempt {attempt} of 10")), "{}", note());
        assert!(note().ends_with(": the port is taken"), "{}", note());
    }
    sleep(Duration::from_secs(5)).await;
    assert!(note().starts_with("it could not start in 10 attempts, and leaves the lock"), "{}", note());
    let changes = setup.apply([from("master:lock1:case:ready").id("a")]).await.unwrap();
    assert_eq!((changes.replaced.as_slice(), note().as_str()), (&["a".into()][..], ""));
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
