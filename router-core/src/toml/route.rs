//! `[[route]]` tables.

use super::RouteFile;
use super::reader::Reader;
use super::tree::{Entry, Node, NodeValue};
use crate::definition::{ErrorHandlerDefinition, RouteDefinition};
use crate::error::ConfigError;

const ROUTE_KEYS: &[&str] =
    &["id", "description", "auto_startup", "startup_order", "from", "error_handler", "steps"];

const ERROR_HANDLER_KEYS: &[&str] = &[
    "maximum_redeliveries",
    "redelivery_delay",
    "back_off_multiplier",
    "maximum_redelivery_delay",
    "retry_on",
    "dead_letter",
];

impl Reader<'_> {
    /// The routes under the key `route`, or under its frequent misspelling.
    pub(super) fn routes(&mut self, entry: &Entry, read: &mut RouteFile) {
        if entry.name == "routes" {
            let error = self.error(&entry.place, "unknown table `routes`").suggest("routes", ["route"]);
            self.errors.push(error.help("each route is a table `[[route]]`"));
        }
        let nodes = match &entry.node.value {
            NodeValue::Array(nodes) => nodes.as_slice(),
            NodeValue::Table(_) => {
                let error = self.error(&entry.place, format!("`{}` is one table", entry.name));
                self.errors.push(error.help("write `[[route]]`, with two brackets, also for a single route"));
                std::slice::from_ref(&entry.node)
            }
            _ => {
                self.wrong_type("route", "tables `[[route]]`", &entry.node);
                read.routes_missing = true;
                return;
            }
        };
        for node in nodes {
            match self.or_error("route", &node.place, |reader| reader.route(node)) {
                Some(route) => {
                    read.routes_missing |= route.from.is_none();
                    read.routes.push(route);
                }
                None => read.routes_missing = true,
            }
        }
    }

    fn route(&mut self, node: &Node) -> Option<RouteDefinition> {
        let table = self.table("route", node, ROUTE_KEYS)?;
        let from = self.required(table, ("from", ROUTE_KEYS), "route", &node.place);
        let from = from.and_then(|entry| self.endpoint("from", &entry.node));
        let mut route = RouteDefinition { from, ..RouteDefinition::default() };
        for Entry { name, node, .. } in &table.entries {
            match name.as_str() {
                "id" => route.id = self.text(name, node),
                "description" => route.description = self.description(node),
                "auto_startup" => route.auto_startup = self.boolean(name, node).unwrap_or(true),
                "startup_order" => {
                    route.startup_order = self.integer(name, "a whole number of 32 bits", node)
                }
                "steps" => route.steps = self.steps(name, node),
                "error_handler" => {
                    let handler = self.or_error(name, &node.place, |reader| reader.error_handler(node));
                    route.error_handler = handler.map(Box::new);
                }
                _ => {}
            }
        }
        Some(route)
    }

    fn description(&mut self, node: &Node) -> Option<String> {
        let text = self.text("description", node)?;
        if let Some(range) = text.placeholder() {
            let error = ConfigError::at(&text, range, "a placeholder is not replaced here");
            self.errors.push(error.help("a description is the same for every exchange"));
        }
        Some(text.to_string())
    }

    fn error_handler(&mut self, node: &Node) -> Option<ErrorHandlerDefinition> {
        let table = self.table("error_handler", node, ERROR_HANDLER_KEYS)?;
        let mut handler = ErrorHandlerDefinition::default();
        for Entry { name, node, .. } in &table.entries {
            match name.as_str() {
                "maximum_redeliveries" => {
                    let number = self.integer(name, "a whole number, not negative", node);
                    // With none, `retry_on` would be an error as well.
                    handler.maximum_redeliveries = number.unwrap_or(1);
                }
                "redelivery_delay" => {
                    handler.redelivery_delay = self.duration(name, node).unwrap_or_default();
                }
                "maximum_redelivery_delay" => {
                    handler.maximum_redelivery_delay = self.duration(name, node).unwrap_or_default();
                }
                "back_off_multiplier" => {
                    handler.back_off_multiplier = self.multiplier(name, node).unwrap_or(1.0);
                }
                "retry_on" => handler.retry_on = self.texts(name, "an array of kinds of errors", node),
                "dead_letter" => handler.dead_letter = self.endpoint(name, node),
                _ => {}
            }
        }
        Some(handler)
    }

    /// A factor between pauses. One below 1 would make each pause shorter than the last, which is never
    /// meant by "back off".
    fn multiplier(&mut self, name: &str, node: &Node) -> Option<f64> {
        const TAKES: &str = "a number of at least 1";
        #[expect(clippy::cast_precision_loss, reason = "no factor is that large")]
        let number = match &node.value {
            NodeValue::Integer(number) => *number as f64,
            NodeValue::Number(number) => number.to_f64_lossy(),
            _ => {
                self.wrong_type(name, TAKES, node);
                return None;
            }
        };
        if !number.is_finite() || number < 1.0 {
            let error = self.error(&node.place, format!("`{name}` takes {TAKES}"));
            self.errors.push(error);
            return None;
        }
        Some(number)
    }
}
