//! [`Pipeline`]: a compiled route, the steps that an exchange passes through.

mod action;
mod detached;
mod program;
mod runner;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use smol_str::SmolStr;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::cluster::{LeaderScope, LeadershipLost, Term};
use crate::exchange::{Exchange, any_expired};
use crate::failure::Failure;
use crate::flight::{self, Waiting};
use crate::metrics::RouteMetrics;
use crate::outcome::{Outcome, RouteError, StepError};
use crate::state::RouteState;

pub(crate) use action::{Action, Block, Blocks, Flow, InlineStep, ScopeStep, Step};
pub(crate) use program::Program;
pub(crate) use runner::Runner;

/// A compiled route: the steps an exchange passes through. Cheap to clone; all clones share the steps.
#[derive(Clone)]
pub struct Pipeline {
    program: Arc<Program>,
    guard: Option<Guard>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
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
        let closed = || {
            let tracker = TaskTracker::new();
            tracker.close();
            tracker
        };
        let in_flight = self.program.in_flight.get_or_init(closed).clone();
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
        self.state_of(self.program.route_id.clone(), file)
    }

    /// The same for what is kept by this key: of the route, or of a step of it.
    fn state_of(&self, key: SmolStr, file: Option<&Path>) -> RouteState {
        match (self.term(), file) {
            (Some(term), _) => RouteState::new(key, term.states()),
            (None, Some(file)) => RouteState::in_file(key, file),
            (None, None) => {
                RouteState::new(key, Arc::clone(self.program.state.get_or_init(Arc::default)) as _)
            }
        }
    }

    /// What the consumers of this route remember of `about`, such as a directory, for as long as the process runs: the same
    /// each time, also in the next version of the route, and under each term.
    #[must_use]
    pub fn memory<T: Any + Default + Send + Sync>(&self, about: &str) -> Arc<T> {
        self.program.state.get_or_init(Arc::default).memory(about)
    }

    /// Leaves a note about this route for people: something that keeps it from its work. It stands until it is [withdrawn](Self::clear_status_message), replaced, or a
    /// new consumer is ready.
    pub fn set_status_message(&self, note: impl Into<String>) {
        self.program.set_note(Some(note.into()));
    }

    /// Takes back the note about this route, if there is one.
    pub fn clear_status_message(&self) {
        self.program.set_note(None);
    }

    /// Takes back this note, unless there is another one by now.
    pub(crate) fn clear_status_message_if(&self, earlier: &str) {
        let mut note = self.program.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.take_if(|note| note == earlier);
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.program.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells of exchanges that wait for this route in `queue`, and counts them: the route ends.
    pub(crate) fn abandon(&self, queue: &str, waiting: &[Waiting]) {
        flight::abandon(&self.program.route_id, queue, waiting, &self.program.dropped);
        if let Some(metrics) = self.program.metrics() {
            metrics.abandon(waiting.len() as u64);
        }
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
        if let Some(in_flight) = self.program.in_flight.get() {
            in_flight.wait().await;
        }
    }

    /// Shares the state in memory of an earlier version of this route.
    pub(crate) fn adopt_state(&self, earlier: &Self) {
        if let Some(state) = earlier.program.state.get() {
            // Nothing has asked for it yet: this version has not started.
            let _ = self.program.state.set(Arc::clone(state));
        }
    }

    /// Sends an exchange through the route and returns when it is done. Awaiting is the back-pressure,
    /// the result the acknowledgement: with each [`Outcome`] the exchange is done.
    ///
    /// # Errors
    /// When a step failed and the route's error handler did not help. It is already logged.
    ///
    /// # Cancellation
    /// Dropping the future ends the exchange at the await it has reached.
    pub async fn process(&self, exchange: &mut Exchange) -> Result<Outcome, RouteError> {
        let mut journey = self.program.metrics().map(RouteMetrics::begin);
        let result = match &self.guard {
            None => self.run(exchange).await,
            // Boxed, because it is large, and each route keeps the place for one exchange.
            Some(guard) => Box::pin(self.process_guarded(guard, exchange)).await,
        };
        if let Some(journey) = &mut journey {
            journey.end(&result);
        }
        result
    }

    /// The same for an exchange that is worked on apart from the one that it was made from, and may outlive it, as behind
    /// a queue: the work counts for each term of the exchange, so that no lock is given away before it has ended, and it
    /// ends with the first of them.
    ///
    /// # Errors
    /// As those of [`process`](Self::process), and when a term of the exchange has ended.
    ///
    /// # Cancellation
    /// As that of [`process`](Self::process).
    pub async fn process_apart(&self, exchange: &mut Exchange) -> Result<Outcome, RouteError> {
        let terms = exchange.terms().cloned().collect::<Vec<_>>();
        let Some(first) = terms.first() else { return self.process(exchange).await };
        let work = terms.iter().map(Term::hold).collect::<Result<Vec<_>, _>>();
        let _work = work.map_err(|lost| {
            let mut error = self.not_started(lost);
            self.program.log_error(&mut error, exchange);
            error
        })?;
        let result = tokio::select! {
            biased;
            () = any_expired(terms.iter()) => None,
            result = self.process(exchange) => Some(result),
        };
        // What ends too late is not acknowledged.
        let over = terms.iter().find(|term| !term.is_valid());
        match result {
            Some(result) if over.is_none() => result,
            _ => Err(self.aborted(over.unwrap_or(first))),
        }
    }

    async fn process_guarded(&self, guard: &Guard, exchange: &mut Exchange) -> Result<Outcome, RouteError> {
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
            // What ends after the deadline is neither acknowledged nor settled as a failure: the next leader gets it
            // as well.
            result = self.run(exchange) => match guard.term.check() {
                Ok(()) => result,
                Err(lost) => {
                    if result.is_ok() {
                        let (route, id) = (self.route_id(), exchange.id);
                        warn!(route, exchange = %id, "route `{route}` ended the exchange {id} too late, so it counts as not done: {lost}");
                    }
                    Err(self.aborted(&guard.term))
                }
            },
        }
    }

    /// Routes that call each other use the stack for each call: in a circle of calls, or a dead letter
    /// endpoint that fails into itself, it would end the process.
    pub(crate) async fn run(&self, exchange: &mut Exchange) -> Result<Outcome, RouteError> {
        const MAX_DEPTH: u16 = 64;
        if exchange.depth() >= MAX_DEPTH {
            let text = format!("routes call each other more than {MAX_DEPTH} deep: is there a circle?");
            // Tried again at each of these levels, it would take for ever.
            let error = StepError::new("a call", Failure::rejected(text));
            let mut error = RouteError::of(&self.program.route_id, error);
            self.program.log_error(&mut error, exchange);
            return Err(error);
        }
        let entered = exchange.enter();
        self.program.run_all(entered.exchange, self).await
    }

    /// How many exchanges of it were dropped on their way.
    #[cfg(test)]
    pub(crate) fn dropped_count(&self) -> u64 {
        self.program.dropped.count()
    }

    /// The exchange was dropped at a step, which has told of it.
    fn aborted(&self, term: &Term) -> RouteError {
        let error = StepError::new("an exchange in flight", term.leadership_lost());
        let mut error = RouteError::of(&self.program.route_id, error);
        error.set_logged();
        error
    }

    fn not_started(&self, lost: LeadershipLost) -> RouteError {
        RouteError::of(&self.program.route_id, StepError::new("a new exchange", lost))
    }
}

impl Program {
    fn set_note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}
