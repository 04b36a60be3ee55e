//! `set_headers`: sets several headers.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("direct:order").set_headers([("kind", "order"), ("id", "${body.id}")]);
//! ```
//!
//! ```toml
//! { set_headers = [{ name = "kind", value = "order" }, { name = "id", value = "${body.id}" }] }
//! ```
//!
//! They are set in order: a value can read a header that was set before it.

use smol_str::SmolStr;

use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "set_headers",
    summary: "sets several headers",
    keys: &[required(
        "headers",
        KeyKind::Tables(&[
            required("name", KeyKind::Name, "its name, the same for every exchange"),
            required("value", KeyKind::Value, "its value"),
        ]),
        "the headers, in order",
    )],
    is_short: true,
    example: r#"{ set_headers = [{ name = "kind", value = "order" }, { name = "id", value = "${body.id}" }] }"#,
    compile,
};

struct SetHeaders(Box<[(SmolStr, Expression)]>);

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let mut headers = Vec::new();
    for written in step.arguments().tables("headers").unwrap_or_default() {
        let name = compiler.name(written.text("name")?, "header");
        let value = compiler.expression(written.expression("value")?);
        headers.push(name.zip(value));
    }
    Some(Action::inline(SetHeaders(headers.into_iter().collect::<Option<Vec<_>>>()?.into())))
}

impl InlineStep for SetHeaders {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        for (name, value) in &self.0 {
            let value = value.evaluate(exchange, scope).map_err(failure)?;
            exchange.message.headers.set(name.clone(), value);
        }
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, header, run};

    #[tokio::test]
    async fn headers_are_set_in_order() {
        let (exchange, _) = run(|steps| steps.set_headers([("a", "1"), ("b", "${header.a}2")])).await;
        assert_eq!((header(&exchange, "a"), header(&exchange, "b")), ("1".into(), "12".into()));
    }

    #[test]
    fn all_wrong_names_are_reported() {
        let errors =
            compile(|steps| steps.set_headers([("${a}", "1"), ("", "2")])).err().unwrap().to_string();
        assert_eq!(errors.matches("error:").count(), 2, "{errors}");
    }
}
