//! What `seda:` promises: a bounded queue that loses nothing it has accepted, also when a term ends.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use components::{DirectComponent, MasterComponent, MockComponent, SedaComponent, TimerComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::exchange::Exchange;
use router_core::failure::{ErrorKind, Failure};
use router_core::router::{Router, RouterBuilder, ShutdownOutcome};
use tokio::time::{Instant, sleep, timeout};

fn builder(mock: &MockComponent) -> RouterBuilder {
    RouterBuilder::new()
        .component(DirectComponent::default())
        .component(MasterComponent::default())
        .component(mock.clone())
        .component(SedaComponent::default())
        .component(TimerComponent)
}

fn build(mock: &MockComponent, routes: impl IntoIterator<Item = RouteBuilder>) -> Router {
    builder(mock).routes(routes).build().unwrap_or_else(|errors| panic!("{errors}"))
}

fn bodies(mock: &MockComponent) -> Vec<String> {
    mock.endpoint("out").received().iter().map(|exchange| exchange.message.body.to_string()).collect()
}

async fn send(router: &Router, uri: &str, body: &str) -> Result<Exchange, String> {
    let mut exchange = Exchange::new(body);
    let sent = router.producer(uri).unwrap().process(&mut exchange).await;
    sent.map(|()| exchange).map_err(|error| error.to_string())
}

async fn kind_of_failure(router: &Router, uri: &str) -> ErrorKind {
    let sent = router.producer(uri).unwrap().process(&mut Exchange::new("x")).await;
    Failure::of(sent.unwrap_err()).kind
}

