//! What steps promise that send exchanges to endpoints, through a router.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use components::MockComponent;
use router_core::builder::{
    Branch, Catch, DynamicRouter, Enrich, Join, Multicast, RecipientList, RouteBuilder, RoutingSlip, Split,
    Steps, Try, from,
};
use router_core::definition::ErrorHandlerDefinition;
use router_core::router::{RouterBuilder, ShutdownOutcome};
use router_core::spool::SpoolSettings;
use tokio::sync::Semaphore;

/// Runs the routes until `mock:out` has got this many exchanges, and a moment longer; returns the bodies and how the router
/// ended.
async fn bodies(count: usize, routes: Vec<RouteBuilder>) -> (Vec<String>, ShutdownOutcome) {
    let mock = MockComponent::default();
    let out = mock.endpoint("out");
    out.expect_count(count);
    let mut router = RouterBuilder::new()
        .component(components::TimerComponent)
        .component(components::DirectComponent::default())
        .component(mock);
    for route in routes {
        router = router.route(route);
    }
    let ended = router.build().unwrap().run_until(out.assert_satisfied()).await;
    let bodies = out.received().iter().map(|exchange| exchange.message.body.to_string()).collect();
    (bodies, ended)
}

fn once() -> RouteBuilder {
    from("timer:once?delay=0&repeat_count=1").id("once")
}

