//! [`Detached`]: blocks that run on their own, without the exchange that began them.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

use super::runner::Handling;
use super::{Block, Pipeline};
use crate::cluster::{LeadershipLost, Term};
use crate::exchange::{Exchange, any_expired};

/// The blocks of a route that run on their own, and the tasks of its consumer.
pub(super) struct Detached {
    tasks: TaskTracker,
    /// Drops those that run. Replaced each time: the route may be started again.
    abort: Mutex<CancellationToken>,
}

impl Default for Detached {
    fn default() -> Self {
        let tasks = TaskTracker::new();
        tasks.close();
        Self { tasks, abort: Mutex::default() }
    }
}

impl Pipeline {
    /// See [`Runner::detach`](super::Runner::detach).
    pub(super) fn detach(
        &self,
        block: Block,
        mut exchange: Exchange,
        held: impl Send + 'static,
    ) -> Result<(), LeadershipLost> {
        // Counted before the exchange that begins it can end.
        let work = exchange.terms().map(Term::hold).collect::<Result<Vec<_>, _>>()?;
        let terms = exchange.terms().cloned().collect::<Vec<_>>();
        let detached = self.program.detached.get_or_init(Detached::default);
        let aborted = detached.abort.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let guard = self.guard.as_ref().map(|guard| (guard.in_flight.token(), guard.over.clone()));
        let pipeline = self.clone();
        detached.tasks.spawn(async move {
            let over = async {
                match &guard {
                    Some((_, over)) => over.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = aborted.cancelled() => {}
                () = over => {}
                () = any_expired(terms.iter()) => {}
                // How it ended is logged, as for any exchange. It was no part of the one that began it.
                _ = pipeline.program.run(block, &mut exchange, &pipeline, Handling::ByRoute) => {}
            }
            drop((work, held));
        });
        Ok(())
    }

    /// A task of the route's consumer: a route that is aborted has ended when that has, and what it had in flight was
    /// told. Its owner still aborts it.
    pub fn track<F: Future>(&self, task: F) -> TrackedFuture<F> {
        self.program.detached.get_or_init(Detached::default).tasks.track_future(task)
    }

    /// Completes when no block or tracked task of this route runs on its own.
    pub(crate) async fn detached_ended(&self) {
        if let Some(detached) = self.program.detached.get() {
            detached.tasks.wait().await;
        }
    }

    /// Drops the blocks that run on their own.
    pub(crate) fn abort_detached(&self) {
        if let Some(detached) = self.program.detached.get() {
            let mut abort = detached.abort.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *abort).cancel();
        }
    }
}
