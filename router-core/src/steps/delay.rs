//! `delay`: waits.
//!
//! ```
//! use std::time::Duration;
//!
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").delay(Duration::from_secs(1)).delay("${header.pause}");
//! ```
//!
//! ```toml
//! { delay = "1s" }   # or bare milliseconds
//! ```

use async_trait::async_trait;
use smol_str::ToSmolStr;

use crate::error::ConfigError;
use crate::exchange::Exchange;
use crate::expression::Expression;
use crate::failure::Failure;
use crate::options::{parse_duration, without_unit};
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Compiler, Flow, KeyKind, Runner, ScopeStep, StepDefinition, StepDescription, required,
};
use crate::written::ExpressionDefinition;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "delay",
    summary: "waits",
    keys: &[required("duration", KeyKind::Duration, "for how long")],
    is_short: true,
    example: r#"{ delay = "1s" }"#,
    compile,
};

struct Delay(Expression);

/// A delay that is known now is checked now.
fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let duration = step.arguments().expression("duration")?;
    let expression = compiler.expression(duration)?;
    if let Expression::Constant(value) = &expression
        && let Err(expected) = parse_duration(&value.to_smolstr())
    {
        compiler.error_in(duration, format!("`delay` takes {expected}"));
        return None;
    }
    if let ExpressionDefinition::Text(text) = duration {
        let found = |message| ConfigError::in_text(text, format!("`delay`: {message}"));
        if let Some(warning) = without_unit(text.as_str(), found) {
            compiler.error(warning);
        }
    }
    Some(Action::scope(Delay(expression)))
}

#[async_trait]
impl ScopeStep for Delay {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let duration = self.0.evaluate(exchange, runner.scope()).map_err(failure)?.to_smolstr();
        let duration = parse_duration(&duration)
            .map_err(|expected| Failure::data(format!("the delay is not {expected}")))?;
        tokio::time::sleep(duration).await;
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_long_as_it_says_also_when_the_message_says_it() {
        let begin = Instant::now();
        let (_, end) =
            run(|steps| steps.delay("2s").set_header("pause", "500ms").delay("${header.pause}")).await;
        end.unwrap();
        assert_eq!(begin.elapsed(), Duration::from_millis(2_500));
        let (_, end) = run(|steps| steps.set_header("pause", "soon").delay("${header.pause}")).await;
        assert_eq!(end.unwrap_err().kind().name(), "data");
    }

    #[test]
    fn a_duration_that_is_known_is_checked_before_anything_runs() {
        assert!(compile(|steps| steps.delay("soon")).is_err());
    }
}
