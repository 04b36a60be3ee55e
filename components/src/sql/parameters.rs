//! [`Parameters`]: where the values of named parameters come from.

use std::sync::Arc;

use router_core::cluster::Term;
use router_core::error::BoxError;
use router_core::exchange::{Body, Message};
use router_core::value::Value;

use super::statement::Statement;

/// What parameters can be filled from.
pub(super) struct Parameters<'a> {
    /// Nobody else can say what `:term` and `:lock` are, or a fence would be worth nothing.
    pub(super) term: Option<&'a Term>,
    /// A message, or the row of the consumer.
    pub(super) source: Source<'a>,
}

/// Where all other values come from.
pub(super) enum Source<'a> {
    Nothing,
    Message(&'a Message),
    Row(&'a serde_json::Value),
}

impl Parameters<'_> {
    /// The values of the parameters of `statement`, in their order.
    pub(super) fn of(&self, statement: &Statement) -> Result<Vec<Value>, BoxError> {
        let mut parsed = None;
        statement.parameters.iter().map(|name| self.value(name, &mut parsed)).collect()
    }

    fn value(&self, name: &str, parsed: &mut Option<Arc<serde_json::Value>>) -> Result<Value, BoxError> {
        match (name, self.term) {
            ("term", Some(term)) => return Ok(Value::from(term.number())),
            ("lock", Some(term)) => return Ok(Value::from(term.lock().to_string())),
            ("term" | "lock", None) => {
                return Err(format!("there is no `:{name}` outside of routes with `master:`").into());
            }
            _ => {}
        }
        let found = match &self.source {
            Source::Nothing => None,
            Source::Row(row) => row.get(name).map(Value::from),
            Source::Message(message) if name == "body" => Some(message.body.to_value()),
            Source::Message(message) => {
                // Text that is no JSON has no fields.
                let json = parsed.get_or_insert_with(|| fields(&message.body));
                let field = name.split('.').try_fold(&**json, |json, part| json.get(part));
                field.map(Value::from).or_else(|| message.headers.get(name).cloned())
            }
        };
        found.ok_or_else(|| match self.source {
            Source::Nothing => {
                format!("the statement of a consumer knows `:term` and `:lock`, but not `:{name}`").into()
            }
            Source::Row(_) => format!("no column has the name of the parameter `:{name}`").into(),
            Source::Message(_) => {
                format!("neither a field of the body nor a header has the name of the parameter `:{name}`")
                    .into()
            }
        })
    }
}

fn fields(body: &Body) -> Arc<serde_json::Value> {
    body.to_json().unwrap_or_default()
}
