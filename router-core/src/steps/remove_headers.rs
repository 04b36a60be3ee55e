//! `remove_headers`: removes all headers whose names fit a pattern.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("direct:order").remove_headers("http.*", ["http.response_code"]);
//! from("direct:order").remove_headers("*", [""; 0]);
//! ```
//!
//! ```toml
//! { remove_headers = "http.*" }
//! { remove_headers = { pattern = "*", except = ["kind", "trace.*"] } }
//! ```
//!
//! A pattern is a name, or how names begin, with a `*` behind it. Case does not count, as in all names of headers.

use smol_str::SmolStr;

use crate::error::ConfigError;
use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::Cause;
use crate::source::SourceText;
use crate::step::{
    Action, Compiler, Flow, InlineStep, KeyKind, StepDefinition, StepDescription, optional, required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "remove_headers",
    summary: "removes all headers whose names fit a pattern",
    keys: &[
        required("pattern", KeyKind::Name, "a name, or how names begin, with a `*` behind it"),
        optional("except", KeyKind::Names, "patterns of those that stay"),
    ],
    is_short: true,
    example: r#"{ remove_headers = { pattern = "http.*", except = ["http.response_code"] } }"#,
    compile,
};

struct RemoveHeaders {
    pattern: Pattern,
    except: Box<[Pattern]>,
}

/// A name, or how names begin.
enum Pattern {
    Name(SmolStr),
    Prefix(SmolStr),
}

impl Pattern {
    fn compile(text: &SourceText, compiler: &mut Compiler<'_>) -> Option<Self> {
        let written = text.as_str();
        let (prefix, is_prefix) = match written.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (written, false),
        };
        let message = match () {
            () if prefix.contains('*') => "a `*` stands at the end of a pattern",
            () if written.is_empty() => "an empty text is the name of no header",
            () if text.placeholder().is_some() => "a pattern is the same for every exchange",
            () if is_prefix => return Some(Self::Prefix(prefix.into())),
            () => return Some(Self::Name(prefix.into())),
        };
        compiler.error(ConfigError::in_text(text, message));
        None
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Name(whole) => whole.eq_ignore_ascii_case(name),
            Self::Prefix(prefix) => {
                name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
            }
        }
    }
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let pattern = Pattern::compile(arguments.text("pattern")?, compiler);
    let mut except = Vec::new();
    for text in arguments.texts("except").unwrap_or_default() {
        except.push(Pattern::compile(text, compiler));
    }
    let except = except.into_iter().collect::<Option<Vec<_>>>()?.into();
    Some(Action::inline(RemoveHeaders { pattern: pattern?, except }))
}

impl InlineStep for RemoveHeaders {
    fn run(&self, exchange: &mut Exchange, _: Scope<'_>) -> Result<Flow, Cause> {
        exchange
            .message
            .headers
            .retain(|name| !self.pattern.fits(name) || self.except.iter().any(|pattern| pattern.fits(name)));
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, run};

    #[tokio::test]
    async fn what_fits_the_pattern_is_removed_but_for_the_exceptions() {
        for (pattern, except, left) in [
            ("A.*", vec![], "b,ab"),
            ("*", vec!["a.y", "B"], "a.y,b"),
            ("a.x", vec![], "a.y,b,ab"),
            ("a.*", vec!["a.*"], "a.x,a.y,b,ab"),
        ] {
            let (exchange, _) = run(|steps| {
                let names = ["a.x", "a.y", "b", "ab"].map(|name| (name, "1"));
                steps.set_headers(names).remove_headers(pattern, except)
            })
            .await;
            let names = exchange.message.headers.iter().map(|(name, _)| name).collect::<Vec<_>>();
            assert_eq!(names.join(","), left, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_would_fit_nothing_is_an_error() {
        for pattern in ["*.x", "", "${header.x}"] {
            assert!(compile(|steps| steps.remove_headers(pattern, [""; 0])).is_err(), "{pattern}");
        }
    }
}
