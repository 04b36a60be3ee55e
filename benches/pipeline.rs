//! What the pipeline costs: `cargo bench --bench pipeline`.
//!
//! `six_steps`: six mixed steps in a route, against the same work written by hand as one async function.
//! `direct`: a `direct:` route called from one task, and from two tasks at once on two cores.
//! `chain`: a `direct:` route of three steps and a sink, against four async functions that move an exchange.
//! `measured`: the six steps once more, before and after the admin listener has everything measured.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bactrian::admin::AdminListener;
use bactrian::prelude::*;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

/// A sink that costs nothing.
struct Sink;

#[async_trait::async_trait]
impl Processor for Sink {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        black_box(exchange);
        Ok(())
    }
}

fn six_steps() -> RouteBuilder {
    from("direct:work")
        .set_header("kind", "order")
        .filter("${header.kind} == 'order'")
        .process(|exchange| {
            exchange.message.headers.set("seen", true);
            Ok(())
        })
        .choice(|choice| {
            choice
                .when("${header.kind} == 'refund'", |then| then.set_header("priority", 9))
                .otherwise(|then| then.set_header("priority", 1))
        })
        .set_body("done")
        .process_with(Sink)
}

async fn by_hand(exchange: &mut Exchange, sink: &dyn Processor) -> Result<(), BoxError> {
    exchange.message.headers.set("kind", "order");
    if exchange.message.headers.get("kind") != Some(&Value::from("order")) {
        return Ok(());
    }
    exchange.message.headers.set("seen", true);
    let refund = exchange.message.headers.get("kind") == Some(&Value::from("refund"));
    exchange.message.headers.set("priority", if refund { 9 } else { 1 });
    exchange.message.body = "done".into();
    sink.process(exchange).await
}

/// An exchange as a program without a router would have it.
struct Plain {
    headers: HashMap<String, String>,
    body: String,
}

async fn set_header(mut exchange: Plain) -> Option<Plain> {
    exchange.headers.insert("kind".into(), "order".into());
    set_body(exchange).await
}

async fn set_body(mut exchange: Plain) -> Option<Plain> {
    exchange.body = "done".into();
    filter(exchange).await
}

async fn filter(exchange: Plain) -> Option<Plain> {
    if exchange.headers.get("kind").is_none_or(|kind| kind != "order") {
        return None;
    }
    sink(exchange).await
}

async fn sink(exchange: Plain) -> Option<Plain> {
    Some(black_box(exchange))
}

/// Runs `task` in as many tasks as asked, and returns the time until all are done.
fn time<F>(runtime: &Runtime, tasks: usize, task: impl Fn() -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    // Tasks run on the workers; the thread of `block_on` would pay for each hand-over.
    let start = Instant::now();
    let handles = (0..tasks).map(|_| runtime.spawn(task())).collect::<Vec<_>>();
    for handle in handles {
        runtime.block_on(handle).expect("a bench task panicked");
    }
    start.elapsed()
}

fn caller(runtime: &Runtime, route: RouteBuilder, uri: &str) -> Arc<dyn Processor> {
    let router = bactrian::router().route(route).build().expect("the route is sound");
    let producer = router.producer(uri).expect("the route exists");
    runtime.spawn(async move { router.run_until(std::future::pending()).await });
    producer
}

/// Calls the route as often as asked, one call after the other.
fn calls(route: &Arc<dyn Processor>, count: u64) -> impl Future<Output = ()> + Send + use<> {
    let route = Arc::clone(route);
    async move {
        for _ in 0..count {
            let mut exchange = Exchange::new("order 7");
            route.process(&mut exchange).await.expect("it cannot fail");
            black_box(&exchange);
        }
    }
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn pipeline(criterion: &mut Criterion) {
    let runtime = runtime();
    let route = caller(&runtime, six_steps(), "direct:work");

    let mut group = criterion.benchmark_group("six_steps");
    let by_hand = |count: u64| async move {
        for _ in 0..count {
            let mut exchange = Exchange::new("order 7");
            by_hand(&mut exchange, &Sink).await.expect("it cannot fail");
            black_box(&exchange);
        }
    };
    group.bench_function("by_hand", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || by_hand(count)));
    });
    let calls = |count: u64| calls(&route, count);
    group.bench_function("route", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || calls(count)));
    });
    group.finish();

    // One and two tasks do the same number of calls: two at best take half the time. How far this
    // machine gets at all is what the work by hand shows.
    let mut group = criterion.benchmark_group("by_hand");
    group.bench_function("one_task", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || by_hand(2 * count)));
    });
    group.bench_function("two_tasks", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 2, || by_hand(count)));
    });
    group.finish();
    let mut group = criterion.benchmark_group("direct");
    group.bench_function("one_task", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || calls(2 * count)));
    });
    group.bench_function("two_tasks", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 2, || calls(count)));
    });
    group.finish();
}

fn chain(criterion: &mut Criterion) {
    let runtime = runtime();
    let steps = from("direct:chain").set_header("kind", "order").set_body("done");
    let route = steps.filter("${header.kind} == 'order'").process_with(Sink);
    let route = caller(&runtime, route, "direct:chain");
    let mut group = criterion.benchmark_group("chain");
    let by_hand = |count: u64| async move {
        for _ in 0..count {
            let exchange = Plain { headers: HashMap::new(), body: "order 7".into() };
            black_box(set_header(exchange).await);
        }
    };
    group.bench_function("by_hand", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || by_hand(count)));
    });
    let calls = |count: u64| calls(&route, count);
    group.bench_function("route", |bencher| {
        bencher.iter_custom(|count| time(&runtime, 1, || calls(count)));
    });
    group.finish();
}

fn measured(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("measured");
    let mut bench = |name, route: Arc<dyn Processor>| {
        let calls = |count: u64| calls(&route, count);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| time(&runtime, 1, || calls(count)));
        });
    };
    bench("no", caller(&runtime, six_steps(), "direct:work"));
    let listener = AdminListener::bind("127.0.0.1:0").expect("a free port");
    let nothing = bactrian::router().build().expect("nothing can be wrong");
    let _admin = runtime.block_on(async { listener.serve(&nothing).expect("a thread") });
    bench("yes", caller(&runtime, six_steps(), "direct:work"));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(4));
    targets = pipeline, chain, measured
}
criterion_main!(benches);
