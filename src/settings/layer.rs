//! [`Layers`]: values that were set, where they were set, and what results.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use config::{Config, Map, Source, Value};
use router_core::error::{ConfigError, ConfigErrors};
use router_core::options::OptionKind;
use router_core::source::SourceFile;

use super::list::SETTINGS;
use super::{SettingDescription, Settings};

/// Checked values, lowest layer first.
#[derive(Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    /// Where each setting was set last.
    places: HashMap<String, Place>,
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
        let blank = matches!(setting.kind, OptionKind::Text) && (text.is_empty() || text.trim() != text);
        let checked = match blank {
            true => Err("text that is not empty and has no white space at its ends".to_owned()),
            false => setting.kind.check(text),
        };
        match checked {
            Ok(value) => {
                if let Some(layer) = self.layers.last_mut() {
                    layer.0.insert(path.clone(), Value::new(Some(&place.file.name), value));
                }
                self.places.insert(path, place);
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

    /// A mistake where the setting was set last.
    pub(super) fn error(&self, path: &str, message: String) -> ConfigError {
        match self.places.get(path) {
            Some(place) => place.error(message),
            None => ConfigError::new(message),
        }
    }
}

impl Place {
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(&self.file, self.range.clone(), message)
    }
}
