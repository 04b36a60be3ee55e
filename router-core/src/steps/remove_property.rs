//! `remove_property`: removes a property.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").remove_property("kind");
//! ```
//!
//! ```toml
//! { remove_property = "kind" }
//! ```

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::Cause;
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "remove_property",
    summary: "removes a property",
    keys: &[required("name", KeyKind::Name, "its name, the same for every exchange")],
    is_short: true,
    example: r#"{ remove_property = "kind" }"#,
    compile,
};

struct RemoveProperty(SmolStr);

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    Some(Action::inline(RemoveProperty(compiler.name(step.arguments().text("name")?, "property")?)))
}

impl InlineStep for RemoveProperty {
    fn run(&self, exchange: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        exchange.properties.remove(&self.0);
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn the_property_is_removed_and_no_other() {
        let (exchange, _) =
            run(|steps| steps.set_property("a", 1).set_property("b", 2).remove_property("a")).await;
        assert!(exchange.properties.get("a").is_none() && exchange.properties.get("b").is_some());
    }

    #[test]
    fn a_name_is_no_expression() {
        assert!(compile(|steps| steps.remove_property("${body}")).is_err());
    }
}
