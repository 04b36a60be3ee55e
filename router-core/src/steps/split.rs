//! `split`: cuts the body into parts, and runs a block on a fork for each of them.
//!
//! ```
//! use router_core::builder::{Join, Split, Steps, from};
//!
//! from("file:in").split(Split::lines().parallel(4), |steps| steps.to("direct:line"));
//! from("direct:order").split(Split::list("${body.items}").join(Join::List), |steps| steps.to("direct:item"));
//! from("direct:words").split(Split::tokenize(","), |steps| steps.log("${property.split.index}: ${body}"));
//! ```
//!
//! ```toml
//! { split = { lines = true, parallel = 4, steps = [{ to = "direct:line" }] } }
//! { split = { list = "${body.items}", join = "list", steps = [{ to = "direct:item" }] } }
//! { split = { tokenize = ",", steps = [{ log = "${property.split.index}: ${body}" }] } }
//! ```
//!
//! Lines and tokens are read from a file as they are needed: no more than one part, those that are worked on, and what was
//! read ahead (256 KiB) are in memory. A line ends with a line feed, before which a carriage return is dropped; what ends
//! with a delimiter has no empty part behind it.
//!
//! Each fork has the properties `split.index`, from 0; `split.complete`, whether it is the last one; and `split.size`, how
//! many there are: of a list, of lines and tokens only the last fork. Afterwards the exchange has `split.size`,
//! `split.failed` and `split.timed_out`.
//!
//! A `list` that is text is parsed as JSON; one value that is no list is one part, and nothing is none.

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use std::sync::Arc;

use super::forks::{
    ForkSource, Forks, JOIN_DELIMITER, JOIN_KEY, PARALLEL, STOP_ON_EXCEPTION, TIMEOUT, fork_options, join_key,
};
use crate::body::Needs;
use crate::error::{BoxError, ConfigError};
use crate::exchange::{Body, Exchange, Region};
use crate::expression::{Expression, Variable};
use crate::failure::Failure;
use crate::outcome::{Cause, failure};
use crate::source::SourceText;
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition,
    StepDescription, one_of, required,
};
use crate::value::{Json, Value};
use crate::written::IntoExpression;

const PARTS: &[&str] = &["list", "lines", "tokenize"];

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "split",
    summary: "cuts the body into parts, and runs a block on a fork for each of them",
    keys: &[
        one_of(PARTS, "list", KeyKind::Template, "a list, each element of which is a part"),
        one_of(PARTS, "lines", KeyKind::Flag, "each line of the body is a part"),
        one_of(PARTS, "tokenize", KeyKind::Name, "the text between the parts of the body"),
        PARALLEL,
        STOP_ON_EXCEPTION,
        TIMEOUT,
        join_key("original"),
        JOIN_DELIMITER,
        JOIN_KEY,
        required("steps", KeyKind::Steps, "what is done with each part"),
    ],
    is_short: false,
    example: r#"{ split = { lines = true, steps = [{ to = "direct:line" }] } }"#,
    compile,
};

/// How a `split` cuts the body, in Rust.
#[must_use = "it says how a `split` cuts the body"]
#[derive(Debug)]
pub struct Split {
    arguments: Vec<(&'static str, Argument)>,
}

impl Split {
    /// Each line of the body.
    pub fn lines() -> Self {
        Self { arguments: vec![("lines", Argument::Flag(true))] }
    }

    /// What is between these delimiters in the body.
    #[track_caller]
    pub fn tokenize(delimiter: impl Into<smol_str::SmolStr>) -> Self {
        Self { arguments: vec![("tokenize", Argument::Text(SourceText::from_code(delimiter)))] }
    }

    /// Each element of a list: `${body}`, or a field of it.
    #[track_caller]
    pub fn list(list: impl IntoExpression) -> Self {
        Self { arguments: vec![("list", Argument::Expression(list.into_expression()))] }
    }

