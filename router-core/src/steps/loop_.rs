//! `loop`: runs a block several times, or for as long as a predicate holds.
//!
//! ```
//! use router_core::builder::{Loop, Steps, from};
//!
//! from("timer:clock").loop_(Loop::times(3), |steps| steps.log("round ${property.loop.index}"));
//! from("timer:clock").loop_(Loop::while_("${body.next} != null").copy(), |steps| steps.to("direct:page"));
//! ```
//!
//! ```toml
//! { loop = { count = 3, steps = [{ log = "round ${property.loop.index} of ${property.loop.size}" }] } }
//! { loop = { while = "${body.next} != null", copy = true, steps = [{ to = "direct:page" }] } }
//! ```
//!
//! The properties `loop.index`, from 0, and `loop.size`, where there is a `count`, tell which round it is. The count is
//! evaluated once; one that is not positive is no round. With `copy`, each round begins with the message and the properties
//! as they were before the first one; the exchange goes on as the last round left it. A `stop` in the block ends the
//! exchange, a `filter` without a block of its own the round.

use async_trait::async_trait;
use smol_str::ToSmolStr;

use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::expression::{Expression, Predicate};
use crate::failure::Failure;
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Argument, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition,
    StepDescription, defaulted, one_of, required,
};
use crate::written::{IntoExpression, IntoPredicate};

const ROUNDS: &[&str] = &["count", "while"];

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "loop",
    summary: "runs a block several times, or for as long as a predicate holds",
    keys: &[
        one_of(ROUNDS, "count", KeyKind::Count, "how often; it or `while` must be given"),
        one_of(
            ROUNDS,
            "while",
            KeyKind::Predicate,
            "what must hold before each round; it or `count` must be given",
        ),
        defaulted(
            "copy",
            KeyKind::Flag,
            "false",
            "whether each round begins with the message and the properties as they were before the first one",
        ),
        required("steps", KeyKind::Steps, "what each round does"),
    ],
    is_short: false,
    example: r#"{ loop = { count = 3, steps = [{ log = "round ${property.loop.index}" }] } }"#,
    compile,
};

/// How often the block of a `loop` is run, in Rust.
#[must_use = "it says how often a `loop` runs its block"]
#[derive(Debug)]
pub struct Loop {
    key: &'static str,
    rounds: Argument,
    copy: bool,
}

impl Loop {
    /// A number of times.
    #[track_caller]
    pub fn times(count: impl IntoExpression) -> Self {
        Self { key: "count", rounds: Argument::Expression(count.into_expression()), copy: false }
    }

    /// For as long as `predicate` holds before a round.
    #[track_caller]
    pub fn while_(predicate: impl IntoPredicate) -> Self {
        Self { key: "while", rounds: Argument::Predicate(predicate.into_predicate()), copy: false }
    }

    /// Has each round begin with the message and the properties as they were before the first one.
    pub fn copy(self) -> Self {
        Self { copy: true, ..self }
    }

    /// The step.
    #[track_caller]
    pub(crate) fn step(self, block: Argument) -> StepDefinition {
        let step = StepDefinition::in_code(&DESCRIPTION).with(self.key, self.rounds);
        let step = if self.copy { step.with("copy", Argument::Flag(true)) } else { step };
        step.with("steps", block)
    }
}

/// The step, compiled.
struct Rounds {
    until: Until,
    copy: bool,
    block: Block,
}

enum Until {
    Count(Expression),
    While(Predicate),
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let (count, predicate) = (arguments.expression("count"), arguments.predicate("while"));
    let until = match (count, predicate) {
        (Some(count), None) => compiler.expression(count).map(Until::Count),
        (None, Some(predicate)) => compiler.predicate(predicate).map(Until::While),
        // A front end has said so.
        _ => None,
    };
    // A count may be 0, and a predicate may not hold once.
    let mut runs = Runs::Sometimes;
    // A count that is known now is checked now.
    if let (Some(Until::Count(Expression::Constant(value))), Some(count)) = (&until, count) {
        match rounds(&value.to_smolstr()) {
            Ok(rounds) if rounds > 0 => runs = Runs::Always,
            Ok(_) => {}
            Err(error) => compiler.error_in(count, format!("the count of `loop` is {error}")),
        }
    }
    let block = compiler.block(arguments.steps("steps")?, "loop", runs);
    Some(Action::scope(Rounds { until: until?, copy: arguments.flag("copy").unwrap_or_default(), block }))
}

fn rounds(count: &str) -> Result<i64, BoxError> {
    count.trim().parse().map_err(|_| format!("not a whole number, but `{}`", count.escape_debug()).into())
}

