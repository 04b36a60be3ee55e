//! [`Router`]: runs routes, each under a supervisor of its own, and changes them while it runs.

mod build;
pub(crate) mod links;
mod order;
mod supervisor;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tracing::{info, warn};

pub use build::RouterBuilder;

use crate::component::Processor;
use crate::definition::RouteDefinition;
use crate::error::ConfigErrors;
use crate::route::{Route, Surroundings};
use crate::source::SourceText;
use crate::uri::EndpointUri;
use supervisor::Supervisor;

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
}

/// A route and whatever runs it now.
struct Entry {
    route: Arc<Route>,
    /// `Some` while the route is started. An asynchronous mutex: it is held while the route drains, so
    /// that starting and stopping one route come one after the other.
    running: tokio::sync::Mutex<Option<Supervisor>>,
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
    /// All exchanges in flight were finished.
    Drained,
    /// Some were dropped, because draining took too long or was cut short.
    Aborted,
}

/// Why a route could not be started, stopped, replaced or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// There is no route of that id.
    #[error("there is no route `{0}`")]
    UnknownRoute(String),
    /// The new definition has mistakes; what ran before runs on.
    #[error("the route has mistakes")]
    Config(#[source] ConfigErrors),
}

impl Router {
    /// Starts all routes that start by themselves, runs until `signal` completes, then drains for at
    /// most the shutdown timeout. The routes stop in the reverse of the order in which they started,
    /// and then the cluster service releases its locks.
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
        let order = self.startup_order();
        info!(
            "starting {} of {} routes",
            order.iter().filter(|entry| entry.route.auto_startup).count(),
            order.len()
        );
        for entry in order.iter().filter(|entry| entry.route.auto_startup) {
            entry.start().await;
        }
        drain.await;
        let timeout = self.shared.shutdown_timeout;
        info!("draining for at most {timeout:?}");
        tokio::select! {
            biased;
            () = self.stop_all() => Shutdown::Drained,
            () = abort => self.abort_all("asked to stop at once").await,
            () = tokio::time::sleep(timeout) => self.abort_all("draining took too long").await,
        }
    }

    async fn stop_all(&self) {
        for entry in self.startup_order().iter().rev() {
            entry.stop().await;
        }
        if let Some(cluster) = &self.shared.surroundings.cluster {
            cluster.close().await;
        }
    }

    async fn abort_all(&self, why: &str) -> Shutdown {
        warn!("aborting what is still in flight: {why}");
        for entry in self.startup_order().iter().rev() {
            entry.abort().await;
        }
        // Releasing may need a server that hangs; leases run out by themselves.
        if let Some(cluster) = &self.shared.surroundings.cluster {
            let released = tokio::time::timeout(Duration::from_secs(1), cluster.close()).await;
            if released.is_err() {
                warn!("not all locks were released; others must wait until they expire");
            }
        }
        Shutdown::Aborted
    }

    /// What sends exchanges to the endpoint at `uri` from outside of all routes: the way from a REST
    /// handler, or any other code, into a `direct:` route.
    ///
    /// # Errors
    /// Every mistake in the URI; an endpoint that cannot be used in `to`.
    #[track_caller]
    pub fn producer(&self, uri: impl Into<Arc<str>>) -> Result<Arc<dyn Processor>, ConfigErrors> {
        let uri = EndpointUri::parse(&SourceText::from_code(uri))?;
        Ok(self.shared.surroundings.context().sink(&uri)?.1)
    }

    /// What is known about each route, in the order of definition.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteInfo> {
        self.entries().iter().map(|entry| entry.info()).collect()
    }

    /// Starts a route. Does nothing when it runs already.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`].
    pub async fn start_route(&self, id: &str) -> Result<(), RouterError> {
        self.entry(id)?.start().await;
        Ok(())
    }

    /// Stops a route, and returns when its exchanges are finished, or dropped after the shutdown timeout.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`].
    pub async fn stop_route(&self, id: &str) -> Result<(), RouterError> {
        let entry = self.entry(id)?;
        self.stop_or_abort(&entry).await;
        Ok(())
    }

    /// Adds a route, and starts it if it starts by itself.
    ///
    /// # Errors
    /// [`RouterError::Config`]: every mistake in it, a duplicate id among them.
    pub async fn add_route(&self, definition: impl Into<RouteDefinition>) -> Result<(), RouterError> {
        let definition = definition.into();
        let entry = {
            let mut entries = self.entries_mut();
            let present = entries.iter().map(|entry| &*entry.route).collect::<Vec<_>>();
            let route = self.shared.surroundings.compile_beside(&present, &definition)?;
            let entry = Arc::new(Entry::new(route));
            entries.push(Arc::clone(&entry));
            entry
        };
        if entry.route.auto_startup {
            entry.start().await;
        }
        Ok(())
    }

    /// Replaces the route of the definition's id: the old one drains, then the new one starts if the old
    /// one ran.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`], and [`RouterError::Config`] with every mistake in the new route;
    /// the old one runs on then.
    pub async fn replace_route(&self, definition: impl Into<RouteDefinition>) -> Result<(), RouterError> {
        let definition = definition.into();
        let id = definition.id.as_ref().map_or("", |id| id.as_str());
        let old = self.entry(id)?;
        let new = {
            let entries = self.entries();
            let others = entries.iter().filter(|entry| !Arc::ptr_eq(entry, &old));
            let others = others.map(|entry| &*entry.route).collect::<Vec<_>>();
            Arc::new(Entry::new(self.shared.surroundings.compile_beside(&others, &definition)?))
        };
        let ran = self.stop_or_abort(&old).await;
        for entry in &mut *self.entries_mut() {
            if Arc::ptr_eq(entry, &old) {
                *entry = Arc::clone(&new);
            }
        }
        if ran {
            new.start().await;
        }
        Ok(())
    }

    /// Stops a route and forgets it.
    ///
    /// # Errors
    /// [`RouterError::UnknownRoute`].
    pub async fn remove_route(&self, id: &str) -> Result<(), RouterError> {
        let entry = self.entry(id)?;
        self.stop_or_abort(&entry).await;
        self.entries_mut().retain(|other| !Arc::ptr_eq(other, &entry));
        Ok(())
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

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries_mut().clone()
    }

    fn entries_mut(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All routes in the order in which they start; see [`RouteDefinition::startup_order`].
    fn startup_order(&self) -> Vec<Arc<Entry>> {
        order::startup_order(self.entries())
    }
}

