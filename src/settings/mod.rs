//! [`Settings`]: everything about a process that is not a route.
//!
//! Four layers, each over the one before: the defaults of the [list](settings), the tables of the files
//! (`[cluster.file]` with `root = "/locks"`), the environment (`BACTRIAN_CLUSTER__FILE__ROOT=/locks`: the prefix,
//! the table, two underscores, the key, all in upper case; and two underscores for a dot), and the command line
//! (`--set cluster.file.root=/locks`). Every layer is checked against the same list, and errors in all of
//! them are reported at once.

mod environment;
mod layer;
mod list;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use router_core::cluster::backend::{BackendDescription, BackendSettings};
use router_core::component::Registry;
use router_core::error::{ConfigError, ConfigErrors};
use router_core::options::parse_duration;
use router_core::source::SourceFile;
use router_core::spool::SpoolSettings;
use router_core::toml::RouteFile;
use serde::Deserialize;

pub use crate::logging::LogFormat;

pub use environment::Environment;
pub use list::{SettingDescription, VARIABLE_PREFIX, settings, settings_table};

use layer::Layers;

/// The settings of a process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Who decides which member leads.
    #[serde(default)]
    pub cluster: ClusterSettings,
    /// The router.
    pub router: RouterSettings,
    /// The `master:` component.
    pub master: MasterSettings,
    /// What bodies may take.
    pub body: BodySettings,
    /// The log.
    pub log: LogSettings,
    /// The admin listener.
    #[serde(default)]
    pub admin: AdminSettings,
}

/// Who decides which member leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ClusterSettings {
    /// The name of the cluster service, or `auto`; `None`: there is none, and `master:` is an error.
    pub service: Option<String>,
    /// The name of this process, where one was given; see [`Settings::member`].
    pub member: Option<String>,
    /// What is set for each service, by its name and the name of the option.
    #[serde(flatten)]
    pub services: BTreeMap<String, BTreeMap<String, String>>,
}

/// The router.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouterSettings {
    /// How long exchanges in flight may take at shutdown.
    #[serde(deserialize_with = "duration")]
    pub shutdown_timeout: Duration,
}

/// The `master:` component.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MasterSettings {
    /// How often a delegate that cannot start is tried.
    pub attempts: u64,
    /// The pause between two tries.
    #[serde(deserialize_with = "duration")]
    pub backoff: Duration,
}

/// What bodies may take in memory, and in files beyond that; what is JSON in them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BodySettings {
    /// How many bytes a body has in memory.
    pub spool_threshold: u64,
    /// The directory of the files of larger ones.
    pub spool_dir: PathBuf,
    /// How many bytes these files have together.
    pub max_spooled_bytes: u64,
    /// How many there are.
    pub max_spooled_files: u64,
    /// How long a body waits for room.
    #[serde(deserialize_with = "duration")]
    pub max_spool_wait: Duration,
    /// How many bytes of them are read into memory for a step that needs all.
    pub memory_limit: u64,
    /// What is done with JSON in which an object has a key twice.
    pub duplicate_keys: DuplicateKeys,
}

/// What is done with JSON in which an object has a key twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DuplicateKeys {
    /// The last value counts.
    Last,
    /// It is an error.
    Error,
}

impl BodySettings {
    /// The same for a router.
    #[must_use]
    pub fn spool(&self) -> SpoolSettings {
        SpoolSettings {
            threshold: self.spool_threshold,
            directory: self.spool_dir.clone(),
            max_bytes: self.max_spooled_bytes,
            max_files: usize::try_from(self.max_spooled_files).unwrap_or(usize::MAX),
            max_wait: self.max_spool_wait,
            memory_limit: self.memory_limit,
            unique_keys: self.duplicate_keys == DuplicateKeys::Error,
        }
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LogSettings {
    /// Its form.
    pub format: LogFormat,
}

/// The admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AdminSettings {
    /// Where it listens; `None`: nobody said so.
    pub listen: Option<Listen>,
}

/// Whether and where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(serde::de::Error::custom),
        }
    }
}

/// Settings, and where they came from.
pub struct Resolved {
    /// The settings; those with errors are at the value of the layer below.
    pub settings: Settings,
    layers: Layers,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").finish_non_exhaustive()
    }
}

impl Settings {
    /// Puts the layers together: the tables of the files, the environment, and the `key=value` pairs of
    /// the command line. Returns all errors, and the settings without them. The cluster backends of `registry` say
    /// what can be set for them.
    #[must_use]
    pub fn resolve(
        files: &[RouteFile],
        environment: &Environment,
        command_line: &[String],
        registry: &Registry,
    ) -> (Resolved, ConfigErrors) {
        let mut layers = Layers::new(registry);
        layers.add_files(files);
        layers.add_environment(environment);
        layers.check_text(environment);
        layers.add_command_line(command_line);
        let settings = layers.merge();
        let errors = std::mem::take(&mut layers.errors);
        (Resolved { settings, layers }, errors)
    }

    /// The name of this process in the cluster: the one that was given, or its host and process id.
    #[must_use]
    pub fn member(&self) -> String {
        self.cluster.member.clone().unwrap_or_else(|| {
            let system = rustix::system::uname();
            format!("{}-{}", system.nodename().to_string_lossy(), std::process::id())
        })
    }
}

impl Resolved {
    /// What was set although nothing reads it: the settings of another cluster service than the one that was named,
    /// or of one where none is named.
    #[must_use]
    pub fn ignored(&self) -> ConfigErrors {
        self.layers.ignored(self.settings.cluster.service.as_deref())
    }

    /// What is set for a cluster backend.
    #[must_use]
    pub fn backend(&self, description: &'static BackendDescription) -> BackendSettings {
        self.layers.backend(&self.settings, description)
    }

    /// Whether a setting was set, instead of left at its default.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        self.layers.is_set(path)
    }

    /// An error in the value of a setting, at the place where it was set.
    #[must_use]
    pub fn error(&self, path: &str, message: String) -> ConfigError {
        self.layers.error(path, message)
    }
}

/// A text that is no file, as one, so that errors in it have a place and a caret as well.
fn pseudo_file(name: &str, text: impl Into<String>) -> Arc<SourceFile> {
    Arc::new(SourceFile::new(name, text))
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
