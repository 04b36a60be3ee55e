//! A route costs at most two allocations for each exchange: one for its headers, and one for the future
//! of its one asynchronous processor. One that waits takes less than four kilobytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Mutex;

use bactrian::core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use bactrian::core::options::{ComponentDescription, PathKind, path};
use bactrian::core::pipeline::Pipeline;
use bactrian::core::uri::EndpointUri;
use bactrian::prelude::*;
use tokio::sync::mpsc;

/// A component whose consumer gives its pipeline to the test.
struct Lend(mpsc::Sender<Pipeline>);

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "lend",
    summary: "",
    syntax: "lend:name",
    path: path("", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[],
};

impl Component for Lend {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, _: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        Ok(Box::new(Self(self.0.clone())))
    }
}

impl Endpoint for Lend {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Self(self.0.clone())))
    }
}

#[async_trait::async_trait]
impl Consumer for Lend {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        self.0.send(route.pipeline.clone()).await?;
        route.ready();
        route.stop.requested().await;
        Ok(())
    }
}

struct Sink;

#[async_trait::async_trait]
impl Processor for Sink {
    async fn process(&self, _: &mut Exchange) -> Result<(), BoxError> {
        Ok(())
    }
}

/// How often `exchanges` allocate that pass through a route, one after the other. At its end the body is `done`.
fn allocations(route: RouteBuilder, exchanges: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sender, mut receiver) = mpsc::channel(1);
    let router = bactrian::router().component(Lend(sender)).route(route).build().unwrap();
    let allocations = Mutex::new(0);
    let _ = runtime.block_on(router.run_until(async {
        let pipeline = receiver.recv().await.unwrap();
        // Whatever is allocated once, at the first exchange, does not count.
        let mut first = Exchange::new("order 7");
        pipeline.process(&mut first).await.unwrap();
        assert_eq!(first.message.body.to_string(), "done");
        let counted = allocation_counter::measure(|| {
            for _ in 0..exchanges {
                let mut exchange = Exchange::new("order 7");
                let mut travel = std::pin::pin!(pipeline.process(&mut exchange));
                let waker = std::task::Waker::noop();
                assert!(travel.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready());
            }
        });
        *allocations.lock().unwrap() = counted.count_total;
    }));
    allocations.into_inner().unwrap()
}

#[test]
fn six_mixed_steps_allocate_at_most_twice_per_exchange() {
    const EXCHANGES: u64 = 1_000;
    let route = from("lend:x")
        .set_header("kind", "order")
        .filter("${header.kind} == 'order'")
        .process(|exchange| {
            exchange.message.headers.set("seen", true);
            Ok(())
        })
        .choice(|choice| choice.when("${header.kind} == 'refund'", |then| then.set_header("priority", 9)))
        .set_body("done")
        .process_with(Sink);
    let allocations = allocations(route, EXCHANGES);
    assert!(allocations <= 2 * EXCHANGES, "{allocations} allocations for {EXCHANGES} exchanges");
    assert!(allocations >= EXCHANGES, "the counter does not count");
}

#[test]
fn blocks_inside_of_each_other_allocate_nothing_however_deep() {
    const EXCHANGES: u64 = 1_000;
    /// Blocks of `choice` and `filter` in turn, and in the innermost one a step that allocates its future.
    fn nested<S: Steps>(steps: S, depth: usize) -> S {
        match (depth, depth % 2) {
            (0, _) => steps.process_with(Sink).set_body("inside"),
            (_, 0) => steps.choice(|choice| {
                let choice = choice.when("${header.none} == 'a'", |when| when.set_body("never"));
                choice.otherwise(|otherwise| nested(otherwise, depth - 1))
            }),
            _ => steps.filter_block("${body} == 'order 7'", |block| nested(block, depth - 1).filter("true")),
        }
    }
    for depth in [0, 1, 3, 4, 5, 20] {
        // It has to go all the way in and out.
        let route = nested(from("lend:x"), depth).filter("${body} == 'inside'").set_body("done");
        let allocations = allocations(route, EXCHANGES);
        assert_eq!(allocations, EXCHANGES, "{depth} deep");
    }
}

#[test]
fn a_route_that_waits_takes_less_than_four_kilobytes() {
    const ROUTES: i64 = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let route = |number: i64| {
        from(format!("timer:t{number}?delay=1h"))
            .id(format!("route-{number}"))
            .set_header("n", "${header.timer.counter}")
            .filter("${header.n} > 0")
            .to("mock:sink")
    };
    let taken = allocation_counter::measure(|| {
        let router = bactrian::router().routes((0..ROUTES).map(route)).build().unwrap();
        // Nothing is freed before it was measured: neither the router, nor the tasks of its routes.
        let running = std::mem::ManuallyDrop::new(router.clone());
        let started = || router.routes().iter().all(|route| route.status == RouteStatus::Started);
        let mut run = std::mem::ManuallyDrop::new(Box::pin(async move {
            let _ = running.run_until(std::future::pending()).await;
        }));
        runtime.block_on(async {
            while !started() {
                tokio::select! {
                    biased;
                    () = &mut *run => {}
                    () = tokio::task::yield_now() => {}
                }
            }
        });
    });
    std::mem::forget(runtime);
    let bytes = taken.bytes_current / ROUTES;
    // An allocator adds about a fifth.
    assert!(bytes < 3_000, "{bytes} bytes for each route");
    assert!(bytes > 1_000, "the counter does not count: {bytes} bytes");
}
