//! [`ArbitratedCluster`]: a cluster service over an [`Arbiter`] that never grants a lock twice.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::backend::{
    LeadershipPublisher, Look, Participants, Participation, TermControl, time_of_day_after,
};
use super::{ClusterError, ClusterService, ClusterView, Leader, Leadership, LockName, Member};
use crate::backoff::Backoff;
use crate::error::Chain;
use crate::panic::{Panicked, contain_panic};
use crate::state::{NoStates, StateKeeper};

/// Something that grants each lock to one member at a time, and cannot be wrong about it: a mutex, or
/// the kernel with its file locks. No clock is involved.
#[async_trait]
pub trait Arbiter: Send + Sync + 'static {
    /// The lock, while it is held.
    type Grant: Send;

    /// Waits until the lock is granted.
    ///
    /// # Errors
    /// If the lock cannot be acquired; the caller retries with backoff.
    ///
    /// # Cancellation
    /// Safe: a lock that was granted but not returned is given back.
    async fn acquire(&self, lock: &LockName) -> Result<Granted<Self::Grant>, ClusterError>;

    /// Completes when the grant no longer protects: somebody else could get the lock.
    ///
    /// # Cancellation
    /// Safe.
    async fn revoked(&self, grant: &mut Self::Grant) -> Revoked;

    /// How a term looks whether the grant still protects, before new work and before each side effect: for
    /// arbiters whose [`revoked`](Self::revoked) may be late because this process slept. By default it does
    /// not look.
    fn look(&self, grant: &Self::Grant) -> Option<Arc<Look>> {
        let _ = grant;
        None
    }

    /// Gives the lock back.
    async fn release(&self, grant: Self::Grant);

    /// Where the states of routes are kept in the term `term`, which begins with `grant`. The keeper may
    /// be asked after the grant was given back, and must then refuse to store.
    fn states(&self, grant: &Self::Grant, term: u64) -> Arc<dyn StateKeeper> {
        let _ = (grant, term);
        Arc::new(NoStates)
    }

    /// What an operator asks of this member about `lock`, and all later changes. By default nothing.
    fn asked(&self, lock: &LockName) -> watch::Receiver<OperatorRequest> {
        let _ = lock;
        watch::channel(OperatorRequest::default()).1
    }

    /// What keeps this member from getting `lock` beside another leader, in one clause, and all later changes: shown
    /// wherever the lock is said to have no leader. By default nothing is known.
    fn obstacle(&self, lock: &LockName) -> watch::Receiver<Option<String>> {
        let _ = lock;
        watch::channel(None).1
    }

    /// Where the locks are kept, for the lines of the log that say who leads: `in /run/locks`. By default nothing.
    fn place(&self) -> Option<String> {
        None
    }

    /// Who leads `lock`, as far as known.
    fn leader(&self, lock: &LockName) -> watch::Receiver<Option<Leader>>;

    /// All live members, and all later changes. While no one holds a receiver, it need not look for changes.
    fn members(&self) -> watch::Receiver<Vec<Member>>;
}

/// What an operator asks of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorRequest {
    /// To give this term up, so that another member leads.
    pub hand_over: Option<u64>,
    /// To give up whatever it leads, and to take nothing.
    pub drained: bool,
}

/// How long an election waits after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// For how long a member that has handed a lock over leaves it to others, if none takes it.
const HANDED_OVER_PAUSE: Duration = Duration::from_secs(1);

/// A lock that was granted.
#[derive(Debug)]
pub struct Granted<G> {
    /// The lock, while it is held.
    pub grant: G,
    /// The number of the new term, greater than all before.
    pub term: u64,
    /// Why it was granted now, for the log: `the lock was free`.
    pub why: String,
}

/// A grant that no longer protects.
#[derive(Debug)]
pub struct Revoked {
    /// Why, for the log.
    pub why: String,
    /// How long running work may go on.
    pub drain: Duration,
}

/// A [`ClusterService`] over an [`Arbiter`]: one task per lock that stands for election, leads until it
/// is told otherwise, waits for all work to end, and gives the lock back.
pub struct ArbitratedCluster<A> {
    arbiter: Arc<A>,
    local: Member,
    participants: Participants<Participant>,
    /// The tasks; each ends when its participant is dropped or `closing` is cancelled.
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl<A> fmt::Debug for ArbitratedCluster<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArbitratedCluster").finish_non_exhaustive()
    }
}

