//! What `master:` promises about starting and stopping its delegate, under paused time. The first seven
//! are the race scenarios that Camel tests for its own master consumer.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

mod source;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use components::{DirectComponent, MasterComponent, MockComponent, TimerComponent};
use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::component::{Consumer, RouteHandle};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::pipeline::Pipeline;
use router_core::router::{Router, RouterBuilder};
use tokio::time::{Instant, sleep, timeout};

/// A delegate that notes what happens to it, and takes as long and fails as often as a test wants.
#[derive(Clone, Default)]
struct Probe {
    events: Arc<Mutex<Vec<String>>>,
    /// How many more starts fail.
    failures: Arc<AtomicU32>,
    /// How long a start takes.
    start_takes: Duration,
    /// How long the one exchange takes that each run makes; none where it is zero.
    exchange_takes: Duration,
    /// Whether the exchange runs in a task of its own, as servers do it.
    spawn: bool,
}

impl Probe {
    fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push(event.into());
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn count(&self, event: &str) -> usize {
        self.events().iter().filter(|noted| *noted == event).count()
    }
}

/// Notes when whatever holds it is gone, dropped or finished.
struct Gone(Probe);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.note("gone");
    }
}

#[async_trait]
impl Consumer for Probe {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let _gone = Gone((*self).clone());
        self.note("start");
        sleep(self.start_takes).await;
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Err("no connection".into());
        }
        self.note("started");
        route.ready();
        let RouteHandle { pipeline, stop, .. } = route;
        if !self.exchange_takes.is_zero() {
            let mut tasks = tokio::task::JoinSet::new();
            let exchange = async move { pipeline.process(&mut Exchange::new("work")).await };
            let result = if self.spawn {
                tasks.spawn(exchange);
                tasks.join_next().await.unwrap()?
            } else {
                exchange.await
            };
            self.note(if result.is_ok() { "processed" } else { "not processed" });
        }
        stop.requested().await;
        self.note("stopped");
        Ok(())
    }
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

/// A started router on `cluster` with one `master:` route over the probe.
fn start(cluster: &Arc<MemoryCluster>, probe: &Probe) -> Router {
    let (takes, delegate) = (probe.exchange_takes, probe.clone());
    let router = RouterBuilder::new()
        .component(MasterComponent::default())
        .component(source::source("probe", move |_| delegate.clone()))
        .cluster(Arc::clone(cluster) as Arc<dyn ClusterService>)
        .route(from("master:lock1:probe:x").id("probe").process_async(move |_| {
            Box::pin(async move {
                sleep(takes).await;
                Ok(())
            })
        }))
        .build()
        .unwrap();
    let running = router.clone();
    tokio::spawn(async move { running.run_until(std::future::pending()).await });
    router
}

/// Leads the lock without a router.
async fn occupy(other: &Arc<MemoryCluster>) -> router_core::cluster::LeaderScope {
    let view = other.view(&lock()).await.unwrap();
    timeout(Duration::from_secs(1000), view.lead()).await.unwrap().unwrap()
}

async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_while_the_start_is_pending_means_no_start() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    probe.failures.store(1, Ordering::SeqCst);
    let _router = start(&cluster, &probe);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(probe.events(), ["start", "gone"], "the next attempt is pending");
    let other = cluster.join("b");
    let waiting = other.view(&lock()).await.unwrap();
    settle().await;
    cluster.revoke(&lock(), Duration::ZERO);
    let _scope = waiting.lead().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(probe.events(), ["start", "gone"], "no zombie on a follower");
}

#[tokio::test(start_paused = true)]
async fn a_loss_while_starting_ends_the_start() {
    let cluster = MemoryCluster::new("a");
    let probe = Probe { start_takes: Duration::from_secs(5), ..Probe::default() };
    let _router = start(&cluster, &probe);
    sleep(Duration::from_secs(1)).await;
    let other = cluster.join("b");
    let waiting = other.view(&lock()).await.unwrap();
    settle().await;
    cluster.revoke(&lock(), Duration::from_secs(1));
    let scope = timeout(Duration::from_secs(2), waiting.lead()).await.unwrap().unwrap();
    assert_eq!(probe.events(), ["start", "gone"], "dropped before the next leader started");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(probe.events(), ["start", "gone"], "no zombie on a follower");
    drop(scope);
}

