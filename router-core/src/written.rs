//! What is written where an endpoint, an expression, a predicate or code stands, and what the builder takes there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::processor::{ProcessFunction, Processor};
use crate::source::SourceText;
use crate::value::Value;

/// An endpoint as it was written: its URI, and options that stand beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointDefinition {
    /// The URI.
    pub uri: SourceText,
    /// Options that stand beside the URI, by name; nothing in them is decoded. They are those of the
    /// component, and the one that names what stands behind the colon of its URIs: `statement` for `sql:`.
    pub options: Vec<(SourceText, SourceText)>,
}

impl EndpointDefinition {
    /// An endpoint that is given by its URI.
    #[must_use]
    #[track_caller]
    pub fn new(uri: impl Into<SmolStr>) -> Self {
        SourceText::from_code(uri).into()
    }

    /// Adds an option beside the URI. Nothing in its value is decoded.
    #[must_use]
    #[track_caller]
    pub fn option(mut self, name: impl Into<SmolStr>, value: impl Into<SmolStr>) -> Self {
        self.options.push((SourceText::from_code(name), SourceText::from_code(value)));
        self
    }
}

impl From<SourceText> for EndpointDefinition {
    fn from(uri: SourceText) -> Self {
        Self { uri, options: Vec::new() }
    }
}

/// An endpoint whose URI has placeholders, or is one.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicDefinition {
    /// The URI. Its placeholders are values: what a message says brings no option and no other path.
    pub uri: ExpressionDefinition,
    /// As [`EndpointDefinition::options`], with placeholders.
    pub options: Vec<(SourceText, SourceText)>,
    /// The endpoints that messages may choose: URIs, or how they begin, with a `*` behind it.
    pub allow: Vec<SourceText>,
}

impl DynamicDefinition {
    /// Adds an option beside the URI, which may have placeholders.
    #[must_use]
    #[track_caller]
    pub fn option(mut self, name: impl Into<SmolStr>, value: impl Into<SmolStr>) -> Self {
        self.options.push((SourceText::from_code(name), SourceText::from_code(value)));
        self
    }

    /// Allows endpoints that messages may choose: a URI, or how it begins, with a `*` behind it.
    #[must_use]
    #[track_caller]
    pub fn allow<T: Into<SmolStr>>(mut self, uris: impl IntoIterator<Item = T>) -> Self {
        for uri in uris {
            self.allow.push(SourceText::from_code(uri));
        }
        self
    }
}

impl From<ExpressionDefinition> for DynamicDefinition {
    fn from(uri: ExpressionDefinition) -> Self {
        Self { uri, options: Vec::new(), allow: Vec::new() }
    }
}

/// User code in a route.
#[derive(Clone)]
pub enum ProcessDefinition {
    /// The name of a processor of the registry.
    Named(SourceText),
    /// A processor, which may await.
    Processor(Arc<dyn Processor>),
    /// A function that does not await: no allocation per call.
    Function(ProcessFunction),
}

/// What gives a value.
#[derive(Clone)]
pub enum ExpressionDefinition {
    /// Text with `${...}`.
    Text(SourceText),
    /// Always the same value.
    Constant(Value),
    /// Rust code.
    Function(Arc<dyn Fn(&Exchange) -> Value + Send + Sync>),
}

/// What holds or not.
#[derive(Clone)]
pub enum PredicateDefinition {
    /// Text like `${header.kind} == 'a'`.
    Text(SourceText),
    /// Rust code.
    Function(Arc<dyn Fn(&Exchange) -> bool + Send + Sync>),
}

impl PartialEq for ProcessDefinition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(one), Self::Named(other)) => one == other,
            (Self::Processor(one), Self::Processor(other)) => is_same(one, other),
            (Self::Function(one), Self::Function(other)) => is_same(one, other),
            _ => false,
        }
    }
}

impl PartialEq for ExpressionDefinition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Constant(one), Self::Constant(other)) => one == other,
            (Self::Function(one), Self::Function(other)) => is_same(one, other),
            _ => false,
        }
    }
}

impl PartialEq for PredicateDefinition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Function(one), Self::Function(other)) => is_same(one, other),
            _ => false,
        }
    }
}

