//! Compiling: a definition and a registry make a [`Route`], or every error at once.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use smol_str::{SmolStr, ToSmolStr};
use tokio_util::task::TaskTracker;

use crate::component::{Endpoint, Processor};
use crate::definition::{
    DynamicDefinition, EndpointDefinition, ErrorHandlerDefinition, ExpressionDefinition, PredicateDefinition,
    ProcessDefinition, RouteDefinition, StepDefinition,
};
use crate::dynamic::{self, Allowed, AllowedEndpoint, DynamicTarget};
use crate::error::{ConfigError, ConfigErrors};
use crate::error_handler::ErrorHandler;
use crate::expression::{Expression, Predicate};
use crate::links::{CallKind, Links, LocalCall, SharedOption};
use crate::options::{parse_duration, without_unit};
use crate::pipeline::{Action, Branch, Pipeline, Program, Step};
use crate::source::SourceText;
use crate::surroundings::Surroundings;
use crate::uri::EndpointUri;

/// A compiled route: checked, frozen, ready to run.
pub(crate) struct Route {
    pub(crate) id: SmolStr,
    pub(crate) description: Option<String>,
    pub(crate) auto_startup: bool,
    pub(crate) startup_order: Option<i32>,
    pub(crate) from: EndpointUri,
    pub(crate) endpoint: Box<dyn Endpoint>,
    pub(crate) pipeline: Pipeline,
    pub(crate) links: Links,
}

/// A route that could not be compiled: all of its mistakes, and what is known of it nevertheless.
pub(crate) struct Mistaken {
    pub(crate) errors: ConfigErrors,
    pub(crate) links: Links,
}

/// Compiles a route of this id, and returns it with the warnings about it.
pub(crate) fn compile(
    surroundings: &Surroundings,
    definition: &RouteDefinition,
    id: SmolStr,
) -> Result<(Route, ConfigErrors), Box<Mistaken>> {
    let mut compiler = Compiler {
        surroundings,
        route_id: id.clone(),
        errors: ConfigErrors::default(),
        warnings: RefCell::default(),
        calls: Vec::new(),
        shared: Vec::new(),
        conditions: 0,
    };
    if let Some(text) = definition.id.as_ref().filter(|text| text.as_str().trim().is_empty()) {
        compiler.errors.push(ConfigError::at(text, 0..text.as_str().len(), "a route id cannot be empty"));
    }
    if let Some(text) = &definition.id
        && let Some(range) = placeholder(text)
    {
        let error = ConfigError::at(text, range, "a placeholder is not replaced here");
        compiler.errors.push(error.help("a route has one id: no message chooses it"));
    }
    let source = definition.from.as_ref().and_then(|from| compiler.source(from));
    if let (Some((from, endpoint)), None) = (&source, &definition.id)
        && endpoint.keeps_state(false)
    {
        let error = from.error_in_whole("this route keeps a position, so it needs an `id`");
        compiler
            .errors
            .push(error.help("by its id it finds the position again, whatever other routes there are"));
    }
    let steps = compiler.steps(&definition.steps, "step ");
    let error_handler = compiler.error_handler(definition.error_handler.as_ref());
    let Compiler { mut errors, warnings, calls, shared, .. } = compiler;
    errors.extend(warnings.into_inner());
    let errors = errors.in_route(&id);
    let linked = source
        .as_ref()
        .map(|(from, endpoint)| (from.clone(), endpoint.local_address().map(ToSmolStr::to_smolstr)))
        .ok_or_else(|| {
            let from = definition.from.as_ref().map(|from| from.uri.clone());
            from.unwrap_or_else(|| SourceText::computed(""))
        });
    let links = Links { route: id.clone(), source: linked, calls, shared };
    let (false, Some((from, endpoint))) = (errors.has_errors(), source) else {
        return Err(Box::new(Mistaken { errors, links }));
    };
    let in_flight = TaskTracker::new();
    in_flight.close();
    let program = Program {
        route_id: id.clone(),
        node: surroundings.node.clone(),
        dropped: surroundings.dropped.clone(),
        steps,
        error_handler,
        state: OnceLock::new(),
        in_flight,
        note: Mutex::new(None),
        metrics: OnceLock::new(),
    };
    let route = Route {
        id,
        description: definition.description.clone(),
        auto_startup: definition.auto_startup,
        startup_order: definition.startup_order,
        from,
        endpoint,
        pipeline: Pipeline::new(Arc::new(program)),
        links,
    };
    Ok((route, errors))
}

