//! What the router and its pipelines promise, with the components that need nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use components::{DirectComponent, LogComponent, MockComponent, SedaComponent, TimerComponent};
use router_core::builder::{Loop, RouteBuilder, Steps, dynamic, from};
use router_core::component::{Consumer, RouteHandle};
use router_core::definition::ErrorHandlerDefinition;
use router_core::error::{BoxError, ConfigError};
use router_core::exchange::Exchange;
use router_core::failure::ErrorKind;
use router_core::router::{RouteStatus, Router, RouterBuilder, RouterError, ShutdownOutcome};
use router_core::spool::SpoolSettings;
use router_core::value::Value;
use tokio::time::{Instant, sleep};

/// One tick, at once.
const ONCE: &str = "timer:once?delay=0&repeat_count=1";

fn builder(mock: &MockComponent) -> RouterBuilder {
    RouterBuilder::new()
        .component(DirectComponent::default())
        .component(LogComponent)
        .component(mock.clone())
        .component(TimerComponent)
        .node("node1")
}

fn build(mock: &MockComponent, routes: impl IntoIterator<Item = RouteBuilder>) -> Router {
    builder(mock).routes(routes).build().unwrap_or_else(|errors| panic!("{errors}"))
}

/// Runs until `mock:out` has got `count` exchanges, and returns them.
async fn run(mock: &MockComponent, router: &Router, count: usize) -> Vec<Exchange> {
    let _ = router.run_until(mock.endpoint("out").wait_for(count)).await;
    mock.endpoint("out").received()
}