    /// The step.
    #[track_caller]
    pub(crate) fn step(self, block: Argument) -> StepDefinition {
        let step = StepDefinition::in_code(&DESCRIPTION);
        let step = self.arguments.into_iter().fold(step, |step, (key, argument)| step.with(key, argument));
        step.with("steps", block)
    }
}

fork_options!(Split);

/// The step, compiled.
struct Splitter {
    parts: Parts,
    forks: Forks,
    block: Block,
}

enum Parts {
    List(Expression),
    /// What is between these bytes; of lines, without the carriage return at their end.
    Tokens {
        delimiter: Box<[u8]>,
        lines: bool,
    },
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let forks = Forks::compile(step, "original", compiler);
    let parts = if let Some(list) = arguments.expression("list") {
        let list = compiler.expression(list);
        if let Some(Expression::Variable(Variable::Body)) = &list {
            compiler.needs(Needs::Json);
        }
        list.map(Parts::List)
    } else if let Some(delimiter) = arguments.text("tokenize") {
        tokens(delimiter, compiler)
    } else {
        if arguments.flag("lines") == Some(false) {
            compiler
                .error(ConfigError::in_text(&step.place, "`split` needs one of `list`, `lines`, `tokenize`"));
        }
        Some(Parts::Tokens { delimiter: Box::new(*b"\n"), lines: true })
    };
    let block = compiler.block(arguments.steps("steps")?, "split", Runs::Sometimes);
    Some(Action::scope(Splitter { parts: parts?, forks: forks?, block }))
}

fn tokens(delimiter: &SourceText, compiler: &mut Compiler<'_>) -> Option<Parts> {
    if let Some(range) = delimiter.placeholder() {
        compiler.error(ConfigError::at(delimiter, range, "the delimiter is the same for every exchange"));
        return None;
    }
    if delimiter.as_str().is_empty() {
        compiler.error(ConfigError::in_text(delimiter, "an empty text is between no parts"));
        return None;
    }
    Some(Parts::Tokens { delimiter: delimiter.as_str().as_bytes().into(), lines: false })
}

#[async_trait]
impl ScopeStep for Splitter {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        match &self.parts {
            Parts::List(Expression::Variable(Variable::Body)) => {
                let list = exchange.message.body.to_json().map_err(failure)?;
                self.forks.run(List::new(list, self.block), exchange, runner).await
            }
            Parts::List(list) => {
                let list = list.evaluate(exchange, runner.scope()).map_err(failure)?;
                let list = json(list).map_err(failure)?;
                self.forks.run(List::new(list, self.block), exchange, runner).await
            }
            Parts::Tokens { delimiter, lines } => {
                let body = &exchange.message.body;
                let (buffer, file) = match body.as_file() {
                    Some(region) => (Bytes::new(), Some(region.clone())),
                    None => (body.to_bytes().map_err(failure)?, None),
                };
                let tokens = Tokens {
                    file,
                    offset: 0,
                    buffer,
                    delimiter,
                    lines: *lines,
                    limit: runner.scope().memory_limit,
                    block: self.block,
                };
                self.forks.run(tokens, exchange, runner).await
            }
        }
    }
}

fn json(value: Value) -> Result<Json, BoxError> {
    let parse = |text: &[u8]| {
        let not_a_list = |error| format!("text is split as JSON, or by `tokenize` and `lines`: {error}");
        Json::parse(text).map_err(|error| BoxError::from(Failure::data(not_a_list(error))))
    };
    Ok(match value {
        Value::Null => Json::Null,
        Value::Boolean(flag) => flag.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => {
            number.to_string().parse::<crate::value::Number>().map(Json::from).unwrap_or_default()
        }
        Value::Text(text) => parse(text.as_bytes())?,
        Value::Bytes(bytes) => parse(&bytes)?,
        Value::Json(json) => json,
    })
}

/// A fork for one part.
fn fork(parent: &Exchange, body: Body, (index, size, is_last): (i64, Option<i64>, bool)) -> Exchange {
    let mut fork = parent.fork_inside();
    fork.message.body = body;
    fork.properties.set("split.index", index);
    match size {
        Some(size) => fork.properties.set("split.size", size),
        // That of a `split` around this one.
        None => drop(fork.properties.remove("split.size")),
    }
    fork.properties.set("split.complete", is_last);
    fork
}

/// The elements of a list.
struct List {
    items: Arc<[Json]>,
    block: Block,
}

impl List {
    fn new(list: Json, block: Block) -> Self {
        let items = match list {
            Json::List(items) => items,
            Json::Null => Arc::default(),
            other => Arc::new([other]),
        };
        Self { items, block }
    }
}

