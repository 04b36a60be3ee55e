//! `set_header`: sets a header.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").set_header("kind", "order");
//! ```
//!
//! ```toml
//! { set_header = { name = "kind", value = "order" } }
//! ```

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "set_header",
    summary: "sets a header",
    keys: &[
        required("name", KeyKind::Name, "its name, the same for every exchange"),
        required("value", KeyKind::Value, "its value"),
    ],
    is_short: false,
    example: r#"{ set_header = { name = "kind", value = "order" } }"#,
    compile,
};

struct SetHeader {
    name: SmolStr,
    value: Expression,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let name = compiler.name(step.arguments().text("name")?, "header");
    let value = compiler.expression(step.arguments().expression("value")?);
    Some(Action::inline(SetHeader { name: name?, value: value? }))
}

impl InlineStep for SetHeader {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        let value = self.value.evaluate(exchange, scope).map_err(failure)?;
        exchange.message.headers.set(self.name.clone(), value);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, header, run};

    #[tokio::test]
    async fn a_header_is_set_and_replaced() {
        let (exchange, _) =
            run(|steps| steps.set_header("kind", "a").set_header("kind", "${header.kind}b")).await;
        assert_eq!(header(&exchange, "kind"), "ab");
    }

    #[test]
    fn a_name_is_no_expression() {
        assert!(compile(|steps| steps.set_header("${body}", "a")).is_err());
    }
}
