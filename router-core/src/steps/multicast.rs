//! `multicast`: runs several blocks, each on a fork of the exchange.
//!
//! ```
//! use router_core::builder::{Join, Multicast, Steps, from};
//!
//! let branches = Multicast::new().branch(|steps| steps.to("direct:stock")).branch(|steps| steps.to("direct:price"));
//! from("direct:order").multicast(branches.parallel(2).join(Join::List));
//! ```
//!
//! ```toml
//! { multicast = { branches = [
//!   { steps = [{ to = "direct:stock" }] },
//!   { steps = [{ to = "direct:price" }] },
//! ], parallel = 2, join = "list" } }
//! ```
//!
//! Each fork has the properties `multicast.index`, from 0, `multicast.size`, and `multicast.complete`, whether it is the last
//! one. Afterwards the exchange has `multicast.size`, `multicast.failed` and `multicast.timed_out`. Without `join`, the
//! message of the last branch becomes that of the exchange, as in Camel.

use async_trait::async_trait;

use super::forks::{
    ForkSource, Forks, JOIN_DELIMITER, JOIN_KEY, PARALLEL, STOP_ON_EXCEPTION, TIMEOUT, join_key,
};
use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::outcome::Cause;
use crate::step::{
    Action, Block, Compiler, Flow, KeyKind, Runner, Runs, ScopeStep, StepDefinition, StepDescription,
    required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "multicast",
    summary: "runs several blocks, each on a fork of the exchange",
    keys: &[
        required(
            "branches",
            KeyKind::Tables(&[required("steps", KeyKind::Steps, "what is done with the fork")]),
            "the blocks, in order",
        ),
        PARALLEL,
        STOP_ON_EXCEPTION,
        TIMEOUT,
        join_key("last"),
        JOIN_DELIMITER,
        JOIN_KEY,
    ],
    is_short: false,
    example: r#"{ multicast = { branches = [{ steps = [{ to = "direct:a" }] }], join = "list" } }"#,
    compile,
};

struct Multicast {
    forks: Forks,
    blocks: Box<[Block]>,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let forks = Forks::compile(step, "last", compiler);
    let mut blocks = Vec::new();
    for (index, branch) in step.arguments().tables("branches").unwrap_or_default().iter().enumerate() {
        let name = format!("branch {}", index + 1);
        blocks.push(compiler.block(branch.steps("steps").unwrap_or_default(), &name, Runs::Always));
    }
    Some(Action::scope(Multicast { forks: forks?, blocks: blocks.into() }))
}

struct Branches<'a>(&'a [Block]);

#[async_trait]
impl ForkSource for Branches<'_> {
    async fn next(&mut self, parent: &Exchange, index: i64) -> Result<Option<(Exchange, Block)>, BoxError> {
        let Some(block) = self.0.get(usize::try_from(index)?) else { return Ok(None) };
        let (mut fork, size) = (parent.fork_inside(), i64::try_from(self.0.len())?);
        fork.properties.set("multicast.index", index);
        fork.properties.set("multicast.size", size);
        fork.properties.set("multicast.complete", index + 1 == size);
        Ok(Some((fork, *block)))
    }
}

#[async_trait]
impl ScopeStep for Multicast {
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        self.forks.run(Branches(&self.blocks), exchange, runner).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::builder::{Join, Multicast, Steps};
    use crate::outcome::Outcome;
    use crate::steps::tests::{compile, header, run};

    #[tokio::test]
    async fn each_branch_gets_the_message_as_it_was_and_the_last_one_becomes_that_of_the_exchange() {
        let (exchange, end) = run(|steps| {
            steps
                .set_body("x")
                .multicast(
                    Multicast::new()
                        .branch(|steps| steps.set_body("${body}a").set_header("of", "a"))
                        .branch(|steps| steps.set_body("${body}b${property.multicast.index}")),
                )
                .set_header("behind", "yes")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!(exchange.message.body.to_string(), "xb1");
        assert_eq!((header(&exchange, "of"), header(&exchange, "behind")), (String::new(), "yes".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn branches_wait_side_by_side_within_their_timeout() {
        let begin = Instant::now();
        let (exchange, _) = run(|steps| {
            let branches = Multicast::new().branch(|steps| steps.delay("2s").set_body("a"));
            let branches = branches.branch(|steps| steps.delay("1s").set_body("b"));
            let branches = branches.branch(|steps| steps.delay("1h").set_body("c"));
            steps.multicast(branches.parallel(3).timeout("5s").join(Join::List))
        })
        .await;
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        assert_eq!(exchange.message.body.to_string(), r#"["a","b"]"#);
    }

    #[tokio::test]
    async fn a_stop_and_a_filter_in_a_branch_end_that_fork_alone() {
        let (exchange, end) = run(|steps| {
            let branches = Multicast::new().branch(|steps| steps.set_body("a").stop());
            let branches = branches.branch(|steps| steps.set_body("b").filter("false"));
            steps.multicast(branches.join(Join::concatenate(","))).set_body("${body}!")
        })
        .await;
        assert!(matches!(end, Ok(Outcome::Completed)));
        assert_eq!(
            exchange.message.body.to_string(),
            "a!",
            "one that was stopped is done, one that was filtered is left out"
        );
    }

    #[test]
    fn errors_of_all_branches_are_reported() {
        let branches = Multicast::new().branch(|steps| steps.filter("${"));
        let branches = branches.branch(|steps| steps.filter("${x}"));
        let errors = compile(|steps| steps.multicast(branches)).err().unwrap().to_string();
        assert_eq!(errors.matches("error:").count(), 2, "{errors}");
    }
}
