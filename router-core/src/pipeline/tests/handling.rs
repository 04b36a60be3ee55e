//! Who handles what fails in a block: the cells of the guide's table that need steps with blocks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{FORK, description, step};
use crate::builder::{Loop, RouteBuilder, Steps};
use crate::error::BoxError;
use crate::error_handler::ErrorHandlerDefinition;
use crate::exchange::Exchange;
use crate::failure::{ErrorKind, Failure};
use crate::lock::LeadershipLost;
use crate::outcome::{Cause, Exception, Outcome, RouteError};
use crate::pipeline::{Action, Block, Flow, Runner, ScopeStep};
use crate::processor::Processor;
use crate::step::{Runs, StepDefinition, StepDescription};
use crate::steps::tests::compile_with;

/// Runs its block; handles all that it is given but `other`.
static GUARD: StepDescription = description("guard", |step, compiler| {
    let block = compiler.block(step.arguments().steps("steps")?, "guard", Runs::Always);
    Some(Action::scope(Guard(block)))
});

struct Guard(Block);

#[async_trait]
impl ScopeStep for Guard {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        match runner.guarded(self.0, exchange).await? {
            Ok(end) => Ok(Flow::after(end)),
            Err(error) if error.kind() != ErrorKind::Other => {
                let handled = exchange.handle(Exception::of(&error));
                let message = handled.exchange.exception().map(|exception| exception.message.clone());
                handled.exchange.properties.set("caught", message.unwrap_or_default());
                Ok(Flow::Next)
            }
            Err(error) => Err(Cause::Uncaught(error)),
        }
    }
}

/// What came to the dead letter endpoint: where the error was, and what was caught before.
#[derive(Default)]
struct DeadLetters(Mutex<Vec<String>>);

#[async_trait]
impl Processor for DeadLetters {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let step = exchange.exception().map(|exception| exception.step.to_string());
        self.0.lock().unwrap().push(step.unwrap_or_default());
        Ok(())
    }
}

/// What became of an exchange.
struct Ended {
    exchange: Exchange,
    result: Result<Outcome, RouteError>,
    dead: Vec<String>,
    tries: usize,
}

impl Ended {
    fn outcome(&self) -> &'static str {
        match &self.result {
            Ok(outcome) => outcome.name(),
            Err(error) => error.kind().name(),
        }
    }

    fn property(&self, name: &str) -> Option<String> {
        self.exchange.properties.get(name).map(ToString::to_string)
    }
}

/// A step that fails, and counts how often.
struct Failing {
    tries: Arc<AtomicUsize>,
    error: fn() -> BoxError,
}

impl Failing {
    fn add<S: Steps>(&self, steps: S) -> S {
        let (tries, error) = (Arc::clone(&self.tries), self.error);
        steps.process(move |_| {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(error())
        })
    }
}

/// Runs a route with two redeliveries, and a dead letter endpoint if `is_dead_letter`. Its steps are made with one that
/// fails with what `error` gives.
async fn run(
    is_dead_letter: bool,
    error: fn() -> BoxError,
    steps: impl FnOnce(RouteBuilder, &Failing) -> RouteBuilder,
) -> Ended {
    let tries = Arc::new(AtomicUsize::new(0));
    let fail = Failing { tries: Arc::clone(&tries), error };
    let dead = Arc::new(DeadLetters::default());
    let dead_letter = is_dead_letter.then(|| Arc::clone(&dead) as Arc<dyn Processor>);
    let pipeline = compile_with(dead_letter, |route| {
        let handler = ErrorHandlerDefinition::default().maximum_redeliveries(2);
        steps(route.error_handler(handler), &fail)
    });
    let mut exchange = Exchange::new(());
    let result = pipeline.unwrap().run(&mut exchange).await;
    let dead = std::mem::take(&mut *dead.0.lock().unwrap());
    Ended { exchange, result, dead, tries: tries.load(Ordering::Relaxed) }
}

fn other() -> BoxError {
    "broken".into()
}

