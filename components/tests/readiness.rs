//! When a route is ready: when its consumer has said so, and not before.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod source;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use components::{
    DirectComponent, FileComponent, MasterComponent, SedaComponent, SqlComponent, TimerComponent,
};
use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, MemoryCluster};
use router_core::component::{Consumer, RouteHandle};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::router::{Phase, RouteInfo, RouteStatus, Router, RouterBuilder};
use tokio::time::{Instant, sleep};

/// What the consumer `case:NAME` does.
#[derive(Clone, Default)]
struct Case {
    name: String,
    /// When it was run.
    runs: Arc<Mutex<Vec<Instant>>>,
    /// The port of `case:server`.
    port: Arc<AtomicU32>,
}

#[async_trait]
impl Consumer for Case {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        self.runs.lock().unwrap().push(Instant::now());
        let run = self.runs.lock().unwrap().len();
        match &*self.name {
            "silent" => {}
            "ends" => return Ok(()),
            "fails" => return Err("out of order".into()),
            "flaps" if run <= 3 => return Err("out of order".into()),
            "flaps" => {
                route.ready();
                return Err("worked, and failed".into());
            }
            "server" => {
                let port = u16::try_from(self.port.load(Ordering::Relaxed)).unwrap();
                let _listener = TcpListener::bind(("127.0.0.1", port))?;
                route.ready();
                route.stop.requested().await;
                return Ok(());
            }
            other => unreachable!("{other}"),
        }
        route.stop.requested().await;
        Ok(())
    }
}

fn builder(case: &Case) -> RouterBuilder {
    let case = case.clone();
    let of_name = move |name: &str| Case { name: name.into(), ..case.clone() };
    RouterBuilder::new()
        .component(source::source("case", of_name))
        .component(DirectComponent::default())
        .component(SedaComponent::default())
        .component(TimerComponent)
        .component(MasterComponent::default())
        .component(FileComponent)
        .component(SqlComponent::default())
        .cluster(MemoryCluster::new("a") as Arc<dyn ClusterService>)
}

fn routes(uris: &[&str]) -> (Router, Case) {
    let case = Case::default();
    let routes = uris.iter().map(|uri| from(*uri).log("x"));
    (builder(&case).routes(routes).build().unwrap(), case)
}

