//! Front end one: routes in Rust, `from("timer:clock").log("Hello World!")`.

mod steps;

use smol_str::SmolStr;

use crate::definition::{ErrorHandlerDefinition, RouteDefinition};
use crate::source::SourceText;
use crate::step::{Argument, Arguments, StepDefinition};
use crate::steps::forks::fork_options;
use crate::steps::multicast;
use crate::written::{DynamicDefinition, EndpointDefinition};

pub use crate::steps::enrich::Enrich;
pub use crate::steps::forks::Join;
pub use crate::steps::loop_::Loop;
pub use crate::steps::recipient_list::RecipientList;
pub use crate::steps::split::Split;
pub use crate::written::{IntoDynamic, IntoEndpoint, IntoExpression, IntoPredicate};
pub use steps::Steps;

/// Starts a route at an endpoint: its URI, or [`endpoint`].
#[track_caller]
pub fn from(endpoint: impl IntoEndpoint) -> RouteBuilder {
    RouteBuilder { definition: RouteDefinition::new(endpoint.into_endpoint()) }
}

/// An endpoint with options beside its URI, in which nothing is decoded:
/// `endpoint("sql:").option("statement", "select '50%' || '?'")`.
#[must_use]
#[track_caller]
pub fn endpoint(uri: impl Into<SmolStr>) -> EndpointDefinition {
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
#[derive(Clone, Debug)]
#[must_use = "a route does nothing until it is given to a router"]
pub struct RouteBuilder {
    definition: RouteDefinition,
}

impl RouteBuilder {
    /// Names the route.
    #[track_caller]
    pub fn id(mut self, id: impl Into<SmolStr>) -> Self {
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
        self.definition.error_handler = Some(Box::new(handler));
        self
    }
}

impl From<RouteBuilder> for RouteDefinition {
    fn from(builder: RouteBuilder) -> Self {
        builder.definition
    }
}

/// The steps of a branch that is being written.
#[derive(Default, Debug)]
#[must_use = "steps do nothing outside of a route"]
pub struct Branch {
    steps: Vec<StepDefinition>,
}

/// The branches of a choice that is being written.
#[derive(Default, Debug)]
#[must_use = "a choice does nothing outside of a route"]
pub struct Choice {
    when: Vec<Arguments>,
    otherwise: Option<Vec<StepDefinition>>,
}

impl Choice {
    /// A branch that is taken when `predicate` holds and none before it did.
    #[track_caller]
    pub fn when(mut self, predicate: impl IntoPredicate, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let steps = steps(Branch::default()).steps;
        let mut branch = Arguments::default();
        branch.set("predicate", Argument::Predicate(predicate.into_predicate()));
        branch.set("steps", Argument::Steps(steps));
        self.when.push(branch);
        self
    }

    /// What happens when no predicate holds.
    pub fn otherwise(mut self, steps: impl FnOnce(Branch) -> Branch) -> Self {
        self.otherwise = Some(steps(Branch::default()).steps);
        self
    }
}

/// The branches of a `multicast` that is being written, and how they are worked on.
#[derive(Default, Debug)]
#[must_use = "a multicast does nothing outside of a route"]
pub struct Multicast {
    branches: Vec<Arguments>,
    arguments: Vec<(&'static str, Argument)>,
}

impl Multicast {
    /// Without branches.
    pub fn new() -> Self {
        Self::default()
    }

    /// A branch: what is done with a fork.
    pub fn branch(mut self, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let mut branch = Arguments::default();
        branch.set("steps", block(steps));
        self.branches.push(branch);
        self
    }

    #[track_caller]
    fn step(self) -> StepDefinition {
        let step = StepDefinition::in_code(&multicast::DESCRIPTION);
        let step = step.with("branches", Argument::Tables(self.branches));
        self.arguments.into_iter().fold(step, |step, (key, argument)| step.with(key, argument))
    }
}

fork_options!(Multicast);

/// The steps of a block.
pub(crate) fn block(steps: impl FnOnce(Branch) -> Branch) -> Argument {
    Argument::Steps(steps(Branch::default()).steps)
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
    use crate::steps::ALL;

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
            .loop_(Loop::times(2), |steps| steps)
            .split(Split::lines(), |steps| steps)
            .multicast(Multicast::new())
            .recipient_list(RecipientList::new("a:b"))
            .wire_tap("x:y")
            .enrich(Enrich::from("x:y"))
            .delay(Duration::from_secs(1))
            .stop()
            .into();
        let built = route.steps.iter().map(StepDefinition::description).collect::<Vec<_>>();
        assert_eq!(built, ALL);
    }
}
