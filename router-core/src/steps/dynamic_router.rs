//! `dynamic_router`: sends the exchange to the endpoint that it names, and asks again until it names none.
//!
//! ```
//! use router_core::builder::{DynamicRouter, Steps, from};
//!
//! from("direct:order").dynamic_router(DynamicRouter::new("${header.next}").allow(["direct:order-*"]));
//! ```
//!
//! ```toml
//! { dynamic_router = { next = "${header.next}", allow = ["direct:order-*"] } }
//! ```
//!
//! The expression is read before each round; it can read the property `dynamic_router.index`, from 0. Nothing or an empty text
//! ends it. An exchange that is sent more than `most` times fails with an error of the kind `rejected`: it would go in a
//! circle. A URI that is not allowed is an error of the kind `data`.

use async_trait::async_trait;
use smol_str::SmolStr;

use super::forks::check_constant;
use super::recipient_list::texts;
use super::recipients::{ALLOW, PROPERTY, block};
use crate::exchange::Exchange;
use crate::expression::Expression;
use crate::failure::Failure;
use crate::outcome::{Cause, RouteError, StepError, failure};
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, ScopeStep, StepDefinition, StepDescription,
    defaulted, required,
};
use crate::value::Value;
use crate::written::IntoExpression;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "dynamic_router",
    summary: "sends the exchange to the endpoint that it names, and asks again until it names none",
    keys: &[
        required("next", KeyKind::Template, "the URI of the next endpoint; nothing or an empty text ends it"),
        ALLOW,
        defaulted("most", KeyKind::Count, "100", "how often it is sent, at most 10000; then the step fails"),
    ],
    is_short: false,
    example: r#"{ dynamic_router = { next = "${header.next}", allow = ["direct:order-*"] } }"#,
    compile,
};

/// Which endpoints a `dynamic_router` sends to, in Rust.
#[must_use = "it says which endpoints a `dynamic_router` sends to"]
#[derive(Debug)]
pub struct DynamicRouter(StepDefinition);

impl DynamicRouter {
    /// The URI of the next endpoint.
    #[track_caller]
    pub fn new(next: impl IntoExpression) -> Self {
        let next = Argument::Expression(next.into_expression());
        Self(StepDefinition::in_code(&DESCRIPTION).with("next", next))
    }

    /// The endpoints that messages may choose: URIs, or how they begin, with a `*` behind it.
    #[track_caller]
    pub fn allow<T: Into<SmolStr>>(self, uris: impl IntoIterator<Item = T>) -> Self {
        Self(self.0.with("allow", texts(uris)))
    }

    /// How often an exchange is sent, at most.
    #[track_caller]
    pub fn most(self, rounds: i64) -> Self {
        Self(self.0.with("most", Argument::Expression(rounds.into_expression())))
    }

    /// The step.
    pub(crate) fn step(self) -> StepDefinition {
        self.0
    }
}

struct Rounds {
    next: Expression,
    place: SmolStr,
    most: i64,
    block: Block,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let next = compiler.expression(arguments.expression("next")?);
    let mut most = 100;
    if let Some(written) = arguments.expression("most") {
        let expression = compiler.expression(written)?;
        check_constant(&expression, written, compiler, |text| most_of(text).map(drop));
        match &expression {
            Expression::Constant(value) => most = most_of(&value.to_string()).unwrap_or(most),
            _ => compiler.error_in(written, "`most` is the same for every exchange".into()),
        }
    }
    let block = block(step, compiler);
    let place = compiler.place(step);
    Some(Action::scope(Rounds { next: next?, place, most, block: block? }))
}

fn most_of(text: &str) -> Result<i64, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=10_000).contains(number));
    number
        .ok_or_else(|| format!("`most` takes a whole number from 1 to 10000, not `{}`", text.escape_debug()))
}

impl Rounds {
    /// An error in a round: nothing is tried again, because those before are done.
    fn failed(&self, failed: impl Into<Box<Failure>>, runner: Runner<'_>) -> Cause {
        let error = StepError::new(self.place.as_str(), failed);
        Cause::Uncaught(RouteError::of(runner.scope().route_id, error))
    }

    async fn next(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Value, Cause> {
        exchange.message.body.make_ready(self.next.needs()).await.map_err(failure)?;
        self.next.evaluate(exchange, runner.scope()).map_err(failure)
    }
}

#[async_trait]
impl ScopeStep for Rounds {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        for index in 0.. {
            exchange.properties.set("dynamic_router.index", index);
            let uri = match self.next(exchange, runner).await {
                Err(Cause::Failed(failed)) if index > 0 => return Err(self.failed(failed, runner)),
                next => next?,
            };
            if uri.to_string().trim().is_empty() {
                break;
            }
            if index >= self.most {
                let most = self.most;
                let failed = Failure::rejected(format!(
                    "it was sent {most} times (`most`), and names a next endpoint"
                ));
                return Err(self.failed(failed, runner));
            }
            exchange.properties.set(PROPERTY, uri);
            match Flow::after(runner.block(self.block, exchange).await?) {
                Flow::Next => {}
                end => return Ok(end),
            }
            // Rounds that never wait would keep their thread, and could not be dropped.
            tokio::task::consume_budget().await;
        }
        exchange.properties.remove(PROPERTY);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::DynamicRouter;
    use crate::builder::Steps;
    use crate::steps::tests::compile;

    #[test]
    fn what_is_allowed_and_how_often_is_checked_before_anything_runs() {
        let errors = compile(|steps| steps.dynamic_router(DynamicRouter::new("${header.next}").most(0)));
        let errors = errors.err().unwrap().to_string();
        assert!(errors.contains("`allow` names no endpoint"), "{errors}");
        assert!(errors.contains("`most` takes a whole number from 1 to 10000, not `0`"), "{errors}");
    }
}
