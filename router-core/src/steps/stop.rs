//! `stop`: ends the exchange successfully.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").choice(|choice| choice.when("${body} == null", |then| then.stop())).to("log:audit");
//! ```
//!
//! ```toml
//! "stop"
//! ```

use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::{Cause, Outcome};
use crate::step::{Action, Compiler, Flow, InlineStep, StepDefinition, StepDescription};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "stop",
    summary: "ends the exchange successfully, whatever steps would follow",
    keys: &[],
    is_short: true,
    example: r#""stop""#,
    compile,
};

struct Stop;

fn compile(_: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    compiler.may_end();
    Some(Action::inline(Stop))
}

impl InlineStep for Stop {
    fn run(&self, _: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        Ok(Flow::End(Outcome::Stopped))
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::outcome::Outcome;
    use crate::steps::tests::{header, run};

    #[tokio::test]
    async fn no_step_behind_it_runs_also_when_it_stands_in_a_block() {
        let (exchange, end) = run(|steps| {
            steps
                .set_header("seen", "a")
                .choice(|choice| choice.when("${header.seen} == 'a'", |steps| steps.stop()))
                .set_header("seen", "b")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Stopped)));
        assert_eq!(header(&exchange, "seen"), "a");
    }
}
