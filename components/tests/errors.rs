//! What becomes of an exchange that fails, is filtered or stopped: the table of the guide, cell by cell.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

mod source;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use components::{DirectComponent, MasterComponent, MockComponent, SedaComponent};
use router_core::builder::{Branch, RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LeadershipLost, MemoryCluster};
use router_core::component::{Consumer, RouteHandle};
use router_core::definition::ErrorHandlerDefinition;
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::failure::{ErrorKind, Failure};
use router_core::outcome::{Outcome, RouteError};
use router_core::router::{Router, RouterBuilder};
use router_core::value::Value;
use tokio::time::Instant;

type Ended = Result<Outcome, RouteError>;

/// `probe:x` sends one exchange, and keeps what became of it.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Option<Ended>>>, Arc<tokio::sync::Notify>);

#[async_trait]
impl Consumer for Probe {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        route.ready();
        let ended = route.pipeline.process(&mut Exchange::new("x")).await;
        *self.0.lock().unwrap() = Some(ended);
        self.1.notify_one();
        route.stop.requested().await;
        Ok(())
    }
}

struct Stage {
    mock: MockComponent,
    probe: Probe,
}

impl Stage {
    fn new() -> Self {
        Self { mock: MockComponent::default(), probe: Probe::default() }
    }

    fn builder(&self) -> RouterBuilder {
        let probe = self.probe.clone();
        RouterBuilder::new()
            .component(DirectComponent::default())
            .component(MasterComponent::default())
            .component(SedaComponent::default())
            .component(self.mock.clone())
            .component(source::source("probe", move |_| probe.clone()))
    }

    /// What became of the exchange of the first route, as the name of the outcome or of the kind of the error.
    async fn run(&self, routes: impl IntoIterator<Item = RouteBuilder>) -> &'static str {
        self.run_in(&self.builder().routes(routes).build().unwrap_or_else(|errors| panic!("{errors}"))).await
    }

    async fn run_in(&self, router: &Router) -> &'static str {
        let _ = router.run_until(self.probe.1.notified()).await;
        match self.probe.0.lock().unwrap().as_ref().unwrap() {
            Ok(outcome) => outcome.name(),
            Err(error) => error.kind().name(),
        }
    }

    fn got(&self, name: &str) -> Vec<String> {
        let received = self.mock.endpoint(name).received();
        received.iter().map(|exchange| exchange.message.body.to_string()).collect()
    }
}

fn source() -> RouteBuilder {
    from("probe:x").id("main")
}

/// A step that counts how often it runs, and fails with what `error` gives.
fn failing(
    tries: &Arc<AtomicUsize>,
    error: impl Fn() -> BoxError + Send + Sync + 'static,
) -> impl Fn(&mut Exchange) -> Result<(), BoxError> + Send + Sync + 'static {
    let tries = Arc::clone(tries);
    move |_| {
        tries.fetch_add(1, Ordering::SeqCst);
        Err(error())
    }
}

fn handler() -> ErrorHandlerDefinition {
    ErrorHandlerDefinition::default().maximum_redeliveries(2)
}

