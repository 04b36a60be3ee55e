//! [`Router`]: runs routes, each under a supervisor of its own, and changes them while it runs.

mod apply;
mod build;
mod entry;
mod gauges;
mod order;
mod plan;
mod supervisor;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use apply::Changes;
pub use build::RouterBuilder;

use crate::cluster::{ClusterService, LockName};
use crate::definition::RouteDefinition;
use crate::environment::Environment;
use crate::error::ConfigErrors;
use crate::processor::Processor;
use crate::uri::EndpointUri;
use crate::written::IntoEndpoint;
use entry::Entry;
use plan::Plan;

/// A set of routes that runs. Cheap to clone: clones are handles of the same router, for starting,
/// stopping and changing routes while [`run_until`](Self::run_until) runs.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

struct Shared {
    environment: Environment,
    shutdown_timeout: Duration,
    /// How long a route that was changed may take to become ready.
    ready_timeout: Duration,
    /// In the order of definition.
    routes: Mutex<Vec<Arc<Entry>>>,
    phase: Mutex<Phase>,
    has_run: AtomicBool,
    /// The locks whose gauges were set, which keep their value until they are set again.
    shown: Mutex<BTreeSet<LockName>>,
    /// Held by what starts, stops or changes routes: such changes come one after the other. Shutdown does not wait for
    /// it.
    changes: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when nothing may take its time to stop any more.
    aborted: CancellationToken,
}

/// Where a router is in its life. It lives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs yet.
    Built,
    /// The routes that start by themselves are being started: not all of them have been ready yet.
    Starting,
    /// All of them have been ready.
    Running,
    /// It drains or has ended: nothing is started any more.
    Closed {
        /// Whether all of them had been ready.
        had_started: bool,
    },
}

/// What is known about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteInfo {
    /// Its id.
    pub id: SmolStr,
    /// Its description, if it has one.
    pub description: Option<String>,
    /// The URI of its consumer.
    pub from: String,
    /// Whether it runs.
    pub status: RouteStatus,
    /// For how long its consumer has not been ready: since the route was started, or since a consumer failed that was.
    /// `None`: it is ready, or the route was not started. See [`RouteHandle::ready`].
    ///
    /// [`RouteHandle::ready`]: crate::component::RouteHandle::ready
    pub unready_for: Option<Duration>,
    /// What keeps it from its work, where something does; see [`Pipeline::set_status_message`].
    ///
    /// [`Pipeline::set_status_message`]: crate::pipeline::Pipeline::set_status_message
    pub note: Option<String>,
}

/// Whether a route runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStatus {
    /// It was not started, or was stopped.
    Stopped,
    /// It runs, or waits to be restarted after a failure.
    Started,
    /// Its consumer has ended by itself: there will be no more exchanges.
    Finished,
    /// It is being started or stopped right now.
    Changing,
}

/// How a router ended. `main` can return it: exit code 0 if nothing was dropped, else 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ShutdownOutcome {
    /// All exchanges were finished.
    Drained,
    /// Some were dropped: now, because draining took too long or was cut short, or earlier, because a term or a
    /// route had ended and its time to stop was over, or while they waited in a queue. There is a line in the log for
    /// each, and one for all beyond a hundred of a queue.
    Aborted,
}

impl Termination for ShutdownOutcome {
    fn report(self) -> ExitCode {
        match self {
            Self::Drained => ExitCode::SUCCESS,
            Self::Aborted => ExitCode::FAILURE,
        }
    }
}

/// Why routes could not be started, stopped or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// There is no route of that id.
    #[error("there is no route `{0}`")]
    UnknownRoute(String),
    /// The router does not run yet, or has ended.
    #[error("the router is not running")]
    NotRunning,
    /// The new definitions have errors; what ran before runs on.
    #[error("the routes have errors")]
    Config(#[source] ConfigErrors),
    /// The lock of a route, or the place where others call it, could not be kept for its next version within the time in
    /// which routes must become ready; what ran before runs on.
    #[error(
        "the place of the route `{0}` could not be kept for its next version within {1:?}; nothing was changed"
    )]
    NotHeld(String, Duration),
}

impl Router {
    /// Starts all routes that start by themselves, runs until `signal` completes, which may be while they are
    /// being started, then drains for at most the shutdown timeout. The routes stop in the reverse of the order in which they started,
    /// and then the cluster service releases its locks.
    ///
    /// # Panics
    /// When the router was run before: it lives once.
    ///
    /// # Cancellation
    /// Dropping the future aborts all routes.
    pub async fn run_until(&self, signal: impl Future<Output = ()>) -> ShutdownOutcome {
        self.run_until_or_abort(signal, std::future::pending()).await
    }