/// Lets the routes start: one that is stopped before its first moment has never consumed.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_and_what_was_accepted_is_worked_off_at_the_stop() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work").delay("5s").to("mock:out")]);
    let outcome = router.run_until(async {
        settle().await;
        let start = Instant::now();
        for body in ["a", "b", "c"] {
            send(&router, "seda:work", body).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
    assert_eq!(outcome.await, ShutdownOutcome::Drained);
    assert_eq!(bodies(&mock), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_queues_is_worked_off_from_its_beginning_in_whatever_order_it_is_written() {
    for reversed in [false, true] {
        let mock = MockComponent::default();
        let mut routes = vec![
            from("seda:a").delay("1s").to("seda:b"),
            from("seda:b").delay("1s").to("seda:c"),
            from("seda:c").delay("1s").to("mock:out"),
        ];
        if reversed {
            routes.reverse();
        }
        let router = build(&mock, routes);
        let outcome = router.run_until(async {
            settle().await;
            for body in ["1", "2", "3"] {
                send(&router, "seda:a", body).await.unwrap();
            }
        });
        assert_eq!(outcome.await, ShutdownOutcome::Drained);
        assert_eq!(bodies(&mock), ["1", "2", "3"], "reversed: {reversed}");
    }
}

#[tokio::test(start_paused = true)]
async fn routes_that_send_in_a_circle_start_and_stop() {
    let mock = MockComponent::default();
    let routes = [
        from("seda:a").to("mock:out").filter("${body} == 'again'").set_body("once").to("seda:b"),
        from("seda:b").to("seda:a"),
    ];
    let router = build(&mock, routes);
    let work = async {
        settle().await;
        send(&router, "seda:a", "again").await.unwrap();
        mock.endpoint("out").wait_for(2).await;
    };
    assert_eq!(router.run_until(work).await, ShutdownOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_or_makes_its_sender_wait() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work?size=2").delay("5s").to("mock:out")]);
    let sending = async {
        for body in ["in hand", "1", "2"] {
            send(&router, "seda:work", body).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        let refused = send(&router, "seda:work", "3").await.unwrap_err();
        assert_eq!(refused, "the queue `seda:work` is full");
        assert_eq!(kind_of_failure(&router, "seda:work").await, ErrorKind::Unavailable);
        let impatient = "seda:work?block_when_full=true&offer_timeout=1s";
        assert!(send(&router, impatient, "3").await.is_err());
        send(&router, "seda:work?block_when_full=true", "4").await.unwrap();
        assert_eq!(bodies(&mock), ["in hand"], "there was room when the first one was done");
    };
    let _ = router.run_until(sending).await;
    assert_eq!(bodies(&mock), ["in hand", "1", "2", "4"]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_consumers_work_side_by_side() {
    let mock = MockComponent::default();
    let router =
        build(&mock, [from("seda:work?concurrent_consumers=10&size=100").delay("1s").to("mock:out")]);
    let start = Instant::now();
    let _ = router
        .run_until(async {
            settle().await;
            for body in 0..100 {
                send(&router, "seda:work", &body.to_string()).await.unwrap();
            }
        })
        .await;
    assert_eq!(bodies(&mock).len(), 100);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_missed_between_many_senders_and_consumers() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work?concurrent_consumers=8&size=3").to("mock:out")]);
    let done = router.run_until(async {
        let mut senders = tokio::task::JoinSet::new();
        for sender in 0..8 {
            let to = router.producer("seda:work?block_when_full=true").unwrap();
            senders.spawn(async move {
                for number in 0..500 {
                    to.process(&mut Exchange::new(format!("{sender}-{number}"))).await.unwrap();
                }
            });
        }
        senders.join_all().await;
        mock.endpoint("out").wait_for(8 * 500).await;
    });
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), done).await, Ok(ShutdownOutcome::Drained));
}

#[tokio::test(start_paused = true)]
async fn what_is_filtered_or_stopped_behind_a_queue_is_done_and_ends_nothing_of_its_sender() {
    for is_stop in [true, false] {
        let mock = MockComponent::default();
        let route = from("seda:work").set_body("changed");
        let route = if is_stop { route.stop() } else { route.filter("false") };
        let caller = |wait: &str| format!("seda:work?wait_for_task_to_complete={wait}");
        let calls = |wait| from(format!("direct:{wait}")).to(caller(wait)).to("mock:out");
        let router = build(&mock, [route.to("mock:never"), calls("never"), calls("always")]);
        let sends = async {
            for wait in ["never", "always"] {
                send(&router, &format!("direct:{wait}"), "sent").await.unwrap();
            }
        };
        let _ = router.run_until(sends).await;
        assert_eq!(bodies(&mock), ["sent", "changed"]);
        assert!(mock.endpoint("never").received().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_gets_the_exchange_or_the_failure_back() {
    let mock = MockComponent::default();
    let route = from("seda:work?concurrent_consumers=2")
        .process(|exchange| match exchange.message.body.to_string().as_str() {
            "bad" => Err("no such order".into()),
            _ => Ok(()),
        })
        .delay("10s")
        .set_body("done with ${body}")
        .to("mock:out");
    let router = build(&mock, [route]);
    let calls = async {
        let waiting = "seda:work?wait_for_task_to_complete=always";
        let answer = send(&router, waiting, "good").await.unwrap();
        assert_eq!(answer.message.body.to_string(), "done with good");
        let failure = send(&router, waiting, "bad").await.unwrap_err();
        assert!(failure.contains("step 1 (process) failed"), "{failure}");
        let late = send(&router, &format!("{waiting}&timeout=3s"), "slow").await.unwrap_err();
        assert_eq!(late, "`seda:work` has not done it within 3s");
    };
    let _ = router.run_until(calls).await;
}

#[tokio::test(start_paused = true)]
async fn what_its_sender_has_given_up_is_not_begun() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work").delay("10s").to("mock:out")]);
    let calls = async {
        send(&router, "seda:work", "first").await.unwrap();
        let uri = "seda:work?wait_for_task_to_complete=always&timeout=3s";
        assert!(send(&router, uri, "given up").await.is_err());
        send(&router, "seda:work", "last").await.unwrap();
    };
    let _ = router.run_until(calls).await;
    assert_eq!(bodies(&mock), ["first", "last"]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_route_finds_its_queue_again() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work").id("work").to("mock:out")]);
    let changes = async {
        router.stop_route("work").await.unwrap();
        send(&router, "seda:work", "kept").await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert!(bodies(&mock).is_empty());
        router.start_route("work").await.unwrap();
        mock.endpoint("out").wait_for(1).await;
    };
    let _ = router.run_until(changes).await;
}

#[test]
fn sizes_that_contradict_each_other_and_useless_numbers_are_errors() {
    let mock = MockComponent::default();
    let errors = |uris: &[&'static str]| {
        let routes = uris.iter().map(|uri| from(*uri).to("mock:out")).collect::<Vec<_>>();
        builder(&mock).routes(routes).build().err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    let contradiction = errors(&["seda:a?size=5", "seda:b?size=5"]);
    assert_eq!(contradiction, "");
    let routes = [from("seda:a?size=5").to("mock:out"), from("timer:t").to("seda:a?size=6")];
    let found = builder(&mock).routes(routes).build().err().unwrap().to_string();
    assert!(found.contains("another URI gives `seda:"), "{found}");
    assert!(errors(&["seda:a?size=0"]).contains("greater than 0"));
    assert!(errors(&["seda:a?concurrent_consumers=0"]).contains("from 1 to 500"));
    let errors = builder(&mock).route(from("timer:t").to("seda:nobody")).build().err().unwrap().to_string();
    assert!(errors.contains("no route consumes `seda:nobody`"), "{errors}");
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

fn clustered(mock: &MockComponent, cluster: &Arc<MemoryCluster>, routes: Vec<RouteBuilder>) -> Router {
    builder(mock).cluster(Arc::clone(cluster) as Arc<dyn ClusterService>).routes(routes).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_when_the_term_is_lost_waits_for_the_next_term_of_this_member() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let route = from("master:lock1:seda:work").process(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let router = clustered(&mock, &cluster, vec![route.delay("5s").to("mock:out")]);
    let changes = async {
        for body in ["a", "b", "c", "d"] {
            send(&router, "seda:work", body).await.unwrap();
        }
        mock.endpoint("out").wait_for(1).await;
        sleep(Duration::from_secs(2)).await;
        let other = cluster.join("b");
        let waiting = other.view(&lock()).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        cluster.revoke(&lock(), Duration::from_secs(1));
        let scope = waiting.lead().await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2, "`b` was in hand when the term was lost");
        sleep(Duration::from_secs(600)).await;
        assert_eq!((begun.load(Ordering::SeqCst), bodies(&mock).len()), (2, 1), "nothing on a follower");
        drop((scope, waiting));
        mock.endpoint("out").wait_for(4).await;
    };
    let _ = router.run_until(changes).await;
    assert_eq!(bodies(&mock), ["a", "b", "c", "d"], "none lost, and in order");
    let received = mock.endpoint("out").received();
    let terms = received.iter().map(|exchange| exchange.term.as_ref().unwrap().number());
    assert_eq!(terms.collect::<Vec<_>>(), [1, 3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_was_aborted_is_put_back_as_it_was_sent() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let route = from("master:lock1:seda:work?concurrent_consumers=3").set_body("${body}!").delay("10s");
    let router = clustered(&mock, &cluster, vec![route.to("mock:out")]);
    let changes = async {
        for body in ["a", "b", "c"] {
            send(&router, "seda:work", body).await.unwrap();
        }
        sleep(Duration::from_secs(5)).await;
        cluster.revoke(&lock(), Duration::ZERO);
        mock.endpoint("out").wait_for(3).await;
    };
    let _ = router.run_until(changes).await;
    let mut bodies = bodies(&mock);
    bodies.sort();
    assert_eq!(bodies, ["a!", "b!", "c!"], "changed once, although worked on twice");
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_leader_works_the_queue_off_before_the_lock_is_released() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let route = from("master:lock1:seda:work").id("work").delay("5s").to("mock:out");
    let router = clustered(&mock, &cluster, vec![route]);
    let changes = async {
        for body in ["a", "b", "c"] {
            send(&router, "seda:work", body).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        let other = cluster.join("b");
        let waiting = other.view(&lock()).await.unwrap();
        let (stopped, count) = tokio::join!(router.stop_route("work"), async {
            let _scope = waiting.lead().await.unwrap();
            bodies(&mock).len()
        });
        stopped.unwrap();
        assert_eq!(count, 3);
    };
    let _ = router.run_until(changes).await;
}

/// A route that leads and sends into a queue which another route, that does not lead, works off.
fn leader_and_helper(wait: &str) -> Vec<RouteBuilder> {
    vec![
        from("master:lock1:timer:t?delay=0&repeat_count=3&period=1ms")
            .id("leader")
            .to(format!("seda:work?wait_for_task_to_complete={wait}")),
        from("seda:work").delay("10s").to("mock:out"),
    ]
}

#[tokio::test(start_paused = true)]
async fn the_work_of_a_leader_is_done_under_its_term_also_behind_a_queue() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = clustered(&mock, &cluster, leader_and_helper("under_term"));
    assert_eq!(router.run_until(sleep(Duration::from_secs(1))).await, ShutdownOutcome::Drained);
    assert_eq!(mock.endpoint("out").received().len(), 1, "the one that the timer waited for");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_term_that_has_ended_runs_behind_a_queue() {
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = clustered(&mock, &cluster, leader_and_helper("never"));
    let _ = router
        .run_until(async {
            mock.endpoint("out").wait_for(1).await;
            let _stays_away = cluster.join("b").view(&lock()).await.unwrap();
            cluster.revoke(&lock(), Duration::from_secs(1));
            sleep(Duration::from_secs(60)).await;
        })
        .await;
    assert_eq!(mock.endpoint("out").received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_may_pass_through_a_queue_any_number_of_times() {
    let mock = MockComponent::default();
    let retry = from("seda:retry")
        .delay("10ms")
        .process(|exchange| {
            let rounds = exchange.message.body.to_string().parse::<usize>()?;
            exchange.message.body = (rounds + 1).to_string().into();
            Ok(())
        })
        .choice(|choice| {
            choice.when("${body} < 500", |again| again.to("seda:retry")).otherwise(|done| done.to("mock:out"))
        });
    let router = build(&mock, [retry]);
    let work = async {
        settle().await;
        send(&router, "seda:retry", "0").await.unwrap();
        let done = timeout(Duration::from_secs(60), mock.endpoint("out").wait_for(1)).await;
        assert!(done.is_ok(), "the exchange has not come through");
    };
    assert_eq!(router.run_until(work).await, ShutdownOutcome::Drained);
    assert_eq!(bodies(&mock), ["500"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_exchange_is_another_one_that_names_its_parent() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("seda:work").set_header("by", "work").to("mock:out")]);
    let work = async {
        settle().await;
        let sent = send(&router, "seda:work?wait_for_task_to_complete=always", "a").await.unwrap();
        let got = mock.endpoint("out").received().remove(0);
        assert_eq!((sent.parent_id, got.parent_id), (None, Some(sent.id)));
        assert_ne!(got.id, sent.id);
        assert_eq!(sent.message.headers.get("by"), Some(&"work".into()), "it comes back changed");
    };
    let _ = router.run_until(work).await;
}
