//! [`LeaseCluster`]: the cluster service.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::backend::{LeadershipPublisher, Participants, Participation};
use router_core::cluster::{ClusterError, ClusterService, ClusterView, Leadership, LockName, Member};
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::SystemClock;
use super::command::Command;
use super::election::Environment;
use super::holds::Holds;
use super::metrics;
use super::sentinel;
use super::settings::{LeaseClusterError, LeaseClusterSettings};
use super::supervisor::supervise;
use crate::record::{Death, SessionId};
use crate::rendezvous::{Candidate, name_hash};
use crate::store::LeaseStore;

/// A cluster service over any [`LeaseStore`]: one session, one heartbeat and one watch for each process,
/// whatever the number of locks. A member that holds nothing sends nothing.
///
/// # Guarantees
/// No two members run guarded work of one lock at the same time, and term numbers rise with every term,
/// even when records are deleted. A leader whose store does not answer steps down at its deadline, also
/// when the runtime is blocked: the deadline is enforced by a thread of its own, and a process whose
/// guarded work outlives it is aborted (see [`strict`](LeaseClusterSettings::strict)). A lock that is given
/// up is free as soon as its work has ended; one whose leader vanished is free after the takeover wait.
/// A panic inside the election ends all leadership at once and begins a new session.
///
/// # Assumptions
/// The store keeps the guarantees of [`LeaseStore`]. The rates of the members' clocks err by less than
/// the timing allows; their offsets do not matter. All members have the same timing. Nobody else writes a
/// holder into a record; deleting records is allowed. The store's history is not rolled back.
///
/// Processes are told apart by random numbers of 122 bits that each draws at its start. A process that
/// sees a heartbeat of its session that it never sent gives up everything and draws a new number, so two
/// equal ones do not stay unnoticed for long. Until then both copies of a process whose memory was cloned
/// while it led may work, and two that send in step see nothing: do not resume a snapshot of a virtual
/// machine while the original, or another copy, runs.
///
/// A side effect that is already past its check when the process is suspended may still happen, and the
/// clocks of a virtual machine may stand still while it is paused. [`Term::confirm`] narrows the second
/// gap; only a sink that refuses smaller term numbers closes both.
///
/// [`Term::confirm`]: router_core::cluster::Term::confirm
///
/// ```no_run
/// use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryStore};
/// use router_core::cluster::{ClusterService as _, Member};
///
/// # async fn example() -> Result<(), router_core::error::BoxError> {
/// // Any store: this one is in the memory of the process.
/// let store = MemoryStore::new();
/// let cluster = LeaseCluster::start(store.handle(1), LeaseClusterSettings::new(Member::new("a")))?;
/// cluster.view(&"lock1".parse()?).await?.while_leading(async |term| println!("{}", term.number())).await?;
/// # Ok(())
/// # }
/// ```
pub struct LeaseCluster {
    local: Member,
    office: Arc<ElectionHandle>,
    participants: Participants<Participant>,
    generations: AtomicU64,
    /// The election's loop, and the sentinel where it is a task.
    tasks: TaskTracker,
    closing: CancellationToken,
    /// How long a takeover may take when all is well.
    patience: Duration,
    place: Option<String>,
    /// Ends terms at their deadline; `None` where it is a task.
    sentinel: Option<JoinHandle<()>>,
}

impl fmt::Debug for LeaseCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseCluster").finish_non_exhaustive()
    }
}

/// The way to the election's loop. The loop ends when the last one who knows the way is gone.
struct ElectionHandle {
    inbox: mpsc::UnboundedSender<Command>,
    members: watch::Receiver<Vec<Member>>,
    sessions: watch::Receiver<Vec<(SessionId, Member)>>,
    drained: watch::Receiver<bool>,
}

impl ElectionHandle {
    /// The loop is gone only when the cluster is closed, and then nothing is left to do.
    fn tell(&self, command: Command) {
        let _ = self.inbox.send(command);
    }
}

impl Drop for ElectionHandle {
    fn drop(&mut self) {
        self.tell(Command::Close { done: None });
    }
}

impl LeaseCluster {
    /// Starts the election of one member. Needs the runtime of tokio with its timers.
    ///
    /// # Errors
    /// When the member has no name, or the system has no random numbers or no threads.
    pub fn start(
        store: impl LeaseStore,
        settings: LeaseClusterSettings,
    ) -> Result<Arc<Self>, LeaseClusterError> {
        let identity = settings.identity()?;
        let local = settings.member.clone();
        let store: Arc<dyn LeaseStore> = Arc::new(store);
        let clock = settings.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        let (inbox, told) = mpsc::unbounded_channel();
        let holds = Holds::new(clock, Arc::clone(&store), inbox.clone(), settings.timing, settings.strict);
        let holds = Arc::new(holds.map_err(LeaseClusterError::Sentinel)?);
        let (tasks, quit) = (TaskTracker::new(), CancellationToken::new());
        let sentinel = sentinel::start(&holds, &quit, &tasks).map_err(LeaseClusterError::Sentinel)?;
        metrics::show();
        let members = watch::Sender::new(vec![local.clone()]);
        let (sessions, drained) = (watch::Sender::new(Vec::new()), watch::Sender::new(false));
        let office = ElectionHandle {
            inbox,
            members: members.subscribe(),
            sessions: sessions.subscribe(),
            drained: drained.subscribe(),
        };
        office.tell(Command::Candidates(candidates(&settings.candidates)));
        let patience = settings.timing.takeover_wait() + settings.timing.heartbeat();
        let place = settings.place.clone();
        let around = Environment {
            local: local.clone(),
            timing: settings.timing,
            store,
            holds,
            members,
            sessions,
            drained,
            observer: settings.observer.clone(),
            warnings: Arc::default(),
        };
        tasks.spawn(supervise(around, settings, identity, told, quit));
        Ok(Arc::new(Self {
            local,
            office: Arc::new(office),
            participants: Participants::default(),
            generations: AtomicU64::new(0),
            tasks,
            closing: CancellationToken::new(),
            patience,
            place,
            sentinel,
        }))
    }

