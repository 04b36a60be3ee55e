//! Requests to the store: each a task of its own, so that one that stalls holds up nothing.

use std::sync::Arc;
use std::time::Duration;

use router_core::error::Chain;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::metrics;
use crate::action::{RequestId, Target};
use crate::event::Outcome;
use crate::store::{Attempt, LeaseStore, Listing, StoreError, Write};

/// What became of a request.
pub(crate) enum Fate {
    /// The store said so, or the request failed.
    Known(Outcome),
    Listed(Listing),
    /// Nobody answered. The core counts the same time itself, and needs no word of it.
    Silence,
}

pub(crate) async fn write(
    store: Arc<dyn LeaseStore>,
    request: RequestId,
    write: Write,
    attempt: Attempt,
    patience: Duration,
) -> Fate {
    let sent = Instant::now();
    match timeout(patience, store.write(write, attempt)).await {
        Ok(Ok(version)) => {
            if request.target == Target::Heartbeat {
                metrics::renewed(sent.elapsed());
            }
            Fate::Known(Outcome::Written { version })
        }
        Ok(Err(StoreError::Conflict)) => Fate::Known(Outcome::Conflict),
        Ok(Err(error)) => {
            report(request.target, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            report(request.target, &"the store did not answer in time");
            Fate::Silence
        }
    }
}

pub(crate) async fn list(store: Arc<dyn LeaseStore>, patience: Duration) -> Fate {
    match timeout(patience, store.list()).await {
        Ok(Ok(listing)) => Fate::Listed(listing),
        Ok(Err(error)) => {
            report(Target::List, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => Fate::Silence,
    }
}

/// Missing heartbeats are worth a line in the log: when they go on missing, leadership ends.
fn report(target: Target, error: &dyn std::fmt::Display) {
    match target {
        Target::Heartbeat => warn!("a heartbeat of the election failed: {error}"),
        _ => debug!(?target, "a request of the election failed: {error}"),
    }
}
