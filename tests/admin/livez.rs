//! What `/livez` is there for.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use bactrian::admin::AdminListener;
use bactrian::core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use bactrian::core::options::{ComponentDescription, PathKind, path};
use bactrian::core::uri::EndpointUri;
use bactrian::prelude::*;
use http::StatusCode;

use crate::process::{get, status};

#[test]
fn a_runtime_that_is_blocked_is_told_by_a_thread_that_is_not() {
    let routes = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (blocked, is_blocked) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let route = from("timer:once?delay=0&period=0").process(move |_| {
        blocked.send(()).unwrap();
        // What nobody should do in a route: everything else waits with it.
        released.lock().unwrap().recv().unwrap();
        Ok(())
    });
    let router = bactrian::router().route(route).build().unwrap();
    let admin =
        routes.block_on(async { AdminListener::bind("127.0.0.1:0").unwrap().serve(&router).unwrap() });
    let running = routes.spawn({
        let router = router.clone();
        async move { router.run_until(std::future::pending()).await }
    });
    is_blocked.recv().unwrap();
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(async {
        let (code, why) = get(admin.address(), "livez").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains("[-]runtime failed: it ran no task within 2s, something blocks it\n"), "{why}");
        assert!(why.ends_with("livez check failed\n"), "{why}");
        release.send(()).unwrap();
        assert_eq!(status(admin.address(), "livez").await, StatusCode::OK);
    });
    running.abort();
}

/// A source that fails with an error that cannot even be printed.
struct Unspeakable;

/// How often it has run.
static RUNS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct UnspeakableError;

impl std::error::Error for UnspeakableError {}

impl fmt::Display for UnspeakableError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("unspeakable");
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "unspeakable",
    summary: "",
    syntax: "unspeakable:name",
    path: path("", PathKind::Name),
    consumes: true,
    produces: false,
    options: &[],
};

impl Component for Unspeakable {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, _: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        Ok(Box::new(Self))
    }
}

impl Endpoint for Unspeakable {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Self))
    }
}

#[async_trait::async_trait]
impl Consumer for Unspeakable {
    async fn run(self: Box<Self>, _: RouteHandle) -> Result<(), BoxError> {
        RUNS.fetch_add(1, Ordering::Relaxed);
        Err(UnspeakableError.into())
    }
}

#[tokio::test]
async fn a_route_whose_failure_cannot_be_told_is_started_again() {
    let route = from("unspeakable:x").id("victim");
    let router = bactrian::router().component(Unspeakable).route(route).build().unwrap();
    let admin = AdminListener::bind("127.0.0.1:0").unwrap().serve(&router).unwrap();
    let at = admin.address();
    assert_eq!(status(at, "startupz").await, StatusCode::SERVICE_UNAVAILABLE);
    let asking = async {
        while RUNS.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(router.routes()[0].status, RouteStatus::Started);
        assert_eq!(status(at, "livez").await, StatusCode::OK);
        let (code, why) = get(at, "readyz?verbose").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains("[-]route victim failed: not ready for "), "{why}");
        assert!(why.contains("its error has no text"), "{why}");
    };
    let asking = async { tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap() };
    assert_eq!(router.run_until(asking).await, ShutdownOutcome::Drained);
}
