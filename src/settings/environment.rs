//! The layers of the environment and of the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::ffi::OsString;
use std::sync::Arc;

use router_core::error::{ConfigError, Severity};
use router_core::secret::variable_error;

use super::layer::{Layers, Place};
use super::list::VARIABLE_PREFIX;
use super::{SettingDescription, pseudo_file};

/// What Kubernetes sets in every container.
const POD_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// The environment of a process, or of a test.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The names of those whose values are not UTF-8. To use one is an error.
    not_text: BTreeSet<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let name = match name.into_string() {
                Ok(name) => name,
                // What has such a name cannot be asked for, and is no setting, though it may be meant to be one.
                Err(name) => match name.to_string_lossy() {
                    shown if shown.starts_with(VARIABLE_PREFIX) => shown.into_owned(),
                    _ => continue,
                },
            };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) => drop(environment.not_text.insert(name)),
            }
        }
        environment
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of a variable, for routes and settings in files.
    ///
    /// # Errors
    /// When it is not set, or not UTF-8.
    pub fn lookup(&self, name: &str) -> Result<String, VarError> {
        match self.get(name) {
            Some(value) => Ok(value.to_owned()),
            None if self.not_text.contains(name) => Err(not_text()),
            None => Err(VarError::NotPresent),
        }
    }

    /// What is said of variables that begin as those of settings do, and are none. They may well be those of another
    /// program: Kubernetes itself sets some in every pod, for each service of its namespace.
    fn notes(&self, list: &[SettingDescription]) -> Vec<String> {
        let unknown = self
            .variables
            .keys()
            .filter(|name| name.starts_with(VARIABLE_PREFIX) && !is_ours(name) && !is_service_link(name));
        let note = |name: &String| {
            let meant = list.iter().map(SettingDescription::variable);
            // Or the name of a whole table.
            let table = format!("{name}__");
            let meant = meant
                .into_iter()
                .find(|variable| variable.replace("__", "_") == *name || variable.starts_with(&table));
            let meant = meant.map(|variable| format!(": did you mean `{variable}`?")).unwrap_or_default();
            format!("the environment variable `{name}` is not a setting{meant}")
        };
        unknown.map(note).collect()
    }

    /// As a pod would have it that was given no settings: the variables for routes are those of this
    /// process, and the settings of this process are its own.
    #[must_use]
    pub fn for_pod(mut self) -> Self {
        self.variables.retain(|name, _| !name.starts_with(VARIABLE_PREFIX));
        self.variables.insert(POD_VARIABLE.into(), String::new());
        self
    }

    /// Whether this process runs in a pod of Kubernetes.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.get(POD_VARIABLE).is_some()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect(), not_text: BTreeSet::new() }
    }
}

impl Layers {
    pub(super) fn add_environment(&mut self, environment: &Environment) {
        self.begin();
        let list = Arc::clone(&self.list);
        for note in environment.notes(&list) {
            self.errors.push(ConfigError::new(note).severity(Severity::Warning));
        }
        for (name, value) in
            environment.variables.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        {
            let Some(setting) = list.iter().find(|setting| setting.variable() == *name) else {
                // Two underscores are ours, unless a service has two hyphens in its name.
                if !is_ours(name) || (environment.is_pod() && is_service_link(name)) {
                    continue;
                }
                // Without its value, which may be a secret under a misspelt name.
                let place = Place { file: pseudo_file("environment", name), range: 0..name.len() };
                let path = name[VARIABLE_PREFIX.len()..].replace("__", ".").to_lowercase();
                if let Some(missing) = self.missing_in(&path) {
                    self.set_unchecked(missing, place);
                    continue;
                }
                let error = place.error(format!("unknown setting in the environment variable `{name}`"));
                if let Some(moved) = path.strip_prefix("cluster.").and_then(|key| self.moved(key)) {
                    let variable = moved.variable();
                    self.errors.push(
                        error.help(format!("it is a setting of a cluster service: write `{variable}`")),
                    );
                    continue;
                }
                let known = list.iter().map(SettingDescription::variable).collect::<Vec<_>>();
                let help =
                    "`BACTRIAN_`, the table, two underscores, the key: `BACTRIAN_ROUTER__SHUTDOWN_TIMEOUT`";
                self.errors.push(error.suggest(name, known.iter().map(String::as_str)).help(help));
                continue;
            };
            let text = format!("{name}={value}");
            let range = name.len() + 1..text.len();
            self.set(setting, value, Place { file: pseudo_file("environment", text), range });
        }
    }

