//! New versions that do not become ready.

use std::time::Duration;

use router_core::builder::{Steps, from};
use router_core::router::RouteStatus;
use tokio::time::{Instant, sleep};

use crate::support::setup;

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_ready_in_time_gives_way_to_the_old_one() {
    for (broken, seconds, why) in [
        ("case:never", 10, "its consumer did not say within 10s that it is ready"),
        ("case:fails", 10, "it was not ready within 10s: its consumer failed"),
        ("case:ends", 0, "its consumer ended before it was ready"),
    ] {
        let old = || from("timer:t?delay=0&period=1s").id("a").to("mock:out");
        let setup = setup([old(), from("timer:t?delay=1h").id("b")]).start();
        sleep(Duration::from_millis(1)).await;
        let asked = Instant::now();
        let next = [from(broken).id("a").to("mock:out"), from("timer:t?delay=2h").id("b")];
        let changes = setup.apply(next).await.unwrap();
        assert_eq!(asked.elapsed().as_secs(), seconds, "{broken}");
        assert_eq!((changes.replaced.as_slice(), changes.reverted[0].0.as_str()), (&["b".into()][..], "a"));
        assert!(changes.reverted[0].1.starts_with(why), "{changes}");
        sleep(Duration::from_millis(500)).await;
        let route = setup.router.routes().remove(0);
        assert_eq!(
            (&*route.from, route.status, route.unready_for),
            ("timer:t?delay=0&period=1s", RouteStatus::Started, None)
        );
        let note = route.note.unwrap();
        assert!(note.starts_with("its old version runs again: ") && note.contains(why), "{note}");
        assert_eq!(setup.router.definitions()[0], old().into());
        assert_eq!(setup.bodies("out").len(), 2, "the first tick of each run");
        // The old version may be what is wanted.
        let changes = setup.apply([old(), from("timer:t?delay=2h").id("b")]).await.unwrap();
        assert_eq!(changes.unchanged, ["a", "b"]);
        assert_eq!(setup.router.routes().remove(0).note, None);
        // What is asked for again is tried again.
        let changes =
            setup.apply([from("case:ready").id("a").to("mock:out"), from("timer:t?delay=2h").id("b")]).await;
        assert_eq!(changes.unwrap().replaced, ["a"]);
        assert_eq!(setup.router.routes().remove(0).note, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_route_that_is_not_ready_in_time_goes_on_trying() {
    let setup = setup([from("timer:t?delay=1h").id("b")]).start();
    sleep(Duration::from_millis(1)).await;
    let changes = setup.apply([from("timer:t?delay=1h").id("b"), from("case:fails").id("a")]).await.unwrap();
    assert_eq!((changes.added.as_slice(), changes.unready[0].0.as_str()), (&["a".into()][..], "a"));
    assert!(setup.router.routes()[1].unready_for.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_old_version_that_fits_no_more_is_not_brought_back() {
    let setup =
        setup([from("direct:b").id("b").to("mock:out"), from("timer:t?delay=1h").id("a").to("direct:b")])
            .start();
    sleep(Duration::from_millis(1)).await;
    let changes = setup.apply([from("case:never").id("a").to("mock:out")]).await.unwrap();
    assert_eq!((changes.removed.as_slice(), changes.unready[0].0.as_str()), (&["b".into()][..], "a"));
    assert!(changes.reverted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_be_held_is_an_error_of_its_route_and_changes_nothing() {
    let old = [from("case:unheld").id("a").to("mock:out?expected_count=0"), from("timer:t?delay=1h").id("b")];
    let setup = setup(old.clone()).start();
    sleep(Duration::from_millis(1)).await;
    let (before, asked) = (setup.router.definitions(), Instant::now());
    let next = [from("case:ready").id("a").to("mock:out?expected_count=1"), from("timer:t?delay=2h").id("b")];
    let error = setup.apply(next).await.unwrap_err();
    let text =
        "the place of the route `a` could not be kept for its next version within 10s; nothing was changed";
    assert_eq!((error.to_string().as_str(), asked.elapsed().as_secs()), (text, 10));
    assert_eq!(setup.router.definitions(), before);
    setup.mock.endpoint("out").assert_satisfied().await;
    assert!(setup.router.routes().iter().all(|route| route.status == RouteStatus::Started));
    // The next change does not wait for that one.
    let changes = setup.apply([old[0].clone()]).await.unwrap();
    assert_eq!(
        (changes.removed.as_slice(), changes.unchanged.as_slice()),
        (&["b".into()][..], &["a".into()][..])
    );
}
