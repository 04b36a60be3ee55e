//! `do_try`: runs a block, and handles what fails in it.
//!
//! ```
//! use router_core::builder::{Catch, Steps, Try, from};
//! use router_core::failure::ErrorKind;
//!
//! from("direct:order").do_try(
//!     Try::new(|steps| steps.to("direct:stock"))
//!         .catch(Catch::kinds([ErrorKind::Unavailable]), |steps| steps.to("direct:later"))
//!         .catch(Catch::all(), |steps| steps.log("${exception.message}"))
//!         .finally(|steps| steps.log("done")),
//! );
//! ```
//!
//! ```toml
//! { do_try = { steps = [{ to = "direct:stock" }], do_catch = [
//!   { kinds = ["unavailable"], codes = ["503"], steps = [{ to = "direct:later" }] },
//!   { when = "${header.kind} == 'order'", steps = [{ log = "${exception.message}" }] },
//! ], do_finally = [{ log = "done" }] } }
//! ```
//!
//! The first `do_catch` runs whose `kinds`, `codes` and `when` all fit; one without them fits every error. Nothing was
//! retried or sent to the dead letter endpoint before. What none fits goes to the error handler of the route, which does not
//! retry it. `do_finally` runs in the end, whatever happened, but for the loss of leadership, which nothing handles.

use async_trait::async_trait;
use smol_str::SmolStr;

use crate::error::BoxError;
use crate::error_handler::handleable;
use crate::exchange::Exchange;
use crate::expression::Predicate;
use crate::failure::{ErrorKind, Failure};
use crate::outcome::{Cause, Exception, Outcome, RouteError, StepError};
use crate::step::{
    Action, Arguments, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition,
    StepDescription, optional, required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "do_try",
    summary: "runs a block, and handles what fails in it",
    keys: &[
        required("steps", KeyKind::Steps, "what may fail"),
        optional(
            "do_catch",
            KeyKind::Tables(&[
                optional("kinds", KeyKind::Names, "the kinds of errors, one of which it must be"),
                optional("codes", KeyKind::Names, "the codes of errors, one of which it must be"),
                optional("when", KeyKind::Predicate, "what must hold too; it can read the error"),
                required("steps", KeyKind::Steps, "what is done then"),
            ]),
            "what handles an error: the first one that fits",
        ),
        optional("do_finally", KeyKind::Steps, "what is run in the end, whatever happened"),
    ],
    is_short: false,
    example: r#"{ do_try = { steps = [{ to = "direct:a" }], do_catch = [{ kinds = ["timeout"], steps = ["stop"] }] } }"#,
    compile,
};

struct Guarded {
    place: SmolStr,
    block: Block,
    catches: Box<[Catch]>,
    finally: Option<Block>,
}

/// Without kinds or codes, it fits each of them.
struct Catch {
    kinds: Vec<ErrorKind>,
    codes: Vec<SmolStr>,
    when: Option<Predicate>,
    block: Block,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let block = compiler.block(arguments.steps("steps")?, "do_try", Runs::Sometimes);
    let mut catches = Vec::new();
    let mut is_whole = true;
    for (index, written) in arguments.tables("do_catch").unwrap_or_default().iter().enumerate() {
        match catch(written, index, compiler) {
            Some(catch) => catches.push(catch),
            None => is_whole = false,
        }
    }
    let finally = arguments.steps("do_finally");
    let finally = finally.map(|steps| compiler.block(steps, "do_finally", Runs::Sometimes));
    let place = compiler.place(step);
    is_whole.then(|| Action::scope(Guarded { place, block, catches: catches.into(), finally }))
}

fn catch(written: &Arguments, index: usize, compiler: &mut Compiler<'_>) -> Option<Catch> {
    let mut kinds = Vec::new();
    for name in written.texts("kinds").unwrap_or_default() {
        kinds.push(compiler.errors.collect(handleable(name)));
    }
    // It is read when an error is there, and the body made ready for it then.
    let when = written.predicate("when").map(|when| compiler.errors.collect(Predicate::compile(when)));
    let name = format!("do_catch {}", index + 1);
    let block = compiler.block(written.steps("steps").unwrap_or_default(), &name, Runs::Sometimes);
    let codes = written.texts("codes").unwrap_or_default().iter().map(|code| code.as_str().into()).collect();
    let when = match when {
        Some(when) => Some(when?),
        None => None,
    };
    Some(Catch { kinds: kinds.into_iter().collect::<Option<_>>()?, codes, when, block })
}

