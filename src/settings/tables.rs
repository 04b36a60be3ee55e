//! The layer of the files: every table but `[[route]]`.

use std::collections::HashMap;
use std::sync::Arc;

use router_core::error::ConfigError;
use router_core::options::OptionKind;
use router_core::source::SourceFile;
use router_core::toml::{Entry, NodeValue, RouteFile, Table};

use super::SettingDescription;
use super::layer::{Layers, Place};

impl Layers {
    /// Adds the tables of all files as one layer. Two files may set a key to the same value, as files do that can
    /// each be run alone; two values are an error: which one is meant must not depend on the order of their names.
    pub(super) fn add_files(&mut self, files: &[RouteFile]) {
        self.begin();
        let mut seen = HashMap::new();
        for RouteFile { file, tables, .. } in files {
            for entry in &tables.entries {
                self.add_table(file, entry, &mut seen);
            }
        }
    }

    fn add_table(&mut self, file: &Arc<SourceFile>, entry: &Entry, seen: &mut HashMap<String, Set>) {
        let place = Place { file: Arc::clone(file), range: entry.place.clone() };
        let list = Arc::clone(&self.list);
        let mut known = list.iter().map(|setting| setting.table.as_str()).collect::<Vec<_>>();
        known.dedup();
        if !known.contains(&entry.name.as_str()) {
            let error = place.error(format!("unknown table `{}`", entry.name));
            let error = error.suggest(&entry.name, known.iter().copied().chain(["route"]));
            let key = list.iter().find(|setting| setting.key() == entry.name);
            let mut services = self.services.iter().chain(&self.missing);
            let service = services.find(|service| **service == entry.name);
            self.errors.push(error.help(match (entry.name.as_str(), service, key) {
                ("from" | "steps" | "error_handler", ..) => "write `[[route]]` in a line above it".to_owned(),
                (_, Some(service), _) => format!("it is a cluster service: write `[cluster.{service}]`"),
                (_, None, Some(setting)) => {
                    format!("it is a key of `[{}]`: write that in a line above it", setting.table)
                }
                (_, None, None) => format!("a file has tables `[[route]]`, and {}", bracketed(&known)),
            }));
            return;
        }
        let NodeValue::Table(table) = &entry.node.value else {
            let found = entry.node.value.kind();
            let error = place.error(format!("`{}` is a table, found {found}", entry.name));
            self.errors.push(error.help(format!("write `[{}]`", entry.name)));
            return;
        };
        self.add_entries(file, &entry.name, table, seen);
    }

    fn add_entries(
        &mut self,
        file: &Arc<SourceFile>,
        name: &str,
        table: &Table,
        seen: &mut HashMap<String, Set>,
    ) {
        let list = Arc::clone(&self.list);
        for entry in &table.entries {
            let place = Place { file: Arc::clone(file), range: entry.place.clone() };
            let found = list.iter().find(|setting| setting.table == name && setting.key() == entry.name);
            let Some(setting) = found else {
                if name != "cluster" || !self.add_service(file, entry, seen) {
                    self.errors.push(self.unknown_key(name, &entry.name, &place));
                }
                continue;
            };
            let Some(text) = self.text(file, setting, entry) else { continue };
            match seen.get(&setting.path()) {
                Some(first) if setting.option.kind.is_same(&first.text, &text) => {}
                Some(first) => {
                    let error = place.error(format!("setting `{}` is set to two values", setting.path()));
                    self.errors.push(error.help(format!("the first one is at {}", first.position)));
                }
                None => {
                    let position = file.position(entry.place.start);
                    self.set(setting, &text, Place { range: entry.node.place.clone(), ..place });
                    seen.insert(setting.path(), Set { text, position });
                }
            }
        }
    }

    /// Adds the table of a cluster service; `false`: there is no service of that name.
    fn add_service(
        &mut self,
        file: &Arc<SourceFile>,
        entry: &Entry,
        seen: &mut HashMap<String, Set>,
    ) -> bool {
        let place = Place { file: Arc::clone(file), range: entry.place.clone() };
        if let Some(missing) = self.missing(&entry.name) {
            self.set_unchecked(missing, place);
            return true;
        }
        if !self.services.contains(&entry.name.as_str()) {
            return false;
        }
        let name = format!("cluster.{}", entry.name);
        match &entry.node.value {
            NodeValue::Table(table) => self.add_entries(file, &name, table, seen),
            other => {
                let error = place.error(format!("`{name}` is a table, found {}", other.kind()));
                self.errors.push(error.help(format!("write `[{name}]`")));
            }
        }
        true
    }

    fn unknown_key(&self, table: &str, key: &str, place: &Place) -> ConfigError {
        let error = place.error(format!("unknown key `{key}` in `[{table}]`"));
        let settings = self.list.iter().filter(|setting| setting.table == table);
        let mut keys = settings.map(SettingDescription::key).collect::<Vec<_>>();
        if (table, key) == ("log", "level") {
            return error.help("the environment says it: `RUST_LOG=debug`");
        }
        if table == "cluster" {
            if let Some(setting) = self.moved(key) {
                return error.help(format!(
                    "it is a setting of a cluster service: write it in `[{}]`",
                    setting.table
                ));
            }
            keys.extend(&self.services);
            let services = self.services.iter().chain(&self.missing);
            let services = services.map(|name| format!("`[cluster.{name}]`")).collect::<Vec<_>>().join(", ");
            let help =
                format!("`[cluster]` takes service, member; what is set for a service is in {services}");
            return error.suggest(key, keys).help(help);
        }
        let help = match keys[..] {
            [] => format!("`[{table}]` takes nothing"),
            _ => format!("`[{table}]` takes {}", keys.join(", ")),
        };
        error.suggest(key, keys).help(help)
    }

    /// The value as text. Text can stand for every kind of value, because only text can hold `${env:NAME}`.
    fn text(
        &mut self,
        file: &Arc<SourceFile>,
        setting: &SettingDescription,
        entry: &Entry,
    ) -> Option<String> {
        Some(match (&entry.node.value, setting.option.kind) {
            (NodeValue::Text(text), _) => text.to_string(),
            (
                NodeValue::Integer(number),
                OptionKind::Integer | OptionKind::PositiveInteger | OptionKind::Duration,
            ) => number.to_string(),
            (NodeValue::Boolean(flag), OptionKind::Boolean | OptionKind::Address) => flag.to_string(),
            (other, kind) => {
                let message =
                    format!("setting `{}` takes {}, found {}", setting.path(), takes(kind), other.kind());
                let place = Place { file: Arc::clone(file), range: entry.node.place.clone() };
                self.errors.push(place.error(message));
                return None;
            }
        })
    }
}

/// What a file has set a setting to.
struct Set {
    text: String,
    position: String,
}

fn takes(kind: OptionKind) -> String {
    match kind {
        OptionKind::Duration => "a duration like `1s` or bare milliseconds".into(),
        OptionKind::Integer => "a whole number, not negative".into(),
        OptionKind::PositiveInteger => "a whole number of at least 1".into(),
        OptionKind::Boolean => "`true` or `false`".into(),
        OptionKind::Text
        | OptionKind::Template(_)
        | OptionKind::Query
        | OptionKind::StateFile
        | OptionKind::Url => "text".into(),
        OptionKind::Choice(words) => format!("one of {}", words.join(", ")),
        OptionKind::Secret => "`env:NAME` or `file:/path`".into(),
        OptionKind::Address => "an IP address and a port in a text, or `off`".into(),
    }
}

fn bracketed(tables: &[&str]) -> String {
    tables.iter().map(|table| format!("`[{table}]`")).collect::<Vec<_>>().join(", ")
}
