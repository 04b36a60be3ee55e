//! What steps have in common that work on forks of an exchange, `split` and `multicast`: how many at a time, when they end,
//! and what is made of the results.
//!
//! All forks of an exchange run in its task: they end with its term, and count as its work. What waits, for a server or a
//! disk, waits side by side.

mod join;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use crate::error::BoxError;
use crate::exchange::{Exchange, GivenUp};
use crate::expression::{Expression, Scope};
use crate::failure::Failure;
use crate::options::parse_duration;
use crate::outcome::{Cause, Outcome, RouteError, StepError, failure};
use crate::step::{
    Block, Compiler, Flow, KeyDescription, KeyKind, Runner, StepDefinition, defaulted, optional,
};
use crate::written::ExpressionDefinition;

pub use join::Join;
pub(crate) use join::{JOIN_DELIMITER, JOIN_KEY, join_key};
use join::{Joining, Results, joining};

/// How many forks there are at most at a time, whatever `parallel` says.
const MOST_PARALLEL: usize = 1000;

/// The keys of each step that works on forks.
pub(crate) const PARALLEL: KeyDescription = defaulted(
    "parallel",
    KeyKind::Count,
    "1",
    "how many forks are worked on at a time, at most 1000; with 1, one after the other",
);
pub(crate) const STOP_ON_EXCEPTION: KeyDescription = defaulted(
    "stop_on_exception",
    KeyKind::Flag,
    "false",
    "whether the first fork that fails ends the others; otherwise all are run before the step fails",
);
pub(crate) const TIMEOUT: KeyDescription = optional(
    "timeout",
    KeyKind::Duration,
    "after which forks that are not done are given up; the results of the others are joined",
);
/// The methods of a type that says in Rust how a step works on forks, and has its `arguments`.
macro_rules! fork_options {
    ($type:ident) => {
        impl $type {
            /// Works on so many forks at a time.
            #[track_caller]
            pub fn parallel(mut self, forks: impl $crate::written::IntoExpression) -> Self {
                let forks = $crate::step::Argument::Expression(forks.into_expression());
                self.arguments.push(("parallel", forks));
                self
            }

            /// Has the first fork that fails end the others.
            pub fn stop_on_exception(mut self) -> Self {
                self.arguments.push(("stop_on_exception", $crate::step::Argument::Flag(true)));
                self
            }

            /// Gives up the forks that are not done by then.
            #[track_caller]
            pub fn timeout(mut self, timeout: impl $crate::written::IntoExpression) -> Self {
                let timeout = $crate::step::Argument::Expression(timeout.into_expression());
                self.arguments.push(("timeout", timeout));
                self
            }

            /// Says what is made of the results.
            #[track_caller]
            pub fn join(mut self, join: $crate::steps::forks::Join) -> Self {
                join.write(&mut self.arguments);
                self
            }
        }
    };
}
pub(crate) use fork_options;

/// How a step works on forks, compiled.
pub(crate) struct Forks {
    name: &'static str,
    place: SmolStr,
    parallel: Option<Expression>,
    stop_on_exception: bool,
    timeout: Option<Expression>,
    join: Joining,
}

/// Where forks come from.
#[async_trait]
pub(crate) trait ForkSource: Send {
    /// The next fork, and the block that it runs; `None`: there are no more. `index` of them came before.
    async fn next(&mut self, parent: &Exchange, index: i64) -> Result<Option<(Exchange, Block)>, BoxError>;
}

impl Forks {
    /// Compiles the keys that are common to all; `default` is that of `join`.
    pub(crate) fn compile(
        step: &StepDefinition,
        default: &'static str,
        compiler: &mut Compiler<'_>,
    ) -> Option<Self> {
        let arguments = step.arguments();
        let parallel = arguments.expression("parallel").map(|written| {
            let parallel = compiler.expression(written)?;
            check_constant(&parallel, written, compiler, |text| parallel_of(text).map(drop));
            Some(parallel)
        });
        let timeout = arguments.expression("timeout").map(|written| {
            let timeout = compiler.expression(written)?;
            check_constant(&timeout, written, compiler, |text| timeout_of(text).map(drop));
            Some(timeout)
        });
        let join = joining(step, arguments, arguments.word("join").unwrap_or(default), compiler);
        Some(Self {
            name: step.name(),
            place: compiler.place(step),
            parallel: parallel.map_or(Some(None), |found| found.map(Some))?,
            stop_on_exception: arguments.flag("stop_on_exception").unwrap_or_default(),
            timeout: timeout.map_or(Some(None), |found| found.map(Some))?,
            join: join?,
        })
    }

