//! `to`: sends the exchange to an endpoint.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").to("log:audit");
//! ```
//!
//! ```toml
//! { to = "log:audit" }
//! ```

use crate::step::{Action, Compiler, KeyKind, StepDefinition, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "to",
    summary: "sends the exchange to an endpoint",
    keys: &[required(
        "uri",
        KeyKind::Endpoint,
        "the URI; other keys are options beside it, in which nothing is decoded",
    )],
    is_short: true,
    example: r#"{ to = "log:audit" }"#,
    compile,
};

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    compiler.sink(step.arguments().endpoint("uri")?).map(Action::Send)
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::compile;

    #[test]
    fn errors_of_an_endpoint_are_found_before_anything_runs() {
        let errors = compile(|steps| steps.to("tmer:a").to("log:${body}"));
        let errors = errors.err().unwrap().to_string();
        assert_eq!(errors.matches("error:").count(), 2, "{errors}");
    }
}
