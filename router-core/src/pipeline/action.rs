//! [`Action`]: all that the interpreter knows of steps. What they mean is theirs.

use std::sync::Arc;

use async_trait::async_trait;
use smol_str::SmolStr;

use super::Runner;
use crate::body::Needs;
use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::outcome::{Cause, Outcome};
use crate::processor::Processor;

/// What a compiled step does. Closed for good: steps are added in `steps/`, not here.
pub(crate) enum Action {
    /// Works on the exchange at once.
    Inline(Box<dyn InlineStep>),
    /// Hands the exchange to a processor. Every term is asked before.
    Send(Arc<dyn Processor>),
    /// Runs blocks of its own.
    Scope(Box<dyn ScopeStep>),
}

impl Action {
    /// A step that works on the exchange at once.
    pub(crate) fn inline(step: impl InlineStep + 'static) -> Self {
        Self::Inline(Box::new(step))
    }

    /// A step that hands the exchange to a processor of its own.
    pub(crate) fn send(processor: impl Processor + 'static) -> Self {
        Self::Send(Arc::new(processor))
    }

    /// A step that runs blocks.
    pub(crate) fn scope(step: impl ScopeStep + 'static) -> Self {
        Self::Scope(Box::new(step))
    }
}

/// A step that neither awaits nor allocates, for example `set_header`, `filter` and `choice`.
pub(crate) trait InlineStep: Send + Sync {
    /// Works on the exchange. One that has side effects outside of it asks
    /// [`check_terms`](Exchange::check_terms) before.
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow<'_>, Cause>;
}

/// A step that owns blocks and runs them when, as often and with which exchanges it likes, for example `loop`.
#[async_trait]
pub(crate) trait ScopeStep: Send + Sync {
    /// Runs the step. An error of a block is returned as it came: the error handler was asked already, at the step of
    /// the block that failed.
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow<'static>, Cause>;
}

/// What comes after a step.
pub(crate) enum Flow<'a> {
    /// The step behind it.
    Next,
    /// A block of the step, and then the step behind it. Costs no allocation, however deep.
    Enter(&'a Block),
    /// The step behind the block that it is in.
    LeaveBlock,
    /// Nothing: the exchange has ended.
    End(Outcome),
}

#[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
impl Flow<'_> {
    /// What comes after a block that was run on the exchange of the step itself.
    pub(crate) fn after(block: Outcome) -> Self {
        match block {
            Outcome::Completed | Outcome::Filtered => Self::Next,
            end @ (Outcome::Stopped | Outcome::DeadLettered) => Self::End(end),
        }
    }
}

/// Steps, one after the other.
#[derive(Default)]
pub(crate) struct Block(pub(crate) Box<[Step]>);

/// One step, and how to name it in an error.
pub(crate) struct Step {
    pub(crate) place: SmolStr,
    /// What its expressions need of the body, which is made ready before the step.
    pub(crate) needs: Needs,
    pub(crate) action: Action,
}
