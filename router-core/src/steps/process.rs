//! `process`: runs Rust code.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").process(|exchange| {
//!     exchange.message.headers.set("seen", true);
//!     Ok(())
//! });
//! ```
//!
//! ```toml
//! { process = "name" }   # registered with `RouterBuilder::processor`
//! ```

use std::sync::Arc;

use crate::body::Needs;
use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::{Cause, failure, replaced};
use crate::processor::ProcessFunction;
use crate::step::{
    Action, Argument, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required,
};
use crate::written::ProcessDefinition;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "process",
    summary: "runs Rust code; in Rust, `.process(closure)`, `.process_async(closure)` and `.process_with(processor)`",
    keys: &[required("name", KeyKind::Process, "the name under which it was registered")],
    is_short: true,
    example: r#"{ process = "name" }"#,
    compile,
};

/// A function that does not await: no allocation for each call.
struct Call(ProcessFunction);

/// The step, as it is written in Rust.
#[track_caller]
pub(crate) fn in_code(definition: ProcessDefinition) -> StepDefinition {
    StepDefinition::in_code(&DESCRIPTION).with("name", Argument::Process(definition))
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    Some(match step.arguments().process("name")? {
        ProcessDefinition::Named(name) => {
            let processor = compiler.environment.registry.processor(name);
            Action::Send(compiler.errors.collect(processor)?)
        }
        ProcessDefinition::Processor(processor) => Action::Send(Arc::clone(processor)),
        ProcessDefinition::Function(function) => {
            compiler.needs(Needs::Whole);
            Action::inline(Call(Arc::clone(function)))
        }
    })
}

impl InlineStep for Call {
    fn run(&self, exchange: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        let identity = exchange.identity();
        let result = (self.0)(exchange);
        // Before a step behind it runs.
        if exchange.identity() != identity {
            return Err(replaced().into());
        }
        result.map(|()| Flow::Next).map_err(failure)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::exchange::Exchange;
    use crate::steps::tests::run;

    #[tokio::test]
    async fn a_function_changes_the_exchange_and_its_error_is_that_of_the_step() {
        let (exchange, _) = run(|steps| {
            steps.process(|exchange| {
                exchange.message.body = "done".into();
                Ok(())
            })
        })
        .await;
        assert_eq!(exchange.message.body.to_string(), "done");
        let (_, end) = run(|steps| steps.process(|_| Err("no".into()))).await;
        let error = crate::error::Chain(&end.unwrap_err()).to_string();
        assert_eq!(error, "route `a`, step 1 (process) failed: no");
    }

    #[tokio::test]
    async fn a_function_puts_no_other_exchange_in_its_place() {
        let (_, end) = run(|steps| {
            steps.process(|exchange| {
                *exchange = Exchange::new(());
                Ok(())
            })
        })
        .await;
        assert!(end.is_err());
    }
}
