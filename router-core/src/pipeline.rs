//! [`Pipeline`]: the steps of a route, and the one function that interprets them.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use smallvec::{SmallVec, smallvec};
use smol_str::{SmolStr, ToSmolStr};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::field::display;
use tracing::{error, warn};

use crate::cluster::{LeaderScope, LeadershipLost, Term};
use crate::error::Chain;
use crate::error_handler::ErrorHandler;
use crate::exchange::Exchange;
use crate::expression::{Expression, Predicate, Scope};
use crate::flight::{Dropped, Flight};
use crate::log::{LogLevel, log_line};
use crate::metrics::{self, RouteMetrics};
use crate::options::parse_duration;
use crate::outcome::{Cause, Done, RouteError, failure};
use crate::panic::contain_panic;
use crate::processor::{ProcessFunction, Processor};
use crate::state::{MemoryState, RouteState};

/// The way of an exchange through a route. Cheap to clone; all clones share the steps.
#[derive(Clone)]
pub struct Pipeline {
    program: Arc<Program>,
    guard: Option<Guard>,
}

/// What a route does, compiled. Frozen: nothing changes it while it runs.
pub(crate) struct Program {
    pub(crate) route_id: SmolStr,
    pub(crate) node: SmolStr,
    pub(crate) dropped: Dropped,
    pub(crate) steps: Box<[Step]>,
    pub(crate) error_handler: ErrorHandler,
    /// The state of a route without a lock, made when it is first asked for: most routes have none.
    pub(crate) state: OnceLock<Arc<MemoryState>>,
    /// Counts the exchanges in flight of guarded pipelines. Closed, so that it can be waited for.
    pub(crate) in_flight: TaskTracker,
    /// What the route's consumer has to say, for whoever looks at the route.
    pub(crate) note: Mutex<Option<String>>,
    /// `None` inside: nothing is measured in this process.
    pub(crate) metrics: OnceLock<Option<Box<RouteMetrics>>>,
}

/// One step, and how to name it in an error.
pub(crate) struct Step {
    pub(crate) place: Box<str>,
    pub(crate) action: Action,
}

/// The closed set of what a step can do.
pub(crate) enum Action {
    Log { message: Expression, level: LogLevel },
    Send(Arc<dyn Processor>),
    Call(ProcessFunction),
    SetBody(Expression),
    SetHeader { name: SmolStr, value: Expression },
    RemoveHeader(SmolStr),
    SetProperty { name: SmolStr, value: Expression },
    Filter(Predicate),
    Choice(Box<[Branch]>),
    Delay(Expression),
    Stop,
}

/// A branch of a choice; without a predicate it is always taken.
pub(crate) struct Branch {
    pub(crate) predicate: Option<Predicate>,
    pub(crate) steps: Box<[Step]>,
}

/// What comes after a step.
enum Flow<'a> {
    Next,
    Enter(&'a [Step]),
    LeaveBlock,
    Finish,
}

/// The authority under which the exchanges of a `master:` route run.
#[derive(Clone)]
struct Guard {
    term: Term,
    /// Counts the exchanges in flight, for whoever must know that none is left even after the futures
    /// that carried them were dropped from another thread.
    in_flight: TaskTracker,
    /// Cancelled when the run for which this guard was made is over.
    over: CancellationToken,
}

impl Pipeline {
    pub(crate) fn new(program: Arc<Program>) -> Self {
        Self { program, guard: None }
    }

    /// The id of the route.
    #[must_use]
    pub fn route_id(&self) -> &str {
        &self.program.route_id
    }

    /// This pipeline for exchanges that may run only under the term of `scope`: each is stamped with it,
    /// none starts when it is no longer valid, and none causes a side effect after that. The lock is not
    /// given away before the last of them has ended, whoever polls it.
    #[must_use]
    pub fn guarded_by(&self, scope: &LeaderScope) -> Self {
        let in_flight = self.program.in_flight.clone();
        let guard = Guard { term: scope.term().clone(), in_flight, over: CancellationToken::new() };
        Self { program: Arc::clone(&self.program), guard: Some(guard) }
    }

    /// When the returned value is dropped, exchanges of this guarded pipeline that are still in flight
    /// are aborted, and none starts any more. `None` for others.
    #[must_use]
    pub fn abort_on_drop(&self) -> Option<DropGuard> {
        self.guard.as_ref().map(|guard| guard.over.clone().drop_guard())
    }

    /// The term under which this pipeline runs exchanges, where it is guarded by one. A consumer that
    /// has accepted exchanges must not begin with them when it is no longer valid.
    #[must_use]
    pub fn term(&self) -> Option<&Term> {
        self.guard.as_ref().map(|guard| &guard.term)
    }

    /// What the consumers of this route leave for those that come after them, by the route's id: give the
    /// route one, because ids that count routes move. Under a term, the state travels with the lock.
    /// Otherwise it is in the file `file`, or ends with the route where there is none.
    #[must_use]
    pub fn state(&self, file: Option<&Path>) -> RouteState {
        let route = self.program.route_id.clone();
        match (self.term(), file) {
            (Some(term), _) => RouteState::new(route, term.states()),
            (None, Some(file)) => RouteState::in_file(route, file),
            (None, None) => {
                RouteState::new(route, Arc::clone(self.program.state.get_or_init(Arc::default)) as _)
            }
        }
    }