#[tokio::test(start_paused = true)]
async fn the_outcome_names_how_an_exchange_was_done() {
    let fails = || |_: &mut Exchange| Err("no".into());
    let dead = || ErrorHandlerDefinition::default().dead_letter("mock:dead");
    let cases: [(RouteBuilder, &str, usize); 13] = [
        (source().to("mock:out"), "completed", 1),
        (source().filter("${body} == 'y'").to("mock:out"), "filtered", 0),
        (source().stop().to("mock:out"), "stopped", 0),
        (source().process(fails()).to("mock:out"), "other", 0),
        (source().error_handler(dead()).process(fails()).to("mock:out"), "dead_lettered", 0),
        // In a block: a filter ends the block, a stop and a failure the route.
        (
            source().choice(|choice| choice.otherwise(|then| then.filter("${body} == 'y'"))).to("mock:out"),
            "completed",
            1,
        ),
        (source().choice(|choice| choice.otherwise(Steps::stop)).to("mock:out"), "stopped", 0),
        (source().choice(|choice| choice.otherwise(|then| then.process(fails()))).to("mock:out"), "other", 0),
        (
            source()
                .error_handler(dead())
                .choice(|choice| choice.otherwise(|then| then.process(fails())))
                .to("mock:out"),
            "dead_lettered",
            0,
        ),
        (source().filter_block("true", |then| then.filter("${body} == 'y'")).to("mock:out"), "completed", 1),
        (source().filter_block("true", Steps::stop).to("mock:out"), "stopped", 0),
        (source().filter_block("true", |then| then.process(fails())).to("mock:out"), "other", 0),
        (
            source().error_handler(dead()).filter_block("true", |then| then.process(fails())).to("mock:out"),
            "dead_lettered",
            0,
        ),
    ];
    for (number, (route, outcome, count)) in cases.into_iter().enumerate() {
        let stage = Stage::new();
        assert_eq!(stage.run([route]).await, outcome, "case {number}");
        assert_eq!(stage.got("out").len(), count, "case {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_of_a_route_goes_on_with_each_outcome_and_handles_its_failure() {
    let fails = || |_: &mut Exchange| Err("no".into());
    let dead = || ErrorHandlerDefinition::default().dead_letter("mock:dead");
    let called = || from("direct:called").set_body("changed");
    let cases: [(RouteBuilder, &str, &[&str]); 4] = [
        (called().filter("${body} == 'y'"), "completed", &["changed"]),
        (called().stop(), "completed", &["changed"]),
        (called().error_handler(dead()).process(fails()), "completed", &["changed"]),
        (called().process(fails()), "dead_lettered", &[]),
    ];
    for (number, (called, outcome, got)) in cases.into_iter().enumerate() {
        let stage = Stage::new();
        let caller = source()
            .error_handler(ErrorHandlerDefinition::default().dead_letter("mock:outer"))
            .to("direct:called")
            .set_property("after", "${exception.message}")
            .to("mock:out");
        assert_eq!(stage.run([caller, called]).await, outcome, "case {number}");
        assert_eq!(stage.got("out"), got, "case {number}");
        for exchange in stage.mock.endpoint("out").received() {
            assert_eq!(exchange.properties.get("after"), Some(&Value::Null), "what was handled is over");
            assert!(exchange.exception().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_block_the_step_alone_is_tried_again() {
    for is_choice in [true, false] {
        let (stage, before, tries) =
            (Stage::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, fails) = (Arc::clone(&before), failing(&tries, || "no".into()));
        let block = |block: Branch| {
            let counted = block.process(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            counted.process(fails)
        };
        let route = source().error_handler(handler());
        let route = match is_choice {
            true => route.choice(|choice| choice.otherwise(block)),
            false => route.filter_block("true", block),
        };
        assert_eq!(stage.run([route]).await, "other");
        assert_eq!((before.load(Ordering::SeqCst), tries.load(Ordering::SeqCst)), (1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_handler_of_a_called_route_fails_that_of_the_caller_is_next() {
    let stage = Stage::new();
    let caller = source().error_handler(handler().dead_letter("mock:outer")).to("direct:called");
    let called = from("direct:called").error_handler(handler().dead_letter("direct:broken"));
    let broken = from("direct:broken").id("broken").process(|_| Err("second".into()));
    let called = called.process(|_| Err(Failure::rejected("first").into()));
    assert_eq!(stage.run([caller.to("mock:out"), called, broken]).await, "dead_lettered");
    let outer = stage.mock.endpoint("outer").received();
    assert_eq!(outer[0].exception().unwrap().message, "second");
    assert!(stage.got("out").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_letter_route_filters_or_stops_is_a_dead_letter() {
    for is_stop in [true, false] {
        let stage = Stage::new();
        let route =
            source().error_handler(handler().dead_letter("direct:dead")).process(|_| Err("no".into()));
        let dead = from("direct:dead").to("mock:dead");
        let dead = if is_stop { dead.stop() } else { dead.filter("false") };
        assert_eq!(stage.run([route, dead.to("mock:out")]).await, "dead_lettered");
        assert_eq!((stage.got("dead").len(), stage.got("out").len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_source_is_told_when_nothing_runs_for_the_exchange_any_more() {
    let after =
        |seconds| ErrorHandlerDefinition { redelivery_delay: Duration::from_secs(seconds), ..handler() };
    let stage = Stage::new();
    let route = source().error_handler(after(1).dead_letter("direct:dead")).to("direct:called");
    let called = from("direct:called")
        .error_handler(after(10).dead_letter("direct:broken"))
        .process(|_| Err("no".into()));
    let broken = from("direct:broken").delay("100s").process(|_| Err(Failure::rejected("no").into()));
    let dead = from("direct:dead").delay("1000s").to("mock:dead");
    let start = Instant::now();
    assert_eq!(stage.run([route, called, broken, dead]).await, "dead_lettered");
    // Redeliveries inside, the dead letter endpoint inside, the one outside; a `rejected` is not tried again.
    assert_eq!((start.elapsed().as_secs(), stage.got("dead").len()), (20 + 100 + 1000, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_follows_from_the_kind() {
    use ErrorKind::{Data, Other, Rejected, Timeout, Unavailable};
    for (kind, times) in [(Timeout, 3), (Unavailable, 3), (Other, 3), (Rejected, 1), (Data, 1)] {
        let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
        let failing = failing(&tries, move || Failure::new(kind, "no").into());
        let route = source().error_handler(handler()).process(failing);
        assert_eq!(stage.run([route]).await, kind.name());
        assert_eq!(tries.load(Ordering::SeqCst), times, "{kind}");
    }
    let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let rejected = failing(&tries, || Failure::rejected("no").into());
    let route = source().error_handler(handler().retry_on([Rejected])).process(rejected);
    assert_eq!(stage.run([route]).await, "rejected");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

/// Each of 64 routes would try all those below it again.
#[tokio::test(start_paused = true)]
async fn a_circle_of_calls_is_not_tried_again_at_each_level() {
    let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&tries);
    let circle = from("direct:circle")
        .error_handler(handler())
        .process(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .filter("${body} == 'x'")
        .to("direct:circle");
    assert_eq!(stage.run([source().to("direct:circle"), circle]).await, "rejected");
    assert_eq!(tries.load(Ordering::SeqCst), 63);
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_waits_as_long_as_it_was_asked_to() {
    let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let busy = failing(&tries, || Failure::unavailable("busy").retry_after(Duration::from_secs(20)).into());
    let start = Instant::now();
    assert_eq!(stage.run([source().error_handler(handler()).process(busy)]).await, "unavailable");
    assert_eq!(start.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn the_exception_is_read_by_the_dead_letter_route_also_behind_a_queue() {
    for dead_letter in ["direct:dead", "seda:dead"] {
        let stage = Stage::new();
        let refused = || {
            let busy = Failure::unavailable("out of stock").code("503");
            Err(busy.retry_after(Duration::from_millis(1500)).into())
        };
        let route = source()
            .error_handler(ErrorHandlerDefinition::default().dead_letter(dead_letter))
            .set_body("before: ${exception.message}")
            .process(move |_| refused());
        let dead = from(dead_letter)
            .set_body(
                "${body}|${exception.message}|${exception.kind}|${exception.route}|${exception.step}|\
                 ${exception.code}|${exception.retry_after}",
            )
            .delay("${exception.retry_after}")
            .to("mock:dead");
        let router = stage.builder().routes([route, dead]).build().unwrap();
        assert_eq!(stage.run_in(&router).await, "dead_lettered");
        assert_eq!(
            stage.got("dead"),
            ["before: |out of stock|unavailable|main|step 2 (process)|503|1500ms"],
            "{dead_letter}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_is_not_handled_by_itself() {
    let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let route = source().error_handler(handler().dead_letter("direct:dead")).process(|_| Err("first".into()));
    let dead = from("direct:dead").id("dead").process(failing(&tries, || "second".into()));
    assert_eq!(stage.run([route, dead]).await, "other");
    let ended = stage.probe.0.lock().unwrap().take().unwrap();
    assert_eq!(ended.unwrap_err().to_string(), "route `dead`, step 1 (process) failed");
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

/// As a processor may wrap what it got.
#[derive(Debug, thiserror::Error)]
#[error("while writing")]
struct Around(#[source] LeadershipLost);

#[tokio::test(start_paused = true)]
async fn the_loss_of_leadership_is_read_and_never_handled() {
    let (stage, tries) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let lost = || LeadershipLost { lock: "lock1".parse().unwrap(), term: 7 };
    let route = source()
        .error_handler(handler().dead_letter("mock:dead"))
        .process(failing(&tries, move || Box::new(Around(lost()))));
    assert_eq!(stage.run([route]).await, "leadership_lost");
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert!(stage.got("dead").is_empty());
}

/// The error does not say it, but no other member may be told that the work has failed.
#[tokio::test(start_paused = true)]
async fn a_failure_after_the_end_of_the_term_is_the_loss_of_leadership() {
    let (stage, cluster) = (Stage::new(), MemoryCluster::new("a"));
    let revoked = cluster.clone();
    let route = from("master:lock1:probe:x").id("main").process_async(move |exchange| {
        revoked.revoke(&"lock1".parse().unwrap(), Duration::from_secs(60));
        let term = exchange.term.clone().unwrap();
        Box::pin(async move {
            term.lost().await;
            Err("no".into())
        })
    });
    let router = stage.builder().cluster(cluster.clone() as Arc<dyn ClusterService>);
    let router = router.route(route).build().unwrap();
    assert_eq!(stage.run_in(&router).await, "leadership_lost");
}

/// What was put there runs under no term: not even a handler may have a side effect with it.
#[tokio::test(start_paused = true)]
async fn an_exchange_that_was_put_in_the_place_of_another_ends_it() {
    let replacements: [fn(&mut Exchange); 3] = [
        |exchange| *exchange = Exchange::new("y"),
        |exchange| *exchange = exchange.fork(),
        |exchange| *exchange = exchange.clone(),
    ];
    for replace in replacements {
        for is_failing in [false, true] {
            let stage = Stage::new();
            let ended = move || if is_failing { Err("no".into()) } else { Ok(()) };
            let caller = source().error_handler(handler().dead_letter("mock:dead")).to("direct:called");
            let called = from("direct:called").error_handler(handler().dead_letter("mock:dead"));
            let at_once = called.id("called").process(move |exchange| {
                replace(exchange);
                ended()
            });
            assert_eq!(stage.run([caller.to("mock:out"), at_once.to("mock:out")]).await, "rejected");
            assert!(stage.got("out").is_empty() && stage.got("dead").is_empty());
        }
        let stage = Stage::new();
        let later =
            source().error_handler(handler().dead_letter("mock:dead")).process_async(move |exchange| {
                Box::pin(async move {
                    replace(exchange);
                    Err("no".into())
                })
            });
        assert_eq!(stage.run([later.to("mock:out")]).await, "rejected");
        assert!(stage.got("out").is_empty() && stage.got("dead").is_empty());
    }
}
