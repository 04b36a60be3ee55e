//! Front end one: routes in Rust, `from("timer:clock").log("Hello World!")`.

use std::sync::Arc;

use crate::definition::{
    DynamicDefinition, EndpointDefinition, ErrorHandlerDefinition, LogLevel, ProcessDefinition,
    RouteDefinition, StepDefinition, WhenDefinition,
};
use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::processor::{AsyncFunction, ProcessFuture, Processor};
use crate::source::SourceText;

pub use crate::written::{IntoDynamic, IntoEndpoint, IntoExpression, IntoPredicate};

/// Starts a route at an endpoint: its URI, or [`endpoint`].
#[track_caller]
pub fn from(endpoint: impl IntoEndpoint) -> RouteBuilder {
    RouteBuilder { definition: RouteDefinition::new(endpoint.into_endpoint()) }
}

/// An endpoint with options beside its URI, in which nothing is decoded:
/// `endpoint("sql:").option("statement", "select '50%' || '?'")`.
#[must_use]
#[track_caller]
pub fn endpoint(uri: impl Into<Arc<str>>) -> EndpointDefinition {
    EndpointDefinition::new(uri)
}

/// The target of a `to_dynamic` step that has more than a URI:
/// `dynamic("direct:${header.kind}").allow(["direct:order", "direct:invoice"])`.
#[must_use]
#[track_caller]
pub fn dynamic(uri: impl IntoExpression) -> DynamicDefinition {
    uri.into_expression().into()
}

/// A route that is being written. [`Steps`] has its steps.
#[derive(Clone)]
#[must_use = "a route does nothing until it is given to a router"]
pub struct RouteBuilder {
    definition: RouteDefinition,
}

impl RouteBuilder {
    /// Names the route.
    #[track_caller]
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.definition.id = Some(SourceText::from_code(id));
        self
    }

    /// Describes the route for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.definition.description = Some(description.into());
        self
    }

    /// Whether the route starts with the router.
    pub fn auto_startup(mut self, auto_startup: bool) -> Self {
        self.definition.auto_startup = auto_startup;
        self
    }

    /// When the route starts, relative to others; see [`RouteDefinition::startup_order`].
    pub fn startup_order(mut self, order: i32) -> Self {
        self.definition.startup_order = Some(order);
        self
    }

    /// What happens when a step fails.
    pub fn error_handler(mut self, handler: ErrorHandlerDefinition) -> Self {
        self.definition.error_handler = Some(handler);
        self
    }
}

impl From<RouteBuilder> for RouteDefinition {
    fn from(builder: RouteBuilder) -> Self {
        builder.definition
    }
}

/// The steps of a branch that is being written.
#[derive(Default)]
#[must_use = "steps do nothing outside of a route"]
pub struct Branch {
    steps: Vec<StepDefinition>,
}

/// The branches of a choice that is being written.
#[derive(Default)]
#[must_use = "a choice does nothing outside of a route"]
pub struct Choice {
    when: Vec<WhenDefinition>,
    otherwise: Vec<StepDefinition>,
}

impl Choice {
    /// A branch that is taken when `predicate` holds and none before it did.
    #[track_caller]
    pub fn when(mut self, predicate: impl IntoPredicate, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let steps = steps(Branch::default()).steps;
        self.when.push(WhenDefinition { predicate: predicate.into_predicate(), steps });
        self
    }

    /// What happens when no predicate holds.
    pub fn otherwise(mut self, steps: impl FnOnce(Branch) -> Branch) -> Self {
        self.otherwise = steps(Branch::default()).steps;
        self
    }
}

/// The steps that a route, and each branch in it, can consist of.
pub trait Steps: Sized {
    /// Adds a step.
    #[must_use]
    fn step(self, step: StepDefinition) -> Self;

    /// Sends the exchange to an endpoint: its URI, or [`endpoint`].
    #[must_use]
    #[track_caller]
    fn to(self, endpoint: impl IntoEndpoint) -> Self {
        self.step(StepDefinition::To(endpoint.into_endpoint()))
    }

    /// Sends the exchange to an endpoint that depends on it: a URI with placeholders, whose values are
    /// data and bring no options. Where a message chooses the endpoint, say which ones it may choose with
    /// [`dynamic`].
    #[must_use]
    #[track_caller]
    fn to_dynamic(self, target: impl IntoDynamic) -> Self {
        self.step(StepDefinition::ToDynamic(target.into_dynamic()))
    }

