//! [`RouterBuilder`].

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::{Phase, Router, Shared};
use crate::cluster::ClusterService;
use crate::component::{Component, Registry};
use crate::definition::RouteDefinition;
use crate::environment::Environment;
use crate::error::{ConfigErrors, Severity};
use crate::flight::Dropped;
use crate::processor::Processor;
use crate::spool::{Spool, SpoolSettings};

/// Everything that a [`Router`] is made of.
#[must_use = "a builder does nothing until `build` is called"]
pub struct RouterBuilder {
    registry: Registry,
    routes: Vec<RouteDefinition>,
    cluster: Option<Arc<dyn ClusterService>>,
    node: Option<SmolStr>,
    shutdown_timeout: Duration,
    ready_timeout: Duration,
    missing_secrets: Severity,
    spool: SpoolSettings,
    errors: ConfigErrors,
    routes_missing: bool,
}

impl fmt::Debug for RouterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterBuilder").finish_non_exhaustive()
    }
}

impl Default for RouterBuilder {
    fn default() -> Self {
        Self {
            registry: Registry::default(),
            routes: Vec::new(),
            cluster: None,
            node: None,
            shutdown_timeout: Self::DEFAULT_SHUTDOWN_TIMEOUT,
            ready_timeout: Self::DEFAULT_READY_TIMEOUT,
            missing_secrets: Severity::Error,
            spool: SpoolSettings::default(),
            errors: ConfigErrors::default(),
            routes_missing: false,
        }
    }
}

impl RouterBuilder {
    /// How long exchanges in flight may take at shutdown where nothing is said, as in Camel.
    pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);

    /// How long a route that [`Router::apply`] has started may take to become ready, by default.
    pub const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(30);

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

    /// How long a route that [`Router::apply`] has started may take to become ready, before its old version takes its
    /// place again. Defaults to 30 s.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// What it is when the environment variable or the file of a secret is not there. Defaults to an error; a
    /// warning is for a check on a host that has no secrets.
    pub fn missing_secrets(mut self, severity: Severity) -> Self {
        self.missing_secrets = severity;
        self
    }

    /// What bodies may take in memory, and in files beyond that.
    pub fn spool(mut self, settings: SpoolSettings) -> Self {
        self.spool = settings;
        self
    }

    /// Errors that were found before, by a front end: `build` reports them together with its own. Where
    /// `routes_missing`, a front end knows of routes that it could not add, so that calls of routes that
    /// are not here are no error.
    pub fn errors(mut self, errors: ConfigErrors, routes_missing: bool) -> Self {
        self.errors.extend(errors);
        self.routes_missing |= routes_missing;
        self
    }

    /// Checks everything and makes the router. Nothing is started. Warnings are written to the log.
    ///
    /// # Errors
    /// Every error of every route.
    pub fn build(self) -> Result<Router, ConfigErrors> {
        let (router, warnings) = self.build_with_warnings()?;
        warnings.log_warnings();
        Ok(router)
    }

    /// As [`build`](Self::build), for a program that shows the warnings itself.
    ///
    /// # Errors
    /// Every error of every route; warnings stand among them.
    pub fn build_with_warnings(self) -> Result<(Router, ConfigErrors), ConfigErrors> {
        let node = self.node.or_else(|| self.cluster.as_ref().map(|cluster| cluster.local().id.clone()));
        let environment = Environment {
            registry: Arc::new(self.registry),
            cluster: self.cluster,
            node: node.unwrap_or_else(|| SmolStr::new_static("local")),
            dropped: Dropped::default(),
            missing_secrets: self.missing_secrets,
            spool: Spool::new(self.spool),
            consumed: Arc::default(),
        };
        let mut plan = Plan::new(&environment, &[], self.routes, self.errors, !self.routes_missing)?;
        let warnings = std::mem::take(&mut plan.findings.warnings);
        std::mem::take(&mut plan.findings).take();
        let router = Router {
            shared: Arc::new(Shared {
                environment,
                shutdown_timeout: self.shutdown_timeout,
                ready_timeout: self.ready_timeout,
                routes: Mutex::default(),
                phase: Mutex::new(Phase::Built),
                has_run: AtomicBool::new(false),
                shown: Mutex::default(),
                changes: Arc::default(),
                aborted: CancellationToken::new(),
            }),
        };
        router.change_entries(|entries| *entries = plan.entries().cloned().collect());
        Ok((router, warnings))
    }
}