#[tokio::test(start_paused = true)]
async fn a_flap_after_the_start_makes_a_new_consumer() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    let _router = start(&cluster, &probe);
    settle().await;
    cluster.revoke(&lock(), Duration::from_secs(1));
    settle().await;
    assert_eq!(probe.events(), ["start", "started", "stopped", "gone", "start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn leadership_that_is_announced_twice_starts_one_consumer() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    let _router = start(&cluster, &probe);
    let mut views = Vec::new();
    for _ in 0..3 {
        settle().await;
        let mut view = cluster.view(&lock()).await.unwrap();
        view.changed().await.unwrap();
        views.push(view);
    }
    assert_eq!(probe.events(), ["start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_cancels_a_pending_start() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    probe.failures.store(1, Ordering::SeqCst);
    let router = start(&cluster, &probe);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(probe.events(), ["start", "gone"], "the next attempt is pending");
    router.stop_route("probe").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(probe.events(), ["start", "gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_made_up_when_the_lock_is_taken_again() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    probe.failures.store(1, Ordering::SeqCst);
    let _router = start(&cluster, &probe);
    sleep(Duration::from_secs(1)).await;
    cluster.revoke(&lock(), Duration::ZERO);
    settle().await;
    assert_eq!(probe.events(), ["start", "gone", "start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn after_all_attempts_another_member_gets_its_chance() {
    let (cluster, broken) = (MemoryCluster::new("a"), Probe::default());
    broken.failures.store(u32::MAX, Ordering::SeqCst);
    let _router = start(&cluster, &broken);
    settle().await;
    let (other, healthy) = (cluster.join("b"), Probe::default());
    let _other = start(&other, &healthy);
    // Ten attempts have nine pauses between them.
    sleep(Duration::from_secs(44)).await;
    assert!(healthy.events().is_empty());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(broken.count("start"), 10);
    assert_eq!(healthy.events(), ["start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn who_resigned_alone_tries_again_after_growing_times() {
    let (cluster, probe) = (MemoryCluster::new("a"), Probe::default());
    probe.failures.store(u32::MAX, Ordering::SeqCst);
    let _router = start(&cluster, &probe);
    sleep(Duration::from_secs(46)).await;
    assert_eq!(probe.count("start"), 10);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(probe.count("start"), 11, "stood for election again after 5 s");
    sleep(Duration::from_secs(45 + 5)).await;
    assert_eq!(probe.count("start"), 20, "stays out for 10 s the second time");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(probe.count("start"), 21);
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_first_and_releases_then() {
    let cluster = MemoryCluster::new("a");
    let probe = Probe { exchange_takes: Duration::from_secs(30), ..Probe::default() };
    let router = start(&cluster, &probe);
    settle().await;
    let other = cluster.join("b");
    let waiting = other.view(&lock()).await.unwrap();
    let asked = Instant::now();
    let (stopped, led) = tokio::join!(router.stop_route("probe"), async {
        let scope = waiting.lead().await.unwrap();
        assert_eq!(probe.events(), ["start", "started", "processed", "stopped", "gone"]);
        (scope.term().number(), asked.elapsed())
    });
    stopped.unwrap();
    assert_eq!(led.0, 2);
    assert!(led.1 > Duration::from_secs(29), "{led:?}");
}

/// The exchange needs 30 s, the term leaves it 2 s.
async fn loses_while_an_exchange_is_in_flight(spawn: bool) {
    let cluster = MemoryCluster::new("a");
    let probe = Probe { exchange_takes: Duration::from_secs(30), spawn, ..Probe::default() };
    let _router = start(&cluster, &probe);
    settle().await;
    let other = cluster.join("b");
    let waiting = other.view(&lock()).await.unwrap();
    settle().await;
    let revoked = Instant::now();
    cluster.revoke(&lock(), Duration::from_secs(2));
    let _scope = timeout(Duration::from_millis(2_100), waiting.lead()).await.unwrap().unwrap();
    assert!(revoked.elapsed() >= Duration::from_secs(2), "the exchange had its time");
    assert_eq!(probe.count("processed"), 0, "it was aborted");
    assert_eq!(probe.count("gone"), 1, "before the next leader started");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_flight_at_the_loss_is_aborted_before_the_next_leader_starts() {
    loses_while_an_exchange_is_in_flight(false).await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_a_task_of_its_own_is_aborted_too() {
    loses_while_an_exchange_is_in_flight(true).await;
}

/// The caller of a route polls its exchange: the consumer cannot end it.
#[tokio::test(start_paused = true)]
async fn an_exchange_of_a_caller_is_aborted_too() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = RouterBuilder::new()
        .component(DirectComponent::default())
        .component(MasterComponent::default())
        .component(mock.clone())
        .cluster(Arc::clone(&cluster) as Arc<dyn ClusterService>)
        .route(from("master:lock1:direct:slow").delay("30s").to("mock:done"))
        .build()
        .unwrap();
    let test = async {
        let slow = router.producer("direct:slow").unwrap();
        let call = async move { slow.process(&mut Exchange::new("work")).await.unwrap_err().to_string() };
        let call = tokio::spawn(call);
        settle().await;
        let other = cluster.join("b");
        let waiting = other.view(&lock()).await.unwrap();
        settle().await;
        cluster.revoke(&lock(), Duration::from_secs(2));
        let _scope = timeout(Duration::from_millis(2_100), waiting.lead()).await.unwrap().unwrap();
        assert!(call.is_finished(), "the call goes on while the next leader leads");
        assert!(call.await.unwrap().contains("an exchange in flight was not run"));
    };
    let _ = router.run_until(test).await;
    assert!(mock.endpoint("done").received().is_empty());
}

/// A router with a timer under `master:` and a mock that gets its ticks.
fn timer_router(cluster: &Arc<MemoryCluster>, uri: &str, mock: &MockComponent) -> Router {
    RouterBuilder::new()
        .component(MasterComponent::default())
        .component(TimerComponent)
        .component(mock.clone())
        .cluster(Arc::clone(cluster) as Arc<dyn ClusterService>)
        .route(from(uri).to("mock:ticks"))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_finished_delegate_is_not_made_again_in_the_same_term() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = timer_router(&cluster, "master:lock1:timer:once?repeat_count=1", &mock);
    let _ = router.run_until(sleep(Duration::from_secs(60))).await;
    assert_eq!(mock.endpoint("ticks").received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_exchange_carries_the_term_and_a_new_term_has_a_greater_number() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = timer_router(&cluster, "master:lock1:timer:t?delay=0&period=1s", &mock);
    let _ = router
        .run_until(async {
            mock.endpoint("ticks").wait_for(2).await;
            cluster.revoke(&lock(), Duration::ZERO);
            mock.endpoint("ticks").wait_for(4).await;
        })
        .await;
    let terms = mock
        .endpoint("ticks")
        .received()
        .iter()
        .map(|e| e.term.as_ref().unwrap().number())
        .collect::<Vec<_>>();
    assert_eq!(terms, [1, 1, 2, 2]);
}

/// A consumer that gives its pipeline away.
struct Leak(tokio::sync::mpsc::Sender<Pipeline>);

#[async_trait]
impl Consumer for Leak {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        self.0.send(route.pipeline.clone()).await?;
        route.ready();
        route.stop.requested().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_starts_nothing_after_the_term_was_lost() {
    let cluster = MemoryCluster::new("a");
    let scope = occupy(&cluster).await;
    let mock = MockComponent::default();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let router = RouterBuilder::new()
        .component(source::source("probe", move |_| Leak(sender.clone())))
        .component(mock.clone())
        .route(from("probe:x").to("mock:sink"))
        .build()
        .unwrap();
    let _ = router
        .run_until(async {
            let pipeline = receiver.recv().await.unwrap().guarded_by(&scope);
            pipeline.process(&mut Exchange::new("in time")).await.unwrap();
            cluster.revoke(&lock(), Duration::from_secs(5));
            scope.term().lost().await;
            let error = pipeline.process(&mut Exchange::new("too late")).await.unwrap_err();
            assert!(error.is_leadership_lost());
            assert!(error.to_string().contains("a new exchange was not run"), "{error}");
        })
        .await;
    assert_eq!(mock.endpoint("sink").received().len(), 1);
}

/// Stopping takes too long, so the route is aborted. Its exchange is polled by the caller.
#[tokio::test(start_paused = true)]
async fn an_aborted_route_gives_the_lock_away_only_after_its_callers_have_stopped() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = RouterBuilder::new()
        .component(DirectComponent::default())
        .component(MasterComponent::default())
        .component(mock.clone())
        .cluster(Arc::clone(&cluster) as Arc<dyn ClusterService>)
        .shutdown_timeout(Duration::from_secs(3))
        .route(from("master:lock1:direct:slow").id("slow").delay("30s").to("mock:done"))
        .build()
        .unwrap();
    let test = async {
        let slow = router.producer("direct:slow").unwrap();
        let call = async move { slow.process(&mut Exchange::new("work")).await.unwrap_err().to_string() };
        let call = tokio::spawn(call);
        settle().await;
        let other = cluster.join("b");
        let waiting = other.view(&lock()).await.unwrap();
        let (stopped, _scope) = tokio::join!(router.stop_route("slow"), async {
            let scope = waiting.lead().await.unwrap();
            assert!(call.is_finished(), "the call goes on while the next leader leads");
            scope
        });
        stopped.unwrap();
        assert!(call.await.unwrap().contains("an exchange in flight was not run"));
    };
    let _ = router.run_until(test).await;
    assert!(mock.endpoint("done").received().is_empty());
}

/// A consumer that starts a task with an exchange and then panics, as often as it is made.
#[derive(Clone)]
struct Broken(Probe);

#[async_trait]
impl Consumer for Broken {
    async fn run(self: Box<Self>, _: RouteHandle) -> Result<(), BoxError> {
        self.0.note("start");
        panic!("out of paper");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delegate_that_panics_has_its_attempts_like_one_that_fails() {
    let (cluster, broken) = (MemoryCluster::new("a"), Broken(Probe::default()));
    let delegate = broken.clone();
    let router = RouterBuilder::new()
        .component(MasterComponent::default())
        .component(source::source("probe", move |_| delegate.clone()))
        .cluster(Arc::clone(&cluster) as Arc<dyn ClusterService>)
        .route(from("master:lock1:probe:x"))
        .build()
        .unwrap();
    let test = async {
        settle().await;
        let (other, healthy) = (cluster.join("b"), Probe::default());
        let _other = start(&other, &healthy);
        sleep(Duration::from_secs(44)).await;
        assert!(healthy.events().is_empty(), "the lock moved before all attempts were made");
        sleep(Duration::from_secs(2)).await;
        assert_eq!((broken.0.count("start"), healthy.count("started")), (10, 1));
    };
    let _ = router.run_until(test).await;
}
