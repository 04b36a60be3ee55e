//! `set_property`: sets a property.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").set_property("kind", "${header.kind}");
//! ```
//!
//! ```toml
//! { set_property = { name = "kind", value = "${header.kind}" } }
//! ```

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "set_property",
    summary: "sets a property",
    keys: &[
        required("name", KeyKind::Name, "its name, the same for every exchange"),
        required("value", KeyKind::Value, "its value"),
    ],
    is_short: false,
    example: r#"{ set_property = { name = "kind", value = "${header.kind}" } }"#,
    compile,
};

struct SetProperty {
    name: SmolStr,
    value: Expression,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let name = compiler.name(step.arguments().text("name")?, "property");
    let value = compiler.expression(step.arguments().expression("value")?);
    Some(Action::inline(SetProperty { name: name?, value: value? }))
}

impl InlineStep for SetProperty {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        let value = self.value.evaluate(exchange, scope).map_err(failure)?;
        exchange.properties.set(self.name.clone(), value);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn a_property_stays_with_the_exchange_and_is_no_header() {
        let (exchange, _) = run(|steps| {
            steps
                .set_property("kind", "a")
                .set_property("kind", "${property.kind}b")
                .set_body("${property.kind}")
        })
        .await;
        assert_eq!(exchange.message.body.to_string(), "ab");
        assert_eq!(exchange.properties.get("kind"), Some(&"ab".into()));
        assert_eq!(exchange.message.headers.get("kind"), None);
    }

    #[test]
    fn a_name_is_no_expression() {
        assert!(compile(|steps| steps.set_property("${body}", "a")).is_err());
    }
}
