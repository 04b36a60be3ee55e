//! `routing_slip`: sends the exchange to each endpoint that the message names, one after the other.
//!
//! ```
//! use router_core::builder::{RoutingSlip, Steps, from};
//!
//! from("direct:order").routing_slip(RoutingSlip::new("${header.slip}").allow(["direct:check", "direct:order-*"]));
//! ```
//!
//! ```toml
//! { routing_slip = { uris = "${header.slip}", allow = ["direct:check", "direct:order-*"] } }
//! ```
//!
//! The URIs are a list, or a text with a delimiter between them, and are read once, before the first one. It is the exchange
//! itself that is sent, so each endpoint gets what the one before has made of it. A URI that is not allowed is an error of the
//! kind `data`, or passed over. The property `recipient` has the present one.

use async_trait::async_trait;
use smol_str::SmolStr;

use super::recipient_list::texts;
use super::recipients::{ALLOW, DELIMITER, IGNORE, PROPERTY, block, uris};
use crate::exchange::Exchange;
use crate::expression::Expression;
use crate::outcome::{Cause, failure};
use crate::source::SourceText;
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, ScopeStep, StepDefinition, StepDescription,
    required,
};
use crate::written::IntoExpression;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "routing_slip",
    summary: "sends the exchange to each endpoint that the message names, one after the other",
    keys: &[
        required("uris", KeyKind::Template, "the URIs: a list, or a text with a delimiter between them"),
        ALLOW,
        DELIMITER,
        IGNORE,
    ],
    is_short: false,
    example: r#"{ routing_slip = { uris = "${header.slip}", allow = ["direct:check", "direct:order-*"] } }"#,
    compile,
};

/// Which endpoints a `routing_slip` sends to, in Rust.
#[must_use = "it says which endpoints a `routing_slip` sends to"]
#[derive(Debug)]
pub struct RoutingSlip(StepDefinition);

impl RoutingSlip {
    /// The URIs: a list, or a text with commas between them.
    #[track_caller]
    pub fn new(uris: impl IntoExpression) -> Self {
        let uris = Argument::Expression(uris.into_expression());
        Self(StepDefinition::in_code(&DESCRIPTION).with("uris", uris))
    }

    /// The endpoints that messages may choose: URIs, or how they begin, with a `*` behind it.
    #[track_caller]
    pub fn allow<T: Into<SmolStr>>(self, uris: impl IntoIterator<Item = T>) -> Self {
        Self(self.0.with("allow", texts(uris)))
    }

    /// What is between the URIs of a text.
    #[track_caller]
    pub fn delimiter(self, delimiter: impl Into<SmolStr>) -> Self {
        Self(self.0.with("delimiter", Argument::Text(SourceText::from_code(delimiter))))
    }

    /// Passes over URIs that are not allowed or lead nowhere.
    pub fn ignore_invalid_endpoints(self) -> Self {
        Self(self.0.with("ignore_invalid_endpoints", Argument::Flag(true)))
    }

    /// The step.
    pub(crate) fn step(self) -> StepDefinition {
        self.0
    }
}

struct Slip {
    uris: Expression,
    delimiter: String,
    block: Block,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let uris = compiler.expression(arguments.expression("uris")?);
    let delimiter = arguments.text("delimiter").map_or(",", |text| text.as_str()).to_owned();
    let block = block(step, compiler);
    Some(Action::scope(Slip { uris: uris?, delimiter, block: block? }))
}

#[async_trait]
impl ScopeStep for Slip {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let value = self.uris.evaluate(exchange, runner.scope()).map_err(failure)?;
        for uri in uris(value, &self.delimiter)? {
            exchange.properties.set(PROPERTY, uri);
            match Flow::after(runner.block(self.block, exchange).await?) {
                Flow::Next => {}
                end => return Ok(end),
            }
        }
        exchange.properties.remove(PROPERTY);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::RoutingSlip;
    use crate::builder::Steps;
    use crate::steps::tests::compile;

    #[test]
    fn what_is_allowed_is_checked_before_anything_runs() {
        let nothing = RoutingSlip::new("${header.slip}");
        let errors = compile(|steps| steps.routing_slip(nothing)).err().unwrap().to_string();
        assert!(errors.contains("`allow` names no endpoint"), "{errors}");
    }
}