#[async_trait]
impl ForkSource for List {
    async fn next(&mut self, parent: &Exchange, index: i64) -> Result<Option<(Exchange, Block)>, BoxError> {
        let size = i64::try_from(self.items.len())?;
        let Some(item) = self.items.get(usize::try_from(index)?) else { return Ok(None) };
        let body = Body::from(Value::from(item));
        Ok(Some((fork(parent, body, (index, Some(size), index + 1 == size)), self.block)))
    }
}

/// The parts of a text, read as they are needed.
struct Tokens<'a> {
    /// What is not read yet: a file, from `offset` on.
    file: Option<Region>,
    offset: u64,
    /// What was read and not taken.
    buffer: Bytes,
    delimiter: &'a [u8],
    lines: bool,
    /// How long a part is at most.
    limit: u64,
    block: Block,
}

impl Tokens<'_> {
    /// How much is read at a time.
    const CHUNK: usize = 256 << 10;

    /// Reads on; `false`: there is no more.
    async fn fill(&mut self) -> Result<bool, BoxError> {
        let Some(file) = &self.file else { return Ok(false) };
        if self.offset >= file.length() {
            return Ok(false);
        }
        // As much as there is of a part: a long one is not copied once for each chunk.
        let (region, offset, most) = (file.clone(), self.offset, self.buffer.len().max(Self::CHUNK));
        let chunk = tokio::task::spawn_blocking(move || region.read(offset, most)).await??;
        self.offset += chunk.len() as u64;
        self.buffer = match self.buffer.is_empty() {
            true => chunk,
            false => [&self.buffer[..], &chunk].concat().into(),
        };
        Ok(true)
    }

    /// The next part.
    async fn token(&mut self) -> Result<Option<Bytes>, BoxError> {
        let mut searched = 0;
        let mut token = loop {
            if let Some(found) = find(&self.buffer[searched..], self.delimiter) {
                let token = self.buffer.split_to(searched + found);
                self.buffer.advance(self.delimiter.len());
                break token;
            }
            // A delimiter may have begun at the end.
            searched = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if searched as u64 > self.limit {
                return Err(self.too_long());
            }
            if !self.fill().await? {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                break std::mem::take(&mut self.buffer);
            }
        };
        if self.lines && token.ends_with(b"\r") {
            token.truncate(token.len() - 1);
        }
        if token.len() as u64 > self.limit {
            return Err(self.too_long());
        }
        Ok(Some(token))
    }

    fn too_long(&self) -> BoxError {
        Failure::data(format!("a part has more than {} bytes (`body.memory_limit`)", self.limit)).into()
    }
}

#[async_trait]
impl ForkSource for Tokens<'_> {
    async fn next(&mut self, parent: &Exchange, index: i64) -> Result<Option<(Exchange, Block)>, BoxError> {
        let Some(token) = self.token().await? else { return Ok(None) };
        while self.buffer.is_empty() && self.fill().await? {}
        let is_last = self.buffer.is_empty();
        // A copy: a part that is kept for long would keep all that was read with it.
        let body = match std::str::from_utf8(&token) {
            Ok(text) => Body::text(text),
            Err(_) => Body::bytes(token.to_vec()),
        };
        Ok(Some((fork(parent, body, (index, is_last.then_some(index + 1), is_last)), self.block)))
    }
}

