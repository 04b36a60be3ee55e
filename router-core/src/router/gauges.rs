//! The gauges of leadership.

use std::sync::PoisonError;
use std::time::Duration;

use super::Shared;
use crate::cluster::Leadership;
use crate::metrics::{LEADER, LEADER_TERM, WITHOUT_LEADER_SECONDS};

/// Sets them to what is true now. One at a time, or an older truth could replace a newer one.
pub(super) fn refresh(shared: &Shared) {
    let Some(cluster) = &shared.environment.cluster else { return };
    let mut shown = shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
    let mut gone = std::mem::take(&mut *shown);
    for (lock, leadership) in cluster.leaderships() {
        let (leads, term, vacant) = match leadership {
            Leadership::Leader(term) if term.is_valid() => (1.0, term.number(), Duration::ZERO),
            // Its deadline has passed a moment ago.
            Leadership::Leader(_) => (0.0, 0, Duration::ZERO),
            Leadership::Follower { leader } => (0.0, leader.term, Duration::ZERO),
            Leadership::Vacant(vacancy) => (0.0, 0, vacancy.lasts()),
        };
        WITHOUT_LEADER_SECONDS.gauge(&[lock.as_str()]).set(vacant.as_secs_f64());
        LEADER.gauge(&[lock.as_str()]).set(leads);
        #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
        LEADER_TERM.gauge(&[lock.as_str()]).set(term as f64);
        gone.remove(&lock);
        shown.insert(lock);
    }
    // This process has left their elections.
    for lock in gone {
        LEADER.gauge(&[lock.as_str()]).set(0.0);
        LEADER_TERM.gauge(&[lock.as_str()]).set(0.0);
        WITHOUT_LEADER_SECONDS.gauge(&[lock.as_str()]).set(0.0);
    }
}
