//! The term of an exchange is asked before each step, whatever the step does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{DETACH, step};
use crate::builder::{Loop, RouteBuilder, Steps};
use crate::cluster::Member;
use crate::cluster::backend::TermControl;
use crate::error::BoxError;
use crate::error_handler::ErrorHandlerDefinition;
use crate::exchange::Exchange;
use crate::outcome::{Outcome, RouteError};
use crate::processor::Processor;
use crate::steps::tests::compile;

/// Ends the term, as a leader finds it that was stopped meanwhile: what runs may run on for a time.
#[derive(Clone)]
struct Lose(Arc<TermControl>);

#[async_trait]
impl Processor for Lose {
    async fn process(&self, _: &mut Exchange) -> Result<(), BoxError> {
        self.0.lose(Duration::from_secs(60));
        Ok(())
    }
}

/// Runs a route under a term. Its steps are made with one that ends the term.
async fn run(
    steps: impl FnOnce(RouteBuilder, Lose) -> RouteBuilder,
) -> (Exchange, Result<Outcome, RouteError>) {
    let control = Arc::new(TermControl::new("lock".parse().unwrap(), 1, Member::new("a"), None));
    let pipeline = compile(|route| steps(route, Lose(Arc::clone(&control)))).unwrap();
    let mut exchange = Exchange::new("early");
    let end = pipeline.run(exchange.stamp(control.term().clone()).exchange).await;
    (exchange, end)
}

fn assert_lost_at(place: &str, end: Result<Outcome, RouteError>) {
    let error = end.expect_err(place);
    assert!(error.is_leadership_lost(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("`a`, {place} was not run to its end")), "{place}: {text}");
}

#[tokio::test(start_paused = true)]
async fn no_step_of_any_kind_begins_when_the_term_is_over() {
    type Step = fn(RouteBuilder) -> RouteBuilder;
    let kinds: [(&str, Step); 13] = [
        ("log", |route| route.log("x")),
        ("set_header", |route| route.set_header("late", "yes")),
        ("remove_header", |route| route.remove_header("early")),
        ("set_property", |route| route.set_property("late", "yes")),
        ("set_body", |route| route.set_body("late")),
        ("delay", |route| route.delay("1s")),
        ("loop", |route| route.loop_(Loop::times(1), |steps| steps.set_body("late"))),
        ("filter", |route| route.filter("false")),
        ("choice", |route| route.choice(|choice| choice.when("true", |then| then.set_body("late")))),
        ("stop", |route| route.stop()),
        ("process", |route| route.process(|_| unreachable!())),
        ("process", |route| route.process_async(|_| unreachable!())),
        ("detach", |route| route.step(step(&DETACH, None, |steps| steps.log("x")))),
    ];
    for (name, late) in kinds {
        let ended = run(|route, lose| {
            late(route.set_header("early", "yes").process_with(lose)).process(|_| unreachable!())
        });
        let (exchange, end) = ended.await;
        assert_lost_at(&format!("step 3 ({name})"), end);
        assert_eq!(exchange.message.body.to_string(), "early", "{name}");
        assert!(exchange.message.headers.get("early").is_some(), "{name}");
        assert!(exchange.message.headers.get("late").is_none(), "{name}");
        assert!(exchange.properties.get("late").is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn neither_a_block_nor_a_round_of_it_goes_on_when_the_term_is_over() {
    let inside = run(|route, lose| {
        route.loop_(Loop::times(3), |round| {
            round.filter_block("true", |block| block.process_with(lose).set_body("late"))
        })
    });
    let (exchange, end) = inside.await;
    assert_lost_at("step 1, loop, step 1, filter, step 2 (set_body)", end);
    assert_eq!(exchange.message.body.to_string(), "early");
    let rounds = run(|route, lose| {
        let round = "${property.loop.index}";
        route.loop_(Loop::times(3), |steps| steps.set_header("round", round).process_with(lose))
    });
    let (exchange, end) = rounds.await;
    assert_lost_at("step 1, loop, step 1 (set_header)", end);
    assert_eq!(exchange.message.headers.get("round").unwrap().to_string(), "0");
}

#[tokio::test(start_paused = true)]
async fn no_step_is_tried_again_when_the_term_is_over() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let ended = run(|route, lose| {
        let twice = ErrorHandlerDefinition::default().maximum_redeliveries(2);
        // An expression is a step that asks nothing itself.
        route.error_handler(twice).set_header("count", move |_: &Exchange| -> bool {
            counted.fetch_add(1, Ordering::Relaxed);
            lose.0.lose(Duration::from_secs(60));
            panic!("once")
        })
    });
    assert_lost_at("step 1 (set_header)", ended.await.1);
    assert_eq!(tries.load(Ordering::Relaxed), 1);
}
