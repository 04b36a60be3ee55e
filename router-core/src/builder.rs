//! Front end one: routes in Rust, `from("timer:clock").log("Hello World!")`.

mod steps;

use smol_str::SmolStr;

use crate::definition::{ErrorHandlerDefinition, RouteDefinition};
use crate::failure::ErrorKind;
use crate::source::SourceText;
use crate::step::{Argument, Arguments, StepDefinition};
use crate::steps::forks::fork_options;
use crate::steps::recipient_list::texts;
use crate::steps::{do_try, load_balance, multicast};
use crate::written::{DynamicDefinition, EndpointDefinition};

pub use crate::steps::dynamic_router::DynamicRouter;
pub use crate::steps::enrich::Enrich;
pub use crate::steps::forks::Join;
pub use crate::steps::loop_::Loop;
pub use crate::steps::recipient_list::RecipientList;
pub use crate::steps::routing_slip::RoutingSlip;
pub use crate::steps::sample::Sample;
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

/// What a `do_try` runs, and what handles an error of it.
#[derive(Debug)]
#[must_use = "a block does nothing outside of a route"]
pub struct Try {
    step: StepDefinition,
    catches: Vec<Arguments>,
}

impl Try {
    /// What may fail.
    #[track_caller]
    pub fn new(steps: impl FnOnce(Branch) -> Branch) -> Self {
        let step = StepDefinition::in_code(&do_try::DESCRIPTION).with("steps", block(steps));
        Self { step, catches: Vec::new() }
    }

    /// What handles an error, if it fits and none before did.
    pub fn catch(mut self, catch: Catch, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let Catch(mut arguments) = catch;
        arguments.set("steps", block(steps));
        self.catches.push(arguments);
        self
    }

    /// What is run in the end, whatever happened.
    pub fn finally(mut self, steps: impl FnOnce(Branch) -> Branch) -> Self {
        self.step = self.step.with("do_finally", block(steps));
        self
    }

    fn step(self) -> StepDefinition {
        match self.catches.is_empty() {
            true => self.step,
            false => self.step.with("do_catch", Argument::Tables(self.catches)),
        }
    }
}

/// Which errors a block of a `do_try` handles.
#[derive(Debug)]
#[must_use = "it says which errors are handled"]
pub struct Catch(Arguments);

impl Catch {
    /// Each error, but for the loss of leadership, which nothing handles.
    pub fn all() -> Self {
        Self(Arguments::default())
    }

    /// Errors of one of these kinds.
    #[track_caller]
    pub fn kinds(kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        let mut arguments = Arguments::default();
        arguments.set("kinds", texts(kinds.into_iter().map(ErrorKind::name)));
        Self(arguments)
    }

    /// Of these, errors with one of these codes.
    #[track_caller]
    pub fn codes<T: Into<SmolStr>>(mut self, codes: impl IntoIterator<Item = T>) -> Self {
        self.0.set("codes", texts(codes));
        self
    }

    /// Of these, errors with which `predicate` holds.
    #[track_caller]
    pub fn when(mut self, predicate: impl IntoPredicate) -> Self {
        self.0.set("when", Argument::Predicate(predicate.into_predicate()));
        self
    }
}

/// The branches of a `load_balance` that is being written, and which of them is run.
#[derive(Debug)]
#[must_use = "a load balancer does nothing outside of a route"]
pub struct LoadBalance {
    step: StepDefinition,
    branches: Vec<Arguments>,
}

impl LoadBalance {
    #[track_caller]
    fn of(policy: &'static str) -> Self {
        let step = StepDefinition::in_code(&load_balance::DESCRIPTION);
        Self { step: step.with("policy", Argument::Word(policy)), branches: Vec::new() }
    }

    /// One branch after the other.
    #[track_caller]
    pub fn round_robin() -> Self {
        Self::of("round_robin")
    }

    /// Any branch.
    #[track_caller]
    pub fn random() -> Self {
        Self::of("random")
    }

    /// One branch after the other, each as often in a round as its weight says.
    #[track_caller]
    pub fn weighted() -> Self {
        Self::of("weighted")
    }

    /// The same branch for each value of a key.
    #[track_caller]
    pub fn sticky(key: impl IntoExpression) -> Self {
        let Self { step, branches } = Self::of("sticky");
        Self { step: step.with("key", Argument::Expression(key.into_expression())), branches }
    }

    /// The first branch, and the next one where that fails.
    #[track_caller]
    pub fn failover() -> Self {
        Self::of("failover")
    }

    /// The kinds of errors with which the next branch is taken.
    #[track_caller]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.step = self.step.with("kinds", texts(kinds.into_iter().map(ErrorKind::name)));
        self
    }

    /// A branch.
    pub fn branch(mut self, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let mut branch = Arguments::default();
        branch.set("steps", block(steps));
        self.branches.push(branch);
        self
    }

    /// A branch with this weight.
    pub fn weighted_branch(mut self, weight: i64, steps: impl FnOnce(Branch) -> Branch) -> Self {
        let mut branch = Arguments::default();
        branch.set("weight", Argument::Expression(weight.into_expression()));
        branch.set("steps", block(steps));
        self.branches.push(branch);
        self
    }

    fn step(self) -> StepDefinition {
        self.step.with("branches", Argument::Tables(self.branches))
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
            .transform("a")
            .convert_body("json")
            .set_header("a", 2.5)
            .set_headers([("a", "b")])
            .remove_header("a")
            .remove_headers("a*", ["ab"])
            .set_property("a", &text)
            .remove_property("a")
            .validate("true")
            .filter("true")
            .choice(|choice| choice.otherwise(|then| then))
            .loop_(Loop::times(2), |steps| steps)
            .split(Split::lines(), |steps| steps)
            .multicast(Multicast::new())
            .recipient_list(RecipientList::new("a:b"))
            .routing_slip(RoutingSlip::new("a:b"))
            .dynamic_router(DynamicRouter::new("a:b"))
            .wire_tap("x:y")
            .enrich(Enrich::from("x:y"))
            .load_balance(LoadBalance::random())
            .do_try(Try::new(|steps| steps))
            .throw(ErrorKind::Data, "a")
            .sample(Sample::every(2))
            .delay(Duration::from_secs(1))
            .stop()
            .into();
        let built = route.steps.iter().map(StepDefinition::description).collect::<Vec<_>>();
        assert_eq!(built, ALL);
    }
}