impl Catch {
    async fn fits(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<bool, BoxError> {
        let Some(exception) = exchange.exception() else { return Ok(false) };
        let fits_kind = self.kinds.is_empty() || self.kinds.contains(&exception.kind);
        let fits_code =
            self.codes.is_empty() || exception.code.as_ref().is_some_and(|code| self.codes.contains(code));
        let Some(when) = self.when.as_ref().filter(|_| fits_kind && fits_code) else {
            return Ok(fits_kind && fits_code);
        };
        exchange.message.body.make_ready(when.needs()).await?;
        when.holds(exchange, runner.scope())
    }
}

impl Guarded {
    async fn tried(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let error = match runner.guarded(self.block, exchange).await? {
            Ok(end) => return Ok(Flow::after(end)),
            Err(error) => error,
        };
        // Another exchange that was put in the place of this one runs under no authority.
        if !runner.has_own(exchange) {
            return Err(Cause::Uncaught(error));
        }
        let handled = exchange.handle(Exception::of(&error));
        for catch in &self.catches {
            match catch.fits(handled.exchange, runner).await {
                Ok(true) => return runner.block(catch.block, handled.exchange).await.map(Flow::after),
                Ok(false) => {}
                // The block is not tried again for it.
                Err(failed) => {
                    let failed = StepError::new(self.place.as_str(), Failure::of(failed));
                    return Err(Cause::Uncaught(RouteError::of(runner.scope().route_id, failed)));
                }
            }
        }
        Err(Cause::Uncaught(error))
    }
}

#[async_trait]
impl ScopeStep for Guarded {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        let result = self.tried(exchange, runner).await;
        let is_lost = match &result {
            Err(Cause::Ended(error) | Cause::Uncaught(error)) => error.is_leadership_lost(),
            _ => false,
        };
        let Some(finally) = self.finally.filter(|_| !is_lost && runner.has_own(exchange)) else {
            return result;
        };
        if matches!(result, Err(_) | Ok(Flow::End(Outcome::DeadLettered))) {
            // The exchange has failed already, and is handled once: an error of this block is logged.
            return match runner.guarded(finally, exchange).await? {
                Err(lost) if lost.is_leadership_lost() => Err(Cause::Uncaught(lost)),
                Err(mut error) => {
                    runner.log_error(&mut error, exchange);
                    result
                }
                Ok(_) => result,
            };
        }
        match (result, Flow::after(runner.block(finally, exchange).await?)) {
            (Ok(Flow::Next), end) => Ok(end),
            (result, _) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::builder::{Catch, Steps, Try};
    use crate::error::Chain;
    use crate::error_handler::ErrorHandlerDefinition;
    use crate::failure::{ErrorKind, Failure};
    use crate::lock::LeadershipLost;
    use crate::outcome::Outcome;
    use crate::steps::tests::{compile, header, run};

    /// What handles a failure of this kind and code.
    async fn caught(kind: ErrorKind) -> String {
        let (exchange, end) = run(|steps| {
            let guarded = Try::new(move |steps| {
                steps.process(move |_| Err(Failure::new(kind, "broken").code("503").into()))
            });
            let refused = Catch::kinds([ErrorKind::Unavailable, ErrorKind::Timeout]);
            steps.set_header("by", "").do_try(
                guarded
                    .catch(Catch::kinds([ErrorKind::Rejected]).codes(["404"]), |steps| {
                        steps.set_header("by", "code")
                    })
                    .catch(refused.when("${exception.kind} == 'timeout'"), |steps| {
                        steps.set_header("by", "when")
                    })
                    .catch(Catch::all().codes(["503"]), |steps| {
                        steps.set_header("by", "${exception.message}")
                    })
                    .finally(|steps| steps.set_header("by", "${header.by}.${exception.kind}")),
            )
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)), "{end:?}");
        header(&exchange, "by")
    }

