//! [`RouterBuilder`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smol_str::SmolStr;

use super::{Entry, Router, Shared, check_id, check_local_addresses};
use crate::cluster::ClusterService;
use crate::component::{Component, Processor};
use crate::definition::RouteDefinition;
use crate::error::ConfigErrors;
use crate::registry::Registry;
use crate::route::Surroundings;

/// Everything that a [`Router`] is made of.
#[must_use = "a builder does nothing until `build` is called"]
pub struct RouterBuilder {
    registry: Registry,
    routes: Vec<RouteDefinition>,
    cluster: Option<Arc<dyn ClusterService>>,
    node: Option<SmolStr>,
    shutdown_timeout: Duration,
}

impl Default for RouterBuilder {
    fn default() -> Self {
        Self {
            registry: Registry::default(),
            routes: Vec::new(),
            cluster: None,
            node: None,
            shutdown_timeout: Self::DEFAULT_SHUTDOWN_TIMEOUT,
        }
    }
}

impl RouterBuilder {
    /// How long exchanges in flight may take at shutdown where nothing is said, as in Camel.
    pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);

    /// A builder without components and routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder with these components and named processors.
    pub fn with_registry(registry: Registry) -> Self {
        Self { registry, ..Self::default() }
    }

    /// Adds a component; it replaces an earlier one with the same scheme.
    pub fn component(mut self, component: impl Component + 'static) -> Self {
        self.registry.add_component(component);
        self
    }

    /// Adds a processor that routes can call by name.
    pub fn processor(mut self, name: impl Into<String>, processor: impl Processor + 'static) -> Self {
        self.registry.add_processor(name, processor);
        self
    }

    /// Adds a route.
    pub fn route(mut self, route: impl Into<RouteDefinition>) -> Self {
        self.routes.push(route.into());
        self
    }

    /// Adds routes.
    pub fn routes(mut self, routes: impl IntoIterator<Item = impl Into<RouteDefinition>>) -> Self {
        self.routes.extend(routes.into_iter().map(Into::into));
        self
    }

    /// The cluster service of `master:` routes.
    pub fn cluster(mut self, cluster: Arc<dyn ClusterService>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// The name of this member in `${node}`, where it is not the one of the cluster service.
    pub fn node(mut self, node: impl Into<SmolStr>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// How long exchanges in flight may take at shutdown.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Checks everything and makes the router. Nothing is started.
    ///
    /// # Errors
    /// Every mistake of every route.
    pub fn build(self) -> Result<Router, ConfigErrors> {
        let node = self.node.or_else(|| self.cluster.as_ref().map(|cluster| cluster.local().id.clone()));
        let surroundings = Surroundings {
            registry: Arc::new(self.registry),
            cluster: self.cluster,
            node: node.unwrap_or_else(|| SmolStr::new_static("local")),
        };
        let (mut errors, mut routes) = (ConfigErrors::default(), Vec::with_capacity(self.routes.len()));
        let mut ids = HashSet::with_capacity(self.routes.len());
        for (index, definition) in self.routes.iter().enumerate() {
            let taken = definition.id.as_ref().is_some_and(|id| !ids.insert(id.as_str()));
            match surroundings.compile(definition, index + 1) {
                Ok(route) => {
                    check_id(&mut errors, definition, &route, taken);
                    routes.push(route);
                }
                Err(found) => errors.extend(found),
            }
        }
        let complete = routes.len() == self.routes.len();
        let all = routes.iter().collect::<Vec<_>>();
        // A route with mistakes may be the one that others call: then say nothing about their calls.
        if complete {
            check_local_addresses(&mut errors, &all);
        }
        errors.into_result()?;
        let routes = routes.into_iter().map(|route| Arc::new(Entry::new(route))).collect();
        let shutdown_timeout = self.shutdown_timeout;
        Ok(Router { shared: Arc::new(Shared { surroundings, shutdown_timeout, routes: Mutex::new(routes) }) })
    }
}
