//! [`Expression`] and [`Predicate`]: values and conditions in the style of Camel's Simple language.
//!
//! An expression is text with placeholders: `tick ${header.timer.counter} on ${node}`. One that is a
//! single placeholder keeps the type of its value. A predicate compares operands:
//! `${header.kind} == 'a' && !(${body} contains 'b')`. `\${` is a literal `${`, and `\\${...}` a backslash
//! before a value; elsewhere a backslash is a backslash.
//!
//! | placeholder | value |
//! |---|---|
//! | `${body}` | the body |
//! | `${body.items.0.name}` | a field of a JSON body, also where it is still text; null where it is not there, an error where the body is no JSON |
//! | `${header.NAME}`, `${property.NAME}` | a header, a property; nothing where it is not set |
//! | `${exchange_id}`, `${route_id}` | which exchange, which route |
//! | `${lock}` | the lock that `master:` leads; nothing outside of it |
//! | `${term}` | the number of the term under which the exchange runs; nothing outside of `master:` |
//! | `${node}` | the name of this member |
//! | `${exception.message}`, `.kind`, `.route`, `.step`, `.code`, `.retry_after` | the error, while it is handled: in what the dead letter endpoint does; nothing elsewhere |
//!
//! Why not a template crate: their expression languages read `${header.Content-Type}` as a subtraction,
//! know no `contains` or `&&` outside of a placeholder, and allocate on every evaluation.

mod parse;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};

use crate::body::Needs;
use crate::error::{BoxError, ConfigErrors};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::outcome::Exception;
use crate::value::{NoOrder, Value};
use crate::written::{ExpressionDefinition, PredicateDefinition};

pub(crate) use parse::{Piece, pieces, variable};

/// What gives a value for an exchange.
pub(crate) enum Expression {
    Constant(Value),
    Variable(Variable),
    Template(Vec<Part>),
    Function(Arc<dyn Fn(&Exchange) -> Value + Send + Sync>),
}

/// A piece of a template.
pub(crate) enum Part {
    Text(SmolStr),
    /// With the placeholder as it is written, for errors.
    Variable(Variable, SmolStr),
}

/// A placeholder.
pub(crate) enum Variable {
    Body,
    BodyField(Vec<SmolStr>),
    Header(SmolStr),
    Property(SmolStr),
    ExchangeId,
    RouteId,
    Lock,
    Term,
    Node,
    Exception(ExceptionField),
}

/// What can be read of the error that is handled.
#[derive(Clone, Copy)]
pub(crate) enum ExceptionField {
    Message,
    Kind,
    Route,
    Step,
    Code,
    RetryAfter,
}

/// What holds for an exchange or not.
pub(crate) enum Predicate {
    Operand(Expression),
    Compare(Comparison),
    Not(Box<Predicate>),
    And(Box<Predicate>, Box<Predicate>),
    Or(Box<Predicate>, Box<Predicate>),
    Function(Arc<dyn Fn(&Exchange) -> bool + Send + Sync>),
}

/// Two operands, and an operator between them.
pub(crate) struct Comparison {
    left: Expression,
    operator: Operator,
    right: Expression,
    /// As it was written, for errors.
    written: SmolStr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    In,
}

/// What placeholders see besides the exchange.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) route_id: &'a SmolStr,
    pub(crate) node: &'a SmolStr,
    /// How many bytes a text has at most that is put together.
    pub(crate) memory_limit: u64,
}

/// A text that is put together, up to a limit: in a `loop`, one that doubles itself would take all memory.
struct Composed {
    text: String,
    limit: u64,
}

impl fmt::Write for Composed {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if (self.text.len() + piece.len()) as u64 > self.limit {
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

impl Expression {
    pub(crate) fn compile(definition: &ExpressionDefinition) -> Result<Self, ConfigErrors> {
        match definition {
            ExpressionDefinition::Text(text) => parse::expression(text),
            ExpressionDefinition::Constant(value) => Ok(Self::Constant(value.clone())),
            ExpressionDefinition::Function(function) => Ok(Self::Function(Arc::clone(function))),
        }
    }

