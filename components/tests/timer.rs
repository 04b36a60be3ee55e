//! What `timer:` promises about times that were missed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use components::{MasterComponent, MockComponent, TimerComponent};
use router_core::builder::{Steps, from};
use router_core::cluster::backend::{Arbiter, ArbitratedCluster, Granted, Revoked};
use router_core::cluster::{ClusterError, ClusterService, Leader, LockName, Member, MemoryCluster};
use router_core::exchange::Exchange;
use router_core::router::RouterBuilder;
use router_core::state::{StateError, StateKeeper};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

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

/// An arbiter that takes the lock away, and gives it again, while the position is stored for the third time.
#[derive(Clone, Default)]
struct Untimely(Arc<Stored>);

#[derive(Default)]
struct Stored {
    terms: AtomicU64,
    stores: AtomicU64,
    taken: Notify,
    value: Mutex<Option<Value>>,
}

#[async_trait]
impl Arbiter for Untimely {
    type Grant = ();

    async fn acquire(&self, _: &LockName) -> Result<Granted<()>, ClusterError> {
        let term = self.0.terms.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Granted { grant: (), term, why: "it was free".into() })
    }

    async fn revoked(&self, (): &mut ()) -> Revoked {
        self.0.taken.notified().await;
        Revoked { why: "a test".into(), drain: Duration::from_secs(10) }
    }

    async fn release(&self, (): ()) {}

    fn states(&self, (): &(), _: u64) -> Arc<dyn StateKeeper> {
        Arc::new(self.clone())
    }

    fn leader(&self, _: &LockName) -> watch::Receiver<Option<Leader>> {
        watch::channel(None).1
    }

    fn members(&self) -> watch::Receiver<Vec<Member>> {
        watch::Sender::new(Vec::new()).subscribe()
    }
}

#[async_trait]
impl StateKeeper for Untimely {
    async fn load(&self, _: &str) -> Result<Option<Value>, StateError> {
        Ok(self.0.value.lock().unwrap().clone())
    }

    async fn store(&self, _: &str, value: &Value) -> Result<(), StateError> {
        if self.0.stores.fetch_add(1, Ordering::Relaxed) == 2 {
            self.0.taken.notify_one();
            sleep(Duration::from_secs(1)).await;
        }
        *self.0.value.lock().unwrap() = Some(value.clone());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_whose_exchange_cannot_start_any_more_is_for_the_next_leader() {
    let (arbiter, mock) = (Untimely::default(), MockComponent::default());
    let cluster = Arc::new(ArbitratedCluster::new(Member::new("a"), arbiter.clone()));
    let router = RouterBuilder::new()
        .component(TimerComponent)
        .component(MasterComponent::default())
        .component(mock.clone())
        .cluster(cluster as Arc<dyn ClusterService>)
        .route(
            from("master:lock1:timer:c?delay=0&period=1h&fixed_rate=true&missed=all").id("c").to("mock:out"),
        )
        .build()
        .unwrap();
    let _ = router.run_until(sleep(Duration::from_millis(8 * HOUR))).await;
    assert_eq!(arbiter.0.terms.load(Ordering::Relaxed), 2);
    let received = mock.endpoint("out").received();
    let times = received.iter().map(|exchange| number(exchange, "timer.scheduled_time")).collect::<Vec<_>>();
    assert!(times.len() >= 4, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == HOUR), "a time is lost: {times:?}");
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

/// The times of exchanges, in seconds from the first, and which of them make up for one that was missed, where the
/// process is suspended after the first one: from 0.5 s to 3.7 s.
async fn suspended(options: &str) -> Vec<(u64, bool)> {
    let mock = MockComponent::default();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let options = options.replace("STATE", &state.display().to_string());
    let router = RouterBuilder::new()
        .component(TimerComponent)
        .component(mock.clone())
        .route(from(format!("timer:c?delay=0&period=1s&fixed_rate=true{options}")).id("clock").to("mock:out"))
        .build()
        .unwrap();
    let start = Instant::now();
    let _ = router
        .run_until(async {
            mock.endpoint("out").wait_for(1).await;
            sleep(Duration::from_millis(500)).await;
            // What a suspended process sees: timers that are all due at once.
            tokio::time::advance(Duration::from_millis(3_200)).await;
            sleep(Duration::from_millis(1_600)).await;
        })
        .await;
    assert!(start.elapsed() >= Duration::from_millis(5_300));
    let received = mock.endpoint("out").received();
    let first = number(&received[0], "timer.fired_time");
    let times = received.iter().map(|exchange| {
        let headers = &exchange.message.headers;
        match headers.get("timer.scheduled_time") {
            Some(_) => {
                let scheduled = number(exchange, "timer.scheduled_time");
                let from_first = scheduled - number(&received[0], "timer.scheduled_time");
                (from_first / 1_000, headers.get("timer.missed").unwrap().is_truthy())
            }
            None => ((number(exchange, "timer.fired_time") - first) / 1_000, false),
        }
    });
    times.collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_the_missed_times_are_all_treated_alike() {
    // The times 1, 2 and 3 have passed; 4 and 5 are on time.
    assert_eq!(suspended("&missed=skip&state=STATE").await, [(0, false), (4, false), (5, false)]);
    assert_eq!(suspended("&missed=once&state=STATE").await, [(0, false), (3, true), (4, false), (5, false)]);
    assert_eq!(
        suspended("&missed=all&state=STATE").await,
        [(0, false), (1, true), (2, true), (3, true), (4, false), (5, false)]
    );
    assert_eq!(suspended("").await.len(), 3, "without a position, they are skipped too");
}

#[test]
fn what_was_missed_is_known_at_a_fixed_rate_only() {
    let build = |uri: &'static str| {
        let built = RouterBuilder::new().component(TimerComponent).route(from(uri).id("c")).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(build("timer:c?missed=once").contains("needs `fixed_rate=true` and a period"));
    assert!(build("timer:c?missed=once&fixed_rate=true&period=0").contains("and a period"));
    assert_eq!(build("timer:c?missed=all&fixed_rate=true&missed_max=5&state=/tmp/x"), "");
}
