//! What is changed, and what is left alone.

use std::time::Duration;

use router_core::builder::{RouteBuilder, Steps, from};
use router_core::router::{Changes, RouteStatus, RouterError};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Setup, setup};

fn ticks(id: &str, body: &str) -> RouteBuilder {
    from("timer:t?delay=0&period=1s").id(id).set_body(body).to("mock:out")
}

fn ids(ids: &[&str]) -> Vec<smol_str::SmolStr> {
    ids.iter().map(|id| (*id).into()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_changed_and_what_is_equal_runs_on() {
    let count = |id: &str| from("timer:t?delay=0&period=1s").id(id).set_body("${header.timer.counter}");
    let setup = setup([count("same").to("mock:same"), ticks("gone", "gone"), ticks("other", "old")]).start();
    sleep(Duration::from_millis(2_500)).await;
    let next = [ticks("new", "new"), ticks("other", "other"), count("same").to("mock:same")];
    let changes = setup.apply(next).await.unwrap();
    let mut expected = Changes::default();
    expected.added = ids(&["new"]);
    expected.replaced = ids(&["other"]);
    expected.removed = ids(&["gone"]);
    expected.unchanged = ids(&["same"]);
    assert_eq!(changes, expected);
    assert_eq!(changes.to_string(), "added new; replaced other; removed gone; 1 unchanged");
    assert!(!changes.is_empty());
    let routes = setup.router.routes().into_iter().map(|route| route.id.to_string()).collect::<Vec<_>>();
    assert_eq!(routes, ["new", "other", "same"], "in the order of the set");
    let before = setup.bodies("out").len();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.bodies("same"), ["1", "2", "3", "4", "5"], "its consumer is the same");
    let mut bodies = setup.bodies("out").split_off(before);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies, ["new", "other"]);
    let nothing = setup.apply(setup.router.definitions()).await.unwrap();
    assert!(nothing.is_empty() && nothing.unchanged.len() == 3, "{nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn all_errors_are_reported_and_nothing_is_changed() {
    let setup = setup([ticks("a", "old"), from("direct:b").id("b").to("mock:b")]).start();
    sleep(Duration::from_millis(500)).await;
    let next =
        [ticks("a", "new"), ticks("c", "c").to("nothing:x").to("direct:b"), ticks("d", "d").to("direct:d")];
    let Err(RouterError::Config(errors)) = setup.apply(next).await else { panic!("there are errors") };
    let errors = errors.to_string();
    for error in ["nothing", "no route consumes `direct:b`", "no route consumes `direct:d`"] {
        assert!(errors.contains(error), "{error}: {errors}");
    }
    assert!(errors.contains("changes.rs:"), "{errors}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.bodies("out"), ["old", "old"]);
    assert_eq!(
        setup.router.definitions(),
        [ticks("a", "old").into(), from("direct:b").id("b").to("mock:b").into()]
    );
}

#[tokio::test(start_paused = true)]
async fn circles_through_routes_that_stay_are_errors() {
    let b = || from("direct:b").id("b").to("direct:a");
    let setup = setup([from("direct:a").id("a").log("x"), b()]).start();
    let Err(RouterError::Config(errors)) = setup.apply([from("direct:a").id("a").to("direct:b"), b()]).await
    else {
        panic!("it is a circle")
    };
    assert!(errors.to_string().contains("for ever"), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn routes_without_an_id_are_matched_by_their_source_and_not_by_their_place() {
    let tick = |name: &str, body: &str| from(format!("timer:{name}?delay=1h")).set_body(body).to("mock:out");
    let setup = setup([tick("x", "1"), tick("y", "2"), tick("x", "3")]).start();
    let changes =
        setup.apply([tick("z", "9"), tick("x", "3"), tick("y", "5"), tick("x", "4")]).await.unwrap();
    assert_eq!(changes.unchanged, ["route3"], "the equal one of two with one source");
    assert_eq!(changes.replaced, ["route2", "route1"]);
    assert_eq!(changes.added, ["route4"], "a number that is free");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_route_without_an_id_is_no_id_of_another_one() {
    let route = |name: &str| from(format!("timer:{name}?delay=1h"));
    let set = || [route("x"), route("y").id("route1"), route("z").id("route2")];
    let ids = |setup: &Setup| setup.router.routes().into_iter().map(|route| route.id).collect::<Vec<_>>();
    let built = setup(set());
    assert_eq!(ids(&built), ["route3", "route1", "route2"]);
    let setup = setup([route("y").id("route1"), route("z").id("route2")]).start();
    assert_eq!(setup.apply(set()).await.unwrap().added, ["route3"]);
}

#[tokio::test(start_paused = true)]
async fn code_is_equal_to_itself_alone() {
    let code = || from("timer:t?delay=1h").id("a").process(|_| Ok(()));
    let route = code();
    let setup = setup([route.clone()]).start();
    assert_eq!(setup.apply([route]).await.unwrap().unchanged, ["a"]);
    assert_eq!(setup.apply([code()]).await.unwrap().replaced, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_was_stopped_stays_so_unless_the_definition_says_something_else() {
    let setup = setup([ticks("a", "1"), ticks("b", "1")]).start();
    sleep(Duration::from_millis(1)).await;
    setup.router.stop_route("a").await.unwrap();
    setup.apply([ticks("a", "2"), ticks("b", "2").auto_startup(false)]).await.unwrap();
    let status = |setup: &Setup| setup.router.routes().iter().map(|route| route.status).collect::<Vec<_>>();
    assert_eq!(status(&setup), [RouteStatus::Stopped, RouteStatus::Stopped]);
    setup.apply([ticks("a", "2"), ticks("b", "2")]).await.unwrap();
    assert_eq!(status(&setup), [RouteStatus::Stopped, RouteStatus::Started]);
}

#[tokio::test(start_paused = true)]
async fn before_the_router_runs_the_set_is_replaced_and_nothing_starts() {
    let setup = setup([ticks("a", "1")]);
    setup.apply([ticks("a", "2"), ticks("b", "2")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(setup.bodies("out").is_empty());
    let _ = setup.router.run_until(sleep(Duration::from_millis(500))).await;
    assert_eq!(setup.bodies("out"), ["2", "2"]);
    assert!(matches!(setup.apply([ticks("a", "3")]).await, Err(RouterError::NotRunning)));
}

fn slow(body: &str, delay: &str) -> RouteBuilder {
    from("timer:t?delay=0&period=1h").id("slow").delay(delay).set_body(body).to("mock:out")
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_flight_ends_in_the_version_it_began_in() {
    let setup = setup([slow("old", "20s")]).start();
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    setup.apply([slow("new", "20s")]).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 19);
    assert_eq!(setup.bodies("out"), ["old"]);
    sleep(Duration::from_secs(21)).await;
    assert_eq!(setup.bodies("out"), ["old", "new"]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_takes_longer_than_the_stop_time_is_dropped() {
    let setup = setup([slow("old", "1h")]).start();
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    setup.apply([slow("new", "0")]).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 45);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.bodies("out"), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn two_changes_come_one_after_the_other() {
    let setup = setup([slow("1", "20s")]).start();
    sleep(Duration::from_secs(1)).await;
    let (second, third) = tokio::join!(setup.apply([slow("2", "20s")]), setup.apply([slow("3", "20s")]));
    assert_eq!((second.unwrap().replaced, third.unwrap().replaced), (ids(&["slow"]), ids(&["slow"])));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(setup.bodies("out"), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_on_when_the_future_is_dropped() {
    let setup = setup([slow("old", "20s")]).start();
    sleep(Duration::from_secs(1)).await;
    assert!(timeout(Duration::from_secs(1), setup.apply([slow("new", "20s")])).await.is_err());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setup.bodies("out"), ["old", "new"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_change_and_nothing_starts_after_it() {
    let setup = setup([slow("old", "20s")]);
    let (outcome, changes) = tokio::join!(setup.router.run_until(sleep(Duration::from_secs(2))), async {
        sleep(Duration::from_secs(1)).await;
        setup.apply([slow("new", "20s")]).await
    });
    assert_eq!(outcome, router_core::router::ShutdownOutcome::Drained);
    assert_eq!(changes.unwrap().replaced, ["slow"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setup.bodies("out"), ["old"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_cut_short_cuts_a_change_short() {
    let setup = setup([slow("old", "1h")]);
    let start = Instant::now();
    let stop = setup.router.run_until_or_abort(sleep(Duration::from_secs(2)), sleep(Duration::from_secs(3)));
    let (outcome, _) = tokio::join!(stop, async {
        sleep(Duration::from_secs(1)).await;
        setup.apply([slow("new", "20s")]).await
    });
    assert_eq!((outcome, start.elapsed().as_secs()), (router_core::router::ShutdownOutcome::Aborted, 3));
}

#[tokio::test(start_paused = true)]
async fn a_state_in_memory_is_that_of_the_route_and_not_of_its_version() {
    let counts = |step: &str| from("case:counts").id("a").log(step).to("mock:out");
    let setup = setup([counts("1")]).start();
    sleep(Duration::from_secs(1)).await;
    setup.apply([counts("2")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.bodies("out"), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_keeps_a_state_needs_an_id() {
    let state = "timer:t?fixed_rate=true&period=1h&missed=once";
    let setup = setup([from("timer:t?delay=1h")]);
    for uri in [format!("master:lock1:{state}"), format!("{state}&state=/tmp/position")] {
        let Err(RouterError::Config(errors)) = setup.apply([from(&*uri)]).await else { panic!("{uri}") };
        assert!(errors.to_string().contains("keeps a position, so it needs an `id`"), "{errors}");
        setup.apply([from(uri).id("a")]).await.unwrap();
    }
    setup.apply([from(state)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_set_with_an_error_changes_nothing_also_not_by_the_routes_that_have_none() {
    let route = |uri: &str| from("timer:t?delay=1h").id("a").to(uri);
    let setup = setup([route("mock:out?expected_count=0")]).start();
    let refused = [route("mock:out?expected_count=7&result_wait_time=1h"), from("tmer:t").id("b")];
    assert!(matches!(setup.apply(refused).await, Err(RouterError::Config(_))));
    setup.mock.endpoint("out").assert_satisfied().await;
    // Whatever makes an endpoint, a producer too.
    assert!(setup.router.producer("mock:out?expected_count=7&unknown=1").is_err());
    setup.mock.endpoint("out").assert_satisfied().await;
    setup.apply([route("mock:out?expected_count=1&result_wait_time=1s")]).await.unwrap();
    let (out, asked) = (setup.mock.endpoint("out"), Instant::now());
    assert!(tokio::spawn(async move { out.assert_satisfied().await }).await.is_err());
    assert_eq!(asked.elapsed().as_secs(), 1);
}
