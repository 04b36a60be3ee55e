//! Exchanges in flight when leadership ends: `master:` routes over `LeaseCluster`, under paused time.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryHandle, MemoryStore, TokioClock};
use components::MasterComponent;
use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, LockName, Member};
use router_core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, PathKind, path};
use router_core::router::{Router, RouterBuilder};
use router_core::uri::EndpointUri;
use tokio::time::{Instant, sleep, timeout};

/// From the sending of the last heartbeat to the deadline, and from there to the end of all work.
const Y: Duration = Duration::from_millis(12_500);
const STOP: Duration = Duration::from_secs(2);

/// What happened, when, where and in which term.
#[derive(Clone, Debug, PartialEq)]
struct Noted {
    at: Instant,
    member: &'static str,
    what: &'static str,
    term: u64,
}

#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Noted>>>);

impl Journal {
    fn note(&self, member: &'static str, what: &'static str, term: u64) {
        self.0.lock().unwrap().push(Noted { at: Instant::now(), member, what, term });
    }

    fn of(&self, member: &str, what: &str) -> Vec<Noted> {
        let noted = self.0.lock().unwrap();
        noted.iter().filter(|noted| noted.member == member && noted.what == what).cloned().collect()
    }

    fn first(&self, member: &str, what: &str) -> Option<Instant> {
        self.of(member, what).first().map(|noted| noted.at)
    }

    fn last(&self, member: &str) -> Option<Instant> {
        self.0.lock().unwrap().iter().filter(|noted| noted.member == member).map(|noted| noted.at).max()
    }

    async fn wait_for(&self, member: &str, what: &str) -> Instant {
        let noted = async {
            loop {
                if let Some(at) = self.first(member, what) {
                    return at;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(120), noted).await.unwrap_or_else(|_| panic!("{member} never {what}"))
    }
}

/// A source with a full buffer, and without manners: it sends one exchange after the other, each when the
/// one before is done, whatever it is asked to do, until one is not accepted. `polite`: it stops when asked.
#[derive(Clone)]
struct Source {
    member: &'static str,
    journal: Journal,
    polite: bool,
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "source",
    summary: "",
    syntax: "source:name",
    path: path("", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[],
};

impl Component for Source {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, _: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        Ok(Box::new(self.clone()))
    }
}

impl Endpoint for Source {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.clone()))
    }
}

