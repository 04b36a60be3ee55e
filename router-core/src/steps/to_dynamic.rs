//! `to_dynamic`: sends the exchange to an endpoint that depends on it.
//!
//! ```
//! use router_core::builder::{Steps, dynamic, from};
//!
//! from("timer:clock").to_dynamic("http:localhost/orders/${header.id}");
//! from("timer:clock").to_dynamic(dynamic("direct:${header.kind}").allow(["direct:order", "direct:invoice"]));
//! ```
//!
//! ```toml
//! { to_dynamic = "http:localhost/orders/${header.id}" }
//! { to_dynamic = { uri = "direct:${header.kind}", allow = ["direct:order", "direct:invoice"] } }
//! ```
//!
//! What a message says is a value there, never a route: the URI is taken apart once, before any value is put
//! into it, and what a message may choose beyond values is what the step allows.

mod allow;
mod template;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use crate::body::Needs;
use crate::component::{BuildContext, Findings, Processor};
use crate::environment::Environment;
use crate::error::{BoxError, ConfigError, ConfigErrors};
use crate::exchange::Exchange;
use crate::expression::{Expression, Piece, Scope, pieces};
use crate::failure::Failure;
use crate::options::PathKind;
use crate::processor::process;
use crate::source::SourceText;
use crate::step::{
    Action, Compiler, KeyDescription, KeyKind, StepDefinition, StepDescription, optional, required,
};
use crate::uri::EndpointUri;
use crate::written::{DynamicDefinition, EndpointDefinition, ExpressionDefinition};

use allow::{Allowed, AllowedEndpoint, prefix};
use template::Template;

/// The endpoint of a step that sends to one that depends on the message.
pub(super) const URI: KeyDescription = required(
    "uri",
    KeyKind::DynamicEndpoint,
    "the URI, whose placeholders are values; other keys are options beside it",
);

/// Which ones that may be.
pub(super) const ALLOW: KeyDescription = optional(
    "allow",
    KeyKind::Uris,
    "the endpoints that messages may choose: URIs, or how they begin, with a `*`",
);

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "to_dynamic",
    summary: "sends the exchange to an endpoint that depends on it",
    keys: &[URI, ALLOW],
    is_short: true,
    example: r#"{ to_dynamic = "http:localhost/orders/${header.id}" }"#,
    compile,
};

pub(crate) fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let definition = step.arguments().dynamic("uri")?;
    // What is the same for every exchange is checked now, like any other target.
    if let Some(uri) = constant(definition) {
        let endpoint = EndpointDefinition { uri, options: definition.options.clone() };
        return compiler.sink(&endpoint).map(Action::Send);
    }
    let allow = step.arguments().texts("allow").unwrap_or_default();
    let allowed = allow.iter().map(|text| compiler.way(|compiler| allowed(text, compiler)));
    let (allowed, ways): (Vec<_>, Vec<_>) = allowed.collect();
    if !ways.is_empty() {
        compiler.takes_one_of(ways);
    }
    let allowed = Allowed::new(allowed.into_iter().collect::<Option<Vec<_>>>()?);
    let context = compiler.environment.context(&compiler.findings);
    let target =
        DynamicTarget::compile(definition, &compiler.route_id, allowed, compiler.environment, &context);
    Some(Action::send(compiler.errors.collect(target)?))
}

/// An entry of `allow`.
fn allowed(text: &SourceText, compiler: &mut Compiler<'_>) -> Option<AllowedEndpoint> {
    let prefix = prefix(text, &compiler.environment.registry);
    if let Some(prefix) = compiler.errors.collect(prefix)? {
        return Some(prefix);
    }
    let processor = compiler.sink(&text.clone().into())?;
    let uri = compiler.errors.collect(EndpointUri::parse(text))?;
    Some(AllowedEndpoint::Exactly { uri, processor })
}

