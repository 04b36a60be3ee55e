//! `load_balance`: runs one of several blocks.
//!
//! ```
//! use router_core::builder::{LoadBalance, Steps, from};
//!
//! from("direct:order").load_balance(
//!     LoadBalance::failover().branch(|steps| steps.to("direct:first")).branch(|steps| steps.to("direct:second")),
//! );
//! from("direct:order").load_balance(
//!     LoadBalance::weighted().weighted_branch(3, |steps| steps.to("direct:a")).branch(|steps| steps.to("direct:b")),
//! );
//! ```
//!
//! ```toml
//! { load_balance = { policy = "failover", branches = [
//!   { steps = [{ to = "direct:first" }] },
//!   { steps = [{ to = "direct:second" }] },
//! ] } }
//! { load_balance = { policy = "sticky", key = "${header.customer}", branches = [
//!   { steps = [{ to = "direct:a" }] },
//!   { steps = [{ to = "direct:b" }] },
//! ] } }
//! ```
//!
//! | policy | takes |
//! |---|---|
//! | `round_robin` | one after the other |
//! | `random` | any |
//! | `weighted` | one after the other, each as often in a round as its `weight` says |
//! | `sticky` | the same one for each value of `key`, also in other processes with as many branches |
//! | `failover` | the first one, and the next one where that fails with one of `kinds` |
//!
//! With `failover`, each branch begins with the message and properties from before the first one. Nothing is retried before
//! the last one: its steps are retried, and go to the dead letter endpoint, as all others of the route. An error of another
//! kind goes to the error handler of the route, and is not retried.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use smol_str::ToSmolStr;

use crate::error::ConfigError;
use crate::error_handler::handleable;
use crate::exchange::Exchange;
use crate::expression::Expression;
use crate::failure::ErrorKind;
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition, StepDescription,
    defaulted, optional, required,
};

const POLICIES: &[&str] = &["round_robin", "random", "weighted", "sticky", "failover"];

/// How often a branch is taken in a round, at most.
const MOST_WEIGHT: usize = 1000;

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "load_balance",
    summary: "runs one of several blocks: in turn, by chance, by a key, or the next one where one fails",
    keys: &[
        defaulted("policy", KeyKind::Word(POLICIES), "round_robin", "which block is run"),
        required(
            "branches",
            KeyKind::Tables(&[
                defaulted(
                    "weight",
                    KeyKind::Count,
                    "1",
                    "how often in a round, with `weighted`; at most 1000",
                ),
                required("steps", KeyKind::Steps, "the block"),
            ]),
            "the blocks, in order",
        ),
        optional("key", KeyKind::Template, "what decides with `sticky`"),
        optional(
            "kinds",
            KeyKind::Names,
            "the kinds of errors for `failover`; without it, those that are retried",
        ),
    ],
    is_short: false,
    example: r#"{ load_balance = { policy = "failover", branches = [{ steps = [{ to = "direct:a" }] }] } }"#,
    compile,
};

struct LoadBalance {
    policy: Policy,
    blocks: Box<[Block]>,
}

enum Policy {
    RoundRobin(AtomicUsize),
    Random,
    /// The index of a branch for each place in a round.
    Weighted(AtomicUsize, Box<[usize]>),
    Sticky(Expression),
    Failover(Vec<ErrorKind>),
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let arguments = step.arguments();
    let word = arguments.word("policy").unwrap_or("round_robin");
    let branches = arguments.tables("branches").unwrap_or_default();
    if branches.is_empty() {
        compiler.error(ConfigError::in_text(&step.place, "`load_balance` needs a branch"));
        return None;
    }
    let is_given = |key| arguments.get(key).is_some();
    let has_weight = branches.iter().any(|branch| branch.get("weight").is_some());
    for (is_given, key, policy) in [
        (is_given("key"), "key", "sticky"),
        (is_given("kinds"), "kinds", "failover"),
        (has_weight, "weight", "weighted"),
    ] {
        if is_given && word != policy {
            let message = format!("`{key}` goes with `policy = \"{policy}\"`");
            compiler.error(ConfigError::in_text(&step.place, message));
        }
    }
    let policy = policy(step, word, compiler);
    let mut blocks = Vec::new();
    for (index, branch) in branches.iter().enumerate() {
        let name = format!("branch {}", index + 1);
        blocks.push(compiler.block(branch.steps("steps").unwrap_or_default(), &name, Runs::Sometimes));
    }
    Some(Action::scope(LoadBalance { policy: policy?, blocks: blocks.into() }))
}