    /// Leaves a note about this route for whoever looks at it: something that keeps it from its work and
    /// that somebody should know of. It stands until it is [withdrawn](Self::withdraw_note), replaced, or the
    /// router makes a new consumer.
    pub fn leave_note(&self, note: impl Into<String>) {
        self.program.set_note(Some(note.into()));
    }

    /// Takes back the note about this route, if there is one.
    pub fn withdraw_note(&self) {
        self.program.set_note(None);
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.program.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the metrics of this route exist before its first exchange.
    pub(crate) fn show_metrics(&self) {
        let _ = self.program.metrics();
    }

    /// Completes when no exchange of this route is in flight in a guarded pipeline.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn idle(&self) {
        self.program.in_flight.wait().await;
    }

    /// Shares the state in memory of an earlier version of this route.
    pub(crate) fn adopt_state(&self, earlier: &Self) {
        if let Some(state) = earlier.program.state.get() {
            // Nothing has asked for it yet: this version has not started.
            let _ = self.program.state.set(Arc::clone(state));
        }
    }

    /// Sends an exchange through the route and returns when it is done. Awaiting is the back-pressure,
    /// the result the acknowledgement: `Ok` means that it was processed, or that the dead letter
    /// endpoint took it.
    ///
    /// # Errors
    /// When a step failed and the route's error handler did not help. It is already logged.
    ///
    /// # Cancellation
    /// Dropping the future ends the exchange at the await it has reached.
    pub async fn process(&self, exchange: &mut Exchange) -> Result<(), RouteError> {
        let mut journey = self.program.metrics().map(RouteMetrics::begin);
        let result = match &self.guard {
            None => self.run(exchange).await,
            // Boxed, because it is large, and each route keeps the place for one exchange.
            Some(guard) => Box::pin(self.process_guarded(guard, exchange)).await,
        };
        if let Some(journey) = &mut journey {
            journey.end(&result);
        }
        result.map(|_| ())
    }

    async fn process_guarded(&self, guard: &Guard, exchange: &mut Exchange) -> Result<Done, RouteError> {
        let _in_flight = guard.in_flight.token();
        // Held until this exchange has ended, also when whoever made the guard is gone by then.
        let _work = guard.term.enter().map_err(|lost| self.not_started(lost))?;
        let stamped = exchange.stamp(guard.term.clone());
        let exchange = &mut *stamped.exchange;
        // The exchange ends at the deadline whoever polls it: the consumer, a task of it, or a caller
        // through `direct:`.
        tokio::select! {
            biased;
            () = guard.over.cancelled() => Err(self.aborted(&guard.term)),
            () = guard.term.expired() => Err(self.aborted(&guard.term)),
            // What ends after the deadline is not acknowledged: the next leader gets it as well.
            result = self.run(exchange) => match guard.term.check() {
                Err(lost) if result.is_ok() => {
                    let (route, id) = (self.route_id(), exchange.id);
                    warn!(route, exchange = %id, "route `{route}` ended the exchange {id} too late, so it counts as not done: {lost}");
                    Err(self.aborted(&guard.term))
                }
                _ => result,
            },
        }
    }

    /// Routes that call each other use the stack for each call: in a circle of calls, or a dead letter
    /// endpoint that fails into itself, it would end the process.
    async fn run(&self, exchange: &mut Exchange) -> Result<Done, RouteError> {
        const MAX_DEPTH: u16 = 64;
        if exchange.depth() >= MAX_DEPTH {
            let step = String::from("a call");
            let cause = format!("routes call each other more than {MAX_DEPTH} deep: is there a circle?");
            let error = RouteError {
                route_id: self.program.route_id.clone(),
                step,
                cause: Cause::Failed(cause.into()),
            };
            error!(route = %self.program.route_id, exchange = %exchange.id, "{}", Chain(&error));
            return Err(error);
        }
        let entered = exchange.enter();
        self.program.run(entered.exchange, self.term()).await
    }

    fn aborted(&self, term: &Term) -> RouteError {
        let lost = term.leadership_lost();
        let step = String::from("an exchange in flight");
        RouteError { route_id: self.program.route_id.clone(), step, cause: Cause::LeadershipLost(lost) }
    }

    fn not_started(&self, lost: LeadershipLost) -> RouteError {
        let step = String::from("a new exchange");
        RouteError { route_id: self.program.route_id.clone(), step, cause: Cause::LeadershipLost(lost) }
    }
}

impl Program {
    /// Asked for when something is measured for the first time, because the recorder may come after the
    /// route was built.
    fn metrics(&self) -> Option<&RouteMetrics> {
        let new = || metrics::is_enabled().then(|| Box::new(RouteMetrics::new(&self.route_id)));
        self.metrics.get_or_init(new).as_deref()
    }

