//! [`Parameters`]: where the values of named parameters come from.

use router_core::cluster::Term;
use router_core::error::BoxError;
use router_core::exchange::Message;
use router_core::value::{Json, Value};

use super::statement::{Parameter, Place, Statement};

/// What parameters can be filled from.
pub(super) struct Parameters<'a> {
    /// The only source of `:term` and `:lock`: a fence that a message could set would be worth nothing.
    pub(super) term: Option<&'a Term>,
    /// A message, or the row of the consumer.
    pub(super) source: Source<'a>,
}

/// Where all other values come from.
pub(super) enum Source<'a> {
    Nothing,
    Message(&'a Message),
    Row(&'a Json),
}

/// Whether the term gives this parameter, and not a message, a row or a body.
pub(super) fn is_of_term(name: &str) -> bool {
    matches!(name, "term" | "lock")
}

/// Why a statement that a consumer polls with cannot have this parameter.
pub(super) fn unknown_in_source(name: &str) -> String {
    format!("the statement of `from` knows `:term` and `:lock`, but not `:{name}`")
}

impl Parameters<'_> {
    /// The values of the parameters of `statement`, in their order.
    pub(super) fn of(&self, statement: &Statement) -> Result<Vec<Value>, BoxError> {
        let mut parsed = None;
        let value = |parameter| {
            let value = self.value(parameter, &mut parsed)?;
            check_nulls(parameter, &value)?;
            Ok(value)
        };
        statement.parameters.iter().map(value).collect()
    }

    fn value(&self, parameter: &Parameter, parsed: &mut Option<Json>) -> Result<Value, BoxError> {
        let name = &*parameter.name;
        match (name, self.term) {
            ("term", Some(term)) => return Ok(Value::from(term.number())),
            ("lock", Some(term)) => return Ok(Value::from(term.lock().to_string())),
            (name, None) if is_of_term(name) => {
                return Err(format!("there is no `:{name}` outside of routes with `master:`").into());
            }
            _ => {}
        }
        let found = match &self.source {
            Source::Nothing => None,
            Source::Row(row) => field(row, name).map(Value::from),
            Source::Message(message) if name == "body" => Some(match message.body.to_value()? {
                // As the fields of a text are those of the JSON in it.
                text @ (Value::Text(_) | Value::Bytes(_)) if parameter.place == Place::InList => {
                    let json = fields(message, parsed)?;
                    if json.as_list().is_some() { Value::from(json) } else { text }
                }
                Value::Json(json) => json.into(),
                other => other,
            }),
            Source::Message(message) => field(fields(message, parsed)?, name)
                .map(Value::from)
                .or_else(|| message.headers.get(name).cloned()),
        };
        found.ok_or_else(|| match self.source {
            Source::Nothing => unknown_in_source(name).into(),
            Source::Row(_) => format!("no column has the name of the parameter `:{name}`").into(),
            Source::Message(_) => {
                format!("neither a field of the body nor a header has the name of the parameter `:{name}`")
                    .into()
            }
        })
    }
}

/// What has the fields of a body. Text that is no JSON has none; JSON that is refused is an error.
fn fields<'a>(message: &Message, parsed: &'a mut Option<Json>) -> Result<&'a Json, BoxError> {
    Ok(match parsed {
        Some(json) => json,
        None => parsed.insert(match message.body.to_json() {
            Err(refused) if refused.is_refused() => return Err(refused.into()),
            json => json.unwrap_or_default(),
        }),
    })
}

/// The field of this name, or of a field: `address.city`.
fn field<'a>(json: &'a Json, name: &str) -> Option<&'a Json> {
    json.get(name).or_else(|| name.split('.').try_fold(json, |json, part| json.get(part)))
}

/// The elements of a value that is a list.
pub(super) fn list(value: &Value) -> Option<&[Json]> {
    match value {
        Value::Json(json) => json.as_list(),
        _ => None,
    }
}

/// With a null among them, `not in` holds for no row, whatever else there is.
fn check_nulls(parameter: &Parameter, value: &Value) -> Result<(), BoxError> {
    let Parameter { name, place, refuses_null, .. } = parameter;
    let null = value.is_null() || list(value).is_some_and(|list| list.iter().any(Json::is_null));
    if null && *refuses_null {
        return Err(format!(
            "`:{name}` is or contains null, with which `not in`, `all` and `(x in (...)) = 0` hold for no row"
        )
        .into());
    }
    match (place, list(value)) {
        (Place::AmongOthers, Some(_)) => {
            Err(format!("`:{name}` is a list, which stands alone: `in (:{name})`").into())
        }
        (Place::InList, Some(list))
            if list.iter().any(|item| matches!(item, Json::List(_) | Json::Object(_))) =>
        {
            Err(format!("`:{name}` contains a list or an object, which equals no column").into())
        }
        (Place::InList | Place::AmongOthers, None) if matches!(value, Value::Json(Json::Object(_))) => {
            Err(format!("`:{name}` is an object, which equals no column").into())
        }
        _ => Ok(()),
    }
}