fn policy(step: &StepDefinition, word: &str, compiler: &mut Compiler<'_>) -> Option<Policy> {
    let arguments = step.arguments();
    Some(match word {
        "random" => Policy::Random,
        "weighted" => Policy::Weighted(AtomicUsize::new(0), round(step, compiler)?),
        "sticky" => {
            let Some(key) = arguments.expression("key") else {
                let error = ConfigError::in_text(&step.place, "`policy = \"sticky\"` needs a `key`");
                compiler.error(error.help("for example `key = \"${header.customer}\"`"));
                return None;
            };
            Policy::Sticky(compiler.expression(key)?)
        }
        "failover" => {
            let retried = || ErrorKind::HANDLEABLE.iter().copied().filter(|kind| kind.is_retried()).collect();
            let named = arguments.texts("kinds").map(|names| {
                let kinds = names.iter().map(|name| compiler.errors.collect(handleable(name)));
                kinds.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
            });
            Policy::Failover(named.unwrap_or_else(|| Some(retried()))?)
        }
        _ => Policy::RoundRobin(AtomicUsize::new(0)),
    })
}

/// The branches in the order of a round.
fn round(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Box<[usize]>> {
    let mut round = Vec::new();
    for (index, branch) in step.arguments().tables("branches").unwrap_or_default().iter().enumerate() {
        let mut weight = 1;
        if let Some(written) = branch.expression("weight") {
            let value = match compiler.expression(written)? {
                Expression::Constant(value) => value.to_smolstr().trim().parse::<usize>().ok(),
                _ => None,
            };
            let Some(value) = value.filter(|value| (1..=MOST_WEIGHT).contains(value)) else {
                compiler.error_in(written, format!("a weight is a whole number from 1 to {MOST_WEIGHT}"));
                return None;
            };
            weight = value;
        }
        round.extend(std::iter::repeat_n(index, weight));
    }
    Some(round.into())
}

impl LoadBalance {
    /// The branch for this exchange.
    fn pick(&self, exchange: &Exchange, runner: Runner<'_>) -> Result<usize, Cause> {
        let count = self.blocks.len();
        Ok(match &self.policy {
            Policy::RoundRobin(next) => next.fetch_add(1, Ordering::Relaxed) % count,
            Policy::Random => fastrand::usize(..count),
            Policy::Weighted(next, round) => round[next.fetch_add(1, Ordering::Relaxed) % round.len()],
            Policy::Sticky(key) => {
                let mut hasher = DefaultHasher::new();
                let key = key.evaluate(exchange, runner.scope()).map_err(failure)?;
                key.to_smolstr().hash(&mut hasher);
                usize::try_from(hasher.finish() % count as u64).unwrap_or_default()
            }
            Policy::Failover(_) => 0,
        })
    }

    async fn fail_over(
        &self,
        kinds: &[ErrorKind],
        exchange: &mut Exchange,
        runner: Runner<'_>,
    ) -> Result<Flow, Cause> {
        let Some((last, others)) = self.blocks.split_last() else { return Ok(Flow::Next) };
        let original = (exchange.message.clone(), exchange.properties.clone());
        for block in others {
            match runner.guarded(*block, exchange).await? {
                Ok(end) => return Ok(Flow::after(end)),
                Err(error) if kinds.contains(&error.kind()) && runner.has_own(exchange) => {}
                Err(error) => return Err(Cause::Uncaught(error)),
            }
            (exchange.message, exchange.properties) = original.clone();
        }
        runner.block(*last, exchange).await.map(Flow::after)
    }
}

#[async_trait]
impl ScopeStep for LoadBalance {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        if let Policy::Failover(kinds) = &self.policy {
            return self.fail_over(kinds, exchange, runner).await;
        }
        let block = self.blocks[self.pick(exchange, runner)?];
        runner.block(block, exchange).await.map(Flow::after)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::builder::{Branch, LoadBalance, Steps};
    use crate::error_handler::ErrorHandlerDefinition;
    use crate::exchange::Exchange;
    use crate::failure::{ErrorKind, Failure};
    use crate::outcome::Outcome;
    use crate::steps::tests::{compile, header, run};

    /// Which branches six exchanges take, whose customer is `a` and `b` in turn.
    async fn taken(balance: LoadBalance) -> String {
        let pipeline = compile(|steps| steps.load_balance(balance)).unwrap();
        let mut taken = String::new();
        for customer in ["a", "b", "a", "b", "a", "b"] {
            let mut exchange = Exchange::new(());
            exchange.message.headers.set("customer", customer);
            pipeline.run(&mut exchange).await.unwrap();
            taken.push_str(&header(&exchange, "branch"));
        }
        taken
    }

    fn named(name: &'static str) -> impl FnOnce(Branch) -> Branch {
        move |steps| steps.set_header("branch", name)
    }

    #[tokio::test]
    async fn branches_are_taken_in_turn_by_weight_or_by_a_key() {
        let round_robin = LoadBalance::round_robin().branch(named("1")).branch(named("2")).branch(named("3"));
        assert_eq!(taken(round_robin).await, "123123");
        let weighted = LoadBalance::weighted().weighted_branch(2, named("1")).branch(named("2"));
        assert_eq!(taken(weighted).await, "112112");
        let sticky = LoadBalance::sticky("${header.customer}").branch(named("1")).branch(named("2"));
        let sticky = taken(sticky).await;
        assert_eq!(sticky[..2].repeat(3), sticky, "the same customer, the same branch");
        let random = LoadBalance::random().branch(named("1")).branch(named("2"));
        assert_eq!(taken(random).await.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_branch_is_taken_where_one_fails_and_the_last_one_is_retried_as_any_step() {
        let failing = |kind, tries: &Arc<AtomicUsize>| {
            let tries = Arc::clone(tries);
            move |steps: Branch| {
                steps.set_body("changed").process(move |_| {
                    tries.fetch_add(1, Ordering::Relaxed);
                    Err(Failure::new(kind, "broken").into())
                })
            }
        };
        let handler = || ErrorHandlerDefinition::default().maximum_redeliveries(2);
        let (first, last) = (Arc::default(), Arc::default());
        let balance = LoadBalance::failover().branch(failing(ErrorKind::Timeout, &first));
        let balance = balance.branch(|steps| steps.set_body("${body}!"));
        let (exchange, end) =
            run(|steps| steps.error_handler(handler()).set_body("x").load_balance(balance)).await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!((exchange.message.body.to_string(), first.load(Ordering::Relaxed)), ("x!".into(), 1));

        let balance = LoadBalance::failover().branch(failing(ErrorKind::Timeout, &first));
        let balance = balance.branch(failing(ErrorKind::Timeout, &last));
        let (_, end) = run(|steps| steps.error_handler(handler()).load_balance(balance)).await;
        assert_eq!(end.unwrap_err().to_string(), "route `a`, step 1, branch 2, step 2 (process) failed");
        assert_eq!(
            (first.load(Ordering::Relaxed), last.load(Ordering::Relaxed)),
            (2, 3),
            "1 + 2 redeliveries, once"
        );

        let balance = LoadBalance::failover().branch(failing(ErrorKind::Data, &first)).branch(|steps| steps);
        let (_, end) = run(|steps| steps.error_handler(handler()).load_balance(balance)).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::Data, "the next one would fail as well");
    }

    #[tokio::test]
    async fn a_stop_in_a_branch_ends_the_exchange_and_a_filter_the_branch() {
        for (last, outcome) in [("true", Outcome::Stopped), ("false", Outcome::Completed)] {
            let balance =
                LoadBalance::failover().branch(|steps| steps.filter(last).stop()).branch(|steps| steps);
            assert_eq!(run(|steps| steps.load_balance(balance)).await.1.unwrap(), outcome);
            let balance = LoadBalance::random().branch(|steps| steps.filter(last).stop());
            assert_eq!(run(|steps| steps.load_balance(balance)).await.1.unwrap(), outcome);
        }
    }

    #[test]
    fn options_of_other_policies_are_errors() {
        let branch = || LoadBalance::round_robin().weighted_branch(2, |steps| steps);
        for (balance, expected) in [
            (branch(), "`weight` goes with"),
            (LoadBalance::weighted().weighted_branch(0, |steps| steps), "a weight is a whole number"),
            (LoadBalance::random(), "needs a branch"),
            (branch().kinds([ErrorKind::Data]), "`kinds` goes with"),
        ] {
            let errors = compile(|steps| steps.load_balance(balance)).err().unwrap().to_string();
            assert!(errors.contains(expected), "{errors}");
        }
    }
}