    /// Writes a line to the log, at level INFO.
    #[must_use]
    #[track_caller]
    fn log(self, message: impl IntoExpression) -> Self {
        self.log_at(LogLevel::Info, message)
    }

    /// Writes a line to the log.
    #[must_use]
    #[track_caller]
    fn log_at(self, level: LogLevel, message: impl IntoExpression) -> Self {
        self.step(StepDefinition::Log { message: message.into_expression(), level })
    }

    /// Calls a function that does not await.
    #[must_use]
    fn process(
        self,
        function: impl Fn(&mut Exchange) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.step(StepDefinition::Process(ProcessDefinition::Function(Arc::new(function))))
    }

    /// Calls a processor, which may await. A closure that returns a boxed future is one:
    /// `process_async(|exchange| Box::pin(async move { ... Ok(()) }))`.
    #[must_use]
    fn process_async<F>(self, function: F) -> Self
    where
        F: for<'a> Fn(&'a mut Exchange) -> ProcessFuture<'a> + Send + Sync + 'static,
    {
        self.process_with(AsyncFunction(function))
    }

    /// Calls a processor of your own type.
    #[must_use]
    fn process_with(self, processor: impl Processor + 'static) -> Self {
        self.step(StepDefinition::Process(ProcessDefinition::Processor(Arc::new(processor))))
    }

    /// Replaces the body.
    #[must_use]
    #[track_caller]
    fn set_body(self, value: impl IntoExpression) -> Self {
        self.step(StepDefinition::SetBody(value.into_expression()))
    }

    /// Sets a header.
    #[must_use]
    #[track_caller]
    fn set_header(self, name: impl Into<Arc<str>>, value: impl IntoExpression) -> Self {
        self.step(StepDefinition::SetHeader {
            name: SourceText::from_code(name),
            value: value.into_expression(),
        })
    }

    /// Removes a header.
    #[must_use]
    #[track_caller]
    fn remove_header(self, name: impl Into<Arc<str>>) -> Self {
        self.step(StepDefinition::RemoveHeader(SourceText::from_code(name)))
    }

    /// Sets a property.
    #[must_use]
    #[track_caller]
    fn set_property(self, name: impl Into<Arc<str>>, value: impl IntoExpression) -> Self {
        self.step(StepDefinition::SetProperty {
            name: SourceText::from_code(name),
            value: value.into_expression(),
        })
    }

    /// Goes on with the steps after this one, in this route or branch, only when `predicate` holds.
    #[must_use]
    #[track_caller]
    fn filter(self, predicate: impl IntoPredicate) -> Self {
        self.step(StepDefinition::Filter(predicate.into_predicate()))
    }

    /// Takes the first branch whose predicate holds, then goes on.
    #[must_use]
    fn choice(self, branches: impl FnOnce(Choice) -> Choice) -> Self {
        let Choice { when, otherwise } = branches(Choice::default());
        self.step(StepDefinition::Choice { when, otherwise })
    }

    /// Waits: a `Duration`, or text like `1s`, `500ms` or bare milliseconds.
    #[must_use]
    #[track_caller]
    fn delay(self, duration: impl IntoExpression) -> Self {
        self.step(StepDefinition::Delay(duration.into_expression()))
    }

    /// Ends the exchange successfully, whatever steps would follow.
    #[must_use]
    fn stop(self) -> Self {
        self.step(StepDefinition::Stop)
    }
}

impl Steps for RouteBuilder {
    fn step(mut self, step: StepDefinition) -> Self {
        self.definition.steps.push(step);
        self
    }
}

impl Steps for Branch {
    fn step(mut self, step: StepDefinition) -> Self {
        self.steps.push(step);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::definition::StepKind;

    #[test]
    fn the_builder_has_every_step() {
        let text = String::from("text");
        let route: RouteDefinition = from("x:y")
            .to("x:y")
            .to_dynamic("x:${body}")
            .log("text")
            .process(|_| Ok(()))
            .set_body(serde_json::json!({"a": 1}))
            .set_header("a", 2.5)
            .remove_header("a")
            .set_property("a", &text)
            .filter("true")
            .choice(|choice| choice.otherwise(|then| then))
            .delay(Duration::from_secs(1))
            .stop()
            .into();
        let built = route.steps.iter().map(StepDefinition::kind).collect::<Vec<_>>();
        assert_eq!(built, StepKind::ALL);
    }
}
