//! Requests to the store: each a task of its own, so that one that stalls holds up nothing.

use std::sync::Arc;
use std::time::Duration;

use router_core::error::Chain;
use tokio::time::{Instant, timeout};

use super::complaints::Complaints;
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
    complaints: Arc<Complaints>,
) -> Fate {
    let report = |error: &dyn std::fmt::Display| report(&complaints, request.target, error);
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
            report(&Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            report(&"the store did not answer in time");
            Fate::Silence
        }
    }
}

pub(crate) async fn list(
    store: Arc<dyn LeaseStore>,
    patience: Duration,
    complaints: Arc<Complaints>,
) -> Fate {
    match timeout(store.list_patience(patience), store.list()).await {
        Ok(Ok(listing)) => Fate::Listed(listing),
        Ok(Err(error)) => {
            report(&complaints, Target::List, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => Fate::Silence,
    }
}

/// When heartbeats go on missing, leadership ends; when other requests do, nobody leads.
fn report(complaints: &Complaints, target: Target, error: &dyn std::fmt::Display) {
    let what = match target {
        Target::Heartbeat => "a heartbeat of the election failed",
        Target::Lock(_) => "a lock's record cannot be written",
        Target::Kill(_) => "a session that has ended cannot be declared dead",
        Target::List => "the election's records cannot be listed",
    };
    complaints.say(what, error);
}
