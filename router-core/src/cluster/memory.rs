//! [`MemoryCluster`]: a cluster inside one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use smol_str::SmolStr;
use tokio::sync::{OwnedMutexGuard, watch};

use super::backend::{
    Arbiter, ArbitratedCluster, BackendDescription, BackendSettings, ClusterBackend, Granted, Revoked,
};
use super::{
    ClusterError, ClusterService, ClusterView, Leader, Leadership, LeadershipLost, LockName, Member,
};
use crate::error::BoxError;
use crate::state::{StateError, StateKeeper};

/// The cluster service `memory`.
#[derive(Debug)]
pub struct MemoryBackend;

static DESCRIPTION: BackendDescription = BackendDescription {
    name: "memory",
    summary: "one process alone, which leads every lock",
    options: &[],
    metrics: &[],
};

#[async_trait]
impl ClusterBackend for MemoryBackend {
    fn description(&self) -> &'static BackendDescription {
        &DESCRIPTION
    }

    async fn open(&self, settings: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError> {
        Ok(MemoryCluster::new(settings.member()))
    }
}

/// A cluster whose members live in one process: for tests, which can take leadership away at will, and
/// for a single process that needs no other members and says so by naming this service.
///
/// # Guarantees
/// At most one member leads a lock. Work under a lost term is dropped before the next leader starts.
/// Term numbers grow by one. Locks are granted in the order in which members asked.
///
/// # Assumptions
/// None: a mutex is the arbiter.
pub struct MemoryCluster {
    hub: Arc<Hub>,
    cluster: ArbitratedCluster<MemoryArbiter>,
}

impl fmt::Debug for MemoryCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCluster").finish_non_exhaustive()
    }
}

impl MemoryCluster {
    /// A new cluster, and its first member.
    #[must_use]
    pub fn new(member: impl Into<SmolStr>) -> Arc<Self> {
        Self::member(Arc::new(Hub::default()), member.into())
    }

    /// Another member of this cluster.
    #[must_use]
    pub fn join(&self, member: impl Into<SmolStr>) -> Arc<Self> {
        Self::member(Arc::clone(&self.hub), member.into())
    }

    fn member(hub: Arc<Hub>, id: SmolStr) -> Arc<Self> {
        let local = Member::new(id);
        hub.members.send_modify(|members| members.push(local.clone()));
        let arbiter = MemoryArbiter { hub: Arc::clone(&hub), local: local.clone() };
        Arc::new(Self { hub, cluster: ArbitratedCluster::new(local, arbiter) })
    }

    /// Takes the lock away from whoever leads it now, as a partition would: its term ends at once, and
    /// work that still runs after `drain` is dropped. Does nothing when nobody leads.
    pub fn revoke(&self, lock: &LockName, drain: Duration) {
        let lock = self.hub.lock(lock);
        let term = lock.leader.borrow().as_ref().map(|leader| leader.term);
        if let Some(term) = term {
            lock.revoked.send_replace((term, drain));
        }
    }
}

impl Drop for MemoryCluster {
    fn drop(&mut self) {
        self.hub.members.send_modify(|members| members.retain(|member| member != self.cluster.local()));
    }
}

#[async_trait]
impl ClusterService for MemoryCluster {
    fn local(&self) -> &Member {
        self.cluster.local()
    }

    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError> {
        self.cluster.view(lock).await
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.cluster.leaderships()
    }

    async fn check_alive(&self) -> Result<(), String> {
        self.cluster.check_alive().await
    }

    async fn close(&self) {
        self.cluster.close().await;
    }
}

/// What all members share.
#[derive(Default)]
struct Hub {
    locks: Mutex<HashMap<LockName, Arc<MemoryLock>>>,
    members: watch::Sender<Vec<Member>>,
}

struct MemoryLock {
    /// Who has it locked leads; it guards the number of the last term.
    turn: Arc<tokio::sync::Mutex<u64>>,
    leader: watch::Sender<Option<Leader>>,
    /// The last term that was taken away, and how long its work may go on.
    revoked: watch::Sender<(u64, Duration)>,
    states: Mutex<States>,
}