    #[tokio::test]
    async fn the_first_catch_that_fits_handles_the_error_and_finally_runs_behind_it() {
        assert_eq!(caught(ErrorKind::Rejected).await, "broken.");
        assert_eq!(caught(ErrorKind::Unavailable).await, "broken.");
        assert_eq!(caught(ErrorKind::Timeout).await, "when.");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_catch_fits_fails_the_exchange_after_finally_and_is_not_tried_again() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        let (exchange, end) = run(|steps| {
            let guarded = Try::new(move |steps| {
                steps.process(move |_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Err("broken".into())
                })
            });
            let guarded =
                guarded.catch(Catch::kinds([ErrorKind::Data]), |steps| steps.set_header("by", "catch"));
            steps
                .error_handler(ErrorHandlerDefinition::default().maximum_redeliveries(3))
                .do_try(guarded.finally(|steps| steps.set_header("finally", "yes").stop()))
        })
        .await;
        assert_eq!(
            Chain(&end.unwrap_err()).to_string(),
            "route `a`, step 1, do_try, step 1 (process) failed: broken"
        );
        assert_eq!((header(&exchange, "by"), header(&exchange, "finally")), (String::new(), "yes".into()));
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_in_a_catch_is_retried_there_and_no_other_catch_handles_it() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        let (exchange, end) = run(|steps| {
            let guarded = Try::new(|steps| steps.process(|_| Err("first".into())));
            let guarded = guarded.catch(Catch::all(), move |steps| {
                steps.process(move |_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Err("second".into())
                })
            });
            steps
                .error_handler(ErrorHandlerDefinition::default().maximum_redeliveries(2))
                .do_try(guarded.catch(Catch::all(), |steps| steps.set_header("by", "another")))
        })
        .await;
        assert_eq!(
            Chain(&end.unwrap_err()).to_string(),
            "route `a`, step 1, do_catch 1, step 1 (process) failed: second"
        );
        assert_eq!((tries.load(Ordering::Relaxed), header(&exchange, "by")), (3, String::new()));
    }

    #[tokio::test]
    async fn the_loss_of_leadership_is_neither_caught_nor_followed_by_finally() {
        let (exchange, end) = run(|steps| {
            let lost = || LeadershipLost { lock: "lock1".parse().unwrap(), term: 7 };
            let guarded = Try::new(move |steps| steps.process(move |_| Err(lost().into())));
            let guarded = guarded.catch(Catch::all(), |steps| steps.set_header("by", "catch"));
            steps.do_try(guarded.finally(|steps| steps.set_header("finally", "yes")))
        })
        .await;
        assert!(end.unwrap_err().is_leadership_lost());
        assert_eq!((header(&exchange, "by"), header(&exchange, "finally")), (String::new(), String::new()));
    }

    #[tokio::test]
    async fn a_when_that_cannot_be_decided_is_an_error_of_its_own() {
        let (_, end) = run(|steps| {
            let guarded = Try::new(|steps| steps.process(|_| Err("broken".into())));
            steps
                .set_body("no JSON")
                .do_try(guarded.catch(Catch::all().when("${body.a} == 1"), |steps| steps))
        })
        .await;
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(
            Chain(&error).to_string().starts_with("route `a`, step 2 (do_try) failed: "),
            "{}",
            Chain(&error)
        );
    }

    #[tokio::test]
    async fn a_stop_in_the_block_ends_the_exchange_and_a_filter_the_block() {
        for (last, outcome, behind) in [("true", Outcome::Stopped, ""), ("false", Outcome::Completed, "yes")]
        {
            let (exchange, end) = run(|steps| {
                let guarded = Try::new(|steps| steps.filter(last).stop());
                steps
                    .do_try(guarded.finally(|steps| steps.set_header("finally", "yes")))
                    .set_header("behind", "yes")
            })
            .await;
            assert_eq!(end.unwrap(), outcome);
            assert_eq!(
                (header(&exchange, "finally"), header(&exchange, "behind")),
                ("yes".into(), behind.into())
            );
        }
    }

    #[tokio::test]
    async fn a_stop_in_a_catch_or_finally_ends_the_exchange_and_a_filter_that_block() {
        for (last, outcome, behind) in [("true", Outcome::Stopped, ""), ("false", Outcome::Completed, "yes")]
        {
            for is_catch in [true, false] {
                let (exchange, end) = run(|steps| {
                    let guarded = match is_catch {
                        true => Try::new(|steps| steps.throw(ErrorKind::Data, "x"))
                            .catch(Catch::all(), |steps| steps.filter(last).stop()),
                        false => Try::new(|steps| steps).finally(|steps| steps.filter(last).stop()),
                    };
                    steps.do_try(guarded).set_header("behind", "yes")
                })
                .await;
                assert_eq!(end.unwrap(), outcome);
                assert_eq!(header(&exchange, "behind"), behind);
            }
        }
    }

    #[test]
    fn the_loss_of_leadership_cannot_be_named() {
        let guarded = Try::new(|steps| steps).catch(Catch::kinds([ErrorKind::LeadershipLost]), |steps| steps);
        let errors = compile(|steps| steps.do_try(guarded)).err().unwrap().to_string();
        assert!(errors.contains("`leadership_lost` cannot be handled"), "{errors}");
    }
}
