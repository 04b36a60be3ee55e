//! `remove_header`: removes a header.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").remove_header("timer.counter");
//! ```
//!
//! ```toml
//! { remove_header = "timer.counter" }
//! ```

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::Cause;
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "remove_header",
    summary: "removes a header",
    keys: &[required("name", KeyKind::Name, "its name, the same for every exchange")],
    is_short: true,
    example: r#"{ remove_header = "kind" }"#,
    compile,
};

struct RemoveHeader(SmolStr);

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    Some(Action::inline(RemoveHeader(compiler.name(step.arguments().text("name")?, "header")?)))
}

impl InlineStep for RemoveHeader {
    fn run(&self, exchange: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        exchange.message.headers.remove(&self.0);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn the_header_is_removed_and_no_other() {
        let (exchange, _) =
            run(|steps| steps.set_header("a", 1).set_header("ab", 2).remove_header("a").remove_header("c"))
                .await;
        let headers = &exchange.message.headers;
        assert_eq!((headers.get("a"), headers.get("ab")), (None, Some(&2.into())));
    }

    #[test]
    fn a_name_is_no_expression() {
        assert!(compile(|steps| steps.remove_header("${body}")).is_err());
    }
}
