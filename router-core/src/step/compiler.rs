//! [`Compiler`]: one run over the steps of one route. It goes on after an error, to find the others too.

use std::cell::RefCell;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::StepDefinition;
use crate::body::Needs;
use crate::component::{Effect, Endpoint, Findings};
use crate::environment::Environment;
use crate::error::{ConfigError, ConfigErrors};
use crate::expression::{Expression, Predicate};
use crate::links::{Certain, LocalCall, SharedOption, Way};
use crate::name;
use crate::pipeline::{Block, Blocks, Step};
use crate::processor::Processor;
use crate::source::SourceText;
use crate::state::StateSlot;
use crate::uri::EndpointUri;
use crate::written::{EndpointDefinition, ExpressionDefinition, PredicateDefinition};

/// What compiles the steps of a route, and what a step is compiled with.
pub(crate) struct Compiler<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) route_id: SmolStr,
    /// Whether the author has named the route.
    pub(crate) is_named: bool,
    /// Whether the exchanges of the route have a term.
    pub(crate) under_term: bool,
    pub(crate) errors: ConfigErrors,
    pub(crate) findings: RefCell<Findings>,
    calls: Vec<LocalCall>,
    /// Those that happen for certain on the present way.
    certain: Way,
    shared: Vec<SharedOption>,
    /// The ids of steps with a state.
    ids: Vec<SourceText>,
    blocks: Blocks,
    /// The block that is compiled, and how many steps it has up to the present one.
    at: Option<(Block, usize)>,
    /// How the present step is named: `step 2, when 1, step 1`.
    place: String,
    /// How many steps in this block, or around it, may keep an exchange from getting to the present one.
    conditions: usize,
    /// How many steps before may have ended the exchange.
    ends: usize,
    /// What the expressions of the present step need of the body.
    needs: Needs,
}

/// Whether each exchange that gets to a step runs a block of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Each one that does not fail.
    Always,
    /// Some may not.
    Sometimes,
}

/// What a compiler has found.
pub(crate) struct Compiled {
    pub(crate) blocks: Blocks,
    pub(crate) errors: ConfigErrors,
    pub(crate) effects: Vec<Effect>,
    pub(crate) calls: Vec<LocalCall>,
    pub(crate) certain: Way,
    pub(crate) shared: Vec<SharedOption>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(environment: &'a Environment, route_id: SmolStr, is_named: bool) -> Self {
        Self {
            environment,
            route_id,
            is_named,
            under_term: false,
            errors: ConfigErrors::default(),
            findings: RefCell::default(),
            calls: Vec::new(),
            certain: Way::new(),
            shared: Vec::new(),
            ids: Vec::new(),
            blocks: Blocks::default(),
            at: None,
            place: String::new(),
            conditions: 0,
            ends: 0,
            needs: Needs::Nothing,
        }
    }

    /// The blocks, the errors and warnings, and the calls of other routes.
    pub(crate) fn finish(mut self) -> Compiled {
        let Findings { warnings, effects } = self.findings.take();
        self.errors.extend(warnings);
        let Self { blocks, errors, calls, certain, shared, .. } = self;
        Compiled { blocks: blocks.complete(), errors, effects, calls, certain, shared }
    }

    /// The steps of the route itself.
    pub(crate) fn steps(&mut self, definitions: &[StepDefinition]) -> Block {
        let (outer, place) = (self.at, std::mem::take(&mut self.place));
        let block = self.blocks.begin(outer);
        let mut steps = Vec::with_capacity(definitions.len());
        for (index, definition) in definitions.iter().enumerate() {
            let number = format!("{place}step {}", index + 1);
            // Behind it, where it has a block.
            self.at = Some((block, steps.len() + 1));
            let name = match definition.arguments().get("uri") {
                Some(super::Argument::Endpoint(to)) => {
                    format_smolstr!("{number} ({} `{}`)", definition.name(), to.uri)
                }
                _ => format_smolstr!("{number} ({})", definition.name()),
            };
            self.place = number;
            // Steps are compiled inside of others.
            let needs = std::mem::take(&mut self.needs);
            if let Some(action) = (definition.description().compile)(definition, self) {
                steps.push(Step { place: name, needs: self.needs, action });
            }
            self.needs = needs;
        }
        self.blocks.end(block, steps);
        (self.at, self.place) = (outer, place);
        block
    }

    /// A block of the present step, which `name` tells from its others.
    pub(crate) fn block(&mut self, definitions: &[StepDefinition], name: &str, runs: Runs) -> Block {
        let (before, place) = (self.conditions, self.place.clone());
        self.conditions += usize::from(runs == Runs::Sometimes);
        self.place = format!("{place}, {name}, ");
        let block = self.steps(definitions);
        // What a step of the block keeps from the rest of it gets to the step behind the block.
        (self.conditions, self.place) = (before, place);
        block
    }

    /// Compiles what stands on one of several ways that an exchange can take in the present step. Returns the way too.
    pub(crate) fn way<T>(&mut self, compile: impl FnOnce(&mut Self) -> T) -> (T, Way) {
        let outer = std::mem::take(&mut self.certain);
        let (conditions, ends) = (std::mem::take(&mut self.conditions), std::mem::take(&mut self.ends));
        let compiled = compile(self);
        self.conditions = conditions;
        // What may have ended on this way does not get behind the step.
        self.ends += ends;
        (compiled, std::mem::replace(&mut self.certain, outer))
    }

