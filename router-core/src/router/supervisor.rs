//! [`Supervisor`]: keeps the consumer of one route running.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::component::RouteHandle;
use crate::error::{BoxError, Chain};
use crate::panic::contain_panic;
use crate::readiness::Readiness;
use crate::route::Route;
use crate::stop::Stop;

/// The pauses between consumers that fail.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The task of one route.
pub(super) struct Supervisor {
    stop: Stop,
    /// Whether its present consumer is ready.
    readiness: Readiness,
    route: Arc<Route>,
    task: JoinHandle<()>,
}

impl Supervisor {
    pub(super) fn start(route: Arc<Route>) -> Self {
        let (stop, readiness) = (Stop::new(), Readiness::default());
        route.pipeline.show_metrics();
        #[expect(clippy::disallowed_methods, reason = "this is the supervisor: it owns and joins the task")]
        let task = tokio::spawn(supervise(Arc::clone(&route), stop.clone(), readiness.clone()));
        Self { stop, readiness, route, task }
    }

    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Whether it was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    /// Whether the consumer has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Asks the consumer to stop and waits until it has.
    ///
    /// # Cancellation
    /// The request stays made; call again to wait again.
    pub(super) async fn stop(&mut self) {
        self.stop.request();
        if !self.task.is_finished() {
            // It contains panics. If it was aborted, there is nothing left to wait for.
            let _ = (&mut self.task).await;
        }
    }

    /// Drops the consumer and what it has in flight, and waits until that has happened.
    pub(super) async fn abort(mut self) {
        self.task.abort();
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
        self.route.pipeline.abort_detached();
        self.route.pipeline.detached_ended().await;
    }
}

/// Dropping a router aborts its routes.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
        self.route.pipeline.abort_detached();
        self.readiness.abandon();
    }
}

/// Everything in here that is not this crate's contains its panics, the making of a consumer, the text of its error
/// and the log among them: a route whose supervisor has gone would never run again, while this member stays
/// a candidate for its lock.
async fn supervise(route: Arc<Route>, stop: Stop, readiness: Readiness) {
    consume(&route, &stop, &readiness).await;
    // What steps have let go belongs to the route: it has stopped when that has ended.
    route.pipeline.detached_ended().await;
}

async fn consume(route: &Route, stop: &Stop, readiness: &Readiness) {
    let id = route.id();
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    route.pipeline.clear_status_message();
    while !stop.is_requested() {
        let Err(error) = contain_panic(run_once(route, stop, readiness)).await else {
            let how = if stop.is_requested() { "stopped" } else { "finished" };
            readiness.end();
            contained(|| info!(route = %id, "route `{id}` {how}"));
            return;
        };
        if readiness.is_ready() {
            backoff.reset();
            readiness.unset();
        }
        // Boxed: most consumers never fail, and each route would keep the room.
        Box::pin(pause_after(route, stop, error, backoff.next(None))).await;
    }
}

/// Says why a consumer failed, and waits before the next one.
async fn pause_after(route: &Route, stop: &Stop, error: BoxError, pause: Duration) {
    let (id, uri) = (route.id(), &route.links.source);
    let why = contained(|| Chain(&*error).to_string()).unwrap_or_else(|| "its error has no text".into());
    // An error of user code may panic to the end.
    contained(|| drop(error));
    contained(
        || warn!(route = %id, %uri, "the consumer of route `{id}` failed, restarting it in {pause:.1?}: {why}"),
    );
    route.pipeline.set_status_message(format!("its consumer failed and is restarted in {pause:.1?}: {why}"));
    tokio::select! {
        biased;
        () = stop.requested() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

async fn run_once(route: &Route, stop: &Stop, readiness: &Readiness) -> Result<(), BoxError> {
    let consumer = route.endpoint.consumer();
    let consumer = consumer.ok_or("the endpoint cannot be consumed any more")?;
    let handle = RouteHandle::with_readiness(route.pipeline.clone(), stop.clone(), readiness.clone());
    consumer.run(handle).await
}

/// Reports something; `None`: that panicked, which the hook of panics has said.
fn contained<T>(report: impl FnOnce() -> T) -> Option<T> {
    // Unwind safety: nothing that is used afterwards is changed in there.
    catch_unwind(AssertUnwindSafe(report)).ok()
}
