//! [`Program`]: the steps of a route, and the one function that interprets them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use smol_str::SmolStr;
use tokio_util::task::TaskTracker;
use tracing::field::display;
use tracing::{error, warn};

use super::action::Blocks;
use super::detached::Detached;
use super::runner::Handling;
use super::{Action, Block, Flow, Pipeline, Runner, Step};
use crate::body::Needs;
use crate::error::Chain;
use crate::error_handler::ErrorHandler;
use crate::exchange::Exchange;
use crate::expression::Scope;
use crate::flight::{Dropped, Flight};
use crate::metrics::{self, RouteMetrics};
use crate::outcome::{Cause, Outcome, RouteError, StepError, failure, replaced};
use crate::panic::{Panicked, contain_panic, panic_message};
use crate::processor::process;
use crate::spool::SpoolSettings;
use crate::state::MemoryState;

/// What a route does, compiled. Frozen: nothing changes it while it runs.
pub(crate) struct Program {
    pub(crate) route_id: SmolStr,
    pub(crate) node: SmolStr,
    memory_limit: u64,
    unique_keys: bool,
    pub(crate) dropped: Dropped,
    /// That of the route itself, and those inside of it.
    block: Block,
    blocks: Blocks,
    pub(crate) error_handler: ErrorHandler,
    /// The states of a route without a lock, and of its steps, made when it is first asked for: most routes have none.
    pub(super) state: OnceLock<Arc<MemoryState>>,
    /// Counts the exchanges in flight of guarded pipelines, where there is one. Closed, so that it can be waited for.
    pub(super) in_flight: OnceLock<TaskTracker>,
    /// What the route's consumer has to say, for whoever looks at the route.
    pub(super) note: Mutex<Option<String>>,
    /// `None` inside: nothing is measured in this process.
    metrics: OnceLock<Option<Box<RouteMetrics>>>,
    /// Blocks that run on their own, where a step has ever detached one.
    pub(super) detached: OnceLock<Detached>,
}

/// Where an exchange is: the steps that are left of the block that it is in.
struct Position<'a> {
    blocks: &'a Blocks,
    rest: std::slice::Iter<'a, Step>,
    block: Block,
    /// The block that is run.
    outermost: Block,
}

impl<'a> Position<'a> {
    fn before(block: Block, blocks: &'a Blocks) -> Self {
        Self { blocks, rest: blocks.steps(block).iter(), block, outermost: block }
    }

    #[inline]
    fn next(&mut self) -> Option<&'a Step> {
        loop {
            match self.rest.next() {
                Some(step) => return Some(step),
                None => self.leave()?,
            }
        }
    }

    /// Goes behind the block that it is in; `None`: that is the one that is run.
    fn leave(&mut self) -> Option<()> {
        if self.block == self.outermost {
            return None;
        }
        let (rest, block) = self.blocks.behind(self.block)?;
        (self.rest, self.block) = (rest.iter(), block);
        Some(())
    }

    /// Goes where a step said; the result is the end of the exchange, or of the outermost block.
    #[inline]
    fn follow(&mut self, flow: Flow) -> Option<Outcome> {
        match flow {
            Flow::Next => None,
            Flow::Enter(block) => {
                (self.rest, self.block) = (self.blocks.steps(block).iter(), block);
                None
            }
            Flow::LeaveBlock => self.leave().is_none().then_some(Outcome::Filtered),
            Flow::End(end) => Some(end),
        }
    }
}

