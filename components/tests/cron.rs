//! What `cron:` promises, on a clock that tests can set.

#![cfg(feature = "cron")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use components::cron::Clock;
use components::{CronComponent, MasterComponent, MockComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::router::RouterBuilder;
use tokio::time::{Instant, sleep};

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600;

/// A clock that follows the paused time of the runtime, from New Year on, and can be set.
#[derive(Clone)]
struct TestClock {
    started: Instant,
    start: Arc<Mutex<SystemTime>>,
}

impl TestClock {
    fn new() -> Self {
        let start = UNIX_EPOCH + Duration::from_secs(NEW_YEAR);
        Self { started: Instant::now(), start: Arc::new(Mutex::new(start)) }
    }

    fn set_forward(&self, by: Duration) {
        *self.start.lock().unwrap() += by;
    }

    fn set_back(&self, by: Duration) {
        *self.start.lock().unwrap() -= by;
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.start.lock().unwrap() + self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }
}

fn builder(clock: &TestClock, mock: &MockComponent) -> RouterBuilder {
    RouterBuilder::new()
        .component(CronComponent::with_clock(clock.clone()))
        .component(MasterComponent::default())
        .component(mock.clone())
}

/// Runs the route until `work` is done; returns the seconds from New Year at which exchanges were due.
async fn due_times(clock: &TestClock, route: RouteBuilder, work: impl Future<Output = ()>) -> Vec<u64> {
    let mock = MockComponent::default();
    let router = builder(clock, &mock).route(route.to("mock:out")).build().unwrap();
    let _ = router.run_until(work).await;
    seconds(&mock)
}

fn seconds(mock: &MockComponent) -> Vec<u64> {
    let received = mock.endpoint("out").received();
    let header = |name: &str| {
        received
            .iter()
            .map(|exchange| exchange.message.headers.get(name).unwrap().as_number().unwrap())
            .collect::<Vec<_>>()
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small times of this test")]
    header("cron.scheduled_time")
        .iter()
        .map(|milliseconds| (milliseconds / 1000.0) as u64 - NEW_YEAR)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_due_when_the_schedule_says_so() {
    let clock = TestClock::new();
    let due = due_times(&clock, from("cron:c?schedule=0/20+*+*+*+*+?"), sleep(Duration::from_secs(65))).await;
    assert_eq!(due, [20, 40, 60]);
    let due = due_times(&clock, from("cron:c?schedule=*/2+*+*+*+*"), sleep(Duration::from_secs(200))).await;
    assert_eq!(due, [120, 240]);
}

#[tokio::test(start_paused = true)]
async fn times_that_pass_during_an_exchange_are_skipped() {
    let route = from("cron:c?schedule=*+*+*+*+*+*").delay("2500ms");
    let due = due_times(&TestClock::new(), route, sleep(Duration::from_millis(9_900))).await;
    assert_eq!(due, [1, 4, 7]);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_the_missed_times_are_all_treated_alike() {
    let suspended = async |policy: &str| {
        let route = from(format!("cron:c?schedule=*+*+*+*+*+*&{policy}"));
        due_times(&TestClock::new(), route, async {
            sleep(Duration::from_millis(1_500)).await;
            // What a suspended process sees: timers that are all due at once.
            tokio::time::advance(Duration::from_millis(3_200)).await;
            sleep(Duration::from_millis(1_600)).await;
        })
        .await
    };
    assert_eq!(suspended("missed=skip").await, [1, 5, 6]);
    assert_eq!(suspended("missed=once").await, [1, 4, 5, 6]);
    assert_eq!(suspended("missed=all").await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_is_followed_and_fires_nothing_that_is_long_past() {
    let clock = TestClock::new();
    let due = due_times(&clock, from("cron:c?schedule=0+*+*+*+*"), async {
        sleep(Duration::from_secs(10)).await;
        clock.set_forward(Duration::from_secs(3600 + 1800));
        sleep(Duration::from_secs(1800 + 40)).await;
    });
    assert_eq!(due.await, [7200], "not the one of 3600, noticed half an hour late");
    let clock = TestClock::new();
    let due = due_times(&clock, from("cron:c?schedule=0+*+*+*+*"), async {
        sleep(Duration::from_secs(10)).await;
        clock.set_forward(Duration::from_secs(3590));
        sleep(Duration::from_secs(31)).await;
    });
    assert_eq!(due.await, [3600], "noticed within half a minute");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_fires_nothing_twice() {
    let clock = TestClock::new();
    let due = due_times(&clock, from("cron:c?schedule=*+*+*+*+*"), async {
        sleep(Duration::from_secs(130)).await;
        clock.set_back(Duration::from_secs(100));
        sleep(Duration::from_secs(100 + 60)).await;
    });
    assert_eq!(due.await, [60, 120, 180]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait() {
    let start = Instant::now();
    let clock = TestClock::new();
    let due = due_times(&clock, from("cron:c?schedule=0+0+1+1+*"), sleep(Duration::from_secs(1))).await;
    assert!(due.is_empty() && start.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn two_members_fire_each_time_once_and_times_without_a_leader_are_skipped() {
    let (clock, mock) = (TestClock::new(), MockComponent::default());
    let (first, lock) = (MemoryCluster::new("a"), "lock1".parse::<LockName>().unwrap());
    let (second, third) = (first.join("b"), first.join("c"));
    let run = |cluster: &Arc<MemoryCluster>| {
        let cluster = Arc::clone(cluster) as Arc<dyn ClusterService>;
        let route = from("master:lock1:cron:c?schedule=*/10+*+*+*+*+*").id("c").to("mock:out");
        builder(&clock, &mock).cluster(cluster).route(route).build().unwrap()
    };
    let (one, other) = (run(&first), run(&second));
    let _ = tokio::join!(
        one.run_until(async {
            sleep(Duration::from_secs(15)).await;
            first.revoke(&lock, Duration::from_secs(1));
            sleep(Duration::from_secs(20)).await;
        }),
        other.run_until(sleep(Duration::from_secs(35)))
    );
    sleep(Duration::from_secs(10)).await;
    let _ = run(&third).run_until(sleep(Duration::from_secs(20))).await;
    assert_eq!(seconds(&mock), [10, 20, 30, 50, 60], "nobody led at 40");
}

/// One leader ends at 15 s, and nobody leads until 42 s. Returns when exchanges were due.
async fn failover(policy: &'static str) -> Vec<u64> {
    let (clock, mock) = (TestClock::new(), MockComponent::default());
    let first = MemoryCluster::new("a");
    let second = first.join("b");
    let run = |cluster: &Arc<MemoryCluster>| {
        let cluster = Arc::clone(cluster) as Arc<dyn ClusterService>;
        let route = from(format!("master:lock1:cron:c?schedule=*/10+*+*+*+*+*&{policy}"));
        builder(&clock, &mock).cluster(cluster).route(route.id("job").to("mock:out")).build().unwrap()
    };
    let _ = run(&first).run_until(sleep(Duration::from_secs(15))).await;
    sleep(Duration::from_secs(27)).await;
    // This member's clock is behind: what was fired is not fired again.
    clock.set_back(Duration::from_secs(4));
    let _ = run(&second).run_until(sleep(Duration::from_secs(24))).await;
    seconds(&mock)
}

#[tokio::test(start_paused = true)]
async fn times_that_fell_into_a_failover_fire_by_policy() {
    assert_eq!(failover("missed=skip").await, [10, 40, 50, 60]);
    assert_eq!(failover("missed=once").await, [10, 30, 40, 50, 60]);
    assert_eq!(failover("missed=all").await, [10, 20, 30, 40, 50, 60]);
    assert_eq!(failover("missed=all&missed_max=1").await, [10, 30, 40, 50, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_was_fired_is_not_fired_again_by_a_leader_whose_clock_is_behind() {
    let (clock, mock) = (TestClock::new(), MockComponent::default());
    let first = MemoryCluster::new("a");
    let second = first.join("b");
    for cluster in [&first, &second] {
        let cluster = Arc::clone(cluster) as Arc<dyn ClusterService>;
        let route = from("master:lock1:cron:c?schedule=*/10+*+*+*+*+*&missed=all").id("job").to("mock:out");
        let router = builder(&clock, &mock).cluster(cluster).route(route).build().unwrap();
        let _ = router.run_until(sleep(Duration::from_secs(25))).await;
        clock.set_back(Duration::from_secs(15));
    }
    assert_eq!(seconds(&mock), [10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn without_a_lock_a_file_keeps_the_position() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, mock) = (TestClock::new(), MockComponent::default());
    for _ in 0..2 {
        let file = folder.path().join("job.json");
        let uri = format!("cron:c?schedule=*/10+*+*+*+*+*&missed=all&state={}", file.display());
        let router = builder(&clock, &mock).route(from(uri).id("job").to("mock:out")).build().unwrap();
        let _ = router.run_until(sleep(Duration::from_secs(15))).await;
        sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(seconds(&mock), [10, 20, 30, 40]);
}

#[test]
fn a_schedule_is_required_and_checked_before_anything_runs() {
    let errors = |uri: &str| {
        let built = RouterBuilder::new().component(CronComponent::default()).route(from(uri)).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(errors("cron:c").contains("option `schedule` is required"));
    assert!(errors("cron:c?schedule=99+*+*+*+*").contains("is no cron schedule"));
    assert!(errors("cron:c?schedule=1+*+*+*+*&time_zone=Nowhere").contains("no time zone `Nowhere`"));
    for never in ["0+0+30+2+*", "0+0+0+1+1+*+2020"] {
        assert!(errors(&format!("cron:c?schedule={never}")).contains("` never fires"), "{never}");
    }
    for (schedule, step) in
        [("*/70+*+*+*+*", "*/70"), ("0+*/25+*+*+*", "*/25"), ("10-20/15+*+*+*+*", "10-20/15")]
    {
        let found = errors(&format!("cron:c?schedule={schedule}"));
        assert!(found.contains(&format!("has the step `{step}`, which is longer than its range")), "{found}");
    }
    for schedule in ["*/60+*+*+*+*", "0+22-4/6+*+*+*", "0+0+*/31+*+*", "*/30+0+0+1+1+*"] {
        assert_eq!(errors(&format!("cron:c?schedule={schedule}")), "", "{schedule}");
    }
    let both = errors("cron:c?schedule=99+*+*+*+*&time_zone=Nowhere");
    assert!(both.contains("is no cron schedule") && both.contains("`Nowhere`"), "{both}");
    let place = "cron:c?schedule=99+*+*+*+*\n  |                 ^^^^^^^^^^";
    assert!(errors("cron:c?schedule=99+*+*+*+*").contains(place));
    assert_eq!(errors("cron:c?schedule=0+12+*+*+FRI-MON&time_zone=Europe/Paris"), "");
    assert_eq!(errors("cron:c?schedule=@daily&time_zone=Europe/Paris"), "");
}

#[tokio::test]
async fn the_system_clock_fires_on_the_second() {
    let mock = MockComponent::default();
    let router = RouterBuilder::new()
        .component(CronComponent::default())
        .component(mock.clone())
        .route(from("cron:c?schedule=*+*+*+*+*+*").to("mock:out"))
        .build()
        .unwrap();
    let _ = router.run_until(mock.endpoint("out").wait_for(1)).await;
    let headers = &mock.endpoint("out").received()[0].message.headers;
    let number = |name: &str| headers.get(name).unwrap().as_number().unwrap();
    assert!(number("cron.fired_time") >= number("cron.scheduled_time"));
}

#[cfg(feature = "tokio-cron-scheduler")]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_scheduler_can_do_the_waiting() {
    let mut scheduler = tokio_cron_scheduler::JobScheduler::new().await.unwrap();
    scheduler.start().await.unwrap();
    let mock = MockComponent::default();
    let clock = components::cron::SchedulerClock::new(scheduler.clone());
    let router = RouterBuilder::new()
        .component(CronComponent::with_clock(clock))
        .component(mock.clone())
        .route(from("cron:c?schedule=*+*+*+*+*+*").to("mock:out"))
        .build()
        .unwrap();
    let work = async {
        mock.endpoint("out").wait_for(2).await;
        // A schedule goes on when the scheduler does not.
        scheduler.shutdown().await.unwrap();
        mock.endpoint("out").wait_for(4).await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(30), router.run_until(work)).await.unwrap();
    let times = seconds(&mock);
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
}
