//! `throw`: fails the exchange with an error.
//!
//! ```
//! use router_core::builder::{Steps, from};
//! use router_core::failure::ErrorKind;
//!
//! from("direct:order").throw(ErrorKind::Rejected, "no order: ${body}");
//! ```
//!
//! ```toml
//! { throw = "no order: ${body}" }
//! { throw = { message = "no order: ${body}", kind = "rejected", code = "409" } }
//! ```
//!
//! The error is handled as that of any step: whether it is retried follows from its kind.

use smol_str::ToSmolStr;

use crate::error::ConfigError;
use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::failure::{ErrorKind, Failure};
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Argument, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, defaulted,
    optional, required,
};
use crate::written::ExpressionDefinition;

/// The kinds that can be handled: the loss of leadership is none that a route makes.
const KINDS: &[&str] = &["timeout", "unavailable", "rejected", "data", "panicked", "other"];

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "throw",
    summary: "fails the exchange with an error",
    keys: &[
        required("message", KeyKind::Template, "what the error says"),
        defaulted("kind", KeyKind::Word(KINDS), "other", "of which kind it is"),
        optional("code", KeyKind::Template, "its code"),
    ],
    is_short: true,
    example: r#"{ throw = { message = "no order: ${body}", kind = "rejected" } }"#,
    compile,
};

/// The step, in Rust.
#[track_caller]
pub(crate) fn in_code(kind: ErrorKind, message: ExpressionDefinition) -> StepDefinition {
    let step = StepDefinition::in_code(&DESCRIPTION).with("kind", Argument::Word(kind.name()));
    step.with("message", Argument::Expression(message))
}

struct Throw {
    message: Expression,
    kind: ErrorKind,
    code: Option<Expression>,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let message = compiler.expression(arguments.expression("message")?);
    let code = arguments.expression("code").map(|code| compiler.expression(code));
    let word = arguments.word("kind").unwrap_or("other");
    let Some(kind) = ErrorKind::from_name(word) else {
        compiler.error(ConfigError::in_text(&step.place, format!("`{word}` is no error that a route makes")));
        return None;
    };
    // Nothing gets behind it.
    compiler.may_end();
    let code = match code {
        Some(code) => Some(code?),
        None => None,
    };
    Some(Action::inline(Throw { message: message?, kind, code }))
}

impl InlineStep for Throw {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        let message = self.message.show(exchange, scope).map_err(failure)?.to_string();
        let mut thrown = Failure::new(self.kind, message);
        if let Some(code) = &self.code {
            thrown = thrown.code(code.show(exchange, scope).map_err(failure)?.to_smolstr());
        }
        Err(thrown.into())
    }
}

#[cfg(test)]
mod tests {
    use super::KINDS;
    use crate::builder::Steps;
    use crate::failure::ErrorKind;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn the_exchange_fails_with_the_error() {
        let (_, end) = run(|steps| steps.set_body("x").throw(ErrorKind::Data, "no order: ${body}")).await;
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!(crate::error::Chain(&error).to_string(), "route `a`, step 2 (throw) failed: no order: x");
    }

    #[test]
    fn the_loss_of_leadership_is_not_made_by_a_route() {
        assert!(KINDS.iter().copied().eq(ErrorKind::HANDLEABLE.iter().map(|kind| kind.name())));
        assert!(compile(|steps| steps.throw(ErrorKind::LeadershipLost, "x")).is_err());
    }
}