/// Whether both are the same code. The address alone: one closure may have several tables of methods.
pub(crate) fn is_same<T: ?Sized>(one: &Arc<T>, other: &Arc<T>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

impl fmt::Debug for ProcessDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => formatter.debug_tuple("Named").field(name).finish(),
            Self::Processor(_) => formatter.write_str("Processor(..)"),
            Self::Function(_) => formatter.write_str("Function(..)"),
        }
    }
}

impl fmt::Debug for ExpressionDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.debug_tuple("Text").field(text).finish(),
            Self::Constant(value) => formatter.debug_tuple("Constant").field(value).finish(),
            Self::Function(_) => formatter.write_str("Function(..)"),
        }
    }
}

impl fmt::Debug for PredicateDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.debug_tuple("Text").field(text).finish(),
            Self::Function(_) => formatter.write_str("Function(..)"),
        }
    }
}

/// What the builder takes where an endpoint stands: its URI, or an `endpoint` with options beside it.
pub trait IntoEndpoint {
    /// The endpoint.
    #[track_caller]
    fn into_endpoint(self) -> EndpointDefinition;
}

impl IntoEndpoint for EndpointDefinition {
    fn into_endpoint(self) -> EndpointDefinition {
        self
    }
}

impl<T: Into<SmolStr>> IntoEndpoint for T {
    #[track_caller]
    fn into_endpoint(self) -> EndpointDefinition {
        EndpointDefinition::new(self)
    }
}

/// What the builder takes where an endpoint depends on the exchange: a URI with placeholders, or a
/// `dynamic` target.
pub trait IntoDynamic {
    /// The target.
    #[track_caller]
    fn into_dynamic(self) -> DynamicDefinition;
}

impl IntoDynamic for DynamicDefinition {
    fn into_dynamic(self) -> DynamicDefinition {
        self
    }
}

impl<T: IntoExpression> IntoDynamic for T {
    #[track_caller]
    fn into_dynamic(self) -> DynamicDefinition {
        self.into_expression().into()
    }
}

/// What the builder takes where a value is computed: text with `${...}`, a plain value, or a closure
/// `|exchange: &Exchange| ...`.
pub trait IntoExpression {
    /// The expression.
    #[track_caller]
    fn into_expression(self) -> ExpressionDefinition;
}

impl IntoExpression for &str {
    #[track_caller]
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Text(SourceText::from_code(self))
    }
}

impl IntoExpression for String {
    #[track_caller]
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Text(SourceText::from_code(self))
    }
}

impl IntoExpression for &String {
    #[track_caller]
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Text(SourceText::from_code(self.as_str()))
    }
}

/// As milliseconds, for `delay`.
impl IntoExpression for Duration {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(u64::try_from(self.as_millis()).unwrap_or(u64::MAX).into())
    }
}

impl IntoExpression for f64 {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(self.into())
    }
}

impl IntoExpression for serde_json::Value {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(Value::Json(self.into()))
    }
}

impl IntoExpression for Value {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(self)
    }
}

impl IntoExpression for i64 {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(self.into())
    }
}

impl IntoExpression for bool {
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Constant(self.into())
    }
}

impl<F, R> IntoExpression for F
where
    F: Fn(&Exchange) -> R + Send + Sync + 'static,
    R: Into<Value>,
{
    fn into_expression(self) -> ExpressionDefinition {
        ExpressionDefinition::Function(Arc::new(move |exchange| self(exchange).into()))
    }
}

/// What the builder takes where something holds or not: text like `${header.kind} == 'a'`, or a
/// closure `|exchange: &Exchange| ...`.
pub trait IntoPredicate {
    /// The predicate.
    #[track_caller]
    fn into_predicate(self) -> PredicateDefinition;
}

impl IntoPredicate for &str {
    #[track_caller]
    fn into_predicate(self) -> PredicateDefinition {
        PredicateDefinition::Text(SourceText::from_code(self))
    }
}

impl IntoPredicate for String {
    #[track_caller]
    fn into_predicate(self) -> PredicateDefinition {
        PredicateDefinition::Text(SourceText::from_code(self))
    }
}

impl<F> IntoPredicate for F
where
    F: Fn(&Exchange) -> bool + Send + Sync + 'static,
{
    fn into_predicate(self) -> PredicateDefinition {
        PredicateDefinition::Function(Arc::new(self))
    }
}