impl<A: Arbiter> ArbitratedCluster<A> {
    /// A service for the member `local`.
    pub fn new(local: Member, arbiter: A) -> Self {
        Self {
            arbiter: Arc::new(arbiter),
            local,
            participants: Participants::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// The arbiter.
    pub fn arbiter(&self) -> &A {
        &self.arbiter
    }

    /// Begins to take part in the election for `lock`.
    fn participate(&self, lock: &LockName) -> (watch::Receiver<Leadership>, Participant) {
        let (publisher, leadership) = LeadershipPublisher::with_patience(
            lock.clone(),
            self.arbiter.place().as_deref(),
            LeadershipPublisher::DEFAULT_PATIENCE,
        );
        let (resign, resignations) = mpsc::unbounded_channel();
        let left = self.closing.child_token();
        let arbiter = Arc::clone(&self.arbiter);
        let participant = Participant {
            resign,
            members: Box::new({
                let arbiter = Arc::clone(&arbiter);
                move || arbiter.members()
            }),
            _left: left.clone().drop_guard(),
        };
        let candidate = Candidate {
            arbiter,
            lock: lock.clone(),
            local: self.local.clone(),
            publisher,
            resignations,
            hindrance: Mutex::default(),
            left,
        };
        self.tasks.spawn(candidate.supervise());
        (leadership, participant)
    }
}

#[async_trait]
impl<A: Arbiter> ClusterService for ArbitratedCluster<A> {
    fn local(&self) -> &Member {
        &self.local
    }

    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError> {
        if self.closing.is_cancelled() {
            return Err(ClusterError::Closed);
        }
        Ok(self.participants.view(lock, &self.local, || self.participate(lock)))
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.participants.leaderships()
    }

    /// The task of a lock ends only after everybody has left its election.
    async fn check_alive(&self) -> Result<(), String> {
        match self.participants.abandoned() {
            Some(lock) if !self.closing.is_cancelled() => {
                Err(format!("the task of the election for `{lock}` has ended"))
            }
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A participation as views and scopes hold it; dropping the last one leaves the election.
struct Participant {
    resign: mpsc::UnboundedSender<Duration>,
    members: Box<dyn Fn() -> watch::Receiver<Vec<Member>> + Send + Sync>,
    _left: DropGuard,
}

impl Participation for Participant {
    fn members(&self) -> watch::Receiver<Vec<Member>> {
        (self.members)()
    }

    fn resign(&self, stay_out: Duration) {
        // The task is gone only when the service is closed, and then there is nothing to give up.
        let _ = self.resign.send(stay_out);
    }
}

/// The task of one participation.
struct Candidate<A: Arbiter> {
    arbiter: Arc<A>,
    lock: LockName,
    local: Member,
    publisher: LeadershipPublisher,
    resignations: mpsc::UnboundedReceiver<Duration>,
    /// Why this member does not get the lock now, whichever member led it last; said whenever the lock has no leader.
    hindrance: Mutex<Option<String>>,
    /// Cancelled when the participation is dropped or the service is closed.
    left: CancellationToken,
}

/// For how long a candidate does not try.
enum StayOut {
    For(Duration),
    /// Until another member leads, if one does soon.
    UntilTaken,
}

/// Why a term ends.
enum End {
    Left,
    Resigned(Duration),
    /// An operator has asked for it.
    Asked,
    Revoked(Revoked),
    /// Why, for the log.
    Panicked(String),
}

impl<A: Arbiter> Candidate<A> {
    /// Stands for the lock for as long as that is wanted, also after a panic, in an arbiter or a log: without this
    /// task the process would stay a standby that never takes over.
    async fn supervise(mut self) {
        while let Err(Panicked(why)) = contain_panic(async {
            self.contend().await;
            Ok(())
        })
        .await
        {
            // The grant is gone with what held it, and so is the term.
            let report = || {
                error!(lock = %self.lock, "the election for `{}` panicked, and begins anew: {why}", self.lock);
                self.publisher.follow(None, "the election panicked");
            };
            // Reporting may be what panics. Nothing is left half done by it.
            let _ = catch_unwind(AssertUnwindSafe(report));
            tokio::select! {
                biased;
                () = self.left.cancelled() => return,
                () = tokio::time::sleep(PANIC_PAUSE) => {}
            }
        }
    }

    async fn contend(&mut self) {
        let mut stay_out = StayOut::For(Duration::ZERO);
        while let Some(granted) = self.stand(stay_out).await {
            match self.lead(granted).await {
                End::Left => return,
                End::Resigned(duration) => stay_out = StayOut::For(duration),
                End::Asked => stay_out = StayOut::UntilTaken,
                End::Revoked(_) => stay_out = StayOut::For(Duration::ZERO),
                End::Panicked(_) => stay_out = StayOut::For(PANIC_PAUSE),
            }
        }
    }

    /// Stands by until the lock is granted, and keeps telling who leads; `None`: left.
    async fn stand(&self, stay_out: StayOut) -> Option<Granted<A::Grant>> {
        let mut leaders = self.arbiter.leader(&self.lock);
        leaders.mark_changed();
        let mut obstacles = self.arbiter.obstacle(&self.lock);
        obstacles.mark_changed();
        let mut acquiring = std::pin::pin!(async {
            self.stay_out(stay_out).await;
            self.hinder(None);
            self.acquire_unless_drained().await
        });
        loop {
            tokio::select! {
                biased;
                () = self.left.cancelled() => return None,
                granted = &mut acquiring => return Some(granted),
                Ok(()) = leaders.changed() => {
                    let leader = leaders.borrow_and_update().clone();
                    // Our own last term is no news to us.
                    let leader = leader.filter(|leader| leader.member != self.local);
                    self.publisher.follow(leader, "it gave the lock up or ended");
                    self.explain(&obstacles);
                }
                Ok(()) = obstacles.changed() => {
                    obstacles.mark_unchanged();
                    self.explain(&obstacles);
                }
            }
        }
    }

    /// Says why this member does not get the lock, as far as that is known.
    fn explain(&self, obstacle: &watch::Receiver<Option<String>>) {
        let hindrance = self.hindrance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = hindrance.as_ref().or(obstacle.borrow().as_ref()) {
            self.publisher.explain(why);
        }
    }

    fn hinder(&self, why: Option<String>) {
        if let Some(why) = &why {
            self.publisher.explain(why);
        }
        *self.hindrance.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    async fn stay_out(&self, stay_out: StayOut) {
        let (duration, did) = match stay_out {
            StayOut::For(Duration::ZERO) => return,
            StayOut::For(duration) => (duration, "resigned"),
            // It takes no lock anyway, and says so.
            StayOut::UntilTaken if self.arbiter.asked(&self.lock).borrow().drained => return,
            StayOut::UntilTaken => (HANDED_OVER_PAUSE, "handed it over"),
        };
        let until = time_of_day_after(duration);
        self.hinder(Some(format!("this member {did} and leaves the lock to others until {until}")));
        if let StayOut::For(_) = stay_out {
            return tokio::time::sleep(duration).await;
        }
        let mut leaders = self.arbiter.leader(&self.lock);
        let taken =
            leaders.wait_for(|leader| leader.as_ref().is_some_and(|leader| leader.member != self.local));
        // Whoever takes it later than that finds this member in its way, which does no harm.
        let _ = tokio::time::timeout(duration, taken).await;
    }

    async fn acquire_unless_drained(&self) -> Granted<A::Grant> {
        let mut asked = self.arbiter.asked(&self.lock);
        loop {
            if asked.borrow().drained {
                self.hinder(Some("this member is drained, so another one must take it".into()));
            }
            until(&mut asked, |asked| !asked.drained).await;
            self.hinder(None);
            tokio::select! {
                biased;
                () = until(&mut asked, |asked| asked.drained) => {}
                granted = self.acquire() => return granted,
            }
        }
    }

    async fn acquire(&self) -> Granted<A::Grant> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            match self.arbiter.acquire(&self.lock).await {
                Ok(granted) => return granted,
                Err(error) => {
                    let (pause, why) = (backoff.next(None), Chain(&error).to_string());
                    warn!(lock = %self.lock, "cannot stand for `{}`, trying again in {pause:.1?}: {why}", self.lock);
                    self.hinder(Some(why));
                    tokio::time::sleep(pause).await;
                    self.hinder(None);
                }
            }
        }
    }

    /// Leads, and gives the lock back when all work has ended, also after a panic.
    async fn lead(&mut self, granted: Granted<A::Grant>) -> End {
        let Granted { mut grant, term, why } = granted;
        // Whoever resigned before this term meant an earlier one.
        while self.resignations.try_recv().is_ok() {}
        let control = TermControl::new(self.lock.clone(), term, self.local.clone(), None);
        let led = contain_panic(async { Ok(self.lead_with(&mut grant, &control, &why).await) }).await;
        let end = match led {
            Ok(end) => end,
            Err(Panicked(why)) => {
                control.lose(Duration::ZERO);
                control.joined().await;
                let report = || {
                    error!(lock = %self.lock, "the term of `{}` ends: the election panicked: {why}", self.lock);
                    self.publisher.follow(None, "the election panicked");
                };
                // Reporting may be what panics. Nothing is left half done by it.
                let _ = catch_unwind(AssertUnwindSafe(report));
                End::Panicked(format!("the election panicked: {why}"))
            }
        };
        self.arbiter.release(grant).await;
        end
    }

    async fn lead_with(&mut self, grant: &mut A::Grant, control: &TermControl, why: &str) -> End {
        let term = control.term().number();
        control.keep_states_in(self.arbiter.states(grant, term));
        if let Some(look) = self.arbiter.look(grant) {
            control.look_with(look);
        }
        self.publisher.lead(control.term().clone(), why);
        let mut asked = self.arbiter.asked(&self.lock);
        let give_up = |asked: &OperatorRequest| asked.drained || asked.hand_over == Some(term);
        let end = tokio::select! {
            biased;
            () = self.left.cancelled() => End::Left,
            () = until(&mut asked, give_up) => End::Asked,
            Some(stay_out) = self.resignations.recv() => End::Resigned(stay_out),
            revoked = self.arbiter.revoked(grant) => End::Revoked(revoked),
        };
        // First the term ends, then the views hear of it: who acts on the news finds the term ended.
        match &end {
            End::Left | End::Resigned(_) | End::Asked => control.release(),
            End::Revoked(revoked) => control.lose(revoked.drain),
            End::Panicked(_) => control.lose(Duration::ZERO),
        }
        self.publisher.follow(None, end.why());
        if control.has_work() {
            let why = end.why();
            self.publisher.explain(&format!("{why}, and its work under term {term} has not ended yet"));
        }
        tokio::select! {
            biased;
            () = control.joined() => {}
            revoked = self.arbiter.revoked(grant) => {
                control.lose(revoked.drain);
                control.joined().await;
            }
        }
        end
    }
}

/// Waits until what is asked is like that; for ever, where nobody can ask.
async fn until(asked: &mut watch::Receiver<OperatorRequest>, is_so: impl FnMut(&OperatorRequest) -> bool) {
    if asked.wait_for(is_so).await.is_err() {
        std::future::pending().await
    }
}

impl End {
    fn why(&self) -> &str {
        match self {
            Self::Left => "this member leaves",
            Self::Resigned(_) => "this member resigned",
            Self::Asked => "an operator asked for it",
            Self::Revoked(revoked) => &revoked.why,
            Self::Panicked(why) => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// An arbiter with an error in it, which panics twice.
    struct Panicking {
        tries: AtomicUsize,
    }

    #[async_trait]
    impl Arbiter for Panicking {
        type Grant = ();

        async fn acquire(&self, _: &LockName) -> Result<Granted<()>, ClusterError> {
            match self.tries.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => panic!("an error"),
                tries => Ok(Granted { grant: (), term: tries as u64, why: "it was free".into() }),
            }
        }

        async fn revoked(&self, (): &mut ()) -> Revoked {
            if self.tries.load(Ordering::Relaxed) == 3 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                panic!("another one, under a lock that is held");
            }
            std::future::pending().await
        }

        async fn release(&self, (): ()) {}

        fn leader(&self, _: &LockName) -> watch::Receiver<Option<Leader>> {
            watch::Sender::new(None).subscribe()
        }

        fn members(&self) -> watch::Receiver<Vec<Member>> {
            watch::Sender::new(Vec::new()).subscribe()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_election_that_has_panicked_begins_anew() {
        let arbiter = Panicking { tries: AtomicUsize::new(0) };
        let cluster = ArbitratedCluster::new(Member::new("a"), arbiter);
        let view = cluster.view(&"lock1".parse().unwrap()).await.unwrap();
        let scope = view.lead().await.unwrap();
        assert_eq!(scope.term().number(), 2, "the third try is granted");
        // The panic ends the term. Another one begins only when its work has ended.
        tokio::time::timeout(Duration::from_secs(60), scope.term().lost()).await.unwrap();
        assert!(!scope.term().is_valid());
        drop(scope);
        let scope = view.lead().await.unwrap();
        assert_eq!(scope.term().number(), 3);
        cluster.check_alive().await.unwrap();
        drop(scope);
        drop(view);
        cluster.close().await;
    }
}
