//! `validate`: fails the exchange unless a predicate holds.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("direct:order").validate("${body.amount} > 0");
//! ```
//!
//! ```toml
//! { validate = "${body.amount} > 0" }
//! ```
//!
//! The error is of the kind `data`, which is not retried.

use crate::exchange::Exchange;
use crate::expression::{Predicate, Scope};
use crate::failure::Failure;
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};
use crate::written::PredicateDefinition;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "validate",
    summary: "fails the exchange, with an error of the kind `data`, unless a predicate holds",
    keys: &[required("predicate", KeyKind::Predicate, "what must hold")],
    is_short: true,
    example: r#"{ validate = "${body.amount} > 0" }"#,
    compile,
};

struct Validate {
    predicate: Predicate,
    /// For the error.
    written: String,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let definition = step.arguments().predicate("predicate")?;
    let written = match definition {
        PredicateDefinition::Text(text) => format!("`{text}` does not hold"),
        PredicateDefinition::Function(_) => "the predicate does not hold".into(),
    };
    Some(Action::inline(Validate { predicate: compiler.predicate(definition)?, written }))
}

impl InlineStep for Validate {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        match self.predicate.holds(exchange, scope).map_err(failure)? {
            true => Ok(Flow::Next),
            false => Err(Failure::data(format!("the message is not valid: {}", self.written)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{header, run};

    #[tokio::test]
    async fn only_what_holds_gets_on() {
        let valid = |amount: i64| {
            run(move |steps| {
                steps.set_header("n", amount).validate("${header.n} > 0").set_header("behind", "yes")
            })
        };
        let (exchange, end) = valid(1).await;
        assert_eq!((end.is_ok(), header(&exchange, "behind")), (true, "yes".into()));
        let (_, end) = valid(0).await;
        let error = crate::error::Chain(&end.unwrap_err()).to_string();
        assert_eq!(
            error,
            "route `a`, step 2 (validate) failed: the message is not valid: `${header.n} > 0` does not hold"
        );
    }
}
