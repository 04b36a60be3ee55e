//! `wire_tap`: sends a fork of the exchange to an endpoint, without waiting for it.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("direct:order").wire_tap("direct:audit").to("direct:stock");
//! ```
//!
//! ```toml
//! { wire_tap = "direct:audit" }
//! { wire_tap = { uri = "direct:audit-${header.kind}", most = 10 } }
//! ```
//!
//! The fork runs beside the exchange, under the same terms: it ends with them. The route waits for it when it stops. What
//! fails in it is handled by the error handler of the route, and changes nothing for the exchange. At most so many are under
//! way at a time as `most` says; where there are more, the exchange waits. The endpoint is written as in `to_dynamic`.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::forks::check_constant;
use super::to_dynamic::{self, ALLOW, URI};
use crate::exchange::Exchange;
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition,
    StepDescription, defaulted,
};
use crate::written::DynamicDefinition;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "wire_tap",
    summary: "sends a fork of the exchange to an endpoint, without waiting for it",
    keys: &[
        URI,
        ALLOW,
        defaulted("most", KeyKind::Count, "100", "how many forks are under way at a time, at most 10000"),
    ],
    is_short: true,
    example: r#"{ wire_tap = "direct:audit" }"#,
    compile,
};

/// The step, in Rust.
#[track_caller]
pub(crate) fn in_code(mut target: DynamicDefinition) -> StepDefinition {
    let allow = std::mem::take(&mut target.allow);
    let step = StepDefinition::in_code(&DESCRIPTION).with("uri", Argument::Dynamic(Box::new(target)));
    if allow.is_empty() { step } else { step.with("allow", Argument::Texts(allow)) }
}

struct Tap {
    block: Block,
    /// One permit for each fork that may be under way.
    room: Arc<Semaphore>,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let mut most = 100;
    if let Some(written) = arguments.expression("most") {
        let expression = compiler.expression(written)?;
        check_constant(&expression, written, compiler, |text| most_of(text).map(drop));
        match &expression {
            crate::expression::Expression::Constant(value) => {
                most = most_of(&value.to_string()).unwrap_or(most)
            }
            _ => compiler.error_in(written, "`most` is the same for every exchange".into()),
        }
    }
    let mut to = StepDefinition::new(&to_dynamic::DESCRIPTION, step.place.clone())
        .with("uri", Argument::Dynamic(Box::new(arguments.dynamic("uri")?.clone())));
    if let Some(allow) = arguments.texts("allow") {
        to = to.with("allow", Argument::Texts(allow.to_vec()));
    }
    // The exchange does not wait for it, so it is no call of this one.
    let block = compiler.block(&[to], "tap", Runs::Sometimes);
    Some(Action::scope(Tap { block, room: Arc::new(Semaphore::new(most)) }))
}

fn most_of(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=10_000).contains(number));
    number
        .ok_or_else(|| format!("`most` takes a whole number from 1 to 10000, not `{}`", text.escape_debug()))
}

#[async_trait]
impl ScopeStep for Tap {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(failure)?;
        runner.detach(self.block, exchange.fork(), permit)?;
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::compile;

    #[test]
    fn errors_of_the_endpoint_are_found_before_anything_runs() {
        let errors =
            compile(|steps| steps.wire_tap("none:a").wire_tap("${header.to}")).err().unwrap().to_string();
        assert!(
            errors.contains("`none`") && errors.contains("a message would choose any endpoint"),
            "{errors}"
        );
    }
}
