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

/// What a compiled step does. Closed for good: steps are added in `steps/`, not here. Every term of the exchange is asked
/// before each of them, by the interpreter.
pub(crate) enum Action {
    /// Works on the exchange at once.
    Inline(Box<dyn InlineStep>),
    /// Hands the exchange to a processor.
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
    /// Works on the exchange.
    fn run(&self, exchange: &mut Exchange, scope: Scope<'_>) -> Result<Flow, Cause>;
}

/// A step that owns blocks and runs them when, as often and with which exchanges it likes, for example `loop`.
#[async_trait]
pub(crate) trait ScopeStep: Send + Sync {
    /// Runs the step. An error of a block is returned as it came: the error handler was asked already, at the step of
    /// the block that failed.
    async fn run(&self, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause>;
}

/// What comes after a step.
pub(crate) enum Flow {
    /// The step behind it.
    Next,
    /// A block of the step, and then the step behind it. Costs no allocation, however deep.
    Enter(Block),
    /// The step behind the block that it is in.
    LeaveBlock,
    /// Nothing: the exchange has ended.
    End(Outcome),
}

#[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
impl Flow {
    /// What comes after a block that was run on the exchange of the step itself.
    pub(crate) fn after(block: Outcome) -> Self {
        match block {
            Outcome::Completed | Outcome::Filtered => Self::Next,
            end @ (Outcome::Stopped | Outcome::DeadLettered) => Self::End(end),
        }
    }
}

/// Steps, one after the other: which of the [`Blocks`] of its program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block(u32);

/// All blocks of a program. They are side by side, and each knows where it is: what comes behind its end is found without
/// a note of the way there.
#[derive(Default)]
pub(crate) struct Blocks(Vec<BlockBody>);

struct BlockBody {
    steps: Box<[Step]>,
    /// The block that it is in, and how many steps that has up to the one that this block is of.
    outer: Option<(Block, usize)>,
}

impl Blocks {
    /// A new block, whose steps come later.
    pub(crate) fn begin(&mut self, outer: Option<(Block, usize)>) -> Block {
        let block = Block(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        self.0.push(BlockBody { steps: Box::default(), outer });
        block
    }

    /// The steps of a block.
    pub(crate) fn end(&mut self, block: Block, steps: Vec<Step>) {
        self.0[block.0 as usize].steps = steps.into();
    }

    /// Without room for more.
    pub(crate) fn complete(mut self) -> Self {
        self.0.shrink_to_fit();
        self
    }

    pub(super) fn steps(&self, block: Block) -> &[Step] {
        &self.0[block.0 as usize].steps
    }

    /// What is behind a block, and the block that this is in.
    pub(super) fn behind(&self, block: Block) -> Option<(&[Step], Block)> {
        let (outer, steps) = self.0[block.0 as usize].outer?;
        Some((&self.steps(outer)[steps..], outer))
    }
}

/// One step, and how to name it in an error.
pub(crate) struct Step {
    pub(crate) place: SmolStr,
    /// What its expressions need of the body, which is made ready before the step.
    pub(crate) needs: Needs,
    pub(crate) action: Action,
}