impl Entry {
    fn new(route: Route) -> Self {
        Self { route: Arc::new(route), running: tokio::sync::Mutex::new(None) }
    }

    async fn start(&self) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_none_or(Supervisor::is_finished) {
            *running = Some(Supervisor::start(Arc::clone(&self.route)));
        }
    }

    /// Drains the route; tells whether it was started.
    async fn stop(&self) -> bool {
        let mut running = self.running.lock().await;
        let ran = running.is_some();
        if let Some(supervisor) = &mut *running {
            supervisor.stop().await;
        }
        *running = None;
        ran
    }

    async fn abort(&self) {
        let mut running = self.running.lock().await;
        if let Some(supervisor) = running.take() {
            supervisor.abort().await;
        }
    }

    fn info(&self) -> RouteInfo {
        let status = match self.running.try_lock() {
            Err(_) => RouteStatus::Changing,
            Ok(running) => match &*running {
                None => RouteStatus::Stopped,
                Some(supervisor) if supervisor.is_finished() => RouteStatus::Finished,
                Some(_) => RouteStatus::Started,
            },
        };
        let Route { id, description, from, .. } = &*self.route;
        RouteInfo { id: id.clone(), description: description.clone(), from: from.to_string(), status }
    }
}

impl From<ConfigErrors> for RouterError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl Surroundings {
    /// Compiles a route that joins those that are present.
    fn compile_beside(
        &self,
        present: &[&Route],
        definition: &RouteDefinition,
    ) -> Result<Route, ConfigErrors> {
        let route = self.compile(definition, present.len() + 1).map_err(|mistaken| mistaken.errors)?;
        let others = present.iter().copied();
        let mut errors = links::check(others.clone().chain([&route]).map(|route| &route.links), true);
        if others.clone().any(|other| other.id == route.id) {
            errors.push(links::duplicate_id(definition, &route.id, None));
        }
        errors.into_result()?;
        Ok(route)
    }
}
