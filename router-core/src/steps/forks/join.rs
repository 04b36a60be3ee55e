//! What is made of the results of forks.

use std::collections::BTreeMap;

use bytes::Bytes;
use smol_str::{SmolStr, ToSmolStr};

use crate::error::{BoxError, ConfigError};
use crate::exchange::{Body, Exchange, Message};
use crate::expression::{Expression, Scope};
use crate::failure::Failure;
use crate::outcome::Cause;
use crate::source::SourceText;
use crate::step::{Argument, Arguments, Compiler, KeyDescription, KeyKind, Need, StepDefinition, optional};
use crate::value::{Json, Object};
use crate::written::{ExpressionDefinition, IntoExpression};

const JOINS: &[&str] = &["original", "last", "list", "concatenate", "object"];

pub(crate) const JOIN_DELIMITER: KeyDescription =
    optional("join_delimiter", KeyKind::Name, "what stands between the bodies with `join = \"concatenate\"`");
pub(crate) const JOIN_KEY: KeyDescription = optional(
    "join_key",
    KeyKind::Template,
    "the key of each fork with `join = \"object\"`, read on the fork",
);

/// The key `join`, with the default of the step.
pub(crate) const fn join_key(default: &'static str) -> KeyDescription {
    KeyDescription {
        name: "join",
        kind: KeyKind::Word(JOINS),
        need: Need::Default(default),
        summary: "what becomes the message: that from before, that of the last fork, or a body of all bodies: a JSON list, \
                  one text, or a JSON object",
    }
}

/// What is made of the results of forks, in Rust.
#[derive(Debug)]
#[must_use = "it says what a step makes of its forks"]
#[non_exhaustive]
pub enum Join {
    /// Nothing: the message stays as it was.
    Original,
    /// The message of the last fork.
    Last,
    /// A JSON list of the bodies.
    List,
    /// The bodies, with this text between them.
    Concatenate(SmolStr),
    /// A JSON object of the bodies, whose keys this expression gives, read on each fork.
    Object(ExpressionDefinition),
}

impl Join {
    /// The bodies, one behind the other, with this text between them.
    pub fn concatenate(delimiter: impl Into<SmolStr>) -> Self {
        Self::Concatenate(delimiter.into())
    }

    /// A JSON object of the bodies, with these keys.
    #[track_caller]
    pub fn object(key: impl IntoExpression) -> Self {
        Self::Object(key.into_expression())
    }

    /// Writes it for the keys of a step.
    #[track_caller]
    pub(crate) fn write(self, arguments: &mut Vec<(&'static str, Argument)>) {
        let (word, more) = match self {
            Self::Original => ("original", None),
            Self::Last => ("last", None),
            Self::List => ("list", None),
            Self::Concatenate(delimiter) => {
                let delimiter = SourceText::from_code(delimiter);
                ("concatenate", Some(("join_delimiter", Argument::Text(delimiter))))
            }
            Self::Object(key) => ("object", Some(("join_key", Argument::Expression(key)))),
        };
        arguments.push(("join", Argument::Word(word)));
        arguments.extend(more);
    }
}

/// The same, compiled.
pub(super) enum Joining {
    Original,
    Last,
    List,
    Concatenate(SmolStr),
    Object(Expression),
}

/// Compiles it, from its name and the keys that go with it.
pub(super) fn joining(
    step: &StepDefinition,
    arguments: &Arguments,
    word: &str,
    compiler: &mut Compiler<'_>,
) -> Option<Joining> {
    let (delimiter, key) = (arguments.text("join_delimiter"), arguments.expression("join_key"));
    for (is_given, name, goes_with) in
        [(delimiter.is_some(), "join_delimiter", "concatenate"), (key.is_some(), "join_key", "object")]
    {
        if is_given && word != goes_with {
            let error =
                ConfigError::in_text(&step.place, format!("`{name}` goes with `join = \"{goes_with}\"`"));
            compiler.error(error);
            return None;
        }
    }
    Some(match word {
        "last" => Joining::Last,
        "list" => Joining::List,
        "concatenate" => Joining::Concatenate(delimiter.map_or("", |text| text.as_str()).into()),
        "object" => {
            let Some(key) = key else {
                let error = ConfigError::in_text(&step.place, "`join = \"object\"` needs a `join_key`");
                compiler.error(error.help("for example `join_key = \"${body.id}\"`"));
                return None;
            };
            // It is read on the forks, whose body is made ready then.
            Joining::Object(compiler.errors.collect(Expression::compile(key))?)
        }
        _ => Joining::Original,
    })
}

/// The results so far, by the index of their forks: those that run side by side end in any order.
pub(super) struct Results<'a> {
    joining: &'a Joining,
    pub(super) scope: Scope<'a>,
    pub(super) begun: i64,
    pub(super) failed: i64,
    pub(super) error: Option<Cause>,
    last: Option<(i64, Message)>,
    values: BTreeMap<i64, (SmolStr, Json)>,
    bytes: BTreeMap<i64, Bytes>,
    length: u64,
}

