//! That who leads is asked, and not remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bactrian::admin::AdminListener;
use bactrian::core::cluster::ClusterError;
use bactrian::core::cluster::backend::{Authority, TermControl};
use bactrian::prelude::*;
use http::StatusCode;

use crate::metrics::value;
use crate::process::{get, status};

/// Authority that lasts until somebody says otherwise.
#[derive(Default)]
struct Lapsing(AtomicBool);

#[async_trait]
impl Authority for Lapsing {
    fn until_fence(&self) -> Duration {
        if self.0.load(Ordering::SeqCst) { Duration::ZERO } else { Duration::MAX }
    }

    fn until_abort(&self) -> Duration {
        self.until_fence()
    }

    async fn confirm(&self) -> bool {
        false
    }
}

/// A member that leads one lock, and whose loop is held up: it publishes nothing any more.
struct HeldUp {
    local: Member,
    term: TermControl,
    wanted: AtomicBool,
}

#[async_trait]
impl ClusterService for HeldUp {
    fn local(&self) -> &Member {
        &self.local
    }

    async fn view(&self, _: &LockName) -> Result<ClusterView, ClusterError> {
        Err(ClusterError::Closed)
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        let term = self.term.term();
        let lock = (term.lock().clone(), Leadership::Leader(term.clone()));
        self.wanted.load(Ordering::SeqCst).then_some(lock).into_iter().collect()
    }

    async fn check_alive(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {}
}

#[tokio::test]
async fn from_its_deadline_on_nobody_is_told_that_it_leads() {
    let (local, authority) = (Member::new("a"), Arc::new(Lapsing::default()));
    let lock = "expiry".parse().unwrap();
    let term = TermControl::new(lock, 7, local.clone(), Some(Arc::clone(&authority) as _));
    let cluster = Arc::new(HeldUp { local, term, wanted: AtomicBool::new(true) });
    let listener = AdminListener::bind("127.0.0.1:0").unwrap();
    let router = bactrian::router().cluster(Arc::clone(&cluster) as _).build().unwrap();
    let admin = listener.serve(&router).unwrap();
    let at = admin.address();
    let gauges = async || {
        let leader = value(at, "bactrian_leader{lock=\"expiry\"}").await;
        (leader, value(at, "bactrian_leader_term{lock=\"expiry\"}").await)
    };
    assert_eq!(gauges().await, (Some(1.0), Some(7.0)));
    assert_eq!(status(at, "leaderz/expiry").await, StatusCode::OK);

    authority.0.store(true, Ordering::SeqCst);
    assert_eq!(gauges().await, (Some(0.0), Some(0.0)));
    let (code, why) = get(at, "leaderz/expiry").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(why, "standby, no leader is known: the deadline of term 7 has passed\n");

    authority.0.store(false, Ordering::SeqCst);
    assert_eq!(gauges().await, (Some(1.0), Some(7.0)));
    cluster.wanted.store(false, Ordering::SeqCst);
    assert_eq!(gauges().await, (Some(0.0), Some(0.0)), "a lock that is no longer wanted is not led");
    assert_eq!(status(at, "leaderz/expiry").await, StatusCode::NOT_FOUND);
}