    /// Gives up all locks and takes none. Returns when none is held any more, or after
    /// [`undrain`](Self::undrain). Where the store does not answer, that is when no work is left and the
    /// session's deadline has passed.
    ///
    /// # Cancellation
    /// Dropping the future does not end the draining.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        self.office.tell(Command::Drain { done });
        // An error means that there is nothing to wait for any more.
        let _ = drained.await;
    }

    /// Stands for election again after [`drain`](Self::drain).
    pub fn undrain(&self) {
        self.office.tell(Command::Undrain);
    }

    /// Changes who may campaign and with which weights; see [`LeaseClusterSettings::candidates`].
    pub fn set_candidates(&self, candidates: &[(SmolStr, u32)]) {
        self.office.tell(Command::Candidates(self::candidates(candidates)));
    }

    /// Members that the backend knows of beside those that hold or take something, for
    /// [`ClusterView::members`]. One that is on the same host as a member with a session is that member.
    pub fn set_others(&self, members: Vec<Member>) {
        self.office.tell(Command::Others(members));
    }

    /// The sessions that are not known to be dead, with their members, and all later changes. For backends
    /// that know something of processes: see [`report`](Self::report).
    #[must_use]
    pub fn sessions(&self) -> watch::Receiver<Vec<(SessionId, Member)>> {
        self.office.sessions.clone()
    }

    /// Reports a session as gone, so that its locks are taken sooner. [`Death::Proof`] only when that very
    /// process is known to have ended: its locks are then led by others at once. [`Death::Weak`] for
    /// everything else; its locks still rest for the takeover wait since it was last heard of.
    pub fn report(&self, session: SessionId, death: Death) {
        self.office.tell(Command::Evidence { session, death });
    }

    /// Begins to take part in the election for `lock`.
    fn participate(&self, lock: &LockName) -> (watch::Receiver<Leadership>, Participant) {
        let (publisher, leadership) =
            LeadershipPublisher::with_patience(lock.clone(), self.place.as_deref(), self.patience);
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        self.office.tell(Command::View { lock: lock.clone(), generation, publisher });
        (leadership, Participant { office: Arc::clone(&self.office), lock: lock.clone(), generation })
    }
}

fn candidates(named: &[(SmolStr, u32)]) -> Vec<Candidate> {
    named.iter().map(|(name, weight)| Candidate { member: name_hash(name), weight: *weight }).collect()
}

#[async_trait]
impl ClusterService for LeaseCluster {
    fn local(&self) -> &Member {
        &self.local
    }

    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError> {
        if self.closing.is_cancelled() {
            return Err(ClusterError::Closed);
        }
        Ok(self.participants.view(lock, &self.local, || self.participate(lock)))
    }

    fn drained(&self) -> watch::Receiver<bool> {
        self.office.drained.clone()
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.participants.leaderships()
    }

    /// Waits for a turn of the election's loop.
    async fn check_alive(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.office.tell(Command::Ping { reply });
        let turned = answer.await.is_ok();
        if self.closing.is_cancelled() {
            return Ok(());
        }
        if self.sentinel.as_ref().is_some_and(JoinHandle::is_finished) {
            return Err("the sentinel of the election, which ends terms at their deadline, has ended".into());
        }
        if turned { Ok(()) } else { Err("the loop of the election has ended".into()) }
    }

    /// Waits for the work under all locks, however long that takes, and for the answers of the store, but
    /// for these no longer than until the session's deadline, after which others take over by expiry.
    async fn close(&self) {
        self.closing.cancel();
        let (done, closed) = oneshot::channel();
        self.office.tell(Command::Close { done: Some(done) });
        // An error means that the loop has ended.
        let _ = closed.await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A participation as views and scopes hold it; dropping the last one leaves the election.
struct Participant {
    office: Arc<ElectionHandle>,
    lock: LockName,
    generation: u64,
}

impl Participation for Participant {
    fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.office.members.clone()
    }

    fn resign(&self, stay_out: Duration) {
        self.office.tell(Command::Resign { lock: self.lock.clone(), stay_out });
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.office.tell(Command::Unview { lock: self.lock.clone(), generation: self.generation });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::clock::TokioClock;
    use crate::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_view_that_begins_before_the_end_of_the_one_before_is_reported_leads() {
        let (store, lock) = (MemoryStore::new(), "lock1".parse().unwrap());
        store.create_free(&lock);
        let settings = LeaseClusterSettings::new(Member::new("a")).clock(Arc::new(TokioClock::default()));
        let mut cluster = LeaseCluster::start(store.handle(1), settings).unwrap();
        let first = cluster.view(&lock).await.unwrap();
        let number = first.lead().await.unwrap().term().number();
        // What another thread sees between the last drop of a view and the report of its end.
        Arc::get_mut(&mut cluster).unwrap().participants = Participants::default();
        let second = cluster.view(&lock).await.unwrap();
        drop(first);
        let scope = tokio::time::timeout(Duration::from_secs(60), second.lead()).await.unwrap().unwrap();
        assert!(scope.term().number() > number);
        assert!(scope.term().is_valid());
        drop((scope, second));
        cluster.close().await;
    }
}
