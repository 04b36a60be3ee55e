//! The layers of the environment and of the command line.

use std::collections::BTreeMap;

use super::layer::{Layers, Place};
use super::list::{SETTINGS, VARIABLE_PREFIX};
use super::pseudo_file;

/// What Kubernetes sets in every container.
const POD_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// The environment of a process, or of a test.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are as if they were not set.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
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
        Self { variables: variables.into_iter().collect() }
    }
}

impl Layers {
    pub(super) fn add_environment(&mut self, environment: &Environment) {
        self.begin();
        for (name, value) in
            environment.variables.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        {
            if environment.is_pod() && is_service_link(name) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) else {
                // Without its value, which may be a secret under a misspelt name.
                let place = Place { file: pseudo_file("environment", name), range: 0..name.len() };
                let error = place.error(format!("unknown setting in the environment variable `{name}`"));
                let known = SETTINGS.iter().map(|setting| setting.variable()).collect::<Vec<_>>();
                let help = "`BACTRIAN_`, the table, two underscores, the key: `BACTRIAN_CLUSTER__ROOT`";
                self.errors.push(error.suggest(name, known.iter().map(String::as_str)).help(help));
                continue;
            };
            let text = format!("{name}={value}");
            let range = name.len() + 1..text.len();
            self.set(setting, value, Place { file: pseudo_file("environment", text), range });
        }
    }

    pub(super) fn add_command_line(&mut self, pairs: &[String]) {
        self.begin();
        for pair in pairs {
            let file = pseudo_file("--set", pair);
            let (path, value) = match pair.split_once('=') {
                Some((path, value)) => (path, Some(value)),
                None => (pair.as_str(), None),
            };
            let place = Place { file: file.clone(), range: 0..path.len() };
            let Some(setting) = SETTINGS.iter().find(|setting| setting.path() == path) else {
                let known = SETTINGS.iter().map(|setting| setting.path()).collect::<Vec<_>>();
                let error = place.error(format!("unknown setting `{path}`"));
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

/// Whether Kubernetes has put the variable there: every pod gets some for each service of its namespace,
/// and a service may well be called `bactrian`.
fn is_service_link(name: &str) -> bool {
    let link = |tail: &str| name.contains(&format!("_{tail}_")) || name.ends_with(&format!("_{tail}"));
    link("SERVICE_HOST") || link("SERVICE_PORT") || link("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for setting in SETTINGS {
            assert!(!is_service_link(&setting.variable()), "{}", setting.variable());
        }
    }
}
