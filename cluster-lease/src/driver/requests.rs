//! Requests to the store: each a task of its own, so that one that stalls holds up nothing.

use std::sync::Arc;
use std::time::Duration;

use router_core::error::Chain;
use tokio::time::{Instant, timeout};

use super::complaints::{Complaints, Doing};
use super::metrics;
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
    complaints: Arc<Complaints>,
) -> Fate {
    let doing = Doing::from(request.target);
    let sent = Instant::now();
    match timeout(patience, store.write(write, attempt)).await {
        Ok(Ok(version)) => {
            complaints.works(doing);
            if request.target == Target::Heartbeat {
                metrics::renewed(sent.elapsed());
            }
            Fate::Known(Outcome::Written { version })
        }
        Ok(Err(StoreError::Conflict)) => {
            complaints.works(doing);
            Fate::Known(Outcome::Conflict)
        }
        Ok(Err(error)) => {
            complaints.say(doing, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            complaints.say(doing, &NO_ANSWER);
            Fate::Silence
        }
    }
}

pub(crate) async fn list(
    store: Arc<dyn LeaseStore>,
    asked: Version,
    patience: Duration,
    complaints: Arc<Complaints>,
) -> Fate {
    match timeout(store.list_patience(patience), store.list()).await {
        Ok(Ok(listing)) => {
            complaints.works(Doing::List);
            Fate::Listed(listing, asked)
        }
        Ok(Err(error)) => {
            complaints.say(Doing::List, &Chain(&error));
            Fate::Known(Outcome::Unknown)
        }
        Err(_) => {
            complaints.say(Doing::List, &NO_ANSWER);
            Fate::Silence
        }
    }
}
