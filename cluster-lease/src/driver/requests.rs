//! Requests to the store: each a task of its own, so that one that stalls holds up nothing.

use std::sync::Arc;
use std::time::Duration;

use router_core::error::Chain;
use tokio::time::{Instant, timeout};

use super::metrics;
use super::warn_limiter::{Operation, WarnLimiter};
use crate::action::{RequestId, Target};
use crate::event::Outcome;
use crate::record::Version;
use crate::store::{Attempt, LeaseStore, Listing, StoreError, Write};

const NO_ANSWER: &str = "the store did not answer in time";

/// What became of a request.
pub(crate) enum Fate {
    /// The store said so, or the request failed.
    Known(Outcome),
    /// And what was known when it was asked for.
    Listed(Listing, Version),
    /// Nobody answered. The core counts the same time itself, and needs no word of it.
    Silence,
}

pub(crate) async fn write(
    store: Arc<dyn LeaseStore>,
    request: RequestId,
    write: Write,
    attempt: Attempt,
    patience: Duration,
    warnings: Arc<WarnLimiter>,
) -> Fate {
    let doing = Operation::from(request.target);
    let sent = Instant::now();
    match timeout(patience, store.write(write, attempt)).await {
        Ok(Ok(version)) => {
            warnings.works(doing);
            if request.target == Target::Heartbeat {
                metrics::renewed(sent.elapsed());
            }
            Fate::Known(Outcome::Written { version })
        }
        Ok(Err(StoreError::Conflict)) => {
            warnings.works(doing);
            Fate::Known(Outcome::Conflict)
        }
        Ok(Err(error)) => {
            warnings.say(doing, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            warnings.say(doing, &NO_ANSWER);
            Fate::Silence
        }
    }
}

pub(crate) async fn list(
    store: Arc<dyn LeaseStore>,
    asked: Version,
    patience: Duration,
    warnings: Arc<WarnLimiter>,
) -> Fate {
    match timeout(store.list_patience(patience), store.list()).await {
        Ok(Ok(listing)) => {
            warnings.works(Operation::List);
            Fate::Listed(listing, asked)
        }
        Ok(Err(error)) => {
            warnings.say(Operation::List, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            warnings.say(Operation::List, &NO_ANSWER);
            Fate::Silence
        }
    }
}
