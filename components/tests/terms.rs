//! What exchanges owe to the terms under which they run, also where one `master:` route calls another.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use components::{DirectComponent, MasterComponent, MockComponent, SedaComponent, TimerComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::exchange::Exchange;
use router_core::router::{Router, RouterBuilder};
use testkit::Log;
use tokio::time::sleep;

fn lock(name: &str) -> LockName {
    name.parse().unwrap()
}

fn build(
    cluster: &Arc<MemoryCluster>,
    mock: &MockComponent,
    routes: impl IntoIterator<Item = RouteBuilder>,
) -> Router {
    RouterBuilder::new()
        .component(DirectComponent::default())
        .component(MasterComponent::default())
        .component(SedaComponent::default())
        .component(TimerComponent)
        .component(mock.clone())
        .cluster(Arc::clone(cluster) as Arc<dyn ClusterService>)
        .routes(routes)
        .build()
        .unwrap()
}

/// Sends one exchange to `direct:in` and tells what became of it.
async fn call(router: &Router) -> Result<Exchange, String> {
    let mut exchange = Exchange::new("work");
    let result = router.producer("direct:in").unwrap().process(&mut exchange).await;
    result.map(|()| exchange).map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_called_route_with_a_lock_of_its_own_stops_when_the_callers_lock_is_lost() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let outer = from("master:outer:direct:in").to("direct:inner").to("mock:outer");
    let inner = from("master:inner:direct:inner").delay("1s").to("mock:inner");
    let router = build(&cluster, &mock, [outer, inner]);
    let test = async {
        let (result, ()) = tokio::join!(call(&router), async {
            sleep(Duration::from_millis(500)).await;
            cluster.revoke(&lock("outer"), Duration::from_secs(30));
        });
        result.unwrap_err();
    };
    let _ = router.run_until(test).await;
    assert!(mock.endpoint("inner").received().is_empty(), "a side effect after the loss");
    assert!(mock.endpoint("outer").received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_call_an_exchange_has_its_own_term_again() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let outer = from("master:outer:direct:in").to("direct:inner").set_header("lock", "${lock}");
    let inner = from("master:inner:direct:inner").set_header("inner_lock", "${lock}");
    let router = build(&cluster, &mock, [outer, inner]);
    let test = async {
        let exchange = call(&router).await.unwrap();
        let header = |name: &str| exchange.message.headers.get(name).unwrap().to_string();
        assert_eq!((header("inner_lock").as_str(), header("lock").as_str()), ("inner", "outer"));
        assert!(exchange.term.is_none(), "the caller has no term");
    };
    let _ = router.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_after_the_term_is_not_acknowledged() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = build(&cluster, &mock, [from("master:outer:direct:in").delay("1s")]);
    let test = async {
        let (result, ()) = tokio::join!(call(&router), async {
            sleep(Duration::from_millis(500)).await;
            cluster.revoke(&lock("outer"), Duration::from_secs(30));
        });
        let error = result.unwrap_err();
        assert!(error.contains("was not run to its end"), "{error}");
    };
    let _ = router.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_the_lock_is_given_up_is_acknowledged() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = build(&cluster, &mock, [from("master:outer:direct:in").id("r").delay("1s").to("mock:done")]);
    let test = async {
        let (result, ()) = tokio::join!(call(&router), async {
            sleep(Duration::from_millis(500)).await;
            cluster.view(&lock("outer")).await.unwrap().resign(Duration::from_secs(5));
        });
        result.unwrap();
    };
    let _ = router.run_until(test).await;
    assert_eq!(mock.endpoint("done").received().len(), 1);
}

/// A blocking call cannot be dropped: it holds the lock until it returns.
#[tokio::test(start_paused = true)]
async fn a_blocking_call_that_outlives_its_exchange_keeps_the_next_leader_waiting() {
    let cluster = MemoryCluster::new("a");
    let scope = cluster.view(&lock("outer")).await.unwrap().lead().await.unwrap();
    let other = cluster.join("b");
    let waiting = other.view(&lock("outer")).await.unwrap();
    let held = scope.term().hold().unwrap();
    cluster.revoke(&lock("outer"), Duration::from_secs(1));
    scope.term().expired().await;
    drop(scope);
    let early = tokio::time::timeout(Duration::from_secs(60), waiting.lead()).await;
    assert!(early.is_err(), "the next leader started while the call was running");
    drop(held);
    waiting.lead().await.unwrap();
}

/// A leader that sends one exchange into a queue and, if `wait` says so, waits for it no longer than a second. The work
/// behind the queue takes ten seconds that nothing in it would cut short.
fn leader_with_work_behind_a_queue(wait: &str, done: &Arc<AtomicBool>) -> [RouteBuilder; 2] {
    let done = Arc::clone(done);
    let queue = format!("seda:work?wait_for_task_to_complete={wait}&timeout=1s");
    let work = from("seda:work").to("mock:begun").process_async(move |_| {
        let done = Arc::clone(&done);
        Box::pin(async move {
            sleep(Duration::from_secs(10)).await;
            done.store(true, Ordering::SeqCst);
            Ok(())
        })
    });
    [from("master:outer:timer:t?delay=0&repeat_count=1").to(queue), work]
}

/// Runs such a leader until the work has gone on for five seconds, has `give_up` done, and says for each `wait` whether
/// the work was done when the next one leads, and a minute later.
async fn done_behind_a_queue(give_up: impl AsyncFn(&MemoryCluster)) -> Vec<(&'static str, bool, bool)> {
    let mut all = Vec::new();
    for wait in ["never", "always"] {
        let (cluster, mock, done) = (MemoryCluster::new("a"), MockComponent::default(), Arc::default());
        let router = build(&cluster, &mock, leader_with_work_behind_a_queue(wait, &done));
        let is_done = || done.load(Ordering::SeqCst);
        let test = async {
            mock.endpoint("begun").wait_for(1).await;
            sleep(Duration::from_secs(5)).await;
            let waiting = cluster.join("b").view(&lock("outer")).await.unwrap();
            give_up(&cluster).await;
            let _scope = waiting.lead().await.unwrap();
            let before = is_done();
            sleep(Duration::from_secs(60)).await;
            all.push((wait, before, is_done()));
        };
        let _ = router.run_until(test).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn work_behind_a_queue_ends_with_the_term_of_its_sender() {
    let lost = async |cluster: &MemoryCluster| cluster.revoke(&lock("outer"), Duration::from_secs(1));
    assert_eq!(done_behind_a_queue(lost).await, [("never", false, false), ("always", false, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_not_given_up_before_the_work_behind_a_queue_has_ended() {
    let resigned = async |cluster: &MemoryCluster| {
        cluster.view(&lock("outer")).await.unwrap().resign(Duration::from_secs(60));
    };
    assert_eq!(done_behind_a_queue(resigned).await, [("never", true, true), ("always", true, true)]);
}

/// Runs the routes, sends one exchange to `direct:in`, and takes the lock away after half a second.
async fn dropped_lines(routes: Vec<RouteBuilder>) -> Vec<String> {
    let (log, _guard) = Log::start();
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = build(&cluster, &mock, routes);
    let test = async {
        let (_, ()) = tokio::join!(call(&router), async {
            sleep(Duration::from_millis(500)).await;
            let _stays_away = cluster.join("b").view(&lock("outer")).await.unwrap();
            cluster.revoke(&lock("outer"), Duration::from_secs(30));
            sleep(Duration::from_secs(100)).await;
        });
    };
    let _ = router.run_until(test).await;
    log.with("dropped the exchange")
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_term_is_over_has_one_line_that_says_so() {
    let slow = |route: RouteBuilder| {
        route.process_async(|_| {
            Box::pin(async {
                sleep(Duration::from_secs(1)).await;
                Ok(())
            })
        })
    };
    let lost = "this member no longer leads `outer`";
    for (routes, step) in [
        (vec![slow(from("master:outer:direct:in").id("a")).log("next")], "step 2 (log) was not run"),
        (vec![from("master:outer:direct:in").id("a").delay("90s")], "in step 1 (delay)"),
        (
            vec![from("master:outer:direct:in").to("direct:b"), slow(from("direct:b").id("a")).log("next")],
            "step 2 (log) was not run",
        ),
        (
            vec![
                from("master:outer:direct:in").to("direct:b"),
                from("master:inner:direct:b").id("a").delay("90s"),
            ],
            "in step 1 (delay)",
        ),
        (
            vec![
                from("master:outer:direct:in").to("seda:b?wait_for_task_to_complete=never"),
                from("seda:b").id("a").delay("90s"),
            ],
            "in step 1 (delay)",
        ),
    ] {
        let lines = dropped_lines(routes).await;
        let [line] = &*lines else { panic!("{step}: {lines:#?}") };
        assert!(line.contains("route `a` dropped") && line.contains(step) && line.contains(lost), "{line}");
    }
}
