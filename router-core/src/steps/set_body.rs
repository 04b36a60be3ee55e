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

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    Some(Action::inline(SetBody(compiler.expression(step.arguments().expression("value")?)?)))
}

impl InlineStep for SetBody {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow<'_>, Cause> {
        exchange.message.body = self.0.evaluate(exchange, scope).map_err(failure)?.into();
        Ok(Flow::Next)
    }
}
