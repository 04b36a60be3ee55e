//! [`Runner`]: how a step runs its blocks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Block, Pipeline};
use crate::cluster::LeadershipLost;
use crate::exchange::{Exchange, ExchangeId};
use crate::expression::Scope;
use crate::outcome::{Cause, Outcome, RouteError};
use crate::state::{StateSlot, StepState};

/// The one handle of a step that owns blocks, for one exchange that is in it.
#[derive(Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// The exchange that is in the step.
    pub(super) exchange: &'a (ExchangeId, u16),
    /// Whether that exchange is in a block of the step.
    pub(super) inside: &'a AtomicBool,
    /// Who handles what fails in the step.
    pub(super) handling: Handling,
}

/// Who handles what fails in a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// The error handler of the route, at the step that failed.
    ByRoute,
    /// A step around it, before the error handler of the route.
    ByStep,
}

#[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
impl<'a> Runner<'a> {
    /// Runs a block on the exchange of the step, or on another one, and says how it ended. Where it was the exchange of
    /// the step, [`Flow::after`](super::Flow::after) is what that means for the step.
    ///
    /// # Errors
    /// When a step of the block failed, and the error handler did not help: for the step to return.
    pub(crate) async fn block(&self, block: Block, exchange: &mut Exchange) -> Result<Outcome, Cause> {
        self.run(block, exchange, self.handling).await.map_err(Cause::Ended)
    }

    /// Runs a block as [`block`](Self::block) does, but the step handles what fails in it: nothing was tried again,
    /// sent to the dead letter endpoint or logged. An error that the step does not handle, it returns as
    /// [`Cause::Uncaught`]. For steps that run while it handles one, the exchange has an
    /// [`exception`](Exchange::handle).
    ///
    /// # Errors
    /// The loss of leadership, which no step handles: for the step to return.
    pub(crate) async fn guarded(
        &self,
        block: Block,
        exchange: &mut Exchange,
    ) -> Result<Result<Outcome, RouteError>, Cause> {
        match self.run(block, exchange, Handling::ByStep).await {
            Err(lost) if lost.is_leadership_lost() => Err(Cause::Ended(lost)),
            result => Ok(result),
        }
    }

    async fn run(
        &self,
        block: Block,
        exchange: &mut Exchange,
        handling: Handling,
    ) -> Result<Outcome, RouteError> {
        let is_own = exchange.identity() == *self.exchange;
        self.inside.store(is_own, Ordering::Relaxed);
        let result = self.pipeline.program.run(block, exchange, self.pipeline, handling).await;
        self.inside.store(false, Ordering::Relaxed);
        result
    }

    /// Runs a block on an exchange of its own, without the step waiting for it, and holds something until it has ended. The
    /// route and each term of the exchange count it, and it is waited for when the route stops.
    ///
    /// # Errors
    /// When a term of the exchange has ended. Nothing was started then.
    pub(crate) fn detach(
        &self,
        block: Block,
        exchange: Exchange,
        held: impl Send + 'static,
    ) -> Result<(), LeadershipLost> {
        self.pipeline.detach(block, exchange, held)
    }

    /// The state of the step to which `slot` belongs, kept as that of the route is: see [`Pipeline::state`]. A later
    /// version of the route finds it by the ids of the route and of the step, whatever else it does.
    pub(crate) fn state(&self, slot: &Arc<StateSlot>, file: Option<&Path>) -> StepState {
        StepState::new(self.pipeline.state_of(slot.key().clone(), file), Arc::clone(slot))
    }

    /// Whether this is the exchange of the step: another one that was put in its place runs under no authority.
    pub(crate) fn has_own(&self, exchange: &Exchange) -> bool {
        exchange.identity() == *self.exchange
    }

    /// Logs an error that nothing else comes of.
    pub(crate) fn log_error(&self, error: &mut RouteError, exchange: &Exchange) {
        self.pipeline.program.log_error(error, exchange);
    }

    /// What placeholders see besides the exchange.
    pub(crate) fn scope(&self) -> Scope<'a> {
        self.pipeline.program.scope()
    }
}
