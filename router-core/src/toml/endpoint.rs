//! Endpoints: a URI, or a table with a URI and options beside it.

use super::reader::Reader;
use super::tree::{Entry, Node, NodeValue, Table};
use crate::definition::EndpointDefinition;
use crate::source::SourceText;

/// What stands where an endpoint is wanted.
pub(super) const TAKES: &str = "a URI, or a table with `uri` and options";

impl Reader<'_> {
    pub(super) fn endpoint(&mut self, name: &str, node: &Node) -> Option<EndpointDefinition> {
        self.or_error(name, &node.place, |reader| match &node.value {
            NodeValue::Text(uri) => Some(uri.clone().into()),
            NodeValue::Table(table) => {
                let uri = reader.uri(name, table, node);
                let options = reader.options_beside(name, table, &["uri"]);
                Some(EndpointDefinition { uri: uri?, options: options? })
            }
            _ => {
                reader.wrong_type(name, TAKES, node);
                None
            }
        })
    }

    fn uri(&mut self, name: &str, table: &Table, node: &Node) -> Option<SourceText> {
        let entry = self.required_uri(table, name, &node.place)?;
        self.text("uri", &entry.node)
    }

    /// All entries of a table but those that are no options.
    pub(super) fn options_beside(
        &mut self,
        name: &str,
        table: &Table,
        others: &[&str],
    ) -> Option<Vec<(SourceText, SourceText)>> {
        let entries = table.entries.iter().filter(|entry| !others.contains(&entry.name.as_str()));
        let options = entries
            .map(|entry| Some((self.source(&entry.name, &entry.place), self.option_value(name, entry)?)));
        options.collect::<Vec<_>>().into_iter().collect()
    }

    /// The text of an option, which may be written as a number or a flag.
    fn option_value(&mut self, name: &str, Entry { name: key, node, .. }: &Entry) -> Option<SourceText> {
        let text = match &node.value {
            NodeValue::Text(text) => return Some(text.clone()),
            NodeValue::Integer(number) => number.to_string(),
            NodeValue::Number(number) => number.to_string(),
            NodeValue::Boolean(flag) => flag.to_string(),
            NodeValue::DateTime(_) | NodeValue::Array(_) | NodeValue::Table(_) => {
                let known = if name == "to_dynamic" { "" } else { ", and `allow` is one of `to_dynamic`" };
                let takes = match key.as_str() {
                    "allow" => format!("text, a number or a boolean{known}"),
                    _ => "text, a number or a boolean".to_owned(),
                };
                self.wrong_type(key, &takes, node);
                return None;
            }
        };
        // A piece as long as its place would be taken for a copy of it, which it is then.
        Some(self.source(&text, &node.place))
    }
}