#[async_trait]
impl Consumer for Source {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        route.ready();
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        while !(self.polite && stop.is_requested()) {
            match pipeline.process(&mut Exchange::new("work")).await {
                Ok(_) => self.journal.note(self.member, "acknowledged", 0),
                Err(error) if error.is_leadership_lost() => {
                    self.journal.note(self.member, "refused", 0);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        stop.requested().await;
        Ok(())
    }
}

struct Process {
    cluster: Arc<LeaseCluster>,
    clock: Arc<TokioClock>,
    handle: MemoryHandle,
    router: Router,
    stop: tokio::sync::oneshot::Sender<()>,
}

/// A process whose exchanges take `steps` steps of a second each, with a side effect after each.
fn start(
    store: &MemoryStore,
    member: &'static str,
    journal: &Journal,
    steps: usize,
    polite: bool,
) -> Process {
    let clock = Arc::new(TokioClock::default());
    let settings = LeaseClusterSettings::new(Member::new(member)).clock(clock.clone());
    let handle = store.handle(1);
    let cluster = LeaseCluster::start(handle.clone(), settings).unwrap();
    let noted = |what: &'static str| {
        let journal = journal.clone();
        move |exchange: &mut Exchange| {
            journal.note(member, what, exchange.term.as_ref().unwrap().number());
            Ok::<(), BoxError>(())
        }
    };
    let mut route = from("master:lock1:source:x").id("route").process(noted("started"));
    for _ in 0..steps {
        route = route.delay("1s").process(noted("acted"));
    }
    let router = RouterBuilder::new()
        .component(MasterComponent::default())
        .component(Source { member, journal: journal.clone(), polite })
        .cluster(cluster.clone() as Arc<dyn ClusterService>)
        .shutdown_timeout(Duration::from_secs(300))
        .route(route)
        .build()
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let running = router.clone();
    tokio::spawn(async move {
        running
            .run_until(async {
                let _ = stopped.await;
            })
            .await
    });
    Process { cluster, clock, handle, router, stop }
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    store.create_free(&lock());
    store
}

/// Two processes, of which `a` leads and works.
async fn two(steps: usize, polite: bool) -> (Process, Process, Journal) {
    let (store, journal) = (store(), Journal::default());
    let a = start(&store, "a", &journal, steps, polite);
    journal.wait_for("a", "started").await;
    let b = start(&store, "b", &journal, steps, polite);
    sleep(Duration::from_millis(500)).await;
    (a, b, journal)
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_flight_at_a_partition_is_aborted_before_the_next_leader_starts() {
    let (a, _b, journal) = two(60, false).await;
    a.handle.link().cut();
    let cut = Instant::now();
    let successor = journal.wait_for("b", "started").await;
    let last = journal.last("a").unwrap();
    assert!(last <= cut + Y + STOP && last < successor, "{:?}, {:?}", last - cut, successor - cut);
    let acted = journal.of("a", "acted");
    assert!(acted.iter().all(|noted| noted.at < cut + Y), "no side effect after the deadline");
    assert!(acted.len() >= 9, "until the deadline the work went on: {}", acted.len());
    assert!(journal.of("a", "acknowledged").is_empty(), "its source must deliver it again");
    let terms = (journal.of("a", "started")[0].term, journal.of("b", "started")[0].term);
    assert!(terms.0 < terms.1);
}

#[tokio::test(start_paused = true)]
async fn a_long_exchange_is_finished_while_its_member_stops_and_heartbeats_go_on() {
    let (a, _b, journal) = two(60, true).await;
    let asked = Instant::now();
    a.stop.send(()).unwrap();
    let successor = journal.wait_for("b", "started").await;
    assert_eq!(journal.of("a", "acted").len(), 60, "far longer than the deadline");
    assert_eq!(journal.of("a", "acknowledged").len(), 1);
    assert!(successor > asked + Duration::from_secs(55));
    assert!(successor - journal.last("a").unwrap() < Duration::from_millis(20), "then the lock is free");
}

#[tokio::test(start_paused = true)]
async fn h26_a_member_that_resigns_finishes_what_runs_and_starts_nothing_more() {
    let (a, _b, journal) = two(8, false).await;
    a.cluster.view(&lock()).await.unwrap().resign(Duration::from_secs(60));
    let successor = journal.wait_for("b", "started").await;
    assert_eq!(journal.of("a", "started").len(), 1, "the buffer was full");
    assert_eq!(journal.of("a", "acted").len(), 8, "each step of the running exchange was admitted");
    assert_eq!(journal.of("a", "acknowledged").len(), 1);
    assert!(journal.last("a").unwrap() <= successor);
    assert!(successor - journal.last("a").unwrap() < Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn h27_no_buffered_exchange_starts_after_the_loss() {
    let (store, journal) = (store(), Journal::default());
    let a = start(&store, "a", &journal, 1, false);
    journal.wait_for("a", "acknowledged").await;
    let _b = start(&store, "b", &journal, 1, false);
    a.handle.link().cut();
    let cut = Instant::now();
    let successor = journal.wait_for("b", "started").await;
    assert!(journal.of("a", "started").len() > 9);
    assert!(journal.of("a", "started").iter().all(|noted| noted.at < cut + Y));
    assert!(journal.last("a").unwrap() < successor);
    assert_eq!(journal.of("a", "refused").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn h28_after_a_suspension_nothing_starts_in_the_successors_term() {
    let (a, _b, journal) = two(1, false).await;
    let before = journal.of("a", "started").len();
    // The host wakes up after 25 s by its own clock, and the store is not there yet.
    a.handle.link().cut();
    a.clock.jump(Duration::from_secs(25));
    let resumed = Instant::now();
    let successor = journal.wait_for("b", "started").await;
    assert_eq!(journal.of("a", "started").len(), before, "not even a burst of the overdue");
    assert!(journal.of("a", "acted").iter().all(|noted| noted.at < resumed));
    assert!(journal.last("a").unwrap() < successor);
    // When it is back, it stands by.
    a.handle.link().mend();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(journal.of("a", "started").len(), before);
    assert!(a.router.routes().iter().all(|route| route.id == "route"));
}