    fn set_note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// Interprets the steps. Blocks that are inside others are on a stack of our own: no recursion, so
    /// no allocation for each level.
    async fn run(&self, exchange: &mut Exchange, term: Option<&Term>) -> Result<Done, RouteError> {
        let mut flight = Flight::new(&self.route_id, &self.dropped, exchange.id, term);
        let mut blocks: SmallVec<[std::slice::Iter<'_, Step>; 4]> = smallvec![self.steps.iter()];
        while let Some(block) = blocks.last_mut() {
            let Some(step) = block.next() else {
                blocks.pop();
                continue;
            };
            match flight.through(&step.place, self.attempt(step, exchange)).await? {
                Some(Flow::Next) => {}
                Some(Flow::Enter(steps)) => blocks.push(steps.iter()),
                Some(Flow::LeaveBlock) => {
                    blocks.pop();
                }
                Some(Flow::Finish) => break,
                None => return Ok(Done::DeadLetter),
            }
        }
        Ok(Done::Completed)
    }

    /// Runs a step as often as the error handler asks for; `None`: the exchange ended as a dead letter.
    async fn attempt<'a>(
        &'a self,
        step: &'a Step,
        exchange: &mut Exchange,
    ) -> Result<Option<Flow<'a>>, RouteError> {
        let mut redeliveries = 0;
        loop {
            let cause = match contain_panic(self.execute(step, exchange)).await {
                Ok(flow) => return Ok(Some(flow)),
                Err(cause) => cause,
            };
            match self.error_handler.delay_before_retry(&cause, redeliveries) {
                Some(delay) => {
                    redeliveries += 1;
                    tokio::time::sleep(delay).await;
                }
                // Boxed, because it is large and rare.
                None => return Box::pin(self.give_up(step, cause, exchange)).await,
            }
        }
    }

    async fn give_up<'a>(
        &self,
        step: &Step,
        cause: Cause,
        exchange: &mut Exchange,
    ) -> Result<Option<Flow<'a>>, RouteError> {
        let error = match cause {
            // A route that was called through `direct:` has named the place and logged it already.
            Cause::Failed(error) if error.is::<RouteError>() => {
                error.downcast().map_or_else(|_| unreachable!("just checked"), |error| *error)
            }
            cause => {
                let error =
                    RouteError { route_id: self.route_id.clone(), step: step.place.to_string(), cause };
                if !error.is_leadership_lost() {
                    let parent = exchange.parent_id.map(display);
                    error!(route = %self.route_id, exchange = %exchange.id, parent, "{}", Chain(&error));
                }
                error
            }
        };
        let dead_letter = contain_panic(self.error_handler.send_dead_letter(&error, exchange)).await;
        match dead_letter {
            Ok(true) => Ok(None),
            Ok(false) => Err(error),
            Err(cause) => {
                let step = String::from("the dead letter endpoint");
                let error = RouteError { route_id: self.route_id.clone(), step, cause };
                error!(route = %self.route_id, exchange = %exchange.id, "{}", Chain(&error));
                Err(error)
            }
        }
    }

    /// What each step does. Steps with side effects outside of the exchange ask the term first.
    async fn execute<'a>(&self, step: &'a Step, exchange: &mut Exchange) -> Result<Flow<'a>, Cause> {
        let scope = Scope { route_id: &self.route_id, node: &self.node };
        match &step.action {
            Action::Send(processor) => {
                exchange.check_terms().map_err(Cause::LeadershipLost)?;
                processor.process(exchange).await.map_err(failure)?;
            }
            Action::Call(function) => {
                exchange.check_terms().map_err(Cause::LeadershipLost)?;
                function(exchange).map_err(failure)?;
            }
            Action::Log { message, level } => {
                // The route is the logger's name, as in Camel; a `tracing` target must be static, so it is a field.
                log_line(&self.route_id, &message.evaluate(exchange, scope).to_smolstr(), *level);
            }
            Action::SetBody(value) => exchange.message.body = value.evaluate(exchange, scope).into(),
            Action::SetHeader { name, value } => {
                let value = value.evaluate(exchange, scope);
                exchange.message.headers.set(name.clone(), value);
            }
            Action::RemoveHeader(name) => drop(exchange.message.headers.remove(name)),
            Action::SetProperty { name, value } => {
                let value = value.evaluate(exchange, scope);
                exchange.properties.set(name.clone(), value);
            }
            Action::Filter(predicate) => {
                if !predicate.holds(exchange, scope).map_err(failure)? {
                    return Ok(Flow::LeaveBlock);
                }
            }
            Action::Choice(branches) => {
                for branch in branches {
                    let holds = match &branch.predicate {
                        Some(predicate) => predicate.holds(exchange, scope).map_err(failure)?,
                        None => true,
                    };
                    if holds {
                        return Ok(Flow::Enter(&branch.steps));
                    }
                }
            }
            Action::Delay(duration) => {
                let duration = parse_duration(&duration.evaluate(exchange, scope).to_smolstr())
                    .map_err(|expected| Cause::Failed(format!("the delay is not {expected}").into()))?;
                tokio::time::sleep(duration).await;
            }
            Action::Stop => return Ok(Flow::Finish),
        }
        Ok(Flow::Next)
    }
}