/// Where the steps that work at once have come to.
enum Reached<'a> {
    /// A step that may await.
    Waiting(&'a Step),
    /// A step that failed.
    Failed(&'a Step, Cause),
    /// The end.
    End(Outcome),
}

impl Program {
    pub(crate) fn new(
        route_id: SmolStr,
        node: SmolStr,
        bodies: &SpoolSettings,
        dropped: Dropped,
        (block, blocks): (Block, Blocks),
        error_handler: ErrorHandler,
    ) -> Self {
        Self {
            route_id,
            node,
            memory_limit: bodies.memory_limit,
            unique_keys: bodies.unique_keys,
            dropped,
            block,
            blocks,
            error_handler,
            state: OnceLock::new(),
            in_flight: OnceLock::new(),
            note: Mutex::new(None),
            metrics: OnceLock::new(),
            detached: OnceLock::new(),
        }
    }

    /// Asked for when something is measured for the first time, because the recorder may come after the
    /// route was built.
    pub(super) fn metrics(&self) -> Option<&RouteMetrics> {
        let new = || metrics::is_enabled().then(|| Box::new(RouteMetrics::new(&self.route_id)));
        self.metrics.get_or_init(new).as_deref()
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { route_id: &self.route_id, node: &self.node, memory_limit: self.memory_limit }
    }

    /// What comes before each step, whatever it does: every term must still stand, and the body be as the step needs
    /// it; `false`: that takes waiting, and the terms must be asked again.
    #[inline]
    fn may_begin(&self, step: &Step, exchange: &mut Exchange) -> Result<bool, Cause> {
        exchange.check_terms()?;
        self.apply_settings(exchange);
        if step.needs > Needs::Nothing {
            if exchange.message.body.must_wait(step.needs) {
                return Ok(false);
            }
            exchange.message.body.prepare(step.needs);
        }
        Ok(true)
    }

    /// Before anything looks at the body: a step may have put a new one in its place.
    #[inline]
    fn apply_settings(&self, exchange: &mut Exchange) {
        if self.unique_keys {
            exchange.message.body.refuse_duplicate_keys();
        }
    }

    /// Interprets the steps of the route.
    pub(super) async fn run_all(
        &self,
        exchange: &mut Exchange,
        pipeline: &Pipeline,
    ) -> Result<Outcome, RouteError> {
        self.run(self.block, exchange, pipeline, Handling::ByRoute).await
    }

    /// Interprets the steps of a block. It goes into blocks inside of it, and on behind them, by itself: no recursion, so
    /// no allocation, however deep they are.
    pub(super) async fn run(
        &self,
        block: Block,
        exchange: &mut Exchange,
        pipeline: &Pipeline,
        handling: Handling,
    ) -> Result<Outcome, RouteError> {
        // Set while a block of the present step is on its way with this exchange, and tells of it if it is dropped.
        let inside = AtomicBool::new(false);
        let mut flight =
            Flight::new(&self.route_id, &self.dropped, exchange.id, exchange.kept_terms(), &inside);
        flight.may_be_given_up(exchange.given_up());
        let (mut position, identity) = (Position::before(block, &self.blocks), exchange.identity());
        loop {
            let runner = Runner { pipeline, exchange: &identity, inside: &inside, handling };
            let (step, result) = match self.run_inline(&mut position, exchange) {
                Reached::Waiting(step) => {
                    let work = contain_panic(self.execute(step, exchange, runner));
                    (step, flight.through(&step.place, work).await)
                }
                Reached::Failed(step, cause) => (step, Err(cause)),
                Reached::End(end) => return Ok(end),
            };
            let flow = match result {
                Ok(flow) if exchange.identity() == identity => flow,
                // Boxed, because it is large and rare.
                result => {
                    let recovery = Box::pin(self.recover(step, result, exchange, runner));
                    flight.through(&step.place, recovery).await?
                }
            };
            if let Some(end) = position.follow(flow) {
                return Ok(end);
            }
        }
    }

    /// Runs steps until one may await. One guard against panics for all of them, and no future: that is what makes
    /// them cheap.
    fn run_inline<'a>(&'a self, position: &mut Position<'a>, exchange: &mut Exchange) -> Reached<'a> {
        let scope = self.scope();
        let mut present = None;
        // Unwind safety: the fields of an exchange are valid in any combination, and the position changes between steps.
        let reached = catch_unwind(AssertUnwindSafe(|| {
            while let Some(step) = position.next() {
                let Action::Inline(inline) = &step.action else { return Reached::Waiting(step) };
                present = Some(step);
                let result = match self.may_begin(step, exchange) {
                    Ok(true) => inline.run(exchange, scope),
                    Ok(false) => return Reached::Waiting(step),
                    Err(lost) => Err(lost),
                };
                match result {
                    Ok(flow) => {
                        if let Some(end) = position.follow(flow) {
                            return Reached::End(end);
                        }
                    }
                    Err(cause) => return Reached::Failed(step, cause),
                }
            }
            Reached::End(Outcome::Completed)
        }));
        match (reached, present) {
            (Ok(reached), _) => reached,
            (Err(panic), Some(step)) => Reached::Failed(step, Panicked(panic_message(&*panic)).into()),
            (Err(panic), None) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a step that has failed once more, as often as the error handler asks for.
    async fn recover(
        &self,
        step: &Step,
        mut result: Result<Flow, Cause>,
        exchange: &mut Exchange,
        runner: Runner<'_>,
    ) -> Result<Flow, RouteError> {
        let (mut redeliveries, handling) = (0, runner.handling);
        loop {
            // Nothing is done with an exchange that runs under no authority, also by no handler, here and in callers.
            if exchange.identity() != *runner.exchange {
                let mut error = RouteError::of(&self.route_id, StepError::new(&*step.place, replaced()));
                self.log_error(&mut error, exchange);
                return Err(error);
            }
            let cause = match result {
                Ok(flow) => return Ok(flow),
                Err(cause) => cause,
            };
            let failure = match cause {
                Cause::Failed(failure) => failure,
                // A step of a block has failed: it was tried again and handled there.
                Cause::Ended(error) => return Err(error),
                Cause::Uncaught(error) => {
                    return self.handle(error, exchange, handling).await.map(Flow::End);
                }
            };
            let pause = match handling {
                Handling::ByRoute => self.error_handler.delay_before_retry(&failure, redeliveries),
                Handling::ByStep => None,
            };
            let Some(pause) = pause else {
                let error = RouteError::of(&self.route_id, StepError::new(&*step.place, failure));
                return self.handle(error, exchange, handling).await.map(Flow::End);
            };
            redeliveries += 1;
            exchange.pause(pause).await;
            result = contain_panic(self.execute(step, exchange, runner)).await;
        }
    }

    /// What becomes of an exchange whose step is not tried again.
    async fn handle(
        &self,
        mut error: RouteError,
        exchange: &mut Exchange,
        handling: Handling,
    ) -> Result<Outcome, RouteError> {
        if handling == Handling::ByStep {
            return Err(error);
        }
        self.log_error(&mut error, exchange);
        self.apply_settings(exchange);
        let dead_letter = contain_panic(self.error_handler.send_dead_letter(&error, exchange));
        match dead_letter.await {
            Ok(true) => Ok(Outcome::DeadLettered),
            Ok(false) => Err(error),
            Err(failure) => {
                let error = StepError::new("the dead letter endpoint", failure);
                let mut error = RouteError::of(&self.route_id, error);
                self.log_error(&mut error, exchange);
                Err(error)
            }
        }
    }

    /// Logs an error, if that was not done: a route that was called through `direct:` has done it. An exchange whose term
    /// is over is one that was dropped.
    pub(super) fn log_error(&self, error: &mut RouteError, exchange: &Exchange) {
        if error.set_logged() {
            return;
        }
        let (route, kind) = (&self.route_id, error.kind());
        if error.is_leadership_lost() {
            self.dropped.note();
            let (id, why) = (exchange.id, Chain(error.step()));
            warn!(%route, exchange = %id, "route `{route}` dropped the exchange {id}: {why}");
            return;
        }
        let parent = exchange.parent_id.map(display);
        error!(%route, exchange = %exchange.id, parent, %kind, "{}", Chain(error));
    }

    /// Reads the content of a file into memory, or parses a large text, before a step that needs it.
    async fn prepare_and_execute(
        &self,
        step: &Step,
        exchange: &mut Exchange,
        runner: Runner<'_>,
    ) -> Result<Flow, Cause> {
        exchange.message.body.make_ready(step.needs).await.map_err(failure)?;
        self.execute(step, exchange, runner).await
    }

    async fn execute(&self, step: &Step, exchange: &mut Exchange, runner: Runner<'_>) -> Result<Flow, Cause> {
        if !self.may_begin(step, exchange)? {
            // Boxed, because it is rare.
            return Box::pin(self.prepare_and_execute(step, exchange, runner)).await;
        }
        match &step.action {
            Action::Inline(inline) => inline.run(exchange, self.scope()),
            Action::Send(processor) => {
                process(&**processor, exchange).await.map_err(failure)?;
                Ok(Flow::Next)
            }
            Action::Scope(scope) => scope.run(exchange, runner).await,
        }
    }
}
