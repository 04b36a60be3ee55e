//! `filter`: goes on only when a predicate holds. With a block, only the block depends on it.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").filter("${header.timer.counter} > 5").log("after the fifth tick");
//! from("timer:clock").filter_block("${header.timer.counter} > 5", |steps| steps.log("late")).log("each tick");
//! ```
//!
//! ```toml
//! { filter = "${header.timer.counter} > 5" }
//! { filter = { predicate = "${header.timer.counter} > 5", steps = [{ log = "late" }] } }
//! ```

use crate::exchange::Exchange;
use crate::expression::{Predicate, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Block, Compiler, Flow, InlineStep, KeyKind, Runs, StepDefinition, StepDescription, optional,
    required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "filter",
    summary: "goes on, in the block that it is in, only if the predicate holds. With `steps`, these depend on it alone, \
              and the exchange goes on behind them either way",
    keys: &[
        required("predicate", KeyKind::Predicate, "what must hold"),
        optional("steps", KeyKind::Steps, "what is run if it holds"),
    ],
    is_short: true,
    example: r#"{ filter = { predicate = "${body} contains 'x'", steps = [{ log = "x" }] } }"#,
    compile,
};

struct Filter {
    predicate: Predicate,
    block: Option<Block>,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let predicate = compiler.predicate(step.arguments().predicate("predicate")?);
    let block = step.arguments().steps("steps");
    let block = block.map(|steps| compiler.block(steps, "filter", Runs::Sometimes));
    if block.is_none() {
        compiler.may_leave_block();
    }
    Some(Action::inline(Filter { predicate: predicate?, block }))
}

impl InlineStep for Filter {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        Ok(match (self.predicate.holds(exchange, scope).map_err(failure)?, self.block) {
            (true, Some(block)) => Flow::Enter(block),
            (false, None) => Flow::LeaveBlock,
            _ => Flow::Next,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::outcome::Outcome;
    use crate::steps::tests::{header, run};

    #[tokio::test]
    async fn a_filter_with_a_block_keeps_nothing_from_the_steps_behind_it() {
        for (kind, inside) in [("a", "yes"), ("b", "no")] {
            let (exchange, end) = run(|steps| {
                steps
                    .set_header("kind", kind)
                    .set_header("inside", "no")
                    .filter_block("${header.kind} == 'a'", |steps| steps.set_header("inside", "yes"))
                    .set_header("behind", "yes")
            })
            .await;
            assert!(matches!(end, Ok(Outcome::Completed)));
            assert_eq!(
                (header(&exchange, "inside"), header(&exchange, "behind")),
                (inside.into(), "yes".into())
            );
        }
    }

    #[tokio::test]
    async fn a_short_filter_in_a_block_ends_that_block_alone() {
        let (exchange, end) = run(|steps| {
            steps
                .filter_block("true", |steps| steps.filter("false").set_header("inside", "yes"))
                .set_header("behind", "yes")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!((header(&exchange, "inside"), header(&exchange, "behind")), ("".into(), "yes".into()));
        let (exchange, end) = run(|steps| steps.filter("false").set_header("behind", "yes")).await;
        assert!(matches!(end, Ok(Outcome::Filtered)));
        assert_eq!(header(&exchange, "behind"), "");
    }
}
