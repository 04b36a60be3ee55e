//! [`Registry`]: the components and named processors that routes may use, and the cluster backends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Component, Processor};
use crate::cluster::backend::ClusterBackend;
use crate::error::ConfigError;
use crate::options::ComponentDescription;
use crate::source::SourceText;
use crate::uri::EndpointUri;

/// The components by scheme, the processors by name, and the cluster backends by name.
#[derive(Clone, Default)]
pub struct Registry {
    components: BTreeMap<&'static str, Arc<dyn Component>>,
    /// How to get components that exist and are not here, by scheme.
    missing: BTreeMap<&'static str, String>,
    /// What there is instead of components of other programs, by scheme.
    foreign: BTreeMap<&'static str, &'static str>,
    processors: BTreeMap<String, Arc<dyn Processor>>,
    /// The cluster backends, in the order in which they were added.
    backends: Vec<Arc<dyn ClusterBackend>>,
    /// How to get backends that exist and are not here, by name.
    missing_backends: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Adds a component; it replaces an earlier one with the same scheme.
    pub fn add_component(&mut self, component: impl Component + 'static) {
        self.components.insert(component.description().scheme, Arc::new(component));
    }

    /// Names a component that exists and is not part of this program: an error about its scheme says `remedy`. A
    /// component that is added under the same scheme is used.
    pub fn add_missing(&mut self, scheme: &'static str, remedy: impl Into<String>) {
        self.missing.insert(scheme, remedy.into());
    }

    /// Names a component that authors know from another program: an error about its scheme says `instead`.
    pub fn add_foreign(&mut self, scheme: &'static str, instead: &'static str) {
        self.foreign.insert(scheme, instead);
    }

    /// How to get a component that is not part of this program.
    #[must_use]
    pub fn remedy(&self, scheme: &str) -> Option<&str> {
        self.missing.get(scheme).filter(|_| !self.components.contains_key(scheme)).map(String::as_str)
    }

    /// Adds a processor that routes can call by name; it replaces an earlier one of that name.
    pub fn add_processor(&mut self, name: impl Into<String>, processor: impl Processor + 'static) {
        self.processors.insert(name.into(), Arc::new(processor));
    }

    /// Adds a cluster backend; it replaces an earlier one with the same name.
    pub fn add_backend(&mut self, backend: impl ClusterBackend + 'static) {
        let name = backend.description().name;
        self.backends.retain(|other| other.description().name != name);
        self.backends.push(Arc::new(backend));
    }

    /// Names a cluster backend that exists and is not part of this program: an error about it says `remedy`.
    pub fn add_missing_backend(&mut self, name: &'static str, remedy: impl Into<String>) {
        self.missing_backends.insert(name, remedy.into());
    }

    /// All cluster backends.
    #[must_use]
    pub fn backends(&self) -> &[Arc<dyn ClusterBackend>] {
        &self.backends
    }

    /// The cluster backend of that name.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Arc<dyn ClusterBackend>> {
        self.backends.iter().find(|backend| backend.description().name == name)
    }

    /// The cluster backends that are not part of this program, and how to get each.
    pub fn missing_backends(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let missing = self.missing_backends.iter().map(|(name, remedy)| (*name, remedy.as_str()));
        missing.filter(|(name, _)| self.backend(name).is_none())
    }

    /// The descriptions of all components, sorted by scheme.
    pub fn descriptions(&self) -> impl Iterator<Item = &'static ComponentDescription> {
        self.components.values().map(|component| component.description())
    }

    pub(crate) fn component(&self, uri: &EndpointUri) -> Result<&dyn Component, ConfigError> {
        let scheme = uri.scheme();
        if let Some(remedy) = self.remedy(scheme) {
            let message = format!("the component `{scheme}` is not built into this program");
            return Err(uri.error_in_scheme(message).help(remedy));
        }
        self.components.get(scheme).map(|component| &**component).ok_or_else(|| {
            let error = uri.error_in_scheme(format!("unknown component `{scheme}`"));
            if let Some(instead) = self.foreign.get(scheme) {
                return error.help(*instead);
            }
            error.suggest(scheme, self.components.keys().copied()).help(format!(
                "known here: {}",
                self.components.keys().copied().collect::<Vec<_>>().join(", ")
            ))
        })
    }

    pub(crate) fn processor(&self, name: &SourceText) -> Result<Arc<dyn Processor>, ConfigError> {
        self.processors.get(name.as_str()).cloned().ok_or_else(|| {
            ConfigError::in_text(name, format!("unknown processor `{name}`"))
                .suggest(name.as_str(), self.processors.keys().map(String::as_str))
                .help("processors are Rust code: register it with `RouterBuilder::processor`")
        })
    }
}
