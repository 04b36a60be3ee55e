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
    Variable(Variable),
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
    /// When it asks for a field of a body that is no JSON, or is too large for the memory.
    pub(crate) fn evaluate(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<Value, BoxError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Variable(variable) => variable.evaluate(exchange, scope),
            Self::Function(function) => Ok(function(exchange)),
            Self::Template(parts) => {
                let mut composed = Composed { text: String::new(), limit: scope.memory_limit };
                for part in parts {
                    let written = match part {
                        Part::Text(piece) => composed.write_str(piece),
                        Part::Variable(variable) => {
                            write!(composed, "{}", variable.evaluate(exchange, scope)?)
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
    }
}

impl Part {
    fn needs(&self) -> Needs {
        match self {
            Self::Text(_) => Needs::Nothing,
            Self::Variable(variable) => variable.needs(),
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
mod tests {
    use super::*;
    use crate::source::SourceText;
    use crate::value::{Json, Number};

    const ROUTE: SmolStr = SmolStr::new_static("clock");
    const NODE: SmolStr = SmolStr::new_static("a");

    const AMOUNT: &str = "123456789012345678901234567890.10";

    fn exchange() -> Exchange {
        let mut exchange = Exchange::new(serde_json::json!({"user": {"name": "Ann"}, "items": [7, 8]}));
        let mut body = exchange.message.body.to_json().unwrap().as_object().unwrap().clone();
        body.insert("amount", AMOUNT.parse::<Number>().unwrap());
        exchange.message.body = Json::from(body).into();
        exchange.message.headers.set("Content-Type", "text/plain");
        exchange.message.headers.set("count", 10);
        exchange.properties.set("flag", true);
        exchange
    }

    fn evaluate(text: &str) -> Value {
        let definition = ExpressionDefinition::Text(SourceText::from_code(text));
        let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
        Expression::compile(&definition).unwrap().evaluate(&exchange(), scope).unwrap()
    }

    fn holds(text: &str) -> bool {
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
        let predicate = Predicate::compile(&definition).unwrap_or_else(|error| panic!("{error}"));
        predicate.holds(&exchange(), scope).unwrap()
    }

    /// Whatever is written: it is an error that can be printed, or has a value for each exchange.
    #[test]
    fn fuzz_expressions_and_predicates() {
        testkit::fuzz::fuzz(include_str!("../corpus/expression.txt"), |text| {
            let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
            let source = || SourceText::from_code(text);
            match Expression::compile(&ExpressionDefinition::Text(source())) {
                Ok(expression) => {
                    let value = expression.evaluate(&exchange(), scope);
                    assert!(text.contains("${") || value.unwrap().to_string() == text);
                }
                Err(errors) => assert!(!errors.to_string().is_empty()),
            }
            match Predicate::compile(&PredicateDefinition::Text(source())) {
                Ok(predicate) => {
                    let held = predicate.holds(&exchange(), scope).ok();
                    let not = Predicate::Not(Box::new(predicate)).holds(&exchange(), scope).ok();
                    assert_eq!(not, held.map(|held| !held));
                }
                Err(errors) => assert!(!errors.to_string().is_empty()),
            }
        });
    }

    #[test]
    fn a_template_inserts_values_and_a_single_placeholder_keeps_its_type() {
        assert_eq!(evaluate("n=${header.count} on ${node}/${route_id}"), "n=10 on a/clock".into());
        assert_eq!(evaluate("${header.count}"), 10.into());
        assert_eq!(evaluate("${header.content-type}"), "text/plain".into());
        assert_eq!(evaluate("${term}${lock}${header.none}|"), "|".into());
        assert_eq!(evaluate(r"\${body} costs $5"), "${body} costs $5".into());
        assert_eq!(evaluate(""), "".into());
    }

    #[test]
    fn a_backslash_can_stand_before_a_placeholder() {
        for (text, value) in [
            (r"C:\\${header.count}", r"C:\10"),
            (r"\\\\${header.count}", r"\\10"),
            (r"\\\${header.count}", r"\${header.count}"),
            (r"\\server\d+ $ \$", r"\\server\d+ $ \$"),
            (r"${header.count}\\${header.count}\", r"10\10\"),
        ] {
            assert_eq!(evaluate(text), value.into(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_decided_is_an_error_that_names_the_comparison() {
        let text = "${header.count} == 10 && ( ${header.content-type}  <  ${header.count} )";
        let definition = PredicateDefinition::Text(SourceText::from_code(text));
        let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
        let error = Predicate::compile(&definition).unwrap().holds(&exchange(), scope).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`${header.content-type}  <  ${header.count}` cannot be decided: \
             the text `text/plain` and the number 10 have no order"
        );
    }

    #[test]
    fn fields_of_a_json_body_are_reached_by_path() {
        assert_eq!(evaluate("${body.user.name}"), "Ann".into());
        assert_eq!(evaluate("${body.items.1}"), 8.into());
        assert_eq!(evaluate("${body.amount}").to_string(), AMOUNT);
        assert_eq!(evaluate("${body.items.9}${body.nobody.name}"), "".into());
    }

    #[test]
    fn a_field_of_a_body_that_is_no_json_is_an_error_where_it_is_asked_for() {
        let scope = Scope { route_id: &ROUTE, node: &NODE, memory_limit: 1 << 20 };
        let mut exchange = Exchange::new("a < b");
        exchange.message.headers.set("kind", "text");
        let expression = |text: &str| {
            let definition = ExpressionDefinition::Text(SourceText::from_code(text));
            Expression::compile(&definition).unwrap()
        };
        let predicate = |text: &str| {
            let definition = PredicateDefinition::Text(SourceText::from_code(text));
            Predicate::compile(&definition).unwrap()
        };
        for text in ["${body.user.name}", "hello ${body.user.name}"] {
            let error = expression(text).evaluate(&exchange, scope).unwrap_err().to_string();
            assert_eq!(
                error,
                "`${body.user.name}`: the body is no JSON: expected a value at line 1 column 1"
            );
        }
        let guarded = predicate("${header.kind} == 'json' && ${body.user.name} == 'Ann'");
        assert!(!guarded.holds(&exchange, scope).unwrap());
        assert!(predicate("${body.user} == null").holds(&exchange, scope).is_err());
        // An empty text is no JSON, and no body is null.
        assert!(predicate("!${body.user}").holds(&Exchange::new(""), scope).is_err());
        assert!(predicate("${body.user} == null").holds(&Exchange::new(()), scope).unwrap());
    }

    #[test]
    fn what_is_needed_of_the_body_is_known() {
        for (text, needs) in [
            ("${header.a} ${node}", Needs::Nothing),
            ("${header.a} ${body}", Needs::Whole),
            ("${body} ${body.a}", Needs::Json),
            ("no placeholder", Needs::Nothing),
        ] {
            let definition = ExpressionDefinition::Text(SourceText::from_code(text));
            assert_eq!(Expression::compile(&definition).unwrap().needs(), needs, "{text}");
        }
        for (text, needs) in [
            ("${header.a} == 1 && (true || !('${body}' contains 'x'))", Needs::Whole),
            ("${header.a} == 1 || !(7 == ${body.a})", Needs::Json),
            ("true", Needs::Nothing),
        ] {
            let definition = PredicateDefinition::Text(SourceText::from_code(text));
            assert_eq!(Predicate::compile(&definition).unwrap().needs(), needs, "{text}");
        }
    }

    #[test]
    fn predicates_compare_combine_and_negate() {
        for text in [
            "${header.count} == 10",
            "${header.count} > 9.5 && ${header.count} <= 10",
            "${body.user.name} == 'Ann'",
            "${header.content-type} contains 'plain'",
            "!(${header.count} < 10) && (${header.none} || ${property.flag})",
            "${header.none} == null",
            "!${header.none}",
            "${body.user.name} != \"Bob\"",
            "${body.items} contains 7 && !(${body.items} contains '1')",
            "${body.user.name} in 'Ann, Bob' && !(${header.count} in ${body.items}) && '8' in ${body.items}",
            "'1.10' != '1.1' && '9007199254740993' != '9007199254740992' && 'Nan' == 'Nan'",
            "'10' > '9' && '10' < '9a' && '1.10' == 1.1",
            "'${body.user.name}-x' == 'Ann-x'",
            "${body.amount} == 123456789012345678901234567890.1 && ${body.amount} != 123456789012345678901234567890",
            "18446744073709551617 > 18446744073709551616 && 1e400 > 1e399 && -1e400 < 1e-400 && +1.50 == 1.5",
            "${body.amount} < 1e400 && '18446744073709551617' == 18446744073709551617",
            "false || true",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in ["${header.count} == 11", "${header.none} > 1", "${property.flag} && false"] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn errors_point_at_the_exact_characters() {
        let error = |text: &str| {
            let definition = PredicateDefinition::Text(SourceText::from_code(text));
            match Predicate::compile(&definition) {
                Ok(_) => panic!("`{text}` was accepted"),
                Err(error) => error.to_string(),
            }
        };
        let printed = error("${heder.x} == 1");
        assert!(printed.contains("unknown placeholder `heder.x`"), "{printed}");
        assert!(printed.contains("did you mean `header`?"), "{printed}");
        assert!(error("${header.x} = 1").contains("expected an operator"));
        assert!(error("${header.x").contains("has no closing `}`"));
        for (predicate, place, expected) in [
            ("${header.${header.x}} == 1", 9..20, "a placeholder cannot stand inside another one"),
            ("${body.} == 1", 6..7, "a name stands here"),
            ("${body.a..b} == 1", 8..9, "a name stands here"),
            ("${header. x} == 1", 8..11, "a name stands here"),
            ("${body.items[0].id} == 1", 7..15, "write `items.0`"),
        ] {
            let printed = error(predicate);
            assert!(printed.contains(expected), "{printed}");
            let carets = format!("| {}{}\n", " ".repeat(place.start), "^".repeat(place.len()));
            assert!(format!("{printed}\n").contains(&carets), "{printed}");
        }
        assert!(error("(${header.x} == 1").contains("expected `)`"));
        assert!(error("${header.x} ==").contains("expected an operand"));
        assert!(error("${exchangeId} == 1").contains("did you mean `exchange_id`?"));
        assert!(error("'open").contains("has no closing quote"));
        assert!(error("").contains("expected an operand"));
        assert!(error("${body} == nan").contains("expected an operand"));
        assert!(error("${body} == 1e9999999999999").contains("the exponent of this number is too large"));
        for number in ["007", "1.", ".5", "1_000"] {
            assert!(error(&format!("${{body}} == {number}")).contains("expected an operand"), "{number}");
        }
        assert!(error(&"(".repeat(100_000)).contains("nested too deep"));
    }

    #[test]
    fn errors_behind_one_are_reported_too() {
        for (text, expected) in [
            (
                "${body} = 1 && ${hedr.x} == 2 || ${body.} > 3",
                &["an operator", "`hedr.x`", "a name stands"][..],
            ),
            ("${a} = 1 && ${body} == 1 && ${body} = 2", &["`a`", "an operator", "an operator"]),
            ("(${body} = 1) && ${a} == 'x' && '${b}' ==", &["expected `)`", "`a`", "`b`"]),
            ("${body} == x && ${body} ==", &["an operand", "an operand"]),
            ("${body} == 'x && ${a}", &["no closing quote", "`a`"]),
            ("${body} = 1 && ${body", &["an operator", "no closing `}`"]),
            ("${body} = 1 &&", &["an operator", "an operand"]),
        ] {
            let definition = PredicateDefinition::Text(SourceText::from_code(text));
            let errors = Predicate::compile(&definition).err().unwrap();
            let found = errors.iter().map(crate::error::ConfigError::message).collect::<Vec<_>>();
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{text}: {found}");
            }
        }
        let definition = PredicateDefinition::Text(SourceText::from_code("x &&".repeat(10_000)));
        assert!(Predicate::compile(&definition).is_err());
    }
}
