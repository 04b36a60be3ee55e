//! [`Layers`]: values that were set, where they were set, and what results.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use config::{Config, Map, Source, Value};
use router_core::error::{ConfigError, ConfigErrors};
use router_core::options::{OptionKind, without_unit};
use router_core::source::SourceFile;

use super::list::SETTINGS;
use super::{Resource, Service, SettingDescription, Settings, UsedBy};

/// The name of a member is a file name.
const LONGEST_MEMBER: usize = 255;

/// Checked values, lowest layer first.
#[derive(Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    /// Where each setting was set last, and in which layer.
    places: HashMap<String, (Place, usize)>,
    pub(super) errors: ConfigErrors,
}

/// The values of one layer, by path.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

/// Bytes of a file, or of something shown as one.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) file: Arc<SourceFile>,
    pub(super) range: Range<usize>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layers {
    pub(super) fn begin(&mut self) {
        self.layers.push(Layer::default());
    }

    /// Sets a value in the layer that was begun last, if it is one that the setting takes.
    pub(super) fn set(&mut self, setting: &SettingDescription, text: &str, place: Place) {
        let path = setting.path();
        // Names and paths end up in logs, file names and records.
        let blank = text.is_empty() || text.trim() != text || text.contains(char::is_control);
        let checked = match setting.kind {
            OptionKind::Text if text.contains("${") => {
                Err("text without placeholders: only `${env:NAME}` in a file is replaced".to_owned())
            }
            OptionKind::Text if blank => {
                Err("text that is not empty, with no white space at its ends and no control characters"
                    .to_owned())
            }
            OptionKind::Text if setting.key == "member" && text.len() > LONGEST_MEMBER => {
                Err(format!("a name of at most {LONGEST_MEMBER} bytes"))
            }
            kind => kind.check(text),
        };
        match checked {
            Ok(value) => {
                let found = |message| place.error(format!("setting `{path}`: {message}"));
                if let OptionKind::Duration = setting.kind
                    && let Some(warning) = without_unit(text, found)
                {
                    self.errors.push(warning);
                }
                if let Some(layer) = self.layers.last_mut() {
                    layer.0.insert(path.clone(), Value::new(Some(&place.file.name), value));
                }
                self.places.insert(path, (place, self.layers.len()));
            }
            Err(takes) => {
                let error = place.error(format!("setting `{path}` takes {takes}"));
                self.errors.push(match setting.kind {
                    OptionKind::Choice(words) => error.suggest(text, words.iter().copied()),
                    _ => error,
                });
            }
        }
    }

    /// The settings that result.
    pub(super) fn merge(&self) -> Settings {
        let defaults = SETTINGS
            .iter()
            .filter_map(|setting| setting.default.map(|value| (setting.path(), Value::new(None, value))));
        let mut builder = Config::builder().add_source(Layer(defaults.collect()));
        for layer in &self.layers {
            builder = builder.add_source(layer.clone());
        }
        let settings = builder.build().and_then(Config::try_deserialize);
        settings.unwrap_or_else(|error| unreachable!("every value was checked: {error}"))
    }

    /// What was set although nothing reads it. The settings of a layer below that which names the service are those of
    /// the service that it overrides.
    pub(super) fn ignored(&self, service: Option<Service>, resource: Resource) -> ConfigErrors {
        const HELP: &str = "remove it, or name the service that it is for; `auto` takes the settings of `file` and of \
                            `kubernetes`";
        const CONFIG_MAP: &str =
            "remove it, or keep the locks in a ConfigMap, as Camel does: `resource = \"configmap\"`";
        let mut errors = ConfigErrors::default();
        let named = self.places.get("cluster.service").map_or(0, |(_, layer)| *layer);
        for setting in SETTINGS {
            let place = self.places.get(&setting.path()).filter(|(_, layer)| *layer >= named);
            let reason = setting.used_by.reason_against(service, resource);
            if let (Some((place, _)), Some(reason)) = (place, reason) {
                let message = format!("setting `{}` has no effect: {reason}", setting.path());
                let configmap = setting.used_by == UsedBy::ConfigMap && service == Some(Service::Kubernetes);
                errors.push(place.error(message).help(if configmap { CONFIG_MAP } else { HELP }));
            }
        }
        errors
    }

    pub(super) fn is_set(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// A mistake where the setting was set last.
    pub(super) fn error(&self, path: &str, message: String) -> ConfigError {
        match self.places.get(path) {
            Some((place, _)) => place.error(message),
            None => ConfigError::new(message),
        }
    }
}

impl Place {
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(&self.file, self.range.clone(), message)
    }
}