#[tokio::test(start_paused = true)]
async fn a_recipient_list_sends_to_what_is_allowed_and_joins_the_responses() {
    let routes = || {
        let recipients =
            RecipientList::new("direct:a, direct:b,direct:secret,direct:none").parallel(2).join(Join::List);
        let list = once()
            .set_body("x")
            .recipient_list(recipients.allow(["direct:a", "direct:b"]).ignore_invalid_endpoints());
        vec![
            list.to("mock:out"),
            from("direct:a").delay("1s").set_body("${body}a"),
            from("direct:b").set_body("${body}b"),
            from("direct:secret").to("mock:out"),
        ]
    };
    assert_eq!(bodies(1, routes()).await.0, [r#"["xa","xb"]"#]);
}

#[tokio::test(start_paused = true)]
async fn a_uri_that_is_not_allowed_is_an_error_that_no_redelivery_repeats() {
    let handler = ErrorHandlerDefinition::default().maximum_redeliveries(3).dead_letter("direct:dead");
    let recipients = RecipientList::new("direct:a,direct:secret").allow(["direct:a"]);
    let routes = vec![
        once().error_handler(handler).set_body("x").recipient_list(recipients),
        from("direct:a").to("mock:out"),
        from("direct:dead").set_body("${exception.kind} ${property.recipient}").to("mock:out"),
        from("direct:secret").to("mock:out"),
    ];
    assert_eq!(bodies(2, routes).await.0, ["x", "data direct:secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_routing_slip_sends_the_exchange_itself_from_one_endpoint_to_the_next() {
    let slip = RoutingSlip::new("direct:a,direct:none,direct:b").allow(["direct:a", "direct:b"]);
    let routes = vec![
        once().set_body("x").routing_slip(slip.ignore_invalid_endpoints()).to("mock:out"),
        from("direct:a").set_body("${body}a"),
        from("direct:b").set_body("${body}b"),
    ];
    assert_eq!(bodies(1, routes).await.0, ["xab"]);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_router_goes_on_until_nothing_is_named_and_not_in_a_circle() {
    let routes = |last: &str| {
        let handler = ErrorHandlerDefinition::default().maximum_redeliveries(2).dead_letter("direct:dead");
        let router = DynamicRouter::new("${header.next}").allow(["direct:a", "direct:b"]).most(3);
        vec![
            once()
                .error_handler(handler)
                .set_header("next", "direct:a")
                .dynamic_router(router)
                .to("mock:out"),
            from("direct:a").set_body("${body}a").set_header("next", "direct:b"),
            from("direct:b").set_body("${body}b").set_header("next", last),
            from("direct:dead").set_body("${exception.kind} ${body}").to("mock:out"),
        ]
    };
    assert_eq!(bodies(1, routes("")).await.0, ["ab"]);
    assert_eq!(bodies(1, routes("direct:a")).await.0, ["rejected aba"]);
}

#[tokio::test(start_paused = true)]
async fn enrich_adds_the_response_and_its_failure_is_that_of_the_step() {
    let routes = vec![
        once()
            .set_body("x")
            .enrich(Enrich::from("direct:stock").header("stock"))
            .enrich(Enrich::from("direct:stock").property("more"))
            .set_body("${body} ${header.stock} ${property.more} ${header.inner}")
            .to("mock:out")
            .enrich(Enrich::from("direct:stock"))
            .to("mock:out"),
        from("direct:stock").set_header("inner", "yes").set_body("seven"),
    ];
    assert_eq!(bodies(2, routes).await.0, ["x seven seven ", "seven"]);
}

#[tokio::test(start_paused = true)]
async fn a_wire_tap_is_not_waited_for_and_its_failure_is_its_own() {
    let routes = vec![
        once().set_body("x").wire_tap("direct:tap").set_body("y").to("mock:out"),
        from("direct:tap").delay("1s").to("mock:out").process(|_| Err("broken".into())),
    ];
    let (bodies, ended) = bodies(2, routes).await;
    assert_eq!(bodies, ["y", "x"]);
    assert_eq!(ended, ShutdownOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn the_route_waits_for_its_wire_taps_when_it_stops() {
    let done = Arc::new(Semaphore::new(0));
    let note = Arc::clone(&done);
    let routes = vec![
        once().wire_tap("direct:tap").to("mock:out"),
        from("direct:tap").delay(Duration::from_secs(3)).process(move |_| {
            note.add_permits(1);
            Ok(())
        }),
    ];
    let (_, ended) = bodies(1, routes).await;
    assert_eq!((done.available_permits(), ended), (1, ShutdownOutcome::Drained));
}

#[tokio::test(start_paused = true)]
async fn a_circle_through_forks_ends() {
    let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
    let routes = vec![
        once().error_handler(handler).set_body("a").to("direct:a"),
        from("direct:a").filter("true").split(Split::lines(), |steps| steps.to("direct:a")),
    ];
    assert_eq!(bodies(1, routes).await.0, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_calls_a_route_and_is_late_is_no_loss() {
    let branches =
        Multicast::new().branch(|steps| steps.to("direct:late")).branch(|steps| steps.set_body("b"));
    let routes = vec![
        once().multicast(branches.parallel(2).timeout("5s").join(Join::List)).to("mock:out"),
        from("direct:late").delay("1h"),
    ];
    let (bodies, ended) = bodies(1, routes).await;
    assert_eq!((bodies, ended), (vec![r#"["b"]"#.to_owned()], ShutdownOutcome::Drained));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_fails_in_finally_too_is_handled_once() {
    let failing = |text: &'static str| move |steps: Branch| steps.process(move |_| Err(text.into()));
    for (guarded, expected) in [
        (Try::new(failing("first")), "first"),
        (Try::new(failing("first")).catch(Catch::all(), failing("second")), "second"),
    ] {
        let handler = ErrorHandlerDefinition::default().dead_letter("direct:dead");
        let routes = vec![
            once().error_handler(handler).do_try(guarded.finally(failing("last"))).to("mock:out"),
            from("direct:dead").set_body("${exception.message}").to("mock:out"),
        ];
        assert_eq!(bodies(1, routes).await.0, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn parts_before_one_that_cannot_be_read_are_worked_on() {
    let mock = MockComponent::default();
    let route = once()
        .set_body(format!("a,b,{},d", "c".repeat(24)))
        .split(Split::tokenize(",").parallel(8), |steps| steps.delay("200ms").to("mock:out"));
    let router = RouterBuilder::new()
        .component(components::TimerComponent)
        .component(mock.clone())
        .spool(SpoolSettings { memory_limit: 20, ..SpoolSettings::default() })
        .route(route)
        .build()
        .unwrap();
    let out = mock.endpoint("out");
    let _ = router
        .run_until(async { drop(tokio::time::timeout(Duration::from_secs(60), out.wait_for(2)).await) })
        .await;
    let received = mock.endpoint("out").received();
    let bodies = received.iter().map(|exchange| exchange.message.body.to_string()).collect::<Vec<_>>();
    assert_eq!(bodies, ["a", "b"]);
}