/// The states of the routes under a lock.
#[derive(Default)]
struct States {
    newest_term: u64,
    by_route: HashMap<String, Value>,
}

/// The states of a lock, for one term.
struct TermStates {
    name: LockName,
    term: u64,
    lock: Arc<MemoryLock>,
}

#[async_trait]
impl StateKeeper for TermStates {
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError> {
        let states = self.lock.states.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(states.by_route.get(route).cloned())
    }

    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        let mut states = self.lock.states.lock().unwrap_or_else(PoisonError::into_inner);
        if states.newest_term != self.term {
            return Err(StateError::Deposed(LeadershipLost { lock: self.name.clone(), term: self.term }));
        }
        states.by_route.insert(route.to_owned(), value.clone());
        Ok(())
    }
}

impl Hub {
    fn lock(&self, name: &LockName) -> Arc<MemoryLock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = locks.entry(name.clone()).or_insert_with(|| {
            Arc::new(MemoryLock {
                turn: Arc::default(),
                leader: watch::Sender::new(None),
                revoked: watch::Sender::new((0, Duration::ZERO)),
                states: Mutex::default(),
            })
        });
        Arc::clone(lock)
    }
}

struct MemoryArbiter {
    hub: Arc<Hub>,
    local: Member,
}

/// The guard, and the lock that it guards.
struct MemoryGrant {
    name: LockName,
    last_term: OwnedMutexGuard<u64>,
    lock: Arc<MemoryLock>,
}

#[async_trait]
impl Arbiter for MemoryArbiter {
    type Grant = MemoryGrant;

    async fn acquire(&self, lock: &LockName) -> Result<Granted<MemoryGrant>, ClusterError> {
        const WHY: &str = "the lock was free";
        let name = lock.clone();
        let lock = self.hub.lock(&name);
        let mut last_term = Arc::clone(&lock.turn).lock_owned().await;
        *last_term += 1;
        let term = *last_term;
        lock.states.lock().unwrap_or_else(PoisonError::into_inner).newest_term = term;
        lock.leader.send_replace(Some(Leader { member: self.local.clone(), term, why: WHY.into() }));
        Ok(Granted { grant: MemoryGrant { name, last_term, lock }, term, why: WHY.into() })
    }

    async fn revoked(&self, grant: &mut MemoryGrant) -> Revoked {
        let mut revoked = grant.lock.revoked.subscribe();
        let term = *grant.last_term;
        let drain = revoked.wait_for(|(last, _)| *last >= term).await.map_or(Duration::ZERO, |last| last.1);
        Revoked { why: "it was revoked".into(), drain }
    }

    async fn release(&self, grant: MemoryGrant) {
        grant.lock.leader.send_replace(None);
    }

    fn states(&self, grant: &MemoryGrant, term: u64) -> Arc<dyn StateKeeper> {
        Arc::new(TermStates { name: grant.name.clone(), term, lock: Arc::clone(&grant.lock) })
    }

    fn leader(&self, lock: &LockName) -> watch::Receiver<Option<Leader>> {
        self.hub.lock(lock).leader.subscribe()
    }

    fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.hub.members.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> LockName {
        "lock1".parse().unwrap()
    }

