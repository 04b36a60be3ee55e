//! `log`: writes a line to the log.
//!
//! ```
//! use router_core::builder::{Steps, from};
//! use router_core::log::LogLevel;
//!
//! from("timer:clock").log("tick ${header.timer.counter}").log_at(LogLevel::Warn, "late");
//! ```
//!
//! ```toml
//! { log = "tick ${header.timer.counter}" }
//! { log = { message = "late", level = "warn" } }
//! ```

use smol_str::ToSmolStr;

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::log::{LogLevel, log_line};
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, defaulted, required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "log",
    summary: "writes a line to the log, with the route as its logger",
    keys: &[
        required("message", KeyKind::Template, "what to write"),
        defaulted("level", KeyKind::Word(LogLevel::NAMES), "INFO", "how important it is"),
    ],
    is_short: true,
    example: r#"{ log = { message = "late by ${header.late}", level = "warn" } }"#,
    compile,
};

struct Log {
    message: Expression,
    level: LogLevel,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let message = compiler.expression(step.arguments().expression("message")?)?;
    let level = step.arguments().word("level").and_then(LogLevel::from_name).unwrap_or_default();
    Some(Action::inline(Log { message, level }))
}

impl InlineStep for Log {
    /// The route is the logger's name, as in Camel; a `tracing` target must be static, so it is a field.
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        let message = self.message.show(exchange, scope).map_err(failure)?;
        log_line(scope.route_id, &message.to_smolstr(), self.level);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn a_message_that_cannot_be_made_fails_the_step() {
        let (_, end) = run(|steps| steps.set_body("no JSON").log("${body.x}")).await;
        assert_eq!(end.unwrap_err().kind().name(), "data");
    }

    #[test]
    fn a_placeholder_that_does_not_end_is_an_error() {
        assert!(compile(|steps| steps.log("${header.n")).is_err());
    }
}
