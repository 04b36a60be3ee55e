//! `transform`: makes a new body of the exchange. It is `set_body` by the name that it has in Camel.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("direct:order").transform("order ${body.id}");
//! ```
//!
//! ```toml
//! { transform = "order ${body.id}" }
//! ```

use super::set_body;
use crate::step::{KeyKind, StepDescription, required};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "transform",
    summary: "makes a new body of the exchange",
    keys: &[required("value", KeyKind::Value, "the new body")],
    is_short: true,
    example: r#"{ transform = "order ${body.id}" }"#,
    compile: set_body::compile,
};

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::run;

    #[tokio::test]
    async fn the_body_is_made_of_the_one_before() {
        let (exchange, _) = run(|steps| steps.set_body(r#"{"id":7}"#).transform("order ${body.id}")).await;
        assert_eq!(exchange.message.body.to_string(), "order 7");
    }
}