    /// A value that is not text is an error, and not as if it were not set.
    pub(super) fn check_text(&mut self, environment: &Environment) {
        for name in self.list.iter().map(SettingDescription::variable).collect::<Vec<_>>() {
            if environment.not_text.contains(&name) {
                let place = Place { file: pseudo_file("environment", &name), range: 0..name.len() };
                self.errors.push(place.error(variable_error(&name, &not_text())));
            }
        }
    }

    pub(super) fn add_command_line(&mut self, pairs: &[String]) {
        self.begin();
        let list = Arc::clone(&self.list);
        for pair in pairs {
            let file = pseudo_file("--set", pair);
            let (path, value) = match pair.split_once('=') {
                Some((path, value)) => (path, Some(value)),
                None => (pair.as_str(), None),
            };
            let place = Place { file: file.clone(), range: 0..path.len() };
            let Some(setting) = list.iter().find(|setting| setting.path() == path) else {
                if let Some(missing) = self.missing_in(path) {
                    self.set_unchecked(missing, place);
                    continue;
                }
                let error = place.error(format!("unknown setting `{path}`"));
                if let Some(moved) = path.strip_prefix("cluster.").and_then(|key| self.moved(key)) {
                    let moved = moved.path();
                    self.errors
                        .push(error.help(format!("it is a setting of a cluster service: write `{moved}`")));
                    continue;
                }
                let known = list.iter().map(SettingDescription::path).collect::<Vec<_>>();
                let help = format!("the settings are {}", known.join(", "));
                self.errors.push(error.suggest(path, known.iter().map(String::as_str)).help(help));
                continue;
            };
            match value {
                Some(value) => self.set(setting, value, Place { file, range: path.len() + 1..pair.len() }),
                None => self.errors.push(
                    place
                        .error(format!("setting `{path}` has no value"))
                        .help(format!("write `--set {path}=VALUE`")),
                ),
            }
        }
    }
}

impl Layers {
    /// The cluster service that is not built into this program and that a path is a setting of.
    fn missing_in(&self, path: &str) -> Option<&'static str> {
        let (service, _) = path.strip_prefix("cluster.")?.split_once('.')?;
        self.missing(service)
    }
}

/// Without the value, which nothing may show.
fn not_text() -> VarError {
    VarError::NotUnicode(OsString::new())
}

/// Whether a variable that begins as those of settings do has two underscores, and so is meant to be one.
fn is_ours(name: &str) -> bool {
    name[VARIABLE_PREFIX.len() - 1..].contains("__")
}

/// Whether Kubernetes has put the variable there: every pod gets some for each service of its namespace,
/// and a service may well be called `bactrian`.
fn is_service_link(name: &str) -> bool {
    let link = |tail: &str| name.contains(&format!("_{tail}_")) || name.ends_with(&format!("_{tail}"));
    link("SERVICE_HOST") || link("SERVICE_PORT") || link("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::settings;

    #[test]
    fn variables_of_kubernetes_are_known_and_no_setting_looks_like_one() {
        for name in [
            "BACTRIAN_SERVICE_HOST",
            "BACTRIAN_PORT",
            "BACTRIAN_A_PORT_80_TCP_ADDR",
            "BACTRIAN_SERVICE_PORT_WEB",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for setting in settings(&crate::registry()) {
            assert!(!is_service_link(&setting.variable()), "{}", setting.variable());
        }
    }

    #[test]
    fn what_may_be_of_another_program_is_a_note() {
        let names = [
            "BACTRIAN_SERVICE_HOST",
            "BACTRIAN_CLUSTER_MEMBER",
            "BACTRIAN_HOME",
            "OTHER",
            "BACTRIAN_A__B",
            "BACTRIAN_CLUSTER",
            "BACTRIAN__CLUSTER",
        ];
        let environment =
            names.into_iter().map(|name| (name.to_owned(), String::new())).collect::<Environment>();
        assert_eq!(
            environment.notes(&settings(&crate::registry())),
            [
                "the environment variable `BACTRIAN_CLUSTER` is not a setting: did you mean \
                 `BACTRIAN_CLUSTER__SERVICE`?",
                "the environment variable `BACTRIAN_CLUSTER_MEMBER` is not a setting: did you mean \
                 `BACTRIAN_CLUSTER__MEMBER`?",
                "the environment variable `BACTRIAN_HOME` is not a setting",
            ]
        );
    }
}