fn guard(steps: impl FnOnce(RouteBuilder) -> RouteBuilder) -> StepDefinition {
    step(&GUARD, None, steps)
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_a_fork_ends_the_fork_alone() {
    let ended = run(true, other, |route, fail| {
        route.step(step(&FORK, None, |steps| fail.add(steps))).set_property("behind", "yes")
    });
    let ended = ended.await;
    assert_eq!((ended.outcome(), ended.tries), ("completed", 3));
    assert_eq!(ended.dead, ["step 1, fork, step 1 (process)"]);
    assert_eq!(ended.property("fork").as_deref(), Some("DeadLettered"));
    assert_eq!(ended.property("behind").as_deref(), Some("yes"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_fork_is_one_of_the_parent_and_was_handled_at_its_step() {
    let ended = run(false, other, |route, fail| {
        route.step(step(&FORK, None, |steps| fail.add(steps))).set_property("behind", "yes")
    });
    let ended = ended.await;
    assert_eq!((ended.outcome(), ended.tries), ("other", 3), "tried again at the step, not at the fork");
    assert_eq!(ended.property("behind"), None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_round_is_handled_at_its_step() {
    for (is_dead_letter, outcome) in [(true, "dead_lettered"), (false, "other")] {
        let ended =
            run(is_dead_letter, other, |route, fail| route.loop_(Loop::times(5), |steps| fail.add(steps)));
        let ended = ended.await;
        assert_eq!((ended.outcome(), ended.tries), (outcome, 3), "the rounds behind it are not run");
        assert_eq!(ended.dead.len(), usize::from(is_dead_letter));
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_guarded_block_nothing_is_tried_again_or_sent_to_the_dead_letter_endpoint_before_the_catch() {
    let rejected = || Failure::rejected("no such order").into();
    // Also in blocks inside of it: they are run by the same rule.
    let bare = run(true, rejected, |route, fail| {
        route.step(guard(|steps| fail.add(steps))).set_property("behind", "${exception.kind}|")
    });
    let looped = run(true, rejected, |route, fail| {
        route
            .step(guard(|steps| steps.loop_(Loop::times(5), |steps| fail.add(steps))))
            .set_property("behind", "${exception.kind}|")
    });
    for ended in [bare.await, looped.await] {
        assert_eq!((ended.outcome(), ended.tries), ("completed", 1));
        assert!(ended.dead.is_empty(), "{:?}", ended.dead);
        assert_eq!(ended.property("caught").as_deref(), Some("no such order"));
        assert_eq!(ended.property("behind").as_deref(), Some("|"), "what was handled is over");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_caught_goes_to_the_dead_letter_endpoint_once_and_is_not_tried_again() {
    let nested = |route: RouteBuilder, fail: &Failing| {
        route.step(guard(|steps| steps.step(guard(|steps| fail.add(steps))))).set_property("behind", "yes")
    };
    for (is_dead_letter, outcome) in [(true, "dead_lettered"), (false, "other")] {
        let ended = run(is_dead_letter, other, nested).await;
        assert_eq!((ended.outcome(), ended.tries), (outcome, 1));
        assert_eq!((ended.property("caught"), ended.property("behind")), (None, None));
        let place = "step 1, guard, step 1, guard, step 1 (process)";
        assert_eq!(ended.dead, if is_dead_letter { vec![place] } else { vec![] });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_a_guarded_block_ends_the_exchange_and_a_filter_the_block() {
    for (body, outcome, behind) in [("true", "stopped", None), ("false", "completed", Some("yes"))] {
        let ended = run(true, other, |route, _| {
            let guarded = guard(|steps| steps.filter(body).stop());
            route.step(guarded).set_property("behind", "yes")
        });
        let ended = ended.await;
        assert_eq!((ended.outcome(), ended.property("behind").as_deref()), (outcome, behind));
    }
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_leadership_passes_by_every_step_that_handles_errors() {
    let lost = || Failure::rejected(LeadershipLost { lock: "lock1".parse().unwrap(), term: 7 }).into();
    let ended = run(true, lost, |route, fail| {
        let fork = step(&FORK, None, |steps| fail.add(steps));
        route.step(guard(|steps| steps.step(fork))).set_property("behind", "yes")
    });
    let ended = ended.await;
    assert_eq!((ended.outcome(), ended.tries), ("leadership_lost", 1));
    assert!(ended.dead.is_empty(), "{:?}", ended.dead);
    assert_eq!((ended.property("caught"), ended.property("behind")), (None, None));
}