/// One run of the compiler over one route: it goes on after an error, to find the others too.
struct Compiler<'a> {
    surroundings: &'a Surroundings,
    route_id: SmolStr,
    errors: ConfigErrors,
    warnings: RefCell<ConfigErrors>,
    calls: Vec<LocalCall>,
    shared: Vec<SharedOption>,
    /// How many steps so far, before or around the present one, may keep an exchange from getting there.
    conditions: usize,
}

impl Compiler<'_> {
    fn source(&mut self, from: &EndpointDefinition) -> Option<(EndpointUri, Box<dyn Endpoint>)> {
        let uri = self.errors.collect(EndpointUri::new(from))?;
        let endpoint = self.errors.collect(self.surroundings.context(&self.warnings).source(&uri))?;
        self.agree(&uri, &*endpoint);
        Some((uri, endpoint))
    }

    fn sink(&mut self, to: &EndpointDefinition) -> Option<Arc<dyn Processor>> {
        let kind = if self.conditions == 0 { CallKind::Always } else { CallKind::Sometimes };
        self.called(to, kind)
    }

    fn called(&mut self, to: &EndpointDefinition, kind: CallKind) -> Option<Arc<dyn Processor>> {
        let uri = self.errors.collect(EndpointUri::new(to))?;
        let (endpoint, processor) =
            self.errors.collect(self.surroundings.context(&self.warnings).sink(&uri))?;
        self.agree(&uri, &*endpoint);
        if let Some(address) = endpoint.local_address() {
            let kind = if endpoint.is_synchronous() { kind } else { CallKind::Queued };
            self.calls.push(LocalCall { address: address.into(), uri, kind });
        }
        Some(processor)
    }

    /// Notes what other endpoints with its address must agree on.
    fn agree(&mut self, uri: &EndpointUri, endpoint: &dyn Endpoint) {
        if let (Some(address), Some((option, value))) = (endpoint.local_address(), endpoint.shared_option()) {
            self.shared.push(SharedOption { address: address.into(), uri: uri.clone(), option, value });
        }
    }

    fn dynamic(&mut self, definition: &DynamicDefinition) -> Option<Action> {
        // What is the same for every exchange is checked now, like any other target.
        if let Some(uri) = dynamic::constant(definition) {
            return self
                .sink(&EndpointDefinition { uri, options: definition.options.clone() })
                .map(Action::Send);
        }
        let allowed = definition.allow.iter().map(|text| self.allowed(text)).collect::<Vec<_>>();
        let named = Allowed::new(allowed.into_iter().collect::<Option<Vec<_>>>()?);
        let context = self.surroundings.context(&self.warnings);
        let target = DynamicTarget::compile(definition, &self.route_id, named, self.surroundings, &context);
        Some(Action::Send(Arc::new(self.errors.collect(target)?)))
    }

    fn allowed(&mut self, text: &SourceText) -> Option<AllowedEndpoint> {
        let registry = Arc::clone(&self.surroundings.registry);
        if let Some(prefix) = self.errors.collect(dynamic::prefix(text, &registry))? {
            return Some(prefix);
        }
        let processor = self.sink(&text.clone().into())?;
        let uri = self.errors.collect(EndpointUri::parse(text))?;
        Some(AllowedEndpoint::Exactly { uri, processor })
    }

    fn steps(&mut self, definitions: &[StepDefinition], place: &str) -> Box<[Step]> {
        let mut steps = Vec::with_capacity(definitions.len());
        for (index, definition) in definitions.iter().enumerate() {
            let number = format!("{place}{}", index + 1);
            let place = match definition {
                StepDefinition::To(to) => format!("{number} (to `{}`)", to.uri),
                other => format!("{number} ({})", other.name()),
            };
            if let Some(action) = self.action(definition, &number) {
                steps.push(Step { place: place.into(), action });
            }
        }
        steps.into()
    }

    fn action(&mut self, definition: &StepDefinition, place: &str) -> Option<Action> {
        Some(match definition {
            StepDefinition::To(uri) => Action::Send(self.sink(uri)?),
            StepDefinition::ToDynamic(definition) => self.dynamic(definition)?,
            StepDefinition::Log { message, level } => {
                Action::Log { message: self.expression(message)?, level: *level }
            }
            StepDefinition::Process(ProcessDefinition::Named(name)) => {
                Action::Send(self.errors.collect(self.surroundings.registry.processor(name))?)
            }
            StepDefinition::Process(ProcessDefinition::Processor(processor)) => {
                Action::Send(Arc::clone(processor))
            }
            StepDefinition::Process(ProcessDefinition::Function(function)) => {
                Action::Call(Arc::clone(function))
            }
            StepDefinition::SetBody(value) => Action::SetBody(self.expression(value)?),
            StepDefinition::SetHeader { name, value } => {
                Action::SetHeader { name: self.name(name, "header")?, value: self.expression(value)? }
            }
            StepDefinition::RemoveHeader(name) => Action::RemoveHeader(self.name(name, "header")?),
            StepDefinition::SetProperty { name, value } => {
                Action::SetProperty { name: self.name(name, "property")?, value: self.expression(value)? }
            }
            StepDefinition::Filter(predicate) => {
                self.conditions += 1;
                Action::Filter(self.predicate(predicate)?)
            }
            StepDefinition::Choice { when, otherwise } => {
                let before = self.conditions;
                self.conditions += 1;
                let mut branches = Vec::with_capacity(when.len() + 1);
                for (index, branch) in when.iter().enumerate() {
                    let predicate = self.predicate(&branch.predicate);
                    let steps = self.steps(&branch.steps, &format!("{place}, when {}, step ", index + 1));
                    branches.push(Branch { predicate, steps });
                }
                let steps = self.steps(otherwise, &format!("{place}, otherwise, step "));
                branches.push(Branch { predicate: None, steps });
                // A `filter` of a branch ends with the branch, a `stop` does not.
                self.conditions = before + usize::from(stops(definition));
                Action::Choice(branches.into())
            }
            StepDefinition::Delay(duration) => Action::Delay(self.delay(duration)?),
            StepDefinition::Stop => {
                self.conditions += 1;
                Action::Stop
            }
        })
    }

    fn expression(&mut self, definition: &ExpressionDefinition) -> Option<Expression> {
        self.errors.collect(Expression::compile(definition))
    }

    fn predicate(&mut self, definition: &PredicateDefinition) -> Option<Predicate> {
        self.errors.collect(Predicate::compile(definition))
    }

    fn name(&mut self, name: &SourceText, what: &str) -> Option<SmolStr> {
        if let Some(range) = placeholder(name) {
            let message = format!("the name of a {what} is the same for every exchange");
            let error = ConfigError::at(name, range, message);
            self.errors
                .push(error.help("a message cannot name it: write the name; the value may be a placeholder"));
            return None;
        }
        if name.as_str().is_empty() {
            self.errors.push(ConfigError::at(name, 0..0, format!("the name of a {what} cannot be empty")));
            return None;
        }
        Some(name.as_str().into())
    }

    /// A delay that is known now is checked now.
    fn delay(&mut self, duration: &ExpressionDefinition) -> Option<Expression> {
        let expression = self.expression(duration)?;
        if let Expression::Constant(value) = &expression
            && let Err(expected) = parse_duration(&value.to_smolstr())
        {
            let message = format!("`delay` takes {expected}");
            self.errors.push(match duration {
                ExpressionDefinition::Text(text) => ConfigError::at(text, 0..text.as_str().len(), message),
                _ => ConfigError::new(message),
            });
            return None;
        }
        if let ExpressionDefinition::Text(text) = duration {
            let found =
                |message| ConfigError::at(text, 0..text.as_str().len(), format!("`delay`: {message}"));
            if let Some(warning) = without_unit(text.as_str(), found) {
                self.errors.push(warning);
            }
        }
        Some(expression)
    }

    fn error_handler(&mut self, definition: Option<&ErrorHandlerDefinition>) -> ErrorHandler {
        let Some(definition) = definition else { return ErrorHandler::default() };
        let dead_letter = definition.dead_letter.as_ref();
        let dead_letter = dead_letter.and_then(|endpoint| self.called(endpoint, CallKind::DeadLetter));
        ErrorHandler::new(definition.clone(), dead_letter)
    }
}

/// The first placeholder in a text that has none.
fn placeholder(text: &SourceText) -> Option<Range<usize>> {
    let text = text.as_str();
    let start = text.find("${")?;
    let end = text[start..].find('}').map_or(text.len(), |length| start + length + 1);
    Some(start..end)
}

/// Whether an exchange may end its way through the route in this step.
fn stops(definition: &StepDefinition) -> bool {
    match definition {
        StepDefinition::Stop => true,
        StepDefinition::Choice { when, otherwise } => {
            when.iter().flat_map(|branch| &branch.steps).chain(otherwise).any(stops)
        }
        _ => false,
    }
}