    /// As [`run_until`](Self::run_until); draining also ends when `abort` completes.
    ///
    /// # Cancellation
    /// Dropping the future aborts all routes.
    pub async fn run_until_or_abort(
        &self,
        drain: impl Future<Output = ()>,
        abort: impl Future<Output = ()>,
    ) -> ShutdownOutcome {
        let _abort = self.begin();
        self.shared.environment.spool.check();
        tokio::select! {
            biased;
            // Before the signal is asked for the first time: what waits for it may work with the routes until then.
            // Nothing is worked on meanwhile, because consumers are tasks, which look whether to stop first.
            () = self.start_all() => unreachable!("it starts routes, and then waits for ever"),
            () = drain => {}
        }
        // First nothing is started any more, then what runs is stopped.
        self.shared.close();
        let timeout = self.shared.shutdown_timeout;
        info!("draining for at most {timeout:?}");
        tokio::select! {
            biased;
            () = self.stop_all() => self.drained(),
            () = abort => self.abort_all("asked to stop at once").await,
            () = tokio::time::sleep(timeout) => self.abort_all("draining took too long").await,
        }
    }

    /// Starts the routes that start by themselves, one after the other, and waits for ever.
    async fn start_all(&self) {
        // A change that was made before is a change of what is started.
        let change = self.shared.changes.lock().await;
        self.shared.set_phase(Phase::Starting);
        let order = self.startup_order();
        let starting = order.iter().filter(|entry| entry.definition.auto_startup).collect::<Vec<_>>();
        info!("starting {} of {} routes", starting.len(), order.len());
        for entry in &starting {
            // Only a router that was closed meanwhile refuses, and that one is about to stop.
            let _ = entry.start(&self.shared).await;
        }
        drop(change);
        for readiness in starting.iter().filter_map(|entry| entry.readiness()).collect::<Vec<_>>() {
            // `None`: it was stopped meanwhile.
            let _ = readiness.wait_for(|state| state.is_ready()).await;
        }
        self.shared.set_phase(Phase::Running);
        std::future::pending().await
    }

