//! [`Reader`]: takes tables apart, and reports whatever is not as it should be.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::tree::{Entry, Node, NodeValue, Table};
use crate::error::{ConfigError, ConfigErrors, closest};
use crate::options::{parse_duration, without_unit};
use crate::source::{SourceFile, SourceText};

/// Reads values of one file. Every method reports an error and returns `None` for it, and the caller
/// goes on, to find the others too.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Arc<SourceFile>,
    pub(super) errors: ConfigErrors,
}

impl Reader<'_> {
    pub(super) fn error(&self, place: &Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(self.file, place.clone(), message)
    }

    /// A text that stands at `place` as it is.
    pub(super) fn source(&self, text: &str, place: &Range<usize>) -> SourceText {
        SourceText::from_file(text, self.file.clone(), vec![(text.len(), place.clone())])
    }

    /// Reports that `name` takes something else.
    pub(super) fn wrong_type(&mut self, name: &str, takes: &str, node: &Node) {
        let found = node.value.kind();
        let error = self.error(&node.place, format!("`{name}` takes {takes}, found {found}"));
        self.errors.push(error);
    }

    /// The entries of a table all of whose keys must be among `known`.
    pub(super) fn table<'n>(&mut self, name: &str, node: &'n Node, known: &[&str]) -> Option<&'n Table> {
        let NodeValue::Table(table) = &node.value else {
            self.wrong_type(name, &format!("a table with {}", list(known)), node);
            return None;
        };
        for entry in table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
            let error = self.error(&entry.place, format!("unknown key `{}` in `{name}`", entry.name));
            let error = error.suggest(&entry.name, known.iter().copied());
            self.errors.push(error.help(format!("`{name}` takes {}", list(known))));
        }
        Some(table)
    }

    /// What `read` makes of what stands at `place`. Whatever is left out has an error: where `read` gives no reason,
    /// that is an error itself, so that nothing that is written is dropped in silence.
    pub(super) fn or_error<T>(
        &mut self,
        name: &str,
        place: &Range<usize>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let before = self.errors.iter().len();
        let found = read(self);
        if found.is_none() && self.errors.iter().skip(before).all(ConfigError::is_warning) {
            let error = self.error(place, format!("`{name}` is not understood"));
            self.errors.push(error);
        }
        found
    }

    /// An entry that must be there. Where it is missing, the caret is at `place`, unless a misspelt one was reported
    /// as an unknown key.
    pub(super) fn required<'t>(
        &mut self,
        table: &'t Table,
        (key, known): (&str, &[&str]),
        name: &str,
        place: &Range<usize>,
    ) -> Option<&'t Entry> {
        let entry = table.get(key);
        let unknown = || table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str()));
        if entry.is_none() && !unknown().any(|entry| closest(&entry.name, [key]).is_some()) {
            let error = self.error(place, format!("`{name}` needs the key `{key}`"));
            self.errors.push(error);
        }
        entry
    }

    /// The `uri` of a table whose other keys are options: a misspelt one is an unknown key nowhere else.
    pub(super) fn required_uri<'t>(
        &mut self,
        table: &'t Table,
        name: &str,
        place: &Range<usize>,
    ) -> Option<&'t Entry> {
        let entry = table.get("uri");
        if entry.is_none() {
            let misspelt =
                |entry: &&Entry| entry.name == "endpoint" || closest(&entry.name, ["uri"]).is_some();
            let misspelt = table.entries.iter().find(misspelt);
            let place = misspelt.map_or(place, |entry| &entry.place);
            let error = self.error(place, format!("`{name}` needs the key `uri`"));
            self.errors.push(match misspelt {
                Some(_) => error.label("did you mean `uri`?"),
                None => error,
            });
        }
        entry
    }

    pub(super) fn text(&mut self, name: &str, node: &Node) -> Option<SourceText> {
        match &node.value {
            NodeValue::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_type(name, "text", node);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &str, node: &Node) -> Option<bool> {
        match &node.value {
            NodeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong_type(name, "`true` or `false`", node);
                None
            }
        }
    }

    /// A whole number in the range of the type that is wanted.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &str, takes: &str, node: &Node) -> Option<T> {
        match &node.value {
            NodeValue::Integer(number) => match T::try_from(*number) {
                Ok(number) => Some(number),
                Err(_) => {
                    let error = self.error(&node.place, format!("`{name}` takes {takes}"));
                    self.errors.push(error);
                    None
                }
            },
            _ => {
                self.wrong_type(name, takes, node);
                None
            }
        }
    }

    /// A duration as text, or bare milliseconds.
    pub(super) fn duration(&mut self, name: &str, node: &Node) -> Option<Duration> {
        let written = match &node.value {
            NodeValue::Text(text) => text.as_str().to_owned(),
            NodeValue::Integer(number) => number.to_string(),
            _ => {
                self.wrong_type(name, "a duration like `1s` or bare milliseconds", node);
                return None;
            }
        };
        let found = |message| self.error(&node.place, format!("`{name}`: {message}"));
        if let Some(warning) = without_unit(&written, found) {
            self.errors.push(warning);
        }
        parse_duration(&written)
            .map_err(|expected| {
                let error = self.error(&node.place, format!("`{name}` takes {expected}"));
                self.errors.push(error);
            })
            .ok()
    }

    pub(super) fn array<'n>(&mut self, name: &str, takes: &str, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            NodeValue::Array(nodes) => Some(nodes),
            _ => {
                self.wrong_type(name, takes, node);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, name: &str, takes: &str, node: &Node) -> Option<Vec<SourceText>> {
        let nodes = self.array(name, takes, node)?;
        nodes.iter().map(|node| self.text(name, node)).collect()
    }
}

/// Keys for people: `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    match quoted.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => quoted.concat(),
    }
}
