//! Those who call a route that is replaced: they wait, and do not fail.

use std::time::Duration;

use router_core::builder::{RouteBuilder, Steps, from};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::setup;

fn version(uri: &str, version: &str, delay: &str) -> RouteBuilder {
    from(uri).id("called").set_header("version", version).delay(delay).to("mock:out")
}

/// Sends one exchange each 100 ms for 80 s, through `uri`, while the route that gets them is replaced.
async fn call_while_it_is_replaced(consumer: &str, uri: &'static str, delay: &str) {
    let setup = std::sync::Arc::new(setup([version(consumer, "old", delay)]).start());
    sleep(Duration::from_millis(1)).await;
    let mut calls = JoinSet::new();
    for number in 0..800_u64 {
        let setup = std::sync::Arc::clone(&setup);
        calls.spawn(async move {
            sleep(Duration::from_millis(100 * number)).await;
            setup.send(uri, &number.to_string()).await
        });
    }
    sleep(Duration::from_secs(10)).await;
    setup.apply([version(consumer, "new", delay)]).await.unwrap();
    while let Some(result) = calls.join_next().await {
        assert_eq!(result.unwrap(), Ok(()));
    }
    sleep(Duration::from_secs(60)).await;
    let received = setup.mock.endpoint("out").received();
    let mut numbers =
        received.iter().map(|it| it.message.body.to_string().parse::<u64>().unwrap()).collect::<Vec<_>>();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..800).collect::<Vec<_>>(), "each once");
    let versions = received.iter().map(|it| it.message.headers.get("version").unwrap().to_string());
    let mut versions = versions.collect::<Vec<_>>();
    versions.dedup();
    assert_eq!(versions, ["old", "new"], "the old ones have ended before the first new one ends");
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_direct_route_wait_longer_than_they_have_patience_for_one_that_is_stopped() {
    call_while_it_is_replaced("direct:a", "direct:a", "40s").await;
}

#[tokio::test(start_paused = true)]
async fn callers_that_do_not_wait_for_one_that_is_stopped_wait_for_one_that_is_replaced() {
    call_while_it_is_replaced("direct:a", "direct:a?block=false", "5s").await;
}

