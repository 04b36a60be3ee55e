//! Compiling: a definition and a registry make a [`Route`], or every error at once.

use std::path::Path;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::component::{Endpoint, Findings};
use crate::definition::{EndpointDefinition, ErrorHandlerDefinition, RouteDefinition};
use crate::directory;
use crate::environment::Environment;
use crate::error::{ConfigError, ConfigErrors};
use crate::error_handler::ErrorHandler;
use crate::links::{Links, StateFile};
use crate::name;
use crate::options::OptionKind;
use crate::pipeline::{Pipeline, Program};
use crate::source::SourceText;
use crate::state::FileState;
use crate::step::{Compiled, Compiler};
use crate::uri::EndpointUri;

/// A compiled route: checked, frozen, ready to run.
pub(crate) struct Route {
    pub(crate) endpoint: Box<dyn Endpoint>,
    pub(crate) pipeline: Pipeline,
    pub(crate) links: Links,
}

impl Route {
    pub(crate) fn id(&self) -> &SmolStr {
        &self.links.route
    }
}

/// A route that could not be compiled: all of its errors, and what is known of it nevertheless.
pub(crate) struct FailedRoute {
    pub(crate) errors: ConfigErrors,
    pub(crate) links: Links,
}

/// Compiles a route of this id, and returns it with the warnings about it, and what is to be done when it is taken.
pub(crate) fn compile(
    environment: &Environment,
    definition: &RouteDefinition,
    id: SmolStr,
) -> Result<(Route, Findings), Box<FailedRoute>> {
    let mut compiler = Compiler::new(environment, id.clone(), definition.id.is_some());
    if let Some(text) = &definition.id
        && let Some(message) = name::check(text.as_str())
    {
        let error = ConfigError::in_text(text, format!("a route id {message}"));
        compiler.errors.push(error.help("it is in logs, metrics and the names of states"));
    }
    if let Some(text) = &definition.id
        && let Some(range) = text.placeholder()
    {
        let error = ConfigError::at(text, range, "a placeholder is not replaced here");
        compiler.errors.push(error.help("a route has one id: no message chooses it"));
    }
    let source = definition.from.as_ref().and_then(|from| source(from, &mut compiler));
    if let (Some((from, endpoint)), None) = (&source, &definition.id)
        && endpoint.keeps_state(false)
    {
        let error = from.error_in_whole("this route keeps a position, so it needs an `id`");
        compiler.error(error.help("by its id it finds the position again, whatever other routes there are"));
    }
    let state_file = source.as_ref().and_then(|(from, _)| state_file(from, &mut compiler));
    compiler.under_term = source.as_ref().is_some_and(|(_, endpoint)| endpoint.has_term());
    let steps = compiler.steps(&definition.steps);
    let error_handler = error_handler(definition.error_handler.as_deref(), &mut compiler);
    let Compiled { blocks, errors, effects, calls, certain, shared } = compiler.finish();
    let errors = errors.in_route(&id);
    let from = definition.from.as_ref().map(|from| from.uri.clone());
    let links = Links {
        route: id.clone(),
        source: from.unwrap_or_else(|| SourceText::computed("")),
        source_has_errors: source.is_none(),
        address: source.as_ref().and_then(|(_, it)| it.local_address()).map(SmolStr::from),
        calls,
        certain,
        shared,
        state_file,
        taken: source.as_ref().and_then(|(_, endpoint)| endpoint.takes()).map(Box::new),
    };
    let (false, Some((_, endpoint))) = (errors.has_errors(), source) else {
        return Err(Box::new(FailedRoute { errors, links }));
    };
    let (node, dropped) = (environment.node.clone(), environment.dropped.clone());
    let bodies = environment.spool.settings();
    let program = Program::new(id, node, bodies, dropped, (steps, blocks), error_handler);
    let route = Route { endpoint, pipeline: Pipeline::new(Arc::new(program)), links };
    Ok((route, Findings { warnings: errors, effects }))
}

fn source(
    from: &EndpointDefinition,
    compiler: &mut Compiler<'_>,
) -> Option<(EndpointUri, Box<dyn Endpoint>)> {
    let uri = compiler.errors.collect(EndpointUri::new(from))?;
    let endpoint = compiler.environment.context(&compiler.findings).source(&uri);
    let endpoint = compiler.errors.collect(endpoint)?;
    compiler.agree(&uri, &*endpoint);
    Some((uri, endpoint))
}

/// The file in which the consumer keeps its position, if it does.
fn state_file(from: &EndpointUri, compiler: &mut Compiler<'_>) -> Option<Box<StateFile>> {
    let description = compiler.environment.registry.component(from).ok()?.description();
    let kind = |name: &str| description.option(name).map(|option| option.kind);
    let mut options = from.options().iter();
    let option = options.find(|option| matches!(kind(option.name.as_str()), Some(OptionKind::StateFile)))?;
    let text = option.value.decoded().ok()?;
    let path = Path::new(&*text);
    if let Err(why) = FileState::check(path, &compiler.route_id) {
        // It may be another host on which the routes are to run.
        compiler.error(option.value.error(why).severity(compiler.environment.missing_secrets));
    }
    // The same file in other words is the same.
    let path = directory::of_file(path).canonicalize().ok()?.join(path.file_name()?);
    Some(Box::new(StateFile { path, place: option.value.clone() }))
}

fn error_handler(definition: Option<&ErrorHandlerDefinition>, compiler: &mut Compiler<'_>) -> ErrorHandler {
    let Some(definition) = definition else { return ErrorHandler::default() };
    let dead_letter = definition.dead_letter.as_ref();
    let dead_letter = dead_letter.and_then(|endpoint| compiler.dead_letter(endpoint));
    let handler = ErrorHandler::compile(definition.clone(), dead_letter);
    compiler.errors.collect(handler).unwrap_or_default()
}
