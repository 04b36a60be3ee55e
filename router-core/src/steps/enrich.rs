//! `enrich`: asks an endpoint for something, and adds that to the message.
//!
//! ```
//! use router_core::builder::{Enrich, Steps, dynamic, from};
//!
//! from("direct:order").enrich(Enrich::from("http:localhost/stock/${header.id}").header("stock"));
//! from("direct:order").enrich(Enrich::from(dynamic("direct:${header.kind}").allow(["direct:a"])).property("found"));
//! ```
//!
//! ```toml
//! { enrich = "http:localhost/stock/${header.id}" }
//! { enrich = { uri = "http:localhost/stock/${header.id}", into_header = "stock" } }
//! ```
//!
//! The endpoint gets a fork of the exchange, with the same message. What this has become replaces the message, as in Camel;
//! with `into_header` or `into_property` its body is kept there, and the message stays as it was. The endpoint is written as
//! in `to_dynamic`.

use std::sync::Arc;

use async_trait::async_trait;
use smol_str::SmolStr;

use super::to_dynamic::{self, ALLOW, URI};
use crate::body::Needs;
use crate::error::{BoxError, ConfigError};
use crate::exchange::Exchange;
use crate::processor::{Processor, process};
use crate::source::SourceText;
use crate::step::{Action, Argument, Compiler, KeyKind, StepDefinition, StepDescription, optional};
use crate::value::Value;
use crate::written::IntoDynamic;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "enrich",
    summary: "asks an endpoint for something, and adds that to the message",
    keys: &[
        URI,
        ALLOW,
        optional("into_header", KeyKind::Name, "the header that gets the body of the response"),
        optional("into_property", KeyKind::Name, "the property that gets the body of the response"),
    ],
    is_short: true,
    example: r#"{ enrich = { uri = "http:localhost/stock/${header.id}", into_header = "stock" } }"#,
    compile,
};

/// What an `enrich` asks, and where the response goes, in Rust.
#[must_use = "it says what an `enrich` asks"]
#[derive(Debug)]
pub struct Enrich(StepDefinition);

impl Enrich {
    /// Asks an endpoint, as in `to_dynamic`.
    #[track_caller]
    pub fn from(target: impl IntoDynamic) -> Self {
        let mut target = target.into_dynamic();
        let allow = std::mem::take(&mut target.allow);
        let step = StepDefinition::in_code(&DESCRIPTION).with("uri", Argument::Dynamic(Box::new(target)));
        Self(if allow.is_empty() { step } else { step.with("allow", Argument::Texts(allow)) })
    }

    /// Keeps the body of the response in a header.
    #[track_caller]
    pub fn header(self, name: impl Into<SmolStr>) -> Self {
        Self(self.0.with("into_header", Argument::Text(SourceText::from_code(name))))
    }

    /// Keeps the body of the response in a property.
    #[track_caller]
    pub fn property(self, name: impl Into<SmolStr>) -> Self {
        Self(self.0.with("into_property", Argument::Text(SourceText::from_code(name))))
    }

    /// The step.
    pub(crate) fn step(self) -> StepDefinition {
        self.0
    }
}

struct Enriched {
    asked: Arc<dyn Processor>,
    into: Response,
}

/// What the response becomes.
enum Response {
    Message,
    Header(SmolStr),
    Property(SmolStr),
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let into = match (arguments.text("into_header"), arguments.text("into_property")) {
        (None, None) => Some(Response::Message),
        (Some(name), None) => compiler.name(name, "header").map(Response::Header),
        (None, Some(name)) => compiler.name(name, "property").map(Response::Property),
        (Some(_), Some(name)) => {
            compiler.error(ConfigError::in_text(
                name,
                "`enrich` takes `into_header` or `into_property`, not both",
            ));
            None
        }
    };
    let Action::Send(asked) = to_dynamic::compile(step, compiler)? else { return None };
    Some(Action::send(Enriched { asked, into: into? }))
}

#[async_trait]
impl Processor for Enriched {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let mut fork = exchange.fork_inside();
        process(&*self.asked, &mut fork).await?;
        if matches!(self.into, Response::Message) {
            exchange.message = fork.message;
            return Ok(());
        }
        let mut body = fork.message.body;
        body.make_ready(Needs::Whole).await?;
        let value = match body.as_json() {
            Some(json) => Value::from(json),
            None => body.to_value()?,
        };
        match &self.into {
            Response::Header(name) => exchange.message.headers.set(name.clone(), value),
            Response::Property(name) => exchange.properties.set(name.clone(), value),
            Response::Message => {}
        }
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Enrich;
    use crate::builder::Steps;
    use crate::steps::tests::compile;

    #[test]
    fn errors_of_the_endpoint_and_of_the_names_are_found_before_anything_runs() {
        let both = Enrich::from("none:a").header("a").property("b");
        let errors = compile(|steps| steps.enrich(both)).err().unwrap().to_string();
        assert!(errors.contains("not both") && errors.contains("none"), "{errors}");
        let name = Enrich::from("none:a").header("${body}");
        let errors = compile(|steps| steps.enrich(name)).err().unwrap().to_string();
        assert!(errors.contains("the same for every exchange"), "{errors}");
    }
}