impl<'a> Results<'a> {
    pub(super) fn new(joining: &'a Joining, scope: Scope<'a>) -> Self {
        let (values, bytes) = (BTreeMap::new(), BTreeMap::new());
        Self { joining, scope, begun: 0, failed: 0, error: None, last: None, values, bytes, length: 0 }
    }

    pub(super) async fn add(&mut self, index: i64, mut fork: Exchange) -> Result<(), BoxError> {
        let key = match self.joining {
            Joining::Original => return Ok(()),
            Joining::Last => {
                if self.last.as_ref().is_none_or(|(last, _)| *last < index) {
                    self.last = Some((index, fork.message));
                }
                return Ok(());
            }
            Joining::Object(key) => {
                fork.message.body.make_ready(key.needs()).await?;
                key.evaluate(&fork, self.scope)?.to_smolstr()
            }
            Joining::List | Joining::Concatenate(_) => SmolStr::default(),
        };
        let mut body = fork.message.body;
        body.load().await?;
        self.length += (body.len() + key.len()) as u64;
        let limit = self.scope.memory_limit;
        if self.length > limit {
            let text = format!("the joined bodies have more than {limit} bytes (`body.memory_limit`)");
            return Err(Failure::data(text).into());
        }
        if matches!(self.joining, Joining::Concatenate(_)) {
            self.bytes.insert(index, body.to_bytes()?);
        } else {
            self.values.insert(index, (key, json_of(&body)?));
        }
        Ok(())
    }

    pub(super) fn join(self, message: &mut Message) -> Result<(), BoxError> {
        match self.joining {
            Joining::Original => {}
            Joining::Last => {
                if let Some((_, last)) = self.last {
                    *message = last;
                }
            }
            Joining::List => {
                message.body = self.values.into_values().map(|(_, json)| json).collect::<Json>().into();
            }
            Joining::Object(_) => {
                message.body = Json::Object(self.values.into_values().collect::<Object>()).into();
            }
            Joining::Concatenate(delimiter) => {
                let parts = self.bytes.into_values().collect::<Vec<_>>();
                message.body = content(parts.join(delimiter.as_bytes()));
            }
        }
        Ok(())
    }
}

/// A body as an element of a list: JSON as what it is, anything else as its text.
pub(crate) fn json_of(body: &Body) -> Result<Json, BoxError> {
    if let Some(json) = body.as_json() {
        return Ok(json.clone());
    }
    match (body.as_bytes(), body.as_str()) {
        (_, Some(text)) => Ok(Json::Text(text.into())),
        (None, None) => Ok(Json::Null),
        (Some(_), None) => Err(Failure::data("a body in a list is no text: its bytes are not UTF-8").into()),
    }
}

/// A body of these bytes: text, or bytes where they are not UTF-8.
pub(crate) fn content(bytes: Vec<u8>) -> Body {
    match String::from_utf8(bytes) {
        Ok(text) => Body::text(text),
        Err(error) => Body::bytes(error.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::Join;
    use crate::builder::{Split, Steps};
    use crate::outcome::Outcome;
    use crate::steps::tests::{header, run};

    /// Splits a, b and c; b is filtered out, and c waits least.
    async fn joined(join: Join) -> String {
        let (exchange, end) = run(|steps| {
            steps.set_header("kind", "parent").set_body("a,b,c").split(
                Split::tokenize(",").parallel(3).join(join),
                |steps| {
                    steps
                        .filter("${body} != 'b'")
                        .set_header("kind", "${body}")
                        .choice(|choice| choice.when("${body} == 'a'", |then| then.delay("1s")))
                        .set_body("${body}${body}")
                },
            )
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)), "{end:?}");
        assert_eq!(exchange.properties.get("split.size").unwrap().to_string(), "3");
        format!("{} {}", header(&exchange, "kind"), exchange.message.body)
    }

    #[tokio::test(start_paused = true)]
    async fn results_are_joined_in_the_order_of_the_forks_and_without_those_that_were_filtered_out() {
        assert_eq!(joined(Join::Original).await, "parent a,b,c");
        assert_eq!(joined(Join::Last).await, "c cc");
        assert_eq!(joined(Join::List).await, r#"parent ["aa","cc"]"#);
        assert_eq!(joined(Join::concatenate("-")).await, "parent aa-cc");
        assert_eq!(joined(Join::object("x${header.kind}")).await, r#"parent {"xa":"aa","xc":"cc"}"#);
    }
}
