//! `set_body`: replaces the body.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").set_body("tick ${header.timer.counter}");
//! ```
//!
//! ```toml
//! { set_body = "tick ${header.timer.counter}" }
//! { set_body = { id = 7, kind = "order" } }
//! ```

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "set_body",
    summary: "replaces the body",
    keys: &[required("value", KeyKind::Value, "the new body")],
    is_short: true,
    example: r#"{ set_body = "text" }"#,
    compile,
};

struct SetBody(Expression);

pub(crate) fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    Some(Action::inline(SetBody(compiler.expression(step.arguments().expression("value")?)?)))
}

impl InlineStep for SetBody {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        exchange.message.body = self.0.evaluate(exchange, scope).map_err(failure)?.into();
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn the_body_is_replaced_by_a_text_with_values_or_by_a_value() {
        let (exchange, _) = run(|steps| steps.set_header("n", 7).set_body("order ${header.n}")).await;
        assert_eq!(exchange.message.body.to_string(), "order 7");
        let (exchange, _) = run(|steps| steps.set_body("before").set_body(7)).await;
        assert_eq!(exchange.message.body.to_string(), "7");
    }

    #[tokio::test]
    async fn a_text_that_doubles_itself_ends_at_the_limit_for_the_memory() {
        let double = |steps: crate::builder::Branch| steps.set_body("${body}${body}");
        let (exchange, end) =
            run(|steps| steps.set_body("x".repeat(1 << 20)).loop_(crate::builder::Loop::times(8), double))
                .await;
        let error = end.unwrap_err();
        assert_eq!(error.kind(), crate::failure::ErrorKind::Data);
        let text = crate::error::Chain(&error).to_string();
        assert!(text.contains("the text has more than 67108864 bytes (`body.memory_limit`)"), "{text}");
        assert_eq!(exchange.message.body.len(), 64 << 20);
    }

    #[test]
    fn a_placeholder_that_does_not_end_is_an_error() {
        assert!(compile(|steps| steps.set_body("${header.n")).is_err());
    }
}