    /// Begins the life of the router; what is returned ends it, also when the future that runs it is
    /// dropped.
    fn begin(&self) -> AbortOnDrop<'_> {
        assert!(!self.shared.has_run.swap(true, Ordering::Relaxed), "a router runs once: build another one");
        AbortOnDrop(self)
    }

    fn drained(&self) -> ShutdownOutcome {
        match self.shared.environment.dropped.count() {
            0 => ShutdownOutcome::Drained,
            count => {
                warn!(count, "drained, but exchanges were dropped in the life of this process: {count}");
                ShutdownOutcome::Aborted
            }
        }
    }

    async fn stop_all(&self) {
        for entry in self.startup_order().iter().rev() {
            entry.stop().await;
        }
        self.abandon_waiting();
        if let Some(cluster) = &self.shared.environment.cluster {
            cluster.close().await;
        }
    }

    /// Drops what still waits for a route in a queue: no route runs any more.
    fn abandon_waiting(&self) {
        for entry in self.startup_order() {
            entry.abandon_waiting();
        }
    }

    async fn abort_all(&self, why: &str) -> ShutdownOutcome {
        warn!("aborting what is still in flight: {why}");
        self.shared.aborted.cancel();
        for entry in self.startup_order().iter().rev() {
            entry.abort().await;
        }
        self.abandon_waiting();
        // Releasing may need a server that hangs; leases run out by themselves.
        if let Some(cluster) = &self.shared.environment.cluster {
            let released = tokio::time::timeout(Duration::from_secs(1), cluster.close()).await;
            if released.is_err() {
                warn!("not all locks were released; others must wait until they expire");
            }
        }
        ShutdownOutcome::Aborted
    }

    /// What sends exchanges to an endpoint from outside of all routes: the way from a REST
    /// handler, or any other code, into a `direct:` route.
    ///
    /// # Errors
    /// Every error in the URI; an endpoint that cannot be used in `to`.
    #[track_caller]
    pub fn producer(&self, endpoint: impl IntoEndpoint) -> Result<Arc<dyn Processor>, ConfigErrors> {
        let uri = EndpointUri::new(&endpoint.into_endpoint())?;
        let findings = RefCell::default();
        let (_, processor) = self.shared.environment.context(&findings).sink(&uri)?;
        findings.into_inner().take();
        Ok(processor)
    }

    /// Where this router is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// The cluster service of its `master:` routes.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<dyn ClusterService>> {
        self.shared.environment.cluster.as_ref()
    }

    /// Sets the gauges that are asked and not remembered, who leads which lock, to what is true now. An
    /// exporter calls it before each scrape; see [`metrics`](crate::metrics).
    pub fn refresh_gauges(&self) {
        gauges::refresh(&self.shared);
    }

    /// What is known about each route, in the order of definition.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteInfo> {
        self.entries().iter().map(|entry| entry.info()).collect()
    }

    /// Starts a route. Does nothing when it runs already.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`], [`RouterError::NotRunning`].
    ///
    /// # Cancellation
    /// Safe: the route is started or not.
    pub async fn start_route(&self, id: &str) -> Result<(), RouterError> {
        let _change = self.shared.changes.lock().await;
        self.entry(id)?.start(&self.shared).await
    }

    /// Stops a route, and returns when its exchanges are finished, or dropped after the shutdown timeout.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`].
    ///
    /// # Cancellation
    /// The route goes on stopping, however long its exchanges take.
    pub async fn stop_route(&self, id: &str) -> Result<(), RouterError> {
        let _change = self.shared.changes.lock().await;
        self.stop_or_abort(&*self.entry(id)?).await;
        Ok(())
    }

    /// Makes these definitions the routes of this router. Compiles what is new or differs, and checks all together. Then
    /// it stops what is gone, replaces what differs, starts what is new, and leaves alone what is equal. It returns when
    /// all of that is done, and the consumers of what it has started are ready.
    ///
    /// A route is the same by its id. One without an id is the same by its source, never by its place.
    ///
    /// Exchanges in flight end in the version in which they began, within the shutdown timeout. Callers of a replaced
    /// `direct:` and senders to a `seda:` wait meanwhile. Below `master:` a route keeps its lock and its term, and its old
    /// version has ended before the new one starts. A version that is not ready within
    /// [`RouterBuilder::ready_timeout`] gives way to the old one again. A route that an operator has stopped stays so,
    /// unless [`auto_startup`](RouteDefinition::auto_startup) differs.
    ///
    /// Before the router runs, this only exchanges the definitions. Changes come one after the other. An exchange of a
    /// route that is changed must not wait for it.
    ///
    /// ```
    /// # use router_core::builder::{Steps, from};
    /// # use router_core::router::{Router, RouterError};
    /// # async fn example(router: Router) -> Result<(), RouterError> {
    /// // One route more than before.
    /// let mut routes = router.definitions();
    /// routes.push(from("timer:clock").id("clock").log("tick").into());
    /// let changes = router.apply(routes).await?;
    /// assert_eq!(changes.added, ["clock"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RouterError::Config`]: every error of every route; [`RouterError::NotHeld`]: the lock or address of a route; nothing
    /// is changed in both cases. [`RouterError::NotRunning`] when the router has ended.
    ///
    /// # Cancellation
    /// Once the definitions are checked, the change goes on to its end, also when the future is dropped.
    pub async fn apply(
        &self,
        definitions: impl IntoIterator<Item = impl Into<RouteDefinition>>,
    ) -> Result<Changes, RouterError> {
        let definitions = definitions.into_iter().map(Into::into).collect();
        let change = Arc::clone(&self.shared.changes).lock_owned().await;
        if self.shared.is_closed() {
            return Err(RouterError::NotRunning);
        }
        let plan =
            Plan::new(&self.shared.environment, &self.entries(), definitions, ConfigErrors::default(), true)?;
        let router = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends by itself, within the times to stop and to become ready"
        )]
        let applying = tokio::spawn(async move {
            let changes = router.carry_out(plan).await;
            drop(change);
            changes
        });
        applying.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => RouterError::NotRunning,
        })?
    }

    /// The definitions of all routes, in their order.
    #[must_use]
    pub fn definitions(&self) -> Vec<RouteDefinition> {
        self.entries().iter().map(|entry| entry.definition.clone()).collect()
    }

    /// Stops an entry within the shutdown timeout; tells whether it ran.
    async fn stop_or_abort(&self, entry: &Entry) -> bool {
        tokio::select! {
            biased;
            () = self.shared.aborted.cancelled() => {}
            stopped = tokio::time::timeout(self.shared.shutdown_timeout, entry.stop()) => match stopped {
                Ok(ran) => return ran,
                Err(_) => {
                    warn!(route = %entry.route.id(), "aborting what is still in flight: draining took too long");
                }
            },
        }
        entry.abort().await;
        // Under a term, callers end their exchanges a moment later.
        entry.route.pipeline.idle().await;
        true
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, RouterError> {
        let found = self.entries().iter().find(|entry| entry.route.id() == id).cloned();
        found.ok_or_else(|| RouterError::UnknownRoute(id.to_owned()))
    }

    #[cfg(test)]
    pub(crate) fn pipelines(&self) -> Vec<crate::pipeline::Pipeline> {
        self.entries().iter().map(|entry| entry.route.pipeline.clone()).collect()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the routes, and with them what can be called.
    fn change_entries(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>)) {
        let mut entries = self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let addresses = entries.iter().filter_map(|entry| entry.route.links.address.as_deref());
        let addresses = addresses.map(SmolStr::from).collect();
        *self.shared.environment.consumed.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// All routes in the order in which they start; see [`RouteDefinition::startup_order`].
    fn startup_order(&self) -> Vec<Arc<Entry>> {
        order::startup_order(self.entries())
    }
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase(), Phase::Closed { .. })
    }

    fn close(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*phase, Phase::Closed { .. }) {
            *phase = Phase::Closed { had_started: *phase == Phase::Running };
        }
    }
}

/// Aborts all routes when the future that runs the router is dropped.
struct AbortOnDrop<'a>(&'a Router);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shared.close();
        self.0.shared.aborted.cancel();
        for entry in self.0.entries() {
            entry.abort_now();
        }
    }
}

impl From<ConfigErrors> for RouterError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}