/// Where `delimiter` begins in `text`.
fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    let (first, rest) = delimiter.split_first()?;
    let mut from = 0;
    loop {
        from += text[from..].iter().position(|byte| byte == first)?;
        if text[from + 1..].starts_with(rest) {
            return Some(from);
        }
        from += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::{Split, find};
    use crate::builder::Steps;
    use crate::exchange::{Body, Exchange};
    use crate::outcome::{Outcome, RouteError};
    use crate::spool::Spool;
    use crate::steps::tests::compile;

    /// The parts, each with its index, the size where it is known, and a `!` behind the last one.
    async fn parts(body: impl Into<Body>, how: Split) -> (Vec<String>, Result<Outcome, RouteError>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let pipeline = compile(|steps| {
            steps.split(how, |steps| {
                steps.process(move |exchange| {
                    let property =
                        |name| exchange.properties.get(name).map(ToString::to_string).unwrap_or_default();
                    let last = if property("split.complete") == "true" { "!" } else { "" };
                    let part = format!(
                        "{}/{} {}{last}",
                        property("split.index"),
                        property("split.size"),
                        exchange.message.body
                    );
                    note.lock().unwrap().push(part);
                    Ok(())
                })
            })
        });
        let end = pipeline.unwrap().run(&mut Exchange::new(body)).await;
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        (seen, end)
    }

    fn file(content: &[u8]) -> Body {
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Body::file(Spool::default().region(file).unwrap())
    }

    #[tokio::test]
    async fn lines_and_tokens_are_the_same_from_memory_and_from_a_file() {
        for body in [Body::from("a\r\n\nb\nc"), file(b"a\r\n\nb\nc"), file(b"a\r\n\nb\nc\n")] {
            let (seen, end) = parts(body, Split::lines()).await;
            assert!(matches!(end, Ok(Outcome::Completed)));
            assert_eq!(seen, ["0/ a", "1/ ", "2/ b", "3/4 c!"]);
        }
        for body in [Body::from("a--b-c--"), file(b"a--b-c--")] {
            assert_eq!(parts(body, Split::tokenize("--")).await.0, ["0/ a", "1/2 b-c!"]);
        }
        assert_eq!(parts((), Split::lines()).await.0, [""; 0]);
    }

    #[tokio::test]
    async fn parts_that_are_cut_by_the_end_of_a_chunk_are_whole() {
        let line = "x".repeat(100_000);
        let content = format!("{line}--{line}--{line}-").repeat(9);
        let expected = content.split("--").map(str::to_owned).collect::<Vec<_>>();
        let (seen, end) = parts(file(content.as_bytes()), Split::tokenize("--")).await;
        end.unwrap();
        let seen = seen.iter().map(|part| part.split_once(' ').unwrap().1.trim_end_matches('!').to_owned());
        assert!(seen.collect::<Vec<_>>() == expected);
    }

    #[tokio::test]
    async fn a_list_is_what_an_expression_gives_also_where_it_is_still_text() {
        let (seen, _) = parts(r#"[1, "b", {"c": 2.50}]"#, Split::list("${body}")).await;
        assert_eq!(seen, ["0/3 1", "1/3 b", r#"2/3 {"c":2.50}!"#]);
        let (seen, _) = parts(file(br#"{"items": ["a"]}"#), Split::list("${body.items}")).await;
        assert_eq!(seen, ["0/1 a!"]);
        for nothing in ["${body.none}", "${header.none}"] {
            assert_eq!(parts("{}", Split::list(nothing)).await.0, [""; 0]);
        }
        assert_eq!(parts(r#"{"a":1}"#, Split::list("${body}")).await.0, [r#"0/1 {"a":1}!"#]);
        let (_, end) = parts("a,b", Split::list("${body}x")).await;
        let error = end.unwrap_err();
        assert_eq!(error.kind().name(), "data");
        assert!(crate::error::Chain(&error).to_string().contains("by `tokenize` and `lines`"));
    }

    #[tokio::test]
    async fn a_stop_and_a_filter_in_the_block_end_the_fork_alone() {
        let (exchange, end) = crate::steps::tests::run(|steps| {
            steps
                .set_body("1,2")
                .split(Split::tokenize(","), |steps| steps.filter("${body} == '1'").stop())
                .set_body("behind")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!(exchange.message.body.to_string(), "behind");
    }

    #[test]
    fn a_delimiter_is_found_wherever_it_begins() {
        for (text, delimiter, at) in [
            ("aab", "ab", Some(1)),
            ("aa", "ab", None),
            ("", "a", None),
            ("--", "--", Some(0)),
            ("a-", "--", None),
        ] {
            assert_eq!(find(text.as_bytes(), delimiter.as_bytes()), at);
        }
    }

    #[test]
    fn a_delimiter_that_cannot_be_one_is_an_error() {
        assert!(compile(|steps| steps.split(Split::tokenize(""), |steps| steps)).is_err());
        assert!(compile(|steps| steps.split(Split::tokenize("${header.x}"), |steps| steps)).is_err());
    }
}
