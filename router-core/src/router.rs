//! [`Router`]: runs routes, each under a supervisor of its own, and changes them while it runs.

mod build;
mod entry;
mod gauges;
mod order;
mod supervisor;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tracing::{info, warn};

pub use build::RouterBuilder;

use crate::cluster::{ClusterService, LockName};
use crate::definition::RouteDefinition;
use crate::error::ConfigErrors;
use crate::links;
use crate::processor::Processor;
use crate::route::{self, Route};
use crate::surroundings::Surroundings;
use crate::uri::EndpointUri;
use crate::written::IntoEndpoint;
use entry::Entry;

/// A set of routes that runs. Cheap to clone: clones are handles of the same router, for starting,
/// stopping and changing routes while [`run_until`](Self::run_until) runs.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    surroundings: Surroundings,
    shutdown_timeout: Duration,
    /// In the order of definition.
    routes: Mutex<Vec<Arc<Entry>>>,
    phase: Mutex<Phase>,
    /// The locks whose gauges were set, which keep their value until they are set again.
    shown: Mutex<BTreeSet<LockName>>,
    /// Held by whoever starts, stops, adds, replaces or removes a route: such changes come one after the
    /// other. Shutdown does not wait for it.
    changes: tokio::sync::Mutex<()>,
}

/// Where a router is in its life. It lives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs yet.
    Built,
    /// The routes that start by themselves are being started.
    Starting,
    /// All of them were started.
    Running,
    /// It drains or has ended: nothing is started any more.
    Closed,
}

/// What is known about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its id.
    pub id: SmolStr,
    /// Its description, if it has one.
    pub description: Option<String>,
    /// The URI of its consumer.
    pub from: String,
    /// Whether it runs.
    pub status: RouteStatus,
    /// What keeps it from its work, where something does; see [`Pipeline::leave_note`].
    ///
    /// [`Pipeline::leave_note`]: crate::pipeline::Pipeline::leave_note
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

/// How a router ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Shutdown {
    /// All exchanges were finished.
    Drained,
    /// Some were dropped: now, because draining took too long or was cut short, or earlier, because a term or a
    /// route had ended and its time to stop was over, or while they waited in a queue. There is a line in the log for
    /// each, and one for all beyond a hundred of a queue.
    Aborted,
}

