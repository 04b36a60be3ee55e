//! `convert_body`: makes text, bytes or JSON of the body.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("file:in").convert_body("json");
//! ```
//!
//! ```toml
//! { convert_body = "json" }
//! ```
//!
//! Text or bytes that are no JSON, and bytes that are not UTF-8, are errors of the kind `data`. An empty body stays empty.

use crate::body::Needs;
use crate::error::ConfigError;
use crate::exchange::{Body, Exchange};
use crate::expression::Scope;
use crate::failure::Failure;
use crate::outcome::{Cause, failure};
use crate::step::{Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, required};

const TYPES: &[&str] = &["text", "bytes", "json"];

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "convert_body",
    summary: "makes text, bytes or JSON of the body",
    keys: &[required("type", KeyKind::Word(TYPES), "what it becomes")],
    is_short: true,
    example: r#"{ convert_body = "json" }"#,
    compile,
};

#[derive(Clone, Copy)]
enum Convert {
    Text,
    Bytes,
    Json,
}

/// The word that a name stands for, in any case, as in TOML.
pub(crate) fn word(name: &str) -> &'static str {
    TYPES.iter().copied().find(|known| known.eq_ignore_ascii_case(name)).unwrap_or("")
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let (convert, needs) = match step.arguments().word("type")? {
        "text" => (Convert::Text, Needs::Whole),
        "bytes" => (Convert::Bytes, Needs::Whole),
        "json" => (Convert::Json, Needs::Json),
        _ => {
            let error = ConfigError::in_text(&step.place, "`convert_body` takes one of text, bytes, json");
            compiler.error(error);
            return None;
        }
    };
    compiler.needs(needs);
    Some(Action::inline(convert))
}

impl InlineStep for Convert {
    fn run(&self, exchange: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        let body = &mut exchange.message.body;
        if body.is_empty() {
            return Ok(Flow::Next);
        }
        *body = match self {
            Self::Json => body.to_json().map_err(failure)?.into(),
            Self::Bytes => Body::bytes(body.to_bytes().map_err(failure)?),
            Self::Text => {
                let bytes = body.to_bytes().map_err(failure)?;
                let text = std::str::from_utf8(&bytes);
                Body::text(text.map_err(|error| Failure::data(format!("the body is no text: {error}")))?)
            }
        };
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::exchange::{Body, BodyKind, Exchange};
    use crate::steps::tests::compile;

    #[tokio::test]
    async fn a_body_is_converted_or_the_step_fails() {
        for (kind, body, expected) in [
            ("JSON", Body::from(r#"{"a": 1.10}"#), Some((BodyKind::Json, r#"{"a":1.10}"#))),
            ("text", Body::bytes(&b"x"[..]), Some((BodyKind::Text, "x"))),
            ("bytes", Body::from("x"), Some((BodyKind::Bytes, "x"))),
            ("json", Body::empty(), Some((BodyKind::Empty, ""))),
            ("json", Body::from("no"), None),
            ("text", Body::bytes(&b"\xff"[..]), None),
        ] {
            let pipeline = compile(|steps| steps.convert_body(kind)).unwrap();
            let mut exchange = Exchange::new(body);
            match (pipeline.run(&mut exchange).await, expected) {
                (Ok(_), Some((kind, text))) => {
                    let body = &exchange.message.body;
                    assert_eq!((body.kind(), &*body.to_string()), (kind, text));
                }
                (Err(error), None) => assert_eq!(error.kind().name(), "data"),
                (end, _) => panic!("{kind}: {end:?}"),
            }
        }
        assert!(compile(|steps| steps.convert_body("xml")).is_err());
    }
}
