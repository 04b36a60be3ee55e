//! [`Runner`]: how a step runs its blocks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Block, Pipeline};
use crate::cluster::LeadershipLost;
use crate::exchange::{Exchange, ExchangeId};
use crate::expression::Scope;
use crate::outcome::{Cause, Outcome};
use crate::state::{RouteState, StateSlot, StepState};

/// The one handle of a step that owns blocks, for one exchange that is in it.
#[derive(Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// The exchange that is in the step.
    pub(super) exchange: ExchangeId,
    /// Whether that exchange is in a block of the step.
    pub(super) inside: &'a AtomicBool,
}

#[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
impl<'a> Runner<'a> {
    /// Runs a block on the exchange of the step, or on another one, and says how it ended. Where it was the exchange of
    /// the step, [`Flow::after`](super::Flow::after) is what that means for the step.
    ///
    /// # Errors
    /// When a step of the block failed, and the error handler did not help: for the step to return.
    pub(crate) async fn block(&self, block: &Block, exchange: &mut Exchange) -> Result<Outcome, Cause> {
        let is_own = exchange.id == self.exchange;
        self.inside.store(is_own, Ordering::Relaxed);
        let result = self.pipeline.program.run(block, exchange, self.pipeline).await;
        self.inside.store(false, Ordering::Relaxed);
        result.map_err(|error| Cause::Ended(Box::new(error)))
    }

    /// Runs a block on an exchange of its own, without the step waiting for it. The route and each term of the
    /// exchange count it, and it is waited for when the route stops.
    ///
    /// # Errors
    /// When a term of the exchange has ended. Nothing was started then.
    pub(crate) fn detach(&self, block: Arc<Block>, exchange: Exchange) -> Result<(), LeadershipLost> {
        self.pipeline.detach(block, exchange)
    }

    /// The state of the step to which `slot` belongs. Under a term it travels with the lock; otherwise it is in the
    /// file `file`, or ends with the route where there is none.
    pub(crate) fn state(&self, slot: &Arc<StateSlot>, file: Option<&Path>) -> StepState {
        let keeper = match (self.pipeline.term(), file) {
            (Some(term), _) => RouteState::new(slot.key().clone(), term.states()),
            (None, Some(file)) => RouteState::in_file(slot.key().clone(), file),
            (None, None) => RouteState::new(slot.key().clone(), slot.memory()),
        };
        StepState::new(keeper, Arc::clone(slot))
    }

    /// What placeholders see besides the exchange.
    pub(crate) fn scope(&self) -> Scope<'a> {
        let program = &self.pipeline.program;
        Scope { route_id: &program.route_id, node: &program.node }
    }
}