/// Why a route could not be started, stopped, replaced or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// There is no route of that id.
    #[error("there is no route `{0}`")]
    UnknownRoute(String),
    /// The router does not run yet, or has ended.
    #[error("the router is not running")]
    NotRunning,
    /// The new definition has mistakes; what ran before runs on.
    #[error("the route has mistakes")]
    Config(#[source] ConfigErrors),
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
    pub async fn run_until(&self, signal: impl Future<Output = ()>) -> Shutdown {
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
    ) -> Shutdown {
        let _abort = self.begin();
        tokio::select! {
            biased;
            // Before the signal is asked for the first time: what waits for it may work with the routes until then.
            // Nothing is worked on meanwhile, because consumers are tasks, which look whether to stop first.
            () = self.start_all() => unreachable!("it starts routes, and then waits for ever"),
            () = drain => {}
        }
        // First nothing is started any more, then what runs is stopped.
        self.shared.set_phase(Phase::Closed);
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
        let order = self.startup_order();
        let starting = order.iter().filter(|entry| entry.route.auto_startup).collect::<Vec<_>>();
        info!("starting {} of {} routes", starting.len(), order.len());
        for entry in starting {
            // Only a router that was closed meanwhile refuses, and that one is about to stop.
            let _ = entry.start(&self.shared).await;
        }
        self.shared.set_phase(Phase::Running);
        std::future::pending().await
    }

    /// Begins the life of the router; what is returned ends it, also when the future that runs it is
    /// dropped.
    fn begin(&self) -> AbortOnDrop<'_> {
        assert!(self.shared.phase() == Phase::Built, "a router runs once: build another one");
        self.shared.set_phase(Phase::Starting);
        AbortOnDrop(self)
    }

    fn drained(&self) -> Shutdown {
        match self.shared.surroundings.dropped.count() {
            0 => Shutdown::Drained,
            count => {
                warn!(count, "drained, but exchanges were dropped in the life of this process: {count}");
                Shutdown::Aborted
            }
        }
    }

    async fn stop_all(&self) {
        for entry in self.startup_order().iter().rev() {
            entry.stop().await;
        }
        self.abandon_waiting();
        if let Some(cluster) = &self.shared.surroundings.cluster {
            cluster.close().await;
        }
    }

    /// Drops what still waits for a route in a queue: no route runs any more.
    fn abandon_waiting(&self) {
        for entry in self.startup_order() {
            let Route { endpoint, pipeline, .. } = &*entry.route;
            pipeline.abandon(endpoint.local_address().unwrap_or_default(), &endpoint.abandon());
        }
    }

    async fn abort_all(&self, why: &str) -> Shutdown {
        warn!("aborting what is still in flight: {why}");
        for entry in self.startup_order().iter().rev() {
            entry.abort().await;
        }
        self.abandon_waiting();
        // Releasing may need a server that hangs; leases run out by themselves.
        if let Some(cluster) = &self.shared.surroundings.cluster {
            let released = tokio::time::timeout(Duration::from_secs(1), cluster.close()).await;
            if released.is_err() {
                warn!("not all locks were released; others must wait until they expire");
            }
        }
        Shutdown::Aborted
    }

    /// What sends exchanges to an endpoint from outside of all routes: the way from a REST
    /// handler, or any other code, into a `direct:` route.
    ///
    /// # Errors
    /// Every mistake in the URI; an endpoint that cannot be used in `to`.
    #[track_caller]
    pub fn producer(&self, endpoint: impl IntoEndpoint) -> Result<Arc<dyn Processor>, ConfigErrors> {
        let uri = EndpointUri::new(&endpoint.into_endpoint())?;
        let warnings = RefCell::default();
        let (_, processor) = self.shared.surroundings.context(&warnings).sink(&uri)?;
        warnings.into_inner().log_warnings();
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
        self.shared.surroundings.cluster.as_ref()
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

    /// Adds a route. In a router that runs it is started, if it starts by itself.
    ///
    /// # Errors
    /// [`RouterError::Config`]: every mistake in it, a duplicate id among them;
    /// [`RouterError::NotRunning`] when the router has ended.
    ///
    /// # Cancellation
    /// The route may have been added without being started.
    pub async fn add_route(&self, definition: impl Into<RouteDefinition>) -> Result<(), RouterError> {
        let _change = self.shared.changes.lock().await;
        let phase = self.shared.phase();
        if phase == Phase::Closed {
            return Err(RouterError::NotRunning);
        }
        let entry = Arc::new(Entry::new(self.compile(&definition.into(), None)?));
        self.change_entries(|entries| entries.push(Arc::clone(&entry)));
        match phase {
            Phase::Starting | Phase::Running if entry.route.auto_startup => entry.start(&self.shared).await,
            _ => Ok(()),
        }
    }

    /// Replaces the route of the definition's id: the old one drains, then the new one starts if the old
    /// one ran.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`], and [`RouterError::Config`] with every mistake in the new route;
    /// the old one runs on then.
    ///
    /// # Cancellation
    /// The old route may have been asked to stop without being replaced.
    pub async fn replace_route(&self, definition: impl Into<RouteDefinition>) -> Result<(), RouterError> {
        let _change = self.shared.changes.lock().await;
        let definition = definition.into();
        let old = self.entry(definition.id.as_ref().map_or("", |id| id.as_str()))?;
        let new = Arc::new(Entry::new(self.compile(&definition, Some(&old))?));
        let ran = self.stop_or_abort(&old).await;
        self.change_entries(|entries| {
            for entry in entries.iter_mut().filter(|entry| Arc::ptr_eq(entry, &old)) {
                *entry = Arc::clone(&new);
            }
        });
        if ran { new.start(&self.shared).await } else { Ok(()) }
    }

    /// Stops a route and forgets it. Routes that call it fail until another one takes its place.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`].
    ///
    /// # Cancellation
    /// The route may have been asked to stop without being removed.
    pub async fn remove_route(&self, id: &str) -> Result<(), RouterError> {
        let _change = self.shared.changes.lock().await;
        let entry = self.entry(id)?;
        self.stop_or_abort(&entry).await;
        self.change_entries(|entries| entries.retain(|other| !Arc::ptr_eq(other, &entry)));
        Ok(())
    }

    /// Compiles a route that joins the others, or takes the place of `old`.
    fn compile(&self, definition: &RouteDefinition, old: Option<&Arc<Entry>>) -> Result<Route, ConfigErrors> {
        let entries = self.entries();
        let others = entries.iter().filter(|entry| old.is_none_or(|old| !Arc::ptr_eq(entry, old)));
        let others = others.map(|entry| &*entry.route).collect::<Vec<_>>();
        let taken = |id: &str| others.iter().any(|other| other.id == id);
        let number = (1..).find(|number| !taken(&format!("route{number}"))).unwrap_or_default();
        let (route, warnings) = route::compile(&self.shared.surroundings, definition, number).map_err(
            |mistaken| match mistaken.errors {
                errors if !errors.has_errors() => links::no_source(&mistaken.links.route).into(),
                errors => errors,
            },
        )?;
        let mut errors = links::check_joining(&route.links, others.iter().map(|other| &other.links));
        if taken(&route.id) {
            errors.push(links::duplicate_id(definition.id.as_ref(), &route.id, None));
        }
        errors.into_result()?;
        warnings.log_warnings();
        Ok(route)
    }

    /// Stops an entry within the shutdown timeout; tells whether it ran.
    async fn stop_or_abort(&self, entry: &Entry) -> bool {
        let stopped = tokio::time::timeout(self.shared.shutdown_timeout, entry.stop()).await;
        match stopped {
            Ok(ran) => ran,
            Err(_) => {
                warn!(route = %entry.route.id, "aborting what is still in flight: draining took too long");
                entry.abort().await;
                true
            }
        }
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, RouterError> {
        let found = self.entries().iter().find(|entry| entry.route.id == id).cloned();
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
        let addresses = entries.iter().filter_map(|entry| entry.route.links.address());
        let addresses = addresses.map(SmolStr::from).collect();
        *self.shared.surroundings.consumed.write().unwrap_or_else(PoisonError::into_inner) = addresses;
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
}

/// Aborts all routes when the future that runs the router is dropped.
struct AbortOnDrop<'a>(&'a Router);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shared.set_phase(Phase::Closed);
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
