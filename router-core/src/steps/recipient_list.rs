//! `recipient_list`: sends a fork of the exchange to each endpoint that the message names.
//!
//! ```
//! use router_core::builder::{Join, RecipientList, Steps, from};
//!
//! let recipients = RecipientList::new("${header.to}").allow(["direct:stock", "direct:order-*"]);
//! from("direct:order").recipient_list(recipients.parallel(4).join(Join::List));
//! ```
//!
//! ```toml
//! { recipient_list = { uris = "${header.to}", allow = ["direct:stock", "direct:order-*"], parallel = 4, join = "list" } }
//! ```
//!
//! The URIs are a list, or a text with a delimiter between them. A message chooses among the endpoints that `allow` names, as
//! in `to_dynamic`; a URI that is not among them is an error of the kind `data`, or passed over. Without `join`, the message
//! of the last fork becomes that of the exchange, as in Camel.

use async_trait::async_trait;

use super::forks::{
    ForkSource, Forks, JOIN_DELIMITER, JOIN_KEY, PARALLEL, STOP_ON_EXCEPTION, TIMEOUT, fork_options, join_key,
};
use super::recipients::{ALLOW, DELIMITER, IGNORE, PROPERTY, block, uris};
use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::expression::Expression;
use crate::outcome::{Cause, failure};
use crate::source::SourceText;
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, ScopeStep, StepDefinition, StepDescription,
    required,
};
use crate::value::Value;
use crate::written::IntoExpression;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "recipient_list",
    summary: "sends a fork of the exchange to each endpoint that the message names",
    keys: &[
        required("uris", KeyKind::Template, "the URIs: a list, or a text with a delimiter between them"),
        ALLOW,
        DELIMITER,
        IGNORE,
        PARALLEL,
        STOP_ON_EXCEPTION,
        TIMEOUT,
        join_key("last"),
        JOIN_DELIMITER,
        JOIN_KEY,
    ],
    is_short: false,
    example: r#"{ recipient_list = { uris = "${header.to}", allow = ["direct:stock", "direct:order-*"] } }"#,
    compile,
};

/// Which endpoints a `recipient_list` sends to, in Rust.
#[must_use = "it says which endpoints a `recipient_list` sends to"]
#[derive(Debug)]
pub struct RecipientList {
    arguments: Vec<(&'static str, Argument)>,
}

impl RecipientList {
    /// The URIs: a list, or a text with commas between them.
    #[track_caller]
    pub fn new(uris: impl IntoExpression) -> Self {
        Self { arguments: vec![("uris", Argument::Expression(uris.into_expression()))] }
    }

    /// The endpoints that messages may choose: URIs, or how they begin, with a `*` behind it.
    #[track_caller]
    pub fn allow<T: Into<smol_str::SmolStr>>(mut self, uris: impl IntoIterator<Item = T>) -> Self {
        self.arguments.push(("allow", texts(uris)));
        self
    }

    /// What is between the URIs of a text.
    #[track_caller]
    pub fn delimiter(mut self, delimiter: impl Into<smol_str::SmolStr>) -> Self {
        self.arguments.push(("delimiter", Argument::Text(SourceText::from_code(delimiter))));
        self
    }

    /// Passes over URIs that are not allowed or lead nowhere.
    pub fn ignore_invalid_endpoints(mut self) -> Self {
        self.arguments.push(("ignore_invalid_endpoints", Argument::Flag(true)));
        self
    }

    /// The step.
    #[track_caller]
    pub(crate) fn step(self) -> StepDefinition {
        let step = StepDefinition::in_code(&DESCRIPTION);
        self.arguments.into_iter().fold(step, |step, (key, argument)| step.with(key, argument))
    }
}

fork_options!(RecipientList);

/// Texts that are written in Rust.
#[track_caller]
pub(crate) fn texts<T: Into<smol_str::SmolStr>>(texts: impl IntoIterator<Item = T>) -> Argument {
    let mut written = Vec::new();
    for text in texts {
        written.push(SourceText::from_code(text));
    }
    Argument::Texts(written)
}

struct Recipients {
    uris: Expression,
    delimiter: String,
    forks: Forks,
    block: Block,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let uris = compiler.expression(arguments.expression("uris")?);
    let delimiter = arguments.text("delimiter").map_or(",", |text| text.as_str()).to_owned();
    let forks = Forks::compile(step, "last", compiler);
    let block = block(step, compiler);
    Some(Action::scope(Recipients { uris: uris?, delimiter, forks: forks?, block: block? }))
}

struct Uris {
    uris: Vec<Value>,
    block: Block,
}

#[async_trait]
impl ForkSource for Uris {
    async fn next(&mut self, parent: &Exchange, index: i64) -> Result<Option<(Exchange, Block)>, BoxError> {
        let Some(uri) = self.uris.get(usize::try_from(index)?) else { return Ok(None) };
        let (mut fork, size) = (parent.fork_inside(), i64::try_from(self.uris.len())?);
        fork.properties.set(PROPERTY, uri.clone());
        fork.properties.set("recipient_list.index", index);
        fork.properties.set("recipient_list.size", size);
        fork.properties.set("recipient_list.complete", index + 1 == size);
        Ok(Some((fork, self.block)))
    }
}

#[async_trait]
impl ScopeStep for Recipients {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let value = self.uris.evaluate(exchange, runner.scope()).map_err(failure)?;
        let uris = uris(value, &self.delimiter)?;
        self.forks.run(Uris { uris, block: self.block }, exchange, runner).await
    }
}

#[cfg(test)]
mod tests {
    use super::RecipientList;
    use crate::builder::{Join, Steps};
    use crate::steps::tests::compile;

    #[test]
    fn what_is_allowed_is_checked_before_anything_runs() {
        let list = || RecipientList::new("none:a,none:b").allow(["none:allowed"]).join(Join::List);
        let errors = compile(|steps| steps.recipient_list(list())).err().unwrap().to_string();
        assert!(errors.contains("none"), "what is allowed is checked before anything runs: {errors}");
        let nothing = RecipientList::new("${header.to}").allow([""; 0]);
        let errors = compile(|steps| steps.recipient_list(nothing)).err().unwrap().to_string();
        assert!(errors.contains("`allow` names no endpoint"), "{errors}");
    }
}
