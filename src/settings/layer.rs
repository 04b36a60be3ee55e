//! [`Layers`]: values that were set, where they were set, and what results.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use config::{Config, Map, Source, Value};
use router_core::cluster::backend::{BackendDescription, BackendSettings, OptionKind, SettingPlace};
use router_core::component::Registry;
use router_core::error::{ConfigError, ConfigErrors, Severity};
use router_core::options::without_unit;
use router_core::source::SourceFile;

use super::list::settings;
use super::{SettingDescription, Settings};
use crate::backends::{AUTO, is_auto};

/// The name of a member is a file name.
const LONGEST_MEMBER: usize = 255;

/// Checked values, lowest layer first.
pub(super) struct Layers {
    /// Everything that can be set.
    pub(super) list: Arc<[SettingDescription]>,
    /// The cluster services that are built into this program.
    pub(super) services: Vec<&'static str>,
    /// The cluster services that are not built into this program. What is set for them cannot be checked.
    pub(super) missing: Vec<&'static str>,
    layers: Vec<Layer>,
    /// Where each setting was set last, and in which layer.
    places: HashMap<String, (Place, usize)>,
    /// Where a service that is missing was set anything last, and in which layer.
    unchecked: BTreeMap<&'static str, (Place, usize)>,
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
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            list: settings(registry).into(),
            services: registry.backends().iter().map(|backend| backend.description().name).collect(),
            missing: registry.missing_backends().map(|(name, _)| name).collect(),
            layers: Vec::new(),
            places: HashMap::new(),
            unchecked: BTreeMap::new(),
            errors: ConfigErrors::default(),
        }
    }

    pub(super) fn begin(&mut self) {
        self.layers.push(Layer::default());
    }

    /// Sets a value in the layer that was begun last, if it is one that the setting takes.
    pub(super) fn set(&mut self, setting: &SettingDescription, text: &str, place: Place) {
        let path = setting.path();
        // Names and paths end up in logs, file names and records.
        let blank = text.is_empty() || text.trim() != text || text.contains(char::is_control);
        let is_text = matches!(setting.option.kind, OptionKind::Text);
        let checked = if is_text && text.contains("${") {
            Err("text without placeholders: only `${env:NAME}` in a file is replaced".to_owned())
        } else if is_text && blank && setting.words().is_empty() {
            Err("text that is not empty, with no white space at its ends and no control characters"
                .to_owned())
        } else if setting.path() == "cluster.member" && text.len() > LONGEST_MEMBER {
            Err(format!("a name of at most {LONGEST_MEMBER} bytes"))
        } else {
            setting.check(text)
        };
        match checked {
            Ok(value) => {
                let found = |message| place.error(format!("setting `{path}`: {message}"));
                if let OptionKind::Duration = setting.option.kind
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
                self.errors.push(match setting.words() {
                    [] => error,
                    words => error.suggest(text, words.iter().copied()),
                });
            }
        }
    }

    /// Notes that something is set for a service that is not built into this program.
    pub(super) fn set_unchecked(&mut self, service: &'static str, place: Place) {
        self.unchecked.insert(service, (place, self.layers.len()));
    }

    /// The cluster service of that name that is not built into this program.
    pub(super) fn missing(&self, name: &str) -> Option<&'static str> {
        self.missing.iter().copied().find(|missing| missing.eq_ignore_ascii_case(name))
    }

    /// The setting of a cluster service with this key. Before services had tables of their own, it stood in `[cluster]`.
    pub(super) fn moved(&self, key: &str) -> Option<&SettingDescription> {
        self.list.iter().find(|setting| setting.service.is_some() && setting.key() == key)
    }

    /// The settings that result.
    pub(super) fn merge(&self) -> Settings {
        let common = self.list.iter().filter(|setting| setting.service.is_none());
        let defaults = common.filter_map(|setting| {
            setting.option.default.map(|value| (setting.path(), Value::new(None, value)))
        });
        let mut builder = Config::builder().add_source(Layer(defaults.collect()));
        for layer in &self.layers {
            builder = builder.add_source(layer.clone());
        }
        let settings = builder.build().and_then(Config::try_deserialize);
        settings.unwrap_or_else(|error| unreachable!("every value was checked: {error}"))
    }

    /// What is set for a backend.
    pub(super) fn backend(
        &self,
        settings: &Settings,
        description: &'static BackendDescription,
    ) -> BackendSettings {
        let process = settings.member();
        let mut backend = BackendSettings::new(description, process);
        if let Some(member) = &settings.cluster.member {
            backend = backend.with_member(member.as_str());
        }
        let values = settings.cluster.services.get(description.name);
        for (name, value) in
            description.options.iter().filter_map(|option| Some((option.name, values?.get(option.name)?)))
        {
            let place = self.places.get(&format!("cluster.{}.{name}", description.name));
            let Some((Place { file, range }, layer)) = place.cloned() else { continue };
            let set = backend.set(name, value, SettingPlace { file, range, layer });
            set.unwrap_or_else(|takes| unreachable!("every value was checked: it takes {takes}"));
        }
        backend
    }

    /// What was set although nothing reads it. The settings of a layer below that which names the service are those of
    /// the service that it overrides.
    pub(super) fn ignored(&self, service: Option<&str>) -> ConfigErrors {
        let mut errors = ConfigErrors::default();
        let named = self.places.get("cluster.service").map_or(0, |(_, layer)| *layer);
        let set = self.list.iter().filter_map(|setting| {
            Some((
                setting.service?,
                format!("setting `{}`", setting.path()),
                self.places.get(&setting.path())?,
            ))
        });
        let unchecked =
            self.unchecked.iter().map(|(name, set)| (*name, format!("the table `[cluster.{name}]`"), set));
        for (of, what, (place, layer)) in set.chain(unchecked) {
            if *layer >= named
                && let Some(reason) = reason_against(of, service)
            {
                let help = format!(
                    "remove it, or name the service that it is for: `[cluster]` with `service = \"{of}\"`; `auto` takes \
                     the settings of all services that it can stand for"
                );
                errors.push(place.error(format!("{what} has no effect: {reason}")).help(help));
            }
        }
        for (name, (place, layer)) in self.unchecked.iter().filter(|_| service == Some(AUTO)) {
            if *layer >= named {
                let message = format!(
                    "the settings of the cluster service `{name}` are not checked: it is not built into this program"
                );
                errors.push(place.error(message).severity(Severity::Warning));
            }
        }
        errors
    }

    pub(super) fn is_set(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// An error where the setting was set last.
    pub(super) fn error(&self, path: &str, message: String) -> ConfigError {
        match self.places.get(path) {
            Some((place, _)) => place.error(message),
            None => ConfigError::new(message),
        }
    }
}

/// Why a setting of the service `of` has no effect with this service; `None`: it has one.
fn reason_against(of: &str, service: Option<&str>) -> Option<String> {
    match service {
        None => Some("no cluster service is set".into()),
        // One file for a laptop and for pods: `auto` has a use for the settings of all that it can stand for.
        Some(AUTO) if is_auto(of) => None,
        Some(AUTO) => Some(format!("`auto` never stands for `{of}`")),
        Some(service) if service == of => None,
        Some(service) => Some(format!("the cluster service is `{service}`")),
    }
}

impl Place {
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(&self.file, self.range.clone(), message)
    }
}