/// The endpoint of a step, as far as it is the same for all exchanges, and the processors that were made for
/// the values of the others so far. So processors are kept by the constant part of the target, which is this step's alone,
/// and in it by the values: no value leads to a processor of another constant part.
struct DynamicTarget {
    route_id: SmolStr,
    target: Target,
    allowed: Allowed,
    environment: Environment,
    processors: Mutex<HashMap<Box<[SmolStr]>, Made>>,
}

/// What is the same for all exchanges.
enum Target {
    /// All but the values in it.
    Template(Template),
    /// Nothing: the exchange gives the whole URI.
    Whole(Expression),
}

/// A processor, and the routes of this process that it calls, if it does.
#[derive(Clone)]
struct Made {
    processor: Arc<dyn Processor>,
    address: Option<SmolStr>,
}

/// Whether nothing in the target depends on the exchange.
fn constant(definition: &DynamicDefinition) -> Option<SourceText> {
    let is_constant = |text: &SourceText| {
        let pieces = pieces(text.as_str(), 0..text.as_str().len(), &[]);
        !pieces.iter().any(|piece| matches!(piece, Piece::Placeholder(_)))
    };
    let options = definition.options.iter().all(|(_, value)| is_constant(value));
    match &definition.uri {
        ExpressionDefinition::Text(text) if options && is_constant(text) => Some(text.clone()),
        ExpressionDefinition::Constant(value) if options => Some(SourceText::computed(value.to_string())),
        _ => None,
    }
}

impl DynamicTarget {
    /// How many processors are kept, as in Camel. When one more is needed, all are made anew: that is
    /// slow only for routes that never repeat a value, which no cache would help.
    const CACHE_SIZE: usize = 1000;

    /// Compiles a target that is not [`constant`].
    fn compile(
        definition: &DynamicDefinition,
        route_id: &SmolStr,
        allowed: Allowed,
        environment: &Environment,
        context: &BuildContext<'_>,
    ) -> Result<Self, ConfigErrors> {
        let target = match &definition.uri {
            ExpressionDefinition::Text(text) if !is_one_placeholder(text) => {
                let template = Template::compile(text, &definition.options, context)?;
                template.check_allowed(&allowed)?;
                Target::Template(template)
            }
            uri => Target::Whole(whole(uri, definition, &allowed)?),
        };
        let (route_id, environment) = (route_id.clone(), environment.clone());
        Ok(Self { route_id, target, allowed, environment, processors: Mutex::default() })
    }

    /// What it needs of the body.
    pub(crate) fn needs(&self) -> Needs {
        match &self.target {
            Target::Template(template) => template.needs(),
            Target::Whole(uri) => uri.needs(),
        }
    }

    /// The processor for this exchange.
    fn resolve(&self, exchange: &Exchange) -> Result<Arc<dyn Processor>, BoxError> {
        let Environment { node, spool, .. } = &self.environment;
        let memory_limit = spool.settings().memory_limit;
        let scope = Scope { route_id: &self.route_id, node, memory_limit };
        let values = match &self.target {
            Target::Template(template) => template.values(exchange, scope)?,
            Target::Whole(uri) => {
                let uri = uri.evaluate(exchange, scope)?;
                if !uri.has_exact_text() {
                    return Err(Failure::data("the URI is no text: its bytes are not UTF-8").into());
                }
                [uri.to_smolstr()].into()
            }
        };
        let mut processors = self.processors.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match processors.get(&values) {
            Some(made) => made.clone(),
            None => {
                let made = self.make(&values)?;
                if processors.len() >= Self::CACHE_SIZE {
                    processors.clear();
                }
                processors.insert(values, made.clone());
                made
            }
        };
        drop(processors);
        // Asked each time: a queue that nothing consumes any more would swallow what is sent to it.
        self.check_consumed(made.address.as_deref())?;
        Ok(made.processor)
    }

