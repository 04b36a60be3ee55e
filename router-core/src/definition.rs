//! [`RouteDefinition`]: the one inert model behind both front ends.
//!
//! Nothing is checked here but the shape. Compiling a definition against a registry gives a route, or
//! every error at once.
//!
//! Two definitions are equal when they say the same, wherever that was written: places in files do not count.
//! Rust code is equal to itself and its clones alone.

use std::collections::HashSet;

use smol_str::{SmolStr, format_smolstr};

use crate::source::SourceText;

pub use crate::error_handler::ErrorHandlerDefinition;
pub use crate::log::LogLevel;
pub use crate::step::StepDefinition;
pub use crate::written::{
    DynamicDefinition, EndpointDefinition, ExpressionDefinition, PredicateDefinition, ProcessDefinition,
};

/// A route as it was written: where exchanges come from, and what happens to them.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDefinition {
    /// Unique name; where none is given, the router numbers the routes: see [`route_ids`].
    pub id: Option<SourceText>,
    /// A sentence for people.
    pub description: Option<String>,
    /// Whether the route starts with the router; `true` where nothing is said.
    pub auto_startup: bool,
    /// Routes start in this order and stop in reverse. Those without an order come after, in the order
    /// of definition, except that routes which others call (`direct:`) come before their callers.
    pub startup_order: Option<i32>,
    /// The endpoint that is consumed. `None`: a front end could not read it, and has said so; the rest of
    /// the route is checked all the same.
    pub from: Option<EndpointDefinition>,
    /// What happens to each exchange.
    pub steps: Vec<StepDefinition>,
    /// What happens when a step fails. Boxed, because it is large and rare.
    pub error_handler: Option<Box<ErrorHandlerDefinition>>,
}

impl RouteDefinition {
    /// A route from this endpoint, without steps.
    #[must_use]
    pub fn new(from: impl Into<EndpointDefinition>) -> Self {
        Self { from: Some(from.into()), ..Self::default() }
    }
}

/// The id of each of these routes, of which some are there already and have one: what its author calls it; or else the id
/// that it has; or else the number of its place, or the next one that no other route has.
pub fn route_ids<'a>(
    routes: impl Iterator<Item = (&'a RouteDefinition, Option<&'a SmolStr>)> + Clone,
) -> Vec<SmolStr> {
    let id = |(definition, present): (&RouteDefinition, Option<&SmolStr>)| match &definition.id {
        Some(id) => Some(SmolStr::from(id.as_str())),
        None => present.cloned(),
    };
    let mut taken = routes.clone().filter_map(id).collect::<HashSet<_>>();
    let numbered = |(index, route)| {
        id(route).unwrap_or_else(|| {
            let mut free = (index + 1..).map(|number| format_smolstr!("route{number}"));
            let free = free.find(|id| taken.insert(id.clone()));
            free.unwrap_or_else(|| unreachable!("there are more numbers than routes"))
        })
    };
    routes.enumerate().map(numbered).collect()
}

impl Default for RouteDefinition {
    fn default() -> Self {
        Self {
            id: None,
            description: None,
            auto_startup: true,
            startup_order: None,
            from: None,
            steps: Vec::new(),
            error_handler: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{Steps, from};

    fn route(level: &str) -> RouteDefinition {
        let tree =
            from("timer:t").id("a").choice(|choice| choice.when("${body} == 'x'", |steps| steps.log("x")));
        tree.set_header("level", level).to("mock:a").into()
    }

    #[test]
    fn definitions_are_equal_that_say_the_same_in_different_places() {
        assert_eq!(route("1"), route("1"));
        assert_ne!(route("1"), route("2"));
        assert_ne!(route("1"), RouteDefinition { auto_startup: false, ..route("1") });
    }

    #[test]
    fn code_is_equal_to_its_clones_alone() {
        let code = || -> RouteDefinition { from("timer:t").process(|_| Ok(())).into() };
        let one = code();
        assert_eq!(one, one.clone());
        assert_ne!(one, code());
        assert!(format!("{one:?}").contains("Process(Function(..))"), "{one:?}");
    }
}