    /// What it needs of the body.
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Constant(_) => Needs::Nothing,
            Self::Variable(variable) => variable.needs(),
            Self::Template(parts) => parts.iter().map(Part::needs).max().unwrap_or_default(),
            // It sees the whole exchange.
            Self::Function(_) => Needs::Whole,
        }
    }

    /// As [`evaluate`](Self::evaluate), without a copy of a value that is there already: for predicates, which look at it
    /// alone.
    fn look<'a>(&'a self, exchange: &'a Exchange, scope: Scope<'_>) -> Result<Cow<'a, Value>, BoxError> {
        let found = match self {
            Self::Constant(value) => Some(value),
            Self::Variable(Variable::Header(name)) => exchange.message.headers.get(name),
            Self::Variable(Variable::Property(name)) => exchange.properties.get(name),
            _ => return self.evaluate(exchange, scope).map(Cow::Owned),
        };
        Ok(found.map_or(Cow::Owned(Value::Null), Cow::Borrowed))
    }

    /// The value. It waits for nothing: what it [needs](Self::needs) is there, or it is an error.
    ///
    /// # Errors
    /// When it asks for a field of a body that is no JSON, or is too large for the memory, or puts bytes into a text that
    /// are not UTF-8.
    pub(crate) fn evaluate(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<Value, BoxError> {
        self.evaluate_with(exchange, scope, |value, written| match value.has_exact_text() {
            true => Ok(()),
            false => Err(Failure::data(format!("`{written}` is no text: its bytes are not UTF-8"))),
        })
    }

    /// As [`evaluate`](Self::evaluate), to be looked at: in bytes, what is not UTF-8 is replaced.
    pub(crate) fn show(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<Value, BoxError> {
        self.evaluate_with(exchange, scope, |_, _| Ok(()))
    }

    /// The value; `check` sees what is put into a text.
    fn evaluate_with(
        &self,
        exchange: &Exchange,
        scope: Scope<'_>,
        check: fn(&Value, &str) -> Result<(), Failure>,
    ) -> Result<Value, BoxError> {
        let parts = match self {
            Self::Constant(value) => return Ok(value.clone()),
            Self::Variable(variable) => return variable.evaluate(exchange, scope),
            Self::Function(function) => return Ok(function(exchange)),
            Self::Template(parts) => parts,
        };
        let mut composed = Composed { text: String::new(), limit: scope.memory_limit };
        for part in parts {
            let written = match part {
                Part::Text(piece) => composed.write_str(piece),
                Part::Variable(variable, written) => {
                    let value = variable.evaluate(exchange, scope)?;
                    check(&value, written)?;
                    write!(composed, "{value}")
                }
            };
            written.map_err(|fmt::Error| {
                let limit = scope.memory_limit;
                Failure::data(format!("the text has more than {limit} bytes (`body.memory_limit`)"))
            })?;
        }
        Ok(composed.text.into())
    }
}

impl Part {
    fn needs(&self) -> Needs {
        match self {
            Self::Text(_) => Needs::Nothing,
            Self::Variable(variable, _) => variable.needs(),
        }
    }
}

impl Variable {
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Body => Needs::Whole,
            Self::BodyField(_) => Needs::Json,
            _ => Needs::Nothing,
        }
    }

    pub(crate) fn evaluate(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<Value, BoxError> {
        Ok(match self {
            Self::Body => exchange.message.body.to_value()?,
            Self::BodyField(path) => {
                let field = exchange.message.body.field(path);
                field.map_err(|error| {
                    Failure::data(format!("`${{body.{}}}`: the body is no JSON: {error}", path.join(".")))
                })?
            }
            Self::Header(name) => exchange.message.headers.get(name).cloned().unwrap_or_default(),
            Self::Property(name) => exchange.properties.get(name).cloned().unwrap_or_default(),
            Self::ExchangeId => format_smolstr!("{}", exchange.id).into(),
            Self::RouteId => scope.route_id.clone().into(),
            Self::Lock => exchange.term.as_ref().map_or(Value::Null, |term| term.lock().as_str().into()),
            Self::Term => exchange.term.as_ref().map_or(Value::Null, |term| term.number().into()),
            Self::Node => scope.node.clone().into(),
            Self::Exception(field) => {
                exchange.exception().map_or(Value::Null, |exception| field.of(exception))
            }
        })
    }
}

