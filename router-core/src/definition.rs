//! [`RouteDefinition`]: the one inert model behind both front ends.
//!
//! Nothing is checked here but the shape. Compiling a definition against a registry gives a route, or
//! every error at once.
//!
//! Two definitions are equal when they say the same, wherever that was written: places in files do not count.
//! Rust code is equal to itself and its clones alone.

use std::fmt;
use std::sync::Arc;

use crate::processor::{ProcessFunction, Processor};
use crate::source::SourceText;
use crate::written::is_same;

pub use crate::error_handler::ErrorHandlerDefinition;
pub use crate::log::LogLevel;
pub use crate::written::{DynamicDefinition, EndpointDefinition, ExpressionDefinition, PredicateDefinition};

/// A route as it was written: where exchanges come from, and what happens to them.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDefinition {
    /// Unique name; where none is given, the router numbers the routes.
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
    /// What happens when a step fails.
    pub error_handler: Option<ErrorHandlerDefinition>,
}

/// One step as it was written. The closed set of what a route can do: adding a step means a variant
/// here, one in [`pipeline`](crate::pipeline), a method of the builder and a key of the TOML grammar.
#[derive(Clone, Debug, PartialEq)]
pub enum StepDefinition {
    /// Sends the exchange to an endpoint.
    To(EndpointDefinition),
    /// Sends the exchange to an endpoint that depends on it.
    ToDynamic(DynamicDefinition),
    /// Writes a line to the log.
    Log {
        /// What to write.
        message: ExpressionDefinition,
        /// How important it is.
        level: LogLevel,
    },
    /// Runs user code.
    Process(ProcessDefinition),
    /// Replaces the body.
    SetBody(ExpressionDefinition),
    /// Sets a header.
    SetHeader {
        /// Its name.
        name: SourceText,
        /// Its new value.
        value: ExpressionDefinition,
    },
    /// Removes a header.
    RemoveHeader(SourceText),
    /// Sets a property.
    SetProperty {
        /// Its name.
        name: SourceText,
        /// Its new value.
        value: ExpressionDefinition,
    },
    /// Goes on with the rest of the block only when the predicate holds.
    Filter(PredicateDefinition),
    /// Runs the first branch whose predicate holds.
    Choice {
        /// The branches, in order.
        when: Vec<WhenDefinition>,
        /// What runs when none holds.
        otherwise: Vec<StepDefinition>,
    },
    /// Waits, for a duration in text form.
    Delay(ExpressionDefinition),
    /// Ends the exchange successfully.
    Stop,
}

/// One list of the steps, for everything that must know all of them by name.
macro_rules! step_kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// A step without its arguments. The TOML grammar matches on it, so that the compiler points there
        /// when a step is added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "documented at `StepDefinition`")]
        pub enum StepKind { $($kind,)* }

        impl StepKind {
            /// All steps.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name of the step, as in the TOML grammar and in errors.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

step_kinds! {
    To = "to",
    ToDynamic = "to_dynamic",
    Log = "log",
    Process = "process",
    SetBody = "set_body",
    SetHeader = "set_header",
    RemoveHeader = "remove_header",
    SetProperty = "set_property",
    Filter = "filter",
    Choice = "choice",
    Delay = "delay",
    Stop = "stop",
}

impl StepKind {
    /// The step of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl StepDefinition {
    /// Which step this is.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::To(_) => StepKind::To,
            Self::ToDynamic(_) => StepKind::ToDynamic,
            Self::Log { .. } => StepKind::Log,
            Self::Process(_) => StepKind::Process,
            Self::SetBody(_) => StepKind::SetBody,
            Self::SetHeader { .. } => StepKind::SetHeader,
            Self::RemoveHeader(_) => StepKind::RemoveHeader,
            Self::SetProperty { .. } => StepKind::SetProperty,
            Self::Filter(_) => StepKind::Filter,
            Self::Choice { .. } => StepKind::Choice,
            Self::Delay(_) => StepKind::Delay,
            Self::Stop => StepKind::Stop,
        }
    }

    /// The name of the step, as in the TOML grammar.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }
}

/// A branch of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct WhenDefinition {
    /// When the branch is taken.
    pub predicate: PredicateDefinition,
    /// What it does.
    pub steps: Vec<StepDefinition>,
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

impl RouteDefinition {
    /// A route from this endpoint, without steps.
    #[must_use]
    pub fn new(from: impl Into<EndpointDefinition>) -> Self {
        Self { from: Some(from.into()), ..Self::default() }
    }
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

impl fmt::Debug for ProcessDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => formatter.debug_tuple("Named").field(name).finish(),
            Self::Processor(_) => formatter.write_str("Processor(..)"),
            Self::Function(_) => formatter.write_str("Function(..)"),
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
