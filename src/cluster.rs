//! [`Service`]: the cluster service that the settings name.

use std::fmt;
use std::sync::Arc;

use router_core::cluster::backend::{BackendSettings, ClusterBackend, Purpose};
use router_core::cluster::{ClusterService, Operator, Survey};
use router_core::component::Registry;
use router_core::error::{BoxError, ConfigError, ConfigErrors};

use crate::backends::{AUTO, auto};
use crate::settings::{Environment, Resolved};

/// A cluster backend, and what is set for it.
#[derive(Clone)]
pub struct Service {
    backend: Arc<dyn ClusterBackend>,
    settings: BackendSettings,
    /// `auto` stands for it.
    auto: bool,
}

/// The service that `cluster.service` stands for in this process, if its settings can be used for that purpose.
///
/// The errors are that it is not compiled in, all those in its settings, and every setting that it does not use.
pub fn service(
    resolved: &Resolved,
    environment: &Environment,
    registry: &Registry,
    purpose: Purpose,
    errors: &mut ConfigErrors,
) -> Option<Service> {
    let named = resolved.settings.cluster.service.as_deref();
    let name = named.map(|named| if named == AUTO { auto(environment.is_pod()) } else { named });
    errors.extend(resolved.ignored());
    match name.map(|name| (name, registry.backend(name))) {
        Some((_, Some(backend))) => {
            let settings = resolved.backend(backend.description());
            errors.extend(backend.check(&settings, purpose));
            Some(Service { backend: Arc::clone(backend), settings, auto: named == Some(AUTO) })
        }
        Some((name, None)) => {
            errors.push(not_built_in(name, resolved, environment, registry));
            None
        }
        None => None,
    }
}

fn not_built_in(
    service: &str,
    resolved: &Resolved,
    environment: &Environment,
    registry: &Registry,
) -> ConfigError {
    let reason = match resolved.settings.cluster.service.as_deref() {
        Some(AUTO) => format!(
            ", which `auto` stands for here, as this is {}a pod,",
            if environment.is_pod() { "" } else { "not " }
        ),
        _ => String::new(),
    };
    let message = format!("the cluster service `{service}`{reason} is not built into this program");
    let built_in = registry.backends().iter().map(|backend| backend.description().name);
    let built_in = built_in.collect::<Vec<_>>().join(", ");
    let remedy = registry.missing_backends().find(|(name, _)| *name == service);
    let remedy = remedy.map_or(String::new(), |(_, remedy)| format!("; {remedy}"));
    resolved.error("cluster.service", message).help(format!("built in: {built_in}{remedy}"))
}

impl Service {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.backend.description().name
    }

    /// What is set for it.
    #[must_use]
    pub fn settings(&self) -> &BackendSettings {
        &self.settings
    }

    /// Opens the service: from here on, this process takes part in the cluster.
    ///
    /// # Errors
    /// When the service cannot be used.
    pub async fn open(&self) -> Result<Arc<dyn ClusterService>, BoxError> {
        self.backend.open(&self.settings).await
    }

    /// What asks the members of the cluster for something, without being one of them.
    ///
    /// # Errors
    /// When there is no such cluster, it cannot be reached, or no member can be asked in it.
    pub async fn operator(&self) -> Result<Box<dyn Operator>, BoxError> {
        self.backend.operator(&self.settings).await.map_err(|error| self.hint(error))
    }

    /// What sees how the locks stand, without taking part.
    ///
    /// # Errors
    /// When there is no such cluster, it cannot be reached, or its locks cannot be seen.
    pub async fn survey(&self) -> Result<Box<dyn Survey>, BoxError> {
        self.backend.survey(&self.settings).await.map_err(|error| self.hint(error))
    }

    /// Another cluster may have been meant than the one that `auto` stands for where this program runs.
    fn hint(&self, error: BoxError) -> BoxError {
        if !self.auto {
            return error;
        }
        let (here, other) = (self.name(), [true, false].map(auto));
        let other = other.into_iter().find(|other| *other != here).unwrap_or(here);
        format!(
            "{} (`auto` means `{here}` here; for another cluster say `--set cluster.service={other}`)",
            router_core::error::Chain(&*error)
        )
        .into()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Service")
            .field("name", &self.name())
            .field("settings", &self.settings)
            .finish()
    }
}