impl ExceptionField {
    /// All of them, by their names.
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("message", Self::Message),
        ("kind", Self::Kind),
        ("route", Self::Route),
        ("step", Self::Step),
        ("code", Self::Code),
        ("retry_after", Self::RetryAfter),
    ];

    fn of(self, exception: &Exception) -> Value {
        match self {
            Self::Message => exception.message.clone().into(),
            Self::Kind => exception.kind.name().into(),
            Self::Route => exception.route_id.clone().into(),
            Self::Step => exception.step.clone().into(),
            Self::Code => exception.code.clone().map_or(Value::Null, Value::from),
            Self::RetryAfter => {
                // As a duration is written, so that a `delay` takes it.
                let written = |pause: Duration| match pause.subsec_millis() {
                    0 => format_smolstr!("{}s", pause.as_secs()),
                    _ => format_smolstr!("{}ms", pause.as_millis()),
                };
                exception.retry_after.map_or(Value::Null, |pause| written(pause).into())
            }
        }
    }
}

impl Predicate {
    pub(crate) fn compile(definition: &PredicateDefinition) -> Result<Self, ConfigErrors> {
        match definition {
            PredicateDefinition::Text(text) => parse::predicate(text),
            PredicateDefinition::Function(function) => Ok(Self::Function(Arc::clone(function))),
        }
    }

    /// What it needs of the body.
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Operand(operand) => operand.needs(),
            Self::Compare(comparison) => comparison.left.needs().max(comparison.right.needs()),
            Self::Not(inner) => inner.needs(),
            Self::And(left, right) | Self::Or(left, right) => left.needs().max(right.needs()),
            // It sees the whole exchange.
            Self::Function(_) => Needs::Whole,
        }
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it compares values that have no order, or asks for a field of a body that is no JSON.
    pub(crate) fn holds(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<bool, BoxError> {
        Ok(match self {
            Self::Operand(operand) => operand.look(exchange, scope)?.is_truthy(),
            Self::Compare(comparison) => comparison.holds(exchange, scope)?,
            Self::Not(inner) => !inner.holds(exchange, scope)?,
            Self::And(left, right) => left.holds(exchange, scope)? && right.holds(exchange, scope)?,
            Self::Or(left, right) => left.holds(exchange, scope)? || right.holds(exchange, scope)?,
            Self::Function(function) => function(exchange),
        })
    }
}

impl Comparison {
    fn holds(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<bool, BoxError> {
        let (left, right) = (self.left.look(exchange, scope)?, self.right.look(exchange, scope)?);
        let holds = self.operator.holds(&left, &right);
        holds.map_err(|no_order| {
            Failure::data(format!("`{}` cannot be decided: {no_order}", self.written)).into()
        })
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> Result<bool, NoOrder> {
        let order = |holds: fn(Ordering) -> bool| Ok(left.order(right)?.is_some_and(holds));
        match self {
            Self::Equal => Ok(left.equals(right)),
            Self::NotEqual => Ok(!left.equals(right)),
            Self::Less => order(Ordering::is_lt),
            Self::LessOrEqual => order(Ordering::is_le),
            Self::Greater => order(Ordering::is_gt),
            Self::GreaterOrEqual => order(Ordering::is_ge),
            Self::Contains => Ok(left.contains(right)),
            Self::In => Ok(left.is_in(right)),
        }
    }
}

#[cfg(test)]
mod tests;