fn bodies(exchanges: &[Exchange]) -> Vec<String> {
    exchanges.iter().map(|exchange| exchange.message.body.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn steps_run_in_order_and_a_choice_takes_one_branch() {
    let mock = MockComponent::default();
    let route = from("timer:t?delay=0&repeat_count=3")
        .id("steps")
        .set_header("n", "${header.timer.counter}")
        .set_property("by", "${node}/${route_id}")
        .choice(|choice| {
            choice
                .when("${header.n} == 1", |then| then.set_body("one"))
                .when(
                    |exchange: &Exchange| exchange.message.headers.get("n") == Some(&2.into()),
                    |then| then.set_body("two").filter("${header.n} > 2").set_body("not reached"),
                )
                .otherwise(|then| then.set_body("many"))
        })
        .process(|exchange| {
            let text = exchange.message.body.to_string();
            exchange.message.body = format!("{text}!").into();
            Ok(())
        })
        .process_async(|exchange| {
            Box::pin(async move {
                sleep(Duration::from_millis(1)).await;
                exchange.message.headers.remove("timer.name");
                Ok(())
            })
        })
        .set_body("${body} by ${property.by}")
        .delay("5ms")
        .to("mock:out")
        .stop()
        .to("mock:never");
    let exchanges = run(&mock, &build(&mock, [route]), 3).await;
    assert_eq!(bodies(&exchanges), ["one! by node1/steps", "two! by node1/steps", "many! by node1/steps"]);
    assert_eq!(exchanges[0].message.headers.get("timer.name"), None);
    assert!(mock.endpoint("never").received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_filter_ends_the_block_and_not_the_blocks_around_it() {
    let mock = MockComponent::default();
    let route = from("timer:t?delay=0&repeat_count=3").filter("${header.timer.counter} == 2").to("mock:out");
    let router = build(&mock, [route]);
    let _ = router.run_until(sleep(Duration::from_secs(10))).await;
    assert_eq!(mock.endpoint("out").received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_is_redelivered_from_that_step_with_growing_pauses() {
    let mock = MockComponent::default();
    let (before, tries) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count_before, count_tries) = (Arc::clone(&before), Arc::clone(&tries));
    let handler = ErrorHandlerDefinition {
        maximum_redeliveries: 3,
        back_off_multiplier: 2.0,
        maximum_redelivery_delay: Duration::from_secs(3),
        ..ErrorHandlerDefinition::default()
    };
    let route = from(ONCE)
        .error_handler(handler)
        .process(move |_| {
            count_before.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .process(move |_| match count_tries.fetch_add(1, Ordering::SeqCst) {
            0..3 => Err("not yet".into()),
            _ => Ok(()),
        })
        .to("mock:out");
    let start = Instant::now();
    run(&mock, &build(&mock, [route]), 1).await;
    assert_eq!((before.load(Ordering::SeqCst), tries.load(Ordering::SeqCst)), (1, 4));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1 + 2 + 3) && waited < Duration::from_secs(7), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_still_fails_goes_to_the_dead_letter_endpoint_with_its_story() {
    let mock = MockComponent::default();
    let route = from(ONCE)
        .id("orders")
        .error_handler(ErrorHandlerDefinition::default().dead_letter("mock:out"))
        .set_body("order 7")
        .process(|_| panic!("out of stock"));
    let router = build(&mock, [route]);
    let exchanges = run(&mock, &router, 1).await;
    assert_eq!(bodies(&exchanges), ["order 7"]);
    let exception = exchanges[0].exception().unwrap();
    assert_eq!((exception.message.as_str(), exception.kind), ("out of stock", ErrorKind::Panicked));
    assert_eq!((exception.route_id.as_str(), exception.step.as_str()), ("orders", "step 2 (process)"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_breaks_its_exchange_and_not_its_route() {
    let mock = MockComponent::default();
    let route = from("timer:t?delay=0&repeat_count=2")
        .process(|exchange| {
            assert_ne!(
                exchange.message.headers.get("timer.counter"),
                Some(&1.into()),
                "the first one breaks"
            );
            Ok(())
        })
        .to("mock:out");
    assert_eq!(run(&mock, &build(&mock, [route]), 1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_called_route_gives_the_exchange_or_its_failure_back() {
    let mock = MockComponent::default();
    let caller = from("timer:t?delay=0&repeat_count=2").to("direct:work").to("mock:out");
    let called =
        from("direct:work").id("called").set_body("from the called route").process(|exchange| match exchange
            .message
            .headers
            .get("timer.counter")
        {
            Some(Value::Integer(1)) => Ok(()),
            _ => Err("the second one fails".into()),
        });
    let router = build(&mock, [caller, called]);
    let _ = router.run_until(sleep(Duration::from_secs(10))).await;
    assert_eq!(bodies(&mock.endpoint("out").received()), ["from the called route"]);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_target_is_decided_by_each_exchange() {
    let mock = MockComponent::default();
    let route = from("timer:t?delay=0&repeat_count=2").to_dynamic("mock:out${header.timer.counter}");
    let router = build(&mock, [route]);
    let _ = router.run_until(mock.endpoint("out2").wait_for(1)).await;
    assert_eq!(mock.endpoint("out1").received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_what_is_in_flight_and_the_routes_it_calls() {
    let mock = MockComponent::default();
    let slow = from("timer:t?delay=0").delay("20s").to("direct:end");
    let end = from("direct:end").to("mock:out");
    let router = build(&mock, [slow, end]);
    let outcome = router.run_until(sleep(Duration::from_secs(1))).await;
    assert_eq!(outcome, ShutdownOutcome::Drained);
    assert_eq!(mock.endpoint("out").received().len(), 1, "the tick in flight, and no other");
}

#[tokio::test(start_paused = true)]
async fn draining_ends_at_the_timeout_or_when_asked_again() {
    let mock = MockComponent::default();
    let slow = || from("timer:t?delay=0").delay("1h").to("mock:out");
    let start = Instant::now();
    let router = build(&mock, [slow()]);
    assert_eq!(router.run_until(sleep(Duration::from_secs(1))).await, ShutdownOutcome::Aborted);
    assert_eq!(start.elapsed().as_secs(), 46, "the default timeout is 45 s");
    let router = build(&mock, [slow()]);
    let (drain, abort) = (sleep(Duration::from_secs(1)), sleep(Duration::from_secs(2)));
    assert_eq!(router.run_until_or_abort(drain, abort).await, ShutdownOutcome::Aborted);
    assert_eq!(start.elapsed().as_secs(), 48);
    assert!(mock.endpoint("out").received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn routes_are_started_and_stopped_at_run_time() {
    let mock = MockComponent::default();
    let tick = from("timer:t?delay=0&period=10ms").id("tick").to("mock:out");
    let router = build(&mock, [tick.auto_startup(false)]);
    let out = mock.endpoint("out");
    let changes = async {
        let status = |router: &Router| router.routes().iter().map(|route| route.status).collect::<Vec<_>>();
        assert_eq!(status(&router), [RouteStatus::Stopped]);
        router.start_route("tick").await.unwrap();
        out.wait_for(2).await;
        assert_eq!(status(&router), [RouteStatus::Started]);
        router.stop_route("tick").await.unwrap();
        assert_eq!(status(&router), [RouteStatus::Stopped]);
        assert!(matches!(router.stop_route("second").await, Err(RouterError::UnknownRoute(_))));
        let count = out.received().len();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(out.received().len(), count, "stopped is stopped");
    };
    assert_eq!(router.run_until(changes).await, ShutdownOutcome::Drained);
}

#[tokio::test]
async fn code_outside_of_routes_can_call_them() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("direct:greet").set_body("Hello ${body}")]);
    let call = async {
        let mut exchange = Exchange::new("Ann");
        router.producer("direct:greet").unwrap().process(&mut exchange).await.unwrap();
        assert_eq!(exchange.message.body.to_string(), "Hello Ann");
        assert!(router.producer("timer:x").is_err());
    };
    assert_eq!(router.run_until(call).await, ShutdownOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_that_runs_a_router_stops_its_routes() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("timer:t?delay=0&period=10ms").to("mock:out")]);
    let run = tokio::time::timeout(Duration::from_millis(95), router.run_until(std::future::pending()));
    assert!(run.await.is_err());
    let count = mock.endpoint("out").received().len();
    assert!(count > 5);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(mock.endpoint("out").received().len(), count);
    assert!(matches!(router.start_route("route1").await, Err(RouterError::NotRunning)));
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_before_the_router_runs_or_after_it_drains() {
    let mock = MockComponent::default();
    let tick = |id: &str| from("timer:t?delay=0&period=10ms").id(id).to("mock:out");
    let router = build(&mock, [tick("first")]);
    assert!(matches!(router.start_route("first").await, Err(RouterError::NotRunning)));
    sleep(Duration::from_secs(1)).await;
    assert!(mock.endpoint("out").received().is_empty());
    assert_eq!(router.run_until(mock.endpoint("out").wait_for(4)).await, ShutdownOutcome::Drained);
    assert!(matches!(router.start_route("first").await, Err(RouterError::NotRunning)));
    let count = mock.endpoint("out").received().len();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(mock.endpoint("out").received().len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_start_comes_after_a_stop_that_the_caller_did_not_wait_for() {
    let mock = MockComponent::default();
    let router = build(&mock, [from("timer:t?delay=0&period=10ms").id("a").delay("50ms").to("mock:out")]);
    let changes = async {
        mock.endpoint("out").wait_for(1).await;
        let impatient = tokio::time::timeout(Duration::from_millis(1), router.stop_route("a"));
        assert!(impatient.await.is_err());
        router.start_route("a").await.unwrap();
        mock.endpoint("out").wait_for(mock.endpoint("out").received().len() + 2).await;
    };
    assert_eq!(router.run_until(changes).await, ShutdownOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_calls_is_an_error_and_not_the_end_of_the_process() {
    let mock = MockComponent::default();
    // With a condition, so that it can be built.
    let circle = from("direct:circle").filter("${header.end} != 'yes'").to("direct:circle");
    let router = build(&mock, [circle]);
    let call = async {
        let mut exchange = Exchange::new(());
        let error = router.producer("direct:circle").unwrap().process(&mut exchange).await.unwrap_err();
        let message = router_core::error::Chain(&*error).to_string();
        assert!(message.contains("more than 64 deep"), "{message}");
    };
    let _ = router.run_until(call).await;
}

#[test]
fn every_error_of_every_route_is_reported_at_once() {
    let routes = [
        from("timr:a?period=1s").to("log:x?lvel=INFO"),
        from("log:a").set_body("${bdy}").filter("${body} = 1"),
        from("timer:a?perod=1s&delay=soon").id("b").delay("later").to("timer:x"),
        from("timer:b").id("b"),
    ];
    let Err(errors) = builder(&MockComponent::default()).routes(routes).build() else { panic!("accepted") };
    let messages = errors.iter().map(ConfigError::message).collect::<Vec<_>>();
    let expected = [
        "unknown component `timr`",
        "unknown option `lvel` for component `log`",
        "component `log` cannot be used in `from`",
        "unknown placeholder `bdy`",
        "expected an operator",
        "unknown option `perod` for component `timer`",
        "option `delay` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds",
        "`delay` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds",
        "component `timer` cannot be used in `to`",
        "there is already a route `b`",
    ];
    for message in expected {
        assert!(messages.contains(&message), "missing `{message}` in {messages:#?}");
    }
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
    assert!(errors.to_string().contains("components/tests/engine.rs:"), "{errors}");
}

#[test]
fn calls_of_routes_that_do_not_exist_and_routes_that_want_the_same_calls_are_errors() {
    let routes = [from(ONCE).to("direct:wrk"), from("direct:work"), from("direct:work").id("again")];
    let Err(errors) = builder(&MockComponent::default()).routes(routes).build() else { panic!("accepted") };
    let printed = errors.to_string();
    assert!(printed.contains("no route consumes `direct:wrk`"), "{printed}");
    assert!(printed.contains("did you mean `direct:work`?"), "{printed}");
    assert!(printed.contains("another route consumes `direct:work` already"), "{printed}");
}

/// What is wrong with these routes; nothing, if nothing is.
fn errors(routes: Vec<RouteBuilder>) -> String {
    let builder = builder(&MockComponent::default()).component(SedaComponent::default());
    builder.routes(routes).build().err().map(|errors| errors.to_string()).unwrap_or_default()
}

fn dead_letter(uri: &str) -> ErrorHandlerDefinition {
    ErrorHandlerDefinition::default().dead_letter(uri)
}

#[test]
fn a_circle_of_thousands_of_routes_is_found() {
    let routes = |count: usize, last: &str| {
        let route = |number: usize| {
            let next = if number + 1 < count { format!("direct:r{}", number + 1) } else { last.to_owned() };
            from(format!("direct:r{number}")).id(format!("r{number}")).to(next)
        };
        (0..count).map(route).collect::<Vec<_>>()
    };
    // A recursion from route to route would need a larger stack.
    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let search =
        small_stack.spawn(move || [routes(5_000, "direct:r5"), routes(5_000, "mock:end")].map(errors));
    let [circle, none] = search.unwrap().join().unwrap();
    assert_eq!(circle.matches("error:").count(), 1, "{circle}");
    assert!(circle.contains("for ever: `r5` -> `r6`") && circle.contains("-> 4975 more -> `r5`"), "{circle}");
    assert_eq!(none, "");
}

#[test]
fn calls_that_would_never_end_are_reported_where_one_closes_the_circle() {
    let itself = errors(vec![from("direct:a").id("a").log("x").to("direct:a")]);
    assert!(itself.contains("come back to this route for ever: `a` -> `a`"), "{itself}");
    let three = errors(vec![
        from("direct:a").id("a").to("direct:b"),
        from("direct:b")
            .id("b")
            .choice(|choice| choice.when("${body} == 1", |steps| steps.log("x")))
            .to("direct:c"),
        from("direct:c").id("c").to("direct:a"),
    ]);
    assert!(three.contains("for ever: `a` -> `b` -> `c` -> `a`"), "{three}");
    // A sender that waits for its own queue waits for itself.
    let queue = errors(vec![from("seda:a").id("a").to("seda:a?wait_for_task_to_complete=always")]);
    assert!(queue.contains("for ever: `a` -> `a`") && queue.contains("without waiting"), "{queue}");
    let queue = errors(vec![
        from("seda:a").id("a").to("direct:b"),
        from("direct:b").id("b").to("seda:a?wait_for_task_to_complete=always"),
    ]);
    assert!(queue.contains("for ever: `a` -> `b` -> `a`"), "{queue}");
    let dead = errors(vec![from("direct:a").id("a").log("x").error_handler(dead_letter("direct:a"))]);
    assert!(dead.contains("would come back to the route in which it failed: `a` -> `a`"), "{dead}");
    let dead = errors(vec![
        from("direct:a").id("a").error_handler(dead_letter("direct:b")),
        from("direct:b").id("b").to("direct:a"),
    ]);
    assert!(dead.contains("in which it failed: `a` -> `b` -> `a`"), "{dead}");
}

#[test]
fn a_circle_is_one_also_if_each_of_several_ways_leads_back() {
    let both = errors(vec![from("direct:a").id("a").choice(|choice| {
        choice
            .when("${body} == 1", |steps| steps.filter("${body} == 2").log("x").stop().to("direct:b"))
            .when("${body} == 2", |steps| steps.to("direct:b"))
            .otherwise(|steps| steps.log("x").to("direct:a"))
    })]);
    assert!(!both.contains("for ever"), "the first way ends: {both}");
    let both = errors(vec![
        from("direct:a").id("a").choice(|choice| {
            choice
                .when("${body} == 1", |steps| steps.to("direct:b"))
                .otherwise(|steps| steps.log("x").to("direct:a"))
        }),
        from("direct:b").id("b").log("x").to("direct:a"),
    ]);
    assert!(both.contains("for ever: `a` -> `b` -> `a`") && both.contains("for ever: `a` -> `a`"), "{both}");
    let nested = errors(vec![from("direct:a").id("a").choice(|choice| {
        choice.when("${body} == 1", |steps| steps.to("direct:a")).otherwise(|steps| {
            steps.choice(|choice| {
                choice
                    .when("${body} == 2", |steps| steps.to("direct:a"))
                    .otherwise(|steps| steps.to("direct:a"))
            })
        })
    })]);
    assert_eq!(nested.matches("for ever: `a` -> `a`").count(), 3, "{nested}");
    let rounds = errors(vec![from("direct:a").id("a").loop_(Loop::times(2), |steps| steps.to("direct:a"))]);
    assert!(rounds.contains("for ever: `a` -> `a`"), "{rounds}");
    let dynamic_ones = [
        dynamic("direct:${header.x}").allow(["direct:a"]),
        dynamic("${header.x}").allow(["direct:a"]),
        dynamic("direct:${header.x}").allow(["direct:a", "direct:b"]),
    ];
    for to in dynamic_ones {
        let one =
            errors(vec![from("direct:a").id("a").to_dynamic(to), from("direct:b").id("b").to("direct:a")]);
        assert!(one.contains("for ever: `a` -> `a`"), "{one}");
    }
}

#[test]
fn what_has_a_condition_may_end_and_what_is_queued_takes_no_room() {
    for fine in [
        vec![from("direct:a").filter("${header.n} < 3").to("direct:a")],
        vec![from("direct:a").choice(|choice| choice.when("${body} == 1", |steps| steps.to("direct:a")))],
        vec![
            from("direct:a")
                .choice(|choice| choice.when("${body} == 1", |steps| steps.stop()))
                .to("direct:a"),
        ],
        vec![from("seda:a").to("seda:a")],
        vec![from("direct:a").choice(|choice| {
            choice.when("${body} == 1", |steps| steps.to("direct:a")).otherwise(|steps| steps.log("x"))
        })],
        vec![from("direct:a").choice(|choice| {
            choice
                .when("${body} == 1", |steps| steps.filter("${body} == 2").to("direct:a"))
                .otherwise(|steps| steps.to("direct:a"))
        })],
        vec![
            from("direct:a").choice(|choice| {
                choice
                    .when("${body} == 1", |steps| steps.to("direct:a"))
                    .otherwise(|steps| steps.to("direct:b"))
            }),
            // Which comes back to itself when it fails alone.
            from("direct:b").to("direct:c").error_handler(dead_letter("direct:d")),
            from("direct:c"),
            from("direct:d"),
        ],
        vec![from("direct:a").loop_(Loop::times(0), |steps| steps.to("direct:a"))],
        vec![from("direct:a").loop_(Loop::times("${body}"), |steps| steps.to("direct:a"))],
        vec![from("direct:a").to_dynamic(dynamic("direct:${header.x}").allow(["direct:a*"]))],
        vec![
            from("direct:a").to_dynamic(dynamic("direct:${header.x}").allow(["direct:a", "direct:b*"])),
            from("direct:bc"),
        ],
        vec![from("seda:a").to_dynamic(dynamic("seda:${header.x}").allow(["seda:a"]))],
        vec![
            from("direct:a").to_dynamic(dynamic("direct:${header.x}").allow(["direct:a", "direct:b"])),
            from("direct:b"),
        ],
        vec![from("direct:a").to("direct:b").to("direct:b"), from("direct:b")],
    ] {
        assert_eq!(errors(fine), "");
    }
}

/// A source that fails at once, and then has something to say.
#[derive(Clone, Default)]
struct Troubled(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Consumer for Troubled {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err("the door is shut".into());
        }
        let pipeline = &route.pipeline;
        pipeline.set_status_message("the room is cold");
        sleep(Duration::from_secs(60)).await;
        pipeline.clear_status_message();
        route.stop.requested().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_tells_what_keeps_it_from_its_work_as_long_as_that_lasts() {
    let troubled = Troubled::default();
    let troubled = source::source("troubled", move |_| troubled.clone());
    let router = RouterBuilder::new().component(troubled).route(from("troubled:x")).build();
    let router = router.unwrap();
    let looks = async {
        let note = || router.routes()[0].note.clone().unwrap_or_default();
        sleep(Duration::from_millis(100)).await;
        assert!(note().starts_with("its consumer failed and is restarted in "), "{}", note());
        assert!(note().ends_with(": the door is shut"), "{}", note());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(note(), "the room is cold");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(note(), "");
    };
    assert_eq!(router.run_until(looks).await, ShutdownOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_dropped_leaves_its_exchange_as_it_was() {
    let mock = MockComponent::default();
    let routes = [from("direct:slow").to("direct:slower"), from("direct:slower").delay("1s").to("mock:out")];
    let router = build(&mock, routes);
    let work = async {
        sleep(Duration::from_millis(1)).await;
        let slow = router.producer("direct:slow").unwrap();
        let mut exchange = Exchange::new("a");
        for _ in 0..100 {
            let call = tokio::time::timeout(Duration::from_millis(1), slow.process(&mut exchange));
            assert!(call.await.is_err(), "it was not dropped");
        }
        slow.process(&mut exchange).await.unwrap();
    };
    let _ = router.run_until(work).await;
    assert_eq!(bodies(&mock.endpoint("out").received()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stands_twice_is_an_error_wherever_a_body_is_read_as_json() {
    const TWICE: &str = r#"{"a": 1, "a": 2}"#;
    fn read(exchange: &mut Exchange) -> Result<(), BoxError> {
        let json = exchange.message.body.to_json()?;
        exchange.message.headers.set("a", &json["a"]);
        Ok(())
    }
    let routes = || {
        [
            from(ONCE).set_body(TWICE).set_header("a", "${body.a}").to("mock:out"),
            from(ONCE).set_body(TWICE).process(read).to("mock:out"),
            from(ONCE)
                .set_body(TWICE)
                .filter_block("${body.a} == 2", |block| block.process(read))
                .to("mock:out"),
            // It was parsed in another route, and waits in a queue.
            from(ONCE).set_body(TWICE).to("direct:next"),
        ]
    };
    let next =
        || from("direct:next").id("next").process_async(|exchange| Box::pin(async move { read(exchange) }));
    for route in routes() {
        for unique_keys in [false, true] {
            let mock = MockComponent::default();
            let dead = dead_letter("mock:out");
            let router = builder(&mock)
                .spool(SpoolSettings { unique_keys, ..SpoolSettings::default() })
                .route(route.clone().error_handler(dead))
                .route(next().to("mock:out"))
                .build()
                .unwrap();
            let received = run(&mock, &router, 1).await;
            let exception = received[0].exception();
            if unique_keys {
                let exception = exception.unwrap();
                assert_eq!(exception.kind, ErrorKind::Data, "{}", exception.message);
                assert!(exception.message.contains("the key `a` stands twice"), "{}", exception.message);
            } else {
                assert!(exception.is_none());
                assert_eq!(received[0].message.headers.get("a"), Some(&Value::from(2)));
            }
        }
    }
}