    /// Runs all forks, and joins their results. Those that are filtered out, or went to the dead letter endpoint, have none.
    pub(crate) async fn run(
        &self,
        mut source: impl ForkSource,
        exchange: &mut Exchange,
        runner: Runner<'_>,
    ) -> Result<Flow, Cause> {
        let parallel =
            self.number(self.parallel.as_ref(), exchange, runner.scope(), parallel_of)?.unwrap_or(1);
        let timeout = self.number(self.timeout.as_ref(), exchange, runner.scope(), timeout_of)?;
        let given_up = GivenUp::within(exchange.given_up());
        let mut results = Results::new(&self.join, runner.scope());
        let mut timed_out = false;
        {
            let parent = &*exchange;
            let mut work =
                Box::pin(self.run_all(&mut source, parent, runner, &given_up, &mut results, parallel));
            tokio::select! {
                biased;
                result = &mut work => result?,
                () = over(timeout) => {
                    given_up.set();
                    timed_out = true;
                }
            }
        }
        let name = self.name;
        exchange.properties.set(format_smolstr!("{name}.size"), results.begun);
        exchange.properties.set(format_smolstr!("{name}.failed"), results.failed);
        exchange.properties.set(format_smolstr!("{name}.timed_out"), timed_out);
        match results.error.take() {
            Some(error) => Err(error),
            None => {
                results.join(&mut exchange.message).map_err(|error| self.uncaught(error, runner.scope()))?;
                Ok(Flow::Next)
            }
        }
    }

    async fn run_all(
        &self,
        source: &mut impl ForkSource,
        parent: &Exchange,
        runner: Runner<'_>,
        given_up: &Arc<GivenUp>,
        results: &mut Results<'_>,
        parallel: usize,
    ) -> Result<(), Cause> {
        let run = async |index: i64, mut fork: Exchange, block: Block| {
            fork.may_be_given_up(given_up);
            // Boxed, because routes call each other through it, and the stack is small.
            let result = Box::pin(runner.block(block, &mut fork)).await;
            (index, fork, result)
        };
        let mut running = FuturesUnordered::new();
        let mut is_exhausted = false;
        loop {
            while !is_exhausted && running.len() < parallel {
                let next = source.next(parent, results.begun).await;
                match next {
                    Ok(Some((fork, block))) if parallel == 1 => {
                        let ended = run(results.begun, fork, block).await;
                        results.begun += 1;
                        self.take(ended, given_up, results).await?;
                        // Forks that never wait would keep their thread, and could not be dropped.
                        tokio::task::consume_budget().await;
                    }
                    Ok(Some((fork, block))) => {
                        running.push(run(results.begun, fork, block));
                        results.begun += 1;
                    }
                    Ok(None) => is_exhausted = true,
                    // Nothing was done that would be done twice.
                    Err(error) if results.begun == 0 => return Err(failure(error)),
                    // Those that are under way end as they do behind the failure of a fork.
                    Err(error) => {
                        let cause = self.uncaught(error, runner.scope());
                        if self.stop_on_exception {
                            given_up.set();
                            return Err(cause);
                        }
                        results.error.get_or_insert(cause);
                        is_exhausted = true;
                    }
                }
            }
            match running.next().await {
                Some(ended) => self.take(ended, given_up, results).await?,
                None => return Ok(()),
            }
        }
    }

    /// What a fork has come to.
    async fn take(
        &self,
        (index, fork, result): (i64, Exchange, Result<Outcome, Cause>),
        given_up: &GivenUp,
        results: &mut Results<'_>,
    ) -> Result<(), Cause> {
        let result = match result {
            Ok(Outcome::Completed | Outcome::Stopped) => {
                let added = results.add(index, fork).await;
                added.map_err(|error| self.uncaught(error, results.scope))
            }
            Ok(_) => Ok(()),
            Err(Cause::Ended(lost)) if lost.is_leadership_lost() => return Err(Cause::Ended(lost)),
            Err(cause) => Err(cause),
        };
        let Err(cause) = result else { return Ok(()) };
        results.failed += 1;
        if self.stop_on_exception {
            given_up.set();
            return Err(cause);
        }
        results.error.get_or_insert(cause);
        Ok(())
    }

    /// An error behind which nothing is tried again: forks have done their work already.
    fn uncaught(&self, error: BoxError, scope: Scope<'_>) -> Cause {
        let error = StepError::new(self.place.as_str(), Failure::of(error));
        Cause::Uncaught(RouteError::of(scope.route_id, error))
    }