    #[tokio::test]
    async fn one_member_leads_and_the_other_follows_when_it_leaves() {
        let a = MemoryCluster::new("a");
        let b = a.join("b");
        let on_a = a.view(&lock()).await.unwrap();
        let scope = on_a.lead().await.unwrap();
        let mut on_b = b.view(&lock()).await.unwrap();
        loop {
            if let Leadership::Follower { leader } = on_b.changed().await.unwrap() {
                assert_eq!((leader.member.id.as_str(), leader.term), ("a", 1));
                break;
            }
        }
        drop(on_a);
        assert!(scope.term().is_valid(), "a scope keeps its member in the election");
        drop(scope);
        assert_eq!(on_b.lead().await.unwrap().term().number(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_leader_waits_until_the_work_of_a_revoked_one_has_ended() {
        let a = MemoryCluster::new("a");
        let b = a.join("b");
        let on_a = a.view(&lock()).await.unwrap();
        let scope = on_a.lead().await.unwrap();
        let on_b = b.view(&lock()).await.unwrap();
        a.revoke(&lock(), Duration::from_secs(2));
        scope.term().lost().await;
        assert!(scope.term().check().is_err());
        let early = tokio::time::timeout(Duration::from_secs(60), on_b.lead()).await;
        assert!(early.is_err(), "b leads while the work of a is still there");
        let start = tokio::time::Instant::now();
        scope.term().expired().await;
        assert!(start.elapsed().is_zero(), "the two seconds are long over");
        drop(scope);
        assert_eq!(on_b.lead().await.unwrap().term().number(), 2);
    }

    #[tokio::test]
    async fn a_state_travels_with_the_lock_and_a_deposed_leader_cannot_move_it() {
        let a = MemoryCluster::new("a");
        let b = a.join("b");
        let on_a = a.view(&lock()).await.unwrap();
        let scope = on_a.lead().await.unwrap();
        let old = scope.term().states();
        old.store("route", &Value::from(1)).await.unwrap();
        let on_b = b.view(&lock()).await.unwrap();
        on_a.resign(Duration::from_secs(60));
        scope.term().lost().await;
        old.store("route", &Value::from(2)).await.unwrap();
        drop(scope);
        let next = on_b.lead().await.unwrap().term().states();
        assert_eq!(next.load("route").await.unwrap(), Some(Value::from(2)), "the exchange in hand was noted");
        assert_eq!(next.load("other").await.unwrap(), None);
        assert!(matches!(old.store("route", &Value::from(3)).await, Err(StateError::Deposed(_))));
        next.store("route", &Value::from(4)).await.unwrap();
        assert_eq!(next.load("route").await.unwrap(), Some(Value::from(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_resigns_stays_out_for_a_time() {
        let a = MemoryCluster::new("a");
        let view = a.view(&lock()).await.unwrap();
        let first = view.lead().await.unwrap();
        view.resign(Duration::from_secs(10));
        first.term().lost().await;
        let start = tokio::time::Instant::now();
        drop(first);
        assert_eq!(view.lead().await.unwrap().term().number(), 2);
        assert!(start.elapsed() >= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn work_keeps_its_term_while_it_is_given_up_and_nothing_after_that() {
        let a = MemoryCluster::new("a");
        let view = a.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        let term = scope.term().clone();
        view.resign(Duration::from_secs(10));
        term.lost().await;
        assert!(term.admit().is_err(), "new work does not start");
        assert!(term.check().is_ok() && term.confirm().await.is_ok(), "running work goes on");
        drop(scope);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(term.check().is_err() && term.confirm().await.is_err());
    }

    #[tokio::test]
    async fn a_view_tells_of_members_that_come_and_go() {
        let a = MemoryCluster::new("a");
        let mut view = a.view(&lock()).await.unwrap();
        assert_eq!(
            view.members_changed().await.unwrap(),
            [Member::new("a")],
            "the first call answers at once"
        );
        let b = a.join("b");
        assert_eq!(view.members_changed().await.unwrap(), [Member::new("a"), Member::new("b")]);
        drop(b);
        assert_eq!(view.members_changed().await.unwrap(), [Member::new("a")]);
        a.close().await;
        assert!(matches!(view.members_changed().await, Err(ClusterError::Closed)));
    }

    #[tokio::test]
    async fn a_late_listener_gets_the_present_state_at_once() {
        let a = MemoryCluster::new("a");
        let view = a.view(&lock()).await.unwrap();
        let _scope = view.lead().await.unwrap();
        let mut late = a.view(&lock()).await.unwrap();
        assert!(matches!(late.changed().await.unwrap(), Leadership::Leader(term) if term.number() == 1));
    }

    #[tokio::test]
    async fn closing_waits_for_the_work_and_then_views_say_so() {
        let a = MemoryCluster::new("a");
        let view = a.view(&lock()).await.unwrap();
        let result = view
            .while_leading(async |term| {
                assert_eq!(term.number(), 1);
                "done"
            })
            .await;
        assert_eq!(result.unwrap(), "done");
        a.close().await;
        assert!(matches!(view.lead().await, Err(ClusterError::Closed)));
        assert!(matches!(a.view(&lock()).await, Err(ClusterError::Closed)));
    }
}
