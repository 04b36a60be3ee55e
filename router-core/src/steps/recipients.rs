//! What the steps have in common that send an exchange to endpoints which it names itself: `recipient_list`,
//! `routing_slip` and `dynamic_router`.
//!
//! Each endpoint is sent to by a block with one step, so that this is retried and handled as any other step. The URI is in a
//! property meanwhile.

use async_trait::async_trait;

use super::to_dynamic::{self, NoEndpoint};
use crate::error::{BoxError, ConfigError};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::outcome::{Cause, failure};
use crate::processor::process;
use crate::source::SourceText;
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyDescription, KeyKind, Runner, Runs, ScopeStep,
    StepDefinition, StepDescription, defaulted, required,
};
use crate::value::{Json, Value};
use crate::written::{DynamicDefinition, ExpressionDefinition};

/// How many endpoints a message names at most.
const MOST: usize = 1000;

pub(crate) const ALLOW: KeyDescription = required(
    "allow",
    KeyKind::Uris,
    "the endpoints that messages may choose: URIs, or how they begin, with a `*`",
);
pub(crate) const DELIMITER: KeyDescription =
    defaulted("delimiter", KeyKind::Name, ",", "what is between the URIs of a text");
pub(crate) const IGNORE: KeyDescription = defaulted(
    "ignore_invalid_endpoints",
    KeyKind::Flag,
    "false",
    "whether a URI that is not allowed or leads nowhere is passed over; otherwise that is an error",
);

/// The property that has the URI. It is this one for all of them: a message that is forked by one of them does not run
/// another one's block.
pub(crate) const PROPERTY: &str = "recipient";

/// Sends the exchange to the endpoint that the property names.
static RECIPIENT: StepDescription = StepDescription {
    name: "recipient",
    summary: "sends the exchange to an endpoint that it names",
    keys: &[],
    is_short: false,
    example: "",
    compile,
};

/// The block that sends to one endpoint.
pub(crate) fn block(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Block> {
    let arguments = step.arguments();
    let allow = arguments.texts("allow").unwrap_or_default();
    if allow.is_empty() {
        let error =
            ConfigError::in_text(&step.place, "`allow` names no endpoint, so no message could be sent");
        compiler.error(
            error.help("say which ones messages may choose: `allow = [\"direct:a\", \"direct:order-*\"]`"),
        );
        return None;
    }
    let uri = SourceText::computed(format!("${{property.{PROPERTY}}}"));
    let target = DynamicDefinition::from(ExpressionDefinition::Text(uri));
    let mut recipient = StepDefinition::new(&RECIPIENT, step.place.clone())
        .with("uri", Argument::Dynamic(Box::new(target)))
        .with("allow", Argument::Texts(allow.to_vec()));
    if arguments.flag("ignore_invalid_endpoints") == Some(true) {
        recipient = recipient.with("ignore_invalid_endpoints", Argument::Flag(true));
    }
    Some(compiler.block(&[recipient], "recipient", Runs::Sometimes))
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let target = to_dynamic::compile(step, compiler)?;
    match target {
        Action::Send(processor) if step.arguments().flag("ignore_invalid_endpoints") == Some(true) => {
            Some(Action::scope(Ignoring(processor)))
        }
        target => Some(target),
    }
}

/// Sends to an endpoint, if there is one.
struct Ignoring(std::sync::Arc<dyn crate::processor::Processor>);

#[async_trait]
impl ScopeStep for Ignoring {
    async fn run(&self, exchange: &mut Exchange, _: Runner<'_>) -> Result<Flow, Cause> {
        match process(&*self.0, exchange).await {
            Ok(()) => Ok(Flow::Next),
            Err(error) => {
                let failed = Failure::of(error);
                match failed.error.is::<NoEndpoint>() {
                    true => Ok(Flow::LeaveBlock),
                    false => Err(Cause::Failed(failed)),
                }
            }
        }
    }
}

/// The URIs that a value names: the elements of a list, or the parts of a text.
pub(crate) fn uris(value: Value, delimiter: &str) -> Result<Vec<Value>, Cause> {
    let uris = match value {
        Value::Null => Vec::new(),
        Value::Json(Json::List(items)) => items.iter().map(Value::from).collect(),
        value if !value.has_exact_text() => {
            return Err(failure(BoxError::from(Failure::data(
                "the URIs are no text: their bytes are not UTF-8",
            ))));
        }
        value => {
            let text = value.to_string();
            let parts =
                if delimiter.is_empty() { vec![text.as_str()] } else { text.split(delimiter).collect() };
            parts.into_iter().map(str::trim).filter(|uri| !uri.is_empty()).map(Value::from).collect()
        }
    };
    if uris.len() > MOST {
        let error = Failure::data(format!("a message names {} endpoints, more than {MOST}", uris.len()));
        return Err(error.into());
    }
    Ok(uris)
}

#[cfg(test)]
mod tests {
    use super::uris;
    use crate::value::{Json, Value};

    #[test]
    fn uris_are_the_elements_of_a_list_or_the_parts_of_a_text() {
        let list = Value::Json(Json::parse(r#"["direct:a,b", "direct:c"]"#).unwrap());
        for (value, delimiter, expected) in [
            (list, ",", vec!["direct:a,b", "direct:c"]),
            ("direct:a, direct:b,,".into(), ",", vec!["direct:a", "direct:b"]),
            ("direct:a,b;direct:c".into(), ";", vec!["direct:a,b", "direct:c"]),
            (Value::Null, ",", vec![]),
        ] {
            let found = uris(value, delimiter).unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        }
        assert!(uris("a,".repeat(1001).into(), ",").is_err());
    }
}
