//! [`Node`]: a TOML value with its place, its strings mapped to the source and its variables replaced.

use std::ops::Range;
use std::sync::Arc;

use ::toml::Spanned;
use ::toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::string_spans::map_string;
use super::variables::{Lookup, replace};
use crate::error::{ConfigError, ConfigErrors};
use crate::source::{SourceFile, SourceText};
use crate::value::{Number, NumberError};

/// A value of a TOML file, and the bytes of the file where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The bytes of the file.
    pub place: Range<usize>,
    /// The value there.
    pub value: NodeValue,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeValue {
    /// Text, in which environment variables are replaced.
    Text(SourceText),
    /// A whole number that 64 bits hold.
    Integer(i64),
    /// Any other number, with its digits.
    Number(Number),
    /// `true` or `false`.
    Boolean(bool),
    /// A date, a time or both, as written.
    DateTime(String),
    /// `[...]`.
    Array(Vec<Node>),
    /// `{...}` or `[table]`.
    Table(Table),
}

impl NodeValue {
    /// What this is, for errors: `an integer`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "an integer",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::DateTime(_) => "a date or time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// The entries of a table, in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The entries; no two have the same name.
    pub entries: Vec<Entry>,
}

/// One `name = value`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// The bytes of the file where the key stands.
    pub place: Range<usize>,
    /// What it holds.
    pub node: Node,
}

impl Table {
    /// The entry of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Converts parsed TOML into nodes and collects the errors in its values.
pub(super) struct Converter<'a> {
    pub(super) file: &'a Arc<SourceFile>,
    pub(super) lookup: Lookup<'a>,
    pub(super) errors: ConfigErrors,
}

impl Converter<'_> {
    pub(super) fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let node = self.node(value);
            entries.push(Entry { name: key.get_ref().to_string(), place: key.span(), node });
        }
        // The parser sorts them by name.
        entries.sort_by_key(|entry| entry.place.start);
        Table { entries }
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>) -> Node {
        let place = value.span();
        let value = match value.get_ref() {
            DeValue::String(text) => NodeValue::Text(self.text(text, &place)),
            DeValue::Integer(number) => self.integer(number, &place),
            DeValue::Float(number) => NodeValue::Number(self.float(number, &place)),
            DeValue::Boolean(flag) => NodeValue::Boolean(*flag),
            DeValue::Datetime(time) => NodeValue::DateTime(time.to_string()),
            DeValue::Array(nodes) => NodeValue::Array(nodes.iter().map(|node| self.node(node)).collect()),
            DeValue::Table(table) => NodeValue::Table(self.table(table)),
        };
        Node { place, value }
    }

    fn text(&mut self, value: &str, place: &Range<usize>) -> SourceText {
        let pieces = map_string(&self.file.text, place.clone(), value);
        let (text, replaced, errors) = replace(value, pieces.clone(), self.lookup);
        let written = SourceText::from_file(value, Arc::clone(self.file), pieces);
        for error in errors {
            let found = ConfigError::at(&written, error.range, error.message);
            self.errors.push(match error.help {
                Some(help) => found.help(help),
                None => found,
            });
        }
        SourceText::from_file(text, Arc::clone(self.file), replaced)
    }

    fn integer(&mut self, number: &DeInteger<'_>, place: &Range<usize>) -> NodeValue {
        let digits = number.as_str();
        match (i64::from_str_radix(digits, number.radix()), digits.trim_start_matches('+').parse()) {
            (Ok(number), _) => NodeValue::Integer(number),
            (Err(_), Ok(large)) if number.radix() == 10 => NodeValue::Number(large),
            _ => {
                self.error(place, "this integer does not fit into 64 bits");
                NodeValue::Integer(0)
            }
        }
    }

    fn float(&mut self, number: &DeFloat<'_>, place: &Range<usize>) -> Number {
        number.as_str().trim_start_matches('+').parse().unwrap_or_else(|error| {
            let message = match error {
                NumberError::Form => "`inf` and `nan` are no numbers here".to_owned(),
                error @ NumberError::Exponent => error.to_string(),
            };
            self.error(place, &message);
            0.into()
        })
    }

    fn error(&mut self, place: &Range<usize>, message: &str) {
        self.errors.push(ConfigError::in_file(self.file, place.clone(), message));
    }
}
