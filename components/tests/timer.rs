//! What `timer:` promises about times that were missed.

#![cfg(feature = "state")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use components::{MasterComponent, MockComponent, TimerComponent};
use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, MemoryCluster};
use router_core::exchange::Exchange;
use router_core::router::RouterBuilder;
use serde_json::json;
use tokio::time::sleep;

const HOUR: u64 = 3_600_000;

#[expect(clippy::disallowed_methods, reason = "the position is a time on this clock")]
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn number(exchange: &Exchange, name: &str) -> u64 {
    exchange.message.headers.get(name).unwrap().to_string().parse().unwrap()
}

/// A leader fired a time `hours` and a half ago, and ended. Returns the hours from then at which the next
/// one fires within `run_hours`, and how many of them make up for one that was missed.
async fn after(hours: u64, policy: &str, run_hours: u64) -> (Vec<u64>, usize) {
    let (first, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let second = first.join("b");
    let last = now() - hours * HOUR - HOUR / 2;
    let view = first.view(&"lock1".parse().unwrap()).await.unwrap();
    let scope = view.lead().await.unwrap();
    scope.term().states().store("clock", &json!({ "settled": last })).await.unwrap();
    drop((scope, view));
    let uri = format!("master:lock1:timer:c?delay=0&period=1h&fixed_rate=true&{policy}");
    let router = RouterBuilder::new()
        .component(TimerComponent)
        .component(MasterComponent::default())
        .component(mock.clone())
        .cluster(Arc::clone(&second) as Arc<dyn ClusterService>)
        .route(from(uri).id("clock").to("mock:out"))
        .build()
        .unwrap();
    let _ = router.run_until(sleep(Duration::from_millis(run_hours * HOUR))).await;
    let received = mock.endpoint("out").received();
    let fired = received.iter().map(|exchange| (number(exchange, "timer.scheduled_time") - last) / HOUR);
    let missed = |exchange: &&Exchange| exchange.message.headers.get("timer.missed").unwrap().is_truthy();
    (fired.collect(), received.iter().filter(missed).count())
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_at_the_same_multiples_and_fires_what_was_missed_by_policy() {
    assert_eq!(after(3, "missed=skip", 2).await, (vec![4, 5], 0));
    assert_eq!(after(3, "missed=once", 2).await, (vec![3, 4, 5], 1));
    assert_eq!(after(3, "missed=all", 2).await, (vec![1, 2, 3, 4, 5], 3));
    assert_eq!(after(3, "missed=all&missed_max=2", 2).await, (vec![2, 3, 4, 5], 2));
    assert_eq!(after(0, "missed=all", 1).await, (vec![1], 0));
}

#[tokio::test(start_paused = true)]
async fn times_that_pass_during_an_exchange_are_missed_too() {
    let mock = MockComponent::default();
    let router = RouterBuilder::new()
        .component(TimerComponent)
        .component(mock.clone())
        .route(
            from("timer:c?delay=1h&period=1h&fixed_rate=true&missed=once")
                .id("clock")
                .to("mock:out")
                .delay("9000000"),
        )
        .build()
        .unwrap();
    let _ = router.run_until(sleep(Duration::from_millis(5 * HOUR))).await;
    let times = mock.endpoint("out").received();
    let hours = times.iter().map(|exchange| number(exchange, "timer.scheduled_time"));
    let hours =
        hours.map(|time| (time - number(&times[0], "timer.scheduled_time")) / HOUR).collect::<Vec<_>>();
    // The first one takes from 1 h to 3.5 h: of 2 and 3 the latest fires, and takes until 6 h.
    assert_eq!(hours, [0, 2]);
}

#[test]
fn what_was_missed_is_known_at_a_fixed_rate_only() {
    let build = |uri: &'static str| {
        let built = RouterBuilder::new().component(TimerComponent).route(from(uri)).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(build("timer:c?missed=once").contains("needs `fixed_rate=true` and a period"));
    assert!(build("timer:c?missed=once&fixed_rate=true&period=0").contains("and a period"));
    assert_eq!(build("timer:c?missed=all&fixed_rate=true&missed_max=5&state=/tmp/x"), "");
}