#[async_trait]
impl ScopeStep for Rounds {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let size = match &self.until {
            Until::Count(count) => {
                let count = count.evaluate(exchange, runner.scope()).map_err(failure)?;
                let count = rounds(&count.to_smolstr());
                Some(count.map_err(|error| Failure::data(format!("the count is {error}")))?)
            }
            Until::While(_) => None,
        };
        let original = self.copy.then(|| (exchange.message.clone(), exchange.properties.clone()));
        let mut index = 0;
        loop {
            let goes_on = match (&self.until, size) {
                (Until::While(predicate), _) => {
                    // The block may have made another body.
                    exchange.message.body.make_ready(predicate.needs()).await.map_err(failure)?;
                    predicate.holds(exchange, runner.scope()).map_err(failure)?
                }
                (Until::Count(_), size) => size.is_some_and(|size| index < size),
            };
            if !goes_on {
                return Ok(Flow::Next);
            }
            if let Some((message, properties)) = &original {
                (exchange.message, exchange.properties) = (message.clone(), properties.clone());
            }
            exchange.properties.set("loop.index", index);
            if let Some(size) = size {
                exchange.properties.set("loop.size", size);
            }
            match Flow::after(runner.block(self.block, exchange).await?) {
                Flow::Next => index += 1,
                end => return Ok(end),
            }
            // A round of steps that never wait would keep its thread, and could not be dropped.
            tokio::task::consume_budget().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::Loop;
    use crate::builder::Steps;
    use crate::error::BoxError;
    use crate::exchange::{Body, Exchange};
    use crate::outcome::Outcome;
    use crate::processor::Processor;
    use crate::spool::Spool;
    use crate::steps::tests::{compile, header, run};

    /// Notes whether the body is a file, and puts this file in its place.
    struct Replace(File, Arc<Mutex<Vec<bool>>>);

    #[async_trait::async_trait]
    impl Processor for Replace {
        async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
            let mut seen = self.1.lock().unwrap();
            seen.push(exchange.message.body.as_file().is_some());
            exchange.message.body = match seen.len() {
                3 => "{}".into(),
                _ => Body::file(Spool::default().region(self.0.try_clone()?)?),
            };
            Ok(())
        }

        fn takes_files(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn the_predicate_finds_a_file_that_the_block_has_made_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(br#"{"next":"x"}"#).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let replace = Replace(file, Arc::clone(&seen));
        let (_, end) = run(|steps| {
            steps
                .set_body(r#"{"next":"x"}"#)
                .loop_(Loop::while_("${body.next} == 'x'"), |steps| steps.process_with(replace))
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!(*seen.lock().unwrap(), [false, false, false]);
    }

    #[tokio::test]
    async fn a_loop_runs_its_block_as_often_as_it_says() {
        for (count, expected) in [("3", "-0-1-2 of 3"), ("${header.n}", "-0-1 of 2"), ("0", ""), ("-1", "")] {
            let (exchange, end) = run(|steps| {
                steps.set_header("n", 2).loop_(Loop::times(count), |steps| {
                    steps
                        .set_header("seen", "${header.seen}-${property.loop.index}")
                        .set_header("all", "${header.seen} of ${property.loop.size}")
                })
            })
            .await;
            assert!(matches!(end, Ok(Outcome::Completed)));
            assert_eq!(header(&exchange, "all"), expected, "{count}");
        }
        let (_, end) = run(|steps| steps.loop_(Loop::times("${header.n}x"), |steps| steps)).await;
        let error = crate::error::Chain(&end.unwrap_err()).to_string();
        assert_eq!(error, "route `a`, step 1 (loop) failed: the count is not a whole number, but `x`");
    }

    #[tokio::test]
    async fn a_loop_goes_on_while_its_predicate_holds() {
        let (exchange, _) = run(|steps| {
            steps.set_header("seen", "").loop_(Loop::while_("${header.seen} != 'xxxx'"), |steps| {
                steps.set_header("seen", "${header.seen}x").set_header("size", "${property.loop.size}")
            })
        })
        .await;
        assert_eq!((header(&exchange, "seen"), header(&exchange, "size")), ("xxxx".into(), String::new()));
    }

    #[tokio::test]
    async fn with_copy_each_round_begins_with_the_message_as_it_was() {
        for (copy, expected) in [(false, "axxx"), (true, "ax")] {
            let times = if copy { Loop::times(3).copy() } else { Loop::times(3) };
            let (exchange, _) =
                run(|steps| steps.set_body("a").loop_(times, |steps| steps.set_body("${body}x"))).await;
            assert_eq!(exchange.message.body.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_exchange_and_a_filter_the_round() {
        let (exchange, end) = run(|steps| {
            steps
                .loop_(Loop::times(5), |steps| {
                    steps
                        .set_header("begun", "${property.loop.index}")
                        .filter("${property.loop.index} > 2")
                        .stop()
                })
                .set_header("behind", "yes")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Stopped)));
        assert_eq!((header(&exchange, "begun"), header(&exchange, "behind")), ("3".into(), String::new()));
    }

    #[test]
    fn a_count_that_is_known_is_checked_before_anything_runs() {
        let error = compile(|steps| steps.loop_(Loop::times("x y"), |steps| steps.filter("${")));
        let errors = error.err().unwrap().to_string();
        assert!(errors.contains("the count of `loop` is not a whole number, but `x y`"), "{errors}");
        assert_eq!(errors.matches("error:").count(), 2, "those of the block are not hidden: {errors}");
    }
}
