//! `choice`: takes the first branch that holds.
//!
//! ```
//! use router_core::builder::{Steps, from};
//!
//! from("timer:clock").choice(|choice| {
//!     choice
//!         .when("${header.timer.counter} == 1", |then| then.log("the first one"))
//!         .otherwise(|then| then.log("another one"))
//! });
//! ```
//!
//! ```toml
//! { choice = { when = [
//!   { predicate = "${header.timer.counter} == 1", steps = [{ log = "the first one" }] },
//! ], otherwise = [{ log = "another one" }] } }
//! ```

use crate::exchange::Exchange;
use crate::expression::{Predicate, Scope};
use crate::outcome::{Cause, failure};
use crate::step::{
    Action, Block, Compiler, Flow, InlineStep, KeyKind, Runs, StepDefinition, StepDescription, optional,
    required,
};

/// The step.
pub(crate) static DESCRIPTION: StepDescription = StepDescription {
    name: "choice",
    summary: "takes the first branch whose predicate holds, then goes on",
    keys: &[
        required(
            "when",
            KeyKind::Tables(&[
                required("predicate", KeyKind::Predicate, "when the branch is taken"),
                required("steps", KeyKind::Steps, "what it does"),
            ]),
            "the branches, in order",
        ),
        optional("otherwise", KeyKind::Steps, "what is run if none of them holds"),
    ],
    is_short: false,
    example: r#"{ choice = { when = [{ predicate = "${body} == 'a'", steps = ["stop"] }], otherwise = [] } }"#,
    compile,
};

struct Choice(Box<[Branch]>);

/// A branch; without a predicate it is always taken.
struct Branch {
    predicate: Option<Predicate>,
    block: Block,
}

fn compile(step: &StepDefinition, compiler: &mut Compiler<'_>) -> Option<Action> {
    let (mut branches, mut ways) = (Vec::new(), Vec::new());
    for (index, branch) in step.arguments().tables("when").unwrap_or_default().iter().enumerate() {
        let predicate = branch.predicate("predicate").and_then(|predicate| compiler.predicate(predicate));
        let steps = branch.steps("steps").unwrap_or_default();
        let name = format!("when {}", index + 1);
        let (block, way) = compiler.way(|compiler| compiler.block(steps, &name, Runs::Always));
        branches.push(Branch { predicate, block });
        ways.push(way);
    }
    let otherwise = step.arguments().steps("otherwise").unwrap_or_default();
    let (block, way) = compiler.way(|compiler| compiler.block(otherwise, "otherwise", Runs::Always));
    branches.push(Branch { predicate: None, block });
    ways.push(way);
    compiler.takes_one_of(ways);
    Some(Action::inline(Choice(branches.into())))
}

impl InlineStep for Choice {
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause> {
        for Branch { predicate, block } in &self.0 {
            let holds = match predicate {
                Some(predicate) => predicate.holds(exchange, scope).map_err(failure)?,
                None => true,
            };
            if holds {
                return Ok(Flow::Enter(*block));
            }
        }
        Ok(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::builder::Steps;
    use crate::steps::tests::{compile, header, run};

    #[tokio::test]
    async fn the_first_branch_whose_predicate_holds_is_taken_and_the_route_goes_on() {
        for (kind, expected) in [("a", "one!"), ("b", "two!"), ("c", "rest!")] {
            let (exchange, _) = run(|steps| {
                steps
                    .set_header("kind", kind)
                    .choice(|choice| {
                        choice
                            .when("${header.kind} == 'a'", |steps| steps.set_header("seen", "one"))
                            .when("${header.kind} in 'a,b'", |steps| steps.set_header("seen", "two"))
                            .otherwise(|steps| steps.set_header("seen", "rest"))
                    })
                    .set_header("seen", "${header.seen}!")
            })
            .await;
            assert_eq!(header(&exchange, "seen"), expected, "{kind}");
        }
    }

    #[test]
    fn errors_of_all_branches_are_reported() {
        let errors = compile(|steps| {
            steps.choice(|choice| {
                choice.when("${", |steps| steps.delay("soon")).otherwise(|steps| steps.delay("later"))
            })
        });
        assert_eq!(errors.err().unwrap().to_string().matches("error:").count(), 3);
    }
}