#[tokio::test(start_paused = true)]
async fn callers_wait_below_a_lock_too() {
    call_while_it_is_replaced("master:lock1:direct:a", "direct:a?block=false", "5s").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_in_a_queue_is_lost() {
    call_while_it_is_replaced("seda:a?concurrent_consumers=100", "seda:a", "5s").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_for_the_next_version() {
    let setup = setup([version("seda:a", "old", "5s")]).start();
    sleep(Duration::from_millis(1)).await;
    for number in 0..100 {
        setup.send("seda:a", &number.to_string()).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::Instant::now();
    setup.apply([version("seda:a", "new", "0")]).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 4, "it waits for the one in hand alone");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.bodies("out"), (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_was_in_hand_too_long_is_dropped_and_does_not_begin_again_in_the_next_version() {
    for uri in ["seda:a", "master:lock1:seda:a"] {
        let version = |delay| from(uri).id("called").to("mock:begun").delay(delay).to("mock:out");
        let setup = setup([version("1h")]).start();
        sleep(Duration::from_millis(1)).await;
        let sending = async {
            let sent = tokio::join!(
                setup.send("seda:a?wait_for_task_to_complete=always", "in hand"),
                setup.send("seda:a?wait_for_task_to_complete=always", "queued"),
            );
            (sent.0.unwrap_err(), sent.1)
        };
        let applying = async {
            sleep(Duration::from_secs(1)).await;
            setup.apply([version("0")]).await.unwrap();
        };
        let ((error, queued), ()) = tokio::join!(sending, applying);
        assert!(error.contains("`seda:a` has dropped it"), "{error}");
        assert_eq!(queued, Ok(()));
        assert_eq!(
            (setup.bodies("begun"), setup.bodies("out")),
            (vec!["in hand".into(), "queued".into()], vec!["queued".into()])
        );
    }
}

/// A called route that starts after its callers would stop before them, and they would wait for a version that starts only
/// when they have stopped.
#[tokio::test(start_paused = true)]
async fn callers_stop_before_those_that_they_call_whatever_their_startup_order_is() {
    let version = |version: &str| {
        [
            from("direct:a")
                .id("a")
                .startup_order(1)
                .set_header("caller", version)
                .delay("5s")
                .to("direct:b"),
            from("direct:b").id("b").startup_order(2).set_header("version", version).to("mock:out"),
        ]
    };
    let setup = setup(version("old")).start();
    sleep(Duration::from_millis(1)).await;
    let asked = tokio::time::Instant::now();
    let (sent, ()) = tokio::join!(setup.send("direct:a", "x"), async {
        sleep(Duration::from_secs(1)).await;
        setup.apply(version("new")).await.unwrap();
    });
    assert_eq!((sent, asked.elapsed().as_secs()), (Ok(()), 5));
    let received = setup.mock.endpoint("out").received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message.headers.get("version").unwrap().to_string(), "old");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_dropped_in_its_own_version() {
    let version = |delay| from("direct:a").id("called").delay(delay).to("mock:out");
    let setup = setup([version("1h")]);
    let outcome = setup.router.run_until(async {
        sleep(Duration::from_millis(1)).await;
        let (sent, ()) = tokio::join!(setup.send("direct:a", "old"), async {
            sleep(Duration::from_secs(1)).await;
            setup.apply([version("0")]).await.unwrap();
        });
        let error = sent.unwrap_err();
        assert!(error.contains("`direct:a` was stopped before it was done"), "{error}");
        setup.send("direct:a", "new").await.unwrap();
        assert_eq!(setup.bodies("out"), ["new"]);
    });
    assert_eq!(outcome.await, router_core::router::ShutdownOutcome::Aborted, "it counts as dropped");
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_room_in_the_queue_of_a_route_that_is_replaced() {
    let setup = setup([version("seda:a?size=1", "old", "5s")]).start();
    sleep(Duration::from_millis(1)).await;
    for body in ["in hand", "queued"] {
        setup.send("seda:a", body).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(setup.send("seda:a", "too many").await.unwrap_err().contains("full"));
    let (applied, sent) = tokio::join!(setup.apply([version("seda:a?size=1", "new", "0")]), async {
        sleep(Duration::from_millis(1)).await;
        setup.send("seda:a", "waits").await
    });
    applied.unwrap();
    assert_eq!(sent, Ok(()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.bodies("out"), ["in hand", "queued", "waits"]);
}

#[tokio::test(start_paused = true)]
async fn the_size_of_a_queue_can_be_changed() {
    let setup = setup([version("seda:a?size=1", "old", "0")]).start();
    setup.apply([version("seda:a?size=2", "new", "1h")]).await.unwrap();
    for body in ["in hand", "one", "two"] {
        setup.send("seda:a", body).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(setup.send("seda:a", "three").await.unwrap_err().contains("full"));
    let error = setup.apply([version("seda:a?size=2", "new", "0").to("seda:a?size=3")]).await.unwrap_err();
    assert!(format!("{error:?}").contains("size"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_stop_before_those_that_they_call() {
    let caller =
        |version: &str| from("timer:t?delay=0&period=1h").id("caller").set_body(version).to("direct:between");
    let between = || from("direct:between").id("between").delay("20s").to("direct:called");
    let setup = setup([caller("old"), between(), version("direct:called", "old", "0")]).start();
    sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::Instant::now();
    setup.apply([caller("new"), between(), version("direct:called", "new", "0")]).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 19);
    sleep(Duration::from_secs(21)).await;
    let received = setup.mock.endpoint("out").received();
    let of = |index: usize| {
        (
            received[index].message.body.to_string(),
            received[index].message.headers.get("version").unwrap().to_string(),
        )
    };
    assert_eq!((of(0), of(1)), (("old".into(), "old".into()), ("new".into(), "new".into())));
}

#[tokio::test(start_paused = true)]
async fn an_address_may_move_to_another_route() {
    let setup = setup([from("direct:a").id("a").to("mock:a"), from("direct:b").id("b").to("mock:b")]).start();
    sleep(Duration::from_millis(1)).await;
    let next = [from("direct:b").id("a").to("mock:a"), from("direct:a").id("c").to("mock:c")];
    let (applied, sent) = tokio::join!(setup.apply(next), setup.send("direct:a?block=false", "x"));
    applied.unwrap();
    sent.unwrap();
    setup.send("direct:b", "y").await.unwrap();
    let mut arrived = [setup.bodies("a"), setup.bodies("c")].concat();
    arrived.sort();
    assert_eq!(arrived, ["x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_route_that_is_gone_is_dropped_and_counted() {
    let setup = setup([version("seda:a", "old", "1h")]);
    let outcome = setup.router.run_until(async {
        sleep(Duration::from_millis(1)).await;
        for body in ["in hand", "queued"] {
            setup.send("seda:a", body).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        setup.apply([from("timer:t?delay=1h").id("other")]).await.unwrap();
        // A queue of that name that comes later is another one.
        setup.apply([version("seda:a", "new", "0")]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(outcome.await, router_core::router::ShutdownOutcome::Aborted);
    assert!(setup.bodies("out").is_empty());
}

/// Nothing would ever take them, and their senders would wait for ever.
#[tokio::test(start_paused = true)]
async fn what_waits_in_a_queue_is_dropped_when_its_route_consumes_another_one() {
    let setup = setup([version("seda:a", "old", "1h")]).start();
    sleep(Duration::from_secs(1)).await;
    let waits = "seda:a?wait_for_task_to_complete=always&timeout=0";
    let change = async {
        sleep(Duration::from_secs(1)).await;
        setup.apply([version("seda:b", "new", "0")]).await.unwrap();
    };
    let all = async { tokio::join!(setup.send(waits, "in hand"), setup.send(waits, "queued"), change) };
    let (in_hand, queued, ()) = timeout(Duration::from_secs(600), all).await.unwrap();
    for error in [in_hand.unwrap_err(), queued.unwrap_err()] {
        assert!(error.contains("`seda:a` has dropped it"), "{error}");
    }
    setup.send("seda:b", "goes on").await.unwrap();
    setup.mock.endpoint("out").wait_for(1).await;
}