    /// Says that each exchange that gets to the present step, and does not fail in it, takes one of these ways.
    pub(crate) fn takes_one_of(&mut self, ways: Vec<Way>) {
        if self.is_certain() && !ways.iter().any(Vec::is_empty) {
            self.certain.push(Certain::OneOf(ways.into()));
        }
    }

    /// Whether every exchange on the present way gets to the present step.
    fn is_certain(&self) -> bool {
        self.conditions + self.ends == 0
    }

    /// Says that exchanges may not get to the rest of the block that the present step is in.
    pub(crate) fn may_leave_block(&mut self) {
        self.conditions += 1;
    }

    /// Says that exchanges may end in the present step.
    pub(crate) fn may_end(&mut self) {
        self.ends += 1;
    }

    /// How the present step is named in errors: `step 2 (split)`.
    pub(crate) fn place(&self, step: &StepDefinition) -> SmolStr {
        format_smolstr!("{} ({})", self.place, step.name())
    }

    /// Reports an error.
    pub(crate) fn error(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Says that the present step needs this of the body, beside what its expressions need.
    pub(crate) fn needs(&mut self, needs: Needs) {
        self.needs = self.needs.max(needs);
    }

    /// Reports an error in what was written for an expression.
    pub(crate) fn error_in(&mut self, written: &ExpressionDefinition, message: String) {
        self.error(match written {
            ExpressionDefinition::Text(text) => ConfigError::in_text(text, message),
            _ => ConfigError::new(message),
        });
    }

    /// An expression.
    pub(crate) fn expression(&mut self, definition: &ExpressionDefinition) -> Option<Expression> {
        let expression = self.errors.collect(Expression::compile(definition))?;
        self.needs(expression.needs());
        Some(expression)
    }

    /// A predicate.
    pub(crate) fn predicate(&mut self, definition: &PredicateDefinition) -> Option<Predicate> {
        let predicate = self.errors.collect(Predicate::compile(definition))?;
        self.needs(predicate.needs());
        Some(predicate)
    }

    /// What sends exchanges to an endpoint.
    pub(crate) fn sink(&mut self, to: &EndpointDefinition) -> Option<Arc<dyn Processor>> {
        self.called(to, false)
    }

    /// What sends exchanges that have failed to an endpoint.
    pub(crate) fn dead_letter(&mut self, to: &EndpointDefinition) -> Option<Arc<dyn Processor>> {
        self.called(to, true)
    }

    fn called(&mut self, to: &EndpointDefinition, is_dead_letter: bool) -> Option<Arc<dyn Processor>> {
        let uri = self.errors.collect(EndpointUri::new(to))?;
        let (endpoint, processor) =
            self.errors.collect(self.environment.context(&self.findings).sink(&uri))?;
        self.agree(&uri, &*endpoint);
        if let Some(address) = endpoint.local_address() {
            if endpoint.is_synchronous(self.under_term) && (is_dead_letter || self.is_certain()) {
                self.certain.push(Certain::Call(self.calls.len()));
            }
            self.calls.push(LocalCall { address: address.into(), uri: to.uri.clone(), is_dead_letter });
        }
        Some(processor)
    }

    /// Notes what other endpoints with the same address must agree on.
    pub(crate) fn agree(&mut self, uri: &EndpointUri, endpoint: &dyn Endpoint) {
        if let (Some(address), Some((option, value))) = (endpoint.local_address(), endpoint.shared_option()) {
            self.shared.push(SharedOption { address: address.into(), uri: uri.clone(), option, value });
        }
    }

    /// A name of a header or the like, which is the same for every exchange.
    pub(crate) fn name(&mut self, name: &SourceText, what: &str) -> Option<SmolStr> {
        if let Some(range) = name.placeholder() {
            let message = format!("the name of a {what} is the same for every exchange");
            let error = ConfigError::at(name, range, message);
            self.error(
                error.help("a message cannot name it: write the name; the value may be a placeholder"),
            );
            return None;
        }
        if let Some(message) = name::check(name.as_str()) {
            self.error(ConfigError::in_text(name, format!("the name of a {what} {message}")));
            return None;
        }
        Some(name.as_str().into())
    }

    /// The place of the state of `step`, which has a key `id`. It persists under that id and the route's.
    #[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
    pub(crate) fn state(&mut self, step: &StepDefinition) -> Option<Arc<StateSlot>> {
        let Some(id) = step.arguments().text("id") else {
            let message = format!("`{}` keeps a state, and needs an id of its own", step.name());
            let error = ConfigError::in_text(&step.place, message);
            self.error(error.help("write `id = \"...\"`: the state is found again under it"));
            return None;
        };
        if let Some(message) = name::check(id.as_str()) {
            self.error(ConfigError::in_text(id, format!("the id of a step {message}")));
            return None;
        }
        if self.ids.contains(id) {
            self.error(ConfigError::in_text(id, format!("another step of this route has the id `{id}`")));
            return None;
        }
        if !self.is_named {
            let message = format!("a route in which `{}` keeps a state needs an id", step.name());
            let error = ConfigError::in_text(&step.place, message);
            self.error(error.help("the state is found again under it, and numbers of routes move"));
            return None;
        }
        self.ids.push(id.clone());
        Some(Arc::new(StateSlot::new(&self.route_id, id.as_str())))
    }
}