fn route(router: &Router) -> RouteInfo {
    router.routes().remove(0)
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn routes_of_every_kind_are_ready_when_they_can_work() {
    let uris =
        ["timer:t?delay=1h", "direct:a", "seda:b", "master:lock1:timer:t?delay=1h", "master:lock1:direct:c"];
    let (router, _) = routes(&uris);
    assert_eq!(route(&router).unready_for, None, "not started");
    let _ = router
        .run_until(async {
            until(|| router.phase() == Phase::Running).await;
            assert!(router.routes().iter().all(|route| route.unready_for.is_none()), "{:?}", router.routes());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_ready() {
    let cluster = MemoryCluster::new("a");
    let other = cluster.join("b").view(&"lock1".parse().unwrap()).await.unwrap();
    let _leads = other.lead().await.unwrap();
    let router =
        builder(&Case::default()).cluster(cluster).route(from("master:lock1:case:silent")).build().unwrap();
    let _ = router.run_until(until(|| router.phase() == Phase::Running)).await;
}

#[tokio::test(start_paused = true)]
async fn who_never_says_that_it_is_ready_is_not() {
    let (router, _) = routes(&["case:silent", "timer:t"]);
    let looks = async {
        sleep(Duration::from_secs(12)).await;
        assert_eq!((route(&router).status, route(&router).note), (RouteStatus::Started, None));
        assert_eq!(route(&router).unready_for.unwrap().as_secs(), 12);
        assert_eq!(router.phase(), Phase::Starting);
        // Who is stopped is not waited for.
        router.stop_route("route1").await.unwrap();
        until(|| router.phase() == Phase::Running).await;
        assert_eq!(route(&router).unready_for, None);
    };
    let _ = router.run_until(looks).await;
}

#[tokio::test(start_paused = true)]
async fn who_ends_or_fails_before_it_is_ready_is_not() {
    let (router, _) = routes(&["case:ends", "case:fails"]);
    let looks = async {
        sleep(Duration::from_secs(1)).await;
        let [ended, failed] = router.routes().try_into().unwrap();
        assert_eq!(ended.status, RouteStatus::Finished);
        assert!(ended.unready_for.is_some() && failed.unready_for.is_some(), "{ended:?} {failed:?}");
        assert!(failed.note.unwrap().ends_with(": out of order"));
        assert_eq!(router.phase(), Phase::Starting);
    };
    let _ = router.run_until(looks).await;
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_until_a_consumer_was_ready() {
    let (router, case) = routes(&["case:flaps"]);
    let _ = router.run_until(sleep(Duration::from_secs(60))).await;
    let runs = case.runs.lock().unwrap();
    let pauses = runs.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect::<Vec<_>>();
    // With jitter: from 0.5 to 1 s, 1 to 1.5 s, 2 to 2.5 s; and then the shortest one each time.
    assert!(pauses[0] < 1.01 && pauses[1] >= 1.0 && pauses[2] >= 2.0, "{pauses:?}");
    assert!(pauses.len() > 20 && pauses[3..].iter().all(|pause| *pause < 1.01), "{pauses:?}");
}

/// Failures before it was ready count as attempts to start, after which the member resigns; others do not.
#[tokio::test(start_paused = true)]
async fn a_delegate_that_fails_after_it_was_ready_does_not_cost_the_lock() {
    let cluster = MemoryCluster::new("a");
    let case = Case::default();
    let router = builder(&case).cluster(Arc::clone(&cluster) as _).route(from("master:lock1:case:flaps"));
    let router = router.build().unwrap();
    let leads = async {
        sleep(Duration::from_secs(1)).await;
        let other = cluster.join("b").view(&"lock1".parse().unwrap()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(600), other.lead()).await.is_err(), "it resigned");
    };
    let _ = router.run_until(leads).await;
    assert!(case.runs.lock().unwrap().len() > 100);
}

#[tokio::test]
async fn a_server_is_ready_when_its_port_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let case = Case::default();
    case.port.store(taken.local_addr().unwrap().port().into(), Ordering::Relaxed);
    let router = builder(&case).route(from("case:server")).build().unwrap();
    let looks = async {
        until(|| route(&router).note.is_some_and(|note| note.contains("Address already in use"))).await;
        assert!(route(&router).unready_for.is_some());
        drop(taken);
        until(|| route(&router).unready_for.is_none()).await;
        assert_eq!(route(&router).note, None);
    };
    let _ = router.run_until(looks).await;
}

#[tokio::test]
async fn a_file_route_is_ready_when_its_directory_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    let (router, _) = routes(&[&format!("file:{}?initial_delay=1h", inbox.display())]);
    std::fs::write(&inbox, "a file").unwrap();
    let looks = async {
        until(|| route(&router).note.is_some()).await;
        assert!(route(&router).unready_for.is_some());
        std::fs::remove_file(&inbox).unwrap();
        until(|| route(&router).unready_for.is_none()).await;
        assert!(inbox.is_dir());
    };
    let _ = router.run_until(looks).await;
}

#[tokio::test]
async fn a_sql_route_is_ready_when_its_database_takes_the_statement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/orders.db");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let source = format!("data_source=sqlite:{}", path.display());
    let (router, _) = routes(&[&format!("sql:select * from orders?{source}&initial_delay=1h")]);
    // It was there when the route was built.
    std::fs::remove_dir(path.parent().unwrap()).unwrap();
    let looks = async {
        until(|| route(&router).note.is_some_and(|note| note.contains("no connection"))).await;
        assert!(route(&router).unready_for.is_some());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        until(|| route(&router).note.is_some_and(|note| note.contains("no such table"))).await;
        assert!(route(&router).unready_for.is_some());
        let create = router.producer(format!("sql:create table orders (id integer)?{source}")).unwrap();
        create.process(&mut Exchange::new(())).await.unwrap();
        until(|| route(&router).unready_for.is_none()).await;
    };
    let _ = router.run_until(looks).await;
}
