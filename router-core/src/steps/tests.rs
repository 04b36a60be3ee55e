//! For the tests of steps: runs them without a router.

use std::sync::Arc;

use smol_str::SmolStr;

use crate::builder::{RouteBuilder, from};
use crate::component::Registry;
use crate::definition::RouteDefinition;
use crate::environment::Environment;
use crate::error::{ConfigErrors, Severity};
use crate::error_handler::ErrorHandler;
use crate::exchange::Exchange;
use crate::outcome::{Outcome, RouteError};
use crate::pipeline::{Pipeline, Program};
use crate::processor::Processor;
use crate::step::{Compiled, Compiler};

/// The steps of a route `a`, compiled.
pub(crate) fn compile(steps: impl FnOnce(RouteBuilder) -> RouteBuilder) -> Result<Pipeline, ConfigErrors> {
    compile_with(None, steps)
}

/// The same, with a dead letter endpoint.
pub(crate) fn compile_with(
    dead_letter: Option<Arc<dyn Processor>>,
    steps: impl FnOnce(RouteBuilder) -> RouteBuilder,
) -> Result<Pipeline, ConfigErrors> {
    let route: RouteDefinition = steps(from("none:here").id("a")).into();
    let environment = Environment {
        registry: Arc::new(Registry::default()),
        cluster: None,
        node: SmolStr::new_static("node"),
        dropped: Default::default(),
        missing_secrets: Severity::Error,
        spool: Default::default(),
        consumed: Arc::default(),
    };
    let mut compiler = Compiler::new(&environment, "a".into(), true);
    let block = compiler.steps(&route.steps);
    let error_handler = route.error_handler.clone();
    let error_handler = error_handler
        .map(|handler| ErrorHandler::compile(*handler, dead_letter).unwrap())
        .unwrap_or_default();
    let Compiled { blocks, errors, .. } = compiler.finish();
    errors.into_result()?;
    let Environment { node, dropped, spool, .. } = environment;
    let bodies = spool.settings();
    let program = Program::new("a".into(), node, bodies, dropped, (block, blocks), error_handler);
    Ok(Pipeline::new(Arc::new(program)))
}

/// Runs steps on an empty exchange.
pub(crate) async fn run(
    steps: impl FnOnce(RouteBuilder) -> RouteBuilder,
) -> (Exchange, Result<Outcome, RouteError>) {
    let pipeline = compile(steps).unwrap();
    let mut exchange = Exchange::new(());
    let end = pipeline.run(&mut exchange).await;
    (exchange, end)
}

/// The text of a header; empty where it is not set.
pub(crate) fn header(exchange: &Exchange, name: &str) -> String {
    exchange.message.headers.get(name).map(ToString::to_string).unwrap_or_default()
}
