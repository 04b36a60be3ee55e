//! The service-provider interface of cluster backends: all of it is reached from this module.
//!
//! A [`ClusterBackend`] is a kind of cluster, registered by its name as a component is by its scheme
//! ([`Registry::add_backend`](crate::component::Registry::add_backend)): `service = "file"` in the table `[cluster]`
//! names it, and the table `[cluster.file]` has its options. What it opens is a
//! [`ClusterService`]. Most get theirs from one of two: [`ArbitratedCluster`] over an
//! [`Arbiter`] that never grants a lock twice, or `cluster_lease::LeaseCluster` over a store with compare-and-swap.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use smol_str::SmolStr;

use super::{ClusterService, Operator, Survey};
use crate::error::{BoxError, ConfigError, ConfigErrors};
use crate::metrics::Metric;
use crate::source::SourceFile;

pub use super::arbitrated::{Arbiter, ArbitratedCluster, Granted, OperatorRequest, Revoked};
pub use super::participants::Participants;
pub use super::term::{Authority, Look, TermControl};
pub use super::vacancy::{time_of_day, time_of_day_after};
pub use super::view::{LeadershipPublisher, Participation};
pub use crate::option_list::{OptionDescription, OptionKind, Options, flag, option};

/// A kind of cluster, found by its name.
#[async_trait]
pub trait ClusterBackend: Send + Sync {
    /// Its name, its options and what it is for.
    fn description(&self) -> &'static BackendDescription;

    /// What can be said against the settings before anything runs. It opens and creates nothing.
    fn check(&self, settings: &BackendSettings, purpose: Purpose) -> ConfigErrors {
        let _ = (settings, purpose);
        ConfigErrors::default()
    }

    /// Opens the service: from here on, this process takes part in the cluster.
    ///
    /// # Errors
    /// When the service cannot be used.
    async fn open(&self, settings: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError>;

    /// What asks the members for something without being one of them. By default there is none.
    ///
    /// # Errors
    /// When there is no such cluster, or it cannot be reached.
    async fn operator(&self, settings: &BackendSettings) -> Result<Box<dyn Operator>, BoxError> {
        let _ = settings;
        let name = self.description().name;
        Err(format!("members of the cluster service `{name}` cannot be asked for anything from outside")
            .into())
    }

    /// What sees how the locks stand, for `bactrian leaders`. By default there is none.
    ///
    /// # Errors
    /// When there is no such cluster, or it cannot be reached.
    async fn survey(&self, settings: &BackendSettings) -> Result<Box<dyn Survey>, BoxError> {
        let _ = settings;
        Err(format!(
            "the locks of the cluster service `{}` cannot be seen from outside",
            self.description().name
        )
        .into())
    }
}

/// What a process does with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// It is a member.
    TakePart,
    /// It looks at the cluster or asks its members for something, and makes nothing that they do not share already.
    Look,
}

/// What a cluster backend is for and which options its table takes.
#[derive(Debug)]
pub struct BackendDescription {
    /// The value of `service` in the table `[cluster]`, and the name of its own table: lower-case letters.
    pub name: &'static str,
    /// One clause.
    pub summary: &'static str,
    /// Its options, in the order in which they are documented.
    pub options: &'static [OptionDescription],
    /// The metrics that only this backend has.
    pub metrics: &'static [&'static Metric],
}

/// What is set for a backend: checked values of the options of its description, and where they were set.
#[derive(Clone, Debug)]
pub struct BackendSettings {
    process: SmolStr,
    member: Option<SmolStr>,
    options: Options,
    places: BTreeMap<&'static str, SettingPlace>,
}

/// Where an option was set.
#[derive(Clone, Debug)]
pub struct SettingPlace {
    /// The file, or what is shown as one.
    pub file: Arc<SourceFile>,
    /// The bytes of the value.
    pub range: Range<usize>,
    /// The layer, lowest first: settings of a higher layer override those of a lower one.
    pub layer: usize,
}

impl BackendSettings {
    /// The defaults of a backend, in a process that is called `process` where its member has no other name.
    #[must_use]
    pub fn new(description: &'static BackendDescription, process: impl Into<SmolStr>) -> Self {
        let options = Options::new(description.options);
        Self { process: process.into(), member: None, options, places: BTreeMap::new() }
    }

    /// With this name for the member.
    #[must_use]
    pub fn with_member(mut self, name: impl Into<SmolStr>) -> Self {
        self.member = Some(name.into());
        self
    }

    /// Gives an option its value, at this place.
    ///
    /// # Errors
    /// What the option takes.
    ///
    /// # Panics
    /// When the backend has no such option.
    pub fn set(&mut self, option: &'static str, text: &str, place: SettingPlace) -> Result<(), String> {
        self.options.set(option, text)?;
        self.places.insert(option, place);
        Ok(())
    }

    /// The name of the member, or of the process where none was given.
    #[must_use]
    pub fn member(&self) -> SmolStr {
        self.member.clone().unwrap_or_else(|| self.process.clone())
    }

    /// The name of the member, where one was given.
    #[must_use]
    pub fn given_member(&self) -> Option<&SmolStr> {
        self.member.as_ref()
    }

    /// The values.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether an option is set, and not in a layer below the one that sets `other`: then both are meant together.
    #[must_use]
    pub fn is_set_beside(&self, option: &str, other: &str) -> bool {
        let layer = |name| self.places.get(name).map(|place| place.layer);
        layer(option).is_some_and(|layer_of_option| layer_of_option >= layer(other).unwrap_or(0))
    }

    /// An error in the value of an option, at the place where it was set.
    #[must_use]
    pub fn error(&self, option: &str, message: impl Into<String>) -> ConfigError {
        match self.places.get(option) {
            Some(SettingPlace { file, range, .. }) => ConfigError::in_file(file, range.clone(), message),
            None => ConfigError::new(message),
        }
    }
}
