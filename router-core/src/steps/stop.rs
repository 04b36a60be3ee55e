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
    fn run(&self, _: &mut Exchange, _: Scope<'_>) -> Result<Flow<'_>, Cause> {
        Ok(Flow::End(Outcome::Stopped))
    }
}