    fn make(&self, values: &[SmolStr]) -> Result<Made, BoxError> {
        let uri = match &self.target {
            Target::Template(template) => {
                let uri = template.uri(values)?;
                if !self.allowed.is_empty() && !self.allowed.permits(&uri, template.kind()) {
                    return Err(not_allowed(uri.as_str()));
                }
                uri
            }
            Target::Whole(_) => {
                let text = values.first().map_or("", SmolStr::as_str);
                let uri = EndpointUri::parse(&SourceText::computed(text)).map_err(|_| not_allowed(text))?;
                if let Some(processor) = self.allowed.exactly(&uri) {
                    return Ok(Made { processor, address: None });
                }
                if !uri.options().is_empty() {
                    return Err(not_allowed(text));
                }
                if !self.allowed.permits(&uri, self.kind(&uri)?) {
                    return Err(not_allowed(text));
                }
                uri
            }
        };
        let decoded = uri.decoded_path()?;
        let address =
            (self.kind(&uri)? == PathKind::Route).then(|| format_smolstr!("{}:{decoded}", uri.scheme()));
        // Asked before the component is: it would keep a place for each name that messages think of.
        self.check_consumed(address.as_deref())?;
        // What the author wrote was checked when it was compiled, and warned of.
        let findings = RefCell::<Findings>::default();
        let (_, processor) = self.environment.context(&findings).sink(&uri)?;
        findings.into_inner().run_effects();
        Ok(Made { processor, address })
    }

    fn kind(&self, uri: &EndpointUri) -> Result<PathKind, ConfigError> {
        Ok(self.environment.registry.component(uri)?.description().path.kind)
    }

    fn check_consumed(&self, address: Option<&str>) -> Result<(), BoxError> {
        match address.filter(|address| !self.environment.is_consumed(address)) {
            Some(address) => Err(format!("no route consumes `{}`", shown(address)).into()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Processor for DynamicTarget {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let needs = self.needs();
        exchange.message.body.make_ready(needs).await?;
        let processor = self.resolve(exchange).map_err(|error| Failure::data(NoEndpoint(error)))?;
        process(&*processor, exchange).await
    }

    fn takes_files(&self) -> bool {
        true
    }
}

/// A message names an endpoint that is not allowed, or that there is not.
#[derive(Debug)]
pub(crate) struct NoEndpoint(BoxError);

impl fmt::Display for NoEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for NoEndpoint {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn not_allowed(uri: &str) -> BoxError {
    format!("`{}` is not among the endpoints that this step allows", shown(uri)).into()
}

/// What a message says, for an error.
fn shown(text: &str) -> String {
    /// A longer text is not shown as a whole.
    const SHOWN: usize = 80;
    let cut = text.chars().take(SHOWN).collect::<String>();
    let rest = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{rest}", cut.escape_debug())
}

fn is_one_placeholder(text: &SourceText) -> bool {
    let pieces = pieces(text.as_str(), 0..text.as_str().len(), &[]);
    matches!(pieces.as_slice(), [Piece::Placeholder(_)])
}

/// A URI that the exchange gives as a whole.
fn whole(
    uri: &ExpressionDefinition,
    definition: &DynamicDefinition,
    allowed: &Allowed,
) -> Result<Expression, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let expression = errors.collect(Expression::compile(uri));
    let error = |message: &str| match uri {
        ExpressionDefinition::Text(text) => ConfigError::in_text(text, message),
        _ => ConfigError::new(message),
    };
    if allowed.is_empty() {
        let error = error("a message would choose any endpoint, with any options");
        errors.push(error.help(
            "say which ones it may choose: `{ uri = \"${header.target}\", allow = [\"direct:a\", \"direct:order-*\"] }`, \
             in Rust `dynamic(...).allow([...])`",
        ));
    }
    if let Some((name, _)) = definition.options.first() {
        let message = "an option beside a URI that a message gives as a whole";
        let error = ConfigError::in_text(name, message);
        errors.push(error.help("write the options into the URIs of `allow`"));
    }
    errors.into_result()?;
    expression.ok_or_else(ConfigErrors::default)
}