    fn number<T>(
        &self,
        expression: Option<&Expression>,
        exchange: &Exchange,
        scope: Scope<'_>,
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Cause> {
        let Some(expression) = expression else { return Ok(None) };
        let value = expression.evaluate(exchange, scope).map_err(failure)?.to_smolstr();
        Ok(Some(read(&value).map_err(|error| Failure::data(format!("{}: {error}", self.name)))?))
    }
}

/// Reports what is wrong with a value that is known before anything runs.
pub(crate) fn check_constant(
    expression: &Expression,
    written: &ExpressionDefinition,
    compiler: &mut Compiler<'_>,
    check: impl Fn(&str) -> Result<(), String>,
) {
    if let Expression::Constant(value) = expression
        && let Err(error) = check(&value.to_smolstr())
    {
        compiler.error_in(written, error);
    }
}

fn parallel_of(text: &str) -> Result<usize, String> {
    let number = text.trim().parse::<usize>().ok().filter(|number| (1..=MOST_PARALLEL).contains(number));
    number.ok_or_else(|| {
        format!("`parallel` takes a whole number from 1 to {MOST_PARALLEL}, not `{}`", text.escape_debug())
    })
}

fn timeout_of(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|expected| format!("`timeout` takes {expected}"))
}

/// Completes when the time is over, if there is one.
async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Join;
    use crate::builder::{Split, Steps};
    use crate::exchange::Exchange;
    use crate::steps::tests::{compile, run};

    #[tokio::test(start_paused = true)]
    async fn no_more_forks_than_the_bound_are_worked_on_at_a_time() {
        for (parallel, expected) in [(1, 1), (3, 3), (9, 5)] {
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (enter, leave) = (Arc::clone(&now), Arc::clone(&now));
            let seen = Arc::clone(&most);
            let (_, end) = run(|steps| {
                steps.set_body("1,2,3,4,5").split(Split::tokenize(",").parallel(parallel), |steps| {
                    steps
                        .process(move |_| {
                            seen.fetch_max(enter.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                            Ok(())
                        })
                        .delay("1s")
                        .process(move |_| {
                            leave.fetch_sub(1, Ordering::Relaxed);
                            Ok(())
                        })
                })
            })
            .await;
            end.unwrap();
            assert_eq!((most.load(Ordering::Relaxed), now.load(Ordering::Relaxed)), (expected, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn forks_that_are_given_up_after_the_timeout_are_not_joined_and_no_loss() {
        let pipeline = compile(|steps| {
            steps.set_body("1,2,3").split(
                Split::tokenize(",").parallel(3).timeout("10s").join(Join::List),
                |steps| {
                    let late = |then: crate::builder::Branch| {
                        then.loop_(crate::builder::Loop::times(1), |steps| steps.delay("1h"))
                    };
                    steps.choice(|choice| choice.when("${body} == '2'", late))
                },
            )
        });
        let pipeline = pipeline.unwrap();
        let mut exchange = Exchange::new(());
        pipeline.run(&mut exchange).await.unwrap();
        assert_eq!(exchange.message.body.to_string(), r#"["1","3"]"#);
        assert_eq!(exchange.properties.get("split.timed_out").unwrap().to_string(), "true");
        assert_eq!(pipeline.dropped_count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_forks_are_run_before_the_step_fails_unless_the_first_failure_stops_them() {
        for (stop, expected) in [(false, "13"), (true, "1")] {
            let done = Arc::new(std::sync::Mutex::new(String::new()));
            let note = Arc::clone(&done);
            let how = Split::tokenize(",");
            let how = if stop { how.stop_on_exception() } else { how };
            let (exchange, end) = run(|steps| {
                steps.set_body("1,2,3").split(how, |steps| {
                    steps.process(move |exchange| {
                        let body = exchange.message.body.to_string();
                        if body == "2" {
                            return Err("two".into());
                        }
                        note.lock().unwrap().push_str(&body);
                        Ok(())
                    })
                })
            })
            .await;
            let error = crate::error::Chain(&end.unwrap_err()).to_string();
            assert_eq!(error, "route `a`, step 2, split, step 1 (process) failed: two");
            assert_eq!(*done.lock().unwrap(), expected);
            assert_eq!(exchange.message.body.to_string(), "1,2,3", "a handler sees what was there before");
        }
    }

    #[test]
    fn a_fork_that_is_waited_for_counts_as_a_call() {
        let mut exchange = Exchange::new(());
        let entered = exchange.enter();
        assert_eq!((entered.exchange.fork_inside().depth(), entered.exchange.fork().depth()), (2, 0));
    }

    #[test]
    fn options_that_do_nothing_and_numbers_that_are_none_are_errors() {
        for (how, expected) in [
            (Split::lines().parallel(0), "`parallel` takes a whole number from 1 to 1000, not `0`"),
            (Split::lines().parallel("many"), "`parallel` takes a whole number from 1 to 1000, not `many`"),
            (Split::lines().timeout("soon"), "`timeout` takes"),
        ] {
            let errors = compile(|steps| steps.split(how, |steps| steps)).err().unwrap().to_string();
            assert!(errors.contains(expected), "{errors}");
        }
    }
}
